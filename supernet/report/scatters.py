"""Estimates of architectures against what they reached when they were trained alone: from searches and their retrainings, from what a table
knows of found cells, and from `python -m supernet.rank`."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supernet.files import read_text
from supernet.report.fleet import Row
from supernet.report.names import plain
from supernet.report.run_files import UNEXPECTED

MAX_RANK_BYTES = 50_000_000
MAX_RANKINGS = 12
MAX_POINTS = 20_000
SUPERNET = "validation accuracy in the supernet (%)"


def of_searches(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Validation accuracy in the supernet against test accuracy: of retrainings (their mean), and by each table."""
    searches = [r for r in rows if r.script == "train_search" and "val_accuracy" in r.values and r.digest]
    found = []
    points = []
    for search in searches:
        reached = [r.values["test_accuracy"] for r in rows if r.script == "train_final" and r.digest == search.digest
                   and "test_accuracy" in r.values and _is_of(r, search, searches)]
        if reached:
            points.append([search.values["val_accuracy"], sum(reached) / len(reached), f"{search.path.name}\n{len(reached)} retrained"])
    if points:
        found.append({"title": "Supernet against retrained", "x": SUPERNET, "y": "test accuracy, retrained (%)", "points": points})
    for key in sorted({key for r in searches for key in r.values if key.startswith("table/") and key.endswith("/test_accuracy")}):
        name = plain(key.split("/")[1])
        found.append({"title": f"Supernet against the table, {name}", "x": SUPERNET,
                      "y": f"test accuracy on {name}, by the table (%)",
                      "points": [[r.values["val_accuracy"], r.values[key], r.path.name] for r in searches if key in r.values]})
    return [one for one in found if len(one["points"]) > 1]


def _is_of(final: Row, search: Row, searches: Sequence[Row]) -> bool:
    """Whether a training is of this search's genotype file, or of one that no given search's file is."""
    folder = Path(str(final.options.get("genotype", ""))).parent.name
    return folder == search.path.name or all(other.path.name != folder for other in searches)


def of_rankings(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Of every rank.csv under the folders, a panel an estimate."""
    found: list[dict[str, Any]] = []
    paths = sorted({path for folder in folders for path in (folder.glob("**/rank.csv") if folder.is_dir() else ())})
    for path in paths[:MAX_RANKINGS]:
        try:
            head, *lines = csv.reader(io.StringIO(read_text(path, MAX_RANK_BYTES)))
            for n, name in enumerate(head[2:], start=2):
                known = (line for line in lines[:MAX_POINTS] if len(line) > n and line[n] and line[1])
                points = [[float(line[n]), float(line[1]), line[0][:200]] for line in known]
                if points:
                    found.append({"title": f"{plain(path.parent.name, 60)}: {plain(name, 60)}", "x": f"estimate by {plain(name, 60)}",
                                  "y": "test accuracy, trained alone (%)", "points": points})
        except UNEXPECTED:
            continue
    return found
