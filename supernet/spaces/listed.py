"""Cells whose edges and ops are listed, one by one: a space of one's own from YAML alone (conf/space/listed.yaml)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from supernet.genotype import short
from supernet.ranges import Range, ranged
from supernet.space import CellSpec, Space
from supernet.spaces import darts, nasbench201

MAX_NODES = 32  # a genotype file may say how many: a bound, so that it cannot ask for a space that never ends
# By a cell's input nodes: the stack of cells that it is built into, its kinds of cells with their strides.
SKELETONS: dict[int, tuple[Callable[..., Any], dict[str, int]]] = {
    1: (nasbench201.build, {"cell": 1}),
    2: (darts.build, {"normal": 1, "reduce": 2}),
}


@ranged
def make(*, inputs: Annotated[int, Range(1, 2)], cells: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space of the listed cells.

    inputs: 2 for cells `normal` and `reduce`, stacked as in DARTS; 1 for one `cell`, stacked as in NAS-Bench-201.
    cells: by kind, `edges`, a list of [source, destination, [op, ...]] where nodes count from 0 and the inputs come first; `keep`, how many
    edges a genotype keeps at each node, [fewest, most] or null for all; `outputs`, the nodes that are concatenated (exactly one in
    cells of one input); `unselectable`, ops that take part in the search and are never selected (optional).
    """
    build, strides = SKELETONS[inputs]
    if sorted(cells) != sorted(strides):
        raise ValueError(f"space.cells must hold {' and '.join(strides)} where inputs is {inputs}, got {short(sorted(cells))}")
    specs = {kind: _spec(kind, inputs, stride, **_checked(kind, cells[kind])) for kind, stride in strides.items()}
    arguments = {"inputs": inputs, "cells": {kind: dict(cell) for kind, cell in cells.items()}}
    return Space("listed", arguments, specs, build, auxiliary_head=inputs == 2)


def _checked(kind: str, cell: Any) -> dict[str, Any]:
    allowed, needed = {"edges", "keep", "outputs", "unselectable"}, {"edges", "keep", "outputs"}
    if not isinstance(cell, Mapping) or not needed <= set(cell) <= allowed:
        seen = short(sorted(cell)) if isinstance(cell, Mapping) else short(cell)
        raise ValueError(f"space.cells.{kind} must have edges, keep and outputs, and may have unselectable; got {seen}")
    return dict(cell)


def _spec(kind: str, inputs: int, stride: int, *, edges: Sequence[Any], keep: Any, outputs: Sequence[int],
          unselectable: Sequence[str] = ()) -> CellSpec:
    where = f"space.cells.{kind}"
    for edge in edges:
        if not (isinstance(edge, list | tuple) and len(edge) == 3 and type(edge[0]) is type(edge[1]) is int and edge[1] < MAX_NODES
                and isinstance(edge[2], list | tuple) and all(type(op) is str for op in edge[2])):
            raise ValueError(f"{where}.edges must list [source, destination, [op, ...]] with nodes below {MAX_NODES}, got {short(edge)}")
    bounds = (keep, keep) if type(keep) is int else keep
    if bounds is not None and not (isinstance(bounds, list | tuple) and len(bounds) == 2 and all(type(n) is int for n in bounds)
                                   and 0 <= bounds[0] <= bounds[1] and bounds[1] >= 1):
        raise ValueError(f"{where}.keep must be a positive number, [fewest, most] or null, got {short(keep)}")
    if inputs == 1 and len(outputs) != 1:
        raise ValueError(f"{where}.outputs must name one node in a cell of one input, got {short(outputs)}")
    try:
        return CellSpec.listed(num_inputs=inputs, edges=[tuple(e) for e in edges], keep=None if bounds is None else tuple(bounds),
                               outputs=outputs, unselectable=unselectable, stride=stride)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
