"""At most so many skip connections (P-DARTS, Chen et al. 2019, Sec. 3.3)."""

from collections.abc import Sequence

from supernet.genotype import Genotype
from supernet.ranges import Whole, ranged
from supernet.select.argmax import argmax
from supernet.space import Space
from supernet.weights import EdgeWeights, replaced


@ranged
def limited_skips(space: Space, weights: EdgeWeights, *, most: Whole = 2, kinds: Sequence[str] = ("normal",)) -> Genotype:
    """`argmax`, and while a cell of `kinds` holds more than `most` skip connections, the weakest of them is taken out of its edge's
    candidates and the cell is selected again [official code]; an edge without another op comes after all others of its node. Raises
    ValueError where that does not help, and for other kinds than the space has."""
    if not kinds or not set(kinds) <= set(space.cells):
        raise ValueError(f"select.kinds must be among {', '.join(sorted(space.cells))} in space {space.name}, got {list(kinds)}")
    weights = weights.detach()
    tables = {kind: w.ops.clone() for kind, w in weights.items()}
    while True:
        genotype = argmax(space, replaced(weights, lambda kind, w: {"ops": tables[kind]}))
        over = [kind for kind in kinds if sum(e.op == "skip_connect" for e in genotype[kind]) > most]
        if not over:
            return genotype
        for kind in over:
            spec = space.cells[kind]
            o = spec.ops.index("skip_connect")
            rows = [spec.edges.index((e.source, e.destination)) for e in genotype[kind] if e.op == "skip_connect"]
            strength = {e: tables[kind][..., e, o].mean().item() for e in rows}
            left = [e for e in rows if strength[e] >= 0]
            if not left:
                edges = ", ".join(str(spec.edges[e]) for e in rows)
                raise ValueError(f"edges {edges} of {kind!r} have no candidate but a skip connection; at most {most} may stand")
            weakest = min(left, key=strength.__getitem__)
            tables[kind][..., weakest, o] = -1.0
