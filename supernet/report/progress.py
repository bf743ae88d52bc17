"""How a search by trials went: its generations, the best so far against what was spent, how alike its architectures are, what was not
evaluated and why, and how the best came about. Plain data; nothing is drawn here."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from math import isfinite
from typing import NamedTuple

import numpy as np

from supernet.genotype import Edge, Genotype
from supernet.searchers.fronts import front
from supernet.trials import Trial

WINDOWS = 20     # of trials that come one by one, about so many
MIN_WINDOW = 10  # trials
AXES = {"trials": "trials", "images": "images", "wall_s": "wall seconds", "simulated_s": "simulated seconds"}


class Grouping(NamedTuple):
    """groups: numbers of trials, one after the other, all trials in one of them. words: what a group is."""

    groups: list[range]
    words: str


def grouped(trials: Sequence[Trial]) -> Grouping:
    """Generations: the trials that were asked for from the same trials before them (`Trial.sees`). Where trials follow one by one they are
    taken in windows, as long as most generations of the same search are; a search with less than three generations is all windows."""
    starts = (trial.number if trial.sees is None else trial.sees for trial in trials)
    runs, end = [], 0
    for _, same in groupby(starts):
        runs.append(range(end, end + len(list(same))))
        end = runs[-1].stop
    lengths = Counter(len(run) for run in runs if len(run) > 1)
    default = max(MIN_WINDOW, -(-len(trials) // WINDOWS))
    singles = sum(len(run) == 1 for run in runs)
    if len(runs) < 3 or not lengths:
        return Grouping(windows(range(len(trials)), default), f"windows of {default} trials")
    size = lengths.most_common(1)[0][0]
    if sum(lengths.values()) == 1 and singles > WINDOWS * size:  # a few trials to begin with, then one by one
        size = default
    groups: list[range] = []
    for alone, some in groupby(runs, key=lambda run: len(run) == 1):
        kept = list(some)
        # a last generation of which one trial is there is no window
        groups += windows(range(kept[0].start, kept[-1].stop), size) if alone and len(kept) > 1 else kept
    one = f"generations of {size}" if all(len(run) == size for run in runs[:-1]) else "generations"
    if singles <= 1:
        return Grouping(groups, one)
    return Grouping(groups, f"windows of {size} trials" if sum(lengths.values()) == 1 else f"generations, then windows of {size} trials")


def windows(numbers: range, size: int) -> list[range]:
    """The last may be shorter."""
    return [numbers[start:start + size] for start in range(0, len(numbers), size)]


class Fitness(NamedTuple):
    """Of the trials of a group, one score: of those evaluated, with a finite one; None where there are none. deviation: of the sample, None
    of less than two."""

    best: float | None
    mean: float | None
    deviation: float | None


def fitness(trials: Sequence[Trial], groups: Sequence[range], score: int = 0) -> list[Fitness]:
    found = []
    for group in groups:
        values = [trials[n].scores[score] for n in group if trials[n].refused is None and isfinite(trials[n].scores[score])]
        found.append(Fitness(max(values, default=None), statistics.fmean(values) if values else None,
                             statistics.stdev(values) if len(values) > 1 else None))
    return found


class Anytime(NamedTuple):
    """When something better was found, and the end: what had been spent by then, of each budget (`AXES`), and the best so far."""

    spent: dict[str, list[float]]
    best: list[float]


def anytime(trials: Sequence[Trial], score: int = 0) -> Anytime:
    """As a search decides: of trainings of different length the longest are compared, so that the best may fall where the first longer one
    ends. Trials that were refused cost nothing."""
    steps: list[tuple[int, float]] = []
    top: tuple[float, float] | None = None
    for trial in trials:
        if trial.refused is None and isfinite(trial.scores[score]) and (top is None or (trial.fidelity, trial.scores[score]) > top):
            top = trial.fidelity, trial.scores[score]
            steps.append((trial.number, top[1]))
    if top is not None and steps[-1][0] != trials[-1].number:
        steps.append((trials[-1].number, top[1]))
    totals = {"trials": [float(trial.refused is None) for trial in trials], **{
        axis: [float(getattr(trial, axis)) for trial in trials] for axis in ("images", "wall_s", "simulated_s")}}
    sums = {axis: list(accumulate(amounts)) for axis, amounts in totals.items()}
    return Anytime({axis: [amounts[number] for number, _ in steps] for axis, amounts in sums.items() if amounts and amounts[-1] > 0},
                   [best for _, best in steps])


class Diversity(NamedTuple):
    """Of the trials of a group. distance: the mean of `distance` over all pairs, None of less than two; new: the share of those whose
    architecture no trial before had."""

    distance: float | None
    new: float


def diversity(trials: Sequence[Trial], groups: Sequence[range]) -> list[Diversity]:
    met: set[Genotype] = set()
    found = []
    for group in groups:
        members = [trials[n].genotype for n in group]
        new = 0
        for genotype in members:
            new += genotype not in met
            met.add(genotype)
        found.append(Diversity(mean_distance(members), new / len(members)))
    return found


def distance(a: Genotype, b: Genotype) -> int:
    """How many edges of the one are not edges of the other: source, destination and op; of the one that has more."""
    mine, theirs = Counter(edges_of(a)), Counter(edges_of(b))
    return max(mine.total(), theirs.total()) - (mine & theirs).total()


def mean_distance(genotypes: Sequence[Genotype]) -> float | None:
    """The mean of `distance` over all pairs, in time that grows with the edges and not with the pairs."""
    pairs = len(genotypes) * (len(genotypes) - 1) // 2
    if not pairs:
        return None
    owners: Counter[tuple[object, int]] = Counter()  # of an edge, and of its second, third occurrence in one architecture
    sizes = []
    for genotype in genotypes:
        edges = Counter(edges_of(genotype))
        owners.update((edge, copy) for edge, copies in edges.items() for copy in range(copies))
        sizes.append(edges.total())
    larger = sum(place * size for place, size in enumerate(sorted(sizes)))  # of each pair the larger
    return (larger - sum(n * (n - 1) // 2 for n in owners.values())) / pairs


def edges_of(genotype: Genotype) -> Iterator[tuple[str, Edge]]:
    return ((kind, edge) for kind, edges in genotype.cells for edge in edges)


_LIMIT = re.compile(r"(.+) \S+ is (above|below) (\S+)")  # `Objective.broken`


def not_evaluated(trials: Sequence[Trial]) -> list[tuple[str, int]]:
    """What became of the trials that brought nothing new, in words, and how many: repeats, then refusals by their reason, commonest first,
    then those evaluated whose scores are not finite."""
    repeats = sum(trial.repeats is not None for trial in trials)
    why = Counter(_LIMIT.sub(r"\1 \2 \3", trial.refused) for trial in trials if trial.refused is not None)
    lost = sum(trial.refused is None and trial.repeats is None and not all(map(isfinite, trial.scores)) for trial in trials)
    rows = [("repeats of an architecture that was evaluated before", repeats)]
    rows += [(f"refused: {reason}", count) for reason, count in why.most_common()]
    rows.append(("evaluated, and not a finite score: astray, or beyond a limit that only the evaluation could tell", lost))
    return [row for row in rows if row[1]]


class Step(NamedTuple):
    """On the way to an architecture. before: the parent that it is compared with; others: numbers of its other parents; gain: of the first
    score, None where one of both is of another length of training, or not finite."""

    trial: Trial
    before: Trial | None
    others: tuple[int, ...]
    gain: float | None


def ancestry(trials: Sequence[Trial], last: Trial) -> list[Step]:
    """From the first ancestor to `last`: back over the parent that was evaluated best, of two equal ones the nearer architecture. Steps
    that changed nothing (copies) are left out."""
    found, trial = [], last
    while True:
        parents = [trials[n] for n in dict.fromkeys(trial.parents) if trials[n].refused is None]
        before = max(parents, key=lambda p: (p.fidelity, p.scores[0], -distance(p.genotype, trial.genotype), -p.number), default=None)
        if before is None or (before.genotype, before.fidelity) != (trial.genotype, trial.fidelity):
            others = tuple(n for n in dict.fromkeys(trial.parents) if before is not None and n != before.number)
            found.append(Step(trial, before, others, _gain(trial, before)))
        if before is None:
            found.reverse()
            # a parent may be a copy that is left out: what it is a copy of stands for it
            return [step if n == 0 else step._replace(before=found[n - 1].trial) for n, step in enumerate(found)]
        trial = before


def _gain(trial: Trial, before: Trial | None) -> float | None:
    if before is None or before.fidelity != trial.fidelity:
        return None
    gain = trial.scores[0] - before.scores[0]
    return gain if isfinite(gain) else None


def forebears(trials: Sequence[Trial], last: Trial) -> set[int]:
    """Numbers of all trials that `last` descends from."""
    found: set[int] = set()
    waiting = list(last.parents)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += trials[number].parents
    return found


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """The first trial of each architecture whose scores are finite, of the longest trainings alone."""
    known = [trial for trial in trials if trial.refused is None and all(map(isfinite, trial.scores))]
    longest = max((trial.fidelity for trial in known), default=1.0)
    each: dict[Genotype, Trial] = {}
    for trial in known:
        if trial.fidelity == longest:
            each.setdefault(trial.genotype, trial)
    return list(each.values())


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """Of `comparable` trials those that none beats in every score, by falling first score."""
    if not trials:
        return []
    kept = front(np.array([trial.scores for trial in trials]))
    return sorted((trial for trial, is_of in zip(trials, kept, strict=True) if is_of), key=lambda trial: (*(-s for s in trial.scores),
                                                                                                        trial.number))


def staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The border of what the points of a front dominate, higher and to the right being better: its corners from the left."""
    ordered = sorted(set(points))
    corners = ordered[:1]
    for (left, _), (right, low) in pairwise(ordered):
        corners += [(left, low), (right, low)]
    return corners
