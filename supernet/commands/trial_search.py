"""`train_search.py searcher=...`: after the supernet's epochs, of which there may be none, a searcher decides the genotype by trials."""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig

from supernet.app.build import space_from
from supernet.app.compose import settle_sizes
from supernet.app.offer import SearchOffer, content_of, evaluator_of, trials_of
from supernet.app.options import own_overrides, plain
from supernet.app.searched_on import data_name
from supernet.commands import trial_worker
from supernet.commands.dealt import Dealt
from supernet.commands.pool import Pool
from supernet.commands.training import Followed, Recorded, job_of
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.processes.group import ALONE, Group
from supernet.processes.launched import place
from supernet.report import summary
from supernet.report.pictures import pictures, save_drawings
from supernet.runs import disk, dry_run
from supernet.runs.follower import Follower
from supernet.runs.run import Run
from supernet.runs.weights import search_description
from supernet.searchers.base import Searcher
from supernet.searchers.fronts import front
from supernet.searchers.loop import Trials
from supernet.tables.yardstick import Yardstick
from supernet.training.records import Position
from supernet.training.stages import fit_stages
from supernet.trials import History, Trial, best, better


class ByTrials(NamedTuple):
    """A search by trials as it is composed, before anything is written. trains: whether there is a supernet, which its epochs train and a
    checkpoint holds; content: options that count by what lies behind them; job: as `commands.training.job_of`."""

    offer: SearchOffer
    trials: Trials
    trains: bool
    content: Mapping[str, Any]
    job: str


def composed(cfg: DictConfig, group: Group = ALONE) -> ByTrials:
    """group: the processes that train and evaluate together. Raises UsageError, ValueError: what the options ask for cannot be had."""
    if group.size > 1 and cfg.processes > 1:
        raise UsageError(f"processes={cfg.processes} works in one process, which starts the others, got {group.size}: leave it out, since "
                         "each of these evaluates trials")
    space = space_from(cfg.space)
    settle_sizes(cfg, space)
    content = content_of(cfg, space)
    job = job_of(cfg, "train_search", space, content=content, group=group)
    offer = SearchOffer(cfg, space, own_overrides(), group=group)
    trials = trials_of(cfg, offer, evaluator_of(cfg, offer))
    trains = cfg.epochs > 0 or offer.made("parts")
    if trains:
        offer.stages  # noqa: B018  (rehearses the search)
    offer.machine  # noqa: B018  (settles device and threads)
    return ByTrials(offer, trials, trains, content, job)


def recorded(cfg: DictConfig, made: ByTrials) -> Recorded:
    """The run folder, new or gone on with."""
    what = of_supernet(cfg, made.offer) if made.trains else of_nothing()
    return Recorded(cfg, "train_search", made.job, made.offer, content=made.content, group=made.offer.group, **what)


def followed(cfg: DictConfig, made: ByTrials) -> Followed:
    """The same in the processes behind the first one."""
    what = of_supernet(cfg, made.offer) if made.trains else of_nothing()
    return Followed(made.offer.group, stateful=what["stateful"], before_save=what["before_save"])


def helped(made: ByTrials, run: Follower) -> None:
    """What those processes do of `decided`."""
    offer = made.offer
    offer.working = run.working
    if made.trains:
        fit_stages(offer.stages, run)
    run.begun_work()
    with Dealt(offer.group, made.trials.evaluated, run.interrupt) as dealt:
        dealt.follow()


def decided(cfg: DictConfig, made: ByTrials, run: Run) -> tuple[Genotype, list[tuple[str, str]]]:
    """The supernet's epochs, then the trials, from where the run stands. The genotype, and what is said of it."""
    offer, trials = made.offer, made.trials
    offer.folder, offer.working = run.folder.path, run.working
    before = run.position.step
    if made.trains:
        fit_stages(offer.stages, run)
    history = History(run.known_trials(trials.space, trained=run.position.step != before))
    run.begun_work()
    with contextlib.ExitStack() as stack:
        if max(cfg.processes, offer.group.size) > 1:
            for note in notes_on_processes(max(cfg.processes, place().beside), trials.searcher):
                run.line(note)
            if trials.evaluator.together:
                run.line("note: in one process such architectures share what they begin with, which several do not: that may be as fast")
        if offer.group.size > 1:
            dealt = stack.enter_context(Dealt(offer.group, trials.evaluated, run.interrupt))
            trials = replace(trials, evaluate_all=dealt.evaluations)
        if cfg.processes > 1:
            arguments = plain(cfg), own_overrides(), str(run.folder.path), torch.get_num_threads()
            pool = stack.enter_context(Pool(cfg.processes, trial_worker.start_worker, arguments, working=run.working))
            trials = replace(trials, evaluate_all=lambda batch: pool.ordered(trial_worker.evaluated, batch))
        if max(cfg.processes, offer.group.size) == 1 and together(trials):
            trials = replace(trials, evaluate_all=trials.evaluator.population)
        searched(trials, history, run)
    return found(cfg, offer, trials, history, run)


