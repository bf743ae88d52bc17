"""What a node's sum is made of, before anything is computed: `Term`, `scale * norm(stages(x))`.

An op that is made of separable convolutions gives its input and its weights instead of its output, so that a backend can compute the sum
of many ops without their normalised outputs ever being stored.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ops.kernels.plain import Norm


class Normaliser(Protocol):
    """A batch norm as kernels see it (`ops.op.BatchNorm`, `Settled`)."""

    eps: float
    momentum: float
    weight: Tensor | None
    bias: Tensor | None

    def constant(self) -> Norm | None:
        """The norm where it does not depend on what is normalised; None where the batch's own moments count."""

    def follows(self) -> tuple[Tensor, Tensor] | None:
        """The running mean and variance that are to follow the batch's moments now."""


@dataclass(frozen=True)
class Settled:
    """A normaliser that has seen what it normalises."""

    norm: Norm
    eps: float = 0.0
    momentum: float = 0.0

    @property
    def weight(self) -> Tensor | None:
        return self.norm.weight

    @property
    def bias(self) -> Tensor | None:
        return self.norm.bias

    def constant(self) -> Norm | None:
        return self.norm

    def follows(self) -> tuple[Tensor, Tensor] | None:
        return None


class Flow:
    """A tensor on its way through the kernels that read it: each may leave another name of it, `onward`, for the next kernel to read, so
    that on the way back the gradient passes them in turn and is added up in one place. Kernels add to what arrives at such a name, so
    nobody else may read it: for all others there is `tensor`."""

    def __init__(self, tensor: Tensor):
        self.tensor = self.onward = tensor


class Stage(NamedTuple):
    """`pointwise(depthwise(relu(norm(x))))`, as `plain.separable`; without `depthwise` the product alone, or, where `pointwise` is a kernel
    (C', C, k, k), k odd, a convolution with it, padded by dilation * (k - 1) / 2, of stride 1. Bare tensors: no module is called.

    halves: output (i, j) is the product of pointwise, (C', 2C, 1, 1), with the pixels (2i, 2j) and (2i + 1, 2j + 1), zeros beyond the
    border, one after the other (`ops.conv.ReducedSkip`); stride is 2 and there is no `depthwise`.

    As one of an op's `layers`, which are parameters as they are, `pointwise` may be any kernel (C', C, k, k), k odd, without `depthwise`,
    padded by dilation * (k - 1) / 2; and where `odd` is given, the output is two products one after the other: of `pointwise` with the
    pixels (2i, 2j), and of `odd` with the pixels (2i + 1, 2j + 1).
    """

    depthwise: Tensor | None
    pointwise: Tensor
    stride: int = 1
    dilation: int = 1
    norm: Normaliser | None = None
    halves: bool = False
    odd: Tensor | None = None


class Term(NamedTuple):
    x: Flow
    stages: tuple[Stage, ...] = ()
    norm: Normaliser | None = None


class Source:
    """A node's state as the ops that leave it read it. What several of them need is computed once."""

    def __init__(self, x: Tensor, generator: torch.Generator | None = None):
        self.flow, self.generator = Flow(x), generator
        self._of: dict[Hashable, Any] = {}

    @property
    def x(self) -> Tensor:
        return self.flow.tensor

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._of:
            self._of[key] = compute()
        return self._of[key]

    def after(self, prefix: Callable[[Tensor], Tensor]) -> Tensor:
        """`prefix(x)`; equal prefixes are the same."""
        return self.once(prefix, lambda: prefix(self.x))
