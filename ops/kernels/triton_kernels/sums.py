"""A node's sum on a GPU. Separable convolutions wait until one of them is needed; then all that read the same node are computed together,
each stage of theirs in one set of launches, and the moments of their outputs in two. The sum itself is one `mix`.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.kernels import plain
from ops.kernels.plain import NodeSums, Norm, Rounds
from ops.kernels.terms import Normaliser, Source, Stage, Term
from ops.kernels.triton_kernels.batch_statistics import statistics_of
from ops.kernels.triton_kernels.layout import last, stacked
from ops.kernels.triton_kernels.separable_convolution import separable_of
from ops.kernels.triton_kernels.weighted_sum import mix_of


class Part(NamedTuple):
    """What a term comes to: a tensor, and how it is normalised."""

    x: Tensor
    norm: Norm | None = None


class Waiting:
    """The separable convolutions that read one node."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self.parts: list[Part] = []

    def add(self, term: Term) -> Callable[[], Part]:
        index = len(self.terms)
        self.terms.append(term)
        return lambda: self._part(index)

    def _part(self, index: int) -> Part:
        if index >= len(self.parts):
            self.parts += computed(self.terms[len(self.parts):])
        return self.parts[index]


def computed(terms: Sequence[Term]) -> list[Part]:
    """Terms with stages. Those alike in order, and the longer first: what a next stage reads lies in one buffer, and is not copied."""
    order = sorted(range(len(terms)), key=lambda i: (-len(terms[i].stages), [_window(stage) for stage in terms[i].stages]))
    terms = [terms[i] for i in order]
    xs = [term.x.tensor for term in terms]
    parts = [Part(x, norm) for x, norm in zip(xs, normalised(xs, [term.stages[0].norm for term in terms]))]
    for depth in range(max(len(term.stages) for term in terms)):
        groups: dict[Hashable, list[int]] = {}
        for i, (term, part) in enumerate(zip(terms, parts)):
            if depth < len(term.stages):
                groups.setdefault(_likeness(term.stages[depth], part, shared=depth == 0), []).append(i)
        for group in groups.values():
            following = [(*(stage.norm for stage in terms[i].stages), terms[i].norm)[depth + 1] for i in group]
            outputs = _stage([terms[i].stages[depth] for i in group], [parts[i] for i in group])
            for i, x, norm in zip(group, outputs, normalised(outputs, following)):
                parts[i] = Part(x, norm)
    return [parts[order.index(i)] for i in range(len(order))]


def _window(stage: Stage) -> tuple[bool, int, int]:
    return stage.halves, (1 if stage.depthwise is None else stage.depthwise.shape[-1]), stage.dilation


def _likeness(stage: Stage, part: Part, shared: bool) -> Hashable:
    """Equal for stages that one launch computes."""
    norm = part.norm and (part.norm.by_batch, part.norm.weight is None, part.norm.bias is None)
    return id(part.x) if shared else None, part.x.shape, part.x.dtype, stage.stride, stage.halves, stage.pointwise.shape, norm


def _stage(stages: Sequence[Stage], parts: Sequence[Part]) -> list[Tensor]:
    if stages[0].halves:
        return _halved(stages, parts)
    if stages[0].pointwise.shape[-1] > 1:
        return [_dense(stage, part) for stage, part in zip(stages, parts)]
    # A product alone is a separable convolution with a depthwise one of a single 1.
    ones = next((s.pointwise.new_ones(s.pointwise.shape[1], 1, 1, 1) for s in stages if s.depthwise is None), None)
    return separable_of([part.x for part in parts], [ones if s.depthwise is None else s.depthwise for s in stages],
                        [s.pointwise for s in stages], stages[0].stride, [s.dilation for s in stages], [part.norm for part in parts])


