"""`Table`: architectures of one space that were all trained alone, looked up by genotype. docs/tables.md describes the files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from supernet.errors import Mendable
from supernet.genotype import Genotype, short
from supernet.space import Space

IfMissing = Literal["error", "nan"]
Isomorphic = Literal["own", "representative", "mean"]


class TableError(Mendable, ValueError):
    """A table cannot be read, belongs to another space, or lacks what was asked of it. The message is one line."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what is known on one data set. Accuracies are in percent.

    validation: what a search may see. test: what only a yardstick sees. seconds: what it would have cost to train the architecture
    until its validation accuracy was known, as `seconds_factor` times the column.
    """

    validation: str
    test: str
    seconds: str | None = None
    seconds_factor: float = 1.0


class Table:
    """Rows by architecture (the text of its genotype, `Space.text`), columns of float64 by name; NaN where a value is missing.

    datasets: by name of the data set, where its accuracies stand. more: called once, when a column is asked for that is not there
    yet; returns further columns. files: the SHA-256 of each file that was read, by its name. Raises TableError: rows and columns of
    different lengths; an architecture twice or of another space.
    """

    def __init__(self, space: Space, texts: Iterable[str], columns: Mapping[str, np.ndarray], datasets: Mapping[str, Columns],
                 *, source: str = "table", more: Callable[[], Mapping[str, np.ndarray]] = dict, files: dict[str, str] | None = None):
        self.space, self.source, self.datasets, self._more = space, source, dict(datasets), more
        self.files = {} if files is None else files
        self.texts = list(texts)
        self._rows = {text: row for row, text in enumerate(self.texts)}
        self._columns = {name: np.asarray(values, np.float64) for name, values in columns.items()}
        if len(self._rows) != len(self.texts):
            raise TableError(f"{source}: every architecture must stand once, {len(self.texts) - len(self._rows)} rows repeat another")
        wrong = sorted(name for name, values in self._columns.items() if values.shape != (len(self.texts),))
        if wrong or not self.texts:
            raise TableError(f"{source}: expected {len(self.texts)} rows in every column and at least one, not so in {wrong[:3]}")
        for text in (self.texts[0], self.texts[-1]):  # all of them would take most of the time of loading
            self._parsed(text)

    def __len__(self) -> int:
        return len(self.texts)

    def genotype(self, row: int) -> Genotype:
        """The architecture of a row; rows count from 0 (in NAS-Bench-201 they are the official index). Raises TableError."""
        if not 0 <= row < len(self):
            raise TableError(f"{self.source}: rows are 0 to {len(self) - 1}, got {row}")
        return self._parsed(self.texts[row])

    def _parsed(self, text: str) -> Genotype:
        try:
            return self.space.parse(text)
        except ValueError as error:
            raise TableError(f"{self.source}: holds architectures of another space than {self.space.name!r} ({error})") from error

    def row(self, genotype: Genotype) -> int:
        """The row of an architecture. Raises TableError for one that is not in the table."""
        text = self.space.text(genotype)
        if text not in self._rows:
            raise TableError(f"{self.source}: has no architecture {short(text)}")
        return self._rows[text]

    def alike(self, genotype: Genotype) -> np.ndarray:
        """The rows of all architectures that compute the same function as this one, its own among them. Raises TableError."""
        return self._class(self.row(genotype))

    def column(self, name: str) -> np.ndarray:
        """All values of a column, by row. Raises TableError."""
        if name not in self._columns:
            self._columns |= {key: np.asarray(values, np.float64) for key, values in self._more().items()}
            self._more = dict
        if name not in self._columns:
            raise TableError(f"{self.source}: has no column {short(name)}; there are {', '.join(sorted(self._columns))}")
        return self._columns[name]

    def names(self) -> list[str]:
        """All columns, those of companion files too."""
        self._columns |= {key: np.asarray(values, np.float64) for key, values in self._more().items()}
        self._more = dict
        return sorted(self._columns)

    def value(self, genotype: Genotype, name: str, *, missing: IfMissing = "error", isomorphic: Isomorphic = "own") -> float:
        """One number of an architecture.

        missing: raise TableError for a value that the table does not have, or return NaN. isomorphic: the architecture's own row (as
        NAS-Bench-201 trained all of its 15,625 cells, also those that compute the same function), the row of the first architecture
        of the same function, or the mean over all of them.
        """
        values = self.column(name)
        rows = {"own": self._own, "representative": self._first, "mean": self._class}[isomorphic](self.row(genotype))
        value = float(values[rows].mean())
        if np.isnan(value) and missing == "error":
            raise TableError(f"{self.source}: has no value in column {name!r} for {short(self.space.text(genotype))}")
        return value

    def dataset(self, name: str) -> Columns:
        """Where the accuracies of a data set stand. Raises TableError."""
        if name not in self.datasets:
            raise TableError(f"{self.source}: knows the data sets {', '.join(self.datasets)}, got {short(name)}")
        return self.datasets[name]

    @cached_property
    def _groups(self) -> np.ndarray:
        """By row, the first row of an architecture that computes the same function."""
        first: dict[Genotype, int] = {}
        return np.array([first.setdefault(self.space.canonical(self._parsed(text)), row) for row, text in enumerate(self.texts)])

    def _own(self, row: int) -> np.ndarray:
        return np.array([row])

    def _first(self, row: int) -> np.ndarray:
        return self._groups[[row]]

    def _class(self, row: int) -> np.ndarray:
        return np.flatnonzero(self._groups == self._groups[row])
