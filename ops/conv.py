"""Convolutions of the cell spaces (DARTS, official code, operations.py)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ops import plain
from ops.depthwise import Depthwise, every
from ops.forms import Form, form_of, held, sequence, under
from ops.kernels.terms import Stage
from ops.op import BatchNorm, Normalisation, Op, ReLU, SeparableOp


def _conv(channels_in: int, channels_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, (size - 1) // 2, bias=False)


def _is_looked_at(module: nn.Module) -> bool:
    """Whether somebody has hooked on to what it gives, or would be told of its gradient."""
    return bool(module._forward_hooks or module._backward_hooks or module._backward_pre_hooks or _has_any_global_hook())


class SeparableBody(nn.Module):
    """Depthwise, pointwise, norm, ReLU, depthwise, pointwise: a separable convolution applied twice, without its ends."""

    def __init__(self, channels: int, size: int, stride: int, norm: BatchNorm):
        super().__init__()
        self.depthwise1 = Depthwise(channels, size, stride)
        self.pointwise1 = _conv(channels, channels, 1)
        self.norm1 = norm
        self.depthwise2 = Depthwise(channels, size)
        self.pointwise2 = _conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pointwise1(self.depthwise1(x)))
        alone = torch.is_grad_enabled() and not _is_looked_at(self.norm1)  # its gradient does not need what it gave
        return self.pointwise2(self.depthwise2(F.relu(x, inplace=alone)))

    def stages(self) -> tuple[Stage, ...]:
        first, second = self.depthwise1, self.depthwise2
        return (Stage(first.weight, self.pointwise1.weight, first.stride[0]),
                Stage(second.weight, self.pointwise2.weight, norm=self.norm1))

    def plain(self) -> Form:
        first = self.depthwise1
        arguments = {"channels": first.in_channels, "size": first.kernel_size[0], **_stride(first), **self.norm1.plain_options()}
        return Form(plain.SeparableConv, arguments, held(self) | under(norm1=self.norm1.plain()))


class DilatedBody(nn.Module):
    """Depthwise with dilation 2, pointwise."""

    def __init__(self, channels: int, size: int, stride: int):
        super().__init__()
        self.depthwise = Depthwise(channels, size, stride, dilation=2)
        self.pointwise = _conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.depthwise.weight, self.pointwise.weight, self.depthwise.stride[0], self.depthwise.dilation[0]),)

    def plain(self) -> Form:
        first = self.depthwise
        return Form(plain.DilatedConv, {"channels": first.in_channels, "size": first.kernel_size[0], **_stride(first)}, held(self))


def convolution_stage(conv: nn.Conv2d) -> tuple[Stage, ...]:
    return (Stage(None, conv.weight),)


def dense_layer(conv: nn.Conv2d) -> tuple[Stage, ...]:
    return (Stage(None, conv.weight, conv.stride[0]),)


class ReducedSkip(nn.Module):
    """Halves height and width with two 1x1 convolutions of stride 2, the second on the input shifted by one pixel, each
    giving half of the channels. An odd side is padded by one zero at its end, so that both halves have ceil(side / 2)."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.even = nn.Conv2d(channels_in, channels_out // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - channels_out // 2, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
        return torch.cat([self.even(x), self.odd(every(padded, 1, 1))], 1)

    def stages(self) -> tuple[Stage, ...]:
        even, odd = self.even.weight, self.odd.weight
        inputs = even.shape[1]
        both = torch.cat([F.pad(even, (0, 0, 0, 0, 0, inputs)), F.pad(odd, (0, 0, 0, 0, inputs, 0))])
        return (Stage(None, both, stride=2, halves=True),)

    def layers(self) -> tuple[Stage, ...]:
        return (Stage(None, self.even.weight, stride=2, odd=self.odd.weight),)

    def plain(self) -> Form:
        widths = {"channels_in": self.even.in_channels, "channels_out": self.even.out_channels + self.odd.out_channels}
        return Form(plain.HalvedSkip, widths, held(self))


class Factorised(nn.Module):
    """1 x size, then size x 1."""

    def __init__(self, channels: int, size: int, stride: int):
        super().__init__()
        self.row = nn.Conv2d(channels, channels, (1, size), (1, stride), (0, size // 2), bias=False)
        self.column = nn.Conv2d(channels, channels, (size, 1), (stride, 1), (size // 2, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.column(self.row(x))

    def plain(self) -> Form:
        return sequence(form_of(self.row), form_of(self.column))


for body in (SeparableBody, DilatedBody, ReducedSkip, Factorised):
    form_of.register(body, body.plain)


def _stride(conv: nn.Conv2d) -> dict[str, int]:
    """As an argument, where it is not 1."""
    return {} if conv.stride[0] == 1 else {"stride": conv.stride[0]}


def relu_conv_bn(channels_in: int, channels_out: int, norm: Normalisation, size: int = 1, stride: int = 1) -> Op:
    conv = _conv(channels_in, channels_out, size, stride)
    if stride == 1 and size % 2:
        return SeparableOp(conv, norm(channels_out), convolution_stage)
    return Op(conv, prefix=ReLU(), norm=norm(channels_out), layers=dense_layer)


def nor_conv(size: int, channels: int, stride: int, norm: Normalisation) -> Op:
    """ReLU, convolution, norm (NAS-Bench-201, Dong & Yang 2020, Sec. 2.1)."""
    return relu_conv_bn(channels, channels, norm, size, stride)


def factorised_reduce(channels_in: int, channels_out: int, norm: Normalisation) -> Op:
    return SeparableOp(ReducedSkip(channels_in, channels_out), norm(channels_out), ReducedSkip.stages, layers=ReducedSkip.layers)


def sep_conv(size: int, channels: int, stride: int, norm: Normalisation) -> Op:
    return SeparableOp(SeparableBody(channels, size, stride, norm(channels)), norm(channels), SeparableBody.stages)


def dil_conv(size: int, channels: int, stride: int, norm: Normalisation) -> Op:
    return SeparableOp(DilatedBody(channels, size, stride), norm(channels), DilatedBody.stages, family="dilated")


def factorised_conv(size: int, channels: int, stride: int, norm: Normalisation) -> Op:
    return Op(Factorised(channels, size, stride), prefix=ReLU(), norm=norm(channels))
