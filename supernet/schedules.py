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
