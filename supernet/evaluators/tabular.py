"""A table as an evaluator: what a search would learn by training the architecture, at once (NAS-Bench-201, Dong & Yang 2020)."""

from supernet.genotype import Genotype
from supernet.tables.table import IfMissing, Isomorphic, Table


class Tabular:
    """Validation accuracy (percent) on one data set, and the seconds that training would have taken. Test columns stay unseen.

    missing, isomorphic: as in `Table.value`.
    """

    def __init__(self, table: Table, dataset: str, *, missing: IfMissing = "error", isomorphic: Isomorphic = "own"):
        self.table, self.where, self.missing, self.isomorphic = table, table.dataset(dataset), missing, isomorphic

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        """`accuracy`, and `seconds` where the table has them."""
        where = self.where
        found = {"accuracy": self._value(genotype, where.validation)}
        if where.seconds is not None:
            found["seconds"] = where.seconds_factor * self._value(genotype, where.seconds)
        return found

    def _value(self, genotype: Genotype, column: str) -> float:
        return self.table.value(genotype, column, missing=self.missing, isomorphic=self.isomorphic)
