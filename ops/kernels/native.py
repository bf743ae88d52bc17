"""The fused operations of `ops.kernels.plain` on a CPU by `native.cpp`, for tensors whose channels lie innermost (channels_last).

A node's whole sum is one function with one backward. It stores what convolutions give, un-normalised, and not all of that: normalised
tensors, ReLUs and depthwise outputs are computed again where they are needed, in the caches. Backwards cannot be differentiated again.
"""

import ctypes
import functools
import math
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ops.kernels import plain
from ops.kernels.build import library
from ops.kernels.plain import NodeSums, Norm, Rounds
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


def check_vector(tensor: Tensor, channels: int, dtype: torch.dtype) -> None:
    """Of a norm. Raises ValueError."""
    if tensor.shape != (channels,) or tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.is_cpu:
        raise ValueError(f"a norm of {channels} channels needs contiguous vectors of {dtype} on the CPU, got {described(tensor)}")


def check_factor(factor: Tensor, images: int, dtype: torch.dtype) -> None:
    """Raises ValueError."""
    if factor.shape != (images, 1, 1, 1) or factor.dtype is not dtype or not factor.is_contiguous() or not factor.is_cpu:
        raise ValueError(f"a factor must be contiguous, ({images}, 1, 1, 1) of {dtype} on the CPU, got {described(factor)}")


def check_weights(channels: int, depthwise: Sequence[int] | None, pointwise: Sequence[int], halves: bool, stride: int) -> None:
    """Raises ValueError where a stage's weights, of these shapes, do not fit its input's channels, or each other."""
    if depthwise is not None:
        size = depthwise[-1]
        if tuple(depthwise) != (channels, 1, size, size) or size % 2 == 0:
            raise ValueError(f"a depthwise weight for {channels} channels must be ({channels}, 1, k, k), k odd: {tuple(depthwise)}")
    contracted = 2 * channels if halves else channels
    size = 1 if len(pointwise) != 4 or halves or depthwise is not None else pointwise[-1]
    if tuple(pointwise[1:]) != (contracted, size, size) or size % 2 == 0:
        raise ValueError(f"a pointwise weight for {channels} channels must be (C', {contracted}, 1, 1), or a dense one (C', {contracted}, "
                         f"k, k), k odd: {tuple(pointwise)}")
    if size > 1 and stride != 1:
        raise ValueError(f"a dense convolution has stride 1 here, got {stride}")


def rows(x: Tensor) -> tuple[Tensor, int]:
    """`x`, copied if need be, with all its pixels one after the other; and the distance of two pixels."""
    n, c, h, w = x.shape
    sn, sc, sh, sw = x.stride()
    step = sw if w > 1 else sh if h > 1 else sn if n > 1 else c
    if (c == 1 or sc == 1) and step >= c and (h == 1 or sh == w * step) and (n == 1 or sn == h * w * step):
        return x, step
    return torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last).copy_(x), c


def dense(weight: Tensor) -> Tensor:
    """A weight as the library reads it: a depthwise (C, 1, k, k) or pointwise (C', C, 1, 1) one in the order of its indices, which both
    memory formats have; one of a dense convolution in channels_last."""
    if weight.is_contiguous(memory_format=torch.channels_last):
        return weight
    if weight.is_contiguous() and (weight.dim() < 4 or 1 in (weight.shape[1], weight.shape[-1])):
        return weight
    return in_channels_last(weight) if weight.dim() == 4 else weight.contiguous()


def in_channels_last(x: Tensor) -> Tensor:
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous(memory_format=torch.channels_last)


