"""Convolutions of many ops at once: those alike, in order and strides, are groups of one."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.depthwise import depthwise
from ops.kernels.packed.layout import repeated
from ops.kernels.packed.stacks import Piece, stacked
from ops.kernels.terms import Stage


class Kernel(NamedTuple):
    """What `count` stages compute, T of them with C inputs and K outputs each: first `depthwise` (T * C, 1, k, k), where there is one, then
    `product` (T * K, C, l, l). An even l is not padded."""

    count: int
    depthwise: Tensor | None
    product: Tensor
    stride: int
    dilation: int


Stacking = Callable[[Sequence[Sequence[Stage]]], list[Kernel]]  # each sequence of stages that are alike


def alike(stage: Stage) -> Hashable:
    """Equal for stages that one kernel computes. Depthwise kernels may have different sizes: smaller ones are padded."""
    return stage.stride, stage.dilation, stage.depthwise is None, stage.pointwise.shape, None if stage.odd is None else stage.odd.shape


def apart(groups: Sequence[Sequence[Stage]]) -> list[Kernel]:
    """Kernels with a depthwise and a pointwise convolution, as the stages have them."""
    pieces = [piece for group in groups for piece in _pieces(group)]
    weights = iter(stacked(pieces))
    kernels = []
    for group in groups:
        first, narrow = group[0], None if group[0].depthwise is None else next(weights)
        product = next(weights)
        if first.odd is not None:
            product = _corners(len(group), product, next(weights))
        kernels.append(Kernel(len(group), narrow, product, first.stride, first.dilation))
    return kernels


def merged(groups: Sequence[Sequence[Stage]]) -> list[Kernel]:
    """Kernels without a depthwise convolution: it is one with the pointwise one, with the product of their weights."""
    sizes: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        if group[0].depthwise is not None:
            sizes.setdefault((max(s.depthwise.shape[-1] for s in group), group[0].pointwise.shape), []).append(i)
    weights = iter(stacked([piece for which in sizes.values() for piece in _pieces([s for i in which for s in groups[i]])]))
    kernels: dict[int, Kernel] = {}
    for (size, (outputs, inputs, *_)), which in sizes.items():
        narrow, product = next(weights).view(-1, 1, inputs, size, size), next(weights).view(-1, outputs, inputs, 1, 1)
        counts = [len(groups[i]) for i in which]
        for i, count, dense in zip(which, counts, (product * narrow).flatten(0, 1).split([count * outputs for count in counts])):
            kernels[i] = Kernel(count, None, dense, groups[i][0].stride, groups[i][0].dilation)
    others = [i for i, group in enumerate(groups) if group[0].depthwise is None]
    kernels |= zip(others, apart([groups[i] for i in others]))
    return [kernels[i] for i in range(len(groups))]


def _pieces(group: Sequence[Stage]) -> list[Piece]:
    columns = [s.depthwise for s in group], [s.pointwise for s in group], [s.odd for s in group]
    return [tuple(column) for column in columns if column[0] is not None]


def _corners(count: int, even: Tensor, odd: Tensor) -> Tensor:
    """Kernels of 2x2 that read a pixel with `even` and the one below to the right of it with `odd`, outputs one after the other."""
    both = [F.pad(even, (0, 1, 0, 1)).unflatten(0, (count, -1)), F.pad(odd, (1, 0, 1, 0)).unflatten(0, (count, -1))]
    return torch.cat(both, 1).flatten(0, 1)


def of_sources(kernel: Kernel, x: Tensor, counts: Sequence[int], layout: torch.memory_format) -> Tensor:
    """Of the images of `x` (N, len(counts) * C, H, W) the first is read by the first of `counts` stages, and so on. (N, T * K, H', W')."""
    if kernel.depthwise is not None:
        return side_by_side(kernel, repeated(x, counts, layout))
    if len(set(counts)) == 1:
        return _product(kernel, x, len(counts))
    weights = kernel.product.split([len(kernel.product) // kernel.count * count for count in counts])
    return torch.cat([_product(kernel._replace(product=w), image, 1) for image, w in zip(x.chunk(len(counts), 1), weights)], 1)


def side_by_side(kernel: Kernel, x: Tensor) -> Tensor:
    """x (N, T * C, H, W): each stage has its own input. (N, T * K, H', W')."""
    if kernel.depthwise is None:
        return _product(kernel, x, kernel.count)
    return F.conv2d(depthwise(x, kernel.depthwise, kernel.stride, kernel.dilation), kernel.product, groups=kernel.count)


def _product(kernel: Kernel, x: Tensor, groups: int) -> Tensor:
    size = kernel.product.shape[-1]
    if size % 2 == 0:
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)) if x.shape[2] % 2 or x.shape[3] % 2 else x
    return F.conv2d(x, kernel.product, None, kernel.stride, kernel.dilation * ((size - 1) // 2), kernel.dilation, groups)
