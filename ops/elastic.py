"""Layers with entangled weights: one set for all choices of a size, each takes a part (Once-for-all, Cai et al. 2020, Sec. 3.2)."""

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.activations import ACTIVATIONS, AS_MODULES
from ops.depthwise import depthwise
from ops.forms import Form, form_as, form_of, held
from ops.plain import Attention, Patches, Positions, SqueezeExcitation


class ElasticDepthwise(nn.Module):
    """Depthwise convolutions of several odd sizes, each the centre of the next larger one.

    transforms: each smaller kernel is a learned linear map of that centre, one for all channels, the identity at first (Cai et al. 2020,
    Sec. 3.2, "Elastic Kernel Size"). What a final network holds is the kernel itself, so that it has no maps of sizes it does not have.
    """

    def __init__(self, channels: int, sizes: Iterable[int], stride: int = 1, *, transforms: bool = False):
        super().__init__()
        self.channels, self.sizes, self.stride = channels, tuple(sorted(set(sizes), reverse=True)), stride
        largest = self.sizes[0]
        self.weight = nn.Parameter(nn.Conv2d(channels, channels, largest, groups=channels, bias=False).weight.detach())
        self.maps = nn.ParameterDict({str(size): torch.eye(size * size) for size in self.sizes[1:]} if transforms else {})

    def kernel(self, size: int, channels: int) -> Tensor:
        """(channels, 1, size, size), of the first channels."""
        weight = self.weight[:channels]
        for smaller in self.sizes[1:]:
            if smaller < size:
                break
            weight = _centre(weight, smaller)
            if str(smaller) in self.maps:
                weight = (weight.flatten(1) @ self.maps[str(smaller)]).view_as(weight)
        return weight

    def mixed(self, factors: Mapping[int, Tensor | None], channels: int) -> Tensor:
        """The sum of `factor * kernel`, zeros around the smaller ones: one convolution with it is the sum of the convolutions."""
        if len(factors) == 1:
            ((size, factor),) = factors.items()
            return self.kernel(size, channels) if factor is None else self.kernel(size, channels) * factor
        largest, total = max(factors), None
        for size, factor in factors.items():
            around = (largest - size) // 2
            part = F.pad(self.kernel(size, channels), (around,) * 4)
            part = part if factor is None else part * factor
            total = part if total is None else total + part
        return total

    def forward(self, x: Tensor, factors: Mapping[int, Tensor | None]) -> Tensor:
        """x: (N, C, H, W), C at most the layer's. factors: by size, None for 1."""
        return depthwise(x, self.mixed(factors, x.shape[1]), self.stride)

    def take(self, other: "ElasticDepthwise") -> None:
        """Becomes the first channels of the kernel that `other` has of the largest size here, and its maps of those below. Raises
        ValueError: it has no such size."""
        if self.sizes[0] not in other.sizes:
            raise ValueError(f"cannot inherit a kernel of size {self.sizes[0]}, there are {', '.join(map(str, other.sizes))}")
        with torch.no_grad():
            self.weight.copy_(other.kernel(self.sizes[0], self.channels))
            for size, own in self.maps.items():
                own.copy_(other.maps[size])

    def plain(self) -> Form:
        """Of the largest kernel."""
        size = self.sizes[0]
        arguments = {"in_channels": self.channels, "out_channels": self.channels, "kernel_size": size,
                     **({} if self.stride == 1 else {"stride": self.stride}), "padding": size // 2, "groups": self.channels, "bias": False}
        return Form(nn.Conv2d, arguments, {"weight": self.weight.detach()})


form_of.register(ElasticDepthwise, ElasticDepthwise.plain)


def _centre(weight: Tensor, size: int) -> Tensor:
    begin = (weight.shape[-1] - size) // 2
    return weight[..., begin : begin + size, begin : begin + size]


class ElasticSqueeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) of the first channels: each times a gate that all of them decide.

    middle(channels): how many hidden units there are for so many channels. activation, gate: as in `ops.activations.ACTIVATIONS`.
    """

    def __init__(self, channels: int, middle: Callable[[int], int], *, activation: str, gate: str):
        super().__init__()
        self.middle, self.activation, self.gate = middle, activation, gate
        self.reduce, self.expand = nn.Conv2d(channels, middle(channels), 1), nn.Conv2d(middle(channels), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        middle = self.middle(channels)
        z = F.conv2d(x.mean((2, 3), keepdim=True), self.reduce.weight[:middle, :channels], self.reduce.bias[:middle])
        z = F.conv2d(ACTIVATIONS[self.activation](z), self.expand.weight[:channels, :middle], self.expand.bias[:channels])
        return x * ACTIVATIONS[self.gate](z)

    def size(self, channels: int) -> int:
        """Parameters for so many channels; the multiply-adds of an image are those without the biases."""
        return 2 * channels * self.middle(channels) + channels + self.middle(channels)

    def plain(self) -> Form:
        inner = {"activation": Form(AS_MODULES[self.activation]), "gate": Form(AS_MODULES[self.gate])}
        return Form(SqueezeExcitation, {"channels": self.reduce.in_channels, "middle": self.reduce.out_channels, **inner}, held(self))


form_of.register(ElasticSqueeze, ElasticSqueeze.plain)


class ElasticLinear(nn.Linear):
    """A linear layer of which the first outputs are computed from the first inputs (AutoFormer, Chen et al. 2021, Sec. 3.2)."""

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """x: (..., inputs), at most the layer's. outputs: None for all."""
        outputs = self.out_features if outputs is None else outputs
        return F.linear(x, self.weight[:outputs, : x.shape[-1]], None if self.bias is None else self.bias[:outputs])


