"""What CIFAR-10 and CIFAR-100 share: two published forms, found under one root and read into the same tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from supernet.data.base import DataError, Images, check_labels
from supernet.data.download import download
from supernet.data.pickled import read_pickle
from supernet.genotype import short

PIXELS = 3 * 32 * 32  # red, green and blue planes, row by row


@dataclass(frozen=True)
class Form:
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


def find(forms: tuple[Form, ...], root: Path, remedy: str) -> Form:
    """The first form that is complete under `root`; `DataError` naming what is missing where, and the `remedy`."""
    lacking = {form: form.missing(root) for form in forms}
    for form, names in lacking.items():
        if not names:
            form.check_sizes(root)
            return form
    places = " and ".join(
        f"{root / form.folder} ({'no ' + ', '.join(names) if (root / form.folder).is_dir() else 'no such directory'})"
        for form, names in lacking.items()
    )
    raise DataError(f"looked for the data set in {places}: {remedy}")


def read_part(form: Form, root: Path, names: tuple[str, ...], records: int, num_classes: int) -> Images:
    """The records of the files `names`, in order."""
    pixels = np.empty((len(names), records, PIXELS), np.uint8)
    labels = np.empty((len(names), records), np.int64)
    for i, name in enumerate(names):
        pixels[i], labels[i] = form.read(root / form.folder / name, records)
        check_labels(torch.from_numpy(labels[i]), num_classes, str(root / form.folder / name))
    return Images(torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.from_numpy(labels).view(-1))


@dataclass(frozen=True)
class Cifar:
    """An interface: a data set of this family, under `root`. Image i is torchvision's image i.

    With `download`, `check()` fetches the python version where no form is complete. forms: how it is published, in the order in which they
    are looked for. torchvision_name: of the class that fetches it. by_hand: how to get it without.
    """

    root: str = "data"
    download: bool = False

    name: ClassVar[str]
    class_names: ClassVar[tuple[str, ...]]
    num_classes: ClassVar[int]
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    torchvision_name: ClassVar[str]
    by_hand: ClassVar[str]
    in_channels = 3
    image_size = (32, 32)

    @staticmethod
    def forms() -> tuple[Form, ...]:
        raise NotImplementedError

    def check(self) -> None:
        if self.download and all(form.missing(Path(self.root)) for form in self.forms()):
            download(self.torchvision_name, Path(self.root), self.by_hand)
        self._found()

    def train(self) -> Images:
        form = self._found()
        return read_part(form, Path(self.root), form.train, form.records_train, self.num_classes)

    def test(self) -> Images:
        form = self._found()
        return read_part(form, Path(self.root), form.test, form.records_test, self.num_classes)

    def _found(self) -> Form:
        return find(self.forms(), Path(self.root), f"run with dataset.download=true, or {self.by_hand}")
