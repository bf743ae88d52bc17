"""The fused operations of `ops.kernels.plain` on a CPU by `native.cpp`, for tensors whose channels lie innermost (channels_last).

A node's whole sum is one function with one backward. It stores what convolutions give, un-normalised, and nothing else: normalised
tensors, ReLUs and depthwise outputs are computed again where they are needed, in the caches. Backwards cannot be differentiated again.
"""

import ctypes
import functools
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ops.kernels import plain
from ops.kernels.build import library
from ops.kernels.plain import Norm
from ops.kernels.terms import Normaliser, Settled, Source, Stage, Term

REAL = {torch.float32: "float", torch.float64: "double"}
MAX_POOL = 15  # larger windows have more places than a byte can name


def computes(x: Tensor) -> bool:
    """Whether `x` is a tensor for these kernels."""
    return (x.dim() == 4 and x.dtype in REAL and x.device.type == "cpu" and x.stride(1) == 1 and x.numel() > 0
            and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling())


def available() -> None:
    """Builds the library if need be. Raises BuildError."""
    library("float")


@functools.cache
def _function(name: str, dtype: torch.dtype) -> Callable[[int], None]:
    function = getattr(library(REAL[dtype]), name)
    function.argtypes, function.restype = (ctypes.c_void_p,), None
    return function


def call(name: str, dtype: torch.dtype, arguments: Sequence[int]) -> None:
    packed = array("q", arguments)
    _function(name, dtype)(packed.buffer_info()[0])


def at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def rows(x: Tensor) -> tuple[Tensor, int]:
    """`x`, copied if need be, with all its pixels one after the other; and the distance of two pixels."""
    n, c, h, w = x.shape
    sn, sc, sh, sw = x.stride()
    step = sw if w > 1 else sh if h > 1 else sn if n > 1 else c
    if (c == 1 or sc == 1) and step >= c and (h == 1 or sh == w * step) and (n == 1 or sn == h * w * step):
        return x, step
    return torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last).copy_(x), c


def weights_of(weight: Tensor) -> Tensor:
    """A depthwise (C, 1, k, k) or pointwise (C', C, 1, 1) weight in the order of its indices; both memory formats have it."""
    return weight if weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last) else weight.contiguous()


def empty(n: int, c: int, h: int, w: int, like: Tensor) -> Tensor:
    return torch.empty((n, c, h, w), dtype=like.dtype, memory_format=torch.channels_last)


# ---- a node's sum


class _Scaled(NamedTuple):
    """Where a norm's, a stage's or a term's tensors stand among the inputs; -1 for none."""

    normaliser: Normaliser
    weight: int
    bias: int


class _StagePlan(NamedTuple):
    depthwise: int
    pointwise: int
    stride: int
    dilation: int
    norm: _Scaled | None


class _TermPlan(NamedTuple):
    x: int
    stages: tuple[_StagePlan, ...]
    norm: _Scaled | None
    scale: int
    factor: Tensor | None


