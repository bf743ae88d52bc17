"""Reading and writing tables. A file is recognised by what it holds, never by its name; docs/tables.md describes the formats."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from supernet.files import gunzipped, read_bytes, write_whole
from supernet.formats import Format, FormatError
from supernet.genotype import Edge, short
from supernet.space import Space
from supernet.tables import accel
from supernet.tables.table import Columns, Table, TableError

FORMAT = Format("supernet.table")
MAX_BYTES = 2**29  # of a file, and of what it unpacks to; NAS-Bench-201 has 6 MB
SUFFIXES = (".csv.gz", ".csv", ".json.gz", ".json")
# NATS-Bench: a search sees the validation accuracy after 12 of the 200 epochs, and pays for the training of those. On CIFAR-10 that
# accuracy is one after training on half the images, 25,000, while the column is the time of training on all 50,000; on the others both
# are of the same images. What the pass over the validation images takes is in no column, and not counted.
NASBENCH201_SECONDS = {"cifar10": 12 / 200 / 2, "cifar100": 12 / 200, "imagenet16": 12 / 200}
NASBENCH201 = {name: Columns(f"{short_name}_val_12", f"{short_name}_test_200", f"{short_name}_train_time_200_s", NASBENCH201_SECONDS[name])
               for name, short_name in (("cifar10", "c10"), ("cifar100", "c100"), ("imagenet16", "in16"))}


def open_table(space: Space, path: str | None = "auto", folder: str = "data/tables") -> Table | None:
    """The table of a space: the file `path`; with `auto` the file `<folder>/<space>.csv.gz` (or .csv, .json.gz, .json), None where
    there is no such file; None for None. Raises TableError."""
    if path is None:
        return None
    if path != "auto":
        return read_table(path, space)
    found = next((file for suffix in SUFFIXES if (file := Path(folder) / f"{space.name}{suffix}").exists()), None)
    return None if found is None else read_table(found, space)


def read_table(path: str | Path, space: Space) -> Table:
    """Reads any of the formats. Raises TableError, one line, for a file that is none of them or belongs to another space."""
    path = Path(path)
    with _reading(path):
        files: dict[str, str] = {}
        text = _text(path, files)
        if text.startswith("{"):
            return _macro(path, text, space, files)
        first, _, rest = text.partition("\n")
        if first.startswith("#"):
            return _own(path, first, rest, space, files)
        if accel.FIRST in first.split(","):
            return accel.table(str(path), *_rows(text), space, files)
        return _nasbench201(path, text, space, files)


def space_named_in(path: Path) -> tuple[str, dict[str, Any] | None]:
    """The space that a file is a table of, and its arguments where it says them. Raises TableError: it is no table."""
    with _reading(path):
        text = _text(path, {})
        if text.startswith("{"):
            return "nasbench_macro", None
        first = text.partition("\n")[0]
        if not first.startswith("#"):
            if accel.FIRST in first.split(","):
                return "accel_mnasnet", None
            if not {"index", "arch"} <= set(first.split(",")):
                raise ValueError("a header with index and arch, or a first line that begins with # is expected")
            return "nasbench201", None
        about = json.loads(first.removeprefix("#"))
        return str(about["space"]), dict(about["arguments"])


def write_table(path: Path, space: Space, texts: Sequence[str], columns: Mapping[str, Sequence[float]],
                datasets: Mapping[str, Columns]) -> None:
    """Writes a table of our own, whole or not at all, the same bytes for the same values. Floats keep all their digits."""
    head = {**FORMAT.stamp(), "space": space.name, "arguments": dict(space.arguments), "fingerprint": space.fingerprint,
            "datasets": {name: vars(where) for name, where in datasets.items()}}
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["arch", *columns])
    for text, *values in zip(texts, *columns.values(), strict=True):
        writer.writerow([text, *("" if np.isnan(v) else repr(float(v)) for v in values)])
    rows = lines.getvalue()
    data = f"# {json.dumps(head | {'sha256': _digest(head, rows)}, sort_keys=True)}\n{rows}".encode()
    try:
        write_whole(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as error:
        raise TableError(f"{path}: cannot write the table ({error.strerror or error})") from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a file that is no table brings about, as a TableError: its rows and its JSON may hold anything."""
    try:
        yield
    except TableError:
        raise
    except OSError as error:
        raise TableError(f"{path}: cannot read the table ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, csv.Error) as error:
        raise TableError(f"{path}: not a table as docs/tables.md describes them ({' '.join(str(error).split())[:150]})") from error


def _text(path: Path, files: dict[str, str]) -> str:
    """The text of a file; the digest of its bytes is added to `files`."""
    data = read_bytes(path, MAX_BYTES)
    files[path.name] = hashlib.sha256(data).hexdigest()
    return (gunzipped(data, MAX_BYTES, path) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")


def _rows(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows. Our files quote only where a field holds a comma, so that most are split without the csv module."""
    lines = text.splitlines()
    rows = list(csv.reader(lines)) if '"' in text else [line.split(",") for line in lines]
    head, *rows = rows
    if any(len(row) != len(head) for row in rows):
        raise ValueError(f"every row must have {len(head)} fields, as the header")
    return head, rows


def _numbers(head: Sequence[str], rows: Sequence[Sequence[str]], without: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: np.array([row[i] or "nan" for row in rows]).astype(np.float64) for i, name in enumerate(head) if name not in without}


def _own(path: Path, first: str, rest: str, space: Space, files: dict[str, str]) -> Table:
    try:
        about = FORMAT.current(json.loads(first.removeprefix("#")))
    except FormatError as error:
        raise TableError(f"{path}: {error}") from error
    if (about["space"], about["fingerprint"]) != (space.name, space.fingerprint):
        raise TableError(f"{path}: is of space {short(about['space'])} ({short(about['fingerprint'])}), not of {space.name!r} "
                         f"({space.fingerprint})")
    known = about.pop("sha256", None)  # a table that was made by hand, or by an earlier version, has none
    if known is not None and known != _digest(about, rest):
        raise TableError(f"{path}: is not what was written (sha256 differs): the file was damaged, or edited, and one that is edited on "
                         "purpose has no sha256 in its first line")
    head, rows = _rows(rest)
    arch = head.index("arch")
    datasets = {name: _columns(where) for name, where in about["datasets"].items()}
    return Table(space, [row[arch] for row in rows], _numbers(head, rows, ["arch"]), datasets, source=str(path), files=files)


def _digest(head: Mapping[str, Any], rows: str) -> str:
    """SHA-256 of a table of our own: what its first line says, but for this, and its rows as text."""
    return hashlib.sha256(f"{json.dumps(dict(head), sort_keys=True)}\n{rows}".encode()).hexdigest()


def _columns(where: Mapping[str, Any]) -> Columns:
    found = Columns(**where)
    if [type(found.validation), type(found.test)] != [str, str] or type(found.seconds) not in (str, type(None)):
        raise ValueError(f"a data set's columns must be names, got {short(dict(where))}")
    return replace(found, seconds_factor=float(found.seconds_factor))


def _nasbench201(path: Path, text: str, space: Space, files: dict[str, str]) -> Table:
    """One row a cell in the order of the official index, official strings in column `arch`. Files beside it whose names go on where
    its own ends (nb201_latency.csv.gz beside nb201.csv.gz) hold further columns for the same `index`."""
    head, rows = _rows(text)
    arch, index = head.index("arch"), head.index("index")
    if [row[index] for row in rows] != [str(i) for i in range(len(rows))]:
        raise ValueError("column index must count the rows from 0")
    datasets = {name: where for name, where in NASBENCH201.items() if {where.validation, where.test} <= set(head)}

    def companions() -> dict[str, np.ndarray]:
        stem, dot, suffix = path.name.partition(".")
        columns: dict[str, np.ndarray] = {}
        for file in sorted(path.parent.glob(f"{stem}_*{dot}{suffix}")):
            with _reading(file):
                more_head, more_rows = _rows(_text(file, files))
                if more_head[0] != "index" or [row[0] for row in more_rows] != [row[index] for row in rows]:
                    raise TableError(f"{file}: must hold the same index as {path}")
                columns |= _numbers(more_head, more_rows, ["index"])
        return columns

    return Table(space, [row[arch] for row in rows], _numbers(head, rows, ["arch", "index"]), datasets, source=str(path), more=companions,
                 files=files)


def _macro(path: Path, text: str, space: Space, files: dict[str, str]) -> Table:
    """NAS-Bench-Macro: `{"02012100": {"test_acc": [...], "mean_acc": ..., "std": ..., "params": ..., "flops": ...}}`, a digit a layer."""
    data = json.loads(text)
    if len(space.cells) != 1 or not all(spec.is_chain for spec in space.cells.values()):
        raise TableError(f"{path}: a JSON object is a table of NAS-Bench-Macro, whose architectures are chains of one choice a layer; "
                         f"those of {space.name!r} are not")
    (spec,) = space.cells.values()
    digits = "".join(map(str, range(len(spec.ops))))
    texts, values = [], {"test_accuracy": [], "std": [], "params": [], "flops": []}
    for key, entry in data.items():
        if len(key) != len(spec.edges) or not set(key) <= set(digits):
            raise TableError(f"{path}: expected keys of {len(spec.edges)} digits 0 to {len(spec.ops) - 1}, one for each layer of "
                             f"{space.name!r}, got {short(key)}")
        edges = [Edge(d, s, spec.ops[int(digit)]) for (s, d), digit in zip(spec.edges, key)]
        texts.append("+".join(f"|{e.op}~{e.source}|" for e in edges))
        for name, field in (("test_accuracy", "mean_acc"), ("std", "std"), ("params", "params"), ("flops", "flops")):
            values[name].append(entry[field])
    # The benchmark publishes test accuracies only: as elsewhere in the literature they stand for the validation as well.
    return Table(space, texts, {k: np.array(v) for k, v in values.items()}, {"cifar10": Columns("test_accuracy", "test_accuracy")},
                 source=str(path), files=files)
