"""What a candidate operation is: `Op`, `norm(body(prefix(x)))`, and the two parts it is made of, prefixes and `BatchNorm`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.forms import Form, NoPlainForm, form_of, held, sequence
from ops.kernels import Norm, kernels_for
from ops.kernels.terms import Flow, Source, Stage, Term
from ops.traits import Family, OpTraits


@dataclass(frozen=True)
class Normalisation:
    """How candidate operations normalise. The DARTS supernet: not affine, pools followed by a batch norm; its final
    network: affine, no batch norm after pools (Liu et al. 2019, official code, operations.py and model.py). One after a pool never has
    factors, in no network (DARTS, model_search.py; DrNAS, operations.py, AvgPoolBN and MaxPoolBN).

    running_statistics=False normalises with the batch's own statistics in evaluation too.
    """

    affine: bool
    after_pools: bool
    running_statistics: bool = True

    def __call__(self, channels: int) -> "BatchNorm":
        return BatchNorm(channels, affine=self.affine, running_statistics=self.running_statistics)

    def after_pool(self, channels: int) -> "BatchNorm | None":
        return BatchNorm(channels, affine=False, running_statistics=self.running_statistics) if self.after_pools else None


class Across(Protocol):
    """Processes that normalise together. `gathered(x)`: (P, ...) from each one's x, differentiable any number of times, zeros from one
    whose part does not count. `shares`: whether they do so now."""

    @property
    def shares(self) -> bool: ...

    def gathered(self, x: Tensor) -> Tensor: ...


def moments_of(x: Tensor) -> Tensor:
    """(1 + 2C,) of x (N, C, ...): the number of values a channel, their mean, and the sum of the squares of what they differ from it by. In
    single precision at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    count = x.numel() // x.shape[1]
    variance, mean = torch.var_mean(x, [n for n in range(x.dim()) if n != 1], correction=0)
    return torch.cat([mean.new_full((1,), count), mean, variance * count])


