"""What every searcher is."""

import random

from supernet.trials import History, Proposal


class Searcher:
    """An interface. A searcher has no state beside the history: whoever makes it anew after any number of trials is asked for the same
    next. What it derives from the history it may remember.

    many: whether it knows what to do with more than one score. shortens: whether it asks for less than the whole training; shortest: the
    least share of one. population: how many architectures it begins with, where it keeps a population.
    """

    many = False
    shortens = False
    shortest = 1.0
    population = 0

    def ask(self, history: History, rng: random.Random) -> Proposal:
        """The proposal of number `history.number`, from the first `sees(number)` trials. rng: that proposal's own source of randomness."""
        raise NotImplementedError

    def sees(self, number: int, begin: int = 0) -> int:
        """How many of the first trials decide what the `number`-th asks for: `number` where each follows from the one before, fewer where
        a generation is asked for at once, so that its members can be evaluated together. begin: as `History.begin`."""
        return number
