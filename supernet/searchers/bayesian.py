"""Bayesian optimisation of architectures: a model of the scores chooses among changes of the best (BANANAS, White, Neiswanger & Savani
2021), a Gaussian process where they have an ensemble of networks."""

import random
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np

from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.ranges import Count, Fraction, Range, Share, ranged
from supernet.searchers.base import Searcher
from supernet.searchers.encodings import ENCODINGS, Numbered, differences
from supernet.searchers.gaussian_process import Kernel, expected_improvement, fit, normal_scores, predict
from supernet.space import Space
from supernet.trials import History, Proposal, Trial

Several = Annotated[int, Range(2, 10_000)]  # a matrix of so many rows is solved for at every trial
FITTED = 200  # more architectures tell a kernel's two numbers no better, and take long


@ranged
class Bayesian(Searcher):
    """The first `initial` architectures are random. Then a Gaussian process on their `encoding` learns the scores, by their ranks, and of
    about `candidates` that were not evaluated yet the one is asked for that promises most: by `expected_improvement`, or by independent
    `thompson` sampling, a draw from what each candidate's score may be (their Sec. 5.2).

    Candidates are single changes of the best `parents` architectures, each changed once more with probability `again`, and so on; a share
    `uniform` is drawn from the whole space, without which a search may stay about one optimum. With `screen`, a searcher as a function of
    the space, they are what that one proposes, so that of its proposals only the promising are evaluated.

    `batch` trials are asked for at once, without knowing of each other; with `screen`, as many as that searcher asks for. The kernel is
    fitted after every `refit` trials. Of more architectures than `most` the model knows the best half of so many, and as many of the
    others, evenly by their scores. Trials handed on by another searcher count as initial ones.
    """

    def __init__(self, space: Space, *, encoding: Literal["adjacency", "paths", "both"] = "both",
                 acquisition: Literal["expected_improvement", "thompson"] = "expected_improvement", initial: Several = 10,
                 candidates: Count = 60, parents: Count = 10, again: Fraction = 0.3, uniform: Share = 0.5, batch: Count = 1,
                 refit: Count = 10, most: Several = 400, screen: Callable[[Space], Searcher] | None = None):
        self.space, self.acquisition, self.initial, self.candidates, self.parents = space, acquisition, initial, candidates, parents
        self.again, self.uniform, self.batch, self.refit, self.most = again, uniform, batch, refit, most
        self.screen = None if screen is None else screen(space)
        if self.screen is not None and self.screen.shortens:
            raise UsageError(f"searcher.screen must be a searcher that trains each architecture whole, since a model compares them by one "
                             f"score, got {type(self.screen).__name__}")
        self._encode = Numbered(ENCODINGS[encoding](space))
        self._fitted: tuple[int, Trial | None, Kernel] = (0, None, Kernel(1.0, 1.0))  # after which trial

    def ask(self, history: History, rng: random.Random) -> Proposal:
        end = self.sees(history.number, history.begin)
        seen = distinct(history.trials[:end])
        if len(seen) < self.initial:
            return self._proposed(history, rng) if self.screen is not None else Proposal(self.space.sample(rng), change="random")
        found = self._candidates(history, seen, rng)
        if len(found) == 1:
            return found[0]
        known = telling(seen, self.most)
        y = normal_scores([trial.scores[0] for trial in known])
        features = [self._encode(trial.genotype) for trial in known]
        across = differences(features, [self._encode(proposal.genotype) for proposal in found])
        mean, deviation = predict(self._kernel(history, end, seen), differences(features, features), across, y)
        if self.acquisition == "thompson":
            promise = mean + deviation * np.array([rng.gauss(0, 1) for _ in found])
        else:
            promise = expected_improvement(mean, deviation, y.max())
        return found[int(promise.argmax())]

    def sees(self, number: int, begin: int = 0) -> int:
        if self.screen is not None:
            return self.screen.sees(number, begin)
        first = max(begin, self.initial)
        return begin if number < first else first + (number - first) // self.batch * self.batch

    def _candidates(self, history: History, seen: Sequence[Trial], rng: random.Random) -> list[Proposal]:
        """Each once, none of them met; one that was, or is random, where there is no other."""
        if self.screen is not None:
            drawn = [self._proposed(history, random.Random(rng.getrandbits(64))) for _ in range(self.candidates)]
            last = drawn[0]
        else:
            parents = sorted(seen, key=lambda trial: (-trial.scores[0], trial.number))[:self.parents]
            drawn = [self._drawn(parents, rng) for _ in range(self.candidates)]
            last = Proposal(self.space.sample(rng), change="random")
        each = {proposal.genotype: proposal for proposal in reversed(drawn) if proposal.genotype not in history.met}
        return list(each.values())[::-1] or [last]

    def _drawn(self, parents: Sequence[Trial], rng: random.Random) -> Proposal:
        if rng.random() < self.uniform:
            return Proposal(self.space.sample(rng), change="random")
        parent = rng.choice(parents)
        genotype = self.space.mutate(parent.genotype, rng)
        while rng.random() < self.again:
            genotype = self.space.mutate(genotype, rng)
        return Proposal(genotype, (parent.number,), "mutation")

    def _proposed(self, history: History, rng: random.Random) -> Proposal:
        """By the searcher that is screened."""
        begin = history.begin
        try:
            return self.screen.ask(history, rng)
        finally:
            history.begin = begin  # which a hybrid moves to its part's first trial

    def _kernel(self, history: History, end: int, seen: Sequence[Trial]) -> Kernel:
        """Fitted to the trials up to the last refit; to all that are seen where those were too few."""
        size = end // self.refit * self.refit
        known = seen if size == end else distinct(history.trials[:size])
        if len(known) < self.initial:
            size, known = end, seen
        if self._fitted[0] != size or self._fitted[1] is not history.trials[size - 1]:
            known = telling(known, FITTED)
            features = [self._encode(trial.genotype) for trial in known]
            kernel = fit(differences(features, features), normal_scores([trial.scores[0] for trial in known]))
            self._fitted = size, history.trials[size - 1], kernel
        return self._fitted[2]


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """The first trial of each architecture that was evaluated; of trainings of different length the longest alone."""
    evaluated = [trial for trial in trials if trial.refused is None]
    longest = max((trial.fidelity for trial in evaluated), default=1.0)
    first: dict[Genotype, Trial] = {}
    for trial in evaluated:
        if trial.fidelity == longest:
            first.setdefault(trial.genotype, trial)
    return list(first.values())


def telling(trials: list[Trial], most: int) -> list[Trial]:
    """At most so many: the best half, and of the others some, evenly by their scores; all in their order."""
    if len(trials) <= most:
        return trials
    ordered = sorted(trials, key=lambda trial: (-trial.scores[0], trial.number))
    best, others = ordered[:most // 2], ordered[most // 2:]
    room = most - len(best)
    return sorted([*best, *(others[place * len(others) // room] for place in range(room))], key=lambda trial: trial.number)
