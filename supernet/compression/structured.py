"""Structured pruning: whole channels are taken out, so that what is left is a smaller dense network."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ops import plain
from supernet.compression.networks import NotPractical, by
from supernet.ranges import Portion, ranged

# Modules that hold for the widths alone that they were made for: how channels depend on each other through them is not known.
FIXED = (plain.FirstChannels, plain.ResidualOfWidth, plain.Highway)


@ranged
def prune_channels(module: nn.Module, x: Tensor, share: Portion) -> None:
    """Takes `share` of the channels, to the nearest whole number, out of every group of layers whose channels belong together, those with
    the smallest weights first; at least one is left. The classifier keeps its classes, and the first layer its image.

    Which layers belong together is found by torch-pruning (Fang et al. 2023, "DepGraph", Sec. 3.2), from one forward pass of `x`; channels
    are ordered by the sum of squares of a group's weights (Sec. 3.3 there, without its sparse training). Raises NotPractical.
    """
    fixed = next((type(part).__name__ for part in module.modules() if isinstance(part, FIXED)), None)
    if fixed is not None:
        raise NotPractical(f"its channels are padded or cut to a width ({fixed}), so that they cannot be taken out one by one")
    with warnings.catch_warnings(), by("torch-pruning"):
        warnings.simplefilter("ignore")
        import torch_pruning as tp

        heads = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
        widths = {layer: layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)}
        widths |= {layer: layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear) and layer not in heads}
        pruner = tp.pruner.BasePruner(module, x, importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=share,
                                      pruning_ratio_dict={layer: _ratio(width, share) for layer, width in widths.items()},
                                      max_pruning_ratio=1.0, ignored_layers=heads, forward_fn=_all_that_is_computed)
        pruner.step()
    with torch.no_grad():
        try:
            module(x)
        except RuntimeError as error:
            raise NotPractical(f"torch-pruning left layers that do not fit each other ({' '.join(str(error).split())[:100]})") from error


def _ratio(channels: int, share: float) -> float:
    """What torch-pruning is told so that the nearest whole number of channels goes and at least one stays: it keeps the whole part of
    channels * (1 - ratio), and leaves a group as it is of which nothing would be kept."""
    kept = max(1, round(channels * (1 - share)))
    return 1 - (kept + 1e-6) / channels


def _all_that_is_computed(module: nn.Module, x: Tensor) -> list[Tensor]:
    """The logits, and what every layer puts out: torch-pruning goes back from outputs, and a cell may not read one of its inputs, whose
    layers would be overlooked. The zeros of a node that nothing reaches are made of its input, whose channels they have."""
    seen: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda layer, inputs, output: seen.append(output)) for layer in module.modules()
               if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    try:
        with _ZerosOfTheirInput():
            return [module(x), *seen]
    finally:
        for handle in handles:
            handle.remove()


class _ZerosOfTheirInput(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return args[0] * 0.0 if func is torch.zeros_like else func(*args, **(kwargs or {}))
