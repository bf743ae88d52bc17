"""`recipe=fast` to 96 %: how long it takes from scratch to 96 % of images that are held out.

The recipe's schedule rises and falls once over all epochs, so that how many there are must be known before: as many as fit into the time
that is left, at a pace that is measured first, and at most `MOST`. A training is run to its end whether it reaches the mark or not; what is
told is when an epoch first did, how high it came, and of how many images. Not all 50,000 may have come along, and no test image ever does.
"""

import time
from collections.abc import Iterator, Sequence

from benchmarks.gpu import finals
from benchmarks.gpu.checks import Bench, Check, Report, Skipped, Values
from benchmarks.gpu.speed import cleaned
from benchmarks.gpu.truth import OutOfTime, Watched, ends_of, need_hydra, options_of
from benchmarks.gpu.variants import BY_NAME
from supernet.training.final import fit_final

MARK = 96.0  # percent
MOST, LEAST = 80, 4  # epochs
SPARE = 0.85  # of the time is planned: evaluation and the first steps take some too
# layers and channels: the network of the demonstration of `fast`, and one with the width of the published training
SIZES = {"8 layers, C=16": ("layers=8", "channels=16"), "11 layers, C=36": ("layers=11", "channels=36")}
OPTIONS = ("recipe=fast", "batch_size=256", "eval_batch_size=1000", "split.mode=stratified", "split.val_portion=0.1")
WAY = "bf16"  # products of bf16 in channels_last


def run(bench: Bench, report: Report) -> None:
    need_hydra()
    report.each(checks(bench, report))


def checks(bench: Bench, report: Report) -> Iterator[Check]:
    """The small network has a third of the time."""
    for (name, sizes), share in zip(SIZES.items(), (1 / 3, 1.0), strict=True):
        words = (*OPTIONS, *sizes)
        yield Check(name, lambda name=name, words=words, share=share: to_the_mark(bench, report, name, words, ends_of(bench, share)))


def to_the_mark(bench: Bench, report: Report, name: str, words: Sequence[str], ends: float) -> Values:
    """A training that ends by `ends` of `time.monotonic()`. Raises Skipped: not even a few epochs fit."""
    cleaned(bench.device)
    variant = BY_NAME["channels_last" if bench.toy else WAY]
    with variant.computing(bench.device):
        words = [*options_of(variant, bench.device), *words]
        _, loop = finals.composed(bench, *words)
        pace = finals.timed(bench, loop, warm=1 if bench.toy else 6, for_s=0.0 if bench.toy else 2.0)
        an_epoch = pace["flowing_s"] * len(loop.train)
        epochs = min(LEAST if bench.toy else MOST, int(SPARE * (ends - time.monotonic()) / an_epoch))
        if epochs < LEAST:
            raise Skipped(f"{LEAST} epochs of {an_epoch:.1f} s do not fit into {ends - time.monotonic():.0f} s")
        cfg, loop = finals.composed(bench, *words, f"epochs={epochs}")
        watched = Watched(report, {"training": f"fast, {name}"}, ends)
        started, complete = time.monotonic(), True
        try:
            fit_final(loop, cfg.epochs, watched)
        except OutOfTime:
            complete = False
    reached, spent = None, 0.0
    for n, epoch in enumerate(watched.epochs):
        spent += epoch["seconds"]
        if reached is None and epoch["val_accuracy"] >= MARK:
            reached = {"epoch": n + 1, "seconds": spent}
    return {"images": loop.train.num_items, "held_out": loop.val.num_items, "epochs": len(watched.epochs), "of_epochs": epochs,
            "complete": complete, "seconds": time.monotonic() - started, "training_s": spent, "reached": reached,
            "best": max((e["val_accuracy"] for e in watched.epochs), default=None), "epoch_s": an_epoch}
