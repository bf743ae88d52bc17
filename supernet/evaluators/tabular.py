"""A table as an evaluator: what a search would learn by training the architecture, at once (NAS-Bench-201, Dong & Yang 2020)."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from supernet.errors import UsageError
from supernet.evaluators.base import Known, Offer, SearchEvaluator
from supernet.genotype import Genotype
from supernet.space import Space
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


class OfTable(SearchEvaluator):
    """The same for the trials of a search (`searcher=...`). The further `columns` are known before an evaluation, so that a limit on one
    refuses what breaks it for nothing. dataset: of the table's; None: that of the search. table: of a space, or None.

    Raises UsageError: no table; one of only some of the space's architectures, any of which a searcher may ask for. TableError: no such
    column or data set.
    """

    alone = "a table is read faster than several can agree on what to read; start it without torchrun"

    def __init__(self, offer: Offer, *, table: Callable[[Space], Table | None], dataset: str | None = None,
                 columns: Mapping[str, str] | None = None, missing: IfMissing = "nan", isomorphic: Isomorphic = "own"):
        space, found = offer.whole, table(offer.whole)
        if found is None:
            raise UsageError(f"evaluator=tabular needs a table of space {space.name}: pass table.path=FILE (docs/tables.md)")
        if len(found) < space.count():
            raise UsageError(f"evaluator=tabular needs a table of all {space.count():,} architectures of space {space.name} (a searcher "
                             f"may ask for any), and {found.source} has {len(found):,}")
        self._offer = offer
        self._tabular = Tabular(found, dataset or offer.dataset, missing=missing, isomorphic=isomorphic)
        self.gives = self._tabular.gives
        self.costs = {name: _known(found, column, offer) for name, column in (columns or {}).items()}

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        return self._tabular(self._offer.widened(genotype), fidelity)


def _known(table: Table, column: str, offer: Offer) -> Known:
    """A column as what is known before an evaluation."""
    values = table.column(column)
    return Known(lambda genotype: float(values[table.row(offer.widened(genotype))]), float(np.nanmin(values)), float(np.nanmax(values)))
