"""Inverted residual blocks (MobileNetV2, Sandler et al. 2018, Sec. 3.3) as layers of a chain, which may change size and channels."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import plain
from ops.depthwise import Depthwise
from ops.forms import Form, form_of, held, sequence, under
from ops.kernels.terms import Flow, Source, Term
from ops.op import BatchNorm, Normalisation, Op

POOLS: dict[str, Callable[[Tensor], Tensor]] = {  # halve both sides; an odd last row or column is a window of its own
    "max_pool": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), "avg_pool": lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True),
}
PLAIN_POOLS = {name: Form(make, {"kernel_size": 2, "stride": 2, "ceil_mode": True})
               for name, make in (("max_pool", nn.MaxPool2d), ("avg_pool", nn.AvgPool2d))}


def pointwise(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)


class InvertedBody(nn.Module):
    """1x1 to `expansion` times the channels, depthwise, 1x1: each followed by a norm and ReLU, but for the last."""

    def __init__(self, channels_in: int, channels_out: int, size: int, stride: int, expansion: int, norm: Normalisation):
        super().__init__()
        hidden = expansion * channels_in
        self.expand, self.norm1 = pointwise(channels_in, hidden), norm(hidden)
        self.depthwise, self.norm2 = Depthwise(hidden, size, stride), norm(hidden)
        self.project = pointwise(hidden, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.expand(x)))
        return self.project(F.relu(self.norm2(self.depthwise(x))))

    def plain(self) -> Form:
        (size, _), (stride, _) = self.depthwise.kernel_size, self.depthwise.stride
        arguments = {"channels_in": self.expand.in_channels, "hidden": self.expand.out_channels, "channels_out": self.project.out_channels,
                     "size": size, **({} if stride == 1 else {"stride": stride}), **self.norm1.plain_options()}
        return Form(plain.InvertedBottleneck, arguments, held(self) | under(norm1=self.norm1.plain(), norm2=self.norm2.plain()))


form_of.register(InvertedBody, InvertedBody.plain)


class LayerOp(Op):
    """An op of a chain. `shape_kept` says that neither size nor channels change: then the input stands beside the body, or is all
    there is where there is no body."""

    def __init__(self, body: nn.Module | None, norm: BatchNorm | None, shape_kept: bool):
        super().__init__(body, norm=norm, family="skip" if body is None else None)
        self.shape_kept, self.passes_input = shape_kept, body is None

    def finish(self, shared: Tensor, scale: Tensor | None, generator: torch.Generator | None) -> Tensor:
        straight = shared if scale is None else shared * scale
        if self.body is None:
            return straight
        y = super().finish(shared, scale, generator)
        return y + straight if self.shape_kept else y

    def term(self, source: Source) -> Term:
        return Term(Flow(self.finish(source.x, None, source.generator)))

    def plain(self) -> Form:
        if self.body is None:
            return Form(nn.Identity)
        block = sequence(form_of(self.body), form_of(self.norm))
        return Form(plain.Residual, {"body": block}, under(body=block)) if self.shape_kept else block


def inverted_residual(size: int, expansion: int, channels_in: int, channels_out: int, stride: int, norm: Normalisation) -> LayerOp:
    body = InvertedBody(channels_in, channels_out, size, stride, expansion, norm)
    return LayerOp(body, norm(channels_out), stride == 1 and channels_in == channels_out)


def identity(channels_in: int, channels_out: int, stride: int, norm: Normalisation) -> LayerOp:
    """The input itself; where size or channels change, a 1x1 convolution and its norm."""
    if stride == 1 and channels_in == channels_out:
        return LayerOp(None, None, True)
    return LayerOp(pointwise(channels_in, channels_out, stride), norm(channels_out), False)


LAYERS: dict[str, Callable[[int, int, int, Normalisation], LayerOp]] = {  # whole layers by name: (channels in, out, stride, norm)
    "identity": identity, "ir_3x3_e3": partial(inverted_residual, 3, 3), "ir_5x5_e6": partial(inverted_residual, 5, 6),
}
