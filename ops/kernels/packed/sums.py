"""The sums of a cell's nodes. What is added waits until the next node is asked for; then all that waits is computed together, a round: the
ops that leave the cell's inputs, then those that leave each node."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.kernels import plain
from ops.kernels.packed.convolutions import Kernel, Stacking, alike, of_sources, side_by_side
from ops.kernels.packed.layout import from_row, layout_of, repeated
from ops.kernels.packed.matrix import Entry, matrix_of, mixed
from ops.kernels.packed.stacks import Averages, likeness, normalised
from ops.kernels.terms import Source
from ops.op import BatchNorm, Op, Prefix


class Wide(NamedTuple):
    """Parts beside one another along the channels, (N, M * C, H, W), and the norms that are to come; None where there are none."""

    parts: Sequence[Hashable]
    x: Tensor
    norms: Sequence[BatchNorm] | None


class Sums:
    """`sums[node].add(...)` and `.add_tensor(...)` as `plain.Sum`; `take(node)` its total, nodes in their order."""

    def __init__(self, stacking: Stacking, x: Tensor, rounds: plain.Rounds, kept: dict[Any, Any] | None):
        self._stacking, self._rounds, self._kept, self._layout = stacking, rounds, kept, layout_of(x)
        self._weights: Weights | None = None
        self._entries: list[Entry] = []
        self._layered: dict[Op, Source] = {}
        self._bare: dict[Hashable, Op] = {}  # of those the ones that are a prefix alone, by prefix and source
        self._single: list[Wide] = []  # of one part
        self._known: set[Hashable] = set()  # parts of `_single`
        self._nodes: list[int] = []  # whose sums so far are the rows of `_rows`
        self._rows: Tensor | None = None  # (B, nodes, Q)
        self._shape: Sequence[int] = ()
        self._apart: dict[int, Tensor] = {}  # sums so far of other nodes

    def __getitem__(self, node: int) -> "Into":
        return Into(self, node)

    def add(self, node: int, op: Op, source: Source, scale: Tensor | None, factor: Tensor | None,
            change: Callable[[Tensor], Tensor] | None) -> None:
        if change is not None:
            self.add_tensor(node, change(_alone(op, source, factor)), scale)
            return
        part: Hashable = op
        if op.layers is not None:
            if op.layers == () and op.norm is None:  # the same whosever it is
                part = op = self._bare.setdefault((op.prefix, source), op)
            assert self._layered.setdefault(op, source) is source, "an op reads one node"
        else:
            term = source.once(op, lambda: op.term(source)) if op.shareable else op.term(source)
            part = self._hold((op, source) if op.shareable else op, term.x.tensor, None if term.norm is None else [term.norm])
        self._entries.append(Entry(node, part, scale, factor))

    def add_tensor(self, node: int, x: Tensor, scale: Tensor | None) -> None:
        self._entries.append(Entry(node, self._hold(id(x), x, None), scale, None))

    def _hold(self, part: Hashable, x: Tensor, norms: Sequence[BatchNorm] | None) -> Hashable:
        if part not in self._known:
            self._known.add(part)
            self._single.append(Wide([part], x, norms))
        return part

    def take(self, node: int) -> Tensor | None:
        """The total; None for a node that nothing was added to."""
        if self._entries:
            self._round()
        apart = self._apart.pop(node, None)
        if node not in self._nodes:
            return apart
        assert node == self._nodes[0], "nodes are taken in their order"
        del self._nodes[0]
        row, self._rows = self._rows.split([1, len(self._nodes)], 1) if self._nodes else (self._rows, None)
        total = from_row(row, self._shape, self._layout)
        return total if apart is None else total + apart

    def close(self) -> None:
        """Once the last node is taken: running averages have moved."""
        if self._weights is not None:
            self._weights.averages.write()

    def _round(self) -> None:
        """Adds all that waits to the sums so far."""
        wides = [*self._convolved(), *self._single]
        sizes = {(len(wide.x), wide.x.shape[1] // len(wide.parts), *wide.x.shape[2:]) for wide in wides}
        self._shape = sizes.pop()
        for other in sizes:
            plain.same_shape(wides[0].x.new_empty(other), self._shape)
        wide = _joined([*self._normalised([w for w in wides if w.norms is not None]), *(w for w in wides if w.norms is None)])
        nodes = sorted({e.node for e in self._entries})
        if self._rows is not None and nodes != self._nodes:
            for node, row in zip(self._nodes, self._rows.split(1, 1)):
                total = from_row(row, self._shape, self._layout)
                self._apart[node] = self._apart[node] + total if node in self._apart else total
            self._rows = None
        matrix = matrix_of(self._entries, nodes, wide.parts, wide.x, self._kept)
        self._rows, self._nodes = mixed(matrix, wide.x, len(wide.parts), self._layout, self._rows), nodes
        self._entries, self._layered, self._bare, self._single, self._known = [], {}, {}, [], set()

    def _convolved(self) -> list[Wide]:
        """The outputs of all ops that are convolutions, those alike beside one another."""
        found, read = [], Read()
        for family in families(self._layered):
            sources = tuple(dict.fromkeys(self._layered[op] for op in family))
            counts = [sum(self._layered[op] is source for op in family) for source in sources]
            x, layers = read.after(family[0].prefix, sources), self.weights.layers(family)
            if layers:
                x = of_sources(layers[0].kernel, x, counts, self._layout)
            elif len(family) > len(sources):
                x = repeated(x, counts, self._layout)
            for kernel, norms in layers[1:]:
                x = side_by_side(kernel, F.relu(normalised(x, norms, self.weights.averages)))
            found.append(Wide(family, x, None if family[0].norm is None else [op.norm for op in family]))
        return found

    def _normalised(self, wides: Sequence[Wide]) -> list[Wide]:
        groups: dict[Hashable, list[Wide]] = {}
        for wide in wides:
            groups.setdefault(likeness(wide.norms[0]), []).append(wide)
        joined = [_joined(group) for group in groups.values()]
        return [Wide(one.parts, normalised(one.x, one.norms, self.weights.averages), None) for one in joined]

    @property
    def weights(self) -> "Weights":
        if self._weights is None:
            self._weights = Weights(self._stacking, self._rounds())
        return self._weights


class Read:
    """What several ops read of several nodes, computed once: beside one another along the channels."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Tensor] = {}

    def after(self, prefix: Prefix, sources: tuple[Source, ...]) -> Tensor:
        """`prefix` of all of `sources`, (N, len(sources) * C, H, W)."""
        if sources not in self._known:
            self._known[sources] = sources[0].x if len(sources) == 1 else torch.cat([source.x for source in sources], 1)
        if (prefix, sources) not in self._known:
            self._known[prefix, sources] = prefix(self._known[sources])
        return self._known[prefix, sources]


