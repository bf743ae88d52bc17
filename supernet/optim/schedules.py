"""Learning rates by epoch, as functions of the epoch alone, so that resuming needs no state."""

import math
from dataclasses import dataclass
from typing import Protocol

from supernet.ranges import Fraction, NonNegative, Share, Whole, ranged


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
    """Half a cosine from `start` to `minimum`, reached after the last epoch."""

    minimum: NonNegative = 0.0

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return self.minimum + (start - self.minimum) * (1 + math.cos(math.pi * epoch / epochs)) / 2


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
