"""`python -m supernet.race`: searchers on a table, many seeds each: what the best so far is worth, over the budget.

A searcher sees the table's validation column and what an evaluation is said to cost; test accuracies are read for the record alone.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from omegaconf import DictConfig, OmegaConf

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, register, shows_errors
from supernet.app.options import CONF, choices, plain
from supernet.app.signatures import check_nested
from supernet.commands.pool import Pool
from supernet.errors import UsageError, did_you_mean
from supernet.runs.journal import Journal
from supernet.runs.progress import Counted

if TYPE_CHECKING:
    from supernet.searchers.loop import Trials
    from supernet.space import Space
    from supernet.tables.table import Table

SEEDS_AT_ONCE = 10  # of a task that a process is handed


class Step(NamedTuple):
    """The best so far, from this trial on: what was spent until then, and its row in the table."""

    trials: int
    images: int
    simulated_s: float
    row: int


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="race")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "race")
    with composing():
        race, datasets = prepared(cfg)
    nodes = race.searchers
    output = Path(cfg.output or f"races/{race.space.name}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"output={output}: cannot make the folder ({error.strerror or error})") from error
    keys = {(name, dataset): race.key(name, dataset) for dataset in datasets for name in nodes}
    journal = Journal(output / "seeds.jsonl")
    with journal.held():
        done = read(journal, keys)
        jobs = [(where, seed) for where in keys for seed in range(cfg.seeds) if (where, seed) not in done]
        print(f"{race.space.name}, {race.table.source}: {len(nodes)} searchers, {len(datasets)} data sets, {cfg.seeds} seeds; "
              f"{len(jobs)} of {len(keys) * cfg.seeds} searches left", flush=True)
        with Counted(len(jobs), "searches") as progress:
            for where, seed, steps in results(race, jobs, cfg.processes):
                journal.keep({"key": keys[where], "searcher": where[0], "dataset": where[1], "seed": seed, "steps": steps})
                done[where, seed] = steps
                progress.add(said=f"{where[0]} on {where[1]}")
    for line in write(output, race, cfg, {where: [done[where, seed] for seed in range(cfg.seeds)] for where in keys}):
        print(line)


def prepared(cfg: DictConfig) -> "tuple[Races, list[str]]":
    """What all searches are made from, once each was made, and the data sets. Raises UsageError, TableError."""
    race = Races(plain(cfg) | {"searchers": searcher_nodes(cfg)})
    datasets = list(cfg.datasets) or list(race.table.datasets)
    for name in race.searchers:
        for dataset in datasets:
            race.search(name, dataset, 0)
    return race, datasets


def searcher_nodes(cfg: DictConfig) -> dict[str, Any]:
    """The options of each searcher: those of its yaml, and those that `options` has for it. Raises UsageError."""
    known, options = choices("searcher"), plain(cfg).get("options") or {}
    unknown = [name for name in cfg.searchers if name not in known]
    if unknown or not cfg.searchers or len(set(cfg.searchers)) < len(cfg.searchers):
        raise UsageError(f"searchers must list some of {', '.join(known)}, each once, got {list(cfg.searchers)}"
                         f"{did_you_mean(''.join(unknown[:1]), known)}")
    for name, own in options.items():
        if name not in cfg.searchers or type(own) is not dict:
            raise UsageError(f"options must be {{searcher: {{option: value}}}} of {', '.join(cfg.searchers)}, got {name}: {own}")
    nodes = {}
    for name in cfg.searchers:
        node = hydra.compose(f"searcher/{name}").searcher
        for key, value in options.get(name, {}).items():
            OmegaConf.update(node, key, value, force_add=True)
        check_nested(node)
        nodes[name] = plain(node)
    return nodes


class Races:
    """What searches are made from, as one process holds it: `options` are the command's, plain, with a node for each searcher."""

    def __init__(self, options: Mapping[str, Any]):
        from supernet.app.build import build, space_from
        from supernet.evaluators.tabular import Tabular
        from supernet.searchers.loop import Budget

        self.options = options
        self.space: Space = space_from(OmegaConf.create(options["space"]))
        found = build(OmegaConf.create({"table": options["table"]}).table)(self.space) if options["table"] else None
        if found is None:
            raise UsageError(f"a race needs a table of space {self.space.name}: pass table.path=... (docs/tables.md)")
        self.table: Table = found
        self.columns = {name: found.column(str(column)) for name, column in (options["columns"] or {}).items()}
        self.budget = Budget(trials=options["trials"], simulated_s=options["simulated_s"])
        self.objective = build(OmegaConf.create({"objective": options["objective"]}).objective)
        self.searchers = {name: build(OmegaConf.create({"searcher": node}).searcher) for name, node in options["searchers"].items()}
        self.evaluators = {name: Tabular(self.table, name) for name in self.table.datasets}
        if self.budget.simulated_s is not None and (idle := [n for n, where in self.table.datasets.items() if where.seconds is None]):
            raise UsageError(f"simulated_s must be null with {self.table.source}, which does not say what a training takes on {idle[0]}: "
                             "pass simulated_s=null trials=...")
        if len(self.objective.names) > 1:
            raise UsageError(f"a race compares one score, and the objective has {len(self.objective.names)} "
                             f"({', '.join(self.objective.names)}): pass objective.weights")

    def search(self, searcher: str, dataset: str, seed: int) -> "Trials":
        """Raises UsageError, TableError."""
        from supernet.searchers.loop import Trials

        self.table.dataset(dataset)
        costs = {name: (lambda genotype, values=values: values[self.table.row(genotype)]) for name, values in self.columns.items()}
        return Trials(self.space, self.searchers[searcher](self.space), self.evaluators[dataset], self.objective, self.budget, seed, costs,
                      repeats=self.options["repeats"], patience=self.options["patience"])

    def key(self, searcher: str, dataset: str) -> str:
        """A digest of all that a search's result depends on beside its seed."""
        own = {name: self.options[name] for name in ("objective", "columns", "repeats", "patience", "trials", "simulated_s")}
        told = [own, self.options["searchers"][searcher], dataset, self.space.fingerprint, self.table.files]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def run(self, searcher: str, dataset: str, seed: int) -> list[Step]:
        """One search: a step for each trial that is better than all before, and one for the last."""
        from supernet.searchers.loop import Spent
        from supernet.trials import History

        spent, steps, best, row = Spent(), [], -float("inf"), None
        for trial in self.search(searcher, dataset, seed).run(History()):
            spent.add(trial)
            if trial.refused is None and trial.fidelity == 1 and trial.scores[0] > best:
                best, row = trial.scores[0], self.table.row(trial.genotype)
                steps.append(Step(spent.trials, spent.images, spent.simulated_s, row))
        if row is None:
            raise UsageError(f"searcher {searcher} evaluated nothing whole within the budget on {dataset}")
        return [*steps, Step(spent.trials, spent.images, spent.simulated_s, row)]