def together(trials: Trials) -> bool:
    """Whether a generation is evaluated as a population: where that costs less, and only the number of trials ends the search, since any
    other bound may be reached in the middle of one."""
    return trials.evaluator.together and [name for name, _ in trials.budget.bounds()] == ["trials"]


def of_supernet(cfg: DictConfig, offer: SearchOffer) -> dict[str, Any]:
    """What a run records of a supernet that is trained, or evaluated as it is."""
    stages = offer.stages
    return {"stateful": stages.stateful(), "position": stages.loop.position, "before_save": lambda: stages.loop.guard.before_save(),
            "rate": lambda: stages.loop.rates(stages.loop.position.epoch, cfg.epochs)[0],
            "later": disk.of_search(stages.loop, cfg.epochs),
            "about": lambda: search_description(stages.loop.search.net, offer.parts.data, stages.loop.search.relaxation.mean()),
            "images": lambda run, genotype: pictures(run.folder, genotype, offer.whole, stages.loop.search.relaxation.mean().detach())}


def of_nothing() -> dict[str, Any]:
    position = Position()
    return {"stateful": {"position": position}, "position": position, "before_save": lambda: None, "rate": lambda: 0.0}


def described(trials: Trials) -> list[tuple[str, str]]:
    """What is searched by, for what, and until when."""
    bounds = ", ".join(f"{bound:,g} {UNITS[name]}" for name, bound in trials.budget.bounds())
    objective = trials.objective
    limits = [f"{name} at {word} {limit:g}" for word, found in (("most", objective.at_most), ("least", objective.at_least))
              for name, limit in found.items()]
    return [("searcher", f"{type(trials.searcher).__name__}, evaluated by {type(trials.evaluator).__name__}, until {bounds}"),
            ("objective", "; ".join([", ".join(objective.names), *limits]))]


def notes(trials: Trials) -> list[str]:
    """What whoever searches should know before it begins."""
    searcher, most = trials.searcher, trials.budget.trials
    if most is None or not 0 < most <= searcher.population:
        return []
    return [f"note: {type(searcher).__name__} begins with {searcher.population:,} random architectures (searcher.population), and the "
            f"budget is over after {most:,} trials: all of them are random"]


SEEN_AHEAD = 1000  # trials among which one would be asked for together with the next
QUIET_S = 30.0  # without anything better, after which a line says how far the search is
UNITS = {"trials": "trials", "images": "images", "wall_s": "seconds", "simulated_s": "simulated seconds"}


def searched(trials: Trials, history: History, run: Run) -> None:
    """Goes on to the end of the budget. Every trial is recorded before the next is asked for; what is better than all before is said."""
    if len(history):
        run.line(f"goes on after trial {len(history) - 1}: {standing(trials, best(history))}")
    top, said, done, total = best(history), time.monotonic(), 0, trials.budget.trials
    before_now = sum(trial.refused is None for trial in history)
    for trial in trials.run(history):
        run.trial(trial)
        done += trial.refused is None  # a refused one costs nothing
        if total is not None:
            run.progress.working(done, total - before_now, "trials")
        before, top = top, better(trial, top)
        if top is not before:
            run.line(f"trial {trial.number}: {scored(trials, trial)} ({trial.change}) {trial.genotype.digest}")
        elif time.monotonic() - said > QUIET_S:
            run.line(f"trial {trial.number}: {standing(trials, top)}")
        else:
            continue
        said = time.monotonic()


def scored(trials: Trials, trial: Trial) -> str:
    """Its scores, or the limit that it breaks, for which they are worst."""
    if (broken := trials.objective.broken(trial.metrics)) is not None:
        return f"breaks a limit, {broken}"
    return ", ".join(f"{name} {value:.6g}" for name, value in zip(trials.objective.names, trial.scores))


