"""A folder of image files: root/train/<class>/*.png and root/test/<class>/*.png, and root/val/<class>/*.png where there is one."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from supernet.data.base import DataError, Images, Part
from supernet.data.crops import ResizedCrop
from supernet.data.image_file import MODES, Seen, decode, decode_box, look
from supernet.data.pixels import blank, blank_channels
from supernet.ranges import Channels, Finite, NonNegative, Positive, Range, Side, ranged

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
IMAGENET = {1: ((0.449,), (0.226,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}  # mean, std; grey: the mean over channels
SAMPLE = 256  # files that are looked at before a part is read from its files again and again
COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


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
        if in_channels not in MODES:
            raise DataError(f"in_channels must be 1 (grey) or 3 (RGB), got {in_channels}")
        if val in ("train", test, ""):
            raise DataError(f"val must name a directory of its own beside train and {test}, or be null, got {val!r}")
        if test in ("train", ""):
            raise DataError(f"test must name a directory of its own beside train, got {test!r}")
        self.root, self.name = Path(root), name
        self.image_size = (image_size, image_size)
        self.in_channels = in_channels
        self.resident_mb = resident_mb
        self.val, self.test_name, self.background, self.white = val, test, background, white
        self.mean = tuple(mean or IMAGENET[in_channels][0])
        self.std = tuple(std or IMAGENET[in_channels][1])
        if not len(self.mean) == len(self.std) == in_channels:
            raise DataError(f"mean and std must have one number a channel, {in_channels}, got {self.mean} and {self.std}")

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
        """The name of the validation part, where there is one."""
        if self.val is None or (self.val == "val" and not (self.root / self.val).is_dir()):
            return []
        return [self.val]

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
        files = ImageFiles(tuple(chain.from_iterable(found)), labels, self.image_size[0], self.in_channels, self.background, self.white,
                           own_val=int(counts[self.num_classes:].sum()))
        fits = len(files) * self.in_channels * self.image_size[0] * self.image_size[1] <= self.resident_mb * 2**20
        looked = torch.arange(len(files)) if fits else torch.linspace(0, len(files) - 1, min(SAMPLE, len(files))).long()
        pixels, seen = files.look(looked)
        stored = ", ".join(sorted({s.stored for s in seen}))
        notes = (*self._other_files((part, *behind)), *self._notes(files, looked, pixels, seen))
        if fits:
            return Images(pixels, labels, own_val=files.own_val, stored=stored, notes=notes)
        return ImageFiles(files.paths, labels, files.side, files.channels, files.background, files.white, files.own_val, stored, notes)

    def _other_files(self, parts: Sequence[str]) -> tuple[str, ...]:
        kinds = Counter(_suffix(file.name) or file.name for part in parts for name in self.class_names
                        for file in files_in(self.root / part / name) if _suffix(file.name) not in SUFFIXES)
        if not kinds:
            return ()
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
        return (f"note: {kinds.total()} files among the classes are not read ({shown}); images are {', '.join(SUFFIXES)}",)

    def _notes(self, files: "ImageFiles", looked: Tensor, pixels: Tensor, seen: list[Seen]) -> tuple[str, ...]:
        """What is to be said of the pictures. Raises DataError: all are one and the same colour."""
        whole = len(looked) == len(files)
        of = f"{len(looked)} images" if whole else f"{len(looked)} images that were looked at, of {len(files)}"

        def first(flags: list[bool]) -> str:
            return f"{sum(flags)} of {of}, the first {files.paths[looked[flags.index(True)]]},"

        notes = []
        sizes = sorted({(s.width, s.height) for s in seen}, key=lambda size: (min(size), size))
        if len(sizes) > 1 or min(sizes[0]) != files.side:
            shown = " to ".join(f"{height}x{width}" for width, height in (sizes[0], sizes[-1])[: len(sizes)])
            notes.append(f"note: files of {shown} pixels are resized to the image size, {files.side}x{files.side}")
        if any(transparent := [s.transparent for s in seen]):
            notes.append(f"note: {first(transparent)} are transparent in parts: laid over grey {files.background} of 255 "
                         "(dataset.source.background)")
        deep = [s.largest for s in seen if s.stored == "16 bits" and s.largest is not None]
        if deep and files.white is None and max(deep) < 2**14:
            notes.append(f"note: the largest value in files of 16 bits is {max(deep):g} of 65535, so that images are dark: pass "
                         "dataset.source.white=VALUE if white is less")
        flat = blank_channels(pixels)
        if len(flat) == files.channels and len(set(flat.values())) == 1 and len(seen) > 1:
            raise DataError(f"{self.root}: every pixel of {of} is {next(iter(flat.values()))} of 255, there is nothing to tell them apart "
                            f"by; the first is {files.paths[looked[0]]}")
        for channel, value in flat.items():
            notes.append(f"note: channel {channel} ({COLOURS[files.channels][channel]}) is {value} of 255 in all of {of}")
        if any(plain := blank(pixels).tolist()):
            notes.append(f"note: {first(plain)} are one colour throughout")
        return tuple(notes)


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """One part of a data set, as files that are decoded when they are read: `side` pixels square, `channels` 1 or 3."""

    paths: tuple[Path, ...]
    labels: Tensor  # int64 (N,), on the host
    side: int
    channels: int
    background: int = 255
    white: float | None = None
    own_val: int = 0
    stored: str = "8 bits"
    notes: tuple[str, ...] = ()
    resident = False

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Tensor) -> Tensor:
        return torch.stack([decode(self.paths[i], self.side, self.channels, background=self.background, white=self.white)
                            for i in indices.tolist()])

    def crops(self, indices: Tensor, crop: ResizedCrop, numbers: Tensor, side: int) -> Tensor:
        return torch.stack([decode_box(self.paths[i], side, self.channels, partial(crop.box, row), background=self.background,
                                       white=self.white) for i, row in zip(indices.tolist(), numbers)])

    def look(self, indices: Tensor) -> tuple[Tensor, list[Seen]]:
        """As `read`, with what each file held."""
        pixels, seen = zip(*(look(self.paths[i], self.side, self.channels, background=self.background, white=self.white)
                             for i in indices.tolist()))
        return torch.stack(pixels), list(seen)

    def to(self, device: torch.device) -> "ImageFiles":
        return self


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
