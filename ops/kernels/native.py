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
from ops.kernels.plain import NodeSums, Norm, Rounds, same_shape
from ops.kernels.terms import Flow, Normaliser, Settled, Source, Stage, Term

REAL = {torch.float32: "float", torch.float64: "double"}
TWICE = False  # its gradients cannot be differentiated again
HALVES = -2  # the size of what reads two pixels
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


# The library is told addresses and sizes alone, so whatever it reads or writes is looked at before.


def image(x: Tensor) -> Tensor:
    """`x`. Raises ValueError where it is not a tensor for the library."""
    if x.dim() != 4 or x.dtype not in REAL or not x.is_cpu:
        raise ValueError(f"native kernels need a tensor (N, C, H, W) of float32 or float64 on the CPU, got {described(x)}")
    return x


def described(x: Tensor) -> str:
    return f"{tuple(x.shape)} of {x.dtype} on {x.device}"


def vector(tensor: Tensor | None, channels: int, dtype: torch.dtype) -> int:
    """The address of a norm's vector, 0 for None. Raises ValueError."""
    if tensor is None:
        return 0
    if tensor.shape != (channels,) or tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.is_cpu:
        raise ValueError(f"a norm of {channels} channels needs contiguous vectors of {dtype} on the CPU, got {described(tensor)}")
    return tensor.data_ptr()


def check_factor(factor: Tensor, images: int, dtype: torch.dtype) -> None:
    """Raises ValueError."""
    if factor.shape != (images, 1, 1, 1) or factor.dtype is not dtype or not factor.is_contiguous() or not factor.is_cpu:
        raise ValueError(f"a factor must be contiguous, ({images}, 1, 1, 1) of {dtype} on the CPU, got {described(factor)}")


def check_weights(channels: int, depthwise: Tensor | None, pointwise: Tensor, halves: bool) -> None:
    """Raises ValueError where a stage's weights do not fit its input's channels."""
    if depthwise is not None:
        size = depthwise.shape[-1]
        if depthwise.shape != (channels, 1, size, size) or size % 2 == 0:
            raise ValueError(f"a depthwise weight for {channels} channels must be ({channels}, 1, k, k), k odd: {tuple(depthwise.shape)}")
    contracted = 2 * channels if halves else channels
    if pointwise.shape[1:] != (contracted, 1, 1):
        raise ValueError(f"a pointwise weight for {channels} channels must be (C', {contracted}, 1, 1), got {tuple(pointwise.shape)}")


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

Scaled = tuple[Term, Tensor | None, Tensor | None]  # a term, its scale (a scalar tensor) and its factor (N, 1, 1, 1); None for 1


