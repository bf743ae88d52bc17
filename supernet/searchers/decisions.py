"""An architecture as the decisions that lead to it, one after the other: what a policy, or a model of independent parameters, chooses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from supernet.errors import UsageError
from supernet.genotype import Edge, Genotype
from supernet.space import Space

Key = tuple[str, int, str]  # what is decided about: kind of cell, edge or node, in a word
Choose = Callable[[Key, int, tuple[int, ...]], int]


@dataclass(frozen=True)
class Decision:
    """One of `allowed` of the `size` values that a decision of this key may have at all; `taken` is which."""

    key: Key
    size: int
    allowed: tuple[int, ...]
    taken: int


def check_decidable(space: Space, searcher: str) -> None:
    """Raises UsageError: an edge of the space may hold several ops."""
    for kind, spec in space.cells.items():
        if spec.ops_per_edge > 1 or len(set(spec.edges)) < len(spec.edges):
            raise UsageError(f"searcher={searcher} decides about one op of each edge, and cell {kind!r} of space {space.name} may hold "
                             "several between two nodes")


def decided(space: Space, choose: Choose) -> Genotype:
    """The architecture that `choose(key, size, allowed)` leads to, asked for each decision in order."""
    cells = {kind: [] for kind in space.cells}
    for kind in space.cells:
        walk = _walk(space, kind)
        step = next(walk, None)
        while step is not None:
            if type(step) is Edge:
                cells[kind].append(step)
                step = next(walk, None)
            else:
                step = walk.send(choose(*step))
    return space.genotype(cells)


def decisions(space: Space, genotype: Genotype) -> list[Decision]:
    """Those that lead to an architecture; each of the space's has one such list."""
    found = []
    for kind, spec in space.cells.items():
        walk, kept = _walk(space, kind), list(genotype[kind])
        answer: dict[str, Callable[[int], int]] = {
            "count": lambda node: sum(e.destination == node for e in kept) - spec.keep[node - spec.num_inputs][0],
            "source": lambda node: spec.incoming(node).index(_row(spec.edges, _next(kept, node))),
            "op": lambda e: spec.ops.index(_next(kept, spec.edges[e][1]).op)}
        step = next(walk, None)
        while step is not None:
            if type(step) is Edge:
                kept.remove(step)
                step = next(walk, None)
            else:
                key, size, allowed = step
                taken = answer[key[2]](key[1])
                found.append(Decision(key, size, allowed, taken))
                step = walk.send(taken)
    return found


def _walk(space: Space, kind: str) -> Iterator[Edge | tuple[Key, int, tuple[int, ...]]]:
    """The decisions about one cell in their order: `(key, size, allowed)`, to which one of the allowed is sent, and the edges that follow
    from them. Between them nothing is drawn."""
    spec = space.cells[kind]
    for i, node in enumerate(spec.nodes):
        rows, (low, high) = spec.incoming(node), spec.keep[i]
        count = low
        if low < high:
            count = low + (yield (kind, node, "count"), high - low + 1, tuple(range(high - low + 1)))
        first = 0
        for left in range(count, 0, -1):
            allowed = tuple(range(first, len(rows) - left + 1))
            place = allowed[0] if len(allowed) == 1 else (yield (kind, node, "source"), len(rows), allowed)
            e, first = rows[place], place + 1
            ops = tuple(o for o, ok in enumerate(spec.selectable[e]) if ok)
            op = ops[0] if len(ops) == 1 else (yield (kind, e, "op"), len(spec.ops), ops)
            source, destination = spec.edges[e]
            yield Edge(destination, source, spec.ops[op])


def _next(kept: list[Edge], node: int) -> Edge:
    return min(e for e in kept if e.destination == node)


def _row(edges: tuple[tuple[int, int], ...], edge: Edge) -> int:
    return edges.index((edge.source, edge.destination))
