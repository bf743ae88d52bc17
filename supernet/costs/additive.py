"""Costs that are sums over edges, counted op by op on one supernet."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ops.kernels import on_plain_path
from supernet.costs.base import FINAL, QUANTITIES, Cost, CostError
from supernet.genotype import Genotype
from supernet.networks.cell import MixedEdges
from supernet.networks.measure import multiply_adds_of, parameters
from supernet.ranges import Channels, Layers, ranged
from supernet.space import CellSpec, Space
from supernet.weights import EdgeWeights, check_shapes


class Additive:
    """`constant` plus, for each kept edge, the entry of its op in `tables[kind]` (E, O), which counts every cell of the kind."""

    def __init__(self, space: Space, name: str, unit: str, constant: float, tables: Mapping[str, np.ndarray]):
        self.space, self.name, self.unit, self.constant = space, name, unit, constant
        self.tables = {kind: np.asarray(table, np.float64) for kind, table in tables.items()}

    def __call__(self, genotype: Genotype) -> float:
        entries = ((kind, entry) for kind, spec in self.space.cells.items() for entry in spec.rows(genotype[kind]))
        return self.constant + sum(self.tables[kind][entry] for kind, entry in entries)

    def expected(self, weights: EdgeWeights) -> Tensor:
        """Linear in the weights of the ops. A node keeps `keep` of its edges: an edge counts with the probability that it is kept, its
        share of the node's total weight times `keep`. (Summing all edges would overstate a DARTS cell, which keeps 8 of 14.) The
        shares are constants; where edge weights are given they are these. The cost itself at one-hot weights."""
        check_shapes(self.space, weights)
        total: Any = self.constant
        for kind, spec in self.space.cells.items():
            w = weights[kind]
            ops = w.ops.mean(0) if w.ops.dim() == 3 else w.ops
            cost = (ops * torch.as_tensor(self.tables[kind], dtype=ops.dtype, device=ops.device)).sum(1)
            total = total + (_kept(spec, w.edges, ops) * cost).sum()
        return total

    def least(self) -> float:
        total = self.constant
        for kind, spec in self.space.cells.items():
            selectable = np.array(spec.selectable)
            cheapest = np.where(selectable, self.tables[kind], np.inf).min(1)
            total += sum(sum(sorted(cheapest[spec.incoming(node)])[: low]) for node, (low, _) in zip(spec.nodes, spec.keep))
        return float(total)


def _kept(spec: CellSpec, edges: Tensor | None, ops: Tensor) -> Tensor:
    """(E,): how much each edge counts, so that the edges into a node count as many as it keeps."""
    mass = ops.detach().sum(1)
    factor = torch.ones_like(mass)
    for i, node in enumerate(spec.nodes):
        rows, (low, high) = spec.incoming(node), spec.keep[i]
        own = mass[rows] if edges is None else edges[rows].detach() * mass[rows]
        wanted = own.sum().clamp(low, high)  # where the number may vary, as many as the weights say
        share = wanted * own / own.sum().clamp(min=1e-12)
        factor[rows] = share / mass[rows].clamp(min=1e-12)
    return factor


def additive(space: Space, quantity: str, *, check: int = 2, **sizes: Any) -> Additive:
    """`parameters`, or `multiply_adds` of one image, of final networks of a cell space. `sizes` are those of the space's network.

    Counted on one supernet: each op's own parameters and convolutions, and all that is left as the constant. `check` architectures are
    built and counted on their own. Raises CostError: they differ, so that costs in this space are no sums over edges.
    """
    image = (sizes.get("in_channels", 3), *sizes.get("image_size", (32, 32)))

    def total(net: nn.Module) -> int:
        p = next(net.parameters())
        return parameters(net) if quantity == "parameters" else multiply_adds_of(net, torch.zeros(1, *image, device=p.device))

    with torch.random.fork_rng(devices=[]):
        net = space.network(space.candidates(), norm=FINAL, **sizes).eval()
        tables = {kind: np.zeros((len(spec.edges), len(spec.ops))) for kind, spec in space.cells.items()}
        macs = _convolutions(net, image) if quantity == "multiply_adds" else {}
        for kind, mixed in mixtures(net, space):
            for bundle in mixed.bundles.values():
                for e, o, _, op in bundle:
                    own = sum(p.numel() for p in op.parameters()) if not macs else sum(macs.get(m, 0) for m in op.modules())
                    tables[kind][e, o] += own
        cost = Additive(space, quantity, "parameters" if quantity == "parameters" else "multiply-adds an image",
                        total(net) - sum(table.sum() for table in tables.values()), tables)
        for genotype in some(space, check):
            alone = total(space.network(space.candidates(genotype), norm=FINAL, **sizes))
            if alone != cost(genotype):
                raise CostError(f"{quantity} in space {space.name} are no sums over edges: {alone} counted, {cost(genotype):.0f} summed")
    return cost


@ranged
def counted(space: Space, quantity: str, *, layers: Layers | None = None, channels: Channels | None = None,
            **sizes: Any) -> Cost:
    """`parameters`, or `multiply_adds` of one image (one item of a text), of final networks. `layers`, `channels` and `sizes` are those of
    the space's network; what the space decides itself, as a chain its layers, is not asked. Raises CostError: no such quantity, or no way
    to count in this space."""
    if quantity not in QUANTITIES:
        raise CostError(f"a counted cost is {' or '.join(QUANTITIES)}, got {quantity!r}")
    count = additive if space.costs is None else space.costs
    return count(space, quantity, **(asked(layers, channels) | sizes | dict(space.sizes)))


def asked(layers: int | None, channels: int | None) -> dict[str, int]:
    """The sizes that were given."""
    return {name: size for name, size in (("layers", layers), ("channels", channels)) if size is not None}


def some(space: Space, n: int) -> list[Genotype]:
    import random

    rng = random.Random(0)
    return [space.sample(rng) for _ in range(n)]


def mixtures(net: nn.Module, space: Space) -> list[tuple[str, MixedEdges]]:
    """A network's bundles of edges with the kinds of their cells. Raises CostError: it is no stack of cells."""
    mixed = [m for m in net.modules() if type(m) is MixedEdges]
    kinds = list(getattr(net, "kinds", ()))
    if not mixed or len(kinds) != len(mixed):
        raise CostError(f"space {space.name} stacks no cells: its costs are no sums over edges")
    return list(zip(kinds, mixed))


def _convolutions(net: nn.Module, image: tuple[int, int, int]) -> dict[nn.Module, int]:
    """Multiply-adds of each convolution for one image."""
    found: dict[nn.Module, int] = {}

    def count(module: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        found[module] = found.get(module, 0) + output.numel() * module.weight[0].numel()

    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d)]
    p = next(net.parameters())
    try:
        with torch.no_grad(), on_plain_path():
            net(torch.zeros(1, *image, device=p.device), generator=torch.Generator(p.device))
    finally:
        for handle in handles:
            handle.remove()
    return found
