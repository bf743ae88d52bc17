"""A column of a table of all architectures as a cost."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.costs.base import CostError
from supernet.genotype import Genotype
from supernet.space import Space
from supernet.tables.files import read_table
from supernet.tables.table import Table
from supernet.weights import EdgeWeights, check_shapes


class TableCost:
    """A column of a table that has every architecture of a space whose edges are all kept, with one op each (NAS-Bench-201)."""

    def __init__(self, table: Table, column: str):
        self.table, self.name, self.unit, self.space = table, column, column.rpartition("_")[2], table.space
        ((self.kind, spec),) = self.space.cells.items()
        values = table.column(column)
        shape = (len(spec.ops),) * len(spec.edges)
        full = [low == high == len(spec.incoming(node)) for node, (low, high) in zip(spec.nodes, spec.keep)]
        if not all(full) or len(table) != np.prod(shape):
            raise CostError(f"{table.source}: an expectation needs every architecture of a space that keeps all edges, "
                            f"{np.prod(shape):.0f} rows, got {len(table)} of {self.space.name}")
        if np.isnan(values).any():
            raise CostError(f"{table.source}: column {column} has {int(np.isnan(values).sum())} missing values, so no expectation")
        tensor = np.empty(shape)
        place = {op: o for o, op in enumerate(spec.ops)}
        for text, value in zip(table.texts, values):  # as fast as this must be: the texts' ops in order are the edges' ops
            tensor[tuple(place[term.rpartition("~")[0]] for node in text.split("+") for term in node.strip("|").split("|"))] = value
        self.values = torch.from_numpy(tensor)

    def __call__(self, genotype: Genotype) -> float:
        return self.table.value(genotype, self.name)

    def expected(self, weights: EdgeWeights) -> Tensor:
        """The sum over all architectures of the product of their edges' weights times the value: multilinear, exact where edges are drawn
        independently with these weights."""
        check_shapes(self.space, weights)
        ops = weights[self.kind].ops
        rest = self.values.to(ops)
        for row in ops:
            rest = torch.tensordot(row, rest, 1)
        return rest

    def least(self) -> float:
        return self.values.min().item()


def table_cost(space: Space, *, path: str, column: str, **sizes: Any) -> TableCost:
    """A column of the table at `path`; the table has its own sizes. Raises TableError, CostError."""
    return TableCost(read_table(Path(path), space), column)
