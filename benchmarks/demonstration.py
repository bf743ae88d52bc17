"""Whether the search of the demonstration decides anything: the cells that it finds beside cells drawn at random, all trained alone.

    python -m benchmarks.demonstration                # both settings: 5 searches, 10 random cells, 2 trainings each
    python -m benchmarks.demonstration --settings after --searches 2 --cells 3

`after` is what `make search` does, `before` what it did until then. In each setting the searches differ by their seed alone, the random
cells are drawn uniformly from the same space, and every cell is trained in the same way, with seeds that no other cell has: so, if the
search picked by chance, all cells would be alike, and a permutation of their results is as likely as any other. A search or a training is
written to the file as soon as it is done; stopped or killed, the same command goes on.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.compose import search_parts, search_stages
from supernet.app.options import CONF, overrides, plain
from supernet.commands.drawn import drawn
from supernet.commands.tabulate import train
from supernet.files import read_text
from supernet.report.statistics import Sample, difference_interval, permutation, sample
from supernet.report.sureness import sureness
from supernet.runs.environment import describe
from supernet.runs.folder import write_json
from supernet.runs.progress import Counted
from supernet.space import Space
from supernet.spaces import darts, robust
from supernet.training.records import Silent
from supernet.training.stages import fit_stages

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "benchmarks/results/demonstration.json"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "before": {"space": "darts", "alpha_optimizer.lr": 3e-3},
    "after": {"space": "s4", "alpha_optimizer.lr": 1e-2},
}
SPACES: Mapping[str, Callable[[], Space]] = {"darts": darts.make, "s4": robust.s4}
# Of the search's own size, so that all of it takes minutes; `make final` trains six layers of 16 channels for 30 epochs.
RETRAINING = {"dataset": "digits", "layers": 3, "channels": 8, "epochs": 12, "threads": 1}
MAX_BYTES = 2**26  # of the file
Trial = dict[str, Any]


def search(setting: str, seed: int) -> Trial:
    """One search in this process: what it finds, how sure it is, and what it takes."""
    options = overrides({**SETTINGS[setting], "threads": 1, "seed": seed})
    cfg = compose("search", overrides=options)
    validate(cfg, "train_search")
    began, cpu = time.perf_counter(), time.process_time()
    parts = search_parts(cfg)
    stages = search_stages(cfg, parts)
    fit_stages(stages, Silent())
    found = sureness(parts.space, stages.loop.trajectory.arrays()).to_json()
    return {"cell": parts.space.text(stages.loop.genotype()), "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu, "sureness": {key: value for key, value in found.items() if key != "decisions"}}


def training(setting: str, cell: str, seed: int) -> Trial:
    """One cell trained alone, and its test accuracy (percent)."""
    cpu = time.process_time()
    space = plain(compose("search", overrides=overrides({"space": SETTINGS[setting]["space"]})).space)
    metrics = train((cell, seed), overrides(RETRAINING), space)
    return {"test_accuracy": metrics["test_accuracy"], "parameters": metrics["parameters"], "cpu_seconds": time.process_time() - cpu}


class Kept:
    """Trials by name, on the disk as soon as they are done. Raises ValueError: the file holds those of other settings."""

    def __init__(self, path: Path):
        self.path = path
        self.how = {"settings": {name: dict(options) for name, options in SETTINGS.items()}, "retraining": RETRAINING}
        self.trials: dict[str, Trial] = {}
        self.progress = Counted(0, "trials")
        self.rows: dict[str, Any] = {}  # by setting, as of the last time that all its trials were asked for
        if path.exists():
            there = json.loads(read_text(path, MAX_BYTES))
            if {key: there.get(key) for key in self.how} != self.how:
                raise ValueError(f"{path} holds trials of other settings than {self.how}: name another file with --out")
            self.trials, self.rows = there["trials"], there["rows"]

    def trial(self, name: str, make: Callable[[], Trial]) -> Trial:
        if name not in self.trials:
            self.trials[name] = make()
            self.write()
            self.progress.hide()
            print(f"{name:40} {_short(self.trials[name])}", flush=True)
            self.progress.add()
        return self.trials[name]

    def write(self) -> None:
        write_json(self.path, {"command": "python -m benchmarks.demonstration", **self.how, "rows": self.rows, "trials": self.trials,
                               "environment": describe(torch.device("cpu"))})


def compared(kept: Kept, setting: str, searches: int, cells: int, trainings: int) -> dict[str, Any]:
    """One setting, to its end: the accuracy of found and random cells, each the mean of its trainings. pairs_won: the share of all pairs
    of a found and a random cell in which the found one is better, a tie counting half; unlike means, it does not ask how bad a cell is that
    cannot learn at all."""
    found = [kept.trial(f"{setting}: search {seed}", lambda: search(setting, seed)) for seed in range(searches)]
    space = SPACES[SETTINGS[setting]["space"]]()
    drawn_cells = [space.text(genotype) for genotype in drawn(space, cells, random.Random(0))]
    groups: dict[str, list[float]] = {}
    for kind, first, texts in (("found", 0, [f["cell"] for f in found]), ("random", 1000, drawn_cells)):
        groups[kind] = []
        for n, text in enumerate(texts):
            seeds = range(first + 10 * n, first + 10 * n + trainings)
            trained = [kept.trial(f"{setting}: {kind} cell {n}, seed {s}", lambda: training(setting, text, s)) for s in seeds]
            groups[kind].append(float(np.mean([t["test_accuracy"] for t in trained])))
    ours, theirs = sample(groups["found"]), sample(groups["random"])
    interval = difference_interval(ours, theirs)
    means = {key: float(np.mean([f["sureness"][key] for f in found])) for key in found[0]["sureness"]}
    pairs = [(f > r) + (f == r) / 2 for f in groups["found"] for r in groups["random"]]
    return {"accuracy": groups, "trainings": trainings, "medians": {kind: float(np.median(values)) for kind, values in groups.items()},
            "pairs_won": float(np.mean(pairs)), "found": ours._asdict(), "random": theirs._asdict(),
            "difference": ours.mean - theirs.mean, "difference_interval_95": list(interval),
            "p_permutation_greater": permutation(groups["found"], groups["random"], np.random.default_rng(0)),
            "sureness": means, "search_cpu_seconds": float(np.mean([f["cpu_seconds"] for f in found]))}


def line(setting: str, row: Mapping[str, Any]) -> str:
    """What one setting says, in a line."""
    def said(group: Mapping[str, float]) -> str:
        s = Sample(**group)
        return f"{s.mean:.2f} +- {s.deviation:.2f} % (n={s.n})"

    medians, sure = row["medians"], row["sureness"]
    low, high = row["difference_interval_95"]
    return (f"{setting}: found {said(row['found'])}, random {said(row['random'])}, difference {row['difference']:+.2f} [{low:.2f}, "
            f"{high:.2f}], p {row['p_permutation_greater']:.4f}; medians {medians['found']:.2f} and {medians['random']:.2f}, "
            f"{100 * row['pairs_won']:.0f} % of pairs won; gap {sure['mean_gap']:.4f}, entropy {sure['entropy']:.3f} of "
            f"{sure['max_entropy']:.3f} nats, unsure ops {sure['ops_would_flip']:.1f} of {sure['ops']:.0f}, choices of edges "
            f"{sure['edge_choices_would_flip']:.1f} of {sure['edge_choices']:.0f}; a search {row['search_cpu_seconds']:.1f} s")


def _short(trial: Trial) -> str:
    if "cell" in trial:
        sure = trial["sureness"]
        return f"gap {sure['mean_gap']:.4f}, entropy {sure['entropy']:.3f}, {trial['cpu_seconds']:.1f} s"
    return f"{trial['test_accuracy']:.2f} %, {trial['cpu_seconds']:.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demonstration", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS, metavar="SETTING",
                        help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--cells", type=int, default=10, help="drawn at random")
    parser.add_argument("--trainings", type=int, default=2, help="of each cell")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    for name, least, most in (("searches", 2, 100), ("cells", 2, 100), ("trainings", 1, 10)):
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name} must be from {least} to {most}, got {getattr(options, name)}")
    try:
        kept = Kept(options.out)
    except ValueError as error:
        parser.error(str(error))
    register()
    known = sum(name.partition(":")[0] in options.settings for name in kept.trials)  # of more seeds than are asked for, maybe
    each = options.searches + (options.searches + options.cells) * options.trainings
    kept.progress = Counted(max(1, len(options.settings) * each - known), "trials")
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for name in options.settings:
                kept.rows[name] = compared(kept, name, options.searches, options.cells, options.trainings)
                kept.write()
    except KeyboardInterrupt:
        kept.progress.hide()
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    kept.progress.hide()
    print("\n".join(line(name, kept.rows[name]) for name in options.settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
