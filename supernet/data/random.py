"""Noise in the shape of a data set, to measure speed with. There is nothing in it to learn."""

import numpy as np
import torch

from supernet.data.base import Images
from supernet.ranges import Channels, Count, Seed, Side, ranged


@ranged
class Random:
    """Uniform uint8 noise, `image_size` pixels square; labels go round the classes. The same `seed` gives the same bytes."""

    name = "random"

    def __init__(
        self,
        num_classes: Channels = 10,
        num_train: Count = 50_000,
        num_test: Count = 10_000,
        in_channels: Channels = 3,
        image_size: Side = 32,
        seed: Seed = 0,
    ) -> None:
        self.num_classes = num_classes
        self.num_train = num_train
        self.num_test = num_test
        self.in_channels = in_channels
        self.image_size = (image_size, image_size)
        self.seed = seed
        self.class_names = tuple(str(label) for label in range(num_classes))
        self.mean = (0.5,) * in_channels
        self.std = (0.28980,) * in_channels  # of whole numbers spread evenly over 0..255, divided by 255

    def check(self) -> None:
        """Nothing can be missing."""

    def train(self) -> Images:
        return self._make(self.num_train, part=0)

    def test(self) -> Images:
        return self._make(self.num_test, part=1)

    def _make(self, count: int, part: int) -> Images:
        rng = np.random.default_rng([self.seed, part])
        pixels = rng.integers(0, 256, (count, self.in_channels, *self.image_size), np.uint8)
        return Images(torch.from_numpy(pixels), torch.arange(count) % self.num_classes)
