"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 training and 10,000 test images of clothes, grey, 28x28, ten classes."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from supernet.data.base import DataError, Images, check_labels
from supernet.data.download import download
from supernet.files import gunzipped, read_bytes

RECORDS = {"train": 60_000, "t10k": 10_000}  # by the first word of the file names
BY_HAND = "put the four files of https://github.com/zalandoresearch/fashion-mnist (data/fashion, .gz or unpacked) there"


@dataclass(frozen=True)
class FashionMNIST:
    """Reads the four idx files, unpacked or .gz, in FashionMNIST/raw under `root`.

    With `download`, `check()` fetches what is missing.
    """

    root: str = "data"
    download: bool = False

    name = "fashion_mnist"
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    num_classes = 10
    in_channels = 1
    image_size = (28, 28)
    mean = (0.28604,)
    std = (0.35302,)

    def check(self) -> None:
        if self.download and self._missing():
            download("FashionMNIST", Path(self.root), BY_HAND)
        missing = self._missing()
        if missing:
            raise DataError(
                f"looked for the data set in {self._folder()} (no {', '.join(missing)}): "
                f"run with dataset.download=true, or {BY_HAND}"
            )

    def train(self) -> Images:
        return self._read("train")

    def test(self) -> Images:
        return self._read("t10k")

    def _folder(self) -> Path:
        return Path(self.root) / "FashionMNIST" / "raw"

    def _missing(self) -> list[str]:
        names = [f"{part}-{kind}-ubyte" for part in RECORDS for kind in ("images-idx3", "labels-idx1")]
        return [name for name in names if not any(path.is_file() for path in _forms(self._folder() / name))]

    def _read(self, part: str) -> Images:
        self.check()
        pixels = read_idx(self._folder() / f"{part}-images-idx3-ubyte", (RECORDS[part], *self.image_size))
        labels = torch.from_numpy(read_idx(self._folder() / f"{part}-labels-idx1-ubyte", (RECORDS[part],)).astype(np.int64))
        check_labels(labels, self.num_classes, str(self._folder()))
        return Images(torch.from_numpy(pixels[:, None]), labels)


def _forms(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(f"{path.name}.gz")


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array of this shape in the idx file at `path`, or in `path`.gz where that does not exist.

    An idx file is four bytes (0, 0, 8 for uint8, the number of dimensions), the dimensions (big-endian uint32), and the values.
    """
    plain, packed = _forms(path)
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    size = len(header) + math.prod(shape)
    found = plain if plain.is_file() else packed
    try:
        content = read_bytes(found, 2 * size + 1000)  # packed, what cannot be made smaller grows by a little
        content = gunzipped(content, 2 * size, packed) if found == packed else content
    except OSError as error:
        raise DataError(f"{found}: cannot read the data set ({error.strerror or error}): it is damaged, fetch it again") from error
    if content[: len(header)] != header:
        seen = content[: len(header)].hex()
        raise DataError(f"{found} must start with the idx header of uint8 {shape}, {header.hex()}, got {seen}")
    if len(content) != size:
        seen = "more" if len(content) > size else len(content)
        raise DataError(f"{found} must hold {size} bytes, got {seen}: it is damaged, fetch it again")
    return np.frombuffer(bytearray(content), np.uint8, offset=len(header)).reshape(shape)  # a bytearray, to be writable
