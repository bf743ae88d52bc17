"""The least of a sum of tables over decisions, exactly, by eliminating one decision after the other (dynamic programming on a graphical
model: Dechter 1999, bucket elimination)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Row = tuple[str, int]  # a decision: kind, edge
Factor = tuple[tuple[Row, ...], np.ndarray]  # a table with an axis for each of the rows
MOST = 20_000_000  # entries of a table that may come up on the way


def least(factors: Sequence[Factor], allowed: Mapping[Row, Sequence[bool]]) -> tuple[float, dict[Row, int]] | None:
    """The least sum, and the choice of each decision that has it, of equals the first one. allowed: by decision, which choices may be made,
    one at least. None: the decisions hang together so much that a table would have more than MOST entries."""
    left: list[Factor] = [((row,), np.where(may, 0.0, np.inf)) for row, may in allowed.items()]
    left += [(tuple(rows), np.asarray(table, np.float64)) for rows, table in factors]
    sizes = {row: len(may) for row, may in allowed.items()}
    steps: list[tuple[Row, tuple[Row, ...], np.ndarray]] = []  # what was eliminated: its best choice by those of the others
    open_rows = set(sizes)
    while open_rows:
        row, scope = min(((row, _scope(row, left)) for row in sorted(open_rows)), key=lambda item: math.prod(sizes[r] for r in item[1]))
        if math.prod(sizes[r] for r in scope) > MOST:
            return None
        mine = [factor for factor in left if row in factor[0]]
        total = sum(_aligned(factor, scope) for factor in mine)
        total = np.broadcast_to(total, [sizes[r] for r in scope])
        steps.append((row, scope[:-1], total.argmin(-1)))
        left = [factor for factor in left if row not in factor[0]] + [(scope[:-1], total.min(-1))]
        open_rows.remove(row)
    chosen: dict[Row, int] = {}
    for row, others, best in reversed(steps):
        chosen[row] = int(best[tuple(chosen[other] for other in others)])
    return float(sum(table for _, table in left)), chosen


def _scope(row: Row, factors: Sequence[Factor]) -> tuple[Row, ...]:
    """All decisions that stand with one in a table, itself last."""
    others = dict.fromkeys(other for rows, _ in factors if row in rows for other in rows if other != row)
    return (*others, row)


def _aligned(factor: Factor, scope: tuple[Row, ...]) -> np.ndarray:
    """The table with an axis for each decision of `scope`, of length 1 where it does not depend on it."""
    rows, table = factor
    order = sorted(range(len(rows)), key=lambda n: scope.index(rows[n]))
    shape = [table.shape[rows.index(row)] if row in rows else 1 for row in scope]
    return table.transpose(order).reshape(shape)
