"""Layers with entangled weights: one set for all choices of a size, each takes a part (Once-for-all, Cai et al. 2020, Sec. 3.2)."""

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.activations import ACTIVATIONS, AS_MODULES
from ops.depthwise import depthwise
from ops.forms import Form, form_of, held
from ops.plain import SqueezeExcitation


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
