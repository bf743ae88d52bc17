"""Files that come from outside are read whole and with bounds: one that never ends, a pipe that nobody writes into, or one that unpacks to
far more than it has, is refused in one line. Files of our own are written so that a kill, a full disk or a power cut leaves the old one or
the whole new one."""

import contextlib
import errno
import hashlib
import json
import lzma
import os
import re
import secrets
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from supernet.errors import Mendable, printable

KIND = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
# What the readers of packed files raise where these are damaged, and no OSError. `zipfile` for one that asks for what it cannot do.
DAMAGED = (EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
MAX_DEPTH = 50  # of YAML
SUM = "sum"  # the key of a line's own digest
_SUMMED = re.compile(rf', "{SUM}": "([0-9a-f]{{12}})"\}}$')


class FileError(Mendable, OSError):
    """A file is not read. `strerror` says why, as that of any OSError; the message is one line with the file's name."""

    def __init__(self, path: str | os.PathLike, why: str) -> None:
        super().__init__(errno.EINVAL, why, str(path))

    def __str__(self) -> str:
        return printable(f"{self.filename}: {self.strerror}")


@contextlib.contextmanager
def regular(path: str | os.PathLike) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # does not wait until somebody writes into a pipe
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise FileError(path, f"it must be a regular file, and is {KIND.get(stat.S_IFMT(mode), 'none')}")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_bytes(path: str | os.PathLike, limit: int) -> bytes:
    """What a regular file of at most `limit` bytes holds. Raises FileError where it is none or holds more, else OSError. Never waits for a
    pipe."""
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise FileError(path, f"it has {size:,} bytes, and at most {limit:,} are read")
        data = file.read(size + 1)  # not `limit`: a read takes the memory that it asks for
        while len(data) <= limit and (more := file.read(2**20)):  # it grows, or is one of those that /proc makes up, which tell no size
            data += more
    if len(data) > limit:
        raise FileError(path, f"it has more than the {limit:,} bytes that are read")
    return data


def read_text(path: str | os.PathLike, limit: int) -> str:
    """The same as text in UTF-8. Raises FileError where it is none."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(path, f"it must be text in UTF-8, and is not at byte {error.start:,}") from error


def yaml_loader() -> type:
    """The reader of plain values: libyaml's, ten times as fast, where PyYAML was built with it."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def yaml_text(path: str | os.PathLike, limit: int) -> str:
    """The same of a file of YAML that is safe to make data of. Raises FileError: it is none, holds aliases, a few hundred bytes of which
    unfold to more than any memory, or lies too deep."""
    import yaml  # few who import this module read any

    content, depth = read_text(path, limit), 0
    try:
        for event in yaml.parse(content, Loader=yaml_loader()):
            if type(event) is yaml.AliasEvent:
                raise FileError(path, f"options have no aliases, and line {event.start_mark.line + 1} holds *{event.anchor}"[:150])
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # PyYAML takes a minute for 5,000 brackets
                raise FileError(path, f"options lie at most {MAX_DEPTH} deep, and line {event.start_mark.line + 1} goes deeper")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FileError(path, f"it must hold options as YAML ({' '.join(str(error).split())[:150]})") from error
    return content


def gunzipped(data: bytes, limit: int, path: str | os.PathLike) -> bytes:
    """What the bytes of a gzip file unpack to, all its members. Raises FileError where it is damaged, or unpacks to more than `limit`."""
    found, size = [], 0
    try:
        while data:
            member = zlib.decompressobj(wbits=31)
            found.append(member.decompress(data, limit + 1 - size))
            size += len(found[-1])
            if size > limit:
                raise FileError(path, f"it unpacks to more than the {limit:,} bytes that are read")
            if not member.eof:
                raise FileError(path, "the gzip file is damaged: it ends too early")
            data = member.unused_data.lstrip(b"\0")  # tapes are filled up with zeros
    except zlib.error as error:
        raise FileError(path, f"the gzip file is damaged ({error})") from error
    return b"".join(found)


def check_zip(path: str | os.PathLike, limit: int) -> None:
    """Raises FileError where a zip file (an .npz file is one) is none, or unpacks to more than `limit` bytes; `zipfile` reads no more of an
    entry than it says here. Else OSError."""
    try:
        with regular(path) as file:
            with zipfile.ZipFile(file) as packed:
                size = sum(entry.file_size for entry in packed.infolist())
    except DAMAGED as error:
        raise FileError(path, f"it must be an undamaged zip file ({error})") from error
    if size > limit:
        raise FileError(path, f"it unpacks to {size:,} bytes, and at most {limit:,} are read")


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes beside the file, syncs, renames, so that this never goes from one disk to another: a folder may be a link to elsewhere, and a
    file that is one is replaced, not followed. Two processes that write at once, of one machine or of two, do not meet. Raises OSError;
    nothing is left then."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(3)}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def with_sum(line: str) -> str:
    """The text of a JSON object with a digest of itself as its last key, by which `json_line` knows it again; an empty one needs none."""
    return line if line == "{}" else f'{line[:-1]}, "{SUM}": "{_sum(line)}"}}'


def json_line(line: str | bytes) -> Any:
    """What a line of JSON holds, without its digest; one of an earlier version has none. Raises ValueError: it is no JSON, or not what was
    written, by one bit or more."""
    text = line.decode("utf-8") if isinstance(line, bytes) else line
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise ValueError("it lies too deep") from error
    if type(record) is dict and SUM in record:
        end = _SUMMED.search(text)
        if end is None or end[1] != _sum(text[:end.start()] + "}"):
            raise ValueError("it is not what was written (its sum differs)")
        del record[SUM]
    return record


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def number(value: Any) -> float | None:
    """A number from JSON; None for what is none, or not finite (a training that diverged)."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else None


def json_objects(lines: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """The JSON objects among the lines of a file; what is damaged, was cut off by a crash or is something else is passed over."""
    found = []
    for line in lines:
        try:
            record = json_line(line)
        except ValueError:
            continue
        if type(record) is dict:
            found.append(record)
    return found


def damaged_lines(data: bytes) -> list[int]:
    """The numbers, from 1, of the lines that `json_objects` passes over; not of a last one that has no end, which a crash cut off."""
    lines = data.split(b"\n")[:-1]
    return [number for number, line in enumerate(lines, start=1) if line.strip() and not json_objects([line])]
