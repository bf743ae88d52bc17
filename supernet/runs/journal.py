"""What is appended and must outlive a crash: one JSON object a line, and a digest of all that was written."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from supernet.errors import Mendable
from supernet.files import json_objects, read_bytes

MAX_BYTES = 2**31  # of metrics.jsonl, which has a line an epoch
TIME_FIELDS = {"seconds", "items_per_s", "elapsed_s"}  # the fields of a run's record that a repeated run does not reproduce
AFTER, LINK = "after", 12  # the key of a link, and its hexadecimal digits


class JournalError(Mendable, RuntimeError):
    """A journal is missing, damaged or somebody else's. The message is one line."""


class Mark(NamedTuple):
    """How far a journal goes: its bytes and their SHA-256."""

    size: int
    sha256: str


class Journal:
    """A file of records. Who keeps a `mark()` elsewhere can tell later whether what was written before it is still the same (`verify`),
    and go back to it (`cut`). The digest is kept as records are added, so that a mark costs no reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size: int | None = None  # of what `_digest` covers; None: nothing was read yet
        self._digest = hashlib.sha256()

    def append(self, record: Mapping[str, Any], *, sync: bool = False, chained: bool = False) -> None:
        """Adds one line; NaN and infinities become null, which JSON cannot spell otherwise. sync: it is on the disk when this returns.
        chained: the line has a digest of all before it, `after`, by which `read_chained` tells an edit. Raises OSError."""
        with open(self.path, "ab") as file:
            self._catch_up(file.tell())
            link = {AFTER: self._digest.hexdigest()[:LINK]} if chained else {}
            line = to_json(dict(record) | link).encode() + b"\n"
            file.write(line)
            file.flush()
            self._size, _ = file.tell(), self._digest.update(line)
            if sync:
                os.fsync(file.fileno())

    def mark(self) -> Mark:
        """The state now. All of it is on the disk when this returns, so that no checkpoint knows more than the file."""
        with open(self.path, "ab") as file:
            os.fsync(file.fileno())
            self._catch_up(file.tell())
        return Mark(self._size or 0, self._digest.hexdigest())

    def verify(self, mark: Mark) -> None:
        """Raises JournalError: the file is missing, shorter than the mark, or no longer what it was up to there."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < mark.size:
            raise JournalError(f"{self.path}: the checkpoint was made at byte {mark.size:,}, but the file has only {size:,}")
        data = self._read(mark.size)
        if hashlib.sha256(data).hexdigest() != mark.sha256:
            raise JournalError(f"{self.path}: its first {mark.size:,} bytes are not those that the checkpoint knows (sha256 differs): the "
                               "file was damaged or edited")

    def cut(self, mark: Mark) -> None:
        """Drops what came after the mark. Raises as `verify`."""
        self.verify(mark)
        if self.path.exists() and self.path.stat().st_size > mark.size:
            os.truncate(self.path, mark.size)
        self._size = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For one process at a time; a last line that a crash cut off is ended, so that the next one stands alone. Raises JournalError:
        another process has it, or it cannot be written."""
        try:
            file = open(self.path, "a+b")
        except OSError as error:
            raise JournalError(f"{self.path}: cannot write here ({error.strerror})") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalError(f"{self.path}: another process is working on this") from None
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n"), file.flush()
            self._size = None
            yield

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """All records. A last line without its end is dropped (a kill in the middle of it).

        Raises JournalError: another line is not JSON."""
        *lines, _torn = read_bytes(path, MAX_BYTES).split(b"\n")
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise JournalError(f"{path}: line {number} is not JSON ({error})") from error
        return records

    def read_chained(self) -> list[dict[str, Any]]:
        """All records of a journal whose lines are chained, without their links; a last line without its end is dropped, from the file
        too. Raises JournalError: a line is not JSON, or not what was written behind those before it."""
        if not self.path.exists():
            return []
        data = read_bytes(self.path, MAX_BYTES)
        whole = data.rfind(b"\n") + 1
        records, digest = [], hashlib.sha256()
        for number, line in enumerate(data[:whole].splitlines(keepends=True), start=1):
            try:
                record = json.loads(line)
                link = record.pop(AFTER)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                why = " ".join(str(error).split())[:100]
                raise JournalError(f"{self.path}: line {number} is no record ({why}): the file was damaged or edited") from error
            if link != digest.hexdigest()[:LINK]:
                raise JournalError(f"{self.path}: line {number} was written behind other lines than stand before it (sha256 differs): the "
                                   "file was damaged or edited")
            digest.update(line)
            records.append(record)
        if whole < len(data):
            os.truncate(self.path, whole)
        self._size = None
        return records

    @staticmethod
    def readable(path: Path) -> Iterator[dict[str, Any]]:
        """The records that are whole; what is damaged is passed over, for those who do that work again."""
        yield from json_objects(read_bytes(path, MAX_BYTES).splitlines() if path.exists() else ())

    def _catch_up(self, size: int) -> None:
        """Reads what the digest does not cover: all of a file that was there before, or what another object appended."""
        if self._size != size:
            self._digest, self._size = hashlib.sha256(self._read(size)), size

    def _read(self, size: int) -> bytes:
        if not self.path.exists():
            return b""
        with open(self.path, "rb") as file:
            return file.read(size)


def to_json(data: Any, *, indent: int | None = None) -> str:
    """Standard JSON: floats with all their digits, and null for NaN and infinities, which JSON cannot spell."""
    plain = json.loads(json.dumps(data), parse_constant=lambda _: None)
    return json.dumps(plain, indent=indent, allow_nan=False)
