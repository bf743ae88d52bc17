"""Random search: what every other searcher is to be held against (Li & Talwalkar 2019)."""

import random

from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal


class Random(Searcher):
    """Each trial an architecture drawn uniformly from the space."""

    many = True

    def __init__(self, space: Space):
        self.space = space

    def ask(self, history: History, rng: random.Random) -> Proposal:
        return Proposal(self.space.sample(rng), change="random")

    def sees(self, number: int, begin: int = 0) -> int:
        return begin
