"""Classification of images."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from supernet.ranges import Fraction, NonNegative, ranged
from supernet.tasks.base import Batch, Result, State, counted, single
from supernet.weights import EdgeWeights


@ranged
class Classification:
    """Cross-entropy. With `auxiliary_weight` a training batch adds that much of the auxiliary head's loss; reported losses and
    accuracies are the main head's. `label_smoothing` acts in training only."""

    streams = False

    def __init__(self, *, label_smoothing: Fraction = 0.0, auxiliary_weight: NonNegative = 0.0):
        self.label_smoothing, self.auxiliary_weight = label_smoothing, auxiliary_weight

    def __call__(self, net: nn.Module, batch: Batch, weights: EdgeWeights | None = None, *, state: State = None,
                 generator: torch.Generator | None = None) -> Result:
        x, y = batch
        smoothing = self.label_smoothing if net.training else 0.0
        if net.training and self.auxiliary_weight:
            logits, extra = net(x, weights, generator=generator, auxiliary=True)
            reported = F.cross_entropy(single(logits), y, label_smoothing=smoothing)
            loss = reported + self.auxiliary_weight * F.cross_entropy(single(extra), y, label_smoothing=smoothing)
        else:
            logits = net(x, weights, generator=generator)
            loss = reported = F.cross_entropy(single(logits), y, label_smoothing=smoothing)
        return Result(loss, counted(reported, logits, y))

    def network_options(self) -> dict[str, Any]:
        return {"auxiliary": True} if self.auxiliary_weight else {}

    def metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        return dict(means)

    def rows(self, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        return [("accuracy", f"{metrics['accuracy']:.2f} %"), ("error", f"{100 - metrics['accuracy']:.2f} %")]

    def lr_factor(self, batch: Batch) -> float:
        return 1.0
