"""What benchmarks/collapse.py found, as a picture and tables: docs/collapse.png and a block of docs/collapse.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.report import markdown_table, replaced
from supernet.report import figure as figures

MARKS = ("<!-- benchmarks.collapse writes what follows -->", "<!-- benchmarks.collapse ends -->")
NAMES = {"darts_first_order": "DARTS", "darts_minus": "DARTS-", "beta_darts": "beta decay", "sdarts_rs": "SDARTS-RS",
         "r_darts_l2": "R-DARTS(L2)", "darts_es": "DARTS-ES", "r_darts_dp": "R-DARTS(DP)"}
COLORS = {"darts_first_order": "#222222", "darts_minus": "#d55e00", "beta_darts": "#009e73", "sdarts_rs": "#cc79a7",
          "r_darts_l2": "#0072b2", "darts_es": "#e69f00", "r_darts_dp": "#56b4e9"}
PANELS = {"skip_share": "skip connections among the kept edges", "alpha_eigenvalue": "dominant eigenvalue of the Hessian",
          "train_accuracy": "training accuracy of the supernet (%)", "val_accuracy": "validation accuracy of the supernet (%)"}

Run = Mapping[str, Any]


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["method"], []).append(run)
    return found


# ---- the picture


def picture(result: Mapping[str, Any]) -> Figure:
    """Over the epochs a thin line for each search and a thick one for their mean, as far as all of a method have come; a dot where a
    search was ended before its last epoch. Last, the test accuracy of the cell of the first epoch, retrained, and of the cell it gives."""
    figure = Figure(figsize=(13, 6.4), layout="constrained", facecolor="white")
    for n, (key, label) in enumerate(PANELS.items()):
        axes = figure.add_subplot(2, 3, n + 1)
        for method, runs in by_method(result["runs"]).items():
            curves = [run["curves"][key] for run in runs]
            for run, curve in zip(runs, curves):
                known = [(epoch + 1, value) for epoch, value in enumerate(curve) if value is not None]
                axes.plot(*zip(*known), color=COLORS[method], linewidth=0.6, alpha=0.45)
                if run["finished"] and len(curve) < result["setting"]["epochs"]:
                    axes.plot(*known[-1], "o", color=COLORS[method], markersize=4)
            common = [(epoch + 1, np.mean(values)) for epoch, values in enumerate(zip(*curves)) if None not in values]
            axes.plot(*zip(*common), color=COLORS[method], label=f"{NAMES[method]}, n={len(runs)}")
        finish(axes, "epochs done", label)
        if not n:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(NAMES), frameon=False, fontsize=9)
    trained(figure.add_subplot(2, 3, (5, 6)), result["runs"])
    return figure


def trained(axes: Any, runs: Sequence[Run]) -> None:
    methods = by_method([run for run in runs if {"test_accuracy"} <= run.get("first", {}).keys() & run.get("last", {}).keys()])
    for x, (method, found) in enumerate(methods.items()):
        for n, run in enumerate(found):
            place = x + 0.15 * (n - (len(found) - 1) / 2)
            first, last = (run[cell]["test_accuracy"] for cell in ("first", "last"))
            axes.plot([place, place], [first, last], color=COLORS[method], linewidth=0.8)
            axes.plot(place, first, "o", color="white", markeredgecolor=COLORS[method], markersize=4)
            axes.plot(place, last, "o", color=COLORS[method], markersize=4)
    axes.set_xticks(range(len(methods)), [NAMES[method] for method in methods])
    finish(axes, "open: cell of the first epoch, full: cell that the search gives", "test accuracy, trained alone (%)")


def finish(axes: Any, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(True, color="#e3e3e3", linewidth=0.6)


# ---- the tables


def milestones(epochs: int) -> list[int]:
    """Five epochs evenly apart, the last one last."""
    return sorted({max(1, round(epochs * n / 5)) for n in range(1, 6)})


def told(values: Sequence[float], digits: int, of: int) -> str:
    """Mean and standard deviation over searches; in brackets how many where it is not all `of` them."""
    if not values:
        return ""
    text = f"{np.mean(values):.{digits}f}" + (f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else "")
    return text if len(values) == of else f"{text} (n={len(values)})"


def tables(result: Mapping[str, Any]) -> list[str]:
    """Two, of a row a method, over the searches that are finished; below them those that are not."""
    finished = by_method([run for run in result["runs"] if run["finished"]])
    marks = milestones(result["setting"]["epochs"])
    shares = [["skips among the kept edges", "n", *(f"after {mark} epochs" for mark in marks), "in the cell it gives"]]
    others = [["method", "n", "eigenvalue: first, highest, last", "training %", "validation %", "first cell, test %",
               "cell it gives, test %", "its gain"]]
    for method, runs in finished.items():
        n, curves = len(runs), [run["curves"] for run in runs]
        after = [[c["skip_share"][mark - 1] for c in curves if len(c["skip_share"]) >= mark] for mark in marks]
        shares.append([NAMES[method], str(n), *(told(values, 2, n) for values in after),
                       told([run["last"]["skip_share"] for run in runs], 2, n)])
        eigenvalues = [[v for v in c["alpha_eigenvalue"] if v is not None] for c in curves]
        alone = {cell: [run[cell].get("test_accuracy") for run in runs] for cell in ("first", "last")}
        gain = [last - first for first, last in zip(*alone.values()) if None not in (first, last)]
        others.append([NAMES[method], str(n),
                       ", ".join(f"{np.mean([of(v) for v in eigenvalues]):.3f}" for of in (lambda v: v[0], max, lambda v: v[-1])),
                       *(told([c[key][-1] for c in curves], 1, n) for key in ("train_accuracy", "val_accuracy")),
                       *(told([v for v in alone[cell] if v is not None], 2, n) for cell in alone), told(gain, 2, n)])
    lines = [*markdown_table(shares), "", *markdown_table(others)] if finished else []
    early = [f"{NAMES[run['method']]} seed {run['seed']} after {run['epochs']}" for run in result["runs"]
             if run["finished"] and run["epochs"] < result["setting"]["epochs"]]
    going = [f"{NAMES[run['method']]} seed {run['seed']}, {run['epochs']} epochs" for run in result["runs"] if not run["finished"]]
    lines += ["", f"Ended by their method: {'; '.join(early)}."] if early else []
    return lines + (["", f"Not finished: {'; '.join(going)}."] if going else [])


def block(result: Mapping[str, Any]) -> str:
    def options(of: Mapping[str, Any]) -> str:
        return " ".join(f"{key}={value}" for key, value in of.items() if key not in ("wandb.mode", "keep_checkpoints"))

    runs = result["runs"]
    machines = sorted({f"{run['cpu']}, torch {run['torch']}" for run in runs})
    commits = sorted({run["commit"][:12] for run in runs})
    minutes = sorted({round(run["minutes"]) for run in runs if run["finished"]})
    took = f" A search took {' to '.join(map(str, minutes[::max(1, len(minutes) - 1)]))} minutes." if minutes else ""
    lines = [f"Search: `experiment=<method>_cifar10 {options(result['setting'])}`.  ", f"Retraining: `{options(result['retraining'])}`.  ",
             f"On {'; '.join(machines)}; commits {', '.join(commits)}.{took}", "", *tables(result)]
    return "\n".join(lines)


def check(page: Path) -> None:
    """Raises ValueError: the page has no place for the block."""
    if not page.exists():
        raise ValueError(f"{page} does not exist; expected a page with the marks {' and '.join(MARKS)}")
    replaced(page.read_text(), "", *MARKS)


def write(result: Mapping[str, Any], page: Path) -> None:
    """Rewrites the block of the page, and the picture beside it."""
    page.write_text(replaced(page.read_text(), block(result), *MARKS))
    with figures.house_style():
        figures.save(picture(result), page.with_suffix(".png"), dpi=110)
