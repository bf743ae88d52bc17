"""A table of a paper, run again: its searches, the short trainings by which its protocol picks one of them, and the retrainings; then rows
of results. Three lists of jobs, each of which needs what the one before found; what is done already is never run again.

A search is what a method is judged by. A random search is one too: it draws architectures and takes the best of them.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from supernet.app.build import space_of
from supernet.app.published import PublishedTable, TableRow
from supernet.commands.drawn import affordable, drawn
from supernet.errors import UsageError
from supernet.evaluators.tabular import Tabular
from supernet.genotype import Genotype
from supernet.report.referee import Row, Search
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal, JournalError
from supernet.runs.results import Finished, read
from supernet.space import Space
from supernet.sweeps.jobs import Job, Training, configs, jobs, trainings
from supernet.sweeps.running import Done
from supernet.sweeps.states import Watch
from supernet.tables.table import Table
from supernet.tables.yardstick import Yardstick

Runner = Callable[[Sequence[Job]], Done]


@dataclass
class Trial:
    """One search of a row, and what became of it. Candidates are trained for a short while, so that one can be picked: what a random search
    draws, or the one cell that a search found."""

    row: TableRow
    seed: int
    search: Job | None = None
    short: list[Job] = field(default_factory=list)  # the trainings of its candidates
    found: Genotype | None = None
    scores: list[float] = field(default_factory=list)  # validation accuracies of the short trainings; all of them, or none
    final: list[Job] = field(default_factory=list)
    cost_s: float = math.nan
    commits: set[str] = field(default_factory=set)
    values: dict[str, float] = field(default_factory=dict)  # of the search, or of its architecture in a table


class Reproduction:
    """table: what is run. seeds, retrainings: instead of the scale's. options: further ones of all jobs. lookup: the table of trained
    architectures, where the columns need one."""

    def __init__(self, table: PublishedTable, output: Path, *, space: Callable[[str], Space], lookup: Table | None = None,
                 seeds: int | None = None, retrainings: int | None = None, options: Sequence[str] = ()):
        self.table, self.output, self.space, self.lookup = table, output, space, lookup
        self.options = list(options)
        self.retrainings = retrainings or table.scale.retrainings
        self.of_others = min(retrainings or table.scale.retrainings_of_others, self.retrainings)
        self.watch = Watch(output)
        self.trials = {row.name: [Trial(row, seed) for seed in range(row.seeds or seeds or table.scale.seeds)] for row in table.rows}
        self._folders: dict[str, list[RunFolder]] = {}  # by job, as they were last looked at
        self._ended: dict[str, Finished] = {}
        self._spaces: dict[str, Space] = {}
        self._yardstick = None if lookup is None else Yardstick(lookup)

    # -- the three lists

    def first(self) -> list[Job]:
        """The searches, and the short trainings of what random searches draw; all options are composed and checked here. Raises
        UsageError."""
        for row in self.table.rows:
            trials = self.trials[row.name]
            if row.random is None:
                found = jobs("train_search", [f"experiment={row.experiment}", *self.table.scale.search, *row.options, *self.options],
                             f"{self.table.name}-{slug(row.name)}", [trial.seed for trial in trials])
                for trial, job in zip(trials, found, strict=True):
                    trial.search = job
            elif row.random.cells:
                space = self.space(row.random.space or self.table.space)
                cells = [(trial, cell) for trial in trials for cell in drawn(space, row.random.cells, random.Random(trial.seed))]
                short = self._trainings(self.table.scale.selection, [
                    Training(self._kept(cell), f"{slug(row.name)}-{cell.digest}", trial.seed) for trial, cell in cells])
                for trial in trials:
                    trial.short = [job for (of, _), job in zip(cells, short, strict=True) if of is trial]
        if self.table.scale.final:  # their options are checked before anything is searched for
            cell = self._kept(self.space(self.table.space).sample(random.Random(0)))
            self._trainings(self.table.scale.final, [Training(cell, "final", 0)])
        by_seed = sorted(self._all(), key=lambda trial: trial.seed)  # so that all rows grow together, and meet the machine's same load
        return [job for trial in by_seed for job in ([trial.search] if trial.search else trial.short)]

    def second(self) -> list[Job]:
        """The short trainings of what searches found, where the protocol picks by them; those of random searches are of the first list."""
        self._read()
        if self.table.scale.selection and self.table.scale.final:
            found = [trial for trial in self._all() if trial.search is not None and trial.found is not None]
            short = self._trainings(self.table.scale.selection, [
                Training(self._kept(trial.found), f"{slug(trial.row.name)}-short", trial.seed) for trial in found])
            for trial, job in zip(found, short, strict=True):
                trial.short = [job]
        return [job for trial in self._all() if trial.search is not None for job in trial.short]

    def third(self) -> list[Job]:
        """The retrainings of what is there: of the architecture that is picked more than of others."""
        self._read()
        if not self.table.scale.final:
            return []
        picked = [self.picked(trials) for trials in self.trials.values()]
        # seeds of their own, so that two searches which found one cell do not share its retrainings
        wanted = [(trial, Training(self._kept(trial.found), f"{slug(trial.row.name)}-search{trial.seed}", 1000 * (trial.seed + 1) + n))
                  for trial in self._all() if trial.found is not None
                  for n in range(self.retrainings if trial in picked else self.of_others)]
        final = self._trainings(self.table.scale.final, [training for _, training in wanted])
        for trial in self._all():
            trial.final = [job for (of, _), job in zip(wanted, final, strict=True) if of is trial]
        return [job for trial in self._all() for job in trial.final]

    def run(self, runner: Runner, told: Callable[[str], object] = lambda line: None) -> Done | None:
        """Runs one list after the other; an interrupt, or more failures than are allowed, ends it. What became of all jobs, None where
        there were none."""
        done, before = None, []
        for name, make in (("searches and random cells", self.first), ("short trainings", self.second), ("retrainings", self.third)):
            wanted = make()
            if not wanted or (done is not None and done.stopped):  # what is there of a later list still counts
                continue
            told(f"{name}: {len({job.digest for job in wanted})} jobs")
            done = runner(wanted)
            before += done.states
        self._read()
        return None if done is None else Done(list({state.job.digest: state for state in before}.values()), done.signal, done.given_up)

    # -- results

    def rows(self) -> list[Row]:
        """What is there now, in the table's order; a row without any result is there too."""
        self._read()
        return [self._row(row, self.trials[row.name]) for row in self.table.rows]

    def _row(self, row: TableRow, trials: Sequence[Trial]) -> Row:
        searches = {id(trial): self._search(trial) for trial in trials if trial.found is not None}
        picked = self.picked(trials) if self.table.scale.final else None
        how = self.table.pick if picked is not None and row.random is None else ""
        note = "its cost is in seconds of the machines that the table was made with" if row.random and row.random.seconds else ""
        return Row(row.name, list(searches.values()), row.published, searches.get(id(picked)) if picked else None, how, note)

    def _search(self, trial: Trial) -> Search:
        results: dict[str, tuple[float, ...]] = {}
        commits, simulated = set(trial.commits), trial.row.random is not None and trial.row.random.seconds > 0
        ended = [run for job in trial.final if (run := self._run(job)) is not None]
        commits |= {run.commit for run in ended}
        for value in self.table.values:
            kept = [value.of(run.values) for run in ended] if self.table.scale.final else [value.of(trial.values)]
            results[value.column.key] = tuple(number for number in kept if not math.isnan(number))
        return Search(trial.seed, results, trial.cost_s, None if simulated else " ".join(sorted(filter(None, commits))))

    def picked(self, trials: Sequence[Trial]) -> Trial | None:
        """The search whose cell did best in the short trainings; None until all have been trained. Of random searches the first, for each
        picks among its own."""
        wanted = trials[:1] if trials[0].row.random is not None else trials
        if not self.table.scale.selection or any(trial.found is None or not trial.scores for trial in wanted):
            return None
        return max(wanted, key=lambda trial: max(trial.scores))

    def _read(self) -> None:
        """Reads what has ended: searches, and short trainings. A random search ends with the best of its cells, one by a table at once."""
        self._folders = self.watch.runs()
        for trial in self._all():
            if trial.found is None and (run := self._run(trial.search)) is not None:
                self._search_ended(trial, run)
            drawn_by = trial.row.random
            if drawn_by is not None and drawn_by.seconds and trial.found is None:
                self._simulate(trial)
            runs = [self._run(job) for job in trial.short]
            if not runs or None in runs:
                continue
            scores = [last_of(run.path, "val_accuracy") for run in runs]
            trial.scores = [] if any(map(math.isnan, scores)) else scores
            if drawn_by is not None and trial.scores:
                best = max(range(len(scores)), key=scores.__getitem__)
                trial.found = runs[best].genotype
                trial.cost_s = sum(last_of(run.path, "elapsed_s") for run in runs)  # without the test, which no search pays for
                trial.commits |= {run.commit for run in runs}
                trial.values = self._known(trial.found)

    def _simulate(self, trial: Trial) -> None:
        if self.lookup is None:
            raise UsageError(f"{trial.row.name} needs a table of trained architectures: pass lookup=FILE")
        where = trial.row.random
        trial.found, trial.cost_s = affordable(self.lookup.space, Tabular(self.lookup, where.dataset, missing="nan"), where.seconds,
                                               random.Random(trial.seed))
        trial.values = self._known(trial.found)

    def _search_ended(self, trial: Trial, run: Finished) -> None:
        trial.found, trial.commits = run.genotype, {run.commit}
        trial.cost_s = float(run.values.get("elapsed_s", math.nan))
        trial.values = {key: value for key, value in run.values.items() if type(value) in (int, float)}

    def _known(self, genotype: Genotype) -> dict[str, float]:
        return {} if self._yardstick is None else self._yardstick(genotype)

    # -- jobs

    def _trainings(self, options: Sequence[str], wanted: Sequence[Training]) -> list[Job]:
        """Jobs of what is trained from scratch. Raises UsageError."""
        named = [replace(training, name=f"{self.table.name}-{training.name}") for training in wanted]
        return trainings([*options, *self.options], named, self._space_of)

    def _space_of(self, genotype: Genotype) -> Space:
        """The space that a genotype names, made once."""
        key = json.dumps([genotype.space, genotype.arguments], sort_keys=True, default=str)
        if key not in self._spaces:
            with configs():
                self._spaces[key] = space_of(genotype)
        return self._spaces[key]

    def _kept(self, genotype: Genotype) -> Path:
        """The genotype as a file for trainings to read."""
        path = self.output / "cells" / f"{genotype.digest}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            genotype.save(path)
        return path

    def _run(self, job: Job | None) -> Finished | None:
        """The finished run of a job."""
        if job is None or job.digest in self._ended:
            return None if job is None else self._ended[job.digest]
        for folder in self._folders.get(job.digest, []):
            run = read(folder.path)
            if type(run) is Finished:
                self._ended[job.digest] = run  # what is finished stays as it is
                return run
        return None

    def _all(self) -> list[Trial]:
        return [trial for trials in self.trials.values() for trial in trials]


def last_of(path: Path, name: str) -> float:
    """A number of a run's last epoch, which knows nothing of the test; NaN where it has none."""
    try:
        records = Journal.read(RunFolder(path).metrics)
    except (OSError, JournalError):
        return math.nan
    value = records[-1].get(name) if records else None
    return float(value) if type(value) in (int, float) else math.nan


def slug(name: str) -> str:
    """A row's name as a word of the names of folders."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()).lower()
