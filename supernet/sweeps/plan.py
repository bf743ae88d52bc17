"""From a sweep's file to its jobs: every point of its axes, with every seed; then what is retrained of what they found."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from supernet.app.options import choices, override, overrides
from supernet.app.retraining import carried
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.sweeps.jobs import Job, configs, jobs
from supernet.sweeps.states import State, summary_values

WHERE = ("wandb", "threads", "device", "backend", "workers", "deterministic", "checkpoint_every_s")  # and how a retraining computes, too
OF_THE_SWEEP = ("seed", "output", "name", "resume", "extend", "dry_run")  # options that it gives each job itself


def points(axes: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every combination of the axes, the last one fastest: a name, and its options. `{option: [values]}` is an axis of one option;
    `{title: {name: {option: value, ...}, ...}}` one whose steps set several. Raises UsageError."""
    rows = []
    for axis, steps in axes.items():
        if type(steps) is dict and steps and all(type(options) is dict for options in steps.values()):
            rows.append([(str(name), dict(options)) for name, options in steps.items()])
        elif type(steps) is list and steps:
            rows.append([(f"{str(axis).rpartition('.')[2].rpartition('@')[2]}-{told(value)}", {axis: value}) for value in steps])
        else:
            raise UsageError(f"axes.{axis} must be a list of values, or {{name: {{option: value}}, ...}}, got {str(steps)[:60]!r}")
    found = []
    for combination in itertools.product(*rows):
        options: dict[str, Any] = {}
        for _, more in combination:
            options |= more
        found.append(("_".join(name for name, _ in combination), options))
    if len({name for name, _ in found}) < len(found):
        twice = next(name for n, (name, _) in enumerate(found) if name in {other for other, _ in found[:n]})
        raise UsageError(f"axes: two points are called {twice!r}: name the steps of an axis, {{name: {{option: value}}, ...}}")
    return found


def told(value: Any) -> str:
    """A value in a name."""
    text = "+".join(map(str, value)) if type(value) is list else "null" if value is None else str(value)
    return "".join(c if c.isalnum() or c in "._+-" else "-" for c in text)[:40] or "none"


def planned(script: str, fixed: Mapping[str, Any], axes: Mapping[str, Any], seeds: Sequence[int], *, title: str = "") -> list[Job]:
    """The jobs of a sweep, in the order of its points, seeds fastest. title: begins the names, and is one where there are no axes. Raises
    UsageError: an option is wrong, or is the sweep's own."""
    found = []
    with configs():
        for name, options in points(axes):
            words = {**fixed, **options}
            if taken := next((key for key in words if key in OF_THE_SWEEP), None):
                raise UsageError(f"{taken} is given to each job by the sweep itself: leave it out of fixed and axes"
                                 + (", and list `seeds`" if taken == "seed" else ""))
            found += jobs(script, overrides(words), "_".join(part for part in (title, name) if part) or "run", seeds)
    return found


def selected(searches: Sequence[State], *, by: str, best: int | None, order: str) -> tuple[list[State], list[str]]:
    """The searches to retrain, and lines that say why others are not: of each point the `best` by a value of summary.json, over its seeds;
    all of them without `best`. Searches that are not finished cannot be, and where only the best are wanted, nor can others of their point.
    Raises UsageError: there is no such value."""
    kept, lines = [], []
    for name, group in itertools.groupby(searches, key=lambda state: state.job.name):
        states = list(group)
        done = [state for state in states if state.kind == "finished"]
        if best is None:
            kept += done
        elif len(done) < len(states):
            lines.append(f"{name}: {len(states) - len(done)} of {len(states)} searches are not finished, so that the best are not known")
            continue
        else:
            kept += sorted(done, key=lambda state: value_of(state, by) * (-1 if order == "largest" else 1))[:best]  # the first of equals
        if len(done) < len(states):
            lines.append(f"{name}: {len(states) - len(done)} of {len(states)} searches are not finished, and not retrained")
    return kept, lines


def value_of(state: State, by: str) -> float:
    values = summary_values(state.folder)
    if type(values.get(by)) not in (int, float):
        numbers = sorted(name for name, value in values.items() if type(value) in (int, float))
        raise UsageError(f"select.by={by}: {state.folder.summary} has no such number, it has {', '.join(numbers)}")
    return values[by]


def retrainings(searches: Sequence[State], fixed: Mapping[str, Any], axes: Mapping[str, Any], seeds: Sequence[int]) -> list[Job]:
    """The final trainings of what these searches found. Cells that are the same are trained once for each seed."""
    found = []
    with configs():
        spaces = choices("space")
        for state in searches:
            state.folder.check_unchanged(state.folder.genotype.name)
            options, genotype = state.folder.options(), Genotype.load(state.folder.genotype)
            own = [option for option in state.job.options if option.partition("=")[0].partition(".")[0] in WHERE]
            own += carried(state.job.options, dataset=options["dataset"]["name"], retrain=options["retrain"], task=options["task"],
                           space=genotype.space, spaces=spaces)
            for name, step in points(axes):
                words = overrides({**fixed, **step})
                given = {word.partition("=")[0] for word in words}
                kept = [option for option in own if option.partition("=")[0] not in given]
                title = "_".join(part for part in (state.job.name, f"of-seed{state.job.seed}", name) if part)
                found += jobs("train_final", [override("genotype", str(state.folder.genotype)), *kept, *words], title, seeds)
    return found
