"""The training part of a data set, divided into images for the network weights and images for the architecture."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from supernet.data.base import DataError
from supernet.files import DAMAGED, check_zip

MAX_BYTES = 2**33  # of the positions in a file


@dataclass(frozen=True, eq=False)
class Split:
    """Positions in the training part, int64, disjoint: `train` for w, `val` for alpha or for choosing."""

    train: Tensor
    val: Tensor

    def __post_init__(self) -> None:
        for side, positions in (("train", self.train), ("val", self.val)):
            if positions.dtype != torch.int64 or positions.ndim != 1:
                raise DataError(f"split.{side} must be int64 (N,), got {positions.dtype} {tuple(positions.shape)}")
        both = torch.cat([self.train, self.val])
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
        """Write `train`, `val` and the digest as an .npz file at exactly `path`."""
        with open(path, "wb") as file:
            np.savez(file, train=self.train.numpy(), val=self.val.numpy(), digest=np.array(self.digest))

    @staticmethod
    def load(path: Path) -> "Split":
        """What `save` wrote; `DataError` when the file is missing, is something else, or was changed."""
        try:
            check_zip(path, MAX_BYTES)
            with np.load(path, allow_pickle=False) as file:
                train, val, digest = file["train"], file["val"], str(file["digest"])
        except (OSError, KeyError, *DAMAGED) as error:
            raise DataError(f"{path} must be a split saved as .npz with train, val and digest: {error}") from error
        split = Split(torch.from_numpy(train), torch.from_numpy(val))
        if split.digest != digest:
            raise DataError(f"{path} says its digest is {digest}, but its positions have {split.digest}: the file was changed")
        return split


def make_split(
    labels: Tensor,
    *,
    mode: str,
    train_portion: float,
    generator: torch.Generator,
    max_train: int | None = None,
    max_val: int | None = None,
) -> Split:
    """Divide positions 0..N-1 of `labels`, int64 (N,): the first floor(train_portion * N) of an order train, the rest validate.

    `mode` names the order (`ORDERS`); `generator` is on the host. `train_portion` is in (0, 1]; 1 leaves `val` empty.
    `max_train` and `max_val` keep the first so many of each side. Both sides come back sorted.
    """
    order_by = ORDERS.get(mode)
    if order_by is None:
        raise DataError(f"split mode must be one of {', '.join(ORDERS)}, got {mode!r}")
    if not 0 < train_portion <= 1:
        raise DataError(f"train_portion must be in (0, 1], got {train_portion}")
    for name, limit in (("max_train", max_train), ("max_val", max_val)):
        if limit is not None and limit < 1:
            raise DataError(f"{name} must be at least 1, or none, got {limit}")
    count = int(np.floor(train_portion * len(labels)))
    if count == 0:
        raise DataError(f"train_portion {train_portion} of {len(labels)} images leaves none to train on")
    if count == len(labels) and train_portion < 1:
        raise DataError(f"train_portion {train_portion} of {len(labels)} images leaves none to validate on")
    order = order_by(labels, generator)
    return Split(order[:count][:max_train].sort().values, order[count:][:max_val].sort().values)


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


ORDERS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "index_order": index_order,
    "stratified": stratified,
    "shuffled": shuffled,
}
