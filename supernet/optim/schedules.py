"""Learning rates by epoch, as functions of the epoch alone, so that resuming needs no state."""

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """`schedule(start, epoch, epochs)` is the learning rate in `epoch` (0 to epochs - 1) of a run that starts with `start`."""

    def __call__(self, start: float, epoch: float, epochs: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return start


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `minimum`, reached after the last epoch, or after `over` epochs. A run that is shorter leaves the rest
    out; a longer one goes back up along the cosine and down again (ENAS on NAS-Bench-201)."""

    minimum: float = 0.0
    over: int | None = None

    def __post_init__(self) -> None:
        if self.over is not None and self.over < 1:
            raise ValueError(f"a cosine's over must be at least 1 epoch, or null for all, got {self.over}")

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        over = epochs if self.over is None else self.over
        return self.minimum + (start - self.minimum) * (1 + math.cos(math.pi * epoch / over)) / 2


@dataclass(frozen=True)
class CosineRestarts:
    """Half cosines from `start` to `minimum` one after the other, the first over `first` epochs, each next `factor` times as long
    (Loshchilov & Hutter 2017, Sec. 3; ENAS: 10 and 2)."""

    first: int = 10
    factor: int = 2
    minimum: float = 0.0

    def __post_init__(self) -> None:
        if self.first < 1 or self.factor < 1:
            raise ValueError(f"a cosine's first and factor must be at least 1, got {self.first} and {self.factor}")

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        length = self.first
        while epoch >= length:
            epoch, length = epoch - length, length * self.factor
        return Cosine(self.minimum)(start, epoch, length)


@dataclass(frozen=True)
class CosineAfterWarmUp:
    """A half cosine of its own in the first `warm_up_epochs`, from `warm_up_lr` to 0, then one from `start` to `minimum` over the epochs
    that are left (ProxylessNAS: 40 and 0.05, while the alphas rest)."""

    warm_up_epochs: int
    warm_up_lr: float
    minimum: float = 0.0

    def __post_init__(self) -> None:
        if self.warm_up_epochs < 0 or self.warm_up_lr <= 0:
            raise ValueError("a schedule's warm_up_epochs must be at least 0 and warm_up_lr positive, got "
                             f"{self.warm_up_epochs} and {self.warm_up_lr}")

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        if epoch < self.warm_up_epochs:
            return Cosine()(self.warm_up_lr, epoch, self.warm_up_epochs)
        return Cosine(self.minimum)(start, epoch - self.warm_up_epochs, max(1, epochs - self.warm_up_epochs))


@dataclass(frozen=True)
class Exponential:
    """`start * gamma ** epoch` (DARTS on ImageNet: gamma 0.97)."""

    gamma: float

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return start * self.gamma**epoch


@dataclass(frozen=True)
class Linear:
    """A straight line from `start` to `minimum`, reached after the last epoch."""

    minimum: float = 0.0

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return start + (self.minimum - start) * epoch / epochs


@dataclass(frozen=True)
class SkipDropout:
    """The dropout of candidate skip connections within a search or a stage (P-DARTS, Chen et al. 2019, Sec. 3.3; official code): from
    `prob` down as a straight line in the first `linear_epochs`, as if to 0 after the last epoch, then `prob * exp(-rate * (epoch -
    linear_epochs))`. """

    prob: float
    linear_epochs: int = 10
    rate: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.prob < 1:
            raise ValueError(f"skip_dropout.prob must be at least 0 and below 1, got {self.prob}")

    def __call__(self, epoch: int, epochs: int) -> float:
        if epoch < self.linear_epochs:
            return self.prob * (epochs - epoch - 1) / epochs
        return self.prob * math.exp(-self.rate * (epoch - self.linear_epochs))
