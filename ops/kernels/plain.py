"""The fused operations of `ops.kernels` in plain PyTorch: what they compute, differentiable any number of times, on any device."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Norm(NamedTuple):
    """A batch normalisation `(x - mean) * rstd * weight + bias`, all of shape (C,).

    by_batch: `mean` and `rstd` are those of `x` itself (biased variance), and gradients flow through them although the tensors given
    carry no history; otherwise they are constants (running averages). weight, bias: None for ones and zeros.
    """

    mean: Tensor
    rstd: Tensor
    by_batch: bool = True
    weight: Tensor | None = None
    bias: Tensor | None = None


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of `x` (N, C, H, W) over all but the channels, without history."""
    variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
    return mean, variance


def moments_many(xs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`moments` of M tensors of one shape, (M, C) each."""
    means, variances = zip(*(moments(x) for x in xs))
    return torch.stack(means), torch.stack(variances)


def normalised(x: Tensor, norm: Norm) -> Tensor:
    """`norm` of `x`."""
    mean, rstd = norm.mean, norm.rstd
    if norm.by_batch:
        # The values that were given with the derivatives of x's own: both brackets are exactly 0.
        variance, own = torch.var_mean(x, (0, 2, 3), correction=0)
        mean, rstd = mean + (own - own.detach()), (rstd.pow(-2) + (variance - variance.detach())).rsqrt()
    scale = rstd if norm.weight is None else rstd * norm.weight
    shape = (1, -1, 1, 1)
    y = (x - mean.view(shape)) * scale.view(shape)
    return y if norm.bias is None else y + norm.bias.view(shape)


def separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, *, stride: int = 1, dilation: int = 1, norm: Norm | None = None) -> Tensor:
    """`pointwise(depthwise(relu(norm(x))))`: (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)).

    depthwise: (C, 1, k, k), k odd, padded by dilation * (k - 1) / 2. pointwise: (C', C, 1, 1). norm: None for none.
    """
    x = F.relu(x if norm is None else normalised(x, norm))
    padding = dilation * (depthwise.shape[-1] - 1) // 2
    return F.conv2d(F.conv2d(x, depthwise, None, stride, padding, dilation, x.shape[1]), pointwise)


def separable_many(xs: Sequence[Tensor], depthwises: Sequence[Tensor], pointwises: Sequence[Tensor], *, stride: int = 1,
                   dilations: Sequence[int], norms: Sequence[Norm | None]) -> list[Tensor]:
    """`separable` M times. Sizes and dilations may differ, shapes of inputs and of outputs not; all have a norm of one kind, or none."""
    return [separable(x, depthwise, pointwise, stride=stride, dilation=dilation, norm=norm)
            for x, depthwise, pointwise, dilation, norm in zip(xs, depthwises, pointwises, dilations, norms, strict=True)]


def mix(parts: Sequence[Tensor], norms: Sequence[Norm | None], scales: Sequence[Tensor | None]) -> Tensor:
    """`sum over i of scales[i] * norms[i](parts[i])`, all parts (N, C, H, W). A norm of None is the identity; scales are scalar tensors,
    None for 1."""
    total: Tensor | None = None
    for part, norm, scale in zip(parts, norms, scales, strict=True):
        y = part if norm is None else normalised(part, norm)
        y = y if scale is None else y * scale
        total = y if total is None else total + y
    if total is None:
        raise ValueError("a mix needs at least one part")
    return total


def max_pool(x: Tensor, size: int, stride: int) -> Tensor:
    """Padded by size // 2 without a value; the first of equal entries wins."""
    return F.max_pool2d(x, size, stride, size // 2)


def avg_pool(x: Tensor, size: int, stride: int) -> Tensor:
    """Padded by size // 2; the padding does not count."""
    return F.avg_pool2d(x, size, stride, size // 2, count_include_pad=False)


Rounds = Callable[[], Sequence[Sequence[Any]]]  # the ops of a cell that will be added, those together whose sources are there at once


class NodeSums(dict):
    """The sums of a cell's nodes, by node, of a backend that computes each node's `Sum` on its own."""

    def __init__(self, new: Callable[[], Any]):
        super().__init__()
        self._new = new

    def __missing__(self, node: int) -> Any:
        self[node] = self._new()
        return self[node]

    def take(self, node: int) -> Tensor | None:
        """The total; None for a node that nothing was added to."""
        return self.pop(node).total() if node in self else None

    def close(self) -> None:
        """Once the last node is taken."""


def node_sums(x: Tensor, rounds: Rounds, kept: dict[Any, Any] | None) -> NodeSums:
    """The sums of a cell's nodes, `sums[node].add(...)` as `Sum.add`. x: an input of the cell. rounds, kept: for backends that compute the
    ops of several nodes together: what will be added, and a place for what cells that are called with the same scales can share."""
    return NodeSums(_NodeSum)


def same_shape(x: Tensor, shape: Sequence[int]) -> None:
    """Raises ValueError where not all that a sum adds up has one shape."""
    if x.shape != shape:
        raise ValueError(f"what is added up at a node must have one shape, got {tuple(shape)} and {tuple(x.shape)}")


class Sum:
    """A node's sum, added up op by op."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._own = False  # whether the total is a tensor that nobody else has seen

    def add(self, op: Any, source: Any, scale: Tensor | None = None, factor: Tensor | None = None,
            change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Adds `scale * change(factor * op(source))`: a scalar tensor, a function of tensors, a tensor (N, 1, 1, 1), each None for the
        identity; an `ops.op.Op`, a `terms.Source`. The scale is folded into the op's norm where nothing stands between."""
        shared = source.after(op.prefix)
        if op.shareable:
            y = source.once(op, lambda: op.finish(shared, None, source.generator))
        else:
            y, scale = op.finish(shared, scale, source.generator), None
        if factor is not None:
            y = y * factor
        self.add_tensor(y if change is None else change(y), scale)

    def add_tensor(self, x: Tensor, scale: Tensor | None = None) -> None:
        """Adds `scale * x`."""
        total = self._total
        if total is None:
            self._total = x if scale is None else x * scale
            return
        same_shape(x, total.shape)
        alike = x.dtype == total.dtype and (scale is None or scale.dtype == total.dtype)  # else a type is chosen, by autocast perhaps
        if not self._own or not alike:
            self._total, self._own = total + x if scale is None else torch.addcmul(total, x, scale), True
        elif scale is None:
            total.add_(x)
        else:
            total.addcmul_(x, scale)

    def total(self) -> Tensor:
        """What was added, of which there must be something."""
        if self._total is None:
            raise ValueError("a sum needs at least one part")
        self._own = False
        return self._total


class _NodeSum(Sum):
    """Of a cell's node, which others read and nobody changes in place."""

    def total(self) -> Tensor:
        return _with_gradient_alike(super().total())


class _AlikeGradient(torch.autograd.Function):
    """The tensor itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.order = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.contiguous(memory_format=ctx.order)


def _with_gradient_alike(x: Tensor) -> Tensor:
    """`x`, whose gradient will lie in memory as it does. That of what `torch.cat` or a mean reads has gaps or another order, and on a CPU a
    batch norm takes seven times as long on the way back from there, for each op that ends on the node."""
    needed = x.requires_grad and x.dim() == 4 and x.device.type == "cpu" and not torch.compiler.is_compiling()
    return _AlikeGradient.apply(x) if needed else x
