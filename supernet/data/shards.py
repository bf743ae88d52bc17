"""Images in tar files: root/train/*.tar and root/test/*.tar, and root/val/*.tar where there are any."""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

from supernet.data.base import DataError, Part
from supernet.data.image_files import Decoding, check_parts, others_note, own_val, read_part
from supernet.data.shard_index import Members, ShardIndex, index_of
from supernet.ranges import Channels, Finite, NonNegative, Positive, Range, Side, ranged

INDEX = "shards.index.npz"


@ranged
class Shards:
    """The images in the tar files of `root`/train, `root`/`test` and `root`/`val`, by the names of their classes and their own, so that
    the same images as a folder are the same data set. An image is of the class that KEY.cls beside KEY.jpg says (webdataset; a number from
    0, or a name), or else of the folder that it lies in (class/name.jpg).

    Each part is indexed once: the index is kept as shards.index.npz beside its tar files, or in the user's folder of caches where they
    cannot be written to, or in the folder `index`; it is made again when a tar file has another size or time. Images are then read by their
    position, in any order, and nothing is unpacked.

    `class_names`: of classes that are numbers, one each. The rest as of `folder.Folder`.
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
        name: str = "shards",
        background: Annotated[int, Range(0, 255)] = 255,
        white: Positive | None = None,
        index: str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.decoding = Decoding(image_size, in_channels, background, white)
        check_parts(val, test)
        self.root, self.name = Path(root), name
        self.image_size = (image_size, image_size)
        self.in_channels = in_channels
        self.resident_mb = resident_mb
        self.val, self.test_name, self.background, self.white = val, test, background, white
        self.mean, self.std = self.decoding.moments(mean, std)
        self.index = None if index is None else Path(index)
        self._given_names = tuple(class_names or ())
        self._indices: dict[str, tuple[ShardIndex, tuple[str, ...]]] = {}

    def check(self) -> None:
        self.class_names  # noqa: B018  (which says what is wrong with those that were given)
        for part in ("train", *self._own_val, *([self.test_name] if (self.root / self.test_name).is_dir() else [])):
            self._check_classes(part)

    def train(self) -> Part:
        return self._read("train", *self._own_val)

    def test(self) -> Part:
        return self._read(self.test_name)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        index = self._index("train")[0]
        if not self._given_names:
            return index.class_names
        if not index.numbered or len(self._given_names) != len(index.class_names):
            raise DataError(f"class_names are for classes that .cls files number, one each, got {len(self._given_names)} for "
                            f"{len(index.class_names)} classes {'' if index.numbered else 'with names '}in {self.root / 'train'}")
        return self._given_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def _own_val(self) -> list[str]:
        return own_val(self.root, self.val)

    def _check_classes(self, part: str) -> None:
        """Raises DataError unless a part has the classes of the training part."""
        train, other = self._index("train")[0], self._index(part)[0]
        if train.numbered != other.numbered:
            raise DataError(f"{self.root}/train and {self.root}/{part} must name their classes alike: only one has numbers in .cls files")
        if train.numbered and len(other.class_names) > len(self.class_names):
            raise DataError(f"{self.root}/{part}: labels must be in 0..{len(self.class_names) - 1}, as those of train, got "
                            f"{len(other.class_names) - 1}")
        odd = [] if train.numbered else sorted(set(train.class_names) ^ set(other.class_names))
        if odd:
            raise DataError(f"{self.root}/train and {self.root}/{part} must have the same classes; only one has {', '.join(odd[:5])}"
                            + (f" and {len(odd) - 5} more" if len(odd) > 5 else ""))

    def _read(self, part: str, *behind: str) -> Part:
        """The images of `part`, then those of `behind`, which validate."""
        if not (self.root / part).is_dir():
            raise DataError(f"there is no {part} part: {self.root / part} does not exist")
        self.check()
        names = (part, *behind)
        files = Members(tuple((self.root / name, self._index(name)[0]) for name in names))
        notes = [note for name in names for note in (*others_note(self._index(name)[0].others), *self._index(name)[1])]
        return read_part(files, files.labels, self.decoding, own_val=sum(len(self._index(name)[0]) for name in behind),
                         resident_mb=self.resident_mb, where=self.root, notes=notes)

    def _index(self, part: str) -> tuple[ShardIndex, tuple[str, ...]]:
        """The index of a part, and what is to be said of where it is kept. Raises DataError."""
        if part not in self._indices:
            folder = self.root / part
            found, refused = index_of(folder, self._places(folder))
            if refused is not None and self.index is not None:
                raise DataError(f"dataset.source.index must be a folder that can be written to, got {refused}")
            self._indices[part] = found, () if refused is None else (
                f"note: the index of {len(found):,} images in {folder} could be kept nowhere ({refused}) and is made in every run: "
                "dataset.source.index=FOLDER keeps it",)
        return self._indices[part]

    def _places(self, folder: Path) -> list[Path]:
        """Where the index of a folder may lie, the best first."""
        own = f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.npz"
        if self.index is not None:
            return [self.index / own]
        return [folder / INDEX, *(caches / own for caches in _caches())]


def _caches() -> list[Path]:
    """The user's folder of caches; none for a user without a home."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return [Path(given) / "supernet/shards"]
    try:
        return [Path.home() / ".cache/supernet/shards"]
    except RuntimeError:
        return []
