"""Regularised evolution (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", Alg. 1)."""

import random

from supernet.ranges import Count, ranged
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal


@ranged
class RegularisedEvolution(Searcher):
    """The population is the last `population` trials, so that each member dies of age, however good. A tournament of `sample` members,
    drawn with replacement (the official code draws them so; the paper does not say), sends its best to have one mutated child.

    Defaults are the paper's, for a space like DARTS'; on NAS-Bench-201 both benchmarks' authors use 10 and 3. Refused trials take no
    place in the population.
    """

    def __init__(self, space: Space, *, population: Count = 100, sample: Count = 25):
        self.space, self.population, self.sample = space, population, sample

    def ask(self, history: History, rng: random.Random) -> Proposal:
        members = []
        for trial in reversed(history.trials):
            if len(members) == self.population:
                break
            if trial.refused is None:
                members.append(trial)
        if len(members) < self.population:
            return Proposal(self.space.sample(rng), change="random")
        parent = max((rng.choice(members) for _ in range(self.sample)), key=lambda trial: trial.scores[0])
        return Proposal(self.space.mutate(parent.genotype, rng), (parent.number,), "mutation")

    def sees(self, number: int, begin: int = 0) -> int:
        return 0 if number < self.population else number  # what was handed on is of the population