def read(journal: Journal, keys: Mapping[tuple[str, str], str]) -> dict[tuple[tuple[str, str], int], list[Step]]:
    """What was searched already; lines of other options are left alone."""
    where, done = {key: place for place, key in keys.items()}, {}
    for entry in journal.readable(journal.path):
        with suppress(KeyError, TypeError):
            if entry["key"] in where:
                done[where[entry["key"]], entry["seed"]] = [Step(*step) for step in entry["steps"]]
    return done


_race: Races | None = None  # of a worker


def start_worker(options: Mapping[str, Any]) -> None:
    """A worker holds the table."""
    global _race
    register()
    _race = Races(options)


def work(task: tuple[tuple[str, str], Sequence[int]]) -> list[tuple[int, list[Step]]]:
    where, seeds = task
    return [(seed, _race.run(*where, seed)) for seed in seeds]


def results(race: Races, jobs: Sequence[tuple[tuple[str, str], int]], processes: int) -> Iterator[tuple[tuple[str, str], int, list[Step]]]:
    """Each search with its steps, as they come."""
    if processes == 1:
        for where, seed in jobs:
            yield where, seed, race.run(*where, seed)
        return
    tasks = []
    for where in dict.fromkeys(where for where, _ in jobs):
        seeds = [seed for own, seed in jobs if own == where]
        tasks += [(where, seeds[n:n + SEEDS_AT_ONCE]) for n in range(0, len(seeds), SEEDS_AT_ONCE)]
    with Pool(processes, start_worker, (race.options,)) as pool:
        for (where, _), found in pool.as_they_come(work, tasks):
            for seed, steps in found:
                yield where, seed, steps


def write(output: Path, race: Races, cfg: DictConfig, found: "Mapping[tuple[str, str], Sequence[Sequence[Step]]]") -> list[str]:
    """The table, as text, Markdown and LaTeX, the curves and the page. Returns what the command says."""
    from supernet.report.anytime import Race, write_race

    axis = "simulated_s" if cfg.simulated_s is not None else "trials"
    races = {dataset: Race(dataset, axis, getattr(race.budget, axis), race.table.column(race.table.datasets[dataset].test),
                           race.table.column(race.table.datasets[dataset].validation),
                           {name: steps for (name, own), steps in found.items() if own == dataset},
                           {name: race.table.column(where.test) for name, where in race.table.datasets.items() if name != dataset})
             for dataset in dict.fromkeys(dataset for _, dataset in found)}
    about = {"command": "python -m supernet.race", "space": race.space.name, "table": dict(race.table.files), "options": plain(cfg),
             "searchers": race.options["searchers"]}
    return write_race(output, list(races.values()), about, level=cfg.level, resamples=cfg.resamples)


def command() -> None:
    """The console command."""
    cli(main)
