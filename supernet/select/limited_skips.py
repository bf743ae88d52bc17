"""At most so many skip connections (P-DARTS, Chen et al. 2019, Sec. 3.3)."""

from collections.abc import Sequence

from supernet.genotype import Genotype
from supernet.ranges import Whole, ranged
from supernet.select.argmax import argmax, strongest
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
        limited = replaced(weights, lambda kind, w: {"ops": tables[kind]})
        kept = strongest(space, limited)
        skips = {kind: [(e, o) for e, o in kept[kind] if space.op(space.cells[kind].ops[o]).is_skip] for kind in kinds}
        over = [kind for kind in kinds if len(skips[kind]) > most]
        if not over:
            return argmax(space, limited)
        for kind in over:
            strength = {(e, o): tables[kind][..., e, o].mean().item() for e, o in skips[kind]}
            left = [entry for entry in skips[kind] if strength[entry] >= 0]
            if not left:
                edges = ", ".join(str(space.cells[kind].edges[e]) for e, _ in skips[kind])
                raise ValueError(f"edges {edges} of {kind!r} have no candidate but a skip connection; at most {most} may stand")
            e, o = min(left, key=strength.__getitem__)
            tables[kind][..., e, o] = -1.0
