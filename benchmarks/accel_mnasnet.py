"""What can be told of 5,125 networks that Accel-NASBench trained on ImageNet without training one:

    python -m benchmarks.accel_mnasnet --table accel_nasbench_imagenet.csv.gz --root data        # from the repository root

Kendall's tau with the table's accuracies of zero-cost proxies (by `python -m supernet.rank`, on CIFAR-10's images, for ImageNet's are not
at hand), and of two predictors: the Gaussian process of `searcher=bayesian` and the linear model of the choices that `supernet.costs.exact`
takes, each fitted to some rows and asked about the others, five times, and how far the best of a predictor's ten first is below the best.
And the fronts of accuracy and of each device. Writes benchmarks/results/accel_mnasnet.json, and the fronts into docs/accel_fronts.png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from supernet.costs.exact import additive_score
from supernet.genotype import Genotype
from supernet.report import figure as figures
from supernet.report.curves import SERIES_COLOURS
from supernet.report.statistics import kendall
from supernet.runs.environment import describe
from supernet.runs.folder import write_json
from supernet.searchers.encodings import Numbered, adjacency, differences
from supernet.searchers.fronts import front
from supernet.searchers.gaussian_process import fit, normal_scores, predict
from supernet.spaces import accel_mnasnet
from supernet.tables.files import read_table
from supernet.tables.table import Table

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "benchmarks/results/accel_mnasnet.json"
PICTURE = HERE / "docs/accel_fronts.png"
PROXIES = ("synflow", "snip", "grad_norm", "jacob_cov", "parameters", "multiply_adds")  # naswot needs a ReLU, and these have none
FITTED = (50, 200, 1000)
REPEATS = 5
FIRST = 10
ACCURACY = "val_top1"
Predictor = Callable[[Sequence[Genotype], np.ndarray, Sequence[Genotype]], np.ndarray]


def by_process(known: Sequence[Genotype], scores: np.ndarray, asked: Sequence[Genotype]) -> np.ndarray:
    """As `searcher=bayesian` models scores: a Gaussian process on the choices in which two networks differ."""
    encode = Numbered(adjacency(accel_mnasnet.make()))
    features = [encode(genotype) for genotype in known]
    y, between = normal_scores(scores), differences(features, features)
    mean, _ = predict(fit(between, y), between, differences(features, [encode(genotype) for genotype in asked]), y)
    return mean


def by_sum(known: Sequence[Genotype], scores: np.ndarray, asked: Sequence[Genotype]) -> np.ndarray:
    model = additive_score(accel_mnasnet.make(), known, scores.tolist())
    return np.array([model(genotype) for genotype in asked])


PREDICTORS: Mapping[str, Predictor] = {"gaussian_process": by_process, "additive": by_sum}


def predicted(table: Table) -> list[dict[str, Any]]:
    """By predictor and number of rows that it is fitted to: means over the repeats, and the range of tau."""
    genotypes, truth = [table.genotype(row) for row in range(len(table))], table.column(ACCURACY)
    rows = []
    for name, predictor in PREDICTORS.items():
        for size in FITTED:
            taus, regrets = [], []
            for seed in range(REPEATS):
                order = np.random.default_rng(seed).permutation(len(genotypes))
                known, rest = order[:size], order[size:]
                scores = predictor([genotypes[n] for n in known], truth[known], [genotypes[n] for n in rest])
                taus.append(kendall(scores, truth[rest]))
                regrets.append(truth[rest].max() - truth[rest][np.argsort(-scores)[:FIRST]].max())
            rows.append({"predictor": name, "fitted_to": size, "asked": len(rest), "tau": float(np.mean(taus)), "tau_least": min(taus),
                         "tau_most": max(taus), f"regret_of_first_{FIRST}": float(np.mean(regrets))})
            print(f"{name:18} fitted to {size:5}: tau {rows[-1]['tau']:.3f} [{min(taus):.3f}, {max(taus):.3f}], the best of its first "
                  f"{FIRST} is {np.mean(regrets):.2f} points below the best", flush=True)
    return rows


def proxies(path: Path, root: str, n: int) -> dict[str, Any]:
    """Of `n` rows drawn at random, with bootstrap intervals."""
    with tempfile.TemporaryDirectory() as where:
        options = f"options={{space:accel_mnasnet,dataset:cifar10,dataset.root:{Path(root).resolve()}}}"
        subprocess.run([sys.executable, "-m", "supernet.rank", options, f"by=[{','.join(PROXIES)}]", f"n={n}",
                        f"table.path={path.resolve()}", f"output={where}", "threads=1"], check=True, cwd=HERE)
        return json.loads(Path(where, "rank.json").read_text())["scores"]


def higher_is_better(column: str, values: np.ndarray) -> np.ndarray:
    return values if column.startswith("throughput") else -values


def fronts(table: Table) -> dict[str, Any]:
    """By column of a device: the front of accuracy and it, and the rank correlation of both. Rows without a value are left out."""
    accuracy, found = table.column(ACCURACY), {}
    for column in (name for name in table.names() if name.startswith(("throughput", "latency"))):
        values = table.column(column)
        there = np.flatnonzero(np.isfinite(values))
        own = there[front(np.stack([accuracy[there], higher_is_better(column, values[there])], 1))]
        own = own[np.argsort(accuracy[own])]
        found[column] = {"rows": len(there), "front": len(own), "tau_with_accuracy": kendall(accuracy[there], values[there]),
                         "members": [{"accuracy": float(accuracy[row]), "value": float(values[row]),
                                      "network": table.space.text(table.genotype(row))} for row in own]}
        print(f"{column:30} front of {len(own):3} of {len(there)}: {accuracy[own[0]]:.2f} % at {values[own[0]]:.4g}, "
              f"{accuracy[own[-1]]:.2f} % at {values[own[-1]]:.4g}", flush=True)
    return found


def chart(table: Table, found: Mapping[str, Any]) -> Figure:
    accuracy = table.column(ACCURACY)
    figure = Figure(figsize=(12.4, 5.6), layout="constrained", facecolor="white")
    for n, (column, own) in enumerate(found.items()):
        axes = figure.add_subplot(2, 4, n + 1)
        axes.scatter(table.column(column), accuracy, s=3, color="#bbbbbb", linewidths=0, rasterized=True)
        axes.plot([m["value"] for m in own["members"]], [m["accuracy"] for m in own["members"]], "o-", markersize=3, linewidth=0.9,
                  color=SERIES_COLOURS[0])
        kind, *device = column.split("_")
        unit = {"throughput": "images a second", "latency": "ms an image"}[kind]
        axes.set_xlabel(f"{device[0].upper()}: {unit}")
        axes.set_ylabel("ImageNet top-1 (%)" if n % 4 == 0 else "")
        axes.grid(True, color="#e3e3e3", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accel_mnasnet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="Accel-NASBench's, as docs/tables.md says")
    parser.add_argument("--root", default="data", help="where CIFAR-10 is")
    parser.add_argument("--n", type=int, default=500, help="networks whose proxies are computed")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    given = parser.parse_args(arguments)
    table = read_table(given.table, accel_mnasnet.make())
    found = {"predictors": predicted(table), "fronts": fronts(table), "proxies": proxies(given.table, given.root, given.n)}
    write_json(given.out, {"command": "python -m benchmarks.accel_mnasnet", "options": {"n": given.n, "repeats": REPEATS},
                           "table": dict(table.files), "environment": describe(torch.device("cpu")), **found})
    with figures.house_style():
        chart(table, found["fronts"]).savefig(given.picture, dpi=110)


if __name__ == "__main__":
    main()
