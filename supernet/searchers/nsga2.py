"""NSGA-II (Deb, Pratap, Agarwal & Meyarivan 2002): evolution towards a front of several scores."""

import random
from typing import Literal

import numpy as np

from supernet.ranges import Count, Share, ranged
from supernet.searchers.base import Searcher
from supernet.searchers.fronts import crowding, ranks
from supernet.space import Space
from supernet.trials import History, Proposal, Trial


@ranged
class NSGA2(Searcher):
    """Generations of `population` children. The parents of a generation are the best `population` of the parents of the one before it and
    of its children: by rank of domination, and within the last rank that has room the least crowded. Each parent of a child wins a
    tournament of two, by rank, then crowding. Children are crossed with probability `crossover_prob`, and each of their edges mutates with
    `mutation_prob`.

    An architecture is among the parents once, however often it was asked for. Trials handed on by another searcher are the first children.
    """

    many = True

    def __init__(self, space: Space, *, population: Count = 50, crossover: Literal["one_point", "uniform"] = "uniform",
                 crossover_prob: Share = 0.9, mutation_prob: Share = 0.1):
        self.space, self.population, self.crossover_prob, self.mutation_prob = space, population, crossover_prob, mutation_prob
        self._cross = {"one_point": space.crossover_one_point, "uniform": space.crossover}[crossover]
        self._known: tuple[int, Trial | None, list[Trial], np.ndarray] = (0, None, [], np.zeros(0))  # what `_parents` found last

    def ask(self, history: History, rng: random.Random) -> Proposal:
        parents, order = self._parents(history)
        if not parents:
            return Proposal(self.space.sample(rng), change="random")

        def chosen() -> Trial:
            return parents[min(rng.randrange(len(parents)), rng.randrange(len(parents)), key=lambda place: order[place])]

        first = chosen()
        child, numbers, words = first.genotype, (first.number,), []
        if rng.random() < self.crossover_prob:
            second = chosen()
            child, numbers, words = self._cross(child, second.genotype, rng), (first.number, second.number), ["crossover"]
        mutant = self.space.mutate_each(child, rng, self.mutation_prob)
        return Proposal(mutant, numbers, ", ".join([*words, *(["mutation"] if mutant != child else [])]) or "copy")

    def sees(self, number: int, begin: int = 0) -> int:
        return begin + (number - begin) // self.population * self.population

    def _parents(self, history: History) -> tuple[list[Trial], np.ndarray]:
        """The parents of the generation that the asked trial belongs to, and the place of each in their order."""
        end = self.sees(history.number, history.begin)
        size, last, parents, order = self._known
        if size > end or (size and history.trials[size - 1] is not last):  # another history, or an earlier moment of it
            size, parents, order = 0, [], np.zeros(0)
        while size < end:
            step = history.begin if size < history.begin else size + self.population
            children = [t for t in history.trials[size:step] if t.refused is None]
            parents, order = survivors([*parents, *children], self.population)
            size = step
        self._known = size, history.trials[size - 1] if size else None, parents, order
        return parents, order


def survivors(trials: list[Trial], size: int) -> tuple[list[Trial], np.ndarray]:
    """The best `size` of the trials, one of each architecture, and the place of each in their order, from 0 for the best."""
    each = list({t.genotype: t for t in reversed(trials)}.values())[::-1]  # the first of each
    if not each:
        return [], np.zeros(0)
    points = np.array([t.scores for t in each])
    rank, crowded = ranks(points), np.zeros(len(each))
    for r in range(rank.max() + 1):
        crowded[rank == r] = crowding(points[rank == r])
    order = np.lexsort((np.arange(len(each)), -crowded, rank))[:size]
    return [each[i] for i in order], np.arange(len(order))
