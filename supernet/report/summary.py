"""What a run has found, as rows of text and as files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from supernet import notation
from supernet.costs.base import Cost
from supernet.genotype import Edge, Genotype
from supernet.report.names import NAMINGS, Naming, choice_label
from supernet.runs.folder import RunFolder, write_json
from supernet.space import CellSpec, Space
from supernet.tasks.base import Task
from supernet.tasks.classes import per_class


def size_text(layers: int, channels: int) -> str:
    return f"{layers} layer{'s' if layers != 1 else ''}, C={channels}"


def save_genotype(folder: RunFolder, genotype: Genotype, space: Space, retrain: str | None = None) -> None:
    """genotype.json, with what a drawing needs to know of the space, and the protocol that such cells are trained by where that is not the
    data set's own; and genotype.txt, the cell in a notation of the field."""
    folder.check_lock()
    folder.genotype_text.write_text(f"{notation.write(space, genotype)}\n", encoding="utf-8")
    genotype.save(folder.genotype, outputs={kind: list(spec.outputs) for kind, spec in sorted(space.cells.items())},
                  num_inputs={kind: spec.num_inputs for kind, spec in sorted(space.cells.items())},
                  **({} if retrain is None else {"retrain": retrain}))


def save_summary(folder: RunFolder, title: str, rows: list[tuple[str, str]], values: Mapping[str, Any],
                 tables: Mapping[str, Any] | None = None) -> None:
    """summary.json: the table for people, `values` for programs; `tables`, by name, of what is more than a number."""
    folder.check_lock()
    write_json(folder.summary, {"title": title, "rows": [list(row) for row in rows], "values": dict(values), **(tables or {})})


def cell_text(genotype: Genotype, space: Space) -> str:
    """The architecture as lines of text, named as in the drawing. Cells a node a line, `1 = skip_connect(c_{k-2}) + sep_conv_3x3(0)`;
    chains a decision a line and a column a layer."""
    chains = [kind for kind, _ in genotype.cells if space.cells[kind].is_chain]
    rows = [[kind, *(choice_label(e.op, kind) for e in genotype[kind])] for kind in chains]
    widths = [max(len(row[n]) for row in rows if n < len(row)) for n in range(max(map(len, rows), default=0))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]
    for kind, edges in genotype.cells:
        if kind not in chains:
            lines += _cell_lines(kind, edges, space.cells[kind])
    return "\n".join(lines)


def _cell_lines(kind: str, edges: Sequence[Edge], spec: CellSpec) -> list[str]:
    naming = NAMINGS.get(kind, Naming())
    name = [naming.name(n, spec.num_inputs) for n in range(spec.nodes.stop)]
    lines = [kind if kind.endswith("cell") else f"{kind} cell"]
    for n in spec.nodes:
        terms = [f"{e.op}({name[e.source]})" for e in edges if e.destination == n]
        lines.append(f"  {name[n]} = {' + '.join(terms) or 'nothing'}")
    outputs = ", ".join(name[n] for n in spec.outputs)
    return [*lines, f"  output = {outputs if len(spec.outputs) == 1 else f'{naming.joins} of {outputs}'}"]


def supernet_rows(task: Task, last: Mapping[str, Any] | None, val_items: int, item: str) -> list[tuple[str, str]]:
    """What the last epoch's record says of the supernet; `last` is None where nothing was trained."""
    if last is None:
        return [("supernet", "not trained")]
    name, value = task.rows(metrics(last, "val"))[0]
    return [(f"supernet validation {name}", f"{value} of {val_items} {item}s"),
            (f"supernet training {name}", task.rows(metrics(last, "train"))[0][1])]


