"""Averages of the weights over training, which are evaluated and kept instead of the last weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from supernet.ranges import Count, ranged


class Average(Protocol):
    def after_step(self, w: Sequence[Tensor]) -> None: ...
    def after_epoch(self, val_loss: float | None) -> None: ...
    def evaluated(self, w: Sequence[Tensor]) -> Any: ...  # a context within which `w` hold what is evaluated
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class NoAverage:
    """The last weights."""

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
        if not self.mean:
            yield
            return
        kept = [p.detach().clone() for p in w]
        try:
            with torch.no_grad():
                torch._foreach_copy_(list(w), self.mean)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(w), kept)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "mean": [m.clone() for m in self.mean], "steps": self.steps, "started": self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.steps, self.started = list(state["losses"]), state["steps"], state["started"]
        self.mean = list(state["mean"])
