"""Learning rates by epoch, as functions of the epoch alone, so that resuming needs no state."""

import math
from dataclasses import dataclass
from typing import Protocol

from supernet.ranges import Count, Fraction, NonNegative, Portion, Positive, Share, Whole, ranged


class Schedule(Protocol):
    """`schedule(start, epoch, epochs)` is the learning rate in `epoch` (0 to epochs - 1) of a run that starts with `start`."""

    def __call__(self, start: float, epoch: float, epochs: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return start


@ranged
@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `minimum`, reached after the last epoch, or after `over` epochs. A run that is shorter leaves the rest
    out; a longer one goes back up along the cosine and down again (ENAS on NAS-Bench-201)."""

    minimum: NonNegative = 0.0
    over: Count | None = None

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        over = epochs if self.over is None else self.over
        return self.minimum + (start - self.minimum) * (1 + math.cos(math.pi * epoch / over)) / 2


@ranged
@dataclass(frozen=True)
class CosineRestarts:
    """Half cosines from `start` to `minimum` one after the other, the first over `first` epochs, each next `factor` times as long
    (Loshchilov & Hutter 2017, Sec. 3; ENAS: 10 and 2)."""

    first: Count = 10
    factor: Count = 2
    minimum: NonNegative = 0.0

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        length = self.first
        while epoch >= length:
            epoch, length = epoch - length, length * self.factor
        return Cosine(self.minimum)(start, epoch, length)


@ranged
@dataclass(frozen=True)
class CosineAfterWarmUp:
    """A half cosine of its own in the first `warm_up_epochs`, from `warm_up_lr` to 0, then one from `start` to `minimum` over the epochs
    that are left (ProxylessNAS: 40 and 0.05, while the alphas rest)."""

    warm_up_epochs: Whole
    warm_up_lr: Positive
    minimum: NonNegative = 0.0

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        if epoch < self.warm_up_epochs:
            return Cosine()(self.warm_up_lr, epoch, self.warm_up_epochs)
        return Cosine(self.minimum)(start, epoch - self.warm_up_epochs, max(1, epochs - self.warm_up_epochs))


@ranged
@dataclass(frozen=True)
class Exponential:
    """`start * gamma ** epoch` (DARTS on ImageNet: gamma 0.97)."""

    gamma: Share

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return start * self.gamma**epoch


@ranged
@dataclass(frozen=True)
class Linear:
    """A straight line from `start` to `minimum`, reached after the last epoch."""

    minimum: NonNegative = 0.0

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return start + (self.minimum - start) * epoch / epochs


def risen(start: float, begin: float, epoch: float, rise: float) -> float:
    """On a straight line from `begin` times `start` in the beginning to `start` after `rise` epochs."""
    return start * (begin + (1 - begin) * epoch / rise)


@ranged
@dataclass(frozen=True)
class CosineAfterRise:
    """A straight line from `begin` times `start` up to `start` over the first `share` of the epochs, then half a cosine down to `minimum`
    over the rest. For rates that are set at every step: a whole epoch at `begin` would be long (`lr_every=step`)."""

    share: Portion = 0.05
    begin: Share = 0.01
    minimum: NonNegative = 0.0

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        rise = self.share * epochs
        if epoch < rise:
            return risen(start, self.begin, epoch, rise)
        return Cosine(self.minimum)(start, epoch - rise, epochs - rise)


@ranged
@dataclass(frozen=True)
class Triangle:
    """A straight line from `begin` times `start` up to `start` over the first `share` of the epochs, then one down to `end` times it: the
    schedule of short trainings (Smith & Topin 2018; airbench on CIFAR-10: 0.2, 0.23, 0.07)."""

    share: Portion = 0.23
    begin: Share = 0.2
    end: Share = 0.07

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        rise = self.share * epochs
        if epoch < rise:
            return risen(start, self.begin, epoch, rise)
        return start * (1 + (self.end - 1) * (epoch - rise) / (epochs - rise))


@ranged
@dataclass(frozen=True)
class Step:
    """`start * gamma ** (epoch // every)` (DARTS on ImageNet: 0.97 at every epoch)."""

    gamma: Share = 0.97
    every: Count = 1

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return start * self.gamma ** (epoch // self.every)


@ranged
@dataclass(frozen=True)
class LinearWithTail:
    """PC-DARTS on ImageNet [official code, train_imagenet.py, adjust_lr]: a straight line that would reach 0 `tail` epochs before the end;
    the last `tail` epochs go down from one step of that line to 0. Trainings of at most `tail` epochs are one straight line."""

    tail: Count = 5

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        if epochs <= self.tail:
            return Linear()(start, epoch, epochs)
        if epochs - epoch > self.tail:
            return start * (epochs - self.tail - epoch) / (epochs - self.tail)
        return start * (epochs - epoch) / ((epochs - self.tail) * self.tail)


@ranged
@dataclass(frozen=True)
class Rising:
    """A schedule whose first `warm_up_epochs` are scaled: 1/n, 2/n, ... of what it says in each (PC-DARTS on ImageNet: 5, with batches of
    more than 256 images [official code])."""

    schedule: Schedule
    warm_up_epochs: Whole = 5

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return self.schedule(start, epoch, epochs) * min(1.0, (math.floor(epoch) + 1) / max(1, self.warm_up_epochs))


@ranged
@dataclass(frozen=True)
class SkipDropout:
    """The dropout of candidate skip connections within a search or a stage (P-DARTS, Chen et al. 2019, Sec. 3.3; official code): from
    `prob` down as a straight line in the first `linear_epochs`, as if to 0 after the last epoch, then `prob * exp(-rate * (epoch -
    linear_epochs))`. """

    prob: Fraction
    linear_epochs: Whole = 10
    rate: NonNegative = 0.2

    def __call__(self, epoch: int, epochs: int) -> float:
        if epoch < self.linear_epochs:
            return self.prob * (epochs - epoch - 1) / epochs
        return self.prob * math.exp(-self.rate * (epoch - self.linear_epochs))
