"""Parameters and multiply-adds of the networks of a chain, as polynomials in the weights of its decisions.

A layer's cost is a table over the few decisions it depends on, the width of the layer before among them, so that the expected cost
is exact and differentiable: each term is linear in each decision's weights (ProxylessNAS, Cai et al. 2019, eq. 7 and FBNet, Wu et al.
2019, eq. 5 are the case of one decision a layer).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.op import Normalisation
from supernet.costs.elimination import least
from supernet.genotype import Edge, Genotype
from supernet.networks.chain import LayerCosts
from supernet.space import Space
from supernet.weights import EdgeWeights, check_shapes

QUANTITIES = ("parameters", "multiply_adds")


class Term(NamedTuple):
    """A cost that depends on the decisions `rows`, each a (kind, edge): `table` has an axis of length O for each, in that order, with 0
    where a choice does not exist."""

    rows: tuple[tuple[str, int], ...]
    table: Tensor


class ChainCost:
    """A sum of terms: `cost(genotype)` of one network, `cost.expected(weights)` of the distribution that the weights describe."""

    def __init__(self, space: Space, terms: Sequence[Term], name: str, item: str = "image"):
        self.space, self.terms, self.name = space, tuple(terms), name
        self.unit = f"multiply-adds an {item}" if name == "multiply_adds" else name

    def __call__(self, genotype: Genotype) -> float:
        self.space.validate(genotype)
        chosen = {(kind, e): o for kind, spec in self.space.cells.items() for e, o in spec.rows(genotype[kind])}
        return sum(term.table[tuple(chosen[row] for row in term.rows)].item() for term in self.terms)

    def least(self) -> float:
        """What the cheapest architecture costs; where the decisions hang together too much for that, a bound: each term alone at its
        least."""
        found = self.extreme(1)
        return sum(term.table.min().item() for term in self.terms) if found is None else self(found)

    def extreme(self, sign: int) -> Genotype | None:
        """The architecture of the least cost (sign 1), or of the most (-1); of equals the one of the first choices. None: as `least` of
        `costs.elimination`."""
        allowed = {(kind, e): row for kind, spec in self.space.cells.items() for e, row in enumerate(spec.selectable)}
        found = least([(term.rows, sign * term.table.numpy()) for term in self.terms], allowed)
        if found is None:
            return None
        return self.space.genotype({kind: [Edge(d, s, spec.ops[found[1][kind, e]]) for e, (s, d) in enumerate(spec.edges)]
                                    for kind, spec in self.space.cells.items()})

    def expected(self, weights: EdgeWeights) -> Tensor:
        """A scalar, differentiable. Exact where decisions are drawn independently with the weights as probabilities, each edge's
        weights summing to 1; the network's own cost at one-hot weights."""
        check_shapes(self.space, weights)
        scales = {kind: w.ops if w.edges is None else w.ops * w.edges[:, None] for kind, w in weights.items()}
        total = next(iter(scales.values())).new_zeros(())
        for term in self.terms:
            part = term.table.to(total)
            for kind, e in term.rows:
                part = torch.tensordot(scales[kind][e], part, 1)
            total = total + part
        return total


def chain_costs(space: Space, *, layers: int, channels: int, norm: Normalisation | None = None, **sizes: Any) -> dict[str, ChainCost]:
    """The costs of final networks, by name (QUANTITIES). `sizes`, of the data and others, are those of the space's network; norm: affine
    unless given.

    Raises ValueError for a space that is not a chain.
    """
    by_layer = layer_costs(space, layers=layers, channels=channels, norm=norm, **sizes)
    item, _ = read_by(sizes)
    return {name: ChainCost(space, [terms[name] for terms in by_layer], name, item) for name in QUANTITIES}


def layer_costs(space: Space, *, layers: int, channels: int, norm: Normalisation | None = None, **sizes: Any) -> list[dict[str, Term]]:
    """By part of the network, in order: the stem, each layer, then the head with the classifier; each {"parameters": its Term,
    "multiply_adds": its Term} of one image, or of one item of a text."""
    if not all(spec.is_chain for spec in space.cells.values()):
        raise ValueError(f"chain costs need a space whose kinds are all chains, got {space.name!r}")
    norm = Normalisation(affine=True, after_pools=False) if norm is None else norm
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # the initial values do not matter, and nobody's draws are disturbed
        net = space.network(space.candidates(), norm=norm, layers=layers, channels=channels, **sizes).eval()
        return [_terms(space, edges, costs) for edges, costs in net.costs(read_by(sizes)[1])]


def read_by(sizes: Mapping[str, Any]) -> tuple[str, Tensor]:
    """What a network of these sizes reads: its name, and one of them. The data set's sizes tell texts, which have a vocabulary, from
    images."""
    if "vocabulary" in sizes:
        return "item", torch.zeros(1, 1, dtype=torch.int64)
    return "image", torch.zeros(1, sizes.get("in_channels", 3), *sizes.get("image_size", (32, 32)))


def _terms(space: Space, edges: dict[str, int], costs: LayerCosts) -> dict[str, Term]:
    """As tables over the choices of the space. edges: by kind, as `LayerCosts` tells them apart, the row of each decision."""
    rows = tuple((kind.partition("#")[0], edges[kind]) for kind in costs.kinds)
    shape = tuple(len(space.cells[kind].ops) for kind, _ in rows)
    tables = torch.zeros(len(QUANTITIES), *shape, dtype=torch.float64)
    for choices, values in costs.of.items():
        place = tuple(space.cells[kind].ops.index(name) for (kind, _), name in zip(rows, choices))
        tables[(slice(None), *place)] = torch.tensor(values, dtype=torch.float64)
    return {name: Term(rows, table) for name, table in zip(QUANTITIES, tables)}
