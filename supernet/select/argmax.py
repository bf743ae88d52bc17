"""The published rule of discretisation (DARTS, Sec. 2.4): the strongest op of each edge, the strongest edges of each node."""

from supernet.genotype import Edge, Genotype
from supernet.space import Space
from supernet.weights import EdgeWeights, check_shapes


def argmax(space: Space, weights: EdgeWeights) -> Genotype:
    """Each node keeps as many edges as the space allows (two in DARTS), those with the largest weight of a selectable op, and
    on each that op. `none` takes part in the softmax but is never selectable. Of equals the first edge and the first op win.
    """
    kept = strongest(space, weights)
    return space.genotype({kind: [Edge(spec.edges[e][1], spec.edges[e][0], spec.ops[o]) for e, o in kept[kind]]
                           for kind, spec in space.cells.items()})


def strongest(space: Space, weights: EdgeWeights) -> dict[str, list[tuple[int, int]]]:
    """By kind, the table entries (e, o) that `argmax` keeps, node by node."""
    check_shapes(space, weights)
    found: dict[str, list[tuple[int, int]]] = {}
    for kind, spec in space.cells.items():
        w = weights[kind]
        table = w.ops.detach().double()
        table = (table.mean(0) if table.dim() == 3 else table).tolist()
        edge_weights = [1.0] * len(spec.edges) if w.edges is None else w.edges.detach().double().tolist()
        best = []  # by edge: (strength, column of its op)
        for e, row in enumerate(table):
            allowed = [o for o in range(len(spec.ops)) if spec.selectable[e][o]]
            o = max(allowed, key=lambda o: row[o])
            best.append((row[o] * edge_weights[e], o))
        found[kind] = [(e, best[e][1]) for i, node in enumerate(spec.nodes)
                       for e in sorted(spec.incoming(node), key=lambda e: -best[e][0])[: spec.keep[i][1]]]
    return found
