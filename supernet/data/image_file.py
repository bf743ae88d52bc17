"""One image file as a square of 8 bits, whatever it was stored as."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from supernet.data.base import DataError
from supernet.data.pixels import stored_as, to_8_bits

MODES = {1: "L", 3: "RGB"}  # PIL's, by number of channels
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # one channel, which PIL does not scale but clip
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


class Seen(NamedTuple):
    """What a file held: `stored`, bits a channel; its size in pixels; whether anything of it is transparent; the largest value of
    more than 8 bits."""

    stored: str
    width: int
    height: int
    transparent: bool
    largest: float | None


def decode(file: Path | BinaryIO, side: int, channels: int, *, name: str | None = None, background: int = 255,
           white: float | None = None) -> Tensor:
    """The image in `file` as uint8 (channels, side, side): short side resized to `side` (bilinear), then the centre square.

    name: the file's in messages, by default its path. What is transparent is laid over a grey of `background`, 0..255. 16 bits and floats
    are scaled as `to_8_bits` says (`white`).
    """
    return look(file, side, channels, name=name, background=background, white=white)[0]


def decode_box(file: Path | BinaryIO, side: int, channels: int, box_in: Callable[[int, int], tuple[int, int, int, int]], *,
               name: str | None = None, background: int = 255, white: float | None = None) -> Tensor:
    """A box of the image in `file`, resized (bilinear) to uint8 (channels, side, side). box_in(height, width): its top, left, height and
    width in an image of that size. The rest as `decode`."""
    def square(image: Image.Image) -> np.ndarray:
        top, left, high, wide = box_in(image.height, image.width)
        part = image.crop((left, top, left + wide, top + high))
        return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))

    return _read(file, name, channels, square, background, white)[0]


def look(file: Path | BinaryIO, side: int, channels: int, *, name: str | None = None, background: int = 255,
         white: float | None = None) -> tuple[Tensor, Seen]:
    """As `decode`, with what the file held. Raises DataError naming the file."""
    return _read(file, name, channels, lambda image: _centre(image, side), background, white)


def _read(file: Path | BinaryIO, name: str | None, channels: int, square: Callable[[Image.Image], np.ndarray], background: int,
          white: float | None) -> tuple[Tensor, Seen]:
    """What `square` makes of the image in `file`, a square of pixels, as uint8 (channels, side, side). Raises DataError naming the file."""
    name = str(file) if name is None else name
    try:
        with Image.open(file) as opened:
            image, seen = as_8_bits(opened, name, background, white)
            pixels = square(image.convert(MODES[channels]))
    except DataError:
        raise
    except Exception as error:  # of a damaged file PIL raises almost anything
        raise DataError(f"{name} must be an image that can be decoded: {' '.join(str(error).split())}") from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1).copy()), seen


def as_8_bits(file: Image.Image, what: str | Path, background: int, white: float | None) -> tuple[Image.Image, Seen]:
    """An opened image with 8 bits a channel and nothing transparent, and what it was. what: its name in messages. Raises DataError."""
    width, height = file.size
    if file.mode in DEEP:
        values = np.asarray(file)
        if file.mode == "I" and file.format == "PPM":  # PIL's mode for PGM of 16 bits, scaled by it to 0..65535
            values = values.astype(np.uint16)
        grey = to_8_bits(values, white, f"{what} (mode {file.mode})")
        return Image.fromarray(grey), Seen(stored_as(values.dtype), width, height, False, float(values.max()))
    tiles = getattr(file, "tile", None)  # of one that was read from a file
    raw = str(tiles[0].args) if tiles else ""  # before it is decoded: PIL keeps the high byte of 16 bits a colour
    stored = "16 bits" if ";16" in raw else "1 bit" if file.mode == "1" else "8 bits"
    if file.mode in ALPHA or "transparency" in file.info:
        whole = file.convert("RGBA")
        if whole.getchannel("A").getextrema()[0] < 255:
            ground = Image.new("RGBA", whole.size, (background, background, background, 255))
            return Image.alpha_composite(ground, whole), Seen(stored, width, height, True, None)
    file.load()
    return file, Seen(stored, width, height, False, None)


def _centre(image: Image.Image, side: int) -> np.ndarray:
    width, height = image.size
    short = min(width, height)
    image = image.resize((side * width // short, side * height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return np.array(image.crop((left, top, left + side, top + side)))
