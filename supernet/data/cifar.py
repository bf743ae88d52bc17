"""The two forms in which CIFAR-10 and CIFAR-100 are published, found under one root and read into the same tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from supernet.data.base import DataError, Images, check_labels
from supernet.data.pickled import read_pickle
from supernet.genotype import short

PIXELS = 3 * 32 * 32  # red, green and blue planes, row by row


@dataclass(frozen=True)
class Layout:
    """One published form: `folder` under the root holds the files `train` and `test`, each of so many records.

    `read(path, records)` gives pixels uint8 (records, 3072) and labels (records,). `record_bytes` is the size of a record in
    files that are nothing but records, or 0 where the size says nothing.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    records_train: int  # in each of the files
    records_test: int
    record_bytes: int
    read: Callable[[Path, int], tuple[np.ndarray, np.ndarray]]

    def missing(self, root: Path) -> list[str]:
        return [name for name in (*self.train, *self.test) if not (root / self.folder / name).is_file()]

    def check_sizes(self, root: Path) -> None:
        sizes = [(name, self.records_train) for name in self.train] + [(name, self.records_test) for name in self.test]
        for name, records in sizes if self.record_bytes else ():
            path, want = root / self.folder / name, records * self.record_bytes
            if path.stat().st_size != want:
                raise DataError(f"{path} must have {want} bytes, got {path.stat().st_size}: it is damaged, fetch it again")


def read_records(label_bytes: int) -> Callable[[Path, int], tuple[np.ndarray, np.ndarray]]:
    """A reader of the binary version; of `label_bytes` labels in a record the last counts (CIFAR-100: coarse, then fine)."""

    def read(path: Path, records: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.fromfile(path, np.uint8).reshape(records, label_bytes + PIXELS)
        return rows[:, label_bytes:], rows[:, label_bytes - 1]

    return read


def read_batch(label_key: bytes) -> Callable[[Path, int], tuple[np.ndarray, np.ndarray]]:
    """A reader of the python version, whose labels are under `label_key`."""

    def read(path: Path, records: int) -> tuple[np.ndarray, np.ndarray]:
        batch = read_pickle(path)
        for key in (b"data", label_key):
            if key not in batch:
                raise DataError(f"{path} must hold {key.decode()!r}, got keys {short(list(batch)[:10])}")
        pixels, labels = batch[b"data"], batch[label_key]
        if type(pixels) is not np.ndarray or pixels.shape != (records, PIXELS):
            seen = f"uint8 {pixels.shape}" if type(pixels) is np.ndarray else type(pixels).__name__
            raise DataError(f"{path} must hold {records} rows of {PIXELS} uint8 pixels and as many labels, got {seen}")
        # types before numpy sees them: a list may hold lists without end
        if type(labels) is not list or len(labels) != records or not all(type(n) is int and 0 <= n < 2**31 for n in labels):
            seen = f"{type(labels).__name__}{f' of {len(labels)}' if type(labels) is list else ''}"
            raise DataError(f"{path} must hold {records} rows of {PIXELS} uint8 pixels and as many labels, a list of whole numbers, "
                            f"got {seen}")
        labels = np.array(labels, np.int64)
        return pixels, labels

    return read


def find(layouts: tuple[Layout, ...], root: Path, remedy: str) -> Layout:
    """The first layout that is complete under `root`; `DataError` naming what is missing where, and the `remedy`."""
    lacking = {layout: layout.missing(root) for layout in layouts}
    for layout, names in lacking.items():
        if not names:
            layout.check_sizes(root)
            return layout
    places = " and ".join(
        f"{root / layout.folder} ({'no ' + ', '.join(names) if (root / layout.folder).is_dir() else 'no such directory'})"
        for layout, names in lacking.items()
    )
    raise DataError(f"looked for the data set in {places}: {remedy}")


def read_part(layout: Layout, root: Path, names: tuple[str, ...], records: int, num_classes: int) -> Images:
    """The records of the files `names`, in order."""
    pixels = np.empty((len(names), records, PIXELS), np.uint8)
    labels = np.empty((len(names), records), np.int64)
    for i, name in enumerate(names):
        pixels[i], labels[i] = layout.read(root / layout.folder / name, records)
        check_labels(torch.from_numpy(labels[i]), num_classes, str(root / layout.folder / name))
    return Images(torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.from_numpy(labels).view(-1))
