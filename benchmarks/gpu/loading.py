"""Images a second of the data path: whole batches picked, augmented and normalised on the device, and batches that come from the host."""

from collections.abc import Iterator

import torch

from benchmarks.compare import seconds
from benchmarks.gpu.card import launches, wait
from benchmarks.gpu.checks import Bench, Check, Report, Values
from supernet.data.augment import Augment
from supernet.data.cifar10 import CIFAR10
from supernet.data.loader import Loader
from supernet.data.random import Random

ROUNDS = 3


def run(bench: Bench, report: Report) -> None:
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    for batch in (64, 256):
        for cutout in (0, 16):
            yield Check(f"batch {batch}, pad 4, flip, cutout {cutout}", lambda batch=batch, cutout=cutout: measure(bench, batch, cutout))
    yield Check("batches copied from pinned memory", lambda: copied(bench, 64))


def measure(bench: Bench, batch: int, cutout: int) -> Values:
    num = 256 if bench.toy else 25_000
    images, device = Random(num_train=num, image_size=32).train(), bench.device
    transform = Augment(pad=4, flip=True, cutout=cutout).for_training(CIFAR10.mean, CIFAR10.std, device=device, channels_last=True)
    loader = Loader(images, torch.arange(num), batch_size=batch, transform=transform, generator=torch.Generator(device).manual_seed(0),
                    shuffle=True, drop_last=False, device=device)

    def passed() -> None:
        for _ in loader:
            pass

    passed()
    took = min(seconds(passed, device)[0] for _ in range(ROUNDS))
    return {"images": num, "images_per_s": num / took, "ms_a_batch": 1e3 * took / len(loader),
            "launches_a_pass": launches(passed, device), "batches": len(loader)}


def copied(bench: Bench, batch: int) -> Values:
    """What a loader of files pays at least: uint8 from pinned memory, waited for at the end."""
    device, count = bench.device, 8 if bench.toy else 200
    host = torch.zeros(batch, 3, 32, 32, dtype=torch.uint8)
    host = host.pin_memory() if device.type == "cuda" else host

    def passed() -> None:
        for _ in range(count):
            host.to(device, non_blocking=True, copy=True)
        wait(device)

    passed()
    took = min(seconds(passed, device)[0] for _ in range(ROUNDS))
    return {"images_per_s": batch * count / took}
