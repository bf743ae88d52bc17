"""What a model is told of an architecture: a set of features, any two of which are as different as the features that only one of them has.

Features are plain values; how many there might be is never asked, so that encodings need no bound on the size of a space.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.space import CellSpec, Space

Features = frozenset[Hashable]
Encoding = Callable[[Genotype], Features]
MAX_PATHS = 2000  # of one cell: more take longer than many an evaluation


def adjacency(space: Space) -> Encoding:
    """Which op stands on which edge, one feature for each that is kept: `(kind, e, o)` as in the space's tables (E, O)."""
    def encoded(genotype: Genotype) -> Features:
        return frozenset((kind, e, o) for kind, spec in space.cells.items() for e, o in spec.rows(genotype[kind]))

    return encoded


def paths(space: Space) -> Encoding:
    """The ops along each way from an input of a cell to one of its outputs (BANANAS, White, Neiswanger & Savani 2021, Sec. 4): `(kind,
    input, ops, n)`, whichever nodes the way leads over. A way over an op whose output is zero is none.

    n counts ways of equal ops from 0: two of them add up to another function than one, which the paper's zeros and ones do not tell.
    Raises UsageError: a cell may have more than 2,000 ways.
    """
    for kind, spec in space.cells.items():
        if (most := most_paths(spec)) > MAX_PATHS:
            raise UsageError(f"an encoding by paths takes cells of at most {MAX_PATHS:,} ways from an input to an output, and cell "
                             f"{kind!r} of space {space.name} may have {most:,}: pass encoding=adjacency")
    silent = {op for spec in space.cells.values() for op in spec.ops if not space.op(op).contributes}

    def encoded(genotype: Genotype) -> Features:
        return frozenset((kind, *way, n) for kind, spec in space.cells.items()
                         for way, count in _ways(spec, genotype, kind, silent).items() for n in range(count))

    return encoded


def _ways(spec: CellSpec, genotype: Genotype, kind: str, silent: set[str]) -> Counter[tuple[int, tuple[str, ...]]]:
    """How often each `(input, ops)` leads to an output."""
    to: list[Counter[tuple[int, tuple[str, ...]]]] = [Counter({(node, ()): 1}) for node in range(spec.num_inputs)]
    to += [Counter() for _ in spec.nodes]
    for edge in genotype[kind]:  # ordered by destination: what leads to its source is complete
        if edge.op not in silent:
            for (start, ops), count in to[edge.source].items():
                to[edge.destination][start, (*ops, edge.op)] += count
    return sum((to[node] for node in spec.outputs), Counter())


def most_paths(spec: CellSpec) -> int:
    """How many ways from an input to an output a genotype's cell can have at most."""
    to = [1] * spec.num_inputs
    for i, node in enumerate(spec.nodes):
        each = sorted((to[source] for source, (room, _) in spec.choices(node).items() for _ in range(room)), reverse=True)
        to.append(sum(each[:spec.keep[i][1]]))
    return sum(to[node] for node in spec.outputs)


def both(space: Space) -> Encoding:
    """The features of both encodings."""
    first, second = adjacency(space), paths(space)
    return lambda genotype: first(genotype) | second(genotype)


ENCODINGS: dict[str, Callable[[Space], Encoding]] = {"adjacency": adjacency, "paths": paths, "both": both}


def differences(a: Sequence[Features], b: Sequence[Features]) -> np.ndarray:
    """(A, B): how many features only one of the two has. Exact whole numbers, whatever the order of summation."""
    columns: dict[Hashable, int] = {}
    for features in (*a, *b):
        for feature in features:
            columns.setdefault(feature, len(columns))
    x, y = _table(a, columns), _table(b, columns)
    return (x.sum(1)[:, None] + y.sum(1)[None] - 2 * (x @ y.T)).astype(np.float64)


def _table(rows: Sequence[Features], columns: dict[Hashable, int]) -> np.ndarray:
    """(N, F) of zeros and ones."""
    found = np.zeros((len(rows), len(columns)), np.float32)  # counts are exact up to 2^24
    for row, features in zip(found, rows):
        row[[columns[feature] for feature in features]] = 1
    return found
