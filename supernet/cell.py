"""Cells: `MixedEdges` computes all edges that leave a node together, `Cell` adds them up node by node.

One class serves the supernet (many candidates an edge) and the final network (one). It equals the sum over edges, one op
at a time, `state[d] = sum over (s, d), o of weight[e, o] * op_eo(state[s])`; `tests/reference.py` holds that slow version.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ops import make_op
from ops.drop_path import drop_path_masks
from ops.op import Normalisation, Op
from supernet.space import CellSpec, Mask

Scales = Sequence[Sequence[Tensor]]  # [E][O] scalar tensors


class MixedEdges(nn.Module):
    """The candidate ops of a cell's edges, kept by edge and op name, computed by source node.

    Ops that leave one node share its parameter-free work: equal prefixes (the leading ReLU, pooling) are computed once, and an
    op without parameters (a pool with its batch norm) is one module for all edges of the node. So its running statistics
    count a batch once, whichever of those edges ran it. Weights are folded into the last normalisation.
    """

    def __init__(self, spec: CellSpec, present: Mask, channels: int, norm: Normalisation):
        super().__init__()
        self.edges, self.shared = nn.ModuleDict(), nn.ModuleDict()
        self.bundles: dict[int, list[tuple[int, int, int, Op]]] = {}  # source -> (edge, column, destination, op)
        names = edge_names(spec)
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

    def leave(self, source: int, x: Tensor, sums: dict[int, Tensor], scales: Scales | None, active: Mask | None,
              drop: Tensor | None, generator: torch.Generator | None) -> None:
        """Adds what leaves node `source` with state `x` to the running `sums` of its destinations.

        drop: (E, N, 1, 1, 1) factors of drop path, or None.
        """
        prefixes: dict[object, Tensor] = {}
        outputs: dict[Op, Tensor] = {}  # of ops that several edges share
        for e, o, destination, op in self.bundles.get(source, ()):
            if not op.contributes or (active is not None and not active[e][o]):
                continue
            if op.prefix not in prefixes:
                prefixes[op.prefix] = op.prefix(x)
            scale = None if scales is None else scales[e][o]
            if op.shareable:
                if op not in outputs:
                    outputs[op] = op.finish(prefixes[op.prefix], None, generator)
                y = outputs[op]
            else:
                y, scale = op.finish(prefixes[op.prefix], scale, generator), None
            if drop is not None and not op.passes_input:
                y = y * drop[e]
            total = sums.get(destination)
            if scale is not None:
                sums[destination] = y * scale if total is None else torch.addcmul(total, y, scale)
            else:
                sums[destination] = y if total is None else total + y


class Cell(nn.Module):
    """Input states in, one tensor out: the output nodes' states along channels, (N, C * outputs, H', W').

    `num_outputs` counts the output nodes that have an edge; the others are left out (FairDARTS may keep none for a node).
    """

    def __init__(self, spec: CellSpec, present: Mask, channels: int, norm: Normalisation):
        super().__init__()
        self.spec = spec
        self.mixed = MixedEdges(spec, present, channels, norm)
        reached = {d for (_, d), row in zip(spec.edges, present) if any(row)}
        self.outputs = [n for n in spec.outputs if n in reached or n < spec.num_inputs]
        if not self.outputs:
            raise ValueError("a cell needs at least one output node with an edge; this genotype has none")

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def forward(self, inputs: Sequence[Tensor], scales: Scales | None = None, active: Mask | None = None,
                drop_path_prob: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """inputs: each (N, C, H, W). scales, active: [E][O] of this cell; None for ones and for all."""
        x, spec, drop = inputs[0], self.spec, None
        if drop_path_prob > 0 and self.training:
            if generator is None:
                raise ValueError("drop path draws at every forward: the network must be called with generator=")
            drop = drop_path_masks(len(spec.edges), x.shape[0], drop_path_prob, generator, x)
        states, sums = list(inputs), {}
        for node in range(spec.num_inputs + spec.num_nodes):
            if node >= spec.num_inputs:
                states.append(sums.pop(node) if node in sums else self._zeros(x))
            self.mixed.leave(node, states[node], sums, scales, active, drop, generator)
        return torch.cat([states[n] for n in self.outputs], 1)

    def _zeros(self, x: Tensor) -> Tensor:
        """The state of a node that no running op reaches."""
        stride = self.spec.stride
        return torch.zeros_like(x[:, :, ::stride, ::stride])


def edge_names(spec: CellSpec) -> list[str]:
    """`source-destination` for each edge; the second of parallel edges gets `_1`, and so on."""
    names: list[str] = []
    for source, destination in spec.edges:
        name = f"{source}-{destination}"
        copies = sum(n.split("_")[0] == name for n in names)
        names.append(f"{name}_{copies}" if copies else name)
    return names
