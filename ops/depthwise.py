"""Depthwise convolutions whose gradients are several times faster on a CPU than those of `F.conv2d`, in plain PyTorch and exact.

oneDNN has fast kernels for depthwise convolutions of channels_last images, forward of any size and dilation, but backward only without
dilation, and for weights only of three columns or fewer; whatever else is asked runs 5 to 20 times slower. So all is put into those terms:

- the gradient of the input is a convolution with the turned kernel;
- that of the weight is taken three columns at a time, and with dilation d from images folded so that pixels d apart lie side by side;
- a stride that equals the dilation reads every so many pixels alone, without stride or dilation.

The gradients are made of the same functions, so they can be differentiated any number of times.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.forms import Form, form_as, form_of

FAST_COLUMNS = 3  # of the kernels for weights' gradients


class Depthwise(nn.Conv2d):
    """A depthwise convolution without bias, (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)). size: odd."""

    def __init__(self, channels: int, size: int, stride: int = 1, dilation: int = 1):
        super().__init__(channels, channels, size, stride, dilation * (size // 2), dilation, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight, self.stride[0], self.dilation[0])

    def plain(self) -> Form:
        """`nn.Conv2d`, whose gradients are the same and take longer."""
        return form_as(nn.Conv2d, self)


form_of.register(Depthwise, Depthwise.plain)


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """`F.conv2d` of x (N, C, H, W) with weight (C, 1, k, k), k odd, padded by dilation * (k - 1) / 2."""
    size = weight.shape[-1]
    if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling():
        if stride == dilation > 1:
            x, stride, dilation = every(x, stride), 1, 1
        if stride == 1 and (size > FAST_COLUMNS or dilation > 1):
            return _Same.apply(x, weight, dilation)
    return F.conv2d(x, weight, None, stride, dilation * (size // 2), dilation, x.shape[1])


class _Same(torch.autograd.Function):
    """Without stride."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _same(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        same, of_weight = (_Same.apply, _WeightGradient.apply) if torch.is_grad_enabled() else (_same, _weight_gradient)
        dx = same(g, weight.flip(2, 3), ctx.dilation) if ctx.needs_input_grad[0] else None
        dweight = of_weight(x, g, weight.shape[-1], ctx.dilation) if ctx.needs_input_grad[1] else None
        return dx, dweight, None


def every(x: Tensor, stride: int, first: int = 0) -> Tensor:
    """`x[:, :, first::stride, first::stride]`, whose gradient lies in memory as it does itself: that of a slice is in the order of the
    indices, and to add such a one to others takes 20 times as long."""
    if torch.compiler.is_compiling():
        return x[:, :, first::stride, first::stride]
    return _Every.apply(x, stride, first)


class _Every(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, first: int) -> Tensor:
        ctx.arguments = stride, first, x.shape[2:]
        return x[:, :, first::stride, first::stride]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _Spread.apply(g, *ctx.arguments), None, None


class _Spread(torch.autograd.Function):
    """The gradient of `every`: (N, C, *sides), zeros but for x at the pixels that it reads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, first: int, sides: tuple[int, int]) -> Tensor:
        ctx.arguments = stride, first
        order = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
        spread = torch.empty((*x.shape[:2], *sides), dtype=x.dtype, device=x.device, memory_format=order).zero_()
        spread[:, :, first::stride, first::stride] = x
        return spread

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        return _Every.apply(g, *ctx.arguments), None, None, None


class _WeightGradient(torch.autograd.Function):
    """Of `_Same`, (C, 1, k, k), from its input and its output's gradient; linear in both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, size: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.dilation = dilation
        return _weight_gradient(x, g, size, dilation)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, g = ctx.saved_tensors
        dx = depthwise(g, u.flip(2, 3), 1, ctx.dilation) if ctx.needs_input_grad[0] else None
        dg = depthwise(x, u, 1, ctx.dilation) if ctx.needs_input_grad[1] else None
        return dx, dg, None, None


def _same(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    return F.conv2d(x, weight, None, 1, dilation * (weight.shape[-1] // 2), dilation, x.shape[1])


def _weight_gradient(x: Tensor, g: Tensor, size: int, dilation: int) -> Tensor:
    """(C, 1, size, size) of the sum of `_same(x, weight, dilation)` times g."""
    if dilation > 1:
        x, g = _folded(x, size, dilation), _folded(g, size, dilation)
    height, width = x.shape[2:]
    if min(height, width) < size:  # the kernels are slow, too, where there are fewer rows than weights in a column
        missing = (0, max(0, size - width), 0, max(0, size - height))
        x, g = F.pad(x, missing), F.pad(g, missing)
    columns = [(first, min(FAST_COLUMNS, size - first)) for first in range(0, size, FAST_COLUMNS)]
    gradients = [_columns(x, g, size, first, count) for first, count in columns]
    whole = gradients[0] if len(gradients) == 1 else torch.cat(gradients, 3)
    return whole if dilation == 1 else whole.unflatten(0, (dilation, -1)).sum(0)


def _columns(x: Tensor, g: Tensor, size: int, first: int, count: int) -> Tensor:
    """The columns first, ..., first + count - 1 of the gradient of a weight of stride 1 without dilation."""
    channels, left = x.shape[1], size // 2 - first
    right = count - 1 - left
    sides = left if left == right else 0
    x = x if sides else F.pad(x, (left, right))
    like = x.new_empty((channels, 1, size, count))  # a weight, of which the shape alone is read
    _, gradient, _ = torch.ops.aten.convolution_backward(g, x, like, None, [1, 1], [size // 2, sides], [1, 1], False, [0, 0], channels,
                                                         [False, True, False])
    return gradient


def _folded(x: Tensor, size: int, dilation: int) -> Tensor:
    """(N, d * C, H', W'), pixels d apart beside one another and one's neighbours in its channels: d rows follow one another in a line,
    with zeros between them that keep a kernel of so many weights a row from reading two, and d pixels of a line are one. Of channels_last
    images that is one copy."""
    height, width = x.shape[-2:]
    between = dilation * (size // 2)
    x = F.pad(x, (0, between + -(width + between) % dilation, 0, -height % dilation))
    x = x.permute(0, 2, 3, 1)  # the channels lie innermost, or will
    n, height, width, channels = x.shape
    return x.reshape(n, height // dilation, width, dilation * channels).permute(0, 3, 1, 2)
