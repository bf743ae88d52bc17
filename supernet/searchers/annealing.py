"""Simulated annealing (Kirkpatrick, Gelatt & Vecchi 1983) over single changes."""

import math
import random

from supernet.ranges import Count, Positive, ranged
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal, Trial, best


@ranged
class Annealing(Searcher):
    """Each trial is a neighbour, drawn uniformly, of the architecture where the walk stands. It is gone to if it is better, or else with
    probability exp(-d/T), where d is how much worse its score is; T falls from `start` to `end` by a constant factor over `steps` trials,
    and stays there. Temperatures are in the score's own unit (percent, for an accuracy).

    Where the walk stood is told by the last trial's parent, so that nothing else needs to be remembered.
    """

    def __init__(self, space: Space, *, start: Positive = 2.0, end: Positive = 0.05, steps: Count = 200):
        self.space, self.start, self.end, self.steps = space, start, end, steps

    def temperature(self, step: int) -> float:
        return self.start * (self.end / self.start) ** min(1.0, step / self.steps)

    def ask(self, history: History, rng: random.Random) -> Proposal:
        here = self._here(history, rng)
        if here is None:
            return Proposal(self.space.sample(rng), change="random")
        return Proposal(self.space.mutate(here.genotype, rng), (here.number,), "mutation")

    def _here(self, history: History, rng: random.Random) -> Trial | None:
        """Where the walk stands after the last trial; None where it has not begun."""
        if history.own() == 0:
            return best(history)
        last = history.trials[-1]
        before = history.trials[last.parents[0]] if last.parents else None
        if last.refused is not None or before is None:
            return before if last.refused is not None else last
        worse = before.scores[0] - last.scores[0]
        # two that are both the worst there is differ by nan: gone to, since staying would be no better
        return before if worse > 0 and rng.random() >= math.exp(-worse / self.temperature(history.own())) else last
