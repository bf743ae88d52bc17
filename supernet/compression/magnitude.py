"""Unstructured pruning: single weights are set to zero, the smallest of the whole network first. The shapes stay."""

from torch import nn
from torch.nn.utils import prune

from supernet.ranges import Portion, ranged


@ranged
def mask_smallest(module: nn.Module, sparsity: Portion) -> None:
    """Holds the smallest `sparsity` of the weights of convolutions and products at zero, also while it is trained (Han et al. 2015, but
    with one threshold for all layers). Biases and norms stay."""
    prune.global_unstructured(_weights(module), pruning_method=prune.L1Unstructured, amount=float(sparsity))


def unmask(module: nn.Module) -> None:
    """The zeros become plain weights."""
    for layer, name in _weights(module):
        if prune.is_pruned(layer):
            prune.remove(layer, name)
            layer.register_parameter("bias", layer._parameters.pop("bias"))  # behind the weight again, where it was


def _weights(module: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(layer, "weight") for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
