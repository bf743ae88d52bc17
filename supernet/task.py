"""What a network is trained for: the loss of a batch, and what is counted on it."""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.weights import EdgeWeights

Batch = tuple[Tensor, Tensor]


class Result(NamedTuple):
    """`loss` to differentiate; `stats`, detached sums over the batch, all on the device: `loss`, `correct`, `count`."""

    loss: Tensor
    stats: dict[str, Tensor]


class Task(Protocol):
    """`task(net, batch, weights, generator=...)` in training or evaluation mode, as the network is."""

    def __call__(self, net: nn.Module, batch: Batch, weights: EdgeWeights | None = None, *,
                 generator: torch.Generator | None = None) -> Result: ...


class Classification:
    """Cross-entropy. With `auxiliary_weight` a training batch adds that much of the auxiliary head's loss; reported losses and
    accuracies are the main head's. `label_smoothing` acts in training only."""

    def __init__(self, *, label_smoothing: float = 0.0, auxiliary_weight: float = 0.0):
        self.label_smoothing, self.auxiliary_weight = label_smoothing, auxiliary_weight

    def __call__(self, net: nn.Module, batch: Batch, weights: EdgeWeights | None = None, *,
                 generator: torch.Generator | None = None) -> Result:
        x, y = batch
        smoothing = self.label_smoothing if net.training else 0.0
        if net.training and self.auxiliary_weight:
            logits, extra = net(x, weights, generator=generator, auxiliary=True)
            reported = F.cross_entropy(_single(logits), y, label_smoothing=smoothing)
            loss = reported + self.auxiliary_weight * F.cross_entropy(_single(extra), y, label_smoothing=smoothing)
        else:
            logits = net(x, weights, generator=generator)
            loss = reported = F.cross_entropy(_single(logits), y, label_smoothing=smoothing)
        with torch.no_grad():
            count = torch.full((), len(y), device=y.device)
            stats = {"loss": reported.detach() * count, "correct": (logits.argmax(1) == y).sum(), "count": count}
        return Result(loss, stats)


def _single(logits: Tensor) -> Tensor:
    """At least single precision, whatever the network computed in."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
