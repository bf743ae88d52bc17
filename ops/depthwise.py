"""Depthwise convolutions whose gradients are several times faster on a CPU than those of `F.conv2d`, in plain PyTorch and exact.

oneDNN has fast kernels for depthwise convolutions of channels_last images, forward of any size and dilation, but backward only without
dilation, and for weights only of three columns or fewer; whatever else is asked runs 5 to 20 times slower. So all is put into those terms:

- the gradient of the input is a convolution with the turned kernel;
- that of the weight is taken three columns at a time, and with dilation d among each of the d * d sets of pixels that meet one another;
- a stride that equals the dilation reads one such set alone, without stride or dilation.

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
            x, stride, dilation = x[:, :, ::stride, ::stride], 1, 1
        if stride == 1 and (size > FAST_COLUMNS or dilation > 1):
            return _Same.apply(x, weight, dilation)
    return F.conv2d(x, weight, None, stride, dilation * (size // 2), dilation, x.shape[1])


class _Same(torch.autograd.Function):
    """Without stride."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, None, 1, dilation * (weight.shape[-1] // 2), dilation, x.shape[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = depthwise(g, weight.flip(2, 3), 1, ctx.dilation) if ctx.needs_input_grad[0] else None
        dweight = _WeightGradient.apply(x, g, weight.shape[-1], ctx.dilation) if ctx.needs_input_grad[1] else None
        return dx, dweight, None


class _WeightGradient(torch.autograd.Function):
    """Of `_Same`, (C, 1, k, k), from its input and its output's gradient; linear in both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, size: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.dilation = dilation
        if dilation > 1:
            x, g = _sets(x, dilation), _sets(g, dilation)
        width, half = x.shape[-1], size // 2
        wide = F.pad(x, (half, half))
        columns = [(first, min(FAST_COLUMNS, size - first)) for first in range(0, size, FAST_COLUMNS)]
        return torch.cat([_weight_gradient(wide[..., first : first + width + count - 1], g, size, count) for first, count in columns], 3)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, g = ctx.saved_tensors
        dx = depthwise(g, u.flip(2, 3), 1, ctx.dilation) if ctx.needs_input_grad[0] else None
        dg = depthwise(x, u, 1, ctx.dilation) if ctx.needs_input_grad[1] else None
        return dx, dg, None, None


def _weight_gradient(x: Tensor, g: Tensor, rows: int, columns: int) -> Tensor:
    """x: padded to the sides already."""
    channels = x.shape[1]
    shape = x.new_empty(()).expand(channels, 1, rows, columns)  # of a weight; its values are not read
    _, gradient, _ = torch.ops.aten.convolution_backward(g, x, shape, None, [1, 1], [rows // 2, 0], [1, 1], False, [0, 0], channels,
                                                         [False, True, False])
    return gradient


def _sets(x: Tensor, dilation: int) -> Tensor:
    """(N * d * d, C, ceil(H / d), ceil(W / d)): pixels d apart beside one another, zeros for those that lie beyond the border."""
    h, w = x.shape[-2:]
    x = F.pad(x, (0, -w % dilation, 0, -h % dilation)).permute(0, 2, 3, 1)  # the channels lie innermost, or will
    x = x.unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation)).permute(0, 2, 4, 1, 3, 5)
    return x.flatten(0, 2).permute(0, 3, 1, 2)
