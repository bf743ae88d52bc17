"""Cells: `MixedEdges` computes all edges that leave a node together, `Cell` adds them up node by node.

One class serves the supernet (many candidates an edge) and the final network (one). It equals the sum over edges, one op
at a time, `state[d] = sum over (s, d), o of weight[e, o] * op_eo(state[s])`; `tests/reference.py` holds that slow version.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import make_op
from ops.drop_path import drop_path_masks
from ops.forms import NoPlainForm
from ops.kernels import kernels_for
from ops.kernels.terms import Source
from ops.op import Normalisation, Op
from supernet.networks.written import Block, class_name, identifier, total
from supernet.ranges import Channels, Count, ranged
from supernet.space import CellSpec, Mask
from supernet.weights import Scales


class MixedEdges(nn.Module):
    """The candidate ops of a cell's edges, kept by edge and op name, computed by source node.

    Ops that leave one node share its parameter-free work: equal prefixes (the leading ReLU, pooling) are computed once, and an
    op without parameters (a pool with its batch norm) is one module for all edges of the node. So its running statistics
    count a batch once, whichever of those edges ran it. Weights are folded into the last normalisation.

    mixes: whether some edge has several candidates, as in a supernet. Then drop path drops whole edges, skip connections too
    (RobustDARTS and SNAS, official codes, model_search.py: `drop_path(mixed_op(h, weights))`); else, in a final network, it leaves alone
    an edge that is its input (DARTS, model.py). Were skip connections spared while ops compete, drop path would favour them.
    auxiliary_skip: every edge has a skip connection beside its ops (DARTS-; halving ones have parameters), which runs where the call's
    `scales.skip` gives it a weight. skip_dropout: chance that an entry of a candidate skip connection's output is dropped in
    training, set by the training loop (P-DARTS; not where a skip connection halves the image, as in the official code).
    """

    def __init__(self, spec: CellSpec, present: Mask, channels: int, norm: Normalisation, *, auxiliary_skip: bool = False):
        super().__init__()
        self.channels, self.num_inputs = channels, spec.num_inputs
        self.edges, self.shared, self.auxiliary = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.bundles: dict[int, list[tuple[int, int, int, Op]]] = {}  # source -> (edge, column, destination, op)
        self.skips: dict[int, list[tuple[int, int, Op]]] = {}  # source -> (edge, destination, auxiliary skip)
        self.skip_dropout, self.mixes = 0.0, mixes(present)
        names = edge_keys(spec)
        for e, (source, destination) in enumerate(spec.edges):
            stride = spec.stride if source < spec.num_inputs else 1
            for o, name in enumerate(spec.ops):
                if not present[e][o]:
                    continue
                op = make_op(name, channels, stride, norm)
                folder, key = (self.shared, str(source)) if op.shareable else (self.edges, names[e])
                if key not in folder:
                    folder[key] = nn.ModuleDict()
                if name not in folder[key]:
                    folder[key][name] = op
                self.bundles.setdefault(source, []).append((e, o, destination, folder[key][name]))
            if auxiliary_skip and any(present[e]):
                self.auxiliary[names[e]] = make_op("skip_connect", channels, stride, norm)
                self.skips.setdefault(source, []).append((e, destination, self.auxiliary[names[e]]))

    def running(self, active: Mask | None, with_skips: bool) -> list[list[Op]]:
        """The ops that `leave` adds, in its order: those that leave the cell's inputs together, then node by node."""
        rounds: list[list[Op]] = [[]]
        for source in sorted({*self.bundles, *self.skips}):
            own = [op for e, o, _, op in self.bundles.get(source, ()) if op.contributes and (active is None or active[e][o])]
            own += [op for _, _, op in self.skips.get(source, ())] if with_skips else []
            if source < self.num_inputs:
                rounds[0] += own
            else:
                rounds.append(own)
        return rounds

    def leave(self, source: int, x: Tensor, sums: Mapping[int, Any], scales: Scales | None, active: Mask | None,
              drop: Tensor | None, generator: torch.Generator | None) -> None:
        """Adds what leaves node `source` with state `x` to the running `sums` of its destinations.

        drop: (E, N, 1, 1, 1) factors of drop path, or None.
        """
        read = Source(x, generator)

        def thinned(y: Tensor) -> Tensor:
            return y * dropout_mask(y, self.skip_dropout, generator)

        thins = self.skip_dropout > 0 and self.training
        for e, o, destination, op in self.bundles.get(source, ()):
            if op.contributes and (active is None or active[e][o]):
                sums[destination].add(op, read, None if scales is None else scales.ops[e][o],
                                      None if drop is None or self._spares(op) else drop[e],
                                      thinned if thins and op.passes_input else None)
        if scales is not None and scales.skip is not None:
            for e, destination, op in self.skips.get(source, ()):
                sums[destination].add(op, read, scales.skip[e], None if drop is None else drop[e])

    def _spares(self, op: Op) -> bool:
        """Whether drop path leaves `op` alone."""
        return op.passes_input and not self.mixes


