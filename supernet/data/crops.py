"""Random resized crops (Szegedy et al. 2015, as torchvision has them) in two halves: numbers that who draws sends with the positions of the
images, and the box that they mean in an image whose size only who opens it knows."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from supernet.ranges import Range, ranged

TRIES = 10  # boxes that are tried before the centre is taken [torchvision]


@ranged
@dataclass(frozen=True)
class ResizedCrop:
    """A box of `smallest` to 1 of an image's area, with sides in a ratio of 1 / `widest` to `widest` (width by height, uniform in its
    logarithm), is resized to the square that the network reads."""

    smallest: Annotated[float, Range(0, 1, above=True)] = 0.08
    widest: Annotated[float, Range(1, 1000)] = 4 / 3

    @property
    def numbers(self) -> int:
        """How many numbers decide of one box."""
        return 2 * TRIES + 2

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Uniform in [0, 1), float64 (batch, numbers)."""
        return torch.rand(batch, self.numbers, generator=generator, device=generator.device, dtype=torch.float64)

    def box(self, numbers: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the box that one row of `draw` means in an image of this size, in pixels."""
        *pairs, at_y, at_x = numbers.tolist()
        for share, bend in zip(pairs[::2], pairs[1::2]):
            area = height * width * (self.smallest + (1 - self.smallest) * share)
            ratio = math.exp(math.log(self.widest) * (2 * bend - 1))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                return int(at_y * (height - high + 1)), int(at_x * (width - wide + 1)), high, wide
        high, wide = height, width
        if width / height > self.widest:
            wide = round(height * self.widest)
        elif height / width > self.widest:
            high = round(width * self.widest)
        return (height - high) // 2, (width - wide) // 2, high, wide


def of_batch(crop: ResizedCrop, seed: int, batch: int, size: int) -> Tensor:
    """The numbers of one batch of a pass, (size, numbers), whoever asks and whenever: a generator of its own, made from the pass's seed."""
    mixed = (seed + 0x9E3779B97F4A7C15 * (batch + 1)) % 2**63  # neighbouring seeds far apart
    return crop.draw(size, torch.Generator().manual_seed(mixed))
