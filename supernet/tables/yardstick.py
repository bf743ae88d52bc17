"""How good an architecture is among all of its space, once all of them were trained: rank, percentile, regret."""

import numpy as np

from supernet.genotype import Genotype
from supernet.tables.table import Table


class Yardstick:
    """For the record of a search, never for its choices: it reads the test columns of a table.

    Rows without a test value (NaN) are left out of ranks.
    """

    def __init__(self, table: Table):
        self.table = table
        self._sorted = {name: np.sort(_known(table.column(where.test))) for name, where in table.datasets.items()}

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        """By `table/<data set>/<name>`: validation_accuracy and test_accuracy (percent); rank (1 is best, ties share the best);
        percentile (share of architectures that are not better, in percent); regret, the best test accuracy minus this one; and
        the best_accuracy and mean_accuracy of the space, the latter what a single random choice reaches on average;
        benchmark_seconds, what evaluating it alone would have cost on the benchmark's machines."""
        found: dict[str, float] = {}
        for name, where in self.table.datasets.items():
            test = self.table.value(genotype, where.test, missing="nan")
            ordered = self._sorted[name]
            better = len(ordered) - int(np.searchsorted(ordered, test, side="right"))
            values = {"validation_accuracy": self.table.value(genotype, where.validation, missing="nan"), "test_accuracy": test,
                      "best_accuracy": float(ordered[-1]), "mean_accuracy": float(ordered.mean())}
            if where.seconds is not None:
                values["benchmark_seconds"] = where.seconds_factor * self.table.value(genotype, where.seconds, missing="nan")
            if not np.isnan(test):
                values |= {"rank": 1 + better, "percentile": 100 * (1 - better / len(ordered)), "regret": float(ordered[-1]) - test}
            found |= {f"table/{name}/{key}": value for key, value in values.items()}
        return found


def expected_best_of(values: np.ndarray, n: int) -> float:
    """The mean, over all ways to draw `n` architectures with replacement, of the best drawn value: what random search reaches whose
    choice is perfect. Exact. `values` (N,), NaN left out; n >= 1."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    ordered = np.sort(_known(values))
    share = np.arange(len(ordered) + 1) / len(ordered)
    return float((ordered * np.diff(share**n)).sum())


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]
