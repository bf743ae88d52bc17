"""A data set in one .npz file."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from supernet.data.arrays import headers, names_in, read_arrays
from supernet.data.base import DataError, Images
from supernet.data.pixels import blank, blank_channels, stored_as, to_8_bits
from supernet.data.statistics import mean_and_std
from supernet.ranges import Positive, ranged

LAYOUTS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {  # number of axes, and how they become N, C, H, W
    "NHWC": (4, lambda images: images.transpose(0, 3, 1, 2)),
    "NCHW": (4, lambda images: images),
    "NHW": (3, lambda images: images[:, None]),
}
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@ranged
class Npz:
    """The arrays train_images, train_labels, test_images and test_labels of the .npz file at `path`; `val`_images and `val`_labels, where
    there are any, are a validation part of its own (`val` None: not read).

    Images have the axes that `layout` names (`LAYOUTS`). They are uint8, or are scaled to it as `pixels.to_8_bits` says, with `white` the
    value that is white. Labels are whole numbers from 0, or from 1 where none is 0. Classes are called by `class_names`, or by
    the file's array of that name, or by their labels. Mean and standard deviation are train_images'. `max_mb`: MiB that the images of a
    part may take, which is known before they are unpacked.
    """

    name = "npz"

    def __init__(
        self,
        path: str,
        layout: str = "NHWC",
        class_names: Sequence[str] | None = None,
        val: str | None = "val",
        white: Positive | None = None,
        max_mb: Positive = 4096,
    ) -> None:
        if layout not in LAYOUTS:
            raise DataError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        if val in ("train", "test", ""):
            raise DataError(f"val must be the first word of the validation arrays, or null, got {val!r}")
        self.path = Path(path)
        self.layout = layout
        self.val, self.white, self.max_mb = val, white, max_mb
        self._given_names = tuple(class_names or ())

    def check(self) -> None:
        if not self.path.is_file():
            raise DataError(f"looked for an .npz file with {', '.join(ARRAYS)} at {self.path}: there is none, set dataset.path")
        lacking = [name for name in (*ARRAYS, *self._own_val) if name not in self._names]
        if lacking:
            raise DataError(f"{self.path} must hold {', '.join((*ARRAYS, *self._own_val))}; it lacks {', '.join(lacking)} and has "
                            f"{', '.join(self._names)[:200]}")

    def train(self) -> Images:
        return self._train

    def test(self) -> Images:
        return self._read("test")

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classes[0]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        return self._train.pixels.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self._train.pixels.shape[2:]
        return height, width

    @property
    def mean(self) -> tuple[float, ...]:
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(value or 1.0 for value in self._statistics[1])  # of a constant channel 1: it is then 0 everywhere

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return mean_and_std(self._train.pixels[: len(self._train) - self._train.own_val])

    @cached_property
    def _train(self) -> Images:
        train = self._read("train")
        notes = (*train.notes, *self._channel_notes(train), *self._label_notes)
        if not self._own_val:
            return Images(train.pixels, train.labels, stored=train.stored, notes=notes)
        val = self._read(self.val)
        if val.pixels.shape[1:] != train.pixels.shape[1:]:
            raise DataError(f"{self.path}: {self.val}_images must be of the size of train_images, {tuple(train.pixels.shape[1:])} "
                            f"(channels, height, width), got {tuple(val.pixels.shape[1:])}")
        return Images(torch.cat([train.pixels, val.pixels]), torch.cat([train.labels, val.labels]), own_val=len(val),
                      stored=train.stored, notes=(*notes, *val.notes))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return names_in(self.path)

    @property
    def _own_val(self) -> tuple[str, ...]:
        """The arrays of the validation part: none where the file has neither, of the name that is looked for by default."""
        if self.val is None:
            return ()
        arrays = f"{self.val}_images", f"{self.val}_labels"
        return arrays if self.val != "val" or set(arrays) & set(self._names) else ()

    @cached_property
    def _classes(self) -> tuple[tuple[str, ...], int]:
        """Their names, and the label of the first."""
        self.check()
        labels = self._labels("train")
        low, high = int(labels.min()), int(labels.max())
        names = self._given_names or self._stored_names()
        if names:
            return names, int((low, high) == (1, len(names)))
        first = int(low == 1)
        present = len(np.unique(labels))
        if low < 0:
            raise DataError(f"{self.path}: train_labels: labels must be in 0..{high}, got {low}..{high}")
        if 2 * present < high + 1 - first:  # most are missing: what was meant as classes would be a guess
            raise DataError(f"{self.path}: train_labels has {present} different labels between {low} and {high}: number the classes from "
                            "0, or name all of them (class_names)")
        return tuple(str(label) for label in range(first, high + 1)), first

    def _stored_names(self) -> tuple[str, ...]:
        if "class_names" not in self._names:
            return ()
        names = self._array("class_names")
        if names.dtype.kind not in "US" or names.ndim != 1 or not len(names):
            raise DataError(f"{self.path}: class_names must be texts, one a class, got {names.dtype} {names.shape}")
        return tuple(name.decode("utf-8", "replace") if names.dtype.kind == "S" else str(name) for name in names.tolist())

    @property
    def _label_notes(self) -> tuple[str, ...]:
        names, first = self._classes
        if not first:
            return ()
        return (f"note: train_labels count from 1: label 1 is the first of {len(names)} classes",)

    def _channel_notes(self, train: Images) -> tuple[str, ...]:
        """Raises DataError: all images are one and the same colour."""
        flat = blank_channels(train.pixels)
        if len(flat) == train.pixels.shape[1] and len(set(flat.values())) == 1 and len(train) > 1:
            raise DataError(f"{self.path}: every pixel of the {len(train)} train_images is {next(iter(flat.values()))} of 255, there is "
                            "nothing to tell them apart by")
        return tuple(f"note: channel {channel} of train_images is {value} of 255 in every image" for channel, value in flat.items())

    def _array(self, name: str) -> np.ndarray:
        return read_arrays(self.path, [name], max_mb=self.max_mb)[name]

    def _labels(self, part: str) -> np.ndarray:
        """Of any whole numbers, as many as there are images."""
        name = f"{part}_labels"
        header, images = (headers(self.path, [n])[n] for n in (name, f"{part}_images"))
        if header.dtype.kind not in "iu" or header.shape != images.shape[:1]:
            raise DataError(f"{self.path}: {name} must be {images.shape[0] if images.shape else 0} whole numbers, one an image, got "
                            f"{header.dtype} {header.shape}")
        if not header.shape[0]:
            raise DataError(f"{self.path}: {part}_images must hold images, got none")
        return self._array(name)

    def _images(self, part: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """As uint8 (N, C, H, W), and what is to be said of their axes."""
        name = f"{part}_images"
        header = headers(self.path, [name])[name]
        axes, to_nchw = LAYOUTS[self.layout]
        if len(header.shape) != axes or 0 in header.shape:
            fits = [layout for layout, (count, _) in LAYOUTS.items() if count == len(header.shape) and 0 not in header.shape]
            raise DataError(f"{self.path}: {name} must have axes {self.layout}, got {header.dtype} {header.shape}"
                            + (f": pass dataset.source.layout={' or '.join(fits)}" if fits else ""))
        notes: tuple[str, ...] = ()
        if self.layout == "NHWC" and header.shape[1] in (1, 3, 4) and header.shape[3] > 4:
            first = f"{name} of {header.shape} look like channels first"
            if header.shape[2] == header.shape[3]:
                raise DataError(f"{self.path}: {first}: pass dataset.source.layout=NCHW")
            notes = (f"note: {first}; read as {header.shape[3]} channels. dataset.source.layout=NCHW reads them otherwise",)
        if header.size_bytes > self.max_mb * 2**20:
            raise DataError(f"{self.path}: {name}, {header.dtype} {header.shape}, takes {header.size_bytes / 2**20:,.0f} MiB unpacked, "
                            f"more than dataset.source.max_mb={self.max_mb:g}")
        pixels = to_8_bits(self._array(name), self.white, f"{self.path}: {name}")
        return np.ascontiguousarray(to_nchw(pixels)), notes

    def _read(self, part: str) -> Images:
        self.check()
        name = f"{part}_images"
        pixels, notes = self._images(part)
        names, first = self._classes
        labels = self._labels(part)
        low, high = int(labels.min()), int(labels.max())
        if not first <= low <= high < first + len(names):
            raise DataError(f"{self.path}: {part}_labels: labels must be in {first}..{first + len(names) - 1}, got {low}..{high}")
        images = torch.from_numpy(pixels)
        if any(plain := blank(images).tolist()):
            notes += (f"note: {sum(plain)} of {len(images)} {name}, the first at {plain.index(True)}, are one colour throughout",)
        return Images(images, torch.from_numpy(labels.astype(np.int64) - first), stored=stored_as(headers(self.path, [name])[name].dtype),
                      notes=notes)
