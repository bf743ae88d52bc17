"""Edges by a threshold (FairDARTS, Chu et al. 2020, Sec. 4.2)."""

from supernet.genotype import Edge, Genotype
from supernet.ranges import Share, ranged
from supernet.space import Space
from supernet.weights import EdgeWeights, check_shapes


@ranged
def threshold(space: Space, weights: EdgeWeights, *, value: Share = 0.85) -> Genotype:
    """Each node keeps, of its strongest edges as many as the space allows, those whose strongest op weighs `value` or more; where
    these are fewer than the space asks for, the strongest of the others. An edge is as strong as its strongest op times its own weight,
    where edges have one (as `argmax`). Of equals the first win.

    For cells that may lose edges the space must allow it: space.edges_per_node=[0,2] as published. Raises ValueError: no such threshold.
    """
    check_shapes(space, weights)
    cells = {}
    for kind, spec in space.cells.items():
        ops = weights[kind].ops.detach().double()
        table = (ops.mean(0) if ops.dim() == 3 else ops).tolist()
        edges = [1.0] * len(table) if weights[kind].edges is None else weights[kind].edges.tolist()
        best = [max((row[o], -o) for o in range(len(row)) if spec.selectable[e][o]) for e, row in enumerate(table)]
        cells[kind] = []
        for i, node in enumerate(spec.nodes):
            low, high = spec.keep[i]
            strongest = sorted(spec.incoming(node), key=lambda e: -best[e][0] * edges[e])[:high]
            kept = [e for n, e in enumerate(strongest) if n < low or best[e][0] >= value]
            cells[kind] += [Edge(node, spec.edges[e][0], spec.ops[-best[e][1]]) for e in kept]
    return space.genotype(cells)
