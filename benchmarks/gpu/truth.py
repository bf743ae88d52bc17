"""Searches of full size under their published schedules, for as many epochs as the time allows, and what is written down of them.

The presets are composed as a user composes them; how they compute is the variant of float32 that was fastest and correct on this device,
or the project's default where nothing was measured. Every result says how many images there were: the published searches have 25,000 for
the weights and as many for the alphas.
"""

import importlib.util
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.batches import Batches
from benchmarks.gpu.checks import Bench, Report, Skipped, Values
from benchmarks.gpu.speed import best_exact, cleaned
from benchmarks.gpu.variants import BY_NAME, Variant
from supernet.genotype import Genotype
from supernet.runs.journal import Journal

TABLE = "nb201.csv.gz"


class OutOfTime(Exception):
    """The search ends where it stands."""


class Watched:
    """A recorder that writes an epoch down as soon as it is over, and ends the search when its time is up."""

    def __init__(self, report: Report, about: Mapping[str, Any], ends: float) -> None:
        self.report, self.about, self.ends = report, dict(about), ends
        self.epochs: list[dict[str, Any]] = []
        self.genotype: Genotype | None = None

    def step(self, items: int, totals: Any) -> None:
        if time.monotonic() > self.ends:
            raise OutOfTime

    def line(self, text: str) -> None:
        print(text, flush=True)

    def working(self, done: int = 0, total: int = 0, item: str = "") -> None:
        self.step(0, None)

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        self.genotype = genotype
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        self.epochs.append(numbers)
        self.report.note(**self.about, **numbers, genotype=None if genotype is None else genotype.to_json())
        self.step(0, None)


def need_hydra() -> None:
    if importlib.util.find_spec("hydra") is None:
        raise Skipped("hydra-core is not installed, which the presets need")


def fastest(bench: Bench, case: str, captured: bool) -> Variant:
    """How a search of this kind computes best here. captured: whether a graph can hold its steps."""
    records = list(Journal.readable(bench.journal.path))
    correct = {r["check"] for r in records if r.get("kind") == "check" and r.get("part") == "networks" and r.get("verdict") == "passed"}

    def allowed(variant: Variant) -> bool:
        eager = variant.name.removeprefix("graph_") if variant.name != "graph" else "channels_last"
        return f"{case}, {eager}" in correct and (not variant.graph or (captured and not bench.toy))  # the scripts capture on a GPU alone

    return best_exact(records, case, allowed=allowed) or BY_NAME["channels_last"]


def options_of(variant: Variant, device: Any) -> list[str]:
    return [f"device={device}", f"backend={variant.backend}", f"channels_last={str(variant.channels_last).lower()}", f"amp={variant.amp}",
            f"tf32={str(variant.tf32).lower()}", f"compile={'graph' if variant.graph else 'none'}", *variant.options]


def search(bench: Bench, report: Report, preset: str, variant: Variant, ends: float, more: Sequence[str] = ()) -> Values:
    """One search, until `ends` of `time.monotonic()`. Raises Skipped: there are no images."""
    from omegaconf import OmegaConf

    from supernet.app import compose
    from supernet.training.stages import fit_stages
    from tests.searches import composed

    cleaned(bench.device)
    options = [f"experiment={preset}", *options_of(variant, bench.device), *more]
    source = None
    if bench.toy:
        options += ["profile=smoke"]
    else:
        if bench.data is None:
            raise Skipped("no data came along: --data FOLDER")
        source = Batches(str(bench.data))
        source.check()
        if (table := bench.data / TABLE).exists() and "nasbench201" in preset:
            options.append(f"table.path={table}")
    cfg = composed(*options)
    if source is not None:
        cfg.dataset.source = OmegaConf.create({"_target_": "benchmarks.gpu.batches.Batches", "root": str(bench.data)})
    parts = compose.search_parts(cfg)
    stages = compose.search_stages(cfg, parts)
    split = parts.loaders.split
    about = {"preset": preset, "variant": variant.name, "split": [len(split.train), len(split.val)], "of_epochs": cfg.epochs}
    watched = Watched(report, about, ends)
    started = time.monotonic()
    try:
        fit_stages(stages, watched)
        complete = True
    except OutOfTime:
        complete = False
    return about | {"complete": complete, "seconds": time.monotonic() - started} | summary(watched, parts.space)


def summary(watched: Watched, space: Any) -> dict[str, Any]:
    """Of all epochs; nothing but their number where none was finished."""
    epochs = watched.epochs
    if not epochs or watched.genotype is None:
        return {"epochs": 0}
    last = epochs[-1]
    told = {name: last[name] for name in ("val_accuracy", "train_loss", "table/cifar10/test_accuracy", "table/cifar10/regret",
                                          "table/cifar100/test_accuracy", "table/imagenet16/test_accuracy") if name in last}
    return {"epochs": len(epochs), "epoch_s": statistics.median(e["seconds"] for e in epochs), **told,
            "genotype": watched.genotype.to_json(), "text": space.text(watched.genotype)}


def ends_of(bench: Bench, share: float) -> float:
    return time.monotonic() + share * max(0.0, bench.left_s())


