"""What is killed, stopped and damaged: small runs of everything that writes, and all that each of them leaves."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from supernet.runs.folder import RunFolder
from supernet.runs.journal import TIME_FIELDS, Journal
from supernet.runs.predictions import Predictions
from supernet.runs.results import read
from supernet.spaces.named import space_again
from supernet.tables.files import read_table
from tests.helpers import ROOT, Ended, start
from tests.runs import finished, outcome

TINY = ("space.nodes=1", "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "layers=3", "channels=2")
SIZE = ("split.max_train=40", "split.max_val=16", "batch_size=8", "epochs=4")  # 5 steps an epoch
TOY = ("space=toy", "layers=3", "channels=2", "split.max_train=64", "split.max_val=48", "batch_size=16", "eval_batch_size=16")
LIMIT_S = 900  # of a run: the machine may be busy
EVERY = ("checkpoint_every_s=0", "checkpoint_every_s=60")  # after every step, after every epoch
CLOCKS = {*TIME_FIELDS, "wall_s", "seconds"}
OWN_TIME = ("second", "elapsed", "per_s", "wall_s")  # in the names of values that a repeated run does not reproduce


@dataclass(frozen=True)
class Subject:
    """options: of `script`, without those that say how often it saves. auto: whether `resume=auto` goes on with it (the others go on by the
    same command). prepare: makes what the run needs in its folder. left: all that it computed, by name, from its folder."""

    name: str
    script: str
    options: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda where: None
    left: Callable[[Path], dict[str, Any]] = lambda where: left_by(finished(where))
    auto: bool = True
    saves: bool = True

    def words(self, every: str) -> tuple[str, ...]:
        return (*self.options, *((every,) if self.saves else ()), *(("resume=auto",) if self.auto else ()))

    def ended(self, where: Path, every: str, **how: Any) -> Ended:
        """A run to its end, or on to it."""
        return start(self.script_in(where), *self.words(every), cwd=where, report=False, **how).wait(LIMIT_S)

    def script_in(self, where: Path) -> str:
        return self.script if (ROOT / f"{self.script}.py").exists() else str(where / self.script)


def left_by(folder: RunFolder) -> dict[str, Any]:
    """All that a finished run computed, as `tests.runs.outcome`; of trials, predictions and values too."""
    found = outcome(folder)
    if folder.trials.exists():
        found["trials"] = [without_clocks(record) for record in Journal(folder.trials).read_chained()]
    if folder.predictions.exists():
        found["predictions"] = Predictions.load(folder.predictions).digest
    result = read(folder.path)
    found["values"] = {key: value for key, value in result.values.items() if not any(word in key for word in OWN_TIME)}
    return found


def without_clocks(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in CLOCKS}


# ---- what they need


@cache
def cell() -> bytes:
    """A genotype file that a search wrote."""
    with tempfile.TemporaryDirectory(prefix="soak_") as where:
        ended = start("train_search", *TINY, *SIZE, "epochs=1", cwd=Path(where), report=False).wait(LIMIT_S)
        if ended.code:
            raise RuntimeError(f"the search whose cell is trained ended with {ended.code}: {ended.err[-500:]}")
        return finished(Path(where)).genotype.read_bytes()


def with_cell(where: Path) -> None:
    (where / "genotype.json").write_bytes(cell())


def with_tabulate(where: Path) -> None:
    """`python -m supernet.tabulate` as a script, which is what can be forked."""
    (where / "tabulate.py").write_text(  # it has no threads and no tracker of its own, which `tests.helpers.start` names
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom supernet.commands.tabulate import command\n"
        "sys.argv[1:] = [word for word in sys.argv[1:] if not word.startswith(('threads', 'wandb'))]\ncommand()\n")


def left_by_tabulate(where: Path) -> dict[str, Any]:
    table = read_table(where / "toy.csv.gz", space_again("toy", {}))
    cells = [table.genotype(row) for row in range(len(table))]
    return {name: [table.value(genotype, name) for genotype in cells] for name in table.names() if "seconds" not in name} | {
        "cells": [genotype.digest for genotype in cells]}


SUBJECTS = {subject.name: subject for subject in (
    Subject("search", "train_search", (*TINY, *SIZE)),
    Subject("search, stages and second order", "train_search", (
        *TINY, *SIZE, "channels=4", "epochs=4", "hypergradient=finite_difference", "wrapper=[edge_normalised]", "network={partial:2}",
        "stage=p_darts", "stage.keep=[3]", "stage.epochs=[2,2]", "stage.alpha_begin=0", "stage.layers=[3,3]", "stage.skip_dropout=[0,0.3]",
        "skip_dropout=p_darts")),
    Subject("search, sampled", "train_search", (*TINY, *SIZE, "relaxation=gumbel")),
    Subject("final training", "train_final", ("genotype=genotype.json", *SIZE, "layers=3", "channels=4", "drop_path_prob=0.5",
                                              "average=exponential"), with_cell),
    Subject("search by trials", "train_search", (*TOY, "epochs=2", "searcher=genetic", "searcher.population=4", "budget.trials=40",
                                                 "repeats=paid")),
    Subject("search by trainings", "train_search", (
        *TOY, "epochs=0", "searcher=hyperband", "searcher.rungs=2", "searcher.factor=2", "evaluator=from_scratch", "evaluator.epochs=2",
        "evaluator.options.batch_size=16",
        "evaluator.options.split.max_train=32", "evaluator.options.split.max_val=16", "budget.trials=6")),
    Subject("table", "tabulate", ("space=toy", "n=5", "seeds=[0,1]", "output=toy.csv.gz",
                                  "options={layers:3,channels:2,epochs:1,split.max_train:32,batch_size:16,threads:1}"),
            with_tabulate, left_by_tabulate, auto=False, saves=False),
)}
