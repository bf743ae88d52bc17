"""Pixel values of any type as the 8 bits that images are held in, and images that show nothing."""

import math

import numpy as np
import torch
from torch import Tensor

from supernet.data.base import DataError

BLOCK = 1024  # rows at a time: floats take several times the memory of what they become


def stored_as(dtype: np.dtype) -> str:
    """How a person says it: `16 bits`, `32-bit floats`."""
    if dtype.kind == "b":
        return "1 bit"
    return f"{8 * dtype.itemsize}-bit floats" if dtype.kind == "f" else f"{8 * dtype.itemsize} bits"


def to_8_bits(values: np.ndarray, white: float | None, where: str) -> np.ndarray:
    """uint8 of the same shape, 0 black and 255 white.

    `white` is the value that becomes 255. By default that is 255 of unsigned 8 bits, 65535 of unsigned 16 bits (then `value // 257`), and 1
    of floats and truth values; other whole numbers have none. Raises DataError, with `where`: there is no default, or a value is not in
    0..white. Nothing is scaled by the values seen: two files of the same bits mean the same.
    """
    default = {"b1": 1, "u1": 255, "u2": 65535, "f2": 1, "f4": 1, "f8": 1}.get(f"{values.dtype.kind}{values.dtype.itemsize}")
    top = default if white is None else white
    if top is None or values.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {stored_as(values.dtype) if values.dtype.kind in 'iuf' else values.dtype}, of which no value is "
                        f"known to be white: pass dataset.source.white=VALUE, or store unsigned 8 or 16 bits")
    if values.dtype == np.uint8 and top == 255:
        return values
    if not values.size:
        return np.zeros(values.shape, np.uint8)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= top:  # false for NaN
        raise DataError(f"{where} holds {stored_as(values.dtype)}, whose values must be 0 (black) to {top:g} (white), "
                        f"got {low:g} to {high:g}" + ("" if math.isnan(low + high) else ": pass dataset.source.white=VALUE"))
    if values.dtype == np.uint16 and top == 65535:
        return (values // 257).astype(np.uint8)
    scaled = np.empty(values.shape, np.uint8)
    for begin in range(0, len(values), BLOCK):
        rows = slice(begin, begin + BLOCK)
        scaled[rows] = np.floor(values[rows].astype(np.float64) * (255 / top) + 0.5)
    return scaled


def blank(pixels: Tensor) -> Tensor:
    """Which images of uint8 (N, C, H, W) are one colour throughout: bool (N,)."""
    flat = pixels.flatten(2)
    return (flat.amax(2) == flat.amin(2)).all(1)


def blank_channels(pixels: Tensor) -> dict[int, int]:
    """The channels of uint8 (N, C, H, W) that have one value in all images, and that value."""
    low, high = pixels.amin((0, 2, 3)), pixels.amax((0, 2, 3))
    return {int(c): int(low[c]) for c in torch.nonzero(low == high).flatten()}
