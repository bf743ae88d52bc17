"""Small tensors of many ops one after the other: a launch a cell instead of one or more an op."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.op import BatchNorm

Piece = tuple[Tensor, ...]  # weights, to be stacked along their first axis


def stacked(pieces: Sequence[Piece]) -> list[Tensor]:
    """Each piece along the first axis; its kernels are padded with zeros to the largest of them, which is odd as all are.

    Kernels whose elements lie alike in both memory formats (depthwise and pointwise ones) are stacked all at once, whatever their shapes.
    """
    sizes = [max(w.shape[-1] for w in piece) for piece in pieces]
    padded = iter(_padded([(w, size) for piece, size in zip(pieces, sizes) for w in piece]))
    wide = [tuple(next(padded) for _ in piece) for piece in pieces]
    groups: dict[Hashable, list[int]] = {}
    for i, piece in enumerate(wide):
        groups.setdefault("flat" if _is_flat(piece[0]) else piece[0].shape[1:], []).append(i)
    found: dict[int, Tensor] = {}
    for shape, members in groups.items():
        flat = shape == "flat"
        whole = torch.cat([w.reshape(-1) if flat else w for i in members for w in wide[i]])
        lengths = [sum(w.numel() if flat else len(w) for w in wide[i]) for i in members]
        for i, part in zip(members, whole.split(lengths)):
            found[i] = part.view(-1, *wide[i][0].shape[1:]) if flat else part
    return [found[i] for i in range(len(pieces))]


def _is_flat(weight: Tensor) -> bool:
    return weight.shape[1] == 1 or weight.shape[2:].numel() == 1


def _padded(weights: Sequence[tuple[Tensor, int]]) -> list[Tensor]:
    """Each kernel padded to its size; all that grow alike in one go."""
    found = [w for w, _ in weights]
    groups: dict[Hashable, list[int]] = {}
    for i, (w, size) in enumerate(weights):
        if w.shape[-1] != size:
            groups.setdefault((w.shape[1:], size), []).append(i)
    for (shape, size), members in groups.items():
        around = (size - shape[-1]) // 2
        wide = F.pad(torch.cat([found[i] for i in members]), (around,) * 4)
        for i, part in zip(members, wide.split([len(found[i]) for i in members])):
            found[i] = part
    return found


class Averages:
    """Running means and variances of many batch norms, stacked: those of norms one after the other are one pair of vectors."""

    def __init__(self, norms: Iterable[BatchNorm]):
        self._norms = [n for n in dict.fromkeys(norms) if needs_averages(n)]
        self._at = dict(zip(self._norms, accumulate((n.channels for n in self._norms), initial=0)))
        self._apart: list[tuple[BatchNorm, Tensor, Tensor]] = []
        with torch.no_grad():
            self._means, self._variances = _both(self._norms)

    def of(self, norms: Sequence[BatchNorm]) -> tuple[Tensor, Tensor]:
        """Of `norms`, to be read, and to be moved where the norms follow."""
        width, first = sum(n.channels for n in norms), self._at.get(norms[0])
        if first is not None and [self._at.get(n) for n in norms] == list(accumulate((n.channels for n in norms), initial=first))[:-1]:
            return self._means[first : first + width], self._variances[first : first + width]
        with torch.no_grad():
            means, variances = _both(norms)
        channels = [n.channels for n in norms]
        self._apart += zip(norms, means.split(channels), variances.split(channels))
        return means, variances

    @torch.no_grad()
    def write(self) -> None:
        """Moves the norms' own to what these have become."""
        moved = self._apart
        if self._norms:
            channels = [n.channels for n in self._norms]
            moved = [*zip(self._norms, self._means.split(channels), self._variances.split(channels)), *moved]
        pairs = [pair for norm, *new in moved if norm.follows() is not None for pair in zip(norm.follows(), new)]
        if pairs:
            torch._foreach_copy_(*map(list, zip(*pairs)))


def needs_averages(norm: BatchNorm) -> bool:
    return not norm.asks_moments or norm.follows() is not None


def _both(norms: Sequence[BatchNorm]) -> tuple[Tensor, Tensor]:
    if not norms:
        return torch.empty(0), torch.empty(0)
    means, variances = torch.cat([*(n.running_mean for n in norms), *(n.running_var for n in norms)]).chunk(2)
    return means, variances


def likeness(norm: BatchNorm) -> Hashable:
    """Equal for norms that one call computes."""
    return norm.asks_moments, norm.follows() is None, norm.eps, norm.momentum, norm.weight is None


def normalised(x: Tensor, norms: Sequence[BatchNorm], averages: Averages) -> Tensor:
    """x (N, M * C, H, W), each part of its channels by its own of M norms that are alike."""
    first = norms[0]
    mean, variance = averages.of(norms) if needs_averages(first) else (None, None)
    weight, bias = (None, None) if first.weight is None else (torch.cat([n.weight for n in norms]), torch.cat([n.bias for n in norms]))
    return F.batch_norm(x, mean, variance, weight, bias, first.asks_moments, first.momentum, first.eps)
