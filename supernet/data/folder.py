"""A folder of image files: root/train/<class>/*.png and root/test/<class>/*.png."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from supernet.data.base import DataError, Images, Part
from supernet.ranges import Channels, Finite, NonNegative, Positive, Side, ranged

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}  # PIL's, by number of channels
IMAGENET = {1: ((0.449,), (0.226,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}  # mean, std; grey: the mean over channels


@ranged
class Folder:
    """One directory a class, the same under `root`/train and `root`/test, in alphabetical order. `root`/test may be absent.

    Images are decoded, resized so that the short side is `image_size` pixels, cut to the centre square, and made grey or RGB
    (`in_channels` 1 or 3). A part that then takes at most `resident_mb` MiB is held in memory; a larger one is decoded as it is
    read. `mean` and `std` are by default ImageNet's, not measured here.
    """

    name = "folder"

    def __init__(
        self,
        root: str,
        image_size: Side = 64,
        in_channels: Channels = 3,
        resident_mb: NonNegative = 1024,
        mean: Sequence[Finite] | None = None,
        std: Sequence[Positive] | None = None,
    ) -> None:
        if in_channels not in MODES:
            raise DataError(f"in_channels must be 1 (grey) or 3 (RGB), got {in_channels}")
        self.root = Path(root)
        self.image_size = (image_size, image_size)
        self.in_channels = in_channels
        self.resident_mb = resident_mb
        self.mean = tuple(mean or IMAGENET[in_channels][0])
        self.std = tuple(std or IMAGENET[in_channels][1])
        if not len(self.mean) == len(self.std) == in_channels:
            raise DataError(f"mean and std must have one number a channel, {in_channels}, got {self.mean} and {self.std}")

    def check(self) -> None:
        self._check_images("train")
        if not (self.root / "test").is_dir():
            return
        odd = sorted(set(self.class_names) ^ set(self._classes("test")))
        if odd:
            raise DataError(f"{self.root}/train and {self.root}/test must have the same classes; only one has {', '.join(odd)}")
        self._check_images("test")

    def train(self) -> Part:
        return self._read("train")

    def test(self) -> Part:
        return self._read("test")

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return self._classes("train")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def _classes(self, part: str) -> tuple[str, ...]:
        folder = self.root / part
        if not folder.is_dir():
            raise DataError(f"looked for a directory of class directories at {folder}: there is none, set dataset.root")
        classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
        if not classes:
            raise DataError(f"{folder} must hold one directory a class, got none")
        return classes

    def _images(self, part: str, class_name: str) -> Iterator[Path]:
        return (path for path in (self.root / part / class_name).rglob("*") if path.suffix.lower() in SUFFIXES)

    def _check_images(self, part: str) -> None:
        for name in self.class_names:
            if next(self._images(part, name), None) is None:
                raise DataError(f"{self.root / part / name} must hold images ({', '.join(SUFFIXES)}), got none")

    def _read(self, part: str) -> Part:
        if not (self.root / part).is_dir():
            raise DataError(f"there is no {part} part: {self.root / part} does not exist")
        self.check()
        found = [sorted(self._images(part, name)) for name in self.class_names]
        counts = [len(paths) for paths in found]
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        files = ImageFiles(tuple(chain.from_iterable(found)), labels, self.image_size[0], self.in_channels)
        if len(files) * self.in_channels * self.image_size[0] * self.image_size[1] > self.resident_mb * 2**20:
            return files
        return Images(files.read(torch.arange(len(files))), labels)


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """One part of a data set, as files that are decoded when they are read: `side` pixels square, `channels` 1 or 3."""

    paths: tuple[Path, ...]
    labels: Tensor  # int64 (N,), on the host
    side: int
    channels: int
    resident = False

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Tensor) -> Tensor:
        return torch.stack([decode(self.paths[i], self.side, self.channels) for i in indices.tolist()])

    def to(self, device: torch.device) -> "ImageFiles":
        return self


def decode(path: Path, side: int, channels: int) -> Tensor:
    """The image at `path` as uint8 (channels, side, side): short side resized to `side` (bilinear), then the centre square."""
    try:
        with Image.open(path) as file:
            image = file.convert(MODES[channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} must be an image that can be decoded: {error}") from error
    width, height = image.size
    short = min(width, height)
    image = image.resize((side * width // short, side * height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    square = np.array(image.crop((left, top, left + side, top + side)))
    return torch.from_numpy(square.reshape(side, side, channels).transpose(2, 0, 1).copy())