form_of.register(ElasticLinear, lambda module: form_as(nn.Linear, module))


class ElasticLayerNorm(nn.LayerNorm):
    """A layer norm (Ba et al. 2016) of the first channels: their own mean and variance, the first of the factors and offsets."""

    def __init__(self, channels: int):
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., channels), at most the layer's."""
        channels = x.shape[-1]
        return F.layer_norm(x, (channels,), self.weight[:channels], self.bias[:channels], self.eps)

    def plain(self) -> Form:
        return Form(nn.LayerNorm, {"normalized_shape": self.normalized_shape[0]}, held(self))


form_of.register(ElasticLayerNorm, ElasticLayerNorm.plain)


class ElasticPositions(nn.Module):
    """Adds to each token a learned vector of its place, the first channels of it: (N, T, C) -> (N, T, C), at most `places` tokens."""

    def __init__(self, places: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(places, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[1], : x.shape[2]]

    def plain(self) -> Form:
        return Form(Positions, {"places": self.weight.shape[0], "channels": self.weight.shape[1]}, held(self))


form_of.register(ElasticPositions, ElasticPositions.plain)


class ElasticPatches(nn.Module):
    """An image cut into squares of `side` pixels, each a token (ViT, Dosovitskiy et al. 2021, eq. 1): (N, C, H, W) -> (N, T, channels), row
    by row. class_token: a learned token before them."""

    def __init__(self, in_channels: int, channels: int, side: int, *, class_token: bool):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, channels, side, side)
        self.class_token = nn.Parameter(torch.zeros(channels)) if class_token else None

    def forward(self, x: Tensor, channels: int) -> Tensor:
        """channels: of the tokens, the first so many."""
        layer = self.convolution
        x = F.conv2d(x, layer.weight[:channels], layer.bias[:channels], layer.stride).flatten(2).transpose(1, 2)
        return x if self.class_token is None else torch.cat([self.class_token[:channels].expand(len(x), 1, -1), x], 1)

    def plain(self) -> Form:
        layer = self.convolution
        return Form(Patches, {"in_channels": layer.in_channels, "channels": layer.out_channels, "side": layer.kernel_size[0],
                              "class_token": self.class_token is not None}, held(self))


form_of.register(ElasticPatches, ElasticPatches.plain)


class ElasticAttention(nn.Module):
    """Self-attention (Vaswani et al. 2017, Sec. 3.2.2) of which the first heads are computed, from the first channels. A head has as many
    channels whatever the token has, so that the scale of the scores is one for all (AutoFormer, Chen et al. 2021, Sec. 3.3).

    `heads_of(x, heads)` is what the heads find, before `projection`: (N, T, C) -> (N, T, heads * head_channels), head by head. causal: a
    token sees itself and those before it.
    """

    def __init__(self, channels: int, heads: int, head_channels: int, *, causal: bool):
        super().__init__()
        self.heads, self.head_channels, self.causal = heads, head_channels, causal
        self.query, self.key, self.value = (ElasticLinear(channels, heads * head_channels) for _ in range(3))
        self.projection = ElasticLinear(heads * head_channels, channels)

    def heads_of(self, x: Tensor, heads: int) -> Tensor:
        n, tokens, width = *x.shape[:2], self.head_channels
        q, k, v = (layer(x, heads * width).view(n, tokens, heads, width).transpose(1, 2) for layer in (self.query, self.key, self.value))
        scores = (q * width**-0.5) @ k.transpose(2, 3)  # written out: products are counted, and can be differentiated twice
        if self.causal:
            scores = scores.masked_fill(torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1), -torch.inf)
        return (scores.softmax(3) @ v).transpose(1, 2).reshape(n, tokens, heads * width)

    def reorder(self, heads: Tensor) -> None:
        """Puts the heads in another order, in place; the layer computes what it did. heads: (heads,), the places that they have now."""
        rows = (heads[:, None] * self.head_channels + torch.arange(self.head_channels, device=heads.device)).flatten()
        with torch.no_grad():
            for layer in (self.query, self.key, self.value):
                layer.weight.copy_(layer.weight[rows])
                layer.bias.copy_(layer.bias[rows])
            self.projection.weight.copy_(self.projection.weight[:, rows])

    def plain(self) -> Form:
        return Form(Attention, {"channels": self.projection.out_features, "heads": self.heads, "head_channels": self.head_channels,
                                "causal": self.causal}, held(self))


form_of.register(ElasticAttention, ElasticAttention.plain)
