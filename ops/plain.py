"""The plain forms of what `torch.nn` has no class for: ordinary modules of PyTorch that import nothing of ours.

`supernet.export` writes the sources of those that a network uses into its file, word for word, so each stands alone: it uses torch, `nn`
and `F`, and no other class or function of this module. They compute what the ops compute, slowly and obviously: tests hold the ops against
them. `norm` stands for the options of `nn.BatchNorm2d`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SeparableConv(nn.Module):
    """Depthwise, pointwise, batch norm, ReLU, depthwise, pointwise; `stride` is that of the first."""

    def __init__(self, channels: int, size: int, stride: int = 1, **norm: Any):
        super().__init__()
        self.depthwise1 = nn.Conv2d(channels, channels, size, stride, size // 2, groups=channels, bias=False)
        self.pointwise1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels, **norm)
        self.depthwise2 = nn.Conv2d(channels, channels, size, 1, size // 2, groups=channels, bias=False)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pointwise1(self.depthwise1(x)))
        return self.pointwise2(self.depthwise2(F.relu(x)))


class DilatedConv(nn.Module):
    """Depthwise with dilation 2, pointwise."""

    def __init__(self, channels: int, size: int, stride: int = 1):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, size, stride, 2 * (size // 2), 2, channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class HalvedSkip(nn.Module):
    """Half the height and width: two 1x1 convolutions of stride 2, the second of the image shifted by one pixel. Odd sides are padded."""

    def __init__(self, channels_in: int, channels_out: int, even: int | None = None):
        super().__init__()
        even = channels_out // 2 if even is None else even
        self.even = nn.Conv2d(channels_in, even, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - even, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        return torch.cat([self.even(x), self.odd(shifted)], 1)


class HalvingBlock(nn.Module):
    """Half the height and width: two 3x3 convolutions, each after a ReLU, beside average pooling and a 1x1 convolution."""

    def __init__(self, channels_in: int, channels_out: int, inner: int | None = None):
        super().__init__()
        inner = channels_out if inner is None else inner
        self.conv1 = nn.Conv2d(channels_in, inner, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(F.relu(x)))
        y = self.norm2(self.conv2(F.relu(y)))
        return y + self.shortcut(F.avg_pool2d(x, 2, 2, ceil_mode=True))


class InvertedBottleneck(nn.Module):
    """1x1 to `hidden` channels, depthwise, 1x1; a batch norm and a ReLU after the first two."""

    def __init__(self, channels_in: int, hidden: int, channels_out: int, size: int, stride: int = 1, **norm: Any):
        super().__init__()
        self.expand = nn.Conv2d(channels_in, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden, **norm)
        self.depthwise = nn.Conv2d(hidden, hidden, size, stride, size // 2, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden, **norm)
        self.project = nn.Conv2d(hidden, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.expand(x)))
        return self.project(F.relu(self.norm2(self.depthwise(x))))


class SqueezeExcitation(nn.Module):
    """Each channel times a gate that the means of all channels decide, by way of `middle` numbers."""

    def __init__(self, channels: int, middle: int, activation: nn.Module, gate: nn.Module):
        super().__init__()
        self.reduce = nn.Conv2d(channels, middle, 1)
        self.activation = activation
        self.expand = nn.Conv2d(middle, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.activation(self.reduce(means))))


class Residual(nn.Module):
    """The input beside what `body` makes of it."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class FirstChannels(nn.Module):
    """The first `channels` channels, zeros where there are fewer."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        missing = self.channels - x.shape[1]
        return F.pad(x, (0, 0, 0, 0, 0, missing)) if missing > 0 else x[:, : self.channels]


class ResidualOfWidth(nn.Module):
    """The first `channels` channels of the input, zeros where there are fewer, beside what `body` makes of the whole input."""

    def __init__(self, body: nn.Module, channels: int):
        super().__init__()
        self.body, self.channels = body, channels

    def forward(self, x: Tensor) -> Tensor:
        missing = self.channels - x.shape[1]
        straight = F.pad(x, (0, 0, 0, 0, 0, missing)) if missing > 0 else x[:, : self.channels]
        return self.body(x) + straight


class Value(nn.Module):
    """Numbers that a network holds beside its layers. whole: they are whole numbers."""

    def __init__(self, shape: tuple[int, ...], whole: bool = False):
        super().__init__()
        self.register_buffer("value", torch.zeros(shape, dtype=torch.int64 if whole else None))

    def forward(self) -> Tensor:
        return self.value


class Highway(nn.Module):
    """state + c * (activation(g) - state) with [c, g] = W read, c squashed by a sigmoid: (B, inputs), (B, hidden) -> (B, hidden)."""

    def __init__(self, inputs: int, hidden: int, activation: nn.Module):
        super().__init__()
        self.gates = nn.Linear(inputs, 2 * hidden, bias=False)
        self.activation = activation

    def forward(self, read: Tensor, state: Tensor) -> Tensor:
        c, g = self.gates(read).chunk(2, -1)
        return state + c.sigmoid() * (self.activation(g) - state)


class Positions(nn.Module):
    """Adds to each token a learned vector of its place: (N, T, C), T at most `places`."""

    def __init__(self, places: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(places, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[1]]


class Patches(nn.Module):
    """Squares of `side` pixels as tokens, row by row, a learned token before them or not: (N, C, H, W) -> (N, T, channels)."""

    def __init__(self, in_channels: int, channels: int, side: int, class_token: bool = False):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, channels, side, side)
        self.class_token = nn.Parameter(torch.zeros(channels)) if class_token else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x).flatten(2).transpose(1, 2)
        return x if self.class_token is None else torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], 1)


class Attention(nn.Module):
    """Self-attention of several heads: (N, T, C) -> (N, T, C). causal: a token sees itself and those before it."""

    def __init__(self, channels: int, heads: int, head_channels: int, causal: bool = False):
        super().__init__()
        self.heads, self.head_channels, self.causal = heads, head_channels, causal
        self.query = nn.Linear(channels, heads * head_channels)
        self.key = nn.Linear(channels, heads * head_channels)
        self.value = nn.Linear(channels, heads * head_channels)
        self.projection = nn.Linear(heads * head_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, self.head_channels)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) / self.head_channels**0.5
        if self.causal:
            tokens = x.shape[1]
            scores = scores + torch.full((tokens, tokens), -torch.inf, device=x.device, dtype=x.dtype).triu(1)
        return self.projection((scores.softmax(3) @ v).transpose(1, 2).flatten(2))
