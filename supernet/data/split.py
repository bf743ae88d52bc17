"""The training part of a data set, divided into images for the network weights and images for the architecture."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from supernet.data.arrays import read_arrays
from supernet.data.base import DataError
from supernet.genotype import short


@dataclass(frozen=True, eq=False)
class Split:
    """Positions in the training part, int64, disjoint: `train` for w, `val` for alpha or for choosing. Where the data set has a validation
    part of its own, its positions follow those of the training part."""

    train: Tensor
    val: Tensor
    shared: bool = False  # both sides are of all images

    def __post_init__(self) -> None:
        for side, positions in (("train", self.train), ("val", self.val)):
            if positions.dtype != torch.int64 or positions.ndim != 1:
                raise DataError(f"split.{side} must be int64 (N,), got {positions.dtype} {tuple(positions.shape)}")
        both = torch.cat([self.train] if self.shared else [self.train, self.val])
        if len(both.unique()) != len(both) or (len(both) and int(both.min()) < 0):
            raise DataError(f"a split must hold each position once and none below 0, got {len(both)} positions that do not")

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that name this split in logs and checkpoints; the order of the positions counts."""
        sha = hashlib.sha256(f"{len(self.train)} {len(self.val)} ".encode())
        for positions in (self.train, self.val):
            sha.update(positions.numpy().astype("<i8").tobytes())
        return sha.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write `train`, `val`, the digest and whether the sides are shared as an .npz file at exactly `path`."""
        with open(path, "wb") as file:
            np.savez(file, train=self.train.numpy(), val=self.val.numpy(), digest=np.array(self.digest), shared=np.array(self.shared))

    @staticmethod
    def load(path: Path) -> "Split":
        """What `save` wrote; `DataError` when the file is missing, is something else, or was changed."""
        try:
            arrays = read_arrays(path, ("train", "val", "digest", "shared"), max_mb=1024)
        except DataError as error:
            raise DataError(f"{path} must be a split saved as .npz with train, val, digest and shared: {error}") from error
        for side in ("train", "val"):
            if arrays[side].dtype != np.int64:
                raise DataError(f"{path} must be a split: {side} must be int64, got {arrays[side].dtype}")
        train, val = (torch.from_numpy(arrays[side]) for side in ("train", "val"))
        split, digest = Split(train, val, bool(arrays["shared"])), str(arrays["digest"])
        if split.digest != digest:
            raise DataError(f"{path} says its digest is {short(digest)}, but its positions have {split.digest}: the file was changed")
        return split

    @staticmethod
    def digest_in(path: Path) -> str:
        """That of the split which `save` wrote. Raises as `load`."""
        return Split.load(path).digest


def make_split(
    labels: Tensor,
    *,
    mode: str,
    train_portion: float,
    generator: torch.Generator,
    max_train: int | None = None,
    max_val: int | None = None,
    own_val: int = 0,
) -> Split:
    """Divide positions 0..N-1 of `labels`, int64 (N,): the first floor(train_portion * N) of an order train, the rest validate.

    `mode` names the order (`ORDERS`); `generator` is on the host. `train_portion` is in (0, 1]; 1 leaves `val` empty. The last
    `own_val` positions are a validation part that came with the data: where there is one, it is `val`, all others train, and
    `train_portion` counts for nothing. `max_train` and `max_val` keep the first so many of each side. Both sides come back sorted.
    """
    order = ORDERS.get(mode)
    if order is None:
        raise DataError(f"split mode must be one of {', '.join(ORDERS)}, got {mode!r}")
    if not 0 < train_portion <= 1:
        raise DataError(f"train_portion must be in (0, 1], got {train_portion}")
    for name, limit in (("max_train", max_train), ("max_val", max_val)):
        if limit is not None and limit < 1:
            raise DataError(f"{name} must be at least 1, or none, got {limit}")
    if own_val:
        begin = len(labels) - own_val
        train, val = order.of(labels[:begin], generator), begin + order.of(labels[begin:], generator)
    else:
        count = int(np.floor(train_portion * len(labels)))
        if count == 0:
            raise DataError(f"train_portion {train_portion} of {len(labels)} images leaves none to train on")
        if count == len(labels) and train_portion < 1:
            raise DataError(f"train_portion {train_portion} of {len(labels)} images leaves none to validate on")
        whole = order.of(labels, generator)
        train, val = whole[:count], whole[count:]
        if order.by_class and len(val):
            val, train = lend(val, train, labels, keep=1)
            train, val = lend(train, val, labels, keep=1)
    return Split(*(_first(side, limit, labels, order).sort().values for side, limit in ((train, max_train), (val, max_val))))


def _first(side: Tensor, limit: int | None, labels: Tensor, order: "Order") -> Tensor:
    """The first `limit` of a side."""
    kept, rest = side[:limit], side[len(side[:limit]):]
    return lend(kept, rest, labels, keep=0)[0] if order.by_class else kept


def lend(poor: Tensor, rich: Tensor, labels: Tensor, *, keep: int) -> tuple[Tensor, Tensor]:
    """`poor` and `rich`, with one position of every class that `poor` lacks, and `rich` has more than `keep` of, put into `poor`, in
    exchange for one of the class that `poor` has most of; as long as that is more than one. Nothing lacking: both as they are."""
    classes = int(labels.max()) + 1
    has, offered = (torch.bincount(labels[side], minlength=classes) for side in (poor, rich))
    for wanted in ((has == 0) & (offered > keep)).nonzero().flatten().tolist():
        most = int(has.argmax())
        if has[most] < 2:
            break
        poor, rich = poor.clone(), rich.clone()
        here, there = (labels[poor] == most).nonzero()[-1], (labels[rich] == wanted).nonzero()[0]
        poor[here], rich[there] = rich[there], poor[here]
        has[most], has[wanted] = has[most] - 1, 1
    return poor, rich


def lacking(labels: Tensor, split: Split, class_names: Sequence[str], *, mode: str, own_val: int = 0) -> tuple[str, ...]:
    """What is to be said of classes that a side of `split` has no image of. Raises DataError where `mode` is to blame, and another division
    of the same images would have every class on both sides."""
    training, own = labels[: len(labels) - own_val], labels[len(labels) - own_val:]
    counts = torch.bincount(training, minlength=len(class_names))
    notes = []
    if bare := (counts == 0).nonzero().flatten().tolist():
        notes.append(f"note: no training image has class {_listed(bare, class_names)}")
    sides = {"that trains": (split.train, counts, 2 if len(split.val) and not own_val else 1)}
    if len(split.val):
        sides["that validates"] = (split.val, torch.bincount(own, minlength=len(class_names)) if own_val else counts, 1 if own_val else 2)
    for side, (positions, offered, parts) in sides.items():
        missing = (counts > 0) & (torch.bincount(labels[positions], minlength=len(class_names)) == 0)
        needless = missing & (offered >= parts)
        if not ORDERS[mode].by_class and needless.any() and len(positions) >= int((counts > 0).sum()):
            raise DataError(f"split.mode={mode} leaves the part {side} ({len(positions)} images) without class "
                            f"{_listed(needless.nonzero().flatten().tolist(), class_names)}: pass split.mode=stratified")
        if missing.any():
            notes.append(f"note: the part {side} ({len(positions)} images) has no image of class "
                         f"{_listed(missing.nonzero().flatten().tolist(), class_names)}, for lack of images or room")
    return tuple(notes)


def _listed(classes: Sequence[int], names: Sequence[str]) -> str:
    shown = ", ".join(short(names[c]) for c in classes[:5])
    return shown if len(classes) <= 5 else f"{shown} and {len(classes) - 5} more"


def index_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """As the files have it; draws nothing. What the official DARTS code does."""
    return torch.arange(len(labels))


def shuffled(labels: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(labels), generator=generator)


def stratified(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffled so that every stretch of the order holds the classes in their overall proportions, to within about one image each.

    The j-th image of a class of n is placed at (j + 1/2) / n. Any cut of the order is therefore stratified, so that the same
    order serves `train`, `val` and the limits on both.
    """
    order = shuffled(labels, generator)
    mine = labels[order]
    counts = torch.bincount(labels)
    by_class = mine.argsort(stable=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(len(order)) - first
    place = (rank + 0.5).double() / counts[mine]
    return order[place.argsort(stable=True)]  # stable: classes that tie stay in shuffled order


@dataclass(frozen=True)
class Order:
    """`of(labels, generator)` gives the positions in an order; `by_class` says that every stretch of it is to hold every class, so that a
    side which lacks one is lent an image of it."""

    of: Callable[[Tensor, torch.Generator], Tensor]
    by_class: bool = False


ORDERS: dict[str, Order] = {
    "index_order": Order(index_order),
    "stratified": Order(stratified, by_class=True),
    "shuffled": Order(shuffled),
}
