"""The tables of papers: their rows, what was published, and how each row is run at a scale; read from `conf/published/*.yaml`.

A file is data: what a row runs are options of our own scripts. docs/reproduce.md describes the keys.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from supernet.app.options import CONF, override
from supernet.errors import UsageError, did_you_mean
from supernet.files import FileError, yaml_text
from supernet.report.referee import Column, Published

MAX_BYTES = 300_000
OVER = ("searches", "retrainings", "unknown")


@dataclass(frozen=True)
class Value:
    """Which number of a run's summary a column shows, and how; an error is 100 - accuracy."""

    column: Column
    key: str
    error: bool = False

    def of(self, values: Mapping[str, Any]) -> float:
        """NaN where the run has no such number."""
        found = values.get(self.key)
        return math.nan if type(found) not in (int, float) else 100.0 - found if self.error else float(found)


@dataclass(frozen=True)
class Drawn:
    """A random search: `cells` drawn architectures, each trained alone, the best of them by validation; or as many as the seconds of a
    table pay for, the best by the table's validation accuracy on `dataset`."""

    cells: int = 0
    seconds: float = 0.0
    dataset: str = ""
    space: str = ""


@dataclass(frozen=True)
class TableRow:
    """options: of the search, further to those of the scale. seeds: its own number of them, 0 for the scale's. comparable: whether it is
    run as it was published."""

    name: str
    experiment: str = ""
    random: Drawn | None = None
    options: Sequence[str] = ()
    published: Mapping[str, Sequence[Published]] = field(default_factory=dict)
    baseline: str = ""
    seeds: int = 0
    comparable: bool = True


@dataclass(frozen=True)
class Scale:
    """How the rows of a table are run: options of every search, of the short training that picks one (none: nothing is picked), and of the
    retrainings (none: the value is of the search, or of its architecture in a table)."""

    name: str
    about: str
    seeds: int
    search: Sequence[str] = ()
    selection: Sequence[str] = ()
    final: Sequence[str] = ()
    retrainings: int = 0
    retrainings_of_others: int = 0
    comparable: bool = True
    baseline: str = ""


@dataclass(frozen=True)
class PublishedTable:
    name: str
    title: str
    about: str
    values: Sequence[Value]
    space: str
    pick: str
    scale: Scale
    rows: Sequence[TableRow]

    @property
    def columns(self) -> list[Column]:
        return [value.column for value in self.values]


def tables() -> list[str]:
    """The names of the tables that there are."""
    return sorted(path.stem for path in (CONF / "published").glob("*.yaml"))


