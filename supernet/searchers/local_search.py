"""Local search (White, Nolen & Savani 2021, "Exploring the Loss Landscape in Neural Architecture Search", Alg. 1)."""

import random

from supernet.genotype import Genotype
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal, Trial, best


class LocalSearch(Searcher):
    """Evaluates the neighbours of an architecture, in random order, and goes to the best of them; where none is better, to a new random
    start. first_improvement: goes as soon as one is better, which is cheaper in large spaces (their Sec. 5). Neighbours that are known
    already are not asked for again. Trials handed on by another searcher give the first start, the best of them.

    Where the search stands is told by the last trial's parent.
    """

    def __init__(self, space: Space, *, first_improvement: bool = False):
        self.space, self.first_improvement = space, first_improvement
        self._near: tuple[Genotype | None, list[Genotype]] = (None, [])  # as listed last

    def ask(self, history: History, rng: random.Random) -> Proposal:
        here = self._here(history)
        while here is not None:
            unknown, best_known = [], here
            for genotype in self._neighbours(here.genotype):
                known = history.known(genotype)
                if known is None and genotype not in history.refused:
                    unknown.append(genotype)
                elif known is not None and known.scores[0] > best_known.scores[0]:
                    best_known = known
            goes = best_known is not here
            if unknown and not (goes and self.first_improvement):
                return Proposal(rng.choice(unknown), (here.number,), "neighbour")
            here = best_known if goes else None
        return Proposal(self.space.sample(rng), change="start")

    def _neighbours(self, genotype: Genotype) -> list[Genotype]:
        if self._near[0] != genotype:
            self._near = genotype, list(self.space.neighbours(genotype))
        return self._near[1]

    def _here(self, history: History) -> Trial | None:
        """The architecture whose neighbours are looked at; None where none is yet."""
        if history.own() == 0:
            return best(history)
        last = history.trials[-1]
        if last.parents:
            return history.trials[last.parents[0]]
        return last if last.refused is None else None
