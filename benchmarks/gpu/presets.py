"""Every preset, shrunk, three steps: composed as a user composes it, its alphas and weights moved, one batch evaluated."""

import importlib.util
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from benchmarks.gpu.checks import Bench, Check, Failed, Report, Skipped, Values
from benchmarks.gpu.speed import cleaned
from supernet.tasks.base import Batch

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
# Of text, which the digits of profile=smoke are not.
TEXT = ("dataset.bptt=6", "channels=6", "batch_size=4", "eval_batch_size=4", "epochs=2", "space.nodes=3")
OF_A_STAND_IN = ("darts_first_order_cifar10", "darts_first_order_ptb", "gdas_nasbench201", "dr_nas_progressive_nasbench201")


def run(bench: Bench, report: Report) -> None:
    if importlib.util.find_spec("hydra") is None:
        raise Skipped("hydra-core is not installed, which the presets need")
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    names = OF_A_STAND_IN if bench.toy else sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))
    for name in names:
        yield Check(name, lambda name=name: steps(bench, name))


def steps(bench: Bench, preset: str) -> Values:
    from supernet.app import compose
    from tests.searches import composed

    cleaned(bench.device)
    shrunk = (f"dataset.path={words(bench.work)}", *TEXT) if preset.endswith("_ptb") else ("profile=smoke",)
    cfg = composed(f"experiment={preset}", *shrunk, f"device={bench.device}", "threads=1")
    parts = compose.search_parts(cfg)
    loop = compose.search_stages(cfg, parts).loop
    loop.set_epoch(0, cfg.epochs)
    before = [p.detach().clone() for p in (*loop.search.w, *loop.search.alpha)]
    loop.search.net.train()
    losses = []
    for step, batch in zip(range(STEPS), again(loop.train)):
        val_batch = next(loop.alpha_batches)
        stats = loop.step(batch, val_batch)
        for monitor in loop.monitors.values():
            monitor.after_step(loop.search, batch, val_batch, step)
        losses.append((stats["loss"] / stats["count"]).item())
    loop.guard.look()
    loop.evaluate_batch()
    moved = [not torch.equal(a, b.detach()) for a, b in zip(before, (*loop.search.w, *loop.search.alpha))]
    here = {p.device.type for p in (*loop.search.w, *loop.search.alpha)}
    if here != {bench.device.type}:
        raise Failed(f"parameters are on {', '.join(sorted(here))}, not on {bench.device}")
    if len(losses) < STEPS or not all(map(math.isfinite, losses)) or not any(moved):
        raise Failed(f"losses {losses}, {sum(moved)} of {len(moved)} tensors have moved")
    return {"losses": losses, "moved": sum(moved), "of": len(moved)}


def again(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass after pass."""
    while True:
        yield from batches


def words(work: Path) -> Path:
    """A folder with three files of text: what this repository says of methods."""
    folder, said = work / "words", (ROOT / "docs" / "methods.md").read_text().split()
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", said[:1500]), ("valid", said[1500:1800]), ("test", said[1800:2100])):
        (folder / f"{name}.txt").write_text(" ".join(part) + "\n")
    return folder