def read_table(name: str, scale: str, places: Mapping[str, str] | None = None) -> PublishedTable:
    """A table of `conf/published`, or of a file that ends in .yaml, at a scale. places: what stands for {root} and {lookup} in its options.
    Raises UsageError: there is none, or its file is not as docs/reproduce.md says."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONF / "published" / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(f"table must be one of {', '.join(tables())}, or a file that ends in .yaml, got {name or 'none'}"
                         f"{did_you_mean(name, tables())}")
    try:
        found = yaml.safe_load(yaml_text(path, MAX_BYTES))
    except FileError as error:
        raise UsageError(str(error)) from error
    table = _table(found, path, scale)
    fill = {"root": "data", "lookup": "auto"} | dict(places or {})
    at = table.scale
    return replace(table, scale=replace(at, search=filled(at.search, fill, path), selection=filled(at.selection, fill, path),
                                        final=filled(at.final, fill, path)))


def filled(options: Sequence[str], places: Mapping[str, str], path: Path) -> list[str]:
    """Options in which {root} and {lookup} stand for places, as Hydra reads them."""
    found = []
    for option in options:
        key, _, value = option.partition("=")
        name = value[1:-1] if value.startswith("{") and value.endswith("}") and value[1:-1].isidentifier() else ""
        if name and name not in places:
            raise UsageError(f"{path}: {option}: in braces stand {' or '.join(places)}")
        found.append(override(key, places[name]) if name else option)
    return found


def _table(found: Any, path: Path, scale: str) -> PublishedTable:
    top = _node(found, path, "the file", required={"title", "columns", "space", "scales", "rows"}, optional={"about", "pick"})
    values = [_value(key, node, path) for key, node in _mapping(top["columns"], path, "columns").items()]
    scales = _mapping(top["scales"], path, "scales")
    if scale not in scales:
        raise UsageError(f"scale must be one of {', '.join(scales)}, got {scale}{did_you_mean(scale, scales)}")
    at = _scale(scale, scales[scale], path)
    rows = [_row(name, node, at, [value.column.key for value in values], path) for name, node in _mapping(top["rows"], path, "rows").items()
            if scale in _node_scales(node, scales, name, path)]
    names = {row.name for row in rows}
    for row in rows:
        if row.baseline and row.baseline not in names:
            raise UsageError(f"{path}: the baseline of {row.name} must be a row of scale {scale}, got {row.baseline}")
    return PublishedTable(path.stem, str(top["title"]), str(top.get("about", "")).strip(), values, str(top["space"]),
                          str(top.get("pick", "")), at, rows)


def _value(key: str, node: Any, path: Path) -> Value:
    where = f"columns.{key}"
    node = _node(node, path, where, required={"title", "value", "margin"}, optional={"error", "lower_is_better"})
    margin = _number(node["margin"], path, f"{where}.margin")
    if margin <= 0:
        raise UsageError(f"{path}: {where}.margin must be positive, got {margin:g}")
    error = bool(node.get("error", False))
    return Value(Column(key, str(node["title"]), margin, error or bool(node.get("lower_is_better", False))), str(node["value"]), error)


def _scale(name: str, node: Any, path: Path) -> Scale:
    where = f"scales.{name}"
    node = _node(node, path, where, required={"about", "seeds"}, optional={
        "comparable", "baseline", "search", "selection", "final", "retrainings", "retrainings_of_others"})
    options = {key: _texts(node.get(key, []), path, f"{where}.{key}") for key in ("search", "selection", "final")}
    retrainings = _count(node.get("retrainings", 1), path, f"{where}.retrainings")
    others = _count(node.get("retrainings_of_others", retrainings), path, f"{where}.retrainings_of_others")
    if others > retrainings:
        raise UsageError(f"{path}: {where}.retrainings_of_others must be at most the {retrainings} of the one that is picked, got {others}")
    return Scale(name, str(node["about"]).strip(), _count(node["seeds"], path, f"{where}.seeds"), **options, retrainings=retrainings,
                 retrainings_of_others=others, comparable=bool(node.get("comparable", True)), baseline=str(node.get("baseline", "")))


def _node_scales(node: Any, scales: Collection[str], name: str, path: Path) -> Collection[str]:
    own = node.get("scales", list(scales)) if type(node) is dict else list(scales)
    if type(own) is not list or not set(map(str, own)) <= set(scales):
        raise UsageError(f"{path}: rows.{name}.scales must list some of {', '.join(scales)}, got {own}")
    return own


def _row(name: str, node: Any, scale: Scale, columns: Sequence[str], path: Path) -> TableRow:
    where = f"rows.{name}"
    node = _node(node, path, where, optional={"experiment", "random", "options", "published", "scales", "baseline", "seeds", "comparable"})
    if ("experiment" in node) == ("random" in node):
        raise UsageError(f"{path}: {where} must have either an experiment or random")
    options = _mapping(node.get("options", {}), path, f"{where}.options") if node.get("options") else {}
    published: dict[str, list[Published]] = {}
    for n, entry in enumerate(node.get("published", [])):
        for column, result in _published(entry, columns, path, f"{where}.published[{n}]").items():
            published.setdefault(column, []).append(result)
    baseline = str(node.get("baseline", scale.baseline))
    return TableRow(name, str(node.get("experiment", "")), _drawn(node["random"], scale, path, where) if "random" in node else None,
                    _texts(options.get(scale.name, []), path, f"{where}.options.{scale.name}"), published, baseline,
                    _count(node["seeds"], path, f"{where}.seeds") if "seeds" in node else 0, bool(node.get("comparable", scale.comparable)))


def _drawn(node: Any, scale: Scale, path: Path, where: str) -> Drawn:
    where = f"{where}.random"
    node = _node(node, path, where, optional={"cells", "seconds", "dataset", "space"})
    if ("cells" in node) == ("seconds" in node) or ("seconds" in node) != ("dataset" in node):
        raise UsageError(f"{path}: {where} must have either cells, or seconds and the dataset of a table")
    cells = node.get("cells", 0)
    cells = cells.get(scale.name, 0) if type(cells) is dict else cells
    if "cells" in node:
        if not scale.selection:
            raise UsageError(f"{path}: {where}.cells need scales.{scale.name}.selection, by which one of them is picked")
        _count(cells, path, f"{where}.cells")
    seconds = _number(node.get("seconds", 0.0), path, f"{where}.seconds")
    return Drawn(cells, seconds, str(node.get("dataset", "")), str(node.get("space", "")))


def _published(node: Any, columns: Sequence[str], path: Path, where: str) -> dict[str, Published]:
    node = _node(node, path, where, required={"over", "source"}, optional={"n", "best_of", "confirmed", *columns})
    if node["over"] not in OVER:
        raise UsageError(f"{path}: {where}.over must be {', '.join(OVER[:-1])} or {OVER[-1]}, got {node['over']}")
    n, best_of = (_count(node[key], path, f"{where}.{key}") if key in node else 0 for key in ("n", "best_of"))
    found = {}
    for column in columns:
        if column in node:
            said = node[column] if type(node[column]) is list else [node[column]]
            if not 1 <= len(said) <= 2:
                raise UsageError(f"{path}: {where}.{column} must be a mean, or [mean, standard deviation], got {said}")
            mean, *deviation = (_number(value, path, f"{where}.{column}") for value in said)
            found[column] = Published(mean, deviation[0] if deviation else math.nan, n, node["over"], best_of, str(node["source"]),
                                      bool(node.get("confirmed", True)))
    if not found:
        raise UsageError(f"{path}: {where} must have a result for one of the columns {', '.join(columns)}")
    return found


# ---- the shapes of plain data


def _mapping(node: Any, path: Path, where: str) -> dict[str, Any]:
    if type(node) is not dict or not node:
        raise UsageError(f"{path}: {where} must be {{name: value}}, got {str(node)[:60]}")
    return {str(key): value for key, value in node.items()}


def _node(node: Any, path: Path, where: str, required: Collection[str] = (), optional: Collection[str] = ()) -> dict[str, Any]:
    node = _mapping(node, path, where)
    known = [*sorted(required), *sorted(optional)]
    for key in node:
        if key not in known:
            raise UsageError(f"{path}: {where} has no {key}; there are {', '.join(known)}{did_you_mean(key, known)}")
    for key in required:
        if key not in node:
            raise UsageError(f"{path}: {where} needs {key}")
    return node


def _texts(node: Any, path: Path, where: str) -> list[str]:
    if type(node) is not list or not all(type(text) is str for text in node):
        raise UsageError(f"{path}: {where} must be a list of options, key=value, got {str(node)[:60]}")
    return list(node)


def _number(value: Any, path: Path, where: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise UsageError(f"{path}: {where} must be a number, got {str(value)[:60]}")
    return float(value)


def _count(value: Any, path: Path, where: str) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{path}: {where} must be a whole number of at least 1, got {str(value)[:60]}")
    return value
