"""What scripts need to know of a kind of cell to draw it: its nodes by name, its inputs, and what leads to its output."""

from collections.abc import Mapping, Sequence
from typing import Any

from supernet.genotype import Genotype
from supernet.report.names import NAMINGS, Naming, node_name, op_family, op_label, plain

Pair = tuple[int, int]  # source, destination


def frame(kind: str, edges: Sequence[Pair], *, outputs: Any = None, num_inputs: int | None = None) -> dict[str, Any]:
    """outputs: what genotype.json says of it, by kind, as far as it is that; of a kind not told, as `draw.drawn_outputs` has it."""
    inputs = min((d for _, d in edges), default=0) if num_inputs is None else num_inputs
    last = max((max(pair) for pair in edges), default=0)
    naming = NAMINGS.get(kind, Naming())
    known = outputs.get(kind) if isinstance(outputs, Mapping) else None
    return {"kind": plain(kind), "edges": [list(edge) for edge in edges], "inputs": inputs,
            "chain": list(edges) == [(n, n + 1) for n in range(len(edges))] and kind not in NAMINGS,
            "outputs": _outputs(kind, edges, inputs, last, known), "fed": list(naming.fed), "output": naming.output,
            "nodes": [naming.name(n, inputs) if naming.fed else node_name(n, inputs) for n in range(last + 1)]}


def cell_frames(genotype: Genotype, *, outputs: Any = None) -> list[dict[str, Any]]:
    """Of every kind of cell of a genotype; `ops` and `families` of its edges beside."""
    return [frame(kind, [(e.source, e.destination) for e in edges], outputs=outputs)
            | {"ops": [op_label(e.op) for e in edges], "families": [op_family(e.op) for e in edges]} for kind, edges in genotype.cells]


def _outputs(kind: str, edges: Sequence[Pair], inputs: int, last: int, known: Any) -> list[int]:
    if type(known) is list:
        return [n for n in known if type(n) is int and 0 <= n <= last]
    if kind in NAMINGS or inputs > 1:
        return list(range(inputs, last + 1))
    sources = {s for s, _ in edges}
    ends = [n for n in range(inputs, last + 1) if n not in sources]
    return ends if len(ends) == 1 else list(range(inputs, last + 1))
