"""The page of a table of trained architectures: how good they are, what they cost, and the best ones."""

import base64
from typing import Any

import numpy as np

from supernet.report import page
from supernet.report.document import Section, document, drawing
from supernet.report.frames import cell_frames
from supernet.report.names import plain
from supernet.report.statistics import spearman
from supernet.tables.table import Columns, Table

BINS = 60
BEST = 10        # architectures that are listed
DRAWN = 3        # of these are drawn
MAX_COLUMNS = 40
MAX_ROWS = 50_000
COSTS = ("flops", "multiply_adds", "param", "latency", "energy", "seconds", "time", "memory")  # words in the names of columns of costs


def table_page(table: Table) -> str:
    """Of a table with more than MAX_ROWS architectures, the scatter shows that many, evenly taken."""
    datasets = table.datasets
    title = f"{plain(table.space.name)}: {len(table):,} trained architectures"
    line = f"{table.source}; data sets: {', '.join(datasets) or 'none'}"
    sections = [Section("distribution", "Distribution", _statistics(table) + drawing("bars", label="histograms of the test accuracies"),
                        {"bars": [_bars(name, table.column(where.test)) for name, where in datasets.items()]})]
    names = columns(table)
    kept = np.unique(np.linspace(0, len(table) - 1, min(len(table), MAX_ROWS)).round().astype(int))
    note = ("A point an architecture. The line leads over those that no other one beats in both: smaller to the left, larger above. Drag "
            "to look closer, double-click to go back.")
    first = [where.test for where in datasets.values()] or names
    x = next((name for where in datasets.values() for name in _costs(table, where) if name in names), names[0])
    data = {"names": names, "x": x, "y": first[0], "texts": [table.texts[i] for i in kept],
            "columns": [_packed(table.column(name)[kept]) for name in names], "rows": len(kept)}
    place = drawing("table", label="any two columns against each other")
    sections.append(Section("scatter", "Accuracy against costs", page.paragraph(note, soft=True) + place, {"table": data}))
    sections += [_best(table, n, name, where) for n, (name, where) in enumerate(datasets.items())]
    rows = [(name, f"SHA-256 {digest}") for name, digest in sorted(table.files.items())]
    rows.append(("columns", ", ".join(table.names())))
    sections.append(Section("source", "Source", page.table(rows, tall=True), folded=True))
    return document(title, page.header(title, line), sections)


def columns(table: Table) -> list[str]:
    """Those of the data sets first, then costs, then others; at most MAX_COLUMNS, none that holds one value alone."""
    first = [name for where in table.datasets.values() for name in (where.test, where.validation, where.seconds) if name is not None]
    rest = [name for name in table.names() if name not in first and np.unique(table.column(name)[:1000]).size > 1]
    costs = [name for where in table.datasets.values() for name in _costs(table, where) if name in rest]
    rest.sort(key=lambda name: (not any(word in name for word in COSTS), name))
    return list(dict.fromkeys([*first, *costs, *rest]))[:MAX_COLUMNS]


def _packed(values: np.ndarray) -> str:
    """Float32, little-endian, as base64: a third of what the digits take, and read at once. What is too large for that is infinite."""
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _statistics(table: Table) -> str:
    rows = []
    for name, where in table.datasets.items():
        test, validation = table.column(where.test), table.column(where.validation)
        known = test[np.isfinite(test)]
        if not len(known):
            continue
        both = np.isfinite(test) & np.isfinite(validation)
        rank = "" if where.validation == where.test or both.sum() < 3 else f"{spearman(validation[both], test[both]):.3f}"
        rows.append((name, f"{known.max():.2f}", *(f"{np.quantile(known, q):.2f}" for q in (0.99, 0.5)), f"{known.mean():.2f}",
                     f"{known.std(ddof=1) if len(known) > 1 else 0:.2f}", f"{known.min():.2f}", f"{len(known):,}", rank))
    head = ("test accuracy (%)", "best", "best 1 % from", "median", "mean", "deviation", "worst", "known", "Spearman, validation")
    return page.table(rows, head=head)


def _bars(name: str, values: np.ndarray) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    counts, edges = np.histogram(known, BINS) if len(known) else (np.zeros(1, int), np.array([0.0, 1.0]))
    return {"title": plain(name), "x": "test accuracy (%)", "edges": edges.tolist(), "counts": counts.tolist()}


def _best(table: Table, n: int, name: str, where: Columns) -> Section:
    test, validation = table.column(where.test), table.column(where.validation)
    order = [int(row) for row in np.argsort(-np.where(np.isfinite(test), test, -np.inf), kind="stable")[:BEST] if np.isfinite(test[row])]
    more = [column for column in (where.seconds, *_costs(table, where)) if column]
    rows = [(str(rank), f"{test[row]:.2f}", f"{validation[row]:.2f}", *(f"{table.column(column)[row]:.6g}" for column in more),
             table.texts[row]) for rank, row in enumerate(order, start=1)]
    head = ("rank", "test (%)", "validation (%)", *more, "architecture")
    cells = [{"title": f"{rank}: {test[row]:.2f} %", "cells": cell_frames(table.genotype(row))}
             for rank, row in enumerate(order[:DRAWN], start=1)]
    html = page.table(rows, head=head, tall=True) + drawing("found", label="the best cells")
    return Section(f"best{n}", f"Best on {name}", html, {"found": cells})


def _costs(table: Table, where: Columns) -> list[str]:
    """The columns of costs that go with a data set's accuracies, by what their names begin with; the shortest name of each cost. Where
    none does, those of the table."""
    every = [name for name in table.names() if name not in (where.test, where.validation, where.seconds)]
    own = [name for name in every if name.startswith(f"{where.test.partition('_')[0]}_")]
    for some in (own, every):
        found = [min(names, key=len) for word in COSTS[:4] if (names := [name for name in some if word in name])]
        if found:
            return found
    return []
