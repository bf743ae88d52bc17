"""`python -m supernet.ensemble RUNS...`: several final trainings asked together, from what each of them said of the test.

Reads folders only; no network is built. Nothing is chosen by these numbers, for they are of the test.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supernet.commands.arguments import Arguments, exit_code, writing
from supernet.errors import UsageError
from supernet.report.ensemble import disagreement, ensembled, metrics
from supernet.runs.folder import RunFolder, write_json
from supernet.runs.predictions import Predictions
from supernet.runs.run import table

COLUMNS = {"accuracy": "accuracy, %", "loss": "negative log likelihood", "expected_calibration_error": "calibration error, %",
           "brier": "Brier score"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: told(parser().parsed(arguments)))


def told(given: argparse.Namespace) -> int:
    found = asked_together(given.runs)
    if given.output is not None:
        with writing(given.output):
            write_json(given.output, found)
    print(json.dumps(found, indent=2) if given.json else text(found))
    return 0


def parser() -> Arguments:
    made = Arguments("ensemble", "Averages the class probabilities of several final trainings over the test items, and says how good\n"
                                 "the average is beside each.", ["runs/*final*seed*"])
    made.add_argument("runs", nargs="+", type=Path, help="folders of final trainings that were tested on the same items")
    made.add_argument("--json", action="store_true", help="as JSON, to be read by programs")
    made.add_argument("--output", type=Path, metavar="FILE", help="where the same is written as JSON")
    return made


def asked_together(runs: Sequence[Path]) -> dict[str, Any]:
    """`members`, each a run and its metrics, `mean` of theirs, `ensemble`, and by how much they disagree. Raises UsageError, DataError: not
    two runs that were tested on the same items, or one that kept no probabilities."""
    folders = list(dict.fromkeys(run.resolve() for run in runs))
    if len(folders) < 2:
        got = "1" if len(runs) == 1 else f"{runs[0]} {len(runs)} times"
        raise UsageError(f"an ensemble needs at least two runs, got {got}")
    kept = [_predictions(run) for run in folders]
    first = kept[0]
    for run, one in zip(folders[1:], kept[1:]):
        if one.class_names != first.class_names or not np.array_equal(one.true, first.true):
            raise UsageError(f"{run}: it was tested on other items than {folders[0]} ({len(one.true)} of {len(one.class_names)} classes, "
                             f"not {len(first.true)} of {len(first.class_names)}, or in another order)")
    members = [{"run": str(run), **metrics(one.probabilities, one.true)} for run, one in zip(folders, kept)]
    return {"items": len(first.true), "classes": len(first.class_names), "members": members,
            "mean": {name: float(np.mean([member[name] for member in members])) for name in members[0] if name != "run"},
            "disagreement": disagreement([one.predicted for one in kept]),
            "ensemble": metrics(ensembled([one.probabilities for one in kept]), first.true)}


def _predictions(run: Path) -> Predictions:
    folder = RunFolder(run)
    if not folder.predictions.exists():
        raise UsageError(f"{run}: there is no {folder.predictions.name}: expected the folder of a final training that has ended, of images "
                         "with classes")
    found = Predictions.load(folder.predictions)
    if found.probabilities.shape != (len(found.true), len(found.class_names)):
        raise UsageError(f"{folder.predictions}: it keeps no probabilities, for there would be too many")
    return found


def text(found: dict[str, Any]) -> str:
    """A line for each network, for their mean and for the ensemble."""
    def line(row: dict[str, float]) -> str:
        return "  ".join(f"{row[key]:>{len(title)}.{2 if title.endswith('%') else 4}f}" for key, title in COLUMNS.items())

    rows = [("", "  ".join(COLUMNS.values())), *((Path(member["run"]).name, line(member)) for member in found["members"]),
            ("mean of the networks", line(found["mean"])), (f"ensemble of {len(found['members'])}", line(found["ensemble"]))]
    return (f"{table(rows)}\n\n{found['items']} test items of {found['classes']} classes; two networks disagree on "
            f"{found['disagreement']:.2f} % of them")


def command() -> None:
    """The console command."""
    sys.exit(main())