class _Inputs:
    """The distinct tensors that a sum depends on, each once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._index: dict[int, int] = {}

    def __call__(self, tensor: Tensor | None) -> int:
        """Its place; -1 for None."""
        if tensor is None:
            return -1
        place = self._index.setdefault(id(tensor), len(self.tensors))
        if place == len(self.tensors):
            self.tensors.append(tensor)
        return place

    def norm(self, normaliser: Normaliser | None) -> tuple[Normaliser, int, int] | None:
        return None if normaliser is None else (normaliser, self(normaliser.weight), self(normaliser.bias))


class _Stage(NamedTuple):
    """Numbers are places among the inputs, -1 for none."""

    depthwise: int
    pointwise: int
    stride: int
    dilation: int
    norm: tuple[Normaliser, int, int] | None
    halves: bool

    def size(self, inputs: Sequence[Tensor]) -> int:
        """As `Shape::size` of the library."""
        return inputs[self.depthwise].shape[-1] if self.depthwise >= 0 else HALVES if self.halves else 0


class _Plan(NamedTuple):
    x: int
    stages: tuple[_Stage, ...]
    norm: tuple[Normaliser, int, int] | None
    scale: int
    factor: Tensor | None


def mix_terms(terms: Sequence[Scaled]) -> Tensor:
    """The sum of `scale * factor * term`."""
    inputs = _Inputs()
    flows = list(dict.fromkeys(term.x for term, _, _ in terms))
    for flow in flows:
        inputs(flow.onward)
    plans = [_Plan(inputs(term.x.onward), tuple([_Stage(inputs(s.depthwise), inputs(s.pointwise), s.stride, s.dilation, inputs.norm(s.norm),
                                                        s.halves)
                                                 for s in term.stages]), inputs.norm(term.norm), inputs(scale), factor)
             for term, scale, factor in terms]
    out, *onward = _Sum.apply(plans, len({id(flow.onward) for flow in flows}), *inputs.tensors)
    for flow in flows:
        place = inputs(flow.onward)
        if onward[place] is not None:
            flow.onward = onward[place]
    return out


class _Norm(NamedTuple):
    """Addresses, 0 for none."""

    mean: int
    rstd: int
    weight: int
    bias: int
    by_batch: int


NO_NORM = _Norm(0, 0, 0, 0, 0)


class _Room:
    """Small vectors, all in one tensor."""

    def __init__(self, size: int, like: Tensor):
        self.tensor = like.new_empty(size)
        self._next, self._bytes = self.tensor.data_ptr(), like.element_size()

    def take(self, count: int) -> int:
        address, self._next = self._next, self._next + count * self._bytes
        return address


class _Rules:
    """How moments become norms: of each normaliser eps and momentum, and the running averages that follow."""

    def __init__(self) -> None:
        self.numbers = array("d")

    def __call__(self, normaliser: Normaliser, pixels: int, channels: int, dtype: torch.dtype) -> tuple[int, int, int]:
        """(running mean, running variance, place of the numbers)."""
        if pixels == 1:
            raise ValueError("a batch norm needs more than 1 value per channel when training, got 1")
        self.numbers.extend((normaliser.eps, normaliser.momentum))
        mean, variance = normaliser.follows() or (None, None)
        return vector(mean, channels, dtype), vector(variance, channels, dtype), len(self.numbers) - 2


class _Held(NamedTuple):
    """What a backward needs of a term: places among the saved tensors, for where these lie by then only autograd knows (hooks may have
    moved them)."""

    chain: list[tuple[int, "_Kept"]]  # of each stage: its input, the norm before
    value: int
    norm: "_Kept"


class _Kept(NamedTuple):
    """A norm by places, and the bytes from the beginning of what is there; None for none."""

    vectors: tuple[tuple[int, int] | None, ...]  # mean, rstd, weight, bias
    by_batch: int


def _moments_size(inputs: Sequence[Tensor], plan: _Plan) -> int:
    return sum(2 * inputs[stage.pointwise].shape[0] for stage in plan.stages)


class _Sum(torch.autograd.Function):
    """Returns the sum, and of each of the first `flows` inputs another name, or None where it needs no gradient."""

    @staticmethod
    def forward(ctx: Any, plans: Sequence[_Plan], flows: int, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        like, threads = image(inputs[0]), torch.get_num_threads()
        dtype = like.dtype
        for tensor in inputs:
            if tensor.dtype is not dtype or not tensor.is_cpu:
                raise ValueError(f"native kernels add up tensors of one type on the CPU, got {described(like)} and {described(tensor)}")
        room, rules = _Room(sum([_moments_size(inputs, plan) for plan in plans]), like), _Rules()
        images: dict[int, tuple[Tensor, int]] = {}
        saved, kept, program, parts, alive = [room.tensor], [], array("q"), array("q"), []

        def addresses(norm: Norm, channels: int) -> _Norm:
            saved.extend((norm.mean, norm.rstd))
            return _Norm(*[vector(v, channels, dtype) for v in (norm.mean, norm.rstd, norm.weight, norm.bias)], int(norm.by_batch))

        def constant(scaled: tuple[Normaliser, int, int] | None, channels: int) -> _Norm | None:
            if scaled is None:
                return NO_NORM
            norm = scaled[0].constant()
            return None if norm is None else addresses(norm, channels)

        for plan in plans:
            if plan.x not in images:
                images[plan.x] = rows(image(inputs[plan.x]))
            value, step = images[plan.x]
            n, c, h, w = value.shape
            first = plan.stages[0].norm if plan.stages else plan.norm
            norm = constant(first, c) or addresses(norm_of(first[0], value), c)
            chain = []
            for k, stage in enumerate(plan.stages):
                chain.append((value, step, norm))
                pointwise, depthwise, size = weights_of(inputs[stage.pointwise]), None, stage.size(inputs)
                if stage.depthwise >= 0:
                    depthwise = weights_of(inputs[stage.depthwise])
                    alive.append(depthwise)
                alive.append(pointwise)
                check_weights(c, depthwise, pointwise, stage.halves)
                after, out_c = plan.norm if k + 1 == len(plan.stages) else plan.stages[k + 1].norm, pointwise.shape[0]
                row = [n, h, w, c, out_c, size, stage.stride, stage.dilation, value.data_ptr(), step, *norm[:4],
                       at(depthwise), pointwise.data_ptr()]
                c, h, w = out_c, (h - 1) // stage.stride + 1, (w - 1) // stage.stride + 1
                value = torch.empty((n, c, h, w), dtype=like.dtype, memory_format=torch.channels_last)
                step = c
                norm = constant(after, c)
                row.append(value.data_ptr())
                if norm is None:
                    mean, rstd = room.take(c), room.take(c)
                    row += [mean, rstd, *rules(after[0], n * h * w, c, dtype)]
                    norm = _Norm(mean, rstd, vector(after[0].weight, c, dtype), vector(after[0].bias, c, dtype), 1)
                else:
                    row += [0] * 5
                program.extend(row)
            kept.append((chain, value, norm))
            same_shape(value, kept[0][1].shape)
            if plan.scale >= 0 and inputs[plan.scale].numel() != 1:
                raise ValueError(f"a scale must be one number, got {tuple(inputs[plan.scale].shape)}")
            if plan.factor is not None:
                check_factor(plan.factor, n, dtype)
            parts.extend((value.data_ptr(), step, *norm[:4], 0 if plan.scale < 0 else inputs[plan.scale].data_ptr(), at(plan.factor)))
        n, c, h, w = kept[0][1].shape
        out = torch.empty((n, c, h, w), dtype=like.dtype, memory_format=torch.channels_last)
        call("supernet_sum", like.dtype, (len(program) // ROW, program.buffer_info()[0], rules.numbers.buffer_info()[0], n, h * w, c,
                                          len(plans), parts.buffer_info()[0], out.data_ptr(), threads))
        ctx.plans, ctx.count, ctx.flows = plans, len(inputs), flows
        count = len(inputs)
        vectors = {t.data_ptr(): count + k for k, t in enumerate(saved)} | {t.data_ptr(): k for k, t in enumerate(inputs) if t.dim() == 1}
        base, end = room.tensor.data_ptr(), room.tensor.data_ptr() + room.tensor.nbytes
        places = {id(t): k for k, t in enumerate(inputs)}

        def place(tensor: Tensor) -> int:
            if id(tensor) not in places:
                places[id(tensor)] = count + len(saved)
                saved.append(tensor)
            return places[id(tensor)]

        def keep(norm: _Norm) -> _Kept:
            return _Kept(tuple([None if not v else (count, v - base) if base <= v < end else (vectors[v], 0) for v in norm[:4]]), norm[4])

        ctx.kept = [_Held([(place(x), keep(before)) for x, _, before in chain], place(value), keep(norm)) for chain, value, norm in kept]
        ctx.save_for_backward(*inputs, *saved)
        return out, *[x if x.requires_grad else None for x in inputs[:flows]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, *onward: Tensor | None) -> tuple[Any, ...]:
        return (None, None, *_Backward(ctx, g, onward).grads)


ROW = 22  # numbers that describe a stage to the library


class _Backward:
    """One backward of a sum: `grads` of its inputs, None for those that are not needed. onward: the gradients that later sums left which
    read the first inputs (`Flow.onward`), in tensors of their own, which are added to."""

    def __init__(self, ctx: Any, g: Tensor | None, onward: Sequence[Tensor | None]):
        saved = ctx.saved_tensors
        self.inputs, self.saved, self.needs = saved[: ctx.count], saved, ctx.needs_input_grad[2:]
        self.grads: list[Tensor | None] = [*onward, *[None] * (ctx.count - len(onward))]
        if g is None:
            return
        live = [(plan, held) for plan, held in zip(ctx.plans, ctx.kept) if self._needed(plan)]
        if not live:
            return
        self.g, self.step = rows(g)
        n, c, h, w = g.shape
        count = len(live)
        parts, flags = array("q"), array("q")
        self.alive: list[Tensor] = []  # until the library has been called
        values = []
        for plan, held in live:
            value, norm = self._image(held.value), self._norm(held.norm)
            values.append((*value, norm))
            parts.extend((value[0].data_ptr(), value[1], *norm[:4],
                          0 if plan.scale < 0 else self.inputs[plan.scale].data_ptr(), at(plan.factor)))
            flags.append(norm.by_batch | 2 * bool(norm.by_batch or norm.weight or self._need(plan.scale)))
        inner = sum([5 * self.inputs[stage.pointwise].shape[0] + 5 * self.inputs[plan.x].shape[1] for plan, _ in live
                     for stage in plan.stages])
        coef, small = g.new_empty(count, 3, c), g.new_empty(2, count, c)
        dscale, self.room = g.new_empty(count), _Room(inner, g)
        self.program, self.between, self.again = array("q"), [None, None], []
        self.norms: list[tuple[tuple[Normaliser, int, int], int, int]] = []
        first, size = coef.data_ptr(), 3 * c * g.element_size()
        for i, (plan, held) in enumerate(live):
            self._chain(plan, held, values[i], first + i * size)
        call("supernet_sum_backward", g.dtype, (
            n, h * w, c, count, parts.buffer_info()[0], flags.buffer_info()[0], self.g.data_ptr(), self.step, first, dscale.data_ptr(),
            small[0].data_ptr(), small[1].data_ptr(), len(self.program) // BACKWARD_ROW, self.program.buffer_info()[0],
            torch.get_num_threads()))
        for place, grad in self.again:  # of a weight that stands in several terms
            self._give(place, grad)
        scales = dscale.unbind()
        for i, (plan, _) in enumerate(live):
            if self._need(plan.scale):
                self._give(plan.scale, scales[i])
            self._give_norm(plan.norm, small[0, i], small[1, i])
        for scaled, offset, channels in self.norms:
            own = self.room.tensor[offset: offset + 2 * channels]
            self._give_norm(scaled, own[:channels], own[channels:])

    def _image(self, place: int) -> tuple[Tensor, int]:
        """A saved image tensor and the distance of two pixels."""
        image = rows(self.saved[place])
        self.alive.append(image[0])
        return image

    def _weight(self, place: int) -> Tensor:
        weight = weights_of(self.inputs[place])
        self.alive.append(weight)
        return weight

    def _norm(self, kept: _Kept) -> _Norm:
        """Its addresses now."""
        return _Norm(*[0 if v is None else self.saved[v[0]].data_ptr() + v[1] for v in kept.vectors], kept.by_batch)

    def _need(self, place: int) -> bool:
        return place >= 0 and self.needs[place]

    def _needs_norm(self, scaled: tuple[Normaliser, int, int] | None) -> bool:
        return scaled is not None and (self._need(scaled[1]) or self._need(scaled[2]))

    def _below(self, plan: _Plan, stage: int) -> bool:
        """Whether the input of a stage, before its norm, needs a gradient."""
        return self._need(plan.x) or any([self._need(s.depthwise) or self._need(s.pointwise) for s in plan.stages[:stage]]) or any(
            [self._needs_norm(s.norm) for s in plan.stages[: stage + 1]])

    def _needed(self, plan: _Plan) -> bool:
        return self._need(plan.x) or self._need(plan.scale) or self._below(plan, len(plan.stages)) or self._needs_norm(plan.norm)

    def _give(self, place: int, grad: Tensor) -> None:
        self.grads[place] = grad.reshape(self.inputs[place].shape) if self.grads[place] is None else self.grads[place] + grad

    def _give_norm(self, scaled: tuple[Normaliser, int, int] | None, weight: Tensor, bias: Tensor) -> None:
        if scaled is not None:
            if self._need(scaled[1]):
                self._give(scaled[1], weight)
            if self._need(scaled[2]):
                self._give(scaled[2], bias)

    def _target(self, place: int) -> tuple[int, int]:
        """Where the gradient of an input image tensor goes, and whether it is to be added to."""
        known = self.grads[place]
        if known is None:
            known = self.grads[place] = torch.empty(self.inputs[place].shape, dtype=self.g.dtype, memory_format=torch.channels_last)
            return known.data_ptr(), 0
        if not known.is_contiguous(memory_format=torch.channels_last):
            known = self.grads[place] = known.contiguous(memory_format=torch.channels_last)
        return known.data_ptr(), 1

    def _like(self, place: int) -> int:
        """A new gradient of a weight; 0 where none is needed."""
        if not self._need(place):
            return 0
        grad = torch.empty_like(weights_of(self.inputs[place]))
        if self.grads[place] is None:
            self.grads[place] = grad
        else:
            self.again.append((place, grad))
        return grad.data_ptr()

    def _chain(self, plan: _Plan, held: _Held, value: tuple[Tensor, int, _Norm], coef: int) -> None:
        """What takes the gradient that arrives at a term's value, `coef` of `g`, back through its stages."""
        tensor, value_step, norm = value
        arriving = (self.g.data_ptr(), self.step, at(plan.factor), tensor.data_ptr(), norm.mean, coef, norm.by_batch)
        for k in reversed(range(len(plan.stages))):
            stage, (x, step), norm = plan.stages[k], self._image(held.chain[k][0]), self._norm(held.chain[k][1])
            below = self._below(plan, k)
            depthwise, pointwise = self._like(stage.depthwise), self._like(stage.pointwise)
            if not (below or depthwise or pointwise):
                return
            n, c, h, w = x.shape
            ends = k == 0 and not norm.mean
            dx, add, onward, small = 0, 0, 0, 0
            if below and ends:
                dx, add = self._target(plan.x)
            elif below:
                if self.between[k % 2] is None or self.between[k % 2].numel() < x.numel():
                    self.between[k % 2] = self.g.new_empty(x.numel())
                    self.alive.append(self.between[k % 2])
                dx = self.between[k % 2].data_ptr()
                onward, small = self.room.take(3 * c), self.room.take(2 * c)
                if self._needs_norm(stage.norm):
                    self.norms.append((stage.norm, (small - self.room.tensor.data_ptr()) // self.g.element_size(), c))
            self.program.extend((
                n, h, w, c, self.inputs[stage.pointwise].shape[0], stage.size(self.inputs), stage.stride, stage.dilation,
                x.data_ptr(), step, *norm, *arriving, at(None if stage.depthwise < 0 else self._weight(stage.depthwise)),
                self._weight(stage.pointwise).data_ptr(), dx, add, depthwise, pointwise, onward, small))
            if ends or not below:
                return
            arriving, value_step = (dx, c, 0, x.data_ptr(), norm.mean, onward, norm.by_batch), step
        if self._need(plan.x):
            n, c, h, w = self.inputs[plan.x].shape
            to, add = self._target(plan.x)
            row = [n, h, w, c, 0, 0, 0, 0, 0, value_step, 0, 0, 0, 0, 0, *arriving, 0, 0, to, add]
            self.program.extend(row + [0] * (BACKWARD_ROW - len(row)))


BACKWARD_ROW = 30


class Sum:
    """A node's sum, which is computed when its total is asked for."""

    def __init__(self) -> None:
        self.terms: list[Scaled] = []

    def add(self, op: Any, source: Source, scale: Tensor | None = None, factor: Tensor | None = None,
            change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Adds `scale * change(factor * op(source))`; as `plain.Sum.add`."""
        term = source.once(op, lambda: settled(op.term(source))) if op.shareable else op.term(source)
        if change is not None:
            term, factor = Term(Flow(change(total_of([(term, None, factor)])))), None
        self.terms.append((term, scale, factor))

    def add_tensor(self, x: Tensor, scale: Tensor | None = None) -> None:
        self.terms.append((Term(Flow(x)), scale, None))

    def total(self) -> Tensor:
        return total_of(self.terms)


def node_sums(x: Tensor, rounds: Rounds, kept: dict[Any, Any] | None) -> NodeSums:
    return NodeSums(Sum)


def total_of(terms: Sequence[Scaled]) -> Tensor:
    if len(terms) == 1 and terms[0][0].stages == () and terms[0][0].norm is terms[0][1] is terms[0][2] is None:
        return terms[0][0].x.tensor
    return mix_terms(terms)


def settled(term: Term) -> Term:
    """A term that several sums hold: its norm sees its value once."""
    return term if term.stages or term.norm is None else term._replace(norm=Settled(norm_of(term.norm, term.x.tensor)))


def norm_of(normaliser: Normaliser, x: Tensor) -> Norm:
    """The norm of `x`, which its normaliser follows."""
    norm = normaliser.constant()
    if norm is not None:
        return norm
    x, step = rows(image(x.detach()))
    n, c, h, w = x.shape
    mean, rstd, rules = x.new_empty(c), x.new_empty(c), _Rules()
    running = rules(normaliser, n * h * w, c, x.dtype)
    call("supernet_moments", x.dtype, (n, h, w, c, at(x), step, at(mean), at(rstd), *running[:2], rules.numbers.buffer_info()[0],
                                       torch.get_num_threads()))
    return Norm(mean, rstd, True, normaliser.weight, normaliser.bias)


# ---- the operations of `plain`, one by one


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x, step = rows(image(x.detach()))
    n, c, h, w = x.shape
    mean, variance = x.new_empty(c), x.new_empty(c)
    call("supernet_moments", x.dtype, (n, h, w, c, at(x), step, at(mean), at(variance), 0, 0, 0, torch.get_num_threads()))
    return mean, variance


def separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, *, stride: int = 1, dilation: int = 1, norm: Norm | None = None) -> Tensor:
    stage = Stage(depthwise, pointwise, stride, dilation, None if norm is None else Settled(norm))
    return mix_terms([(Term(Flow(x), (stage,)), None, None)])


def mix(parts: Sequence[Tensor], norms: Sequence[Norm | None], scales: Sequence[Tensor | None]) -> Tensor:
    if not parts:
        raise ValueError("a mix needs at least one part")
    return total_of([(Term(Flow(part), (), None if norm is None else Settled(norm)), scale, None)
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
        x, step = rows(image(x))
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
        index = ctx.saved_tensors[0].contiguous(memory_format=torch.channels_last)
        g, step = rows(g)
        n, c, h, w = ctx.shape
        dx = empty(n, c, h, w, g)
        call("supernet_max_pool_backward", g.dtype, (n, h, w, c, *ctx.window, at(g), step, at(dx), at(index), torch.get_num_threads()))
        return dx, None, None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, stride: int) -> Tensor:
        x, step = rows(image(x))
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
