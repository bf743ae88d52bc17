"""What lies where in a tar file, by its headers: nothing is unpacked, and no link is followed.

`tarfile` reads the headers; what it would take on trust from a hostile or damaged file is bounded here: how much a header asks to be read,
and how often the file is gone through (CVE-2019-20907, CVE-2025-8194), and a header that is no header, at which it stops in silence.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from supernet.files import FileError, regular

MAX_HEADER = 2**20  # bytes of a long name, or of what an extended header says
MAX_PADDING = 2**20  # zeros behind the end: tapes are written in records
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """name: as the file has it. offset, size: of its data, in bytes. regular: whether that is a file's; links, devices and files with holes
    are not."""

    name: str
    offset: int
    size: int
    regular: bool


def members(path: Path) -> Iterator[Member]:
    """All but folders, in their order. Raises FileError: it is no uncompressed tar file, or damaged or cut off; else OSError."""
    with regular(path) as file:
        total = os.fstat(file.fileno()).st_size
        begin = file.read(4)
        if packed := next((name for magic, name in PACKED.items() if begin.startswith(magic)), None):
            raise FileError(path, f"it must be an uncompressed tar file, for members are read by their position, and is packed by {packed}")
        file.seek(0)
        try:
            with tarfile.open(fileobj=_Bounded(path, file, total), mode="r:") as tar:
                while (entry := tar.next()) is not None:
                    tar.members.clear()  # else all are kept
                    if entry.size < 0 or entry.offset_data + entry.size > total:
                        raise FileError(path, f"the tar file is damaged or cut off: it has {total:,} bytes, and member "
                                              f"{shown(entry.name)} would take {entry.size:,} from {entry.offset_data:,} on")
                    if not entry.isdir():
                        yield Member(entry.name, entry.offset_data, entry.size, entry.isreg() and not entry.issparse())
                reached = tar.offset
        except FileError:
            raise
        except Exception as error:  # of a damaged file `tarfile` raises more than its own errors
            raise FileError(path, f"it must be an undamaged, uncompressed tar file ({shown(' '.join(str(error).split()))})") from error
        _check_end(path, file, reached)


def _check_end(path: Path, file: BinaryIO, reached: int) -> None:
    """Raises FileError unless a tar file ends where its headers do."""
    file.seek(reached)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise FileError(path, "the tar file was cut off: it has no end mark")
    if any(block):
        raise FileError(path, f"the tar file is damaged: there is no header at byte {reached:,}")
    if any(file.read(MAX_PADDING)):
        raise FileError(path, f"the tar file goes on behind its end at byte {reached:,}: several that were joined are not read")


class _Bounded:
    """A file as `tarfile` reads it."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file = path, file
        self.left = 4 * size + MAX_HEADER  # bytes; each read counts as a block at least

    def read(self, count: int) -> bytes:
        self.left -= max(count, tarfile.BLOCKSIZE)
        if not 0 <= count <= MAX_HEADER or self.left < 0:
            raise FileError(self.path, "the tar file is damaged: its headers ask for more than it has")
        return self.file.read(count)

    def seek(self, position: int) -> int:
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


def shown(name: str) -> str:
    """A name for messages: escaped where it could do harm to a terminal."""
    return name if name.isprintable() and len(name) <= 200 else ascii(name[:200])