def empty(n: int, c: int, h: int, w: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((n, c, h, w), dtype=dtype, memory_format=torch.channels_last)


# ---- a node's sum

Scaled = tuple[Term, Tensor | None, Tensor | None]  # a term, its scale (a scalar tensor) and its factor (N, 1, 1, 1); None for 1


class _NormKind(NamedTuple):
    """What a norm is, but for its numbers. given: its mean and 1 / sqrt(variance + eps) are there before the sum; else they are those of
    what it normalises, and found with it. by_batch: they move with it. follows: running averages follow them."""

    given: bool
    by_batch: bool
    weight: bool
    bias: bool
    follows: bool


class _StageKind(NamedTuple):
    depthwise: tuple[int, ...] | None  # shapes of the weights
    pointwise: tuple[int, ...]
    stride: int
    dilation: int
    halves: bool
    after: _NormKind | None  # the norm that sees the stage's output

    def size(self) -> int:
        """As `Shape::size` of the library."""
        if self.depthwise is not None:
            return self.depthwise[-1]
        return HALVES if self.halves else -self.pointwise[-1] if self.pointwise[-1] > 1 else 0


class _TermKind(NamedTuple):
    image: int
    before: _NormKind | None  # the norm that sees the term's input
    stages: tuple[_StageKind, ...]
    scale: bool
    factor: bool


class _ImageKind(NamedTuple):
    """step: the distance of two pixels. copied: not of the tensor itself, but of a copy that the library can read."""

    shape: tuple[int, ...]
    step: int
    copied: bool


class _Kind(NamedTuple):
    """All of a sum that is not a tensor's address or contents. Sums of one kind share a `_Recipe`."""

    dtype: torch.dtype
    images: tuple[_ImageKind, ...]
    terms: tuple[_TermKind, ...]


NOT_ONE_TYPE = "native kernels add up tensors of one type on the CPU, got {} and {}"


class _Gathered:
    """The tensors of a sum, in the order that its `_Recipe` knows, and its kind.

    inputs: what it can be differentiated by: images, then of each term, in order: the norm before; of each stage the depthwise and the
    pointwise weight and the norm after; the scale. vectors: mean and 1 / sqrt(variance + eps) of norms that are given. running: mean and
    variance that follow. copies: of images.
    """

    def __init__(self, terms: Sequence[Scaled]):
        self.flows = list(dict.fromkeys(term.x for term, _, _ in terms))
        images: dict[int, int] = {}
        self.inputs: list[Tensor] = []
        for flow in self.flows:
            if id(flow.onward) not in images:
                images[id(flow.onward)] = len(self.inputs)
                self.inputs.append(flow.onward)
        self.places = {flow: images[id(flow.onward)] for flow in self.flows}
        self.num_images = len(self.inputs)
        self.vectors: list[Tensor] = []
        self.running: list[Tensor] = []
        self.factors: list[Tensor] = []
        self.copies: list[Tensor] = []
        self.rules = array("d")  # of each norm that is not given: eps and momentum
        self.dtype = image(self.inputs[0]).dtype
        self.values, kinds = [], []
        for x in self.inputs:
            if x.dtype is not self.dtype:
                raise ValueError(NOT_ONE_TYPE.format(described(self.inputs[0]), described(x)))
            value, step = rows(image(x))
            kinds.append(_ImageKind(tuple(x.shape), step, value is not x))
            self.values.append(value)
            if value is not x:
                self.copies.append(value)
        # those that read one image together, and values that are there last: so many terms (GROUP) are computed at once
        order = sorted(terms, key=lambda scaled: (not scaled[0].stages, self.places[scaled[0].x]))
        self.kind = _Kind(self.dtype, tuple(kinds), tuple([self._term(*scaled) for scaled in order]))

    def _input(self, tensor: Tensor) -> None:
        if tensor.dtype is not self.dtype or not tensor.is_cpu:
            raise ValueError(NOT_ONE_TYPE.format(described(self.values[0]), described(tensor)))
        self.inputs.append(tensor)

    def _term(self, term: Term, scale: Tensor | None, factor: Tensor | None) -> _TermKind:
        place = self.places[term.x]
        stages, value = term.stages, self.values[place]
        n, channels = value.shape[:2]
        before = self._norm(stages[0].norm if stages else term.norm, channels, value)
        kinds = []
        for k, stage in enumerate(stages):
            depthwise, pointwise = stage.depthwise, stage.pointwise
            if depthwise is not None:
                self._input(depthwise)
            self._input(pointwise)
            after = self._norm(stages[k + 1].norm if k + 1 < len(stages) else term.norm, pointwise.shape[0], None)
            kinds.append(_StageKind(None if depthwise is None else tuple(depthwise.shape), tuple(pointwise.shape), stage.stride,
                                    stage.dilation, stage.halves, after))
        if scale is not None:
            if scale.numel() != 1:
                raise ValueError(f"a scale must be one number, got {tuple(scale.shape)}")
            self._input(scale)
        if factor is not None:
            check_factor(factor, n, self.dtype)
            self.factors.append(factor)
        return _TermKind(place, before, tuple(kinds), scale is not None, factor is not None)

    def _norm(self, normaliser: Normaliser | None, channels: int, value: Tensor | None) -> _NormKind | None:
        """value: what it normalises, where that is there already."""
        if normaliser is None:
            return None
        norm = normaliser.constant()
        if norm is None and value is not None:
            norm = norm_of(normaliser, value)
        weight, bias = normaliser.weight, normaliser.bias
        for v in (weight, bias):
            if v is not None:
                self._input(v)
                check_vector(v, channels, self.dtype)
        if norm is not None:
            for v in norm[:2]:
                check_vector(v, channels, self.dtype)
                self.vectors.append(v)
            return _NormKind(True, norm.by_batch, weight is not None, bias is not None, False)
        self.rules.extend((normaliser.eps, normaliser.momentum))
        follows = normaliser.follows()
        if follows is not None:
            for v in follows:
                check_vector(v, channels, self.dtype)
                self.running.append(v)
        return _NormKind(False, True, weight is not None, bias is not None, follows is not None)


class _Spot(NamedTuple):
    """An address before it is known: so many bytes from the beginning of a tensor, by its place in a list of addresses; 0 is nowhere."""

    place: int = 0
    offset: int = 0


class _NormSpots(NamedTuple):
    mean: _Spot
    rstd: _Spot
    weight: _Spot
    bias: _Spot
    by_batch: int
    weight_input: int  # places among the inputs, -1 for none
    bias_input: int


NOWHERE = _Spot()
NO_NORM = _NormSpots(NOWHERE, NOWHERE, NOWHERE, NOWHERE, 0, -1, -1)


ROW, BACKWARD_ROW = 24, 32  # numbers that describe a stage to the library
ALIGNED = 16  # numbers: what stands in one room begins where a vector of the library may
ROOM = 2**24  # bytes: larger pieces the C library gives back to the system when they are free, and the next one is zeroed again
GROUP = 4  # terms that the library computes and mixes at once, image by image where they need not wait for moments


class _Rows:
    """Numbers for the library, of which some are addresses. `at(addresses)` are they, once all addresses are known; the first address is
    0."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._places: list[int] = []

    def extend(self, values: Sequence["int | _Spot"]) -> None:
        for value in values:
            spot = value if type(value) is _Spot else _Spot(0, value)
            self._places.append(spot.place)
            self._numbers.append(spot.offset)

    def close(self) -> None:
        self._numbers, self._places = np.array(self._numbers, np.int64), np.array(self._places, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def at(self, addresses: np.ndarray) -> np.ndarray:
        return self._numbers + addresses[self._places]


class _StageSpots(NamedTuple):
    """A stage of a recipe: its kind, its place among the outputs, and what it reads: an image (-1: none) or else an output."""

    kind: _StageKind
    image: int
    output: int
    before: _NormSpots
    depthwise: int  # places among the inputs, -1 for none
    pointwise: int
    reads: tuple[int, ...]  # the shape of its input
    writes: tuple[int, ...]


class _TermSpots(NamedTuple):
    image: int
    stages: tuple[_StageSpots, ...]
    norm: _NormSpots
    scale: int
    factor: int  # its place among the factors, -1 for none
    again: int  # its value is not kept, but stands at this place of those for such ones; -1: it is kept


class _Recipe:
    """How sums of one kind are computed: what the library is told, but for addresses.

    Addresses stand in this order: nothing, the inputs (images as the library reads them), vectors, the rooms for outputs of stages, the one
    for moments, values that are not kept, factors, running averages. On the way back: those up to the factors, then see `_BackwardRecipe`.

    The value of a term of one depthwise separable convolution is not kept: it costs a fifth of the way back to compute it again, and would
    be a third of all that is kept for the ops of DARTS. Terms that are computed at once (GROUP) have places of their own for theirs. Raises
    ValueError where something does not fit.
    """

    def __init__(self, kind: _Kind):
        self.kind, self.size = kind, torch.empty((), dtype=kind.dtype).element_size()
        self.outputs: list[_Spot] = []
        sizes = [numbers for term in kind.terms for numbers in _kept_outputs(term, kind.images[term.image].shape)]
        self.rooms, places = _in_rooms(sizes, ROOM // self.size)
        self.terms: list[_TermSpots] = []
        self.room = 0  # numbers
        self._inputs, self._vectors, self._factors, self._running, self._rules = len(kind.images), 0, 0, 0, 0
        self.num_vectors, self.num_inputs = 0, len(kind.images)
        for term in kind.terms:
            self.num_inputs += term.scale + _norm_inputs(term.before)
            self.num_vectors += _norm_vectors(term.before)
            for stage in term.stages:
                self.num_inputs += 1 + (stage.depthwise is not None) + _norm_inputs(stage.after)
                self.num_vectors += _norm_vectors(stage.after)
        num_factors = sum([term.factor for term in kind.terms])
        self.first_vector = 1 + self.num_inputs
        self.first_output = self.first_vector + self.num_vectors
        self.room_place = self.first_output + len(self.rooms)
        self._places = iter([(self.first_output + room, at * self.size) for room, at in places])
        self.again_place = self.room_place + 1
        self.first_factor = self.again_place + 1
        self.first_running = self.first_factor + num_factors
        self.program, self.parts, self.num_again = _Rows(), _Rows(), 0
        for first in range(0, len(kind.terms), GROUP):
            self._add_group(first // GROUP, kind.terms[first: first + GROUP])
        self.program.close(), self.parts.close()
        self.again = self.num_again * math.prod(self.shape)  # numbers
        self._backwards: dict[Any, _BackwardRecipe] = {}

    def backward(self, key: "_BackwardKey") -> "_BackwardRecipe":
        found = self._backwards.get(key)
        if found is None:
            found = self._backwards[key] = _BackwardRecipe(self, key)
        return found

    def _next(self, wanted: bool = True) -> int:
        if not wanted:
            return -1
        self._inputs += 1
        return self._inputs - 1

    def _norm(self, kind: _NormKind | None, channels: int) -> _NormSpots:
        if kind is None:
            return NO_NORM
        weight, bias = self._next(kind.weight), self._next(kind.bias)
        if kind.given:
            mean, rstd = (_Spot(self.first_vector + self._vectors + k) for k in range(2))
            self._vectors += 2
        else:
            mean, rstd = (_Spot(self.room_place, (self.room + k * channels) * self.size) for k in range(2))
            self.room += 2 * channels
        return _NormSpots(mean, rstd, *[NOWHERE if k < 0 else _Spot(1 + k) for k in (weight, bias)], int(kind.by_batch), weight, bias)

    def _add_group(self, number: int, terms: Sequence[_TermKind]) -> None:
        rows: list[tuple[int, _Row]] = []
        again = 0
        for term in terms:
            computed_again = _is_computed_again(term)
            self._add(term, again if computed_again else -1, rows)
            again += computed_again
        self.num_again = max(self.num_again, again)
        _in_turns(self.program, number, rows)

    def _add(self, term: _TermKind, again: int, rows: "list[tuple[int, _Row]]") -> None:
        """rows: gets the stages, each after its number in the term."""
        at = self.kind.images[term.image]
        (n, c, h, w), step = at.shape, at.step
        norm = self._norm(term.before, c)
        value, reads, stages = _Spot(1 + term.image), term.image, []
        for stage in term.stages:
            depthwise, pointwise = self._next(stage.depthwise is not None), self._next()
            check_weights(c, stage.depthwise, stage.pointwise, stage.halves, stage.stride)
            before, shape, from_step = norm, (n, c, h, w), step
            row = [n, h, w, c, stage.pointwise[0], stage.size(), stage.stride, stage.dilation, value, from_step, *norm[:4],
                   _Spot(1 + depthwise) if depthwise >= 0 else NOWHERE, _Spot(1 + pointwise)]
            c, h, w = stage.pointwise[0], (h - 1) // stage.stride + 1, (w - 1) // stage.stride + 1
            step, output = c, len(self.outputs)
            if again >= 0:
                value = _Spot(self.again_place, again * n * c * h * w * self.size)
            else:
                value = _Spot(*next(self._places))
                self.outputs.append(value)
            norm = self._norm(stage.after, c)
            row.append(value)
            if stage.after is None or stage.after.given:
                row += [0] * 5
            else:
                if n * h * w == 1:
                    raise ValueError("a batch norm needs more than 1 value per channel when training, got 1")
                row += [norm.mean, norm.rstd, *self._follows(stage.after), self._rules]
                self._rules += 2
            rows.append((len(stages), row))
            stages.append(_StageSpots(stage, reads, output, before, depthwise, pointwise, shape, (n, c, h, w)))
            reads = -1
        shape = (n, c, h, w)
        if not self.terms:
            self.shape = shape
        if shape != self.shape:
            raise ValueError(f"what is added up at a node must have one shape, got {self.shape} and {shape}")
        scale = self._next(term.scale)
        factor = self._factors if term.factor else -1
        self._factors += term.factor
        found = _TermSpots(term.image, tuple(stages), norm, scale, factor, again)
        self.terms.append(found)
        self.parts.extend(self.part(found, value, step))

    def _follows(self, kind: _NormKind) -> list[_Spot]:
        if not kind.follows:
            return [NOWHERE, NOWHERE]
        self._running += 2
        return [_Spot(self.first_running + self._running - 2 + k) for k in range(2)]

    def value(self, term: _TermSpots) -> _Spot:
        if term.again >= 0:
            return _Spot(self.again_place, term.again * math.prod(self.shape) * self.size)
        return self.outputs[term.stages[-1].output] if term.stages else _Spot(1 + term.image)

    def part(self, term: _TermSpots, value: _Spot, step: int) -> list["int | _Spot"]:
        """A term of the mix; step: the distance of two pixels of its value."""
        return [value, step, *term.norm[:4], NOWHERE if term.scale < 0 else _Spot(1 + term.scale),
                NOWHERE if term.factor < 0 else _Spot(self.first_factor + term.factor)]


_Row = list["int | _Spot"]


def _in_turns(program: _Rows, group: int, rows: Sequence[tuple[int, _Row]]) -> None:
    """The rows of a group of terms, each after the number of its turn, those of one turn together."""
    for turn, row in sorted(rows, key=lambda one: one[0]):
        program.extend([*row, group, turn])


def _is_computed_again(term: _TermKind) -> bool:
    return len(term.stages) == 1 and term.stages[0].depthwise is not None


def _kept_outputs(term: _TermKind, shape: Sequence[int]) -> list[int]:
    """Numbers of each output of a term's stages that is kept."""
    n, _, h, w = shape
    found = []
    for stage in () if _is_computed_again(term) else term.stages:
        h, w = (h - 1) // stage.stride + 1, (w - 1) // stage.stride + 1
        found.append(n * stage.pointwise[0] * h * w)
    return found


def _aligned(numbers: int) -> int:
    return -(-numbers // ALIGNED) * ALIGNED


def _in_rooms(sizes: Sequence[int], most: int) -> tuple[list[int], list[tuple[int, int]]]:
    """The sizes of rooms for so many numbers each, `most` unless one alone is larger; and of each its room and where it begins there."""
    rooms, places = [0], []
    for size in sizes:
        size = _aligned(size)
        if rooms[-1] and rooms[-1] + size > most:
            rooms.append(0)
        places.append((len(rooms) - 1, rooms[-1]))
        rooms[-1] += size
    return rooms, places


def _norm_inputs(kind: _NormKind | None) -> int:
    return 0 if kind is None else kind.weight + kind.bias


def _norm_vectors(kind: _NormKind | None) -> int:
    return 2 if kind is not None and kind.given else 0


_recipes: dict[_Kind, _Recipe] = {}
RECIPES = 512  # that are kept, some ten KiB each: softmax needs dozens, GDAS draws sums of ever new kinds


def _recipe(kind: _Kind) -> _Recipe:
    found = _recipes.get(kind)
    if found is None:
        if len(_recipes) >= RECIPES:
            _recipes.clear()
        found = _recipes[kind] = _Recipe(kind)
    return found


def mix_terms(terms: Sequence[Scaled]) -> Tensor:
    """The sum of `scale * factor * term`."""
    gathered = _Gathered(terms)
    out, *onward = _Sum.apply(gathered, *gathered.inputs)
    for flow in gathered.flows:
        place = gathered.places[flow]
        if onward[place] is not None:
            flow.onward = onward[place]
    return out


def addresses_of(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


class _Sum(torch.autograd.Function):
    """Returns the sum, and of each image another name, or None where it needs no gradient."""

    @staticmethod
    def forward(ctx: Any, gathered: _Gathered, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        dtype = gathered.dtype
        recipe, images = _recipe(gathered.kind), gathered.num_images
        outputs = [torch.empty(size, dtype=dtype) for size in recipe.rooms]
        room, again = torch.empty(recipe.room, dtype=dtype), torch.empty(recipe.again, dtype=dtype)
        n, c, h, w = recipe.shape
        out = empty(n, c, h, w, dtype)
        read = [*gathered.values, *[dense(t) for t in inputs[images:]]]
        addresses = np.array([0, *addresses_of(read), *addresses_of(gathered.vectors), *addresses_of(outputs),
                              room.data_ptr(), again.data_ptr(), *addresses_of(gathered.factors),
                              *addresses_of(gathered.running)], np.int64)
        program, parts = recipe.program.at(addresses), recipe.parts.at(addresses)
        call("supernet_sum", dtype, (len(program) // ROW, program.ctypes.data, gathered.rules.buffer_info()[0], n, h * w, c,
                                     len(recipe.terms), parts.ctypes.data, out.data_ptr(), torch.get_num_threads()))
        ctx.recipe, ctx.factors, ctx.images = recipe, gathered.factors, images
        ctx.save_for_backward(*inputs, *gathered.vectors, *outputs, room, *gathered.copies)
        return out, *[x if x.requires_grad else None for x in inputs[:images]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, *onward: Tensor | None) -> tuple[Any, ...]:
        return (None, *_grads(ctx, g, onward))


class _BackwardKey(NamedTuple):
    needs: tuple[bool, ...]
    onward: tuple[bool, ...]  # of each image: whether a gradient of it is there, which is added to
    steps: tuple[int, ...]  # of each image and of the sum's gradient: the distance of two pixels


class _BackwardRecipe:
    """The way back of sums of one kind. After the factors' addresses stand: the sum's gradient, the norms' coefficients, the scales'
    gradients, those of the last norms, the inner room, both places between stages, the images' gradients, those of convolutions."""

    def __init__(self, recipe: _Recipe, key: _BackwardKey):
        self.recipe, self.key = recipe, key
        self.live = [term for term in recipe.terms if self._needed(term)]
        n, c, h, w = recipe.shape
        first = recipe.first_running
        self.g, self.coef, self.dscale, self.small, self.inner = (_Spot(first + k) for k in range(5))
        self.places = 2 * GROUP  # between stages, two for each of the terms that are computed at once
        self.between, self.first_grad = [_Spot(first + 5 + k) for k in range(self.places)], first + 5 + self.places
        self.first_weight = self.first_grad + len(key.onward)
        self.room, self.between_size = 0, [0] * self.places
        self.weights: list[int] = []  # places among the inputs of those whose gradients are computed
        self.scales: list[tuple[int, int]] = []  # place among the inputs, number of the live term
        self.norms: list[tuple[int, bool, int, int]] = []  # place among the inputs, whether a last norm's, first number, channels
        self.begun = list(key.onward)
        self.program, self.parts, self.again, self.flags = _Rows(), _Rows(), _Rows(), array("q")
        size, count = recipe.size, len(self.live)
        for i, term in enumerate(self.live):
            step = recipe.shape[1] if term.stages else key.steps[term.image]
            self.parts.extend(recipe.part(term, recipe.value(term), step))
            self.flags.append(term.norm.by_batch | 2 * self._reads_value(term))
            if self._need(term.scale):
                self.scales.append((term.scale, i))
            for k, place in enumerate((term.norm.weight_input, term.norm.bias_input)):
                if self._need(place):
                    self.norms.append((place, True, (k * count + i) * c, c))
        for at in range(0, count, GROUP):
            group = self.live[at: at + GROUP]
            _in_turns(self.again, at // GROUP, [(0, self._computed_again(t)) for t in group if t.again >= 0 and self._reads_value(t)])
            chains = [_Chain(term, k, _Spot(self.coef.place, 3 * c * (at + k) * size)) for k, term in enumerate(group)]
            for turn, stage in enumerate(range(max(len(term.stages) for term in group) - 1, -2, -1)):
                _in_turns(self.program, at // GROUP, [(turn, row) for chain in chains for row in self._back(chain, stage)])
        self.program.close(), self.parts.close(), self.again.close()
        # what is needed until the library returns alone stands in one room: values that are computed again, coefficients, between stages
        sizes = (recipe.again if len(self.again) else 0, count * 3 * c, *self.between_size)
        *self.starts, self.scratch = accumulate(map(_aligned, sizes), initial=0)  # numbers

    def _reads_value(self, term: _TermSpots) -> bool:
        return bool(term.norm.by_batch or term.norm.weight_input >= 0 or self._need(term.scale))

    def _computed_again(self, term: _TermSpots) -> "_Row":
        stage = term.stages[0]
        n, c, h, w = stage.reads
        return [n, h, w, c, stage.writes[1], stage.kind.size(), stage.kind.stride, stage.kind.dilation, _Spot(1 + stage.image),
                self.key.steps[stage.image], *stage.before[:4], _Spot(1 + stage.depthwise), _Spot(1 + stage.pointwise),
                self.recipe.value(term), 0, 0, 0, 0, 0]

    def _need(self, place: int) -> bool:
        return place >= 0 and self.key.needs[place]

    def _needs_norm(self, norm: _NormSpots) -> bool:
        return self._need(norm.weight_input) or self._need(norm.bias_input)

    def _below(self, term: _TermSpots, stage: int) -> bool:
        """Whether the input of a stage, before its norm, needs a gradient."""
        return self._need(term.image) or any([self._need(s.depthwise) or self._need(s.pointwise) for s in term.stages[:stage]]) or any(
            [self._needs_norm(s.before) for s in term.stages[: stage + 1]])

    def _needed(self, term: _TermSpots) -> bool:
        return (self._need(term.image) or self._need(term.scale) or self._below(term, len(term.stages))
                or self._needs_norm(term.norm))

    def _target(self, image: int) -> tuple[_Spot, int]:
        """Where the gradient of an image goes, and whether it is to be added to."""
        begun, self.begun[image] = self.begun[image], True
        return _Spot(self.first_grad + image), int(begun)

    def _weight(self, place: int) -> _Spot:
        """Where a weight's gradient goes."""
        if not self._need(place):
            return NOWHERE
        self.weights.append(place)
        return _Spot(self.first_weight + len(self.weights) - 1)

    def _back(self, chain: "_Chain", k: int) -> "list[_Row]":
        """What takes the gradient that arrives at a term's value back through its stage `k`; -1: from what the first one reads to the
        image. Nothing where the term has no such stage, or nothing below needs a gradient."""
        recipe, key, term = self.recipe, self.key, chain.term
        if chain.ended or k >= len(term.stages):
            return []
        if k == len(term.stages) - 1:
            factor = NOWHERE if term.factor < 0 else _Spot(recipe.first_factor + term.factor)
            chain.arriving = (self.g, key.steps[-1], factor, recipe.value(term), term.norm.mean, chain.coef, term.norm.by_batch)
            chain.value_step = recipe.shape[1] if term.stages else key.steps[term.image]
        if k < 0:
            if not self._need(term.image):
                return []
            n, c, h, w = recipe.kind.images[term.image].shape
            to, add = self._target(term.image)
            row = [n, h, w, c, 0, 0, 0, 0, 0, chain.value_step, 0, 0, 0, 0, 0, *chain.arriving, 0, 0, to, add]
            return [row + [0] * (BACKWARD_ROW - 2 - len(row))]
        stage = term.stages[k]
        n, c, h, w = stage.reads
        below = self._below(term, k)
        depthwise, pointwise = self._weight(stage.depthwise), self._weight(stage.pointwise)
        ends = k == 0 and not stage.before.mean.place
        chain.ended = ends or not below
        if not (below or depthwise.place or pointwise.place):
            return []
        dx, add, onward, small = NOWHERE, 0, NOWHERE, NOWHERE
        if below and ends:
            dx, add = self._target(term.image)
        elif below:
            place = 2 * chain.number + k % 2
            self.between_size[place] = max(self.between_size[place], n * c * h * w)
            dx = self.between[place]
            onward, small = (_Spot(self.inner.place, (self.room + 3 * c * j) * recipe.size) for j in range(2))
            for j, weight in enumerate((stage.before.weight_input, stage.before.bias_input)):
                if self._need(weight):
                    self.norms.append((weight, False, self.room + (3 + j) * c, c))
            self.room += 5 * c
        x = _Spot(1 + stage.image) if stage.image >= 0 else recipe.outputs[stage.output - 1]
        step = key.steps[stage.image] if stage.image >= 0 else c
        row = [n, h, w, c, stage.writes[1], stage.kind.size(), stage.kind.stride, stage.kind.dilation, x, step, *stage.before[:5],
               *chain.arriving, NOWHERE if stage.depthwise < 0 else _Spot(1 + stage.depthwise), _Spot(1 + stage.pointwise), dx, add,
               depthwise, pointwise, onward, small]
        chain.arriving = (dx, c, NOWHERE, x, stage.before.mean, onward, stage.before.by_batch)
        chain.value_step = step
        return [row]


class _Chain:
    """How far the gradient of a term has come, the `number`-th of those that are computed at once. coef: of the gradient of its value.
    arriving: numbers of `Arriving`, of what stands next. value_step: the distance of two pixels of what is normalised there."""

    def __init__(self, term: _TermSpots, number: int, coef: _Spot):
        self.term, self.number, self.coef = term, number, coef
        self.ended, self.value_step = False, 0
        self.arriving: tuple[int | _Spot, ...] = ()


def _grads(ctx: Any, g: Tensor | None, onward: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of a sum's inputs, None for those that are not needed. onward: the gradients that later sums left which read the images
    (`Flow.onward`), in tensors of their own, which are added to."""
    recipe: _Recipe = ctx.recipe
    saved, needs, images = ctx.saved_tensors, ctx.needs_input_grad[1:], ctx.images
    grads: list[Tensor | None] = [*onward, *[None] * (len(needs) - images)]
    if g is None:
        return grads
    inputs, dtype = saved[: len(needs)], g.dtype
    g, step = rows(g)
    copies = iter(saved[recipe.room_place:])
    values = [rows(next(copies) if kind.copied else x) for kind, x in zip(recipe.kind.images, inputs)]
    back = recipe.backward(_BackwardKey(needs, tuple([grad is not None for grad in onward]), (*[s for _, s in values], step)))
    count = len(back.live)
    if not count:
        return grads
    n, c, h, w = recipe.shape
    read = [*[value for value, _ in values], *[dense(t) for t in inputs[images:]]]
    for place in range(images):
        if back.begun[place]:
            grad = grads[place]
            grads[place] = empty(*inputs[place].shape, dtype) if grad is None else in_channels_last(grad)
    weights = [torch.empty_like(read[place]) for place in back.weights]
    dscale, small, inner = (g.new_empty(size) for size in (count, 2 * count * c, back.room))
    scratch = g.new_empty(back.scratch)
    again, coef, *between = [scratch.data_ptr() + start * recipe.size for start in back.starts]
    addresses = np.array([0, *addresses_of(read), *addresses_of(saved[len(needs): recipe.room_place]), again, *addresses_of(ctx.factors),
                          g.data_ptr(), coef, *addresses_of((dscale, small, inner)), *between,
                          *[0 if grad is None else grad.data_ptr() for grad in grads[:images]], *addresses_of(weights)], np.int64)
    program, parts, repeated = back.program.at(addresses), back.parts.at(addresses), back.again.at(addresses)
    call("supernet_sum_backward", dtype, (
        n, h * w, c, count, parts.ctypes.data, back.flags.buffer_info()[0], g.data_ptr(), step, coef, dscale.data_ptr(),
        small.data_ptr(), small.data_ptr() + count * c * recipe.size, len(program) // BACKWARD_ROW, program.ctypes.data,
        torch.get_num_threads(), len(repeated) // ROW, repeated.ctypes.data))
    for place, weight in zip(back.weights, weights):
        grads[place] = weight
    scales = dscale.unbind()
    for place, number in back.scales:
        grads[place] = scales[number] if inputs[place].dim() == 0 else scales[number].reshape(inputs[place].shape)
    for place, last, at, channels in back.norms:
        grads[place] = (small if last else inner)[at: at + channels]
    return grads


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
    if n * h * w == 1:
        raise ValueError("a batch norm needs more than 1 value per channel when training, got 1")
    mean, rstd, rule = x.new_empty(c), x.new_empty(c), array("d", (normaliser.eps, normaliser.momentum))
    follows = normaliser.follows() or ()
    for running in follows:
        check_vector(running, c, x.dtype)
    call("supernet_moments", x.dtype, (n, h, w, c, at(x), step, at(mean), at(rstd), *(addresses_of(follows) or (0, 0)),
                                       rule.buffer_info()[0], torch.get_num_threads()))
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
        out = empty(*_pooled(x, stride), x.dtype)
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
        dx = empty(n, c, h, w, g.dtype)
        call("supernet_max_pool_backward", g.dtype, (n, h, w, c, *ctx.window, at(g), step, at(dx), at(index), torch.get_num_threads()))
        return dx, None, None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, stride: int) -> Tensor:
        x, step = rows(image(x))
        n, c, h, w = x.shape
        out = empty(*_pooled(x, stride), x.dtype)
        call("supernet_avg_pool", x.dtype, (n, h, w, c, size, stride, at(x), step, at(out), 0, torch.get_num_threads()))
        ctx.shape, ctx.window = (n, c, h, w), (size, stride)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        g, step = rows(g)
        n, c, h, w = ctx.shape
        dx = empty(n, c, h, w, g.dtype)
        call("supernet_avg_pool_backward", g.dtype, (n, h, w, c, *ctx.window, at(g), step, at(dx), 0, torch.get_num_threads()))
        return dx, None, None
