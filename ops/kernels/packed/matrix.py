"""Weighted sums to several nodes at once: one matrix product with the scales of all that is added up."""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.kernels.packed.layout import as_rows


class Entry(NamedTuple):
    """What one node is given of one part: `scale * factor * part`; a scalar tensor, a tensor (N, 1, 1, 1), None for 1."""

    node: int
    part: Hashable
    scale: Tensor | None
    factor: Tensor | None


def matrix_of(entries: Sequence[Entry], nodes: Sequence[int], parts: Sequence[Hashable], like: Tensor,
              kept: dict[Any, Any] | None) -> Tensor:
    """The factors by node and part, (nodes, parts); (N, nodes, parts) where images have factors of their own.

    kept: where scales are laid out for all cells that have the same, and whose sums have the same form: a gradient then comes back to each
    scale once, not once a cell.
    """
    row, column = {node: i for i, node in enumerate(nodes)}, {part: i for i, part in enumerate(parts)}
    shape = len(nodes), len(parts)
    places = [row[e.node] * shape[1] + column[e.part] for e in entries]
    scales = [e.scale for e in entries]
    if all(e.factor is None for e in entries):
        return _shared(scales, places, shape, like, kept)
    ones = like.new_ones(len(like))
    factors = [ones if e.factor is None else e.factor.reshape(-1) for e in entries]
    if len(set(places)) < len(places):  # parallel edges, each with factors of its own
        products = [factor if scale is None else scale * factor for scale, factor in zip(scales, factors)]
        return _table(products, places, shape, torch.zeros_like(ones)).permute(2, 0, 1)
    return _shared(scales, places, shape, like, kept) * _table(factors, places, shape, ones).permute(2, 0, 1)


def _shared(scales: Sequence[Tensor | None], places: Sequence[int], shape: tuple[int, int], like: Tensor,
            kept: dict[Any, Any] | None) -> Tensor:
    key = shape, like.dtype, torch.is_grad_enabled(), tuple((place, None if s is None else id(s)) for place, s in zip(places, scales))
    if kept is not None and key in kept:
        return kept[key]
    known = next((s for s in scales if s is not None), like)
    one = known.new_ones(()) if any(s is None for s in scales) else None
    made = _table([one if s is None else s for s in scales], places, shape, known.new_zeros(()))
    if kept is not None:
        kept[key] = made
    return made


def _table(values: Sequence[Tensor], places: Sequence[int], shape: tuple[int, int], empty: Tensor) -> Tensor:
    cells = [empty] * (shape[0] * shape[1])
    for place, value in zip(places, values):
        cells[place] = value if cells[place] is empty else cells[place] + value
    return torch.stack(cells).view(*shape, *empty.shape)


def mixed(matrix: Tensor, parts: Tensor, count: int, layout: torch.memory_format, before: Tensor | None) -> Tensor:
    """The sums (B, nodes, Q), as rows of `layout`; parts (N, count * C, H, W). before: sums so far, to be added to.

    Scales are not rounded to half precision: under autocast too the sums are in theirs.
    """
    with _in_full(parts.device.type):
        rows = as_rows(parts, count, layout).to(matrix.dtype)
        if matrix.dim() == 3:
            matrix = matrix[:, None].expand(-1, len(rows) // len(matrix), -1, -1).flatten(0, 1)
        else:
            matrix = matrix.expand(len(rows), -1, -1)
        return torch.bmm(matrix, rows) if before is None else torch.baddbmm(before, matrix, rows)


def _in_full(device: str) -> AbstractContextManager[Any]:
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if enabled else nullcontext()