def _dense(stage: Stage, part: Part) -> Tensor:
    """By PyTorch, which has kernels for it."""
    x = F.relu(part.x if part.norm is None else plain.normalised(part.x, part.norm))
    return F.conv2d(x, stage.pointwise, None, stage.stride, stage.dilation * (stage.pointwise.shape[-1] // 2), stage.dilation)


def _halved(stages: Sequence[Stage], parts: Sequence[Part]) -> list[Tensor]:
    """Each is two convolutions with one tap, which picks a pixel: the centre of 1x1 and the last of 3x3."""
    channels, count = parts[0].x.shape[1], len(stages)
    centre = stages[0].pointwise.new_ones(channels, 1, 1, 1)
    pixels = [centre] * count + [F.pad(centre, (2, 0, 2, 0))] * count
    pointwises = [s.pointwise[:, :channels] for s in stages] + [s.pointwise[:, channels:] for s in stages]
    xs, norms = [part.x for part in parts] * 2, [part.norm for part in parts] * 2
    ys = separable_of(xs, pixels, pointwises, stages[0].stride, [1] * (2 * count), norms)
    return [even + odd for even, odd in zip(ys, ys[count:])]


def normalised(xs: Sequence[Tensor], normalisers: Sequence[Normaliser | None]) -> list[Norm | None]:
    """How each of `xs`, of one shape, is normalised. The moments that are asked for are computed together."""
    count = xs[0].numel() // xs[0].shape[1]
    norms = [None if n is None else n.constant() for n in normalisers]
    asking = [m for m, (n, norm) in enumerate(zip(normalisers, norms)) if n is not None and norm is None]
    groups: dict[Hashable, list[int]] = {}
    for m in asking:
        # Alone where a batch norm is met twice, so that it is moved twice.
        again = any(normalisers[m] is normalisers[k] for k in asking[: asking.index(m)])
        groups.setdefault((normalisers[m].eps, normalisers[m].momentum, m if again else None), []).append(m)
    for (eps, momentum, _), members in groups.items():
        own = [normalisers[m] for m in members]
        if count == 1:
            raise ValueError("a batch norm needs more than 1 value per channel when training, got 1")
        mean, rstd = statistics_of(stacked([last(xs[m].detach()) for m in members]), [n.follows() for n in own], eps, momentum)
        for row, (m, n) in enumerate(zip(members, own)):
            norms[m] = Norm(mean[row], rstd[row], True, n.weight, n.bias)
    return norms


class Sum:
    """A node's sum, which is computed when its total is asked for."""

    def __init__(self) -> None:
        self._terms: list[tuple[Callable[[], Part], Tensor | None]] = []

    def add(self, op: Any, source: Source, scale: Tensor | None = None, factor: Tensor | None = None,
            change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Adds `scale * change(factor * op(source))`; as `plain.Sum.add`."""
        part = source.once(op, lambda: self._part(op, source)) if op.shareable else self._part(op, source)
        if factor is None and change is None:
            self._terms.append((part, scale))
        else:
            self._terms.append((lambda: Part(_changed(part(), factor, change)), scale))

    def _part(self, op: Any, source: Source) -> Callable[[], Part]:
        term = op.term(source)
        if term.stages:
            return source.once(Waiting, Waiting).add(term)
        x = term.x.tensor
        part = Part(x, *normalised([x], [term.norm]))
        return lambda: part

    def add_tensor(self, x: Tensor, scale: Tensor | None = None) -> None:
        self._terms.append((lambda: Part(x), scale))

    def total(self) -> Tensor:
        if not self._terms:
            raise ValueError("a sum needs at least one part")
        parts, scales = [part() for part, _ in self._terms], [scale for _, scale in self._terms]
        if len(parts) == 1 and parts[0].norm is scales[0] is None:
            return parts[0].x
        with torch.cuda.device_of(parts[0].x):
            return mix_of([part.x for part in parts], [part.norm for part in parts], scales)


def node_sums(x: Tensor, rounds: Rounds, kept: dict[Any, Any] | None) -> NodeSums:
    return NodeSums(Sum)


def _changed(part: Part, factor: Tensor | None, change: Callable[[Tensor], Tensor] | None) -> Tensor:
    y = part.x if part.norm is None else mix_of([part.x], [part.norm], [None])
    y = y if factor is None else y * factor
    return y if change is None else change(y)
