"""Architectures as values: `Edge`, `Genotype`. Plain data without torch, loaded, compared and saved, never run as code."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from supernet import files
from supernet.errors import Mendable
from supernet.formats import Format, FormatError

FORMAT = Format("supernet.genotype")
_LISTS = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\[\]{}"]|"(?:[^"\\]|\\.)*")*\]')  # texts, and lists of plain values: an edge a line
MAX_NODES = 10_000  # of a cell, or layers of a chain; what draws or walks through them makes something for each
MAX_FILE_BYTES = 1_000_000  # a genotype is a few kB; anything far larger is not one


class GenotypeError(Mendable, ValueError):
    """The data is not a genotype, or not one of the space it is used in. The message is one line."""


class Edge(NamedTuple):
    """`op` applied to node `source`, added into node `destination`. Nodes count from 0, a cell's inputs first."""

    destination: int
    source: int
    op: str


@dataclass(frozen=True)
class Genotype:
    """One architecture of a space.

    `cells` maps each kind of cell (or decision) to its edges, ordered by destination, source and op. `space` and
    `arguments` say how the space is rebuilt; `fingerprint` is the digest of what the space allows (`Space.fingerprint`), and
    stands for both in comparisons. Two genotypes are equal when space, fingerprint and edges are.
    """

    space: str
    fingerprint: str
    cells: tuple[tuple[str, tuple[Edge, ...]], ...]
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __getitem__(self, kind: str) -> tuple[Edge, ...]:
        return dict(self.cells)[kind]

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this architecture in logs and file names."""
        text = json.dumps([self.space, self.fingerprint, self.cells])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; an edge is `[op, source, destination]`."""
        return {
            "format": str(FORMAT),
            "space": self.space,
            "arguments": dict(self.arguments),
            "fingerprint": self.fingerprint,
            "cells": {kind: [[e.op, e.source, e.destination] for e in edges] for kind, edges in self.cells},
        }

    @classmethod
    def from_json(cls, data: Any, origin: str = "genotype") -> "Genotype":
        """The inverse of `to_json`. Only the form is checked here; `Space.validate` checks what the space allows.

        Raises GenotypeError: a key is missing or has the wrong type; an edge does not run forwards.
        """
        try:
            data = FORMAT.current(data)
        except FormatError as error:
            raise GenotypeError(f"{origin}: {error}") from error
        for key, kind in {"space": str, "arguments": dict, "fingerprint": str, "cells": dict}.items():
            if not isinstance(data.get(key), kind):
                raise GenotypeError(f"{origin}: {key!r} must be of type {kind.__name__}, got {short(data.get(key))}")
        cells = tuple(sorted((kind, tuple(sorted(_edges(rows, f"{origin}: cell {short(kind)}"))))
                             for kind, rows in data["cells"].items()))
        found = cls(data["space"], data["fingerprint"], cells, data["arguments"])
        if "digest" in data and data["digest"] != found.digest:
            raise GenotypeError(f"{origin}: is not the genotype that was written (digest {short(data['digest'])}, read {found.digest}): "
                                "the file was damaged, or edited, and one that is edited on purpose has no digest")
        return found

    def save(self, path: Path, **notes: Any) -> None:
        """Writes the file at once or not at all. `notes` are further keys for readers; they are not part of the value."""
        text = json.dumps(self.to_json() | {"digest": Genotype.from_json(self.to_json()).digest} | FORMAT.stamp() | notes, indent=1) + "\n"
        text = _LISTS.sub(lambda flat: json.dumps(json.loads(flat.group())) if flat.group()[0] == "[" else flat.group(), text)
        files.write_whole(path, text.encode())

    @classmethod
    def load(cls, path: str | Path) -> "Genotype":
        """Reads a genotype file. Raises GenotypeError with one line for anything that is not one."""
        return cls.from_text(read_text(path), str(path))

    @classmethod
    def from_text(cls, text: str, origin: str) -> "Genotype":
        """From the text of a genotype file. Raises GenotypeError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GenotypeError(f"{origin}: not a JSON file ({error})") from error
        return cls.from_json(data, origin)


def read_text(path: str | Path) -> str:
    """The text of the small file at `path`. Raises GenotypeError: it is none (a pipe may never end), or not small."""
    try:
        return files.read_text(path, MAX_FILE_BYTES)
    except OSError as error:
        raise GenotypeError(f"{path}: cannot read the genotype ({error.strerror or error})") from error


def published_names() -> list[str]:
    """Names of the genotypes that come with the package (`supernet/genotypes/<name>.json`)."""
    folder = resources.files("supernet") / "genotypes"
    return sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json"))


def find(name_or_path: str) -> Genotype:
    """A published genotype by name (in any case), else a genotype file by path."""
    name = str(name_or_path).lower()
    if name in published_names():
        return Genotype.load(resources.files("supernet") / "genotypes" / f"{name}.json")
    if os.path.exists(name_or_path):
        return Genotype.load(name_or_path)
    from difflib import get_close_matches

    close = get_close_matches(name, published_names(), n=3) or ["darts_v1", "darts_v2"]
    raise GenotypeError(f"genotype={short(name_or_path)}: no such file, and no published genotype of that name "
                        f"(there are {len(published_names())}, for example {', '.join(close)})")


def _edges(rows: Any, where: str) -> list[Edge]:
    if not isinstance(rows, list):
        raise GenotypeError(f"{where}: expected a list of [op, source, destination], got {short(rows)}")
    edges = []
    for row in rows:
        if not (isinstance(row, list) and [type(v) for v in row] == [str, int, int]):
            raise GenotypeError(f"{where}: an edge must be [op, source, destination] (text, integer, integer), got {short(row)}")
        op, source, destination = row
        if not 0 <= source < destination:
            raise GenotypeError(f"{where}: edges run from an earlier node to a later one, got {source} -> {destination} "
                                "(a cycle or a negative node)")
        if destination > MAX_NODES:
            raise GenotypeError(f"{where}: nodes count to {MAX_NODES:,} at most, got {source} -> {short(destination)}")
        edges.append(Edge(destination, source, op))
    return edges


def short(value: Any) -> str:
    """What a message shows of a value that came from outside: escaped, and cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
