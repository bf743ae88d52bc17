"""Where each image of a folder of tar files lies, and of which class it is: made once, and kept as a file.

Tar files are a stream; with an index they are a data set whose images have positions. Labels are those of webdataset (KEY.cls beside
KEY.jpg), or the folder that an image lies in, as in tars of a folder of classes.
"""

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from supernet.data.arrays import read_arrays
from supernet.data.base import DataError
from supernet.data.image_files import SUFFIXES
from supernet.data.tar import Member, members, shown
from supernet.files import FileError, regular, write_whole

VERSION = 1  # of what is kept, and of what counts as an image
MAX_IMAGE = 2**28  # bytes of an encoded image
MAX_LABEL = 256  # bytes of a .cls
MAX_MB = 8192  # of an index
LABEL = ".cls"


class Shard(NamedTuple):
    """A tar file as it was when it was indexed."""

    name: str
    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Images by class and then by name, in arrays of one entry an image: `shard` (position in `shards`), `offset` and `size` of its bytes
    there, `labels`; `names` one after the other in UTF-8, which end at `ends`. numbered: labels are the numbers of .cls files, and
    `class_names` these numbers. others: members that are no images, by their suffix."""

    shards: tuple[Shard, ...]
    class_names: tuple[str, ...]
    numbered: bool
    others: Mapping[str, int]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, position: int) -> str:
        begin = 0 if position == 0 else int(self.ends[position - 1])
        return self.names[begin : int(self.ends[position])].tobytes().decode("utf-8", "surrogateescape")

    @property
    def head(self) -> str:
        return json.dumps({"version": VERSION, "shards": self.shards, "class_names": self.class_names, "numbered": self.numbered,
                           "others": self.others})

    @cached_property
    def digest(self) -> str:
        return _digest(self.head, {name: getattr(self, name) for name in ARRAYS})


ARRAYS = {"shard": np.int32, "offset": np.int64, "size": np.int64, "labels": np.int64, "names": np.uint8, "ends": np.int64}


def _digest(head: str, arrays: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256(head.encode())
    for name in ARRAYS:
        sha.update(arrays[name].tobytes())
    return sha.hexdigest()


def shards_in(folder: Path) -> tuple[Shard, ...]:
    """The tar files in a folder, by name; names that begin with a dot are passed over. Raises DataError: there is none."""
    if not folder.is_dir():
        raise DataError(f"looked for a folder of tar files at {folder}: there is none, set dataset.root")
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat()) for entry in entries
                 if entry.name.endswith(".tar") and not entry.name.startswith(".") and entry.is_file()]
    if not found:
        raise DataError(f"{folder} must hold tar files (*.tar), got none")
    return tuple(sorted(Shard(name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


def index_of(folder: Path, places: Sequence[Path]) -> tuple[ShardIndex, str | None]:
    """The index of the tar files in a folder: that which lies at one of `places` and is of these files as they are, or else a new one,
    which is written to the first place that takes it. Beside it, why none does, or None. Raises DataError: a tar file is damaged, or an
    image has no class."""
    shards = shards_in(folder)
    for place in places:
        if (kept := load(place, shards)) is not None:
            return kept, None
    made, refused = build(folder, shards), None
    for place in places:
        try:
            save(place, made)
            return made, None
        except OSError as error:
            refused = f"{place.parent}: {error.strerror}"
    return made, refused


def save(place: Path, index: ShardIndex) -> None:
    """Raises OSError."""
    file = io.BytesIO()
    np.savez_compressed(file, head=np.frombuffer(index.head.encode(), np.uint8), digest=np.frombuffer(index.digest.encode(), np.uint8),
                        **{name: getattr(index, name) for name in ARRAYS})
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, file.getbuffer())


def load(place: Path, shards: tuple[Shard, ...]) -> ShardIndex | None:
    """The index that was kept at `place`; None where there is none, it is damaged, or of other tar files than these."""
    if not place.is_file():
        return None
    try:
        arrays = read_arrays(place, ("head", "digest", *ARRAYS), max_mb=MAX_MB)
        head, digest = (arrays.pop(name).tobytes().decode() for name in ("head", "digest"))
        if digest != _digest(head, arrays) or any(arrays[name].dtype != kind or arrays[name].ndim != 1 for name, kind in ARRAYS.items()):
            return None
        told = json.loads(head)
        if told["version"] != VERSION or tuple(Shard(*each) for each in told["shards"]) != shards:
            return None
        index = ShardIndex(shards, tuple(told["class_names"]), told["numbered"], told["others"], **arrays)
    except (DataError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # what somebody else has put there; the tar files say it all again
    return index if _sound(index) else None


def _sound(index: ShardIndex) -> bool:
    """Whether every entry lies within what it is a position in: a digest is no proof of who has made a file."""
    number, sizes = len(index), np.array([shard.size for shard in index.shards])
    if not all(type(name) is str for name in index.class_names) or type(index.others) is not dict or type(index.numbered) is not bool:
        return False
    if any(len(getattr(index, name)) != number for name in ("shard", "offset", "size", "ends")) or not number:
        return False
    within = (index.shard.min() >= 0 and index.shard.max() < len(sizes) and index.labels.min() >= 0
              and index.labels.max() < len(index.class_names) and index.offset.min() >= 0 and index.size.min() >= 0
              and index.size.max() <= MAX_IMAGE and index.ends[0] >= 0 and (np.diff(index.ends) >= 0).all()
              and index.ends[-1] == len(index.names))
    return bool(within and (index.offset <= sizes[index.shard] - index.size).all())


class _Found(NamedTuple):
    """One image: the parts of its name, its place, and what its .cls says, if there is one."""

    parts: tuple[str, ...]
    shard: int
    member: Member
    said: str | None


def build(folder: Path, shards: tuple[Shard, ...]) -> ShardIndex:
    """Reads the headers of all tar files, and the .cls files in them. Raises DataError."""
    found: list[_Found] = []
    others: Counter[str] = Counter()
    for number, shard in enumerate(shards):
        try:
            found += _images(folder / shard.name, number, others)
        except FileError as error:
            raise DataError(str(error)) from error
        except OSError as error:
            raise DataError(f"{folder / shard.name} cannot be read: {error.strerror}") from error
    if not found:
        raise DataError(f"{folder}: the tar files hold no images ({', '.join(SUFFIXES)})")
    labels, names, numbered = _numbers(folder, shards, found) if any(one.said is not None for one in found) else _folders(folder, found)
    order = sorted(range(len(found)), key=lambda n: (labels[n], found[n].parts, found[n].shard, found[n].member.offset))
    sorted_ = [found[n] for n in order]
    encoded = [one.member.name.encode("utf-8", "surrogateescape") for one in sorted_]
    columns: dict[str, Sequence[int]] = {
        "shard": [one.shard for one in sorted_], "offset": [one.member.offset for one in sorted_],
        "size": [one.member.size for one in sorted_], "labels": [labels[n] for n in order],
        "ends": np.cumsum([len(name) for name in encoded]).tolist()}
    arrays = {name: np.array(column, ARRAYS[name]) for name, column in columns.items()}
    return ShardIndex(shards, names, numbered, dict(others), names=np.frombuffer(b"".join(encoded), np.uint8), **arrays)


def _images(path: Path, shard: int, others: Counter[str]) -> list[_Found]:
    """The images of one tar file, in its order."""
    images: dict[tuple[str, ...], Member] = {}
    said: dict[tuple[str, ...], Member] = {}
    for member in members(path):
        parts = tuple(part for part in PurePosixPath(member.name).parts if part.strip("/") not in ("", "."))
        if ".." in parts or not parts or "\0" in member.name:
            raise DataError(f"{path}: names of members must lie within a folder, got {shown(member.name)}")
        suffix = PurePosixPath(parts[-1]).suffix.lower()
        if any(part.startswith(".") for part in parts):  # as in folders: `._x.jpg` is what macOS keeps beside x.jpg
            continue
        if not member.regular:
            others["links and such"] += 1
        elif suffix == LABEL:
            said[_stem(parts)] = member
        elif suffix not in SUFFIXES:
            others[suffix if suffix.isprintable() and suffix else "without a suffix"] += 1
        elif parts in images:
            raise DataError(f"{path}: it holds {shown(member.name)} twice")
        elif member.size > MAX_IMAGE:
            raise DataError(f"{path}: images must have at most {MAX_IMAGE:,} bytes, got {shown(member.name)} of {member.size:,}")
        else:
            images[parts] = member
    texts = _texts(path, said)
    return [_Found(parts, shard, member, texts.get(_stem(parts), texts.get(_key(parts)))) for parts, member in images.items()]


def _stem(parts: tuple[str, ...]) -> tuple[str, ...]:
    return (*parts[:-1], PurePosixPath(parts[-1]).stem)


def _key(parts: tuple[str, ...]) -> tuple[str, ...]:
    """As webdataset has it: up to the first dot."""
    return (*parts[:-1], parts[-1].partition(".")[0])


def _texts(path: Path, said: Mapping[tuple[str, ...], Member]) -> dict[tuple[str, ...], str]:
    """What the .cls files say."""
    found = {}
    with regular(path) as file:
        for stem, member in said.items():
            file.seek(member.offset)
            data = file.read(member.size) if member.size <= MAX_LABEL else b""
            text = data.decode("utf-8", "replace").strip()
            if not text or not text.isprintable() or "\ufffd" in text:
                raise DataError(f"{path}: {shown(member.name)} must hold a number or the name of a class, got "
                                + (shown(text) if text else f"{member.size:,} bytes"))
            found[stem] = found[_key((*stem[:-1], stem[-1]))] = text
    return found


Labelled = tuple[list[int], tuple[str, ...], bool]


def _numbers(folder: Path, shards: Sequence[Shard], found: Sequence[_Found]) -> Labelled:
    """Labels by .cls files: numbers from 0, or else names, which are numbered by the alphabet."""
    if bare := next((one for one in found if one.said is None), None):
        raise DataError(f"{folder / shards[bare.shard].name}: {shown(bare.member.name)} has no {LABEL} beside it, as other images have")
    texts = [one.said or "" for one in found]
    if not all(re.fullmatch("[0-9]{1,9}", text) for text in texts):
        return _by_name(texts)
    labels = [int(text) for text in texts]
    count, present = max(labels) + 1, len(set(labels))
    if 2 * present < count:  # as of an .npz file: what was meant as classes would be a guess
        raise DataError(f"{folder}: {LABEL} files have {present} different numbers of 0 to {count - 1}: number the classes from 0")
    return labels, tuple(map(str, range(count))), True


def _folders(folder: Path, found: Sequence[_Found]) -> Labelled:
    """Labels by the folder that an image lies in: the first that not all share."""
    if bare := next((one for one in found if len(one.parts) < 2), None):
        raise DataError(f"{folder}: images must lie in a folder of their class (class/name.jpg) or have a file {LABEL} beside them, got "
                        f"{shown(bare.member.name)}")
    least, level = min(len(one.parts) for one in found) - 2, 0
    while level < least and len({one.parts[level] for one in found}) == 1:
        level += 1
    names = [one.parts[level] for one in found]
    if odd := next((name for name in names if not name.isprintable()), None):
        raise DataError(f"{folder}: names of classes must be printable, got {shown(odd)}")
    return _by_name(names)


def _by_name(names: Sequence[str]) -> Labelled:
    classes = tuple(sorted(set(names)))
    number = {name: n for n, name in enumerate(classes)}
    return [number[name] for name in names], classes, False


@dataclass(frozen=True, eq=False)
class Members:
    """The images of several parts, one behind the other, as `image_files.Files`: folders with their indices."""

    parts: tuple[tuple[Path, ShardIndex], ...]

    def __len__(self) -> int:
        return sum(len(index) for _, index in self.parts)

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(np.concatenate([index.labels for _, index in self.parts]))

    def _at(self, position: int) -> tuple[Path, ShardIndex, int]:
        for folder, index in self.parts:
            if position < len(index):
                return folder, index, position
            position -= len(index)
        raise IndexError(position)

    def name(self, position: int) -> str:
        folder, index, at = self._at(position)
        return f"{folder / index.shards[index.shard[at]].name}, member {shown(index.name(at))}"

    def open(self, position: int) -> io.BytesIO:
        """The image's bytes. Raises DataError: the tar file is gone, or is another one by now."""
        folder, index, at = self._at(position)
        shard = index.shards[index.shard[at]]
        try:
            with regular(folder / shard.name) as file:
                now = os.fstat(file.fileno())
                if (now.st_size, now.st_mtime_ns) != (shard.size, shard.mtime_ns):
                    raise DataError(f"{folder / shard.name} was changed since this run began to read it")
                data = _whole(file.fileno(), int(index.size[at]), int(index.offset[at]))
        except OSError as error:
            raise DataError(f"{self.name(position)} cannot be read: {error.strerror}") from error
        return io.BytesIO(data)


def _whole(descriptor: int, count: int, offset: int) -> bytes:
    """Raises OSError."""
    found: list[bytes] = []
    while count and (piece := os.pread(descriptor, count, offset)):
        found.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return b"".join(found)


