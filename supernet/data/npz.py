"""A data set in one .npz file."""

import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from supernet.data.base import DataError, Images, check_labels
from supernet.data.statistics import mean_and_std

LAYOUTS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {  # number of axes, and how they become N, C, H, W
    "NHWC": (4, lambda images: images.transpose(0, 3, 1, 2)),
    "NCHW": (4, lambda images: images),
    "NHW": (3, lambda images: images[:, None]),
}
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Npz:
    """The arrays train_images, train_labels, test_images and test_labels of the .npz file at `path`.

    Images are uint8 with the axes that `layout` names (`LAYOUTS`), labels whole numbers from 0. Classes are called by
    `class_names`, or by the file's array of that name, or by their numbers. Mean and standard deviation are train_images'.
    """

    name = "npz"

    def __init__(self, path: str, layout: str = "NHWC", class_names: Sequence[str] | None = None) -> None:
        if layout not in LAYOUTS:
            raise DataError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        self.path = Path(path)
        self.layout = layout
        self._given_names = tuple(class_names or ())

    def check(self) -> None:
        if not self.path.is_file():
            raise DataError(f"looked for an .npz file with {', '.join(ARRAYS)} at {self.path}: there is none, set dataset.path")
        lacking = [name for name in ARRAYS if name not in self._names]
        if lacking:
            raise DataError(
                f"{self.path} must hold {', '.join(ARRAYS)}; it lacks {', '.join(lacking)} and has {', '.join(self._names)}"
            )

    def train(self) -> Images:
        return self._train

    def test(self) -> Images:
        return self._read("test")

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        if self._given_names:
            return self._given_names
        self.check()
        if "class_names" in self._names:
            return tuple(str(name) for name in self._array("class_names"))
        return tuple(str(label) for label in range(int(self._array("train_labels").max()) + 1))

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
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return mean_and_std(self._train.pixels)

    @cached_property
    def _train(self) -> Images:
        return self._read("train")

    @cached_property
    def _names(self) -> tuple[str, ...]:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return tuple(file.files)
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path} must be an .npz file: {error}") from error

    def _array(self, name: str) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return file[name]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path} must hold {name} as an undamaged array of numbers: {error}") from error

    def _read(self, part: str) -> Images:
        self.check()
        images, labels = self._array(f"{part}_images"), self._array(f"{part}_labels")
        axes, to_nchw = LAYOUTS[self.layout]
        if images.dtype != np.uint8 or images.ndim != axes or len(images) == 0:
            raise DataError(
                f"{self.path}: {part}_images must be uint8 with axes {self.layout}, got {images.dtype} {images.shape}"
            )
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise DataError(
                f"{self.path}: {part}_labels must be {len(images)} whole numbers, one an image, got {labels.dtype} {labels.shape}"
            )
        labels = torch.from_numpy(labels.astype(np.int64))
        check_labels(labels, self.num_classes, f"{self.path}: {part}_labels")
        return Images(torch.from_numpy(np.ascontiguousarray(to_nchw(images))), labels)
