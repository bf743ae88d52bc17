"""The strongest ops of each node, of whichever edges (GDAS, Dong & Yang 2019, official code)."""

from supernet.genotype import Edge, Genotype
from supernet.space import Space
from supernet.weights import EdgeWeights, check_shapes


def strongest_pairs(space: Space, weights: EdgeWeights) -> Genotype:
    """All pairs of an edge into a node and a selectable op of it are ranked by the op's weight, times the edge's own where there is one.
    A node keeps as many of them as the space allows, so that two may be of one edge [official code, search_model_gdas_nasnet.py,
    genotype; the paper's text reads as DARTS' rule, `argmax`]. Of equals the first edge and the first op win.

    Raises ValueError for a space whose genotypes hold one op of an edge.
    """
    if any(spec.ops_per_edge == 1 for spec in space.cells.values()):
        raise ValueError("select=strongest_pairs needs a space whose genotypes may hold several ops of one edge, and those of "
                         f"{space.name} hold one: pass select=argmax, or for the cells of DARTS space=gdas")
    check_shapes(space, weights)
    cells = {}
    for kind, spec in space.cells.items():
        w = weights[kind]
        ops = w.ops.detach().double()
        table = ops.mean(0) if ops.dim() == 3 else ops
        table = (table if w.edges is None else table * w.edges.detach().double()[:, None]).tolist()
        cells[kind] = []
        for i, node in enumerate(spec.nodes):
            pairs = [(e, o) for e in spec.incoming(node) for o, allowed in enumerate(spec.selectable[e]) if allowed]
            taken: list[int] = []  # edges, one entry for each op
            for e, o in sorted(pairs, key=lambda pair: -table[pair[0]][pair[1]]):
                if len(taken) < spec.keep[i][1] and taken.count(e) < spec.ops_per_edge:
                    taken.append(e)
                    cells[kind].append(Edge(node, spec.edges[e][0], spec.ops[o]))
    return space.genotype(cells)
