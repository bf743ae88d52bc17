"""The evolution of Single Path One-Shot (Guo et al. 2020, Sec. 3.4 and Algorithm 1): crossovers and mutations of the best of all."""

import random
from collections.abc import Callable

from supernet.genotype import Genotype
from supernet.ranges import Count, Share, Whole, ranged
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal, Trial

ATTEMPTS = 10  # to make a child that nobody has met [official code, max_iters]; then it is a random architecture


@ranged
class SinglePathEvolution(Searcher):
    """Generations of `population`, the first random. In each later one the first `mutations` have one parent, each of whose edges mutates
    with `mutation_prob`; the next `crossovers` have each edge from either of two; any others are random. Parents are drawn uniformly from
    the best `parents` of all architectures so far. Trials handed on by another searcher are the first generation.

    As in the official code what was met is not asked for again; here the children of one generation do not know of each other, so that
    they can be evaluated together, and some may be equal. What breaks a limit is a member as well, and has no child; there it is drawn
    anew. An edge that mutates changes; there it may draw what it was.
    """

    def __init__(self, space: Space, *, population: Count = 50, parents: Count = 10, mutations: Whole = 25, crossovers: Whole = 25,
                 mutation_prob: Share = 0.1):
        if mutations + crossovers > population:
            raise ValueError(f"searcher.mutations and crossovers must be at most the population of {population} together, got {mutations} "
                             f"and {crossovers}")
        self.space, self.population, self.parents, self.mutations, self.crossovers, self.mutation_prob = (
            space, population, parents, mutations, crossovers, mutation_prob)
        self._known: tuple[int, Trial | None, list[Trial]] = (0, None, [])  # what `_parents` found last, and after which trial

    def ask(self, history: History, rng: random.Random) -> Proposal:
        start = self.sees(history.number, history.begin)
        parents, place = self._parents(history, start), history.number - start
        if parents and place < self.mutations:
            return self._new(history, rng, lambda: self._mutant(parents, rng))
        if parents and place < self.mutations + self.crossovers:
            return self._new(history, rng, lambda: self._child(parents, rng))
        return self._new(history, rng, lambda: Proposal(self.space.sample(rng), change="random"))

    def sees(self, number: int, begin: int = 0) -> int:
        return begin + (number - begin) // self.population * self.population

    def _parents(self, history: History, start: int) -> list[Trial]:
        last = history.trials[start - 1] if start else None
        if self._known[:2] != (start, last):
            self._known = start, last, self._best(history, start)
        return self._known[2]

    def _best(self, history: History, start: int) -> list[Trial]:
        each: dict[Genotype, Trial] = {}
        evaluated = [trial for trial in history.trials[:start] if trial.refused is None]
        for trial in sorted(evaluated, key=lambda trial: (-trial.scores[0], trial.number)):
            each.setdefault(trial.genotype, trial)
        return list(each.values())[:self.parents]

    def _mutant(self, parents: list[Trial], rng: random.Random) -> Proposal:
        parent = rng.choice(parents)
        return Proposal(self.space.mutate_each(parent.genotype, rng, self.mutation_prob), (parent.number,), "mutation")

    def _child(self, parents: list[Trial], rng: random.Random) -> Proposal:
        first, second = rng.choice(parents), rng.choice(parents)
        return Proposal(self.space.crossover(first.genotype, second.genotype, rng), (first.number, second.number), "uniform crossover")

    def _new(self, history: History, rng: random.Random, draw: Callable[[], Proposal]) -> Proposal:
        """One whose architecture was not met, or a random one."""
        for _ in range(ATTEMPTS):
            proposal = draw()
            if proposal.genotype not in history.met:
                return proposal
        for _ in range(ATTEMPTS):
            proposal = Proposal(self.space.sample(rng), change="random")
            if proposal.genotype not in history.met:
                break
        return proposal