def standing(trials: Trials, top: Trial | None) -> str:
    return "nothing evaluated" if top is None else f"best {scored(trials, top)}, trial {top.number}"


def found(cfg: DictConfig, offer: SearchOffer, trials: Trials, history: History, run: Run) -> tuple[Genotype, list[tuple[str, str]]]:
    """The genotype of the best trial, and what is said of it; both are written, with the drawings and the report."""
    top, cost, space = best(history), trials.spent(history), offer.whole
    if top is None:
        raise UsageError("the search ended before anything was evaluated: expected limits and a budget that allow a trial")
    genotype = offer.widened(top.genotype)
    summary.save_genotype(run.folder, genotype, space, cfg.retrain)
    save_drawings(run.folder, genotype, space)
    last = (run.metrics.read(run.folder.metrics) or [None])[-1]
    known = {} if offer.table is None else dict(Yardstick(offer.table)(genotype))
    rows = [("genotype", genotype.digest), ("found by", f"{type(trials.searcher).__name__}, trial {top.number} of {len(history)}: "
             f"{scored(trials, top)}"), *broken_row(trials, history, top), *refused_row(history),
            summary.spent_row(cost.trials, run.position.images + cost.images, cost.simulated_s)]
    if offer.made("parts"):
        rows += summary.supernet_rows(offer.task, last, len(offer.loaders.split.val), offer.data.item)
    rows += [*summary.table_rows(known), *summary.skip_rows(genotype, space), ("search time", f"{dry_run.duration(run.elapsed())} on "
             f"{offer.device}"), ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
    if len(trials.objective.names) > 1:
        rows.append(("front", f"{len(members := front_of(history))} architectures, none of them better than another in every score; the "
                     f"genotype is the best of them by {trials.objective.names[0]}"))
        known |= {"front": [{"trial": trial.number, "architecture": trials.space.text(trial.genotype), "scores": list(trial.scores)}
                            for trial in members]}
    values: dict[str, Any] = (last or {}) | known | told(top) | {
        "genotype": genotype.to_json(), "elapsed_s": run.elapsed(), "trial": top.number, "objective": list(trials.objective.names),
        "scores": list(top.scores), **{f"searcher/{name}": value for name, value in vars(cost).items()},
        **summary.spent(cost.trials, run.position.images + cost.images, run.elapsed(), cost.simulated_s)}
    summary.save_summary(run.folder, f"Search by trials on {data_name(cfg)}", rows, values)
    from supernet.report.html import write_report  # Matplotlib waits until there is something to draw

    write_report(run.folder.path)
    run.results(genotype, values)
    return genotype, rows


def front_of(history: History) -> list[Trial]:
    """The trials, one of each architecture, that no other is better than in every score, by the first score."""
    each = list({trial.genotype: trial for trial in reversed(history.evaluated())}.values())[::-1]
    kept = front(np.array([trial.scores for trial in each]))
    return sorted((trial for trial, is_of in zip(each, kept) if is_of), key=lambda trial: (*(-score for score in trial.scores),))


def notes_on_processes(processes: int, searcher: Searcher) -> list[str]:
    """What whoever asks for several processes, so many on this machine, should know."""
    found, threads, cores = [], torch.get_num_threads(), len(os.sched_getaffinity(0))
    if threads > 1 and processes * threads > cores:
        found.append(f"note: {processes} processes of {threads} threads each, and {cores} cores: threads=1 is likely to be faster")
    if not any(searcher.sees(number + 1) <= number for number in range(SEEN_AHEAD)):
        found.append(f"note: {type(searcher).__name__} asks for one trial after the other, so that one process works at a time")
    return found


def broken_row(trials: Trials, history: History, top: Trial) -> list[tuple[str, str]]:
    """Where not even the best trial keeps the limits on what an evaluation tells: that none does, so that nobody takes it for what was
    asked for."""
    if (broken := trials.objective.broken(top.metrics)) is None:
        return []
    return [("limits", f"kept by none of the {len(history.evaluated())} that were evaluated; {broken} of the genotype above")]


def refused_row(history: History) -> list[tuple[str, str]]:
    refused = sum(trial.refused is not None for trial in history)
    return [("refused", f"{refused} of the trials, by limits that were known before an evaluation")] if refused else []


def told(top: Trial) -> Mapping[str, float]:
    """The metrics of the trial that was chosen, as values of summary.json."""
    return {f"found/{name}": value for name, value in top.metrics.items()}
