"""Collapse, live: the share of skip connections and the dominant eigenvalue over the epochs of a long alpha training, for DARTS and for
four remedies, on a small NAS-Bench-201 setting.

    python -m benchmarks.collapse --root data --table nb201.csv.gz

A search each (`train_search.py`, one thread); can be stopped, and the same command goes on. Writes benchmarks/results/collapse.json and
docs/collapse.png.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from matplotlib.figure import Figure

from supernet.report import figure as figures
from supernet.runs.environment import describe

HERE = Path(__file__).resolve().parent.parent
# A learning rate of the alphas 30 times the published one: in 60 epochs they go as far as in hundreds, for the price of minutes.
SETTING = {"layers": 5, "channels": 8, "split.max_train": 1500, "split.max_val": 1500, "batch_size": 50, "eval_batch_size": 50,
           "epochs": 60, "alpha_optimizer.lr": 1e-2, "threads": 1, "wandb.mode": "disabled", "keep_checkpoints": 1,
           "monitor": "[eigenvalue]", "monitor.eigenvalue.every": 2, "monitor.eigenvalue.iterations": 6}
METHODS = {
    "DARTS": ["experiment=darts_first_order_nasbench201"],
    "DARTS-": ["experiment=darts_minus_nasbench201"],
    "beta decay": ["experiment=beta_darts_nasbench201"],
    "R-DARTS(L2)": ["experiment=darts_first_order_nasbench201", "w_optimizer.weight_decay=81e-4"],
    "DARTS-ES": ["experiment=darts_first_order_nasbench201", "monitor.eigenvalue.stop=true"],
}
ACCURACY = "table/cifar10/test_accuracy"
PANELS = {"skip_share": "skip connections among the edges", "alpha_eigenvalue": "dominant eigenvalue of the Hessian",
          ACCURACY: "test accuracy of the cell (%)"}


def search(name: str, options: argparse.Namespace) -> tuple[list[dict], float]:
    """The epochs' records of a search, run where it is not finished; and the test accuracy of the cell that it gives, which is an earlier
    epoch's where it was stopped."""
    label = "".join(c for c in name.lower() if c.isalnum() or c in "-").strip("-") + ("minus" if name == "DARTS-" else "")

    def finished() -> Path | None:
        for folder in sorted(options.folder.glob(f"*_search_{label}_seed0"), reverse=True):
            if json.loads((folder / "run.json").read_text())["status"] == "finished":
                return folder
        return None

    if finished() is None:
        command = [sys.executable, str(HERE / "train_search.py"), *METHODS[name], f"dataset.root={options.root}",
                   f"table.path={options.table}", f"output={options.folder}", f"name={label}", "resume=auto",
                   *(f"{key}={value}" for key, value in SETTING.items())]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        print(f"{name}: finished", flush=True)
    folder = finished()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return records, json.loads((folder / "summary.json").read_text())["values"][ACCURACY]


def picture(curves: dict[str, list[dict]]) -> Figure:
    """A panel for each of `PANELS`; a dot stands where a search was stopped before its end."""
    figure = Figure(figsize=(12, 3.6), layout="constrained", facecolor="white")
    longest = max(map(len, curves.values()))
    for n, (key, label) in enumerate(PANELS.items()):
        axes = figure.add_subplot(1, len(PANELS), n + 1)
        for name, records in curves.items():
            points = [(r["epoch"] + 1, r[key]) for r in records if r.get(key) is not None]
            (line,) = axes.plot(*zip(*points), label=name, linewidth=1.3)
            if len(records) < longest:
                axes.plot(*points[-1], "o", color=line.get_color())
        axes.set_xlabel("epochs done")
        axes.set_ylabel(label)
        axes.grid(True, color="#e3e3e3", linewidth=0.6)
        if not n:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(curves), frameon=False, fontsize=9)
    return figure


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="where CIFAR-10 lies")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/collapse"))
    options = parser.parse_args(arguments)
    with ThreadPoolExecutor(options.processes) as pool:
        searches = dict(zip(METHODS, pool.map(lambda name: search(name, options), METHODS)))
    curves, found = ({name: both[n] for name, both in searches.items()} for n in (0, 1))
    rows = {name: [{key: r.get(key) for key in ("epoch", "val_accuracy", *PANELS)} for r in records] for name, records in curves.items()}
    result = {"environment": describe(torch.device("cpu")), "setting": SETTING, "found": found, "curves": rows}
    (HERE / "benchmarks/results/collapse.json").write_text(json.dumps(result) + "\n")
    with figures.house_style():
        picture(curves).savefig(HERE / "docs/collapse.png", dpi=110)
    for name, records in curves.items():
        values = [r["alpha_eigenvalue"] for r in records if "alpha_eigenvalue" in r]
        shares = [r["skip_share"] for r in records]
        print(f"{name:12} {len(records)} epochs, skip share {shares[-1]:.2f} (highest {max(shares):.2f}), eigenvalue "
              f"{values[0]:.3f} -> {values[-1]:.3f}, cell {found[name]:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
