"""The published table of Accel-NASBench (Ahmad et al. 2024): a row a network, with accuracies on ImageNet and what it costs."""

from collections.abc import Mapping, Sequence

import numpy as np

from supernet.genotype import Edge, Genotype
from supernet.space import Space
from supernet.tables.table import Columns, Table

FIELDS = {"expansion": "e", "kernel": "k", "depth": "l", "squeeze": "se"}  # of a block's columns: block0_e, ...
FIRST = "block0_e"  # by which the header is known
# One accuracy is published: as elsewhere in the literature it stands for the test as well.
DATASETS = {"imagenet": Columns("val_top1", "val_top1", "train_seconds")}


def genotype_of(space: Space, row: Mapping[str, str]) -> Genotype:
    """That of a row, by its columns. Raises KeyError: it lacks one; GenotypeError: the space has no such choice."""
    def op(kind: str, block: int) -> str:
        value = row[f"block{block}_{FIELDS[kind]}"]
        return {"0": "no_se", "1": "se"}.get(value, f"squeeze_{value}") if kind == "squeeze" else f"{kind}_{value}"

    return space.genotype({kind: [Edge(d, s, op(kind, s)) for s, d in spec.edges] for kind, spec in space.cells.items()})


def table(source: str, head: Sequence[str], rows: Sequence[Sequence[str]], space: Space, files: dict[str, str]) -> Table:
    """Networks that stand more than once are one row of the means. Raises ValueError, KeyError: it is no such table."""
    if set(space.cells) != set(FIELDS):
        raise ValueError(f"a table of Accel-NASBench is one of space accel_mnasnet, not of {space.name!r}")
    texts = [space.text(genotype_of(space, dict(zip(head, row)))) for row in rows]
    places: dict[str, list[int]] = {}
    for n, text in enumerate(texts):
        places.setdefault(text, []).append(n)
    columns = {}
    for i, name in enumerate(head):
        if not name.startswith("block"):
            values = np.array([row[i] or "nan" for row in rows]).astype(np.float64)
            columns[name] = np.array([values[own].mean() for own in places.values()])
    return Table(space, places, columns, DATASETS, source=source, files=files)