class _Inputs:
    """The distinct tensors that a sum depends on."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._index: dict[int, int] = {}

    def __call__(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return -1
        key = id(tensor)
        if key not in self._index:
            self._index[key] = len(self.tensors)
            self.tensors.append(tensor)
        return self._index[key]

    def norm(self, normaliser: Normaliser | None) -> _Scaled | None:
        return None if normaliser is None else _Scaled(normaliser, self(normaliser.weight), self(normaliser.bias))


def mix_terms(terms: Sequence[tuple[Term, Tensor | None, Tensor | None]]) -> Tensor:
    """The sum of `scale * factor * term` over triples; scale a scalar tensor, factor (N, 1, 1, 1), None for 1."""
    inputs = _Inputs()
    plans = [_TermPlan(inputs(term.x), tuple(_StagePlan(inputs(s.depthwise), inputs(s.pointwise), s.stride, s.dilation, inputs.norm(s.norm))
                                             for s in term.stages), inputs.norm(term.norm), inputs(scale), factor)
             for term, scale, factor in terms]
    return _Sum.apply(plans, *inputs.tensors)


class _Ready(NamedTuple):
    """A norm, resolved, with `scale = rstd * weight`."""

    norm: Norm
    scale: Tensor

    @classmethod
    def of(cls, norm: Norm) -> "_Ready":
        return cls(norm, norm.rstd if norm.weight is None else norm.rstd * norm.weight)


def _resolve(scaled: _Scaled | None, x: Tensor, found: tuple[Tensor, Tensor] | None) -> Norm | None:
    """found: the moments of `x`, where they are known."""
    if scaled is None:
        return None
    mean = variance = None
    if scaled.normaliser.asks_moments:
        mean, variance = moments(x) if found is None else found
    return scaled.normaliser.resolve(mean, variance, x.numel() // x.shape[1])


def _stage_forward(x: Tensor, norm: Norm | None, stage: _StagePlan, inputs: Sequence[Tensor],
                   wants_moments: bool) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    x, step = rows(x)
    n, c, h, w = x.shape
    depthwise = weights_of(inputs[stage.depthwise]) if stage.depthwise >= 0 else None
    pointwise = weights_of(inputs[stage.pointwise])
    size, stride = 0 if depthwise is None else depthwise.shape[-1], stage.stride
    out = empty(n, pointwise.shape[0], (h - 1) // stride + 1, (w - 1) // stride + 1, x)
    found = (x.new_empty(out.shape[1]), x.new_empty(out.shape[1])) if wants_moments else None
    ready = None if norm is None else _Ready.of(norm)
    call("supernet_stage_forward", x.dtype, (
        n, h, w, c, out.shape[1], size, stride, stage.dilation, at(x), step, at(norm and norm.mean), at(ready and ready.scale),
        at(norm and norm.bias), at(depthwise), at(pointwise), at(out), at(found and found[0]), at(found and found[1]),
        torch.get_num_threads()))
    return out, found


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plans: Sequence[_TermPlan], *inputs: Tensor) -> Tensor:
        saved: list[Tensor] = []
        places: dict[int, int] = {}

        def keep(tensor: Tensor | None) -> int:
            if tensor is None:
                return -1
            if id(tensor) not in places:
                places[id(tensor)] = len(saved)
                saved.append(tensor)
            return places[id(tensor)]

        def keep_norm(norm: Norm | None) -> tuple[int, int, bool, int, int] | None:
            return None if norm is None else (keep(norm.mean), keep(norm.rstd), norm.by_batch, keep(norm.weight), keep(norm.bias))

        parts, kept, scales, factors, norms = [], [], [], [], []
        for plan in plans:
            value, found, chain = inputs[plan.x], None, []
            after = [s.norm for s in plan.stages[1:]] + [plan.norm]  # the norm of each stage's output
            for stage, following in zip(plan.stages, after):
                norm = _resolve(stage.norm, value, found)
                chain.append((keep(value), keep_norm(norm)))
                value, found = _stage_forward(value, norm, stage, inputs, following is not None and following.normaliser.asks_moments)
            norm = _resolve(plan.norm, value, found)
            parts.append(value), norms.append(norm)
            scales.append(inputs[plan.scale] if plan.scale >= 0 else None), factors.append(plan.factor)
            kept.append((chain, keep(value), keep_norm(norm), keep(scales[-1]), keep(plan.factor)))
        out, held = _mix_forward(parts, norms, scales, factors)
        ctx.plans, ctx.kept = plans, kept
        ctx.save_for_backward(*inputs, *saved)
        ctx.count = len(inputs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return (None, *_Backward(ctx, g).grads)


def _describe(parts: Sequence[Tensor], norms: Sequence[Norm | None], scales: Sequence[Tensor | None],
              factors: Sequence[Tensor | None]) -> tuple[array, list[Tensor]]:
    """The parts as the library reads them (`Part`), and the tensors that must live until it has."""
    numbers, held = array("q"), []
    for part, norm, scale, factor in zip(parts, norms, scales, factors):
        part, step = rows(part)
        held.append(part)
        if norm is None:
            numbers.extend((at(part), step, 0, 0, 0, 0, at(scale), at(factor)))
        else:
            numbers.extend((at(part), step, at(norm.mean), at(norm.rstd), at(norm.weight), at(norm.bias), at(scale), at(factor)))
    return numbers, held


def _mix_forward(parts: Sequence[Tensor], norms: Sequence[Norm | None], scales: Sequence[Tensor | None],
                 factors: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
    n, c, h, w = parts[0].shape
    out = empty(n, c, h, w, parts[0])
    numbers, held = _describe(parts, norms, scales, factors)
    call("supernet_mix_forward", out.dtype, (n, h * w, c, len(parts), numbers.buffer_info()[0], at(out), torch.get_num_threads()))
    return out, held


class _Arriving(NamedTuple):
    """The gradient of a tensor as `Arriving` of the library: `coef` applied to the gradient `g` of its normalised value."""

    g: Tensor
    step: int
    factor: Tensor | None
    mean: Tensor | None
    coef: Tensor  # (3, C)
    normed: bool


class _Backward:
    """One backward of a sum: `grads` of its inputs, None for those that are not needed."""

    def __init__(self, ctx: Any, g: Tensor):
        saved = ctx.saved_tensors
        self.inputs, self.saved, self.needs = saved[: ctx.count], saved[ctx.count:], ctx.needs_input_grad[1:]
        self.grads: list[Tensor | None] = [None] * ctx.count
        self.threads = torch.get_num_threads()
        g, step = rows(g)
        live = [(plan, kept) for plan, kept in zip(ctx.plans, ctx.kept) if self._needed(plan)]
        if not live:
            return
        n, c, h, w = g.shape
        norms = [self._norm(kept[2]) for _, kept in live]
        values = [self._get(kept[1]) for _, kept in live]
        factors = [self._get(kept[4]) for _, kept in live]
        numbers, held = _describe(values, norms, [self._get(kept[3]) for _, kept in live], factors)
        count = len(live)
        # which parts need sums over g; for by_batch bit 0
        flags = array("q", [int(norm is not None and norm.by_batch)
                            | 2 * int(norm is not None and (norm.by_batch or norm.weight is not None) or self._need(plan.scale))
                            for (plan, _), norm in zip(live, norms)])
        coef, small = g.new_empty(count, 3, c), g.new_empty(2, count, c)
        dscale = g.new_empty(count)
        call("supernet_mix_backward", g.dtype, (n, h * w, c, count, numbers.buffer_info()[0], flags.buffer_info()[0], at(g), step, at(coef),
                                                at(dscale), at(small[0]), at(small[1]), self.threads))
        for i, ((plan, kept), norm, value) in enumerate(zip(live, norms, held)):
            if self._need(plan.scale):
                self._give(plan.scale, dscale[i])
            self._give_norm(plan.norm, small[0, i], small[1, i])
            arriving = _Arriving(g, step, factors[i], None if norm is None else norm.mean, coef[i], norm is not None and norm.by_batch)
            self._chain(plan, kept[0], value, arriving)

    def _need(self, index: int) -> bool:
        return index >= 0 and self.needs[index]

    def _needs_norm(self, norm: _Scaled | None) -> bool:
        return norm is not None and (self._need(norm.weight) or self._need(norm.bias))

    def _below(self, plan: _TermPlan, stage: int) -> bool:
        """Whether the input of a stage, before its norm, needs a gradient."""
        return self._need(plan.x) or any(self._need(s.depthwise) or self._need(s.pointwise) for s in plan.stages[:stage]) or any(
            self._needs_norm(s.norm) for s in plan.stages[: stage + 1])

    def _needed(self, plan: _TermPlan) -> bool:
        return self._below(plan, len(plan.stages)) or self._need(plan.scale) or self._needs_norm(plan.norm)

    def _get(self, index: int) -> Tensor | None:
        return None if index < 0 else self.saved[index]

    def _norm(self, kept: tuple[int, int, bool, int, int] | None) -> Norm | None:
        return None if kept is None else Norm(self._get(kept[0]), self._get(kept[1]), kept[2], self._get(kept[3]), self._get(kept[4]))

    def _give(self, index: int, grad: Tensor) -> None:
        grad = grad.reshape(self.inputs[index].shape)
        self.grads[index] = grad if self.grads[index] is None else self.grads[index] + grad

    def _give_norm(self, scaled: _Scaled | None, weight: Tensor, bias: Tensor) -> None:
        if scaled is not None:
            if self._need(scaled.weight):
                self._give(scaled.weight, weight)
            if self._need(scaled.bias):
                self._give(scaled.bias, bias)

    def _chain(self, plan: _TermPlan, chain: Sequence[tuple[int, Any]], value: Tensor, arriving: _Arriving) -> None:
        """Takes the gradient that arrives at a term's value back through its stages."""
        for k in reversed(range(len(plan.stages))):
            stage, norm = plan.stages[k], self._norm(chain[k][1])
            below, scaled = self._below(plan, k), plan.stages[k].norm
            if not (below or self._need(stage.depthwise) or self._need(stage.pointwise)):
                return
            x = self._get(chain[k][0])
            value, arriving = self._stage(stage, x, norm, value, arriving, below, plan.x if k == 0 and norm is None else -1, scaled)
            if arriving is None:
                return
        if self._need(plan.x):
            self._part(plan.x, value, arriving)

    def _target(self, index: int) -> tuple[Tensor, bool]:
        """The gradient of an input image tensor, and whether it is to be added to."""
        known = self.grads[index]
        if known is None:
            n, c, h, w = self.inputs[index].shape
            known = self.grads[index] = empty(n, c, h, w, self.inputs[index])
            return known, False
        return known, True

    def _part(self, index: int, value: Tensor, arriving: _Arriving) -> None:
        value, step = rows(value)
        n, c, h, w = value.shape
        to, add = self._target(index)
        call("supernet_part_backward", to.dtype, (
            n, h * w, c, at(arriving.g), arriving.step, at(arriving.factor), at(value), step, at(arriving.mean), at(arriving.coef),
            int(arriving.normed), at(to), int(add), self.threads))

    def _stage(self, stage: _StagePlan, x: Tensor, norm: Norm | None, value: Tensor, arriving: _Arriving, below: bool, x_index: int,
               scaled: _Scaled | None) -> tuple[Tensor, _Arriving | None]:
        x, step = rows(x)
        n, c, h, w = x.shape
        depthwise = weights_of(self.inputs[stage.depthwise]) if stage.depthwise >= 0 else None
        pointwise = weights_of(self.inputs[stage.pointwise])
        ddepthwise = torch.empty_like(depthwise) if self._need(stage.depthwise) else None
        dpointwise = torch.empty_like(pointwise) if self._need(stage.pointwise) else None
        dx, add = (None, False) if not below else self._target(x_index) if x_index >= 0 else (empty(n, c, h, w, x), False)
        ready = None if norm is None else _Ready.of(norm)
        coef = small = None
        if norm is not None and below:
            coef, small = x.new_empty(3, c), x.new_empty(2, c)
        call("supernet_stage_backward", x.dtype, (
            n, h, w, c, pointwise.shape[0], 0 if depthwise is None else depthwise.shape[-1], stage.stride, stage.dilation, at(x), step,
            at(norm and norm.mean), at(ready and ready.scale), at(norm and norm.bias),
            at(arriving.g), arriving.step, at(arriving.factor), at(value), at(arriving.mean), at(arriving.coef), int(arriving.normed),
            at(depthwise), at(pointwise), at(dx), int(add), at(ddepthwise), at(dpointwise), self.threads,
            at(norm and norm.rstd), at(norm and norm.weight), int(norm is not None and norm.by_batch), at(coef),
            at(None if small is None else small[0]), at(None if small is None else small[1])))
        if ddepthwise is not None:
            self._give(stage.depthwise, ddepthwise)
        if dpointwise is not None:
            self._give(stage.pointwise, dpointwise)
        if norm is None:  # of the first stage `dx` is an input's gradient, another's goes on as it is
            return x, None if x_index >= 0 or dx is None else _Arriving(dx, c, None, None, x.new_ones(3, c), False)
        if small is not None:
            self._give_norm(scaled, small[0], small[1])
        return x, None if dx is None else _Arriving(dx, c, None, norm.mean, coef, norm.by_batch)


