"""Architectures drawn at random, each once: of a space, or of what a table has of one."""

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from supernet.errors import UsageError

if TYPE_CHECKING:
    from supernet.genotype import Genotype
    from supernet.space import Space
    from supernet.tables.table import Table
    from supernet.trials import Evaluation

LISTED = 50_000  # a space of so many is listed and shuffled; of a larger one architectures are sampled until there are enough


def drawn(space: "Space", n: int, rng: random.Random) -> "list[Genotype]":
    """`n` different architectures, uniformly. With the same `rng` the first of them are those of a smaller `n`, so that a sample can grow.
    Raises UsageError: the space has fewer."""
    if n > space.count():
        raise UsageError(f"n must be at most the {space.count()} architectures of space {space.name}, got {n}")
    if space.count() <= LISTED:
        listed = list(space.enumerate())
        rng.shuffle(listed)
        return listed[:n]
    found: dict[Genotype, None] = {}
    while len(found) < n:
        found[space.sample(rng)] = None
    return list(found)


def drawn_rows(table: "Table", n: int, rng: random.Random,
               takes_part: "Callable[[Genotype], bool]" = lambda genotype: True) -> "list[Genotype]":
    """`n` different architectures among a table's rows, of those that take part. Raises UsageError: there are fewer."""
    rows = list(range(len(table)))
    rng.shuffle(rows)
    found = []
    for row in rows:
        if len(found) == n:
            break
        if takes_part(genotype := table.genotype(row)):
            found.append(genotype)
    if len(found) < n:
        raise UsageError(f"n must be at most the {len(found)} architectures that {table.source} has of space {table.space.name}, got {n}")
    return found


def affordable(space: "Space", evaluate: "Callable[[Genotype], Evaluation]", seconds: float,
               rng: random.Random) -> "tuple[Genotype, float]":
    """The best by `accuracy` of as many architectures as `seconds` pay for, each drawn uniformly and evaluated in its turn, and what they
    cost: random search as NAS-Bench-201 simulates it (Dong and Yang 2020, Sec. 4). The first that would cost too much ends it. Where not
    even one can be paid, it is the first drawn. What has no accuracy or cost is passed over."""
    best, spent = (-math.inf, None), 0.0
    while True:
        genotype = space.sample(rng)
        best = (best[0], best[1] or genotype)
        found = evaluate(genotype)
        accuracy, cost = found.metrics["accuracy"], found.simulated_s
        if math.isnan(accuracy) or not cost > 0:
            continue
        if spent + cost > seconds:
            return best[1], spent
        spent += cost
        best = max(best, (accuracy, genotype), key=lambda pair: pair[0])
