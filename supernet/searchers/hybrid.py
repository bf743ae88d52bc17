"""Searchers one after the other, each with what those before it have found."""

import random
from collections.abc import Callable, Mapping, Sequence

from supernet.errors import UsageError
from supernet.ranges import Count, ranged
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal


@ranged
class Hybrid(Searcher):
    """`parts`, searchers by name in their order, as functions of the space; each but the last has the `trials` of its name, the last all
    that are left. What was found before is handed on: a genetic search takes it for its first generation, a local search or annealing
    begins at the best of it, a model or a policy learns from it.
    """

    def __init__(self, space: Space, *, parts: Mapping[str, Callable[[Space], Searcher]], trials: Mapping[str, Count]):
        names = list(parts)
        if len(names) < 2 or set(trials) != set(names[:-1]):
            raise UsageError(f"searcher.trials must have a number for each of searcher.parts but the last, and there must be two parts or "
                             f"more: got parts {', '.join(names) or 'none'}, trials of {', '.join(trials) or 'none'}")
        self.parts = [part(space) for part in parts.values()]
        starts = [0]
        for name in names[:-1]:
            starts.append(starts[-1] + trials[name])
        self.starts: Sequence[int] = starts
        self.population = max(part.population for part in self.parts)
        self.many, self.shortens = all(part.many for part in self.parts), any(part.shortens for part in self.parts)
        self.shortest = min(part.shortest for part in self.parts)

    def ask(self, history: History, rng: random.Random) -> Proposal:
        part, start = self._at(history.own())
        history.begin += start
        return part.ask(history, rng)

    def sees(self, number: int, begin: int = 0) -> int:
        part, start = self._at(number - begin)
        return part.sees(number, begin + start)

    def _at(self, own: int) -> tuple[Searcher, int]:
        """The part that asks for the `own`-th trial, and its first one."""
        return next((part, start) for part, start in zip(reversed(self.parts), reversed(self.starts)) if start <= own)
