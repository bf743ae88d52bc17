"""Many runs as data: a row each, what their options differ by, their cells and their curves. All from their folders, as `run_files` reads
them; a run that cannot be read is a row that says so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supernet.genotype import Genotype
from supernet.report.curves import thinned
from supernet.report.frames import cell_frames
from supernet.report.names import plain
from supernet.report.run_files import UNEXPECTED, RunFiles, is_number
from supernet.runs.results import leaves, names_by_words

CURVE_NUMBERS = 500_000  # of all curves together, about 6 bytes each
MAX_METRICS = 24
MAX_VALUES = 24   # columns of the table of runs
DEFAULT = "as by default"  # what `names_by_words` says of a command line that says nothing of its own
FIRST = ("test_accuracy", "val_accuracy", "train_accuracy", "val_loss", "train_loss")  # metrics, in the order in which they are offered
LEFT = {"epoch", "step", "elapsed_s", "stage"}  # numbers of a record that no one compares
SHOWN = ("test_accuracy", "val_accuracy", "val_perplexity", "parameters", "multiply_adds")  # values of a summary in the table of runs
# Words of a command line that name no method.
UNNAMED = frozenset({"output", "name", "threads", "wandb", "seed", "genotype", "resume", "root"})


@dataclass(frozen=True)
class Row:
    """One run. curves: by metric, epochs done and values. found: its cells; digest: their name."""

    path: Path
    script: str
    state: str
    started: str
    seed: Any
    epochs: int
    of: Any
    said: Mapping[str, str]
    options: Mapping[str, Any]
    values: Mapping[str, float]
    seconds: float | None
    digest: str = ""
    genotype: Genotype | None = None
    outputs: Any = None
    curves: Mapping[str, tuple[list[float], list[float | None]]] = field(default_factory=dict)


def row(path: Path) -> Row:
    """Never raises for what a folder holds."""
    run = RunFiles(path)
    try:
        return _row(run)
    except UNEXPECTED as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        return Row(path, "", f"unreadable ({why})", "", None, 0, None, {}, {}, {}, None)


def _row(run: RunFiles) -> Row:
    records, genotype, words = run.records, run.genotype, run.info.get("overrides")
    pairs = (str(word).lstrip("+").partition("=") for word in words) if type(words) is list else ()
    metrics = [key for key in dict.fromkeys(key for r in records for key, value in r.items() if is_number(value)) if key not in LEFT]
    values = {str(key): float(value) for key, value in run.values.items() if is_number(value)}
    last = records[-1] if records else {}
    of_table = (key for key in last if key.startswith("table/") and key.endswith(("/regret", "/test_accuracy")))
    for key in ("val_accuracy", "train_accuracy", *of_table):
        if key not in values and is_number(last.get(key)):
            values[key] = float(last[key])
    spent = run.values.get("elapsed_s", last.get("elapsed_s"))
    options = run.options
    return Row(run.path, run.script, run.state, str(run.info.get("started", ""))[:19].replace("T", " "), options.get("seed"), len(records),
               options.get("epochs"), {key: value for key, _, value in pairs}, {key: value for key, value in leaves(options, ())}, values,
               float(spent) if is_number(spent) else None, "" if genotype is None else genotype.digest, genotype,
               run.quietly("genotype.json").get("outputs"), {key: run.series(key) for key in metrics})


def as_data(rows: Sequence[Row], link: Callable[[Row], str | None], named: Callable[[Row], str]) -> dict[str, Any]:
    """What the page's scripts make a table, curves and differences of. link: the address of a run's page, or None; named: the name that a
    run goes by."""
    words = _words(rows)
    shown = [key for key in SHOWN if any(key in r.values for r in rows)]
    shown += sorted({key for r in rows for key in r.values if key.startswith("table/") and key.endswith(("/regret", "/test_accuracy"))})
    shown = shown[:MAX_VALUES]
    columns = [("run", "text"), ("what", "words"), ("kind", "text"), ("state", "text"), ("seed", "number"), ("epochs", "number"),
               *((_title(key), "number") for key in shown), ("seconds", "number"), ("genotype", "text"), ("started", "text")]
    metrics = _metrics(rows)
    points = max(10, min(300, CURVE_NUMBERS // max(1, 2 * len(rows) * len(metrics))))
    common = _common([r.options for r in rows])
    cells: dict[str, Any] = {}
    for r in rows:
        if r.genotype is not None and r.digest not in cells:
            cells[r.digest] = cell_frames(r.genotype, outputs=r.outputs)
    return {
        "columns": [{"name": name, "kind": kind} for name, kind in columns], "metrics": metrics, "cells": cells,
        "rows": [{
            "link": link(r), "cells": [named(r), word, r.script.removeprefix("train_") or "?", r.state, r.seed, r.epochs,
                                       *(r.values.get(key) for key in shown), None if r.seconds is None else round(r.seconds, 1),
                                       r.digest, r.started],
            "digest": r.digest, "options": {key: _word(value) for key, value in r.options.items() if key not in common},
            "curves": {key: _curve(*r.curves[key], points) for key in metrics if key in r.curves},
        } for r, word in zip(rows, words, strict=True)],
    }


def _words(rows: Sequence[Row]) -> list[str]:
    """What the command lines of runs of one script do not share, a text each; that of the search before that of what trains its
    architecture."""
    found: dict[Path, str] = {}
    for script in {r.script for r in rows}:
        same = [r for r in rows if r.script == script]
        found |= {r.path: word for r, word in zip(same, names_by_words([r.said for r in same], UNNAMED), strict=True)}
    searches = {r.path.name: found[r.path] for r in rows if r.script == "train_search"}
    for r in rows:
        search = searches.get(Path(str(r.options.get("genotype", ""))).parent.name) if r.script == "train_final" else None
        if search is not None:
            own = "" if found[r.path] == DEFAULT else f" {found[r.path]}"
            found[r.path] = f"{search}, retrained{own}"
    return [found[r.path] for r in rows]


def _title(key: str) -> str:
    parts = key.split("/")
    if parts[0] == "table" and len(parts) == 3:
        return f"{plain(parts[1])} {parts[2].replace('_', ' ')}"
    return plain(key.replace("_", " "))


def _metrics(rows: Sequence[Row]) -> list[str]:
    count: dict[str, int] = {}
    for r in rows:
        for key in r.curves:
            count[key] = count.get(key, 0) + 1
    first = [key for key in FIRST if key in count]
    rest = sorted((key for key in count if key not in first), key=lambda key: (-count[key], key))
    return [*first, *rest][:MAX_METRICS]


def _common(options: Sequence[Mapping[str, Any]]) -> set[str]:
    """Those that have one value in all runs."""
    if not options:
        return set()
    first, *others = options
    return {key for key, value in first.items() if all(key in other and other[key] == value for other in others)}


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if value is True or value is False else str(value)[:200]


def _curve(x: Sequence[float], y: Sequence[float | None], points: int) -> list[list[Any]]:
    keep = thinned(len(x), points)
    return [[x[i] for i in keep], [y[i] for i in keep]]
