"""Images per second of whole-batch augmentation beside the per-image PIL and torchvision pipeline: `python -m benchmarks.data`.

One thread, 32x32x3 noise, pad 4, flip, Cutout 16. Both sides start from uint8 images in memory and end with a normalised float
batch with its labels; the loops around them are each side's usual ones (here `Loader`; there a torch DataLoader in this process).
Rounds are interleaved; the ratio is the median of the rounds' ratios.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from supernet.data.augment import Augment
from supernet.data.base import Images
from supernet.data.loader import Loader
from supernet.data.random import Random
from supernet.torchvision_import import import_torchvision

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


def seconds(batches: Iterable) -> tuple[float, float]:
    """Wall time and process CPU time of one pass."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(num_images: int, batch_size: int, rounds: int) -> dict:
    """Images per second (medians over the rounds) of each side, and each side's ratio to the per-image pipeline."""
    images = Random(num_train=num_images, image_size=32).train()
    sides: dict[str, Callable[[], Iterable]] = {
        "per_image": DataLoader(PerImage(images), batch_size=batch_size, shuffle=True).__iter__,
        "whole_batch": whole_batches(images, batch_size, channels_last=False).__iter__,
        "whole_batch_channels_last": whole_batches(images, batch_size, channels_last=True).__iter__,
    }
    walls: dict[str, list[float]] = {name: [] for name in sides}
    cpus: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        for name, batches in sides.items():
            wall, cpu = seconds(batches())
            if round_number:  # the first warms up
                walls[name].append(wall)
                cpus[name].append(cpu)

    def ratio(times: dict[str, list[float]], name: str) -> float:
        return statistics.median(slow / fast for slow, fast in zip(times["per_image"], times[name], strict=True))

    return {
        "num_images": num_images,
        "batch_size": batch_size,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images_per_s": {name: num_images / statistics.median(times) for name, times in walls.items()},
        "ratio_wall": {name: ratio(walls, name) for name in sides},
        "ratio_cpu": {name: ratio(cpus, name) for name in sides},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6400, help="images in a pass")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(arguments.images, arguments.batch_size, arguments.rounds)
    for name, speed in result["images_per_s"].items():
        wall, cpu = result["ratio_wall"][name], result["ratio_cpu"][name]
        print(f"{name:26} {speed:9.0f} images/s   {wall:5.1f}x wall   {cpu:5.1f}x CPU")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
