"""Final trainings as train_final.py composes them, on the training images that are at hand, and steps of them that are timed."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from benchmarks.compare import seconds
from benchmarks.gpu.batches import Batches
from benchmarks.gpu.card import wait
from benchmarks.gpu.checks import Bench, Skipped
from supernet.networks.measure import live_tensors, peak_memory
from supernet.tasks.base import Batch
from supernet.training.final import FinalLoop

CELL = "darts_v2"
IMAGES = 50_000  # of CIFAR-10, which the published training has in an epoch
# Of a stand-in: the same parts on digits, of 8x8 pixels.
TOY = ("layers=3", "channels=4", "batch_size=16", "eval_batch_size=64", "split.max_train=64", "split.val_portion=0.1",
       "dataset.augment.pad=1", "dataset.augment.cutout=2")
LEAST = 3  # steps that are timed, whatever they take


def composed(bench: Bench, *options: str) -> tuple[Any, FinalLoop]:
    """The options and the loop of a training of `CELL` on CIFAR-10, which has not begun. Raises Skipped: there are no images."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    from supernet.app import compose
    from supernet.app.build import space_of
    from supernet.app.checks import validate
    from supernet.genotype import find
    from tests.searches import configs

    genotype = find(CELL)
    with configs():
        cfg = hydra_compose("final", overrides=[f"dataset={'digits' if bench.toy else 'cifar10'}", "protocol=cifar10", "threads=null",
                                                *options, *(TOY if bench.toy else ())])
        validate(cfg, "train_final")
        if not bench.toy:
            if bench.data is None:
                raise Skipped("no data came along: --data FOLDER")
            Batches(str(bench.data)).check()
            source = OmegaConf.create({"_target_": "benchmarks.gpu.batches.Batches", "root": str(bench.data)})
            cfg.dataset.source = cfg.dataset.data.source = source
        device, _ = compose.final_machine(cfg)
        read = compose.final_read(cfg, device)
        return cfg, compose.final_loop(cfg, space_of(genotype), genotype, read, device)


def timed(bench: Bench, loop: FinalLoop, *, warm: int, for_s: float) -> Mapping[str, Any]:
    """Steps of the training with the loading of their batches, each waited for: the median, how many there were, and what an epoch of all
    images of CIFAR-10 takes at that pace; then, beside, steps that follow each other without a wait, as in a training."""
    device, batches = bench.device, again(loop.train)
    loop.net.train()

    def one() -> None:
        loop.totals.add(loop.step(next(batches)))

    began = time.perf_counter()
    for _ in range(warm):  # kernels are chosen and compiled
        one()
    wait(device)
    warm_s, took = time.perf_counter() - began, []
    while len(took) < LEAST or sum(took) < for_s / 2:
        took.append(seconds(one, device)[0])
    steps = max(LEAST, len(took))
    began = time.perf_counter()
    for _ in range(steps):
        one()
    wait(device)
    flowing = (time.perf_counter() - began) / steps
    peak = peak_memory(one, device, live_tensors(device))
    loop.guard.look()
    loop.totals.reset()
    batch = loop.train.batch_size
    return {"step_s": sorted(took)[len(took) // 2], "flowing_s": flowing, "steps": len(took) + steps, "warm_s": warm_s, "peak_bytes": peak,
            "images_per_s": batch / flowing, "epoch_s": flowing * -(-IMAGES // batch), "batch": batch,
            "finite": bool(torch.stack([p.isfinite().all() for p in loop.net.parameters()]).all())}


def again(batches: Any) -> Iterator[Batch]:
    """Pass after pass."""
    while True:
        yield from batches
