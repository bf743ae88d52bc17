"""Arrays in .npz files of others: what they hold is known, and bounded, before any of it is unpacked."""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from supernet.data.base import DataError
from supernet.genotype import short

MB = 2**20


@dataclass(frozen=True)
class Header:
    """What an array in the file says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def names_in(path: Path) -> tuple[str, ...]:
    """The names of the arrays in the .npz file at `path`, in its order. Raises DataError: it is none."""
    with _opened(path) as file:
        return tuple(name.removesuffix(".npy") for name in file.namelist())


def headers(path: Path, names: Sequence[str]) -> dict[str, Header]:
    """Shape and type of the arrays `names`, by name; the arrays themselves are not read. Raises DataError: there is no such array, it is
    damaged, or it holds objects, which are never unpickled."""
    with _opened(path) as file:
        return {name: _header(path, file, name) for name in names}


def read_arrays(path: Path, names: Sequence[str], *, max_mb: float) -> dict[str, np.ndarray]:
    """The arrays `names`, by name. Raises DataError: as `headers`; or they take more than `max_mb` MiB, which is known before."""
    size = sum(header.size_bytes for header in headers(path, names).values())
    if size > max_mb * MB:
        raise DataError(f"{path}: {', '.join(names)} take {size / MB:,.0f} MiB unpacked, more than the {max_mb:g} allowed")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception as error:  # a damaged archive raises almost anything
        raise DataError(f"{path} must hold {', '.join(names)} undamaged: {_said(error)}") from error


def _opened(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise DataError(f"{path} must be an .npz file: there is no such file")
    try:
        return zipfile.ZipFile(path)
    except Exception as error:
        raise DataError(f"{path} must be an .npz file: {_said(error)}") from error


def _header(path: Path, file: zipfile.ZipFile, name: str) -> Header:
    try:
        entry = file.getinfo(f"{name}.npy")
    except KeyError:
        raise DataError(f"{path} must hold {name}, got {short(', '.join(file.namelist()))}") from None
    try:
        with file.open(entry) as member:
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(member)]
            shape, _, dtype = read(member)
            begin = member.tell()
    except Exception as error:  # as above
        raise DataError(f"{path} must hold {name} as an undamaged array of numbers: {_said(error)}") from error
    header = Header(shape, dtype)
    if dtype.hasobject or dtype.names is not None or min(shape, default=0) < 0:
        raise DataError(f"{path} must hold {name} as an undamaged array of numbers, got {short(str(dtype))} {shape}")
    if begin + header.size_bytes != entry.file_size:
        raise DataError(f"{path} must hold {name} as an undamaged array of numbers: {dtype} {shape} takes {header.size_bytes} bytes, "
                        f"got {entry.file_size - begin}")
    return header


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
