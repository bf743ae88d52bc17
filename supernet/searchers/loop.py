"""A search by trials: asks, evaluates, scores and records until a budget is spent. It knows nothing of how an architecture is evaluated."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, NamedTuple

from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.interfaces import InterfaceError, seen
from supernet.objectives import Objective
from supernet.ranges import Count, Positive, Whole, ranged
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import Evaluation, Evaluator, History, Proposal, Trial, source

Repeats = Literal["free", "paid"]
Batch = Sequence[tuple[Genotype, float]]  # architectures and their fidelities
MAX_REFUSED = 1000  # in a row: then nothing seems to keep the limits
MAX_TOGETHER = 1024  # proposals of one generation that are held at once


@ranged
@dataclass(frozen=True)
class Budget:
    """What a search may spend; None: as much as it likes. The trial that reaches a bound is the last one, and may go beyond it, as a
    training is not stopped in its middle (NAS-Bench-201's own searches count so). Refused trials cost nothing."""

    trials: Count | None = None
    images: Count | None = None
    wall_s: Positive | None = None
    simulated_s: Positive | None = None

    def __post_init__(self) -> None:
        if not self.bounds():
            raise UsageError("budget: expected at least one of trials, images, wall_s, simulated_s above 0, got none")

    def bounds(self) -> list[tuple[str, float]]:
        """Those that there are, by name."""
        return [(key, bound) for key, bound in vars(self).items() if bound is not None]


@dataclass
class Spent:
    """What a search has cost, in the units of `Budget`."""

    trials: int = 0
    images: int = 0
    wall_s: float = 0.0
    simulated_s: float = 0.0

    def add(self, trial: Trial) -> None:
        if trial.refused is None:
            self.trials += 1
        self.images, self.wall_s = self.images + trial.images, self.wall_s + trial.wall_s
        self.simulated_s += trial.simulated_s

    def share(self, budget: Budget) -> float:
        """Of that bound which is nearest: 1 or more where the budget is spent."""
        return max(getattr(self, key) / bound for key, bound in budget.bounds())


@ranged
@dataclass(frozen=True)
class Trials:
    """What a search by trials is made of. costs: what is known of an architecture before any evaluation, by the metric's name. repeats: an
    architecture that was evaluated before reads its values, for one trial and nothing else (`free`), or costs as much again (`paid`).
    patience: after so many in a row of what was evaluated or refused before, one is drawn at random, so that a search never stands still.
    images_before: what the evaluator sees before its first evaluation, of no architecture's own, and the budget counts.
    evaluate_all: evaluates some architectures at once, and gives what the evaluator would, in their order, with the seconds that each
    took; for processes.

    Raises UsageError: parts that do not fit each other.
    """

    space: Space
    searcher: Searcher
    evaluator: Evaluator
    objective: Objective
    budget: Budget
    seed: int
    costs: Mapping[str, Callable[[Genotype], float]]
    repeats: Repeats = "free"
    patience: Count = 100
    images_before: Whole = 0
    evaluate_all: "Callable[[Batch], Iterable[tuple[Evaluation, float]]] | None" = None

    def __post_init__(self) -> None:
        self.objective.check(sorted({*self.evaluator.gives, *self.costs}))
        if self.searcher.shortens and not self.evaluator.shortens:
            raise UsageError(f"searcher {type(self.searcher).__name__} begins with short trainings, which {type(self.evaluator).__name__} "
                             "cannot give: pass an evaluator that trains, such as from_scratch")
        scores = len(self.objective.names)
        if scores > 1 and not self.searcher.many:
            raise UsageError(f"searcher {type(self.searcher).__name__} compares one score, and the objective has {scores} "
                             f"({', '.join(self.objective.names)}): pass objective.weights, or a searcher of fronts such as nsga2")

    def spent(self, history: History) -> Spent:
        """What the trials so far have cost, with what was seen before the first."""
        found = Spent(images=self.images_before)
        for trial in history:
            found.add(trial)
        return found

    def run(self, history: History) -> Iterator[Trial]:
        """Goes on from the history's last trial, to the end of the budget or of the space. Each trial is in the history when it is given,
        and is to be written before the next is asked for. Raises UsageError where nothing that is proposed keeps the limits."""
        spent, refused = self.spent(history), 0
        for trial in history:
            refused = 0 if trial.refused is None else refused + 1
        size = self.space.count()
        while (not spent.trials or spent.share(self.budget) < 1) and len(history.met) < size:
            for trial in self._generation(history, spent):
                history.append(trial)
                spent.add(trial)
                refused = 0 if trial.refused is None else refused + 1
                yield trial
                if refused == MAX_REFUSED:
                    raise UsageError(f"{MAX_REFUSED} proposals in a row were refused, the last one since {trial.refused}: expected limits "
                                     f"that some architecture of space {self.space.name} keeps")
                if spent.trials and spent.share(self.budget) >= 1 or len(history.met) == size:
                    return

    def _generation(self, history: History, spent: Spent) -> Iterator[Trial]:
        """The trials that can be asked for now: one, or, where they are evaluated together, all that follow from the history as it is."""
        start, together = len(history), 1 if self.evaluate_all is None else MAX_TOGETHER
        room = math.inf if self.budget.trials is None else self.budget.trials - spent.trials
        asked: list[_Asked] = []
        first: dict[tuple[Genotype, float], int] = {}  # of those that are to be evaluated, by the number of the trial that does it
        again: set[Genotype] = set()  # refused in this generation
        repeats = history.repeated[-self.patience:]
        while not asked or (len(asked) < together and room > 0 and self.searcher.sees(start + len(asked)) <= start):
            number = start + len(asked)
            proposal = self._proposal(history, number, tired=sum(repeats) == self.patience)
            key = proposal.genotype, proposal.fidelity
            metrics = {name: float(cost(proposal.genotype)) for name, cost in self.costs.items()}
            refused = self.objective.broken(metrics)
            repeated = refused is None and (key in first or history.known(*key) is not None)
            known = repeated if refused is None else proposal.genotype in again or proposal.genotype in history.refused
            repeats = [*repeats, known][-self.patience:]
            asked.append(_Asked(proposal, metrics, refused))
            room -= refused is None
            if refused is not None:
                again.add(proposal.genotype)
            elif not repeated:
                first[key] = number
        done: dict[tuple[Genotype, float], tuple[Evaluation, float]] = {}
        with closing(self._evaluations(list(first))) as evaluations:
            for number, one in enumerate(asked, start):
                key = one.proposal.genotype, one.proposal.fidelity
                if first.get(key) == number:
                    found, seconds = next(evaluations)  # as they come, so that each trial can be kept before the next is there
                    done[key] = self._checked(found), seconds
                yield self._trial(history, number, one, done)

    def _evaluations(self, batch: Batch) -> Iterator[tuple[Evaluation, float]]:
        if self.evaluate_all is not None:
            yield from self.evaluate_all(batch)
            return
        for genotype, fidelity in batch:
            yield self.evaluated(genotype, fidelity)

    def evaluated(self, genotype: Genotype, fidelity: float) -> tuple[Evaluation, float]:
        """What the evaluator finds, and the seconds that it takes. Raises InterfaceError."""
        started = time.perf_counter()
        found = self._checked(self.evaluator(genotype, fidelity))
        return found, time.perf_counter() - started

    def _checked(self, found: Evaluation) -> Evaluation:
        """Raises InterfaceError: the evaluator, which may be a user's own, gives something else than it should."""
        name = type(self.evaluator).__qualname__
        if not isinstance(found, Evaluation):
            raise InterfaceError(f"evaluator {name} must return a supernet.trials.Evaluation, got {seen(found)}")
        if lacking := sorted(set(self.evaluator.gives) - set(found.metrics)):
            raise InterfaceError(f"evaluator {name} says that it gives {', '.join(sorted(self.evaluator.gives))}, and gave no {lacking[0]}")
        return found

    def _proposal(self, history: History, number: int, *, tired: bool) -> Proposal:
        """What the searcher asks for, or, after many repeats, a random architecture."""
        if tired:
            return Proposal(self.space.sample(source(self.seed, number, "patience")), change=f"random, after {self.patience} repeats")
        asked = self.searcher.ask(history.first(self.searcher.sees(number), number), source(self.seed, number))
        if not isinstance(asked, Proposal) or not isinstance(asked.genotype, Genotype):
            raise InterfaceError(f"searcher {type(self.searcher).__qualname__}.ask must return a supernet.trials.Proposal of a genotype, "
                                 f"got {seen(asked)}")
        return asked

    def _trial(self, history: History, number: int, asked: "_Asked",
               done: Mapping[tuple[Genotype, float], tuple[Evaluation, float]]) -> Trial:
        (genotype, parents, change, fidelity), metrics, refused = asked
        sees = self.searcher.sees(number)
        about = {"parents": parents, "change": change, "fidelity": fidelity, "sees": sees if sees < number else None}
        if refused is not None:
            return Trial(number, genotype, (), metrics, refused=refused, **about)
        before = history.known(genotype, fidelity)
        if before is not None:
            cost = {} if self.repeats == "free" else {"images": before.images, "simulated_s": before.simulated_s}
            return Trial(number, genotype, before.scores, before.metrics, repeats=before.number, **about, **cost)
        found, seconds = done[genotype, fidelity]
        metrics = {**metrics, **found.metrics}
        return Trial(number, genotype, self.objective.scores(metrics), metrics, images=found.images, wall_s=seconds,
                     simulated_s=found.simulated_s, **about)


class _Asked(NamedTuple):
    """A proposal, what is known of it before any evaluation, and why it is refused."""

    proposal: Proposal
    metrics: dict[str, float]
    refused: str | None
