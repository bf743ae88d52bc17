"""On which edges and ops several searches of one space agree. Plain values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from supernet.genotype import Genotype
from supernet.report.effects import Place, places
from supernet.report.names import edge_labels
from supernet.space import Space


@dataclass(frozen=True)
class Shared:
    """A kept edge of the explained architecture: how many of the runs, itself among them, keep an edge there, and one with this op."""

    place: Place
    edge: int
    op: int


@dataclass(frozen=True)
class Elsewhere:
    """An edge that other runs keep and the explained architecture does not: how many do, and their commonest op with its count."""

    kind: str
    label: str
    runs: int
    op: str
    with_op: int


@dataclass(frozen=True)
class Agreement:
    """names: of the runs, the explained one first. distinct: how many different architectures they found. every_edge: whether the space
    keeps all edges, so that only ops can differ."""

    names: tuple[str, ...]
    distinct: int
    every_edge: bool
    shared: tuple[Shared, ...]
    elsewhere: tuple[Elsewhere, ...]


def agreement(space: Space, genotypes: Sequence[Genotype], names: Sequence[str]) -> Agreement:
    """Of at least two architectures of the space, the explained one first. Raises GenotypeError: one is of another space."""
    for genotype in genotypes:
        space.validate(genotype)
    own = genotypes[0]
    edges = Counter(pair for g in genotypes for pair in {(kind, e.source, e.destination) for kind, kept in g.cells for e in kept})
    ops = Counter(one for g in genotypes for one in {(kind, e) for kind, kept in g.cells for e in kept})
    shared = tuple(Shared(p, edges[p.kind, p.edge.source, p.edge.destination], ops[p.kind, p.edge]) for p in places(space, own))
    here = {(p.kind, p.edge.source, p.edge.destination) for p in places(space, own)}
    elsewhere = []
    for kind, spec in sorted(space.cells.items()):
        for pair, label in dict(zip(spec.edges, edge_labels(spec.edges, spec.num_inputs, kind))).items():
            if (kind, *pair) not in here and (runs := edges[(kind, *pair)]):
                op, count = max(((e.op, n) for (k, e), n in ops.items() if k == kind and (e.source, e.destination) == pair),
                                key=lambda found: (found[1], found[0]))
                elsewhere.append(Elsewhere(kind, label, runs, op, count))
    every = all(spec.keep[i][0] >= len(spec.incoming(node)) for spec in space.cells.values() for i, node in enumerate(spec.nodes))
    return Agreement(tuple(names), len(set(genotypes)), every, shared, tuple(sorted(elsewhere, key=lambda found: -found.runs)))