class Into(NamedTuple):
    """A node's sum."""

    sums: Sums
    node: int

    def add(self, op: Op, source: Source, scale: Tensor | None = None, factor: Tensor | None = None,
            change: Callable[[Tensor], Tensor] | None = None) -> None:
        self.sums.add(self.node, op, source, scale, factor, change)

    def add_tensor(self, x: Tensor, scale: Tensor | None = None) -> None:
        self.sums.add_tensor(self.node, x, scale)


class Layer(NamedTuple):
    """The stages at one depth of a family of ops, and the norms of their inputs; none at the first."""

    kernel: Kernel
    norms: Sequence[BatchNorm]


class Weights:
    """The kernels of a cell's convolutions, stacked for all its rounds, and the running averages of its norms."""

    def __init__(self, stacking: Stacking, rounds: Sequence[Sequence[Op]]):
        self._stacking = stacking
        self._layers: dict[Hashable, list[Layer]] = {}
        found = [families(op for op in some if op.layers is not None) for some in rounds]
        self._stack([family for some in found for family in some])
        norms = [n for some in found for family in some for layer in self.layers(family) for n in layer.norms]
        for some, families_of_it in zip(rounds, found):
            ops = [op for family in families_of_it for op in family]
            norms += [op.norm for op in dict.fromkeys([*ops, *some]) if op.norm is not None]
        self.averages = Averages(norms)

    def layers(self, family: Sequence[Op]) -> list[Layer]:
        if tuple(family) not in self._layers:  # what was not said to come
            self._stack([family])
        return self._layers[tuple(family)]

    def _stack(self, some: Sequence[Sequence[Op]]) -> None:
        depths = [list(zip(*(op.layers for op in family), strict=True)) for family in some]
        kernels = iter(self._stacking([stages for family in depths for stages in family]))
        for family, columns in zip(some, depths):
            self._layers[tuple(family)] = [Layer(next(kernels), [s.norm for s in stages if s.norm is not None]) for stages in columns]


def families(ops: Iterable[Op]) -> list[list[Op]]:
    """Ops whose convolutions are computed together, each kind in the order in which they come."""
    found: dict[Hashable, list[Op]] = {}
    for op in dict.fromkeys(ops):
        stages = tuple((alike(stage), None if stage.norm is None else likeness(stage.norm)) for stage in op.layers)
        found.setdefault((op.prefix, stages, op.norm is None), []).append(op)
    return list(found.values())


def _joined(wides: Sequence[Wide]) -> Wide:
    if len(wides) == 1:
        return wides[0]
    norms = None if wides[0].norms is None else [n for wide in wides for n in wide.norms]
    return Wide([part for wide in wides for part in wide.parts], torch.cat([wide.x for wide in wides], 1), norms)


def _alone(op: Op, source: Source, factor: Tensor | None) -> Tensor:
    one = plain.Sum()
    one.add(op, source, None, factor)
    return one.total()
