"""Architectures drawn at random, each once: of a space, or of what a table has of one."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from supernet.errors import UsageError

if TYPE_CHECKING:
    from supernet.genotype import Genotype
    from supernet.space import Space
    from supernet.tables.table import Table

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
