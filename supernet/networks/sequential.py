"""Plain chains: convolutions, pools and dropout, then fully connected layers, each computed from the one before and from nothing else.

Layers are said by name: `conv_3x3_16_relu`, `max_pool_2x2`, `avg_pool_3x3`, `dropout_30` (percent), `fc_64`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.activations import ACTIVATIONS, AS_MODULES
from ops.forms import Form, form_of, sequence
from ops.op import Normalisation
from ops.traits import OpTraits
from supernet.networks.written import Block
from supernet.weights import EdgeWeights

CONV = re.compile(r"conv_(?P<kernel>\d+)x\d+_(?P<filters>\d+)_(?P<activation>\w+)")
POOL = re.compile(r"(?P<how>max|avg)_pool_(?P<size>\d+)x\d+")
DROPOUT = re.compile(r"dropout_(?P<percent>\d+)")
FC = re.compile(r"fc_(?P<units>\d+)")
POOLS: dict[str, Callable[..., Tensor]] = {"max": F.max_pool2d, "avg": F.avg_pool2d}
PLAIN_POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
TRAITS = {CONV: OpTraits("conv"), POOL: OpTraits("pool", parameter_free=True), DROPOUT: OpTraits("other", parameter_free=True),
          FC: OpTraits("conv"), re.compile("nothing"): OpTraits("skip", parameter_free=True, is_skip=True)}


def describe(op: str) -> OpTraits | None:
    """The traits of a layer, None for what is none. A fully connected layer is coloured as a convolution is."""
    return next((traits for pattern, traits in TRAITS.items() if pattern.fullmatch(op)), None)


class Layer(NamedTuple):
    """A layer in its place: what it reads and gives, as (channels, height, width), or (features,) where the image is flattened."""

    op: str
    reads: tuple[int, ...]
    gives: tuple[int, ...]

    def parameters(self, norm: Normalisation) -> int:
        """Of a convolution and its norm, or of a matrix and its offsets; the other layers learn nothing."""
        if conv := CONV.fullmatch(self.op):
            return self.reads[0] * self.gives[0] * int(conv["kernel"]) ** 2 + (2 * self.gives[0] if norm.affine else 0)
        return (self.reads[0] + 1) * self.gives[0] if FC.fullmatch(self.op) else 0

    def multiply_adds(self) -> int:
        """Of one image."""
        if conv := CONV.fullmatch(self.op):
            channels, height, width = self.gives
            return self.reads[0] * channels * int(conv["kernel"]) ** 2 * height * width
        return self.reads[0] * self.gives[0] if FC.fullmatch(self.op) else 0


def chained(features: Iterable[str], head: Iterable[str], *, in_channels: int, image_size: tuple[int, int],
            num_classes: int) -> list[list[Layer]]:
    """The layers of both parts, and the classifier as a part of its own, each with what it reads. Convolutions keep the size of the
    image; pools leave out what does not fill a window. Between the parts the image is flattened."""
    shape: tuple[int, ...] = (in_channels, *image_size)
    parts: list[list[Layer]] = [[], [], []]
    for op in features:
        parts[0].append(Layer(op, shape, _gives(op, shape)))
        shape = parts[0][-1].gives
    shape = (shape[0] * shape[1] * shape[2],)
    for part, ops in ((parts[1], head), (parts[2], [f"fc_{num_classes}"])):
        for op in ops:
            part.append(Layer(op, shape, _gives(op, shape)))
            shape = part[-1].gives
    return parts


def _gives(op: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if conv := CONV.fullmatch(op):
        return (int(conv["filters"]), *shape[1:])
    if pool := POOL.fullmatch(op):
        return (shape[0], *(side // int(pool["size"]) for side in shape[1:]))
    if fc := FC.fullmatch(op):
        return (int(fc["units"]),)
    assert DROPOUT.fullmatch(op), op
    return shape


class SequentialNetwork(nn.Module):
    """`features`, the image flattened, `head`, and a linear classifier: `net(x) -> logits`. There is one network an architecture, and no
    edge weights. drop_path_prob: no branch stands beside another, so that nothing is dropped."""

    def __init__(self, features: Sequence[str], head: Sequence[str], *, norm: Normalisation, in_channels: int,
                 image_size: tuple[int, int], num_classes: int):
        super().__init__()
        parts = chained(features, head, in_channels=in_channels, image_size=image_size, num_classes=num_classes)
        self.drop_path_prob = 0.0
        self.features = nn.ModuleList(_module(layer, norm) for layer in parts[0])
        self.head = nn.ModuleList(_module(layer, norm) for layer in parts[1])
        self.classifier = nn.Linear(parts[2][0].reads[0], num_classes)

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (N, num_classes). x: (N, in_channels, H, W). weights: None. generator: for dropout."""
        assert weights is None, "a plain chain has no edge weights"
        for layer in self.features:
            x = layer(x, generator)
        x = x.flatten(1)
        for layer in self.head:
            x = layer(x, generator)
        return self.classifier(x)

    def plain(self) -> Block:
        """The network in plain PyTorch, in evaluation: a line a layer."""
        parts: dict[str, Form | Block] = {}
        lines: list[str] = []
        for part, layers, flat in (("features", self.features, False), ("head", self.head, True)):
            lines += ["x = x.flatten(1)"] if flat else []
            for n, layer in enumerate(layers):
                parts[f"{part}{n}"] = layer.plain(flat)
                lines.append(f"x = self.{part}{n}(x)")
        parts["classifier"] = form_of(self.classifier)
        return Block("Network", "A chain of layers, the image flattened in between, and a linear classifier.", parts, ["x"],
                     [*lines, "return self.classifier(x)"])


