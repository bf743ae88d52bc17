"""Searches by trials with shared weights, all with an equal budget of images: how good, by the table, is what each finds?

    python train_search.py space=nasbench_macro relaxation=uniform dataset=cifar10 dataset.root=data channels=16 epochs=5 \
        split.train_portion=0.9 output=macro                  # a supernet; one for each seed that it is to be tried with
    python -m benchmarks.shared_search macro/* --table nas_bench_macro_cifar10.json.gz --root data

Every searcher searches in every supernet with every seed. A trial is an evaluation on validation images with recalibrated batch norms, and
costs what it sees; a repeat costs nothing (`repeats=free`). An architecture is evaluated once for all searches: the values are the same.
The choice of a search is its best by shared weights; what is told is its true rank among the table's architectures (1 is the best), beside
its test accuracy and the seconds that the evaluations took. Writes benchmarks/results/shared_search.json.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import supernet
from supernet.data import cifar10
from supernet.data.split import Split
from supernet.evaluators.shared_weights import SharedWeights
from supernet.genotype import Genotype
from supernet.objectives import Objective
from supernet.report.statistics import mean_interval
from supernet.runs.environment import describe
from supernet.runs.folder import RunFolder, write_json
from supernet.searchers.annealing import Annealing
from supernet.searchers.local_search import LocalSearch
from supernet.searchers.loop import Budget, Trials
from supernet.searchers.random import Random
from supernet.searchers.regularised_evolution import RegularisedEvolution
from supernet.tables.files import read_table
from supernet.tasks.classification import Classification
from supernet.trials import Evaluation, History, best

OUT = Path(__file__).resolve().parent / "results/shared_search.json"
TRIALS = 200  # evaluations that the budget of images is enough for
BATCH = 250
SEARCHERS = {"random": Random, "regularised_evolution": lambda space: RegularisedEvolution(space, population=20, sample=5),
             "annealing": lambda space: Annealing(space, steps=TRIALS), "local_search": LocalSearch}


class Known:
    """Shared weights on fixed batches: each architecture is evaluated once, and costs its images whoever asks."""

    gives, shortens = frozenset({"accuracy"}), False

    def __init__(self, run: Path, root: str, images: int, calibration: int):
        found = supernet.load(run)
        self.space, self.seed = found.space, found.options["seed"]
        data, split = cifar10.CIFAR10(root), Split.load(RunFolder(run).split)
        part, pre = data.train(), found.preprocess

        def batches(indices: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (pre.mean, pre.std))
            return [(((part.read(some) / 255 - mean) / std).contiguous(memory_format=torch.channels_last), part.labels[some])
                    for some in indices.split(BATCH)]

        draw = torch.Generator().manual_seed(0)
        calibrating = split.train[torch.randperm(len(split.train), generator=draw)[:calibration]]
        self.images = min(images, len(split.val)) + calibration
        self.shared = SharedWeights(found.network, found.space, Classification(), batches(split.val[:images]), torch.Generator(),
                                    calibration=batches(calibrating))
        self.found: dict[Genotype, float] = {}

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        if genotype not in self.found:
            self.found[genotype] = self.shared(genotype)["accuracy"]
        return Evaluation({"accuracy": self.found[genotype]}, images=self.images)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of searches in the table's space")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--root", default="data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=500, help="validation images of an evaluation")
    parser.add_argument("--calibration", type=int, default=250, help="training images for the batch norms' statistics")
    options = parser.parse_args(argv)
    supernet.use(threads=1)
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        known = Known(run, options.root, options.images, options.calibration)
        table = read_table(options.table, known.space)
        truth = table.column(table.dataset("cifar10").test)
        for (name, make), seed in itertools.product(SEARCHERS.items(), range(options.seeds)):
            budget = Budget(images=TRIALS * known.images)
            history = History(list(Trials(known.space, make(known.space), known, Objective(), budget, seed, {}).run(History())))
            chosen = best(history)
            accuracy = table.value(chosen.genotype, table.dataset("cifar10").test)
            rows.append({"supernet": known.seed, "searcher": name, "seed": seed, "trials": len(history), "images": sum(
                t.images for t in history), "by_shared_weights": chosen.scores[0], "test_accuracy": accuracy,
                "rank": 1 + int((truth > accuracy).sum()), "chosen": known.space.text(chosen.genotype)})
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        print(f"supernet {known.seed}: {len(known.found)} architectures evaluated", flush=True)
    told = []
    for name in SEARCHERS:
        own = [row for row in rows if row["searcher"] == name]
        ranks, accuracies = (np.array([row[key] for row in own], float) for key in ("rank", "test_accuracy"))
        told.append({"searcher": name, "searches": len(own), "rank_mean": float(ranks.mean()), "rank_median": float(np.median(ranks)),
                     "rank_interval_95": list(mean_interval(ranks, np.random.default_rng(0))), "test_accuracy": float(accuracies.mean()),
                     "test_accuracy_interval_95": list(mean_interval(accuracies, np.random.default_rng(0))),
                     "by_shared_weights": float(np.mean([row["by_shared_weights"] for row in own]))})
        print(told[-1], flush=True)
    about = {"seeds": options.seeds, "images": options.images, "calibration": options.calibration, "trials": TRIALS,
             "supernets": len(options.runs)}
    write_json(OUT, {"command": "python -m benchmarks.shared_search", "options": about, "architectures": len(truth),
                     "table": dict(table.files), "environment": describe(torch.device("cpu")), "rows": told, "searches": rows})


if __name__ == "__main__":
    main()
