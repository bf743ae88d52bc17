"""What a model is told of an architecture: a set of features, any two of which are as different as the features that only one of them has.

Features are plain values; how many there might be is never asked, so that encodings need no bound on the size of a space.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence, Set

import numpy as np

from supernet.errors import UsageError
from supernet.genotype import Edge, Genotype
from supernet.space import CellSpec, Space

Features = frozenset[Hashable]
Way = tuple[int, tuple[str, ...]]  # an input, and the ops from there
Encoding = Callable[[Genotype], Features]
MAX_PATHS = 2000  # of one cell: more take longer than many an evaluation
REMEMBERED = 20_000  # encodings of one space


def adjacency(space: Space) -> Encoding:
    """Which op stands on which edge, one feature for each that is kept: `(kind, e, o)` as in the space's tables (E, O)."""
    def encoded(genotype: Genotype) -> Features:
        return frozenset((kind, e, o) for kind, spec in space.cells.items() for e, o in spec.rows(genotype[kind]))

    return encoded


def paths(space: Space) -> Encoding:
    """The ops along each way from an input of a cell to one of its outputs: `(kind, input, ops, n)`, whichever nodes the way leads over
    (BANANAS, White, Neiswanger & Savani 2021, Sec. 4). A way over an op whose output is zero is none.

    Two things differ from the paper, so that cells of one function, which it tells apart, are the same: a skip connection, where it hands
    on its input as it is, is no op of a way; and n counts ways of the same ops, from 0, since two of them add up to another function than
    one. An op on a sum has the ways of a sum of ops, so that some cells of different functions are the same too. Raises UsageError: a cell
    may have more than 2,000 ways.
    """
    for kind, spec in space.cells.items():
        if (most := most_paths(spec)) > MAX_PATHS:
            raise UsageError(f"an encoding by paths takes cells of at most {MAX_PATHS:,} ways from an input to an output, and cell "
                             f"{kind!r} of space {space.name} may have {most:,}: pass encoding=adjacency")
    traits = {op: space.op(op) for spec in space.cells.values() for op in spec.ops}
    silent = {op for op, known in traits.items() if not known.contributes}
    skips = {op for op, known in traits.items() if known.is_skip}

    def encoded(genotype: Genotype) -> Features:
        return frozenset((kind, *way, n) for kind, spec in space.cells.items()
                         for way, count in _ways(spec, genotype[kind], silent, skips).items() for n in range(count))

    return encoded


def _ways(spec: CellSpec, edges: Sequence[Edge], silent: Set[str], skips: Set[str]) -> Counter[Way]:
    """How often each way leads to an output."""
    to: list[Counter[Way]] = [Counter({(node, ()): 1}) for node in range(spec.num_inputs)]
    to += [Counter() for _ in spec.nodes]
    for edge in edges:  # ordered by destination: what leads to its source is complete
        if edge.op in silent:
            continue
        kept = edge.source >= spec.num_inputs or spec.stride == 1  # the image's size, without which a skip does compute something
        own = () if edge.op in skips and kept else (edge.op,)
        for (start, ops), count in to[edge.source].items():
            to[edge.destination][start, ops + own] += count
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


class Numbered:
    """An encoding as numbers, which features have from 0 in the order in which they are met, so that many can be compared at once. It
    remembers the architectures that it was asked for."""

    def __init__(self, encode: Encoding):
        self._encode, self._number, self._known = encode, {}, {}

    def __call__(self, genotype: Genotype) -> np.ndarray:
        """(F,): the numbers of its features, each once."""
        if genotype not in self._known:
            if len(self._known) == REMEMBERED:
                self._known.clear()
            numbers = [self._number.setdefault(feature, len(self._number)) for feature in self._encode(genotype)]
            self._known[genotype] = np.array(numbers, np.intp)
        return self._known[genotype]


def differences(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """(A, B): how many features only one of the two has, of architectures as `Numbered` gives them. Exact, so that it is the same however
    features are numbered."""
    sizes = np.array([len(features) for features in (*a, *b)])
    used, column = np.unique(np.concatenate([*a, *b]), return_inverse=True)
    table = np.zeros((len(sizes), len(used)), np.float32)  # of zeros and ones, whose sums are exact up to 2^24
    table[np.repeat(np.arange(len(sizes)), sizes), column] = 1
    shared = (table[:len(a)] @ table[len(a):].T).astype(np.float64)
    return sizes[:len(a), None] + sizes[None, len(a):] - 2 * shared