def mixes(present: Mask) -> bool:
    """Whether a choice is left: some edge has several candidates."""
    return any(sum(row) > 1 for row in present)


def dropout_mask(y: Tensor, prob: float, generator: torch.Generator | None) -> Tensor:
    """Independent factors of the shape of `y`: 0 with probability `prob`, else 1 / (1 - prob)."""
    if generator is None:
        raise ValueError("dropout draws at every forward: the network must be called with generator=")
    return torch.empty_like(y).bernoulli_(1 - prob, generator=generator).div_(1 - prob)


class Bypass:
    """The channels that partial connections leave out (PC-DARTS, Xu et al. 2020, eq. 2; official code, model_search.py): of K parts of an
    edge's input the first goes through its ops, the others pass by, halved by max pooling where the edge halves. They see the
    edge's own weight alone. At each node both are joined and shuffled, so that the next node's ops read other channels."""

    def __init__(self, spec: CellSpec, present: Mask, channels: int, partial: int):
        if channels % partial:
            raise ValueError(f"network.partial must divide the channels of every cell, got {partial} and {channels} channels")
        self.spec, self.partial, self.width = spec, partial, channels // partial
        self.leaving: dict[int, list[tuple[int, int]]] = {}  # source -> (edge, destination)
        for e, (source, destination) in enumerate(spec.edges):
            if any(present[e]):
                self.leaving.setdefault(source, []).append((e, destination))

    def leave(self, source: int, x: Tensor, sums: Mapping[int, Any], edges: Sequence[Tensor] | None, active: Mask | None,
              drop: Tensor | None) -> Tensor:
        """Adds what passes by to the running `sums`; returns what the ops read. drop: as for `MixedEdges.leave`; an edge is dropped with
        what passes it by."""
        own, rest = x.split((self.width, x.shape[1] - self.width), 1)  # two slices would have two gradients of all channels
        if self.spec.stride > 1 and source < self.spec.num_inputs:
            rest = F.max_pool2d(rest, self.spec.stride, self.spec.stride, ceil_mode=True)
        for e, destination in self.leaving.get(source, ()):
            if active is None or any(active[e]):
                sums[destination].add_tensor(rest if drop is None else rest * drop[e], None if edges is None else edges[e])
        return own

    def join(self, computed: Tensor | None, passed: Tensor) -> Tensor:
        """A node's state, channel c of part p at c * K + p."""
        if computed is None:
            computed = passed.new_zeros(passed.shape[0], self.width, *passed.shape[2:])
        both = torch.cat([computed, passed], 1).permute(0, 2, 3, 1)  # channels innermost: as they may lie already, and as the copy will
        return both.unflatten(3, (self.partial, self.width)).transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


