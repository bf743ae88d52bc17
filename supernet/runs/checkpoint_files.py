"""Which checkpoints a run has, by the names of their files: nothing is read, so that whoever looks at many runs needs no PyTorch."""

import re
from pathlib import Path

from supernet.errors import Mendable

MAX_BYTES = 2**40
FILE = re.compile(r"(?P<name>[A-Za-z0-9_-]+)\.(?P<sha256>[0-9a-f]{64})\.pt")


class CheckpointError(Mendable, RuntimeError):
    """A checkpoint cannot be written or read. The message is one line."""


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a file to try; only `checkpoint.load` knows if it is whole."""
    return bool(newest_first(folder))


def all_files(folder: Path) -> list[Path]:
    """The checkpoints that are kept, oldest first."""
    return newest_first(folder)[::-1]


def newest_first(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob("*.pt") if FILE.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (name_of(path), path.stat().st_mtime_ns), reverse=True)


def name_of(path: Path) -> str:
    return path.name.split(".")[0]
