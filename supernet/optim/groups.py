"""Which weights decay."""

from typing import Any

from torch import nn


def weight_groups(net: nn.Module, *, decay_norms_and_biases: bool = True) -> list[Any]:
    """What an optimizer of the network's weights is made with: all of them, or two groups of which the second, with no weight decay, holds
    what has one dimension, the factors and offsets of norms and the biases (SPOS and others on ImageNet)."""
    weights = list(net.parameters())
    if decay_norms_and_biases:
        return weights
    decaying, others = [p for p in weights if p.dim() > 1], [p for p in weights if p.dim() <= 1]
    groups = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
