"""Architectures of many trials as data for scripts: each edge once, and an architecture as the numbers of its edges."""

from collections.abc import Sequence
from typing import Any

from supernet.genotype import Edge, Genotype
from supernet.report.frames import frame
from supernet.report.names import edge_labels, lowered, op_family, op_label
from supernet.report.progress import edges_of

MAX_DRAWN_EDGES = 200  # of an architecture; a larger one is told in words


class Architectures:
    """Of one space. outputs: as in `frames.frame`."""

    def __init__(self, genotypes: Sequence[Genotype], outputs: Any = None) -> None:
        places: dict[str, set[tuple[int, int]]] = {}
        for genotype in genotypes:
            for kind, edge in edges_of(genotype):
                places.setdefault(kind, set()).add((edge.source, edge.destination))
        self._kinds = {kind: n for n, kind in enumerate(places)}
        ordered = {kind: sorted(pairs, key=lambda pair: pair[::-1]) for kind, pairs in places.items()}
        self._labels = {kind: dict(zip(pairs, map(lowered, edge_labels(pairs, kind=kind)), strict=True)) for kind, pairs in ordered.items()}
        self._frames = [frame(kind, pairs, outputs=outputs) for kind, pairs in ordered.items()]
        self._parts: dict[tuple[str, Edge], int] = {}
        self._rows = [[self._parts.setdefault(part, len(self._parts)) for part in edges_of(genotype)] for genotype in genotypes]

    def data(self) -> dict[str, Any]:
        """frames: the kinds of cells. parts: kind (its place), source, destination, label of the place, op as it is written, its family.
        rows: of each architecture the numbers of its parts, in the genotype's order. drawn: whether it is small enough."""
        return {"frames": self._frames, "rows": self._rows, "drawn": max(map(len, self._rows), default=0) <= MAX_DRAWN_EDGES,
                "parts": [[self._kinds[kind], edge.source, edge.destination, self._labels[kind][edge.source, edge.destination],
                           op_label(edge.op), op_family(edge.op)] for kind, edge in self._parts]}
