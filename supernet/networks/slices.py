"""Where the leading channels of groups lie in the weights of a layer, and how they are cut out."""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.networks.channels import Layer, Part

Span = tuple[int, int]  # begin, length


def leading(parts: Sequence[Part], full: Mapping[int, int], kept: Mapping[int, int]) -> list[Span]:
    """Of channels that are laid out as `parts`, each group with `full` of them, the places of the first `kept` of each; what touches is one
    span."""
    spans: list[Span] = []
    begin = 0
    for group, repeat in parts:
        length = kept[group] * repeat
        if spans and sum(spans[-1]) == begin:
            spans[-1] = (spans[-1][0], spans[-1][1] + length)
        else:
            spans.append((begin, length))
        begin += full[group] * repeat
    return spans


def taken(tensor: Tensor, dim: int, spans: Sequence[Span]) -> Tensor:
    """A view where that is possible."""
    if sum(length for _, length in spans) == tensor.shape[dim]:
        return tensor
    pieces = [tensor.narrow(dim, begin, length) for begin, length in spans]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


def centre(weight: Tensor, size: int) -> Tensor:
    begin = (weight.shape[-1] - size) // 2
    return weight if begin == 0 else weight[..., begin : begin + size, begin : begin + size]


def laid_out(module: nn.Module, layer: Layer) -> Iterator[tuple[str, int, tuple[Part, ...]]]:
    """Name, dimension, and what lies along it, of each tensor of a layer that has one."""
    names = ("weight", "bias", "running_mean", "running_var") if layer.kind == "norm" else ("weight", "bias")
    for name in names:
        if getattr(module, name) is not None:
            yield name, 0, layer.rows
    if layer.columns:
        yield "weight", 1, layer.columns


def take_layer(made: nn.Module, module: nn.Module, layer: Layer, kept: Mapping[int, int], full: Mapping[int, int]) -> None:
    """Copies into `made` the leading part of a larger one. Raises ValueError: it lacks a tensor."""
    values: dict[str, Tensor] = {}
    for name, dim, parts in laid_out(made, layer):
        value = values.get(name, getattr(module, name))
        if value is None:
            raise ValueError(f"{layer.target} has no {name} to inherit")
        values[name] = taken(value, dim, leading(parts, full, kept))
    for name, value in values.items():
        own = getattr(made, name)
        own.copy_(centre(value, own.shape[-1]) if value.dim() == 4 else value)


def permuted(parts: Sequence[Part], sizes: Mapping[int, int], orders: Mapping[int, Tensor], device: torch.device) -> Tensor:
    pieces, begin = [], 0
    for group, repeat in parts:
        order = orders[group] if group in orders else torch.arange(sizes[group], device=device)
        pieces.append(begin + (order[:, None] * repeat + torch.arange(repeat, device=device)).flatten())
        begin += sizes[group] * repeat
    return torch.cat(pieces)


def padding_for(conv: nn.Conv2d, kernel: int) -> tuple[int, ...]:
    return tuple(dilation * (kernel // 2) for dilation in conv.dilation)


def square(size: int, largest: int, like: Tensor) -> Tensor:
    """(largest, largest): ones in the centre, zeros around."""
    around = (largest - size) // 2
    return F.pad(like.new_ones(size, size), (around,) * 4)
