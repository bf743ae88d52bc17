"""What a network is trained for: the loss of a batch, what is counted on it, and what one batch hands to the next."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from supernet.weights import EdgeWeights

Batch = tuple[Tensor, Tensor]  # inputs and targets, and what a data set adds
State = Tensor | None  # what the next batch of the same stream goes on from, a row for each item of the batch; None at its start


class Result(NamedTuple):
    """`loss` to differentiate; `stats`, detached sums over the batch, all on the device: `loss`, `correct`, `count`; where the loss is a
    weighted mean over the items `weight`, the sum of their weights; and in evaluation what else the task's `evaluated` reads, of any shape;
    `state`, detached, for the next batch of the stream (None where batches are independent)."""

    loss: Tensor
    stats: dict[str, Tensor]
    state: State = None


class Task(Protocol):
    """`task(net, batch, weights, state=..., generator=...)` in training or evaluation mode, as the network is. One that inherits from this
    class and counts nothing of its own in evaluation needs no `gives`, no `evaluated` and no `logits`."""

    streams: bool  # whether a batch goes on from the state that the one before it handed on

    def __call__(self, net: nn.Module, batch: Batch, weights: EdgeWeights | None = None, *, state: State = None,
                 generator: torch.Generator | None = None) -> Result: ...

    def for_classes(self, counts: Sequence[int], device: torch.device) -> "Task":
        """The task on data with so many training images of each class (none where there are no classes), its tensors on `device`."""

    def network_options(self) -> dict[str, Any]:
        """What the builder of a final network must know of the task."""

    def metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        """`means` (`loss` an item, `accuracy` in percent) and what the field reports beside them: what is known of training."""

    @property
    def gives(self) -> frozenset[str]:
        """The names of what `evaluated` gives, known before anything is evaluated."""
        return frozenset(self.metrics({"loss": 1.0, "accuracy": 0.0}))

    def evaluated(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metrics of an evaluation, from the sums of `Result.stats` over all its batches."""
        return self.metrics(means(sums))

    def logits(self, output: Any) -> Tensor | None:
        """Of what a network put out on a batch of items each of one of K classes: their logits (N, K), of single precision at least. None
        where items are no such, and nobody would keep what was predicted of each."""
        return None

    def rows(self, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        """The numbers that count, each a name and a text; the first is the headline."""

    def lr_factor(self, batch: Batch) -> float:
        """What the learning rate of w is multiplied by on this batch."""


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """`loss` an item and `accuracy` in percent, from `loss`, `correct` and `count`; NaN where nothing was counted."""
    count = float(sums.get("count", 0))
    if not count:
        return {"loss": float("nan"), "accuracy": float("nan")}
    return {"loss": float(sums["loss"]) / count, "accuracy": 100 * float(sums["correct"]) / count}


def counted(loss: Tensor, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The sums of a batch from its mean `loss`, logits (..., K) and targets (...)."""
    with torch.no_grad():
        count = torch.full((), targets.numel(), device=targets.device)
        return {"loss": loss.detach() * count, "correct": (logits.argmax(-1) == targets).sum(), "count": count}


def single(logits: Tensor) -> Tensor:
    """At least single precision, whatever the network computed in."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
