"""The worked example of general texts: a genetic search among plain chains, each trained alone, and what its winner is worth.

    python -m benchmarks.sequential --root data          # a search of 80 trainings, then 11 chains retrained

The search is `python train_search.py space=sequential searcher=genetic evaluator=from_scratch dataset=fashion_mnist`, with its defaults.
Then the winner and ten chains drawn at random, whose parameters are within 5 % of the winner's, are trained alike, on more images and for
longer than in the search, and tested. What is done is written as soon as it is there; stopped or killed, the same command goes on.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir

from supernet.app.command_line import register
from supernet.app.options import CONF, overrides
from supernet.commands.tabulate import train
from supernet.costs.base import Cost
from supernet.files import read_text
from supernet.genotype import Genotype
from supernet.runs.environment import describe
from supernet.runs.folder import write_json
from supernet.space import Space
from supernet.spaces.named import space_again

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "benchmarks/results/sequential.json"
SEARCH = {"space": "sequential", "searcher": "genetic", "evaluator": "from_scratch", "dataset": "fashion_mnist"}
RETRAINING = {"dataset": "fashion_mnist", "split.max_train": 4000, "split.val_portion": 0.1, "split.max_val": 1000, "epochs": 5,
              "batch_size": 32, "dataset.augment.cutout": 0, "drop_path_prob": 0}
WITHIN = 0.05  # of the winner's parameters
MAX_DRAWN = 200_000
MAX_BYTES = 2**26


def search(folder: Path, root: str, more: Sequence[str]) -> dict[str, Any]:
    """The search, as a user starts it, gone on with where it was: the winner, and all trials."""
    words = [*overrides(SEARCH), f"dataset.root={root}", f"output={folder}", "resume=auto", "wandb.mode=disabled", *more]
    subprocess.run([sys.executable, str(HERE / "train_search.py"), *words], check=True)
    (run,) = folder.glob("*/trials.jsonl")
    trials = [json.loads(line) for line in read_text(run, MAX_BYTES).splitlines()]
    summary = json.loads(read_text(run.with_name("summary.json"), MAX_BYTES))["values"]
    kept = ("number", "scores", "change", "parents", "images", "wall_s", "repeats")
    return {"winner": summary["genotype"], "winner_trial": summary["trial"], "elapsed_s": summary["elapsed_s"],
            "trials": [{key: trial[key] for key in kept if key in trial} for trial in trials]}


def generations(trials: Sequence[Mapping[str, Any]], size: int) -> list[dict[str, float]]:
    """Fitness by generation: what its members were worth, and the best so far."""
    scores = [trial["scores"][0] for trial in trials]
    return [{"best": max(scores[n:n + size]), "mean": statistics.fmean(scores[n:n + size]), "median": statistics.median(scores[n:n + size]),
             "best_so_far": max(scores[:n + size])} for n in range(0, len(scores), size)]


def of_equal_size(space: Space, winner: Genotype, cost: Cost, number: int, rng: random.Random) -> list[Genotype]:
    """So many different chains, drawn uniformly, whose parameters are within 5 % of the winner's; none is the winner."""
    wanted, found = cost(winner), []
    for _ in range(MAX_DRAWN):
        genotype = space.canonical(space.sample(rng))
        if abs(cost(genotype) / wanted - 1) <= WITHIN and genotype not in found and genotype != space.canonical(winner):
            found.append(genotype)
            if len(found) == number:
                return found
    raise ValueError(f"of {MAX_DRAWN:,} chains only {len(found)} have {wanted:,.0f} parameters, give or take {100 * WITHIN:g} %")


class Kept:
    """What is done, by name, on the disk at once. Raises ValueError: the file holds what was done otherwise."""

    def __init__(self, path: Path):
        self.path, self.how = path, {"search_options": SEARCH, "retraining": RETRAINING, "within": WITHIN}
        self.done: dict[str, Any] = {}
        if path.exists():
            there = json.loads(read_text(path, MAX_BYTES))
            if {key: there.get(key) for key in self.how} != self.how:
                raise ValueError(f"{path} holds results of other settings than {self.how}: name another file with --out")
            self.done = there["done"]

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.done:
            self.done[name] = make()
            self.write({})
            print(f"{name:12} done", flush=True)
        return self.done[name]

    def write(self, row: Mapping[str, Any]) -> None:
        write_json(self.path, {"command": "python -m benchmarks.sequential", **self.how, **row, "done": self.done,
                               "environment": describe(torch.device("cpu"))})


def compared(winner: float, others: Sequence[float]) -> dict[str, float]:
    """Test accuracies, percent. beaten: how many of the others are worse."""
    return {"winner": winner, "random_median": statistics.median(others), "random_best": max(others), "random_worst": min(others),
            "difference": winner - statistics.median(others), "beaten": sum(other < winner for other in others), "of": len(others)}


def run(kept: Kept, folder: Path, root: str, chains: int, more: Sequence[str]) -> dict[str, Any]:
    from supernet.costs.additive import counted
    from supernet.data.fashion_mnist import FashionMNIST

    found = kept.once("search", lambda: search(folder, root, more))
    winner = Genotype.from_json(found["winner"])
    space = space_again(winner.space, dict(winner.arguments))
    data = FashionMNIST(root=root, download=False)
    cost = counted(space, "parameters", num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size)
    node = {"_target_": "supernet.spaces.sequential.make", **winner.arguments}
    options = overrides({**RETRAINING, "dataset.root": root, "threads": torch.get_num_threads()})
    trained = {}
    for n, genotype in enumerate([winner, *of_equal_size(space, winner, cost, chains, random.Random(0))]):
        name, text = f"random {n}" if n else "winner", space.text(genotype)
        trained[name] = kept.once(name, lambda text=text, n=n: train((text, 1000 + n), options, node) | {"chain": text})
    accuracies = {name: result["test_accuracy"] for name, result in trained.items()}
    row = {"generations": generations(found["trials"], 16), "parameters": {name: result["parameters"] for name, result in trained.items()},
           "test_accuracy": accuracies, "comparison": compared(accuracies["winner"], [a for n, a in accuracies.items() if n != "winner"])}
    kept.write(row)
    return row


def said(row: Mapping[str, Any]) -> str:
    lines = [f"generation {n}: best {g['best']:.2f} %, mean {g['mean']:.2f} %, median {g['median']:.2f} %, best so far "
             f"{g['best_so_far']:.2f} %" for n, g in enumerate(row["generations"])]
    c = row["comparison"]
    return "\n".join([*lines, f"retrained: winner {c['winner']:.2f} %, median of {c['of']} random chains of its size "
                      f"{c['random_median']:.2f} % ({c['random_worst']:.2f} to {c['random_best']:.2f}); better than {c['beaten']} of them"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequential", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="the folder that holds FashionMNIST/raw")
    parser.add_argument("--chains", type=int, default=10, help="drawn at random")
    parser.add_argument("--runs", type=Path, default=Path("runs/sequential"), help="where the search is kept")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("options", nargs="*", help="further options of the search, such as threads=2")
    options = parser.parse_args(arguments)
    if not 2 <= options.chains <= 100:
        parser.error(f"--chains must be from 2 to 100, got {options.chains}")
    try:
        kept = Kept(options.out)
    except ValueError as error:
        parser.error(str(error))
    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            print(said(run(kept, options.runs, options.root, options.chains, options.options)))
    except subprocess.CalledProcessError as error:  # it has said why
        return error.returncode if error.returncode > 0 else 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
