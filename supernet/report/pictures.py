"""Drawings of a run's architecture and of its edge weights."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supernet.genotype import Genotype
from supernet.runs.folder import RunFolder
from supernet.space import Space
from supernet.weights import EdgeWeights


def save_drawings(folder: RunFolder, genotype: Genotype, space: Space) -> None:
    from supernet.report.draw import draw_cells

    outputs = {kind: spec.outputs for kind, spec in space.cells.items()}
    inputs = {kind: spec.num_inputs for kind, spec in space.cells.items()}
    for path in (folder.cell_svg, folder.cell_png):
        draw_cells(genotype, path, outputs=outputs, num_inputs=inputs)


def pictures(folder: RunFolder, genotype: Genotype, space: Space, weights: EdgeWeights) -> dict[str, Callable[[], Any]]:
    """What a tracker shows of an epoch: the cells, and a heat map of the edge weights of each kind. Drawn when called."""

    def cells() -> Path:
        save_drawings(folder, genotype, space)
        return folder.cell_png

    def heat(kind: str) -> Any:
        from supernet.report.curves import heat_map
        from supernet.report.names import edge_labels

        spec = space.cells[kind]
        return heat_map(weights[kind].ops.cpu().numpy(), edge_labels(spec.edges, spec.num_inputs, kind), list(spec.ops))

    return {"cells": cells} | {f"weights/{kind}": functools.partial(heat, kind) for kind in space.cells}
