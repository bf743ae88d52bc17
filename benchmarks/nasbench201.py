"""Gradient methods on NAS-Bench-201 with a reduced schedule: the true accuracy of what each search finds, over seeds.

    python -m benchmarks.nasbench201 --root data --table nb201.csv.gz --processes 2

Every search is `train_search.py experiment=<method>_nasbench201` with the same reduced sizes (SCHEDULE), a process of one thread each.
Can be stopped at any time: the same command goes on, and finished searches are read from their folders. Writes
benchmarks/results/nasbench201_methods.json and prints the table.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from supernet.runs.environment import describe
from supernet.runs.progress import Counted
from supernet.spaces import nasbench201
from supernet.tables.files import read_table

HERE = Path(__file__).resolve().parent.parent
METHODS = ("darts_first_order", "gdas", "dr_nas", "pc_darts", "beta_darts", "snas", "random_ws", "spos")
# Two images in nine of the training half, a third of the depth, half the channels; alphas learn faster, for they have fewer steps.
SCHEDULE = {"layers": 5, "channels": 8, "split.max_train": 2500, "split.max_val": 2500, "epochs": 20, "alpha_optimizer.lr": 3e-3,
            "threads": 1, "wandb.mode": "disabled", "keep_checkpoints": 1}
OWN = {"pc_darts": {"alpha_begin": 5}, "random_ws": {"final_select.finalists": 10}, 
       # the best of 100 samples: what was measured, at a tenth of the trials that the preset's evolution has
       "spos": {"searcher": "null", "final_select": "sampled", "final_select.n": 100, "final_select.statistics": "recalibrated",
                "final_select.finalists": 10}}
DATASETS = ("cifar10", "cifar100", "imagenet16")


def search(method: str, seed: int, options: argparse.Namespace) -> tuple[dict, str]:
    """The summary of a search, run or gone on with where it is not finished, and a line about it."""
    known = finished(method, seed, options)
    if known is not None:
        return known, f"{method:18} seed {seed}  {accuracy(known, 'cifar10'):6.2f} %  known"
    schedule = SCHEDULE | OWN.get(method, {}) | ({"epochs": options.epochs} if options.epochs else {})
    command = [sys.executable, str(HERE / "train_search.py"), f"experiment={method}_nasbench201", f"dataset.root={options.root}",
               f"table.path={options.table}", f"output={options.folder}", f"name={method}", f"seed={seed}", "resume=auto",
               *(f"{key}={value}" for key, value in schedule.items())]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{method}, seed {seed}: {done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}")
    found = finished(method, seed, options)
    return found, f"{method:18} seed {seed}  {accuracy(found, 'cifar10'):6.2f} %  {(time.perf_counter() - started) / 60:.1f} min"


def finished(method: str, seed: int, options: argparse.Namespace) -> dict | None:
    for folder in sorted(options.folder.glob(f"*_search_{method}_seed{seed}"), reverse=True):
        run, summary = folder / "run.json", folder / "summary.json"
        if summary.exists() and json.loads(run.read_text())["status"] == "finished":
            return json.loads(summary.read_text())["values"]
    return None


def accuracy(values: dict, dataset: str) -> float:
    return values[f"table/{dataset}/test_accuracy"]


def published(method: str) -> str:
    text = (HERE / "conf/experiment" / f"{method}_nasbench201.yaml").read_text()
    found = re.search(r"(?:Published|Reported): ([\d.]+(?: \+- [\d.]+)?)(?: /| %)", text)
    return found.group(1) if found else ""


def chosen_by(validation: np.ndarray, truth: np.ndarray, n: int) -> float:
    """The expected truth of the best of `n` cells drawn with replacement, by validation."""
    share = np.arange(len(truth) + 1) / len(truth)
    return float((truth[np.argsort(validation, kind="stable")] * np.diff(share**n)).sum())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="where CIFAR-10 lies")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help=f"instead of {SCHEDULE['epochs']}")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/nasbench201"))
    parser.add_argument("--out", type=Path, default=HERE / "benchmarks/results/nasbench201_methods.json")
    options = parser.parse_args(arguments)
    jobs = [(method, seed) for seed in options.seeds for method in options.methods]
    found = {}
    with ThreadPoolExecutor(options.processes) as pool, Counted(len(jobs), "searches") as progress:
        for job, (values, said) in zip(jobs, pool.map(lambda job: search(*job, options), jobs)):
            found[job] = values
            progress.hide()
            print(said, flush=True)
            progress.add()

    table = read_table(options.table, nasbench201.make())
    rows = []
    for method in options.methods:
        row = {"method": method, "runs": len(options.seeds), "published": published(method)}
        for dataset in DATASETS:
            values = [accuracy(found[method, seed], dataset) for seed in options.seeds]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            row |= {f"{dataset}_mean": float(np.mean(values)), f"{dataset}_std": spread, f"{dataset}_values": values}
        row["minutes"] = float(np.mean([found[method, seed]["elapsed_s"] / 60 for seed in options.seeds]))
        rows.append(row)
    truth = table.column(table.datasets["cifar10"].test)
    by_validation = {n: chosen_by(table.column(table.datasets["cifar10"].validation), truth, n) for n in (10, 100)}
    result = {"environment": describe(torch.device("cpu")), "schedule": SCHEDULE | {"own": OWN}, "rows": rows,
              "random_cell": float(truth.mean()), "best": float(truth.max()),
              "random_search": {str(n): float(value) for n, value in by_validation.items()}}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{'method':18}  {'CIFAR-10':>14}  {'CIFAR-100':>14}  {'ImageNet16':>14}  {'min':>5}  published (another schedule)")
    for row in rows:
        cells = "  ".join(f"{row[f'{d}_mean']:6.2f} +- {row[f'{d}_std']:4.2f}" for d in DATASETS)
        print(f"{row['method']:18}  {cells}  {row['minutes']:5.1f}  {row['published']}")
    print(f"a random cell {truth.mean():.2f}, the best {truth.max():.2f}; the best of n random cells by the table's validation: "
          + ", ".join(f"n={n} {value:.2f}" for n, value in by_validation.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
