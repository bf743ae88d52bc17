"""Averages of the weights over training, which are evaluated and kept instead of the last weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from supernet.ranges import Count, Fraction, ranged


class Average(Protocol):
    """`w`: what is averaged, always the same tensors: the weights, and statistics that are as much theirs as the network's."""

    name: str  # in words, of what is tested and kept

    def after_step(self, w: Sequence[Tensor]) -> None: ...
    def after_epoch(self, val_loss: float | None) -> None: ...
    def evaluated(self, w: Sequence[Tensor]) -> Any: ...  # a context within which `w` hold what is evaluated
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class NoAverage:
    """The last weights."""

    name = "the last weights"

    def after_step(self, w: Sequence[Tensor]) -> None:
        pass

    def after_epoch(self, val_loss: float | None) -> None:
        pass

    @contextmanager
    def evaluated(self, w: Sequence[Tensor]) -> Iterator[None]:
        yield

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@ranged
class NonMonotonicAverage:
    """The mean of the weights after every step since training stopped improving: from the epoch on whose validation loss is above the
    best of all but the last `epochs` (NT-ASGD, Merity et al. 2018, Algorithm 1 with an epoch as the interval; DARTS, rnn/train.py, 5).
    """

    def __init__(self, *, epochs: Count = 5):
        self.name = f"the mean of the weights since the validation loss stopped falling for {epochs} epochs"
        self.epochs, self.losses, self.mean, self.steps = epochs, [], [], 0
        self.started = False

    def after_step(self, w: Sequence[Tensor]) -> None:
        if not self.started:
            return
        self.steps += 1
        with torch.no_grad():
            if self.steps == 1:
                self.mean = [p.detach().clone() for p in w]
            else:
                self.mean = [m.to(p.device) for m, p in zip(self.mean, w, strict=True)]  # checkpoints are read on the CPU
                torch._foreach_lerp_(self.mean, [p.detach() for p in w], 1 / self.steps)

    def after_epoch(self, val_loss: float | None) -> None:
        """Raises ValueError: there is no validation loss to go by."""
        if val_loss is None:
            raise ValueError("a nonmonotonic average needs a validation part: set split.val_portion above 0")
        if not self.started and len(self.losses) > self.epochs and val_loss > min(self.losses[: -self.epochs]):
            self.started = True
        self.losses.append(val_loss)

    @contextmanager
    def evaluated(self, w: Sequence[Tensor]) -> Iterator[None]:
        with _holding(w, self.mean):
            yield

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "mean": [m.clone() for m in self.mean], "steps": self.steps, "started": self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.steps, self.started = list(state["losses"]), state["steps"], state["started"]
        self.mean = list(state["mean"])


@ranged
class ExponentialAverage:
    """After each step `mean <- d mean + (1 - d) w` with d = min(decay, (1 + n) / (10 + n)), n steps done, so that the first weights are
    soon forgotten (Polyak & Juditsky 1992 with the decay of TensorFlow's moving average; as in EfficientNet and timm)."""

    def __init__(self, *, decay: Fraction = 0.999):
        self.name = f"the exponential moving average of the weights, decay {decay:g}"
        self.decay, self.mean, self.steps = decay, [], 0

    def after_step(self, w: Sequence[Tensor]) -> None:
        with torch.no_grad():
            if not self.mean:
                self.mean = [p.detach().clone() for p in w]
            else:
                self.mean = [m.to(p.device) for m, p in zip(self.mean, w, strict=True)]  # checkpoints are read on the CPU
                kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
                torch._foreach_lerp_(self.mean, [p.detach() for p in w], 1 - kept)
        self.steps += 1

    def after_epoch(self, val_loss: float | None) -> None:
        pass

    @contextmanager
    def evaluated(self, w: Sequence[Tensor]) -> Iterator[None]:
        with _holding(w, self.mean):
            yield

    def state_dict(self) -> dict[str, Any]:
        return {"mean": [m.clone() for m in self.mean], "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.steps = list(state["mean"]), state["steps"]


@contextmanager
def _holding(w: Sequence[Tensor], mean: Sequence[Tensor]) -> Iterator[None]:
    """Within, `w` hold `mean`; where there is none yet, they stay."""
    if not mean:
        yield
        return
    kept = [p.detach().clone() for p in w]
    try:
        with torch.no_grad():
            torch._foreach_copy_(list(w), list(mean))
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(w), kept)