def final_rows(task: Task, last: Mapping[str, Any], test: Mapping[str, float], tested: str, validated: str | None) -> list[tuple[str, str]]:
    """The test's result, and what the last epoch's record says. tested, validated: on what; None where nothing was held out."""
    (name, value), *others = task.rows(test)
    rows = [(f"test {name}", f"{value} of {tested}"), *((f"test {other}", text) for other, text in others),
            (f"training {name}", task.rows(metrics(last, "train"))[0][1])]
    return rows + ([] if validated is None else [(f"validation {name}", f"{task.rows(metrics(last, 'val'))[0][1]} of {validated}")])


def class_tables(sums: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """What the sums of a test say class by class, as plain values: `classes`, one column a list, in label order; `calibration`, a row for
    each bin of confidence that has items: its upper end, how many, the share of them that is right and their mean confidence, in percent.
    Empty where the task's items have no classes."""
    if "classes" not in sums:
        return {}
    table = {name: column.tolist() for name, column in per_class(sums["classes"]).items()}
    bins = [[(b + 1) / len(sums["calibration"]), int(count), 100 * right / count, 100 * confidence / count]
            for b, (count, right, confidence) in enumerate(sums["calibration"].tolist()) if count]
    return {"classes": {"name": list(names), **table}, "calibration": bins}


def spent(trials: int, images: int, wall_s: float, simulated_s: float = 0.0) -> dict[str, float]:
    """What a search has cost in all, the supernet's epochs among it, as values of summary.json: the same four of every family."""
    return {"spent/trials": trials, "spent/images": images, "spent/wall_s": wall_s, "spent/simulated_s": simulated_s}


def spent_row(trials: int, images: int, simulated_s: float = 0.0) -> tuple[str, str]:
    """The same for people; the seconds have a row of their own."""
    simulated = f", {simulated_s:,.0f} simulated seconds" if simulated_s else ""
    return "spent", f"{images:,} images, {trials:,} architectures evaluated by themselves{simulated}"


def table_rows(last: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What a table knows of the last epoch's genotype, a row for each data set it has."""
    rows = []
    for key in sorted(last or {}):
        if key.startswith("table/") and key.endswith("/regret"):
            name = key.split("/")[1]
            rows.append((f"in the table, {name}", f"{last[f'table/{name}/test_accuracy']:.2f} % test accuracy, rank "
                         f"{last[f'table/{name}/rank']:,}, regret {last[key]:.2f}"))
    return rows


def metrics(record: Mapping[str, Any], part: str) -> dict[str, float]:
    """The metrics of one part (train, val, test) in an epoch's record."""
    return {key.removeprefix(f"{part}_"): value for key, value in record.items() if key.startswith(f"{part}_")}


def skip_rows(genotype: Genotype, space: Space) -> list[tuple[str, str]]:
    """The share of skip connections among the kept edges, by which the collapse of a search is told; nothing where the space has none."""
    edges: list[Edge] = [e for _, kept in genotype.cells for e in kept]
    skips = sum(space.op(e.op).is_skip for e in edges)
    known = any(space.op(op).is_skip for spec in space.cells.values() for op in spec.ops)
    return [("skip connections", f"{100 * skips / len(edges):.0f} % of the kept edges")] if known and edges else []


def cost_rows(cost: Cost | None, genotype: Genotype) -> list[tuple[str, str]]:
    """What the genotype costs, where a cost was asked for."""
    return [] if cost is None else [(f"cost, {cost.name}", f"{cost(genotype):,.6g} {cost.unit}")]


def edge_tables(space: Space) -> dict[str, Any]:
    """What the rows and columns of alphas.npz stand for."""
    import numpy as np

    tables: dict[str, Any] = {}
    for kind, spec in space.cells.items():
        tables[f"edges.{kind}"], tables[f"ops.{kind}"] = np.array(spec.edges), np.array(spec.ops)
    return tables


def edge_names(space: Space) -> dict[str, Any]:
    """The same as plain values, for a checkpoint: whoever reads the alphas of a search that goes on need not build its space."""
    return {kind: {"edges": [list(edge) for edge in spec.edges], "ops": list(spec.ops)} for kind, spec in space.cells.items()}
