"""Successive halving (Jamieson & Talwalkar 2016) and Hyperband (Li et al. 2018, Alg. 1): many short trainings, few long ones."""

import random
from collections.abc import Iterator
from typing import Annotated

from supernet.ranges import Count, Range, ranged
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal

Factor = Annotated[int, Range(2, 1000)]


@ranged
class SuccessiveHalving(Searcher):
    """Rungs of trainings that are `factor` times as long from one to the next, the last one whole. Of the architectures of a rung the best
    1/`factor` are trained on in the next. In the first of `rungs` there are `factor`^(`rungs` - 1), drawn at random, so that one reaches
    the top; then it begins anew.

    An evaluator that trains goes on with the shorter training of the same architecture, where it has kept it.
    """

    shortens = True

    def __init__(self, space: Space, *, factor: Factor = 3, rungs: Count = 4):
        self.space, self.factor, self.rungs, self.shortest = space, factor, rungs, float(factor) ** (1 - rungs)

    def brackets(self) -> list[list[int]]:
        """What is repeated: brackets, as the sizes of their rungs, whose lengths of training are those of the last rungs."""
        return [[self.factor ** rung for rung in reversed(range(self.rungs))]]

    def ask(self, history: History, rng: random.Random) -> Proposal:
        start, size, rung, fidelity = self._rung(history.own())
        if rung == 0:
            return Proposal(self.space.sample(rng), change="random", fidelity=fidelity)
        end = history.begin + start  # of the rung before
        below = history.trials[end - self._before(start):end]
        ordered = sorted((t for t in below if t.refused is None), key=lambda t: (-t.scores[0], t.number))
        place = history.own() - start
        if place >= len(ordered):  # so many were refused
            return Proposal(self.space.sample(rng), change="random", fidelity=fidelity)
        return Proposal(ordered[place].genotype, (ordered[place].number,), "promoted", fidelity)

    def sees(self, number: int, begin: int = 0) -> int:
        return begin + self._rung(number - begin)[0]

    def _walk(self) -> Iterator[tuple[int, int, int, float]]:
        start = 0
        while True:
            for sizes in self.brackets():
                for rung, size in enumerate(sizes):
                    yield start, size, rung, float(self.factor) ** (rung + 1 - len(sizes))
                    start += size

    def _rung(self, own: int) -> tuple[int, int, int, float]:
        """Of the searcher's `own`-th trial, from 0: where its rung starts, how many that has, its place in the bracket, its fidelity."""
        whole = sum(map(sum, self.brackets()))
        skipped = own // whole * whole
        start, *rest = next(found for found in self._walk() if found[0] + found[1] > own - skipped)
        return (skipped + start, *rest)

    def _before(self, start: int) -> int:
        """The size of the rung that ends where one starts."""
        return self._rung(start - 1)[1]


@ranged
class Hyperband(SuccessiveHalving):
    """Brackets of successive halving that begin with ever longer trainings, so that architectures which only show their worth late are
    found as well. Bracket s = `rungs` - 1, ..., 0 has s + 1 rungs, and ceil(`rungs` / (s + 1) * factor^s) architectures in its first
    (Alg. 1)."""

    def brackets(self) -> list[list[int]]:
        found = []
        for s in reversed(range(self.rungs)):
            n = -(-self.rungs * self.factor ** s // (s + 1))  # rounded up, in whole numbers: a quotient of floats may be a little above
            found.append([max(1, n // self.factor ** rung) for rung in range(s + 1)])
        return found
