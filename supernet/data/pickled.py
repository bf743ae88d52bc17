"""Reading the pickles in which CIFAR's "python version" is published, without running anything they name."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from supernet.data.base import DataError

_NDARRAY = "numpy.ndarray"  # stands for the class where a pickle hands it to `_empty_array`; it cannot be called


def _empty_array(kind: str, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What numpy's own `_reconstruct` does: an array that the pickle fills in afterwards."""
    return np.empty(0, np.uint8)


def _uint8(code: str | bytes, align: bool, copy: bool) -> np.dtype:
    if code not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"arrays must be uint8 (u1), got {code!r}")
    return np.dtype("u1", copy=True)


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them into a protocol that Python 2 reads."""
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _uint8,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    """Builds numbers, strings, lists, dicts and uint8 arrays. Whatever else a pickle names is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a data set has no use for")
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dict in the file at `path`; strings of Python 2 are bytes. `DataError` when damaged or when it names other things."""
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
            return dict(content)
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{path} must be an undamaged pickle of plain data, got {type(error).__name__}: {error}") from error
