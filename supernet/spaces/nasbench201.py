"""The cell space of NAS-Bench-201 (Dong & Yang 2020, Sec. 2.1), also called the topology space of NATS-Bench: 15,625 cells."""

from collections.abc import Sequence
from typing import Any

from supernet.genotype import Edge, Genotype
from supernet.space import Candidates, CellSpec, Space

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NODES = 4  # of the benchmark's cell: one input and three computed


def make() -> Space:
    """Nodes 0 (the input) to 3 (the output); every edge is kept and holds one of five ops, `none` among them."""
    return complete_cells("nasbench201", {}, NODES, OPS)


def complete_cells(name: str, arguments: dict[str, Any], nodes: int, ops: Sequence[str]) -> Space:
    """Cells of one input whose nodes all see every earlier one; the last node is the output."""
    spec = CellSpec.full(num_inputs=1, num_nodes=nodes - 1, ops=ops, outputs=(nodes - 1,), keep=None)
    return Space(name, arguments, {"cell": spec}, build, canonicalise, auxiliary_head=False)


def build(space: Space, candidates: Candidates, **sizes: Any) -> Any:
    """The benchmark's skeleton; `sizes` are those of `supernet.networks.residual.ResidualCellNetwork`."""
    from supernet.networks.residual import ResidualCellNetwork

    ((kind, spec),) = space.cells.items()
    return ResidualCellNetwork(kind, spec, candidates[kind], **sizes)


def canonicalise(space: Space, genotype: Genotype) -> Genotype:
    """Of all cells with the same `expression` the first in the order of `space.enumerate()`."""
    return _representatives(space.fingerprint, space)[expression(space, genotype)]


def expression(space: Space, genotype: Genotype) -> str:
    """The output of a one-input cell as an expression in its input `x`: cells with equal expressions compute the same function.

    The benchmark's definition (Sec. 2.1; `to_unique_str` of the official code with zeros considered), by which the 15,625 cells form
    6,466 classes: `none`, and any op on a lone zero, is `#`; `skip_connect` is its source's expression; terms of a sum are
    sorted. Sums inside sums are not merged and `#+#` is not simplified; doing both would leave 4,930 classes.
    """
    ((kind, spec),) = space.cells.items()
    states = ["x"]
    for node in spec.nodes:
        states.append("+".join(sorted(_term(edge, states[edge.source]) for edge in genotype[kind] if edge.destination == node)) or "#")
    return states[spec.outputs[0]]


def _term(edge: Edge, state: str) -> str:
    if edge.op == "none" or state == "#":
        return "#"
    return state if edge.op == "skip_connect" else f"({state})@{edge.op}"


_REPRESENTATIVES: dict[str, dict[str, Genotype]] = {}  # by a space's fingerprint, made once: the first genotype of each expression


def _representatives(fingerprint: str, space: Space) -> dict[str, Genotype]:
    if fingerprint not in _REPRESENTATIVES:
        classes: dict[str, Genotype] = {}
        for genotype in space.enumerate():
            classes.setdefault(expression(space, genotype), genotype)
        _REPRESENTATIVES[fingerprint] = classes
    return _REPRESENTATIVES[fingerprint]
