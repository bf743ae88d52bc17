"""Images per second of whole-batch augmentation beside the per-image PIL and torchvision pipeline: `python -m benchmarks.data`.

One thread, 32x32x3 noise, pad 4, flip, Cutout 16. Both sides start from uint8 images in memory and end with a normalised float
batch with its labels; the loops around them are each side's usual ones (here `Loader`; there a torch DataLoader in this process).
Rounds are interleaved; the ratio is the median of the rounds' ratios.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.compare import begun, clock, parser_for, prepared, ratios, seconds, summary, where, write
from supernet.data.augment import Augment
from supernet.data.base import Images
from supernet.data.loader import Loader
from supernet.data.random import Random
from supernet.data.torchvision_import import import_torchvision
from supernet.runs.progress import tracked

MEAN, STD = (0.49140, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)
CUTOUT = 16


class Cutout:
    """Per image, as published with DARTS: a numpy mask, made new each time."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        high, wide = image.shape[1:]
        mask = np.ones((high, wide), np.float32)
        y, x = np.random.randint(high), np.random.randint(wide)
        half = CUTOUT // 2
        mask[max(0, y - half) : min(high, y + half), max(0, x - half) : min(wide, x + half)] = 0.0
        return image.mul_(torch.from_numpy(mask).expand_as(image))


class PerImage(Dataset):
    """What `torchvision.datasets.CIFAR10` with the published transforms does for one image."""

    def __init__(self, images: Images) -> None:
        transforms = import_torchvision().transforms
        self.rows = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()  # (N, H, W, C), as torchvision keeps them
        self.labels = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
                Cutout(),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.rows[index])), self.labels[index]


def whole_batches(images: Images, batch_size: int, channels_last: bool) -> Loader:
    transform = Augment(pad=4, flip=True, cutout=CUTOUT).for_training(
        MEAN, STD, device=torch.device("cpu"), channels_last=channels_last
    )
    return Loader(
        images,
        torch.arange(len(images)),
        batch_size=batch_size,
        transform=transform,
        generator=torch.Generator().manual_seed(0),
        shuffle=True,
        drop_last=False,
        device="cpu",
    )


def consume(batches: Iterable) -> None:
    for _ in batches:
        pass


def measure(num_images: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """Images per second (medians over the rounds) of each side, and each side's ratio to the per-image pipeline."""
    images = Random(num_train=num_images, image_size=32).train()
    sides: dict[str, Callable[[], Iterable]] = {
        "per_image": DataLoader(PerImage(images), batch_size=batch_size, shuffle=True).__iter__,
        "whole_batch": whole_batches(images, batch_size, channels_last=False).__iter__,
        "whole_batch_channels_last": whole_batches(images, batch_size, channels_last=True).__iter__,
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in tracked(range(rounds + 1), "rounds"):
        for name, batches in sides.items():
            took = seconds(lambda batches=batches: consume(batches()), torch.device("cpu"))
            if number:  # the first warms up
                times[name].append(took)
    return {"num_images": num_images, "batch_size": batch_size, "rounds": rounds,
            "sides": {name: summary(took) | {"images_per_s": num_images / summary(took)["wall_s"],
                                             "ratio": ratios(times["per_image"], took)} for name, took in times.items()}}


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__, rounds=7, device=False)
    parser.add_argument("--images", type=int, default=6400, help="images in a pass")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    result = begun("data", argv, device) | measure(options.images, options.batch_size, options.rounds)
    for row in table(result)[1]:
        print(" | ".join(row))
    write(options.json, result)


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    sides = result["sides"]
    return [(f"whole-batch augmentation against per-image PIL ({where(result)})",
             f"{sides['whole_batch']['ratio'][clock(result)]:.0f}x; {sides['whole_batch_channels_last']['ratio'][clock(result)]:.0f}x in "
             f"channels_last")]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """All of it, for benchmarks/README.md: head and rows."""
    return ("side", "images a second", "ratio: wall", "CPU"), [
        (name, f"{side['images_per_s']:.0f}", f"{side['ratio']['wall']:.1f}", f"{side['ratio']['cpu']:.1f}")
        for name, side in result["sides"].items()]


if __name__ == "__main__":
    main()
