"""One part of a data set as encoded images, wherever they lie: decoded once where they fit in memory, and else when they are read."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from supernet.data.base import DataError, Images, Part
from supernet.data.crops import ResizedCrop
from supernet.data.image_file import MODES, Seen, decode, decode_box, look
from supernet.data.pixels import blank, blank_channels

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
IMAGENET = {1: ((0.449,), (0.226,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}  # mean, std; grey: the mean over channels
SAMPLE = 256  # images that are looked at before a part is decoded again and again
COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


class Files(Protocol):
    """Encoded images by position."""

    def __len__(self) -> int: ...

    def name(self, position: int) -> str: ...  # for messages

    def open(self, position: int) -> Path | BinaryIO: ...  # raises DataError, OSError


def check_parts(val: str | None, test: str) -> None:
    """Raises DataError unless the validation part (None: there is none) and the test part have folders of their own."""
    if val in ("train", test, ""):
        raise DataError(f"val must name a directory of its own beside train and {test}, or be null, got {val!r}")
    if test in ("train", ""):
        raise DataError(f"test must name a directory of its own beside train, got {test!r}")


def own_val(root: Path, val: str | None) -> list[str]:
    """The name of the validation part `val`, where there is one: "val" may be absent."""
    return [] if val is None or (val == "val" and not (root / val).is_dir()) else [val]


def others_note(others: Mapping[str, int]) -> tuple[str, ...]:
    """What is said of files among the images that are none, by their suffix."""
    if not others:
        return ()
    shown = ", ".join(f"{count} {kind}" for kind, count in Counter(others).most_common(3))
    return (f"note: {sum(others.values())} files among the classes are not read ({shown}); images are {', '.join(SUFFIXES)}",)


@dataclass(frozen=True)
class Decoding:
    """How a file becomes pixels: resized so that the short side is `side` pixels, cut to the centre square, made grey or RGB (`channels` 1
    or 3). What is transparent is laid over a grey of `background`, 0 (black) to 255. `white` is the value that is white in files of more
    than 8 bits: by default 65535 of 16 bits and 1 of floats; of 32 bits there is no default."""

    side: int
    channels: int
    background: int = 255
    white: float | None = None

    def __post_init__(self) -> None:
        if self.channels not in MODES:
            raise DataError(f"in_channels must be 1 (grey) or 3 (RGB), got {self.channels}")

    def moments(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation a channel: those that were given, or else ImageNet's."""
        found = tuple(mean or IMAGENET[self.channels][0]), tuple(std or IMAGENET[self.channels][1])
        if not len(found[0]) == len(found[1]) == self.channels:
            raise DataError(f"mean and std must have one number a channel, {self.channels}, got {found[0]} and {found[1]}")
        return found


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """One part of a data set, decoded as it is read."""

    files: Files
    labels: Tensor  # int64 (N,), on the host
    decoding: Decoding
    own_val: int = 0
    stored: str = "8 bits"
    notes: tuple[str, ...] = ()
    resident = False

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Tensor) -> Tensor:
        return self._decoded(indices, [partial(decode, side=self.decoding.side)] * len(indices))

    def crops(self, indices: Tensor, crop: ResizedCrop, numbers: Tensor, side: int) -> Tensor:
        return self._decoded(indices, [partial(decode_box, side=side, box_in=partial(crop.box, row)) for row in numbers])

    def look(self, indices: Tensor) -> tuple[Tensor, list[Seen]]:
        """As `read`, with what each file held."""
        pixels, seen = zip(*(self._by(partial(look, side=self.decoding.side), i) for i in indices.tolist()))
        return torch.stack(pixels), list(seen)

    def _decoded(self, indices: Tensor, how: Sequence[Callable[..., Tensor]]) -> Tensor:
        return torch.stack([self._by(one, i) for one, i in zip(how, indices.tolist(), strict=True)])

    def _by(self, how: Callable[..., Any], position: int) -> Any:
        of = self.decoding
        return how(self.files.open(position), name=self.files.name(position), channels=of.channels, background=of.background,
                   white=of.white)

    def to(self, device: torch.device) -> "ImageFiles":
        return self


def read_part(files: Files, labels: Tensor, decoding: Decoding, *, own_val: int, resident_mb: float, where: Path,
              notes: Sequence[str] = ()) -> Part:
    """The images with these labels, the last `own_val` of which validate: in memory where they take at most `resident_mb` MiB there. where:
    the folder, for messages; notes: what else is to be said. Raises DataError."""
    part = ImageFiles(files, labels, decoding, own_val)
    fits = len(part) * decoding.channels * decoding.side**2 <= resident_mb * 2**20
    looked = torch.arange(len(part)) if fits else torch.linspace(0, len(part) - 1, min(SAMPLE, len(part))).long()
    pixels, seen = part.look(looked)
    said = {"stored": ", ".join(sorted({s.stored for s in seen})), "notes": (*notes, *_notes(part, where, looked, pixels, seen))}
    return Images(pixels, labels, own_val=own_val, **said) if fits else replace(part, **said)


def _notes(part: ImageFiles, where: Path, looked: Tensor, pixels: Tensor, seen: list[Seen]) -> tuple[str, ...]:
    """What is to be said of the pictures. Raises DataError: all are one and the same colour."""
    of_how, whole = part.decoding, len(looked) == len(part)
    of = f"{len(looked)} images" if whole else f"{len(looked)} images that were looked at, of {len(part)}"

    def first(flags: list[bool]) -> str:
        return f"{sum(flags)} of {of}, the first {part.files.name(int(looked[flags.index(True)]))},"

    notes = []
    sizes = sorted({(s.width, s.height) for s in seen}, key=lambda size: (min(size), size))
    if len(sizes) > 1 or min(sizes[0]) != of_how.side:
        shown = " to ".join(f"{height}x{width}" for width, height in (sizes[0], sizes[-1])[: len(sizes)])
        notes.append(f"note: files of {shown} pixels are resized to the image size, {of_how.side}x{of_how.side}")
    if any(transparent := [s.transparent for s in seen]):
        notes.append(f"note: {first(transparent)} are transparent in parts: laid over grey {of_how.background} of 255 "
                     "(dataset.source.background)")
    deep = [s.largest for s in seen if s.stored == "16 bits" and s.largest is not None]
    if deep and of_how.white is None and max(deep) < 2**14:
        notes.append(f"note: the largest value in files of 16 bits is {max(deep):g} of 65535, so that images are dark: pass "
                     "dataset.source.white=VALUE if white is less")
    flat = blank_channels(pixels)
    if len(flat) == of_how.channels and len(set(flat.values())) == 1 and len(seen) > 1:
        raise DataError(f"{where}: every pixel of {of} is {next(iter(flat.values()))} of 255, there is nothing to tell them apart "
                        f"by; the first is {part.files.name(int(looked[0]))}")
    for channel, value in flat.items():
        notes.append(f"note: channel {channel} ({COLOURS[of_how.channels][channel]}) is {value} of 255 in all of {of}")
    if any(plain := blank(pixels).tolist()):
        notes.append(f"note: {first(plain)} are one colour throughout")
    return tuple(notes)