def _module(layer: Layer, norm: Normalisation) -> nn.Module:
    if conv := CONV.fullmatch(layer.op):
        return Convolution(layer.reads[0], layer.gives[0], int(conv["kernel"]), conv["activation"], norm)
    if pool := POOL.fullmatch(layer.op):
        return Pool(pool["how"], int(pool["size"]))
    if FC.fullmatch(layer.op):
        return FullyConnected(layer.reads[0], layer.gives[0])
    return Dropout(int(DROPOUT.fullmatch(layer.op)["percent"]) / 100)


class Convolution(nn.Module):
    """A convolution that keeps the image's size, a norm, an activation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, activation: str, norm: Normalisation):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False), norm(channels_out)
        self.activation = activation

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return ACTIVATIONS[self.activation](self.norm(self.conv(x)))

    def plain(self, flat: bool) -> Form:
        """flat: whether it reads what is flattened."""
        return sequence(form_of(self.conv), form_of(self.norm), Form(AS_MODULES[self.activation]))


class Pool(nn.Module):
    """The largest, or the mean, of windows that stand side by side."""

    def __init__(self, how: str, size: int):
        super().__init__()
        self.how, self.size = how, size

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return POOLS[self.how](x, self.size)

    def plain(self, flat: bool) -> Form:
        return Form(PLAIN_POOLS[self.how], {"kernel_size": self.size})


class FullyConnected(nn.Module):
    def __init__(self, features_in: int, features_out: int):
        super().__init__()
        self.linear = nn.Linear(features_in, features_out)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return F.relu(self.linear(x))

    def plain(self, flat: bool) -> Form:
        return sequence(form_of(self.linear), Form(nn.ReLU))


class Dropout(nn.Module):
    """Of whole channels of an image (Tompson et al. 2015, Sec. 3.2), of single numbers of what is flattened (Srivastava et al. 2014): each
    is 0 with probability `rate`, and else divided by 1 - `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training:
            return x
        if generator is None:
            raise ValueError("dropout draws at every forward: the network must be called with generator=")
        drawn = torch.rand(x.shape[:2], generator=generator, device=x.device, dtype=x.dtype)
        kept = (drawn >= self.rate).to(x) / (1 - self.rate)
        return x * kept.view(*kept.shape, *[1] * (x.dim() - 2))

    def plain(self, flat: bool) -> Form:
        return Form(nn.Dropout if flat else nn.Dropout2d, {"p": self.rate})
