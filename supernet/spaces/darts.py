"""The DARTS cell space (Liu et al. 2019, Sec. 2.1 and 3.1.1): normal and reduction cells of two inputs, stacked."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from supernet.genotype import short
from supernet.ranges import Count, Range, Whole, ranged
from supernet.space import Candidates, CellSpec, Space

OPS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
MAX_NODES = 32  # a genotype file says how many: a bound, so that it cannot ask for a space that never ends
Nodes = Annotated[int, Range(1, MAX_NODES)]
Parallel = Annotated[int, Range(1, 16)]


@ranged
def make(*, nodes: Nodes = 4, ops: Sequence[str] = OPS, edges_per_node: Count | Sequence[Whole] | None = 2,
         concat: Mapping[str, Sequence[Whole]] | None = None, none_selectable: bool = False, parallel: Parallel = 1,
         ops_per_edge: Parallel = 1) -> Space:
    """The space of cells with `nodes` intermediate nodes; nodes 0 and 1 are the outputs of the two cells before.

    edges_per_node: how many incoming edges a genotype keeps at a node, [fewest, most] where that may vary, None for all.
    concat: the nodes that each kind of cell concatenates; all intermediate ones unless given.
    none_selectable: whether a genotype may hold `none` (never in DARTS; SNAS's cells do).
    parallel: how many edges may join the same two nodes (two in NASNet's cells), each with candidates and alphas of its own.
    ops_per_edge: how many ops of one edge a genotype may hold (two in the official code of GDAS), each counting as an edge that is kept.
    """
    if ops_per_edge > 1 and parallel > 1:
        raise ValueError(f"space.ops_per_edge must be 1 where space.parallel is above 1, got {ops_per_edge} with space.parallel={parallel}")
    keep = (edges_per_node, edges_per_node) if type(edges_per_node) is int else edges_per_node
    if keep is not None and not (len(keep) == 2 and 0 <= keep[0] <= keep[1] and keep[1] >= 1):
        raise ValueError(f"space.edges_per_node must be a positive number, [fewest, most] or null, got {edges_per_node}")
    if not ops or len(set(ops)) != len(ops) or set(ops) == {"none"}:
        raise ValueError(f"space.ops must be distinct names, one of them not 'none', got {list(ops)}")
    unknown = sorted(set(concat or {}) - {"normal", "reduce"})
    if unknown:
        raise ValueError(f"space.concat has entries for the cells normal and reduce, got {short(unknown)}")
    outputs = {kind: tuple((concat or {}).get(kind, range(2, 2 + nodes))) for kind in ("normal", "reduce")}
    for kind, chosen in outputs.items():
        if not chosen or not set(chosen) <= set(range(2, 2 + nodes)):
            raise ValueError(f"space.concat of {kind!r} must name nodes 2 to {1 + nodes}, got {list(chosen)}")
    cells = {
        kind: CellSpec.full(num_inputs=2, num_nodes=nodes, ops=ops, outputs=outputs[kind], keep=None if keep is None else tuple(keep),
                            unselectable=() if none_selectable else ("none",), stride=stride, parallel=parallel,
                            ops_per_edge=ops_per_edge)
        for kind, stride in (("normal", 1), ("reduce", 2))
    }
    arguments = {"nodes": nodes, "ops": list(ops), "edges_per_node": None if keep is None else list(keep),
                 "concat": {kind: list(chosen) for kind, chosen in outputs.items()}, "none_selectable": none_selectable,
                 "parallel": parallel, **({"ops_per_edge": ops_per_edge} if ops_per_edge > 1 else {})}
    return Space("darts", arguments, cells, build)


def build(space: Space, candidates: Candidates, *, layers: int, **sizes: Any) -> Any:
    """Cells stacked, with reductions at 1/3 and 2/3 of the depth; `sizes` are those of `supernet.networks.stacked.CellNetwork`."""
    from supernet.networks.stacked import CellNetwork

    reductions = (layers // 3, 2 * layers // 3)
    kinds = ["reduce" if layer in reductions else "normal" for layer in range(layers)]
    return CellNetwork(space.cells, candidates, kinds=kinds, **sizes)
