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
    """Half a cosine from `start` to `minimum`, reached after the last epoch."""

    minimum: float = 0.0

    def __call__(self, start: float, epoch: float, epochs: int) -> float:
        return self.minimum + (start - self.minimum) * (1 + math.cos(math.pi * epoch / epochs)) / 2


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
