"""A table as an evaluator: what a search would learn by training the architecture, at once (NAS-Bench-201, Dong & Yang 2020)."""

import math
from collections.abc import Mapping

import numpy as np

from supernet.genotype import Genotype
from supernet.tables.table import IfMissing, Isomorphic, Table
from supernet.trials import Evaluation


class Tabular:
    """Validation accuracy (percent) on one data set after the benchmark's own short training, for the seconds that this would have taken.
    Test columns stay unseen.

    columns: further metrics by name, each with the table's column (a device's latency, accuracy under attack). missing, isomorphic: as in
    `Table.value`. What a training costs is told by the architecture's own row in any case; a row that does not say (11 of NAS-Bench-201)
    counts as the mean of the others. Raises TableError: a column or data set that the table lacks.
    """

    shortens = False

    def __init__(self, table: Table, dataset: str, *, columns: Mapping[str, str] | None = None, missing: IfMissing = "error",
                 isomorphic: Isomorphic = "own"):
        self.table, self.where, self.missing, self.isomorphic = table, table.dataset(dataset), missing, isomorphic
        self.columns = {"accuracy": self.where.validation, **(columns or {})}
        for column in self.columns.values():
            table.column(column)
        self.gives = frozenset(self.columns)
        self._mean_seconds = 0.0 if self.where.seconds is None else float(np.nanmean(table.column(self.where.seconds)))

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        """Of one length of training only. Raises ValueError: fidelity below 1."""
        if fidelity != 1:
            raise ValueError(f"a table of one training length cannot tell what a share of {fidelity:g} of it would give")
        metrics = {name: self.table.value(genotype, column, missing=self.missing, isomorphic=self.isomorphic)
                   for name, column in self.columns.items()}
        seconds = 0.0
        if self.where.seconds is not None:
            own = self.table.value(genotype, self.where.seconds, missing="nan")
            seconds = self.where.seconds_factor * (self._mean_seconds if math.isnan(own) else own)
        return Evaluation(metrics, simulated_s=seconds)
