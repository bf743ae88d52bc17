"""The training images of CIFAR-10 that are at hand: the official files of the binary version, as they are or packed by xz, the first ones
where not all have come along. No image is a test image."""

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from supernet.data.base import DataError, Images
from supernet.data.cifar import PIXELS
from supernet.data.cifar10 import BATCHES, CIFAR10, RECORDS

FOLDER = "cifar-10-batches-bin"
BYTES = RECORDS * (1 + PIXELS)


@dataclass(frozen=True)
class Batches:
    """As `supernet.data.cifar10.CIFAR10`, of the files data_batch_1.bin, _2, ... under `root`/cifar-10-batches-bin, without a gap."""

    root: str

    name = CIFAR10.name
    class_names = CIFAR10.class_names
    num_classes = CIFAR10.num_classes
    mean, std = CIFAR10.mean, CIFAR10.std
    in_channels, image_size = CIFAR10.in_channels, CIFAR10.image_size

    def paths(self) -> list[Path]:
        found = []
        for name in BATCHES:
            folder = Path(self.root, FOLDER)
            here = [path for path in (folder / f"{name}.bin", folder / f"{name}.bin.xz") if path.is_file()]
            if not here:
                break
            found.append(here[0])
        return found

    def check(self) -> None:
        if not self.paths():
            raise DataError(f"looked for {BATCHES[0]}.bin or {BATCHES[0]}.bin.xz in {Path(self.root, FOLDER)}: there is none")

    def train(self) -> Images:
        rows = np.concatenate([unpacked(path).reshape(RECORDS, 1 + PIXELS) for path in self.paths()])
        return Images(torch.from_numpy(rows[:, 1:].copy()).view(-1, 3, 32, 32), torch.from_numpy(rows[:, 0].astype(np.int64)))

    def test(self) -> Any:
        raise DataError("a search reads no test images, and none have come along")


def unpacked(path: Path) -> np.ndarray:
    """The bytes of one file. Raises DataError: they are not an official file's."""
    try:
        if path.suffix == ".xz":
            with lzma.open(path) as file:
                data = file.read(BYTES + 1)
        else:
            data = path.read_bytes()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    if len(data) != BYTES:
        raise DataError(f"{path} must have {BYTES:,} bytes, got {len(data):,}: it is damaged")
    return np.frombuffer(data, np.uint8)
