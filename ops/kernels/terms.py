"""What a node's sum is made of, before anything is computed: `Term`, `scale * norm(stages(x))`.

An op that is made of separable convolutions gives its input and its weights instead of its output, so that a backend can compute the sum
of many ops without their normalised outputs ever being stored.
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ops.kernels.plain import Norm


class Normaliser(Protocol):
    """A batch norm that is told the moments of what it normalises, and then says how (`ops.op.BatchNorm`, `Settled`)."""

    weight: Tensor | None
    bias: Tensor | None

    @property
    def asks_moments(self) -> bool: ...
    def resolve(self, mean: Tensor | None, variance: Tensor | None, count: int) -> Norm:
        """mean, biased variance: (C,), of `count` values a channel; None where they are not asked for. Tracks them where it is to."""


class Settled(NamedTuple):
    """A normaliser that has been told."""

    norm: Norm
    asks_moments: bool = False

    @property
    def weight(self) -> Tensor | None:
        return self.norm.weight

    @property
    def bias(self) -> Tensor | None:
        return self.norm.bias

    def resolve(self, mean: Tensor | None, variance: Tensor | None, count: int) -> Norm:
        return self.norm


class Stage(NamedTuple):
    """`pointwise(depthwise(relu(norm(x))))`, as `plain.separable`; without `depthwise` the product alone. Bare tensors: no module is
    called."""

    depthwise: Tensor | None
    pointwise: Tensor
    stride: int = 1
    dilation: int = 1
    norm: Normaliser | None = None


class Term(NamedTuple):
    x: Tensor
    stages: tuple[Stage, ...] = ()
    norm: Normaliser | None = None


class Source:
    """A node's state as the ops that leave it read it. What several of them need is computed once."""

    def __init__(self, x: Tensor, generator: torch.Generator | None = None):
        self.x, self.generator = x, generator
        self._of: dict[Hashable, object] = {}

    def once(self, key: Hashable, compute: Callable[[], object]) -> object:
        if key not in self._of:
            self._of[key] = compute()
        return self._of[key]

    def after(self, prefix: Callable[[Tensor], Tensor]) -> Tensor:
        """`prefix(x)`; equal prefixes are the same."""
        return self.once(prefix, lambda: prefix(self.x))
