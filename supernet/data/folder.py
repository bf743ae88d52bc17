"""A folder of image files: root/train/<class>/*.png and root/test/<class>/*.png, and root/val/<class>/*.png where there is one."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch

from supernet.data.base import DataError, Part
from supernet.data.image_files import SUFFIXES, Decoding, check_parts, others_note, own_val, read_part
from supernet.ranges import Channels, Finite, NonNegative, Positive, Range, Side, ranged


@ranged
class Folder:
    """One directory a class, the same under `root`/train and `root`/test, in alphabetical order. `root`/test may be absent. Names that
    begin with a dot are passed over.

    `val`: the directory beside train that holds a validation part of its own, with the same classes; None for none. "val" may be absent.
    `test`: that of the test part. `name`: what runs call the data set.

    Images are decoded, resized so that the short side is `image_size` pixels, cut to the centre square, and made grey or RGB
    (`in_channels` 1 or 3). What is transparent is laid over a grey of `background`, 0 (black) to 255. `white` is the value that is white in
    files of more than 8 bits: by default 65535 of 16 bits and 1 of floats; of 32 bits there is no default. A part that then takes at
    most `resident_mb` MiB is held in memory; a larger one is decoded as it is read. `mean` and `std` are by default ImageNet's, not
    measured here.
    """

    def __init__(
        self,
        root: str,
        image_size: Side = 64,
        in_channels: Channels = 3,
        resident_mb: NonNegative = 1024,
        mean: Sequence[Finite] | None = None,
        std: Sequence[Positive] | None = None,
        val: str | None = "val",
        test: str = "test",
        name: str = "folder",
        background: Annotated[int, Range(0, 255)] = 255,
        white: Positive | None = None,
    ) -> None:
        self.decoding = Decoding(image_size, in_channels, background, white)
        check_parts(val, test)
        self.root, self.name = Path(root), name
        self.image_size = (image_size, image_size)
        self.in_channels = in_channels
        self.resident_mb = resident_mb
        self.val, self.test_name, self.background, self.white = val, test, background, white
        self.mean, self.std = self.decoding.moments(mean, std)

    def check(self) -> None:
        self._check_images("train")
        for part in (*self._own_val, *([self.test_name] if (self.root / self.test_name).is_dir() else [])):
            odd = sorted(set(self.class_names) ^ set(self._classes(part)))
            if odd:
                raise DataError(f"{self.root}/train and {self.root}/{part} must have the same classes; only one has {', '.join(odd)}")
            self._check_images(part)

    def train(self) -> Part:
        return self._read("train", *self._own_val)

    def test(self) -> Part:
        return self._read(self.test_name)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return self._classes("train")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def _own_val(self) -> list[str]:
        return own_val(self.root, self.val)

    def _classes(self, part: str) -> tuple[str, ...]:
        folder = self.root / part
        if not folder.is_dir():
            raise DataError(f"looked for a directory of class directories at {folder}: there is none, set dataset.root")
        classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
        if not classes:
            raise DataError(f"{folder} must hold one directory a class, got none")
        return classes

    def _images(self, part: str, class_name: str) -> Iterator[Path]:
        return (Path(file.path) for file in files_in(self.root / part / class_name) if _suffix(file.name) in SUFFIXES)

    def _check_images(self, part: str) -> None:
        for name in self.class_names:
            if next(self._images(part, name), None) is None:
                raise DataError(f"{self.root / part / name} must hold images ({', '.join(SUFFIXES)}), got none")

    def _read(self, part: str, *behind: str) -> Part:
        """The files of `part`, then those of `behind`, which validate."""
        if not (self.root / part).is_dir():
            raise DataError(f"there is no {part} part: {self.root / part} does not exist")
        self.check()
        found = [sorted(self._images(each, name)) for each in (part, *behind) for name in self.class_names]
        counts = torch.tensor([len(paths) for paths in found])
        labels = torch.arange(self.num_classes).repeat(1 + len(behind)).repeat_interleave(counts)
        return read_part(Paths(tuple(chain.from_iterable(found))), labels, self.decoding, own_val=int(counts[self.num_classes:].sum()),
                         resident_mb=self.resident_mb, where=self.root, notes=self._other_files((part, *behind)))

    def _other_files(self, parts: Sequence[str]) -> tuple[str, ...]:
        kinds = Counter(_suffix(file.name) or file.name for part in parts for name in self.class_names
                        for file in files_in(self.root / part / name) if _suffix(file.name) not in SUFFIXES)
        return others_note(kinds)


@dataclass(frozen=True)
class Paths:
    """Files on the disk, as `image_files.Files`."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, position: int) -> str:
        return str(self.paths[position])

    def open(self, position: int) -> Path:
        return self.paths[position]


def files_in(folder: Path) -> Iterator[os.DirEntry]:
    """The regular files in `folder` and the folders in it, in no order. Names that begin with a dot are passed over: `._x.png` beside x.png
    is how macOS keeps what other file systems cannot, .ipynb_checkpoints holds copies. So is what is no file (a pipe never ends)."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from files_in(Path(entry.path))
            elif entry.is_file():
                yield entry


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()
