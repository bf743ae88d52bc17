"""UCI handwritten digits, 8x8, in the package itself: real images for a run with no files and no network (see DIGITS.txt)."""

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch

from supernet.data.base import Images


@dataclass(frozen=True)
class Digits:
    """1,437 training and 360 test images of ten digits, grey, 8x8; the division is fixed in the file."""

    name = "digits"
    class_names = tuple("0123456789")
    num_classes = 10
    in_channels = 1
    image_size = (8, 8)
    mean = (0.30559,)
    std = (0.37593,)

    def check(self) -> None:
        """Nothing can be missing: the images are part of the package."""

    def train(self) -> Images:
        return _read(test=False)

    def test(self) -> Images:
        return _read(test=True)


def _read(test: bool) -> Images:
    with resources.files("supernet.data").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        chosen = arrays["is_test"] == test
        ink, labels = arrays["images"][chosen], arrays["labels"][chosen]
    pixels = np.round(ink * 255.0 / 16).astype(np.uint8)
    return Images(torch.from_numpy(pixels[:, None]), torch.from_numpy(labels.astype(np.int64)))