def together(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The `moments_of` the parts of a batch, (P, 1 + 2C), as those of the whole (Chan, Golub and LeVeque 1979): a scalar, (C,), (C,)."""
    counts, means, squares = rows.split([1, (rows.shape[1] - 1) // 2, (rows.shape[1] - 1) // 2], 1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    return count, mean, (squares + counts * (means - mean).square()).sum(0)


class BatchNorm(nn.Module):
    """Batch normalisation whose output can be multiplied by a scalar at no extra pass, and whose statistics can be held still.

    Equal to nn.BatchNorm2d (eps 1e-5, momentum 0.1: biased variance normalises, unbiased variance is tracked). With
    `scale` (a scalar tensor) the result is `scale * norm(x)`: the scale is folded into the per-channel factor. While
    `updates` is False a training forward leaves the running statistics as they are. While `by_batch` is True the batch's own statistics
    normalise in evaluation too, and none are tracked.

    across: where the batch is one of several processes' parts of a batch, who brings their moments together, so that those of the whole
    normalise; None for those of the part. On the plain path alone.
    """

    across: "Across | None" = None

    def __init__(self, channels: int, *, affine: bool, running_statistics: bool = True, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.channels, self.eps, self.momentum, self.updates, self.by_batch = channels, eps, momentum, True, False
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels) if running_statistics else None)
        self.register_buffer("running_var", torch.ones(channels) if running_statistics else None)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return self._normalised(x, scale, self.channels, self.weight, self.bias, self.running_mean, self.running_var)

    def leading(self, x: Tensor, scale: Tensor | None = None, begin: int = 0) -> Tensor:
        """The same of x with the first so many of the channels from `begin` on."""
        channels = x.shape[1]
        if channels == self.channels:
            return self(x, scale)
        parts = self.weight, self.bias, self.running_mean, self.running_var
        return self._normalised(x, scale, channels, *(None if part is None else part[begin : begin + channels] for part in parts))

    def _normalised(self, x: Tensor, scale: Tensor | None, channels: int, weight: Tensor | None, bias: Tensor | None,
                    mean: Tensor | None, var: Tensor | None) -> Tensor:
        if scale is not None:
            # contiguous: torch's CPU kernel for channels_last reads past the one element of an expanded weight
            weight = scale.expand(channels).contiguous() if weight is None else scale * weight
            bias = None if bias is None else scale * bias
        by_batch = self.asks_moments
        if by_batch and self.across is not None and self.across.shares:
            return self._by_all(x, weight, bias, mean, var)
        tracked = not by_batch or self._tracks
        return F.batch_norm(x, mean if tracked else None, var if tracked else None, weight, bias, by_batch, self.momentum, self.eps)

    def _by_all(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
                running_var: Tensor | None) -> Tensor:
        count, mean, squares = together(self.across.gathered(moments_of(x)))
        if self._tracks:
            with torch.no_grad():
                for running, now in ((running_mean, mean), (running_var, squares / (count - 1))):
                    running.lerp_(now.to(running.dtype), self.momentum)
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        scale = (squares / count + self.eps).rsqrt()
        scale = scale if weight is None else scale * weight
        y = (x - mean.view(shape)) * scale.view(shape)
        return (y if bias is None else y + bias.view(shape)).to(x.dtype)

    @property
    def asks_moments(self) -> bool:
        """Whether the moments of what is normalised count, and not running averages."""
        return self.training or self.by_batch or self.running_mean is None

    @property
    def _tracks(self) -> bool:
        return self.training and self.updates and self.running_mean is not None

    def constant(self) -> Norm | None:
        """As `kernels.terms.Normaliser`."""
        if self.asks_moments:
            return None
        return Norm(self.running_mean, (self.running_var + self.eps).rsqrt(), False, self.weight, self.bias)

    def follows(self) -> tuple[Tensor, Tensor] | None:
        """As `kernels.terms.Normaliser`."""
        return (self.running_mean, self.running_var) if self._tracks else None

    def extra_repr(self) -> str:
        return f"{self.channels}, affine={self.weight is not None}"

    def plain(self, make: type[nn.Module] = nn.BatchNorm2d) -> Form:
        """make: PyTorch's batch norm of what is normalised; they differ in the shape that they take alone."""
        counted = {} if self.running_mean is None else {"num_batches_tracked": torch.tensor(0)}
        return Form(make, {"num_features": self.channels, **self.plain_options()}, held(self) | counted)

    def plain_options(self) -> dict[str, Any]:
        """The options of `nn.BatchNorm2d` that are not its defaults."""
        options = {"eps": self.eps, "momentum": self.momentum, "affine": self.weight is not None,
                   "track_running_stats": self.running_mean is not None}
        defaults = inspect.signature(nn.BatchNorm2d).parameters
        return {name: value for name, value in options.items() if value != defaults[name].default}


form_of.register(BatchNorm, BatchNorm.plain)


@dataclass(frozen=True)
class Identity:
    def __call__(self, x: Tensor) -> Tensor:
        return x

    def plain(self) -> Form:
        return Form(nn.Identity)


@dataclass(frozen=True)
class ReLU:
    def __call__(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def plain(self) -> Form:
        return Form(nn.ReLU)


@dataclass(frozen=True)
class MaxPool:
    """Padded so that stride 1 keeps the size; the first of equal entries wins."""

    size: int
    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        return kernels_for(x).max_pool(x, self.size, self.stride)

    def plain(self) -> Form:
        return Form(nn.MaxPool2d, {"kernel_size": self.size, "stride": self.stride, "padding": self.size // 2})


@dataclass(frozen=True)
class AvgPool:
    """Padded so that stride 1 keeps the size; the padding does not count."""

    size: int
    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        return kernels_for(x).avg_pool(x, self.size, self.stride)

    def plain(self) -> Form:
        return Form(nn.AvgPool2d, {"kernel_size": self.size, "stride": self.stride, "padding": self.size // 2, "count_include_pad": False})


for prefix in (Identity, ReLU, MaxPool, AvgPool):
    form_of.register(prefix, prefix.plain)

Prefix = Callable[[Tensor], Tensor]


def no_layers(body: None) -> tuple[Stage, ...]:
    """Of an op that is `norm(prefix(x))`."""
    return ()


class Op(nn.Module):
    """A candidate operation: `norm(body(prefix(x)))`, each part optional; (N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride)).

    `prefix` has no parameters and is hashable, so that operations which start with the same one (a ReLU, say) and read the
    same node share its result. Any module becomes an operation as `Op(module)`. family: by which drawings colour it; that of the class
    unless given. layers: of a body that is nothing but convolutions, `layers(body)` gives their weights, the first of which reads
    `prefix(x)`; none for an op without a body. Kernels that compute many ops together then call neither it nor its body.
    """

    contributes = True  # False: the output is zero, and need not be computed
    draws = False  # True: random, so that each edge must have its own even though it has no parameters
    passes_input = False  # True: the output is the input itself, which drop path leaves alone in a final network
    family: Family = "conv"

    def __init__(self, body: nn.Module | None = None, *, prefix: Prefix = Identity(), norm: BatchNorm | None = None,
                 family: Family | None = None, layers: Callable[[Any], tuple[Stage, ...]] | None = None):
        super().__init__()
        self.prefix, self.body, self.norm, self._layers = prefix, body, norm, layers
        if family is not None:
            self.family = family

    @cached_property
    def shareable(self) -> bool:
        """Whether the op is the same function on every edge that leaves a node: it neither learns nor draws."""
        return not self.draws and self.parameter_free

    @property
    def parameter_free(self) -> bool:
        """Whether nothing of it is learned."""
        return next(self.parameters(), None) is None

    @property
    def traits(self) -> OpTraits:
        return OpTraits(self.family, self.parameter_free, self.passes_input, self.contributes)

    @property
    def layers(self) -> tuple[Stage, ...] | None:
        """The convolutions that the op consists of beside its prefix and its norm; None where it is something else."""
        return None if self._layers is None else self._layers(self.body)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        total = kernels_for(x).Sum()
        total.add(self, Source(x, generator))
        return total.total()

    def compute(self, shared: Tensor, generator: torch.Generator | None) -> Tensor:
        """What is normalised, from `shared = prefix(x)`."""
        return shared if self.body is None else self.body(shared)

    def finish(self, shared: Tensor, scale: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """`scale * op(x)` from `shared = prefix(x)`; `scale` is a scalar tensor, None stands for 1."""
        y = self.compute(shared, generator)
        if self.norm is not None:
            return self.norm(y, scale)
        return y if scale is None else y * scale

    def term(self, source: Source) -> Term:
        """`op(x)` for kernels that add up the terms of a node themselves."""
        return Term(Flow(self.compute(source.after(self.prefix), source.generator)), (), self.norm)

    def plain(self) -> Form:
        """The same operation in plain PyTorch, as it is in evaluation. Raises NoPlainForm: it has none, or a part of it has none.

        An op that computes otherwise than `norm(body(prefix(x)))` says it itself.
        """
        own = [name for name in ("forward", "compute", "finish") if getattr(type(self), name) is not getattr(Op, name)]
        if own:
            raise NoPlainForm(f"{type(self).__name__} has no plain form: it has a {own[0]}() of its own, and no plain() beside it")
        return sequence(*(form_of(part) for part in (self.prefix, self.body, self.norm) if part is not None))


@form_of.register
def _of_op(op: Op) -> Form:
    return op.plain()


class SeparableOp(Op):
    """An op that begins with a ReLU and whose body is separable or dense convolutions: `stages(body)` gives their weights, for kernels
    that compute them together. They then call no module of the body. layers: as for `Op`, where they are not the stages themselves."""

    def __init__(self, body: nn.Module, norm: BatchNorm, stages: Callable[[Any], tuple[Stage, ...]], family: Family | None = None,
                 layers: Callable[[Any], tuple[Stage, ...]] | None = None):
        super().__init__(body, prefix=ReLU(), norm=norm, family=family, layers=layers or stages)
        self._stages = stages

    def term(self, source: Source) -> Term:
        return Term(source.flow, self._stages(self.body), self.norm)