class Sum:
    """A node's sum, which is computed when its total is asked for."""

    def __init__(self) -> None:
        self.terms: list[tuple[Term, Tensor | None, Tensor | None]] = []

    def add(self, op: Any, source: Source, scale: Tensor | None = None, factor: Tensor | None = None,
            change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Adds `scale * change(factor * op(source))`; as `plain.Sum.add`."""
        term = source.once(op, lambda: settled(op.term(source))) if op.shareable else op.term(source)
        if change is not None:
            term, factor = Term(change(total_of([(term, None, factor)]))), None
        self.terms.append((term, scale, factor))

    def add_tensor(self, x: Tensor, scale: Tensor | None = None) -> None:
        self.terms.append((Term(x), scale, None))

    def total(self) -> Tensor:
        return total_of(self.terms)


def total_of(terms: Sequence[tuple[Term, Tensor | None, Tensor | None]]) -> Tensor:
    if len(terms) == 1 and terms[0][0].stages == () and terms[0][0].norm is terms[0][1] is terms[0][2] is None:
        return terms[0][0].x
    return mix_terms(terms)


def settled(term: Term) -> Term:
    """A term that several sums hold: its norm sees its value once."""
    if term.stages or term.norm is None:
        return term
    mean, variance = moments(term.x) if term.norm.asks_moments else (None, None)
    return term._replace(norm=Settled(term.norm.resolve(mean, variance, term.x.numel() // term.x.shape[1])))


# ---- the operations of `plain`, one by one


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x, step = rows(x.detach())
    n, c, h, w = x.shape
    mean, variance = x.new_empty(c), x.new_empty(c)
    call("supernet_moments", x.dtype, (n, h, w, c, at(x), step, at(mean), at(variance), torch.get_num_threads()))
    return mean, variance


def separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, *, stride: int = 1, dilation: int = 1, norm: Norm | None = None) -> Tensor:
    return mix_terms([(Term(x, (Stage(depthwise, pointwise, stride, dilation, None if norm is None else Settled(norm)),)), None, None)])


def mix(parts: Sequence[Tensor], norms: Sequence[Norm | None], scales: Sequence[Tensor | None]) -> Tensor:
    if not parts:
        raise ValueError("a mix needs at least one part")
    return total_of([(Term(part, (), None if norm is None else Settled(norm)), scale, None)
                     for part, norm, scale in zip(parts, norms, scales, strict=True)])


def max_pool(x: Tensor, size: int, stride: int) -> Tensor:
    return _MaxPool.apply(x, size, stride) if size % 2 and size <= MAX_POOL else plain.max_pool(x, size, stride)


def avg_pool(x: Tensor, size: int, stride: int) -> Tensor:
    return _AvgPool.apply(x, size, stride) if size % 2 else plain.avg_pool(x, size, stride)


def _pooled(x: Tensor, stride: int) -> tuple[int, ...]:
    n, c, h, w = x.shape
    return n, c, (h - 1) // stride + 1, (w - 1) // stride + 1


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, stride: int) -> Tensor:
        x, step = rows(x)
        n, c, h, w = x.shape
        out = empty(*_pooled(x, stride), x)
        index = torch.empty(out.shape, dtype=torch.uint8, memory_format=torch.channels_last) if ctx.needs_input_grad[0] else None
        call("supernet_max_pool", x.dtype, (n, h, w, c, size, stride, at(x), step, at(out), at(index), torch.get_num_threads()))
        ctx.shape, ctx.window = (n, c, h, w), (size, stride)
        ctx.save_for_backward(*([] if index is None else [index]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        (index,) = ctx.saved_tensors
        g, step = rows(g)
        n, c, h, w = ctx.shape
        dx = empty(n, c, h, w, g)
        call("supernet_max_pool_backward", g.dtype, (n, h, w, c, *ctx.window, at(g), step, at(dx), at(index), torch.get_num_threads()))
        return dx, None, None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, stride: int) -> Tensor:
        x, step = rows(x)
        n, c, h, w = x.shape
        out = empty(*_pooled(x, stride), x)
        call("supernet_avg_pool", x.dtype, (n, h, w, c, size, stride, at(x), step, at(out), 0, torch.get_num_threads()))
        ctx.shape, ctx.window = (n, c, h, w), (size, stride)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        g, step = rows(g)
        n, c, h, w = ctx.shape
        dx = empty(n, c, h, w, g)
        call("supernet_avg_pool_backward", g.dtype, (n, h, w, c, *ctx.window, at(g), step, at(dx), 0, torch.get_num_threads()))
        return dx, None, None