@ranged
class Cell(nn.Module):
    """Input states in, one tensor out: the output nodes' states along channels, (N, C * outputs, H', W').

    `num_outputs` counts the output nodes that have an edge; the others are left out (FairDARTS may keep none for a node).
    partial: ops read 1/partial of the channels (`Bypass`). Both options are a supernet's; a final network has neither.
    """

    def __init__(self, spec: CellSpec, present: Mask, channels: Channels, norm: Normalisation, *, partial: Count = 1,
                 auxiliary_skip: bool = False):
        super().__init__()
        self.spec = spec
        self.bypass = Bypass(spec, present, channels, partial) if partial > 1 else None
        self.mixed = MixedEdges(spec, present, channels // partial, norm, auxiliary_skip=auxiliary_skip)
        reached = {d for (_, d), row in zip(spec.edges, present) if any(row)}
        self.outputs = [n for n in spec.outputs if n in reached or n < spec.num_inputs]
        if not self.outputs:
            raise ValueError("a cell needs at least one output node with an edge; this genotype has none")

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def forward(self, inputs: Sequence[Tensor], scales: Scales | None = None, active: Mask | None = None,
                drop_path_prob: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """inputs: each (N, C, H, W). scales: of this cell, None for ones. active: [E][O], None for all."""
        x, spec, drop = inputs[0], self.spec, None
        if drop_path_prob > 0 and self.training:
            if generator is None:
                raise ValueError("drop path draws at every forward: the network must be called with generator=")
            drop = drop_path_masks(len(spec.edges), x.shape[0], drop_path_prob, generator, x)
        kernels, kept = kernels_for(x), None if scales is None else scales.kept
        states = list(inputs)
        sums = kernels.node_sums(x, lambda: self.mixed.running(active, scales is not None and scales.skip is not None), kept)
        passed = kernels.node_sums(x, list, kept)
        for node in range(spec.num_inputs + spec.num_nodes):
            if node >= spec.num_inputs:
                states.append(self._state(sums.take(node), passed.take(node), x))
            read = states[node]
            if self.bypass is not None:
                read = self.bypass.leave(node, read, passed, None if scales is None else scales.edges, active, drop)
            self.mixed.leave(node, read, sums, scales, active, drop, generator)
        sums.close()
        return torch.cat([states[n] for n in self.outputs], 1)

    def plain(self, kind: str) -> Block:
        """The cell in plain PyTorch, with weights of 1: a line a node. What reaches no output is left out; an op that stands on several
        edges is one module for each. kind: of cell. Raises NoPlainForm: it is a supernet's, or an op has no plain form."""
        if self.bypass is not None:
            raise NoPlainForm("a cell with partial connections is a supernet's, and has no plain form")
        spec = self.spec
        computed = [(e, o, op) for bundle in self.mixed.bundles.values() for e, o, _, op in bundle if op.contributes]
        needed = set(self.outputs)
        for e, _, _ in sorted(computed, key=lambda row: -spec.edges[row[0]][1]):
            needed |= {spec.edges[e][0]} if spec.edges[e][1] in needed else set()
        keys, parts = edge_keys(spec), {}
        into: dict[int, list[str]] = {node: [] for node in spec.nodes if node in needed}
        for e, o, op in sorted(computed, key=lambda row: row[:2]):
            source, destination = spec.edges[e]
            if destination not in needed:
                continue
            attribute = identifier(f"{spec.ops[o]}_{keys[e].replace('-', '_')}")
            attribute = attribute if attribute not in parts else f"{attribute}_{e}_{o}"
            try:
                parts[attribute] = op.plain()
            except NoPlainForm as error:
                raise NoPlainForm(f"op {spec.ops[o]!r} on edge {source} -> {destination} of cell {kind!r}: {error}") from error
            into[destination].append(f"self.{attribute}(s{source})")
        empty = "torch.zeros_like(s0)" if spec.stride == 1 else f"torch.zeros_like(s0[:, :, ::{spec.stride}, ::{spec.stride}])"
        lines = [f"s{node} = {total(terms) if terms else empty}" for node, terms in into.items()]
        states, inputs = ", ".join(f"s{node}" for node in self.outputs), [f"s{n}" for n in range(spec.num_inputs)]
        lines.append(f"return torch.cat([{states}], 1)" if len(self.outputs) > 1 else f"return {states}")
        about = f"{' and '.join(inputs)} are its inputs" if len(inputs) > 1 else "s0 is its input"
        return Block(class_name(kind), f"The {identifier(kind)} cell, a line a node: {about}.", parts,
                     inputs, lines, widths={"channels": self.mixed.channels})

    def _state(self, computed: Tensor | None, passed: Tensor | None, x: Tensor) -> Tensor:
        if passed is not None:
            return self.bypass.join(computed, passed)
        return self._zeros(x) if computed is None else computed

    def _zeros(self, x: Tensor) -> Tensor:
        """The state of a node that no running op reaches."""
        stride = self.spec.stride
        return torch.zeros_like(x[:, :, ::stride, ::stride])


def has_auxiliary_skips(net: nn.Module) -> bool:
    """Whether a network has skip connections beside its ops (DARTS-)."""
    return any(type(module) is MixedEdges and bool(module.skips) for module in net.modules())


def edge_keys(spec: CellSpec) -> list[str]:
    """`source-destination` for each edge; the second of parallel edges gets `_1`, and so on."""
    names: list[str] = []
    for source, destination in spec.edges:
        name = f"{source}-{destination}"
        copies = sum(n.split("_")[0] == name for n in names)
        names.append(f"{name}_{copies}" if copies else name)
    return names
