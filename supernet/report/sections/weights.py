"""The weights of the ops over a search: heat maps and cells that follow a slider, and a chart an edge."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from supernet.genotype import Genotype
from supernet.report import page
from supernet.report.alphas import AlphaTable, alpha_tables
from supernet.report.curves import thinned
from supernet.report.document import Drawn, Missing, drawing
from supernet.report.frames import frame
from supernet.report.names import edge_labels, lowered, op_colours, op_family, op_label
from supernet.report.run_files import UNEXPECTED, RunFiles

MAX_NUMBERS = 250_000  # of all tables together, about 6 bytes each
MAX_SNAPSHOTS = 120
MAX_EDGES = 120        # of a kind of cell
DIGITS = 4             # decimals


def shown(run: RunFiles) -> Drawn | None:
    if run.learned_nothing:
        return None
    tables = alpha_tables(run)
    try:
        found = changes(run.genotypes)
    except (Missing, *UNEXPECTED):
        found = []  # the weights are worth a look without
    epochs = next(iter(tables.values())).epochs
    outputs = run.quietly("genotype.json").get("outputs")
    keep = snapshots(epochs, sum(table.weights[0].size for table in tables.values()))
    data = {"epochs": [round(float(epochs[i]), 3) for i in keep], "genotypes": [[n, g.digest] for n, g in found],
            "kinds": [_kind(kind, table, keep, found, outputs) for kind, table in tables.items()]}
    note = ("Mean weight of each op on each edge. In the cell, an edge is as thick as its strongest op's weight and has that op's colour; "
            "solid: kept by the genotype of the epoch that was finished last.")
    notes = [note, *(f"Damaged: {line.replace(str(run.path), run.path.name)}." for line in run.passed_over)]
    said = "".join(page.paragraph(each, soft=True) for each in notes)
    return Drawn(said + drawing("weights", label="weights of the ops, by epoch"), {"weights": data})


def changes(genotypes: Sequence[tuple[int, Genotype]]) -> list[tuple[int, Genotype]]:
    """Those that are other than the one before."""
    return [one for n, one in enumerate(genotypes) if n == 0 or one[1] != genotypes[n - 1][1]]


def snapshots(epochs: np.ndarray, size: int) -> list[int]:
    """Those that are shown: the whole epochs, as far as they are few, and others evenly between; the first and the last always."""
    most = int(max(10, min(MAX_SNAPSHOTS, MAX_NUMBERS // max(1, size))))
    if len(epochs) <= most:
        return list(range(len(epochs)))
    whole = [n for n, epoch in enumerate(epochs) if abs(epoch - round(epoch)) < 1e-6]
    if len(whole) > most - 2:
        whole = [whole[i] for i in thinned(len(whole), most - 2)]
    kept = {0, len(epochs) - 1, *whole}
    free = [n for n in range(len(epochs)) if n not in kept]
    room = most - len(kept)
    return sorted(kept | ({free[i] for i in thinned(len(free), room)} if room > 0 else set()))


def _kind(kind: str, table: AlphaTable, keep: Sequence[int], genotypes: Sequence[tuple[int, Genotype]], outputs: Any) -> dict[str, Any]:
    num = min(len(table.edges), MAX_EDGES)
    edges = table.edges[:num]
    inputs = min((d for _, d in table.edges), default=0)
    weights = table.weights[keep][:, :num].round(DIGITS)
    strengths = table.strengths[keep][:, :num].round(DIGITS)
    about = []
    if len(table.edges) > num:
        about.append(f"the first {num} of {len(table.edges)} edges")
    if table.cells > 1:
        about.append(f"mean over {table.cells} cells")
    return frame(kind, edges, outputs=outputs, num_inputs=inputs) | {
        "note": ", ".join(about), "labels": [lowered(label) for label in edge_labels(table.edges, inputs, kind)[:num]],
        "ops": [op_label(op) for op in table.ops], "families": [op_family(op) for op in table.ops],
        "colours": list(op_colours(table.ops).values()), "weights": weights.tolist(),
        "strengths": None if (strengths == 1).all() else strengths.tolist(),
        "kept": [kept(g, kind, edges, table.ops) for _, g in genotypes]}


def kept(genotype: Genotype, kind: str, edges: Sequence[tuple[int, int]], ops: Sequence[str]) -> list[list[int]]:
    """(edge, op) of what a genotype keeps; of several edges that join the same nodes, in their order."""
    places: dict[tuple[int, int], list[int]] = {}
    for n, edge in enumerate(edges):
        places.setdefault(edge, []).append(n)
    found = []
    for edge in dict(genotype.cells).get(kind, ()):
        free = places.get((edge.source, edge.destination))
        if free and edge.op in ops:
            found.append([free.pop(0), ops.index(edge.op)])
    return found
