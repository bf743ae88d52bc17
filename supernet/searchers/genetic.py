"""A genetic algorithm in generations, as general texts describe it (Goldberg 1989; Eiben & Smith 2015, Ch. 3 to 5)."""

import random
from collections.abc import Callable, Sequence
from typing import Literal

from supernet.ranges import Count, Share, Whole, ranged
from supernet.searchers.base import Searcher
from supernet.space import Space
from supernet.trials import History, Proposal, Trial

Selection = Literal["truncation", "tournament", "roulette", "rank"]
Crossover = Literal["one_point", "uniform"]
Draw = Callable[[Sequence[Trial], random.Random], Trial]


@ranged
class Genetic(Searcher):
    """The first `population` trials are random; each later generation has as many children of the one before it. With probability
    `crossover_prob` a child has two parents, otherwise one; then each of its edges mutates with probability `mutation_prob`.

    selection, of a parent from those of a generation, best first: `truncation`, uniformly from the best `best` of them (a share);
    `tournament`, the best of `tournament` drawn with replacement; `roulette`, in proportion to the score less the generation's lowest;
    `rank`, in proportion to the rank from below. elite: so many of the best of all before are parents beside the generation; they are not
    evaluated again. Trials handed on by another searcher stand for the first generation.
    """

    def __init__(self, space: Space, *, population: Count = 100, selection: Selection = "truncation", best: Share = 0.1,
                 tournament: Count = 5, crossover: Crossover = "one_point", crossover_prob: Share = 0.7, mutation_prob: Share = 0.2,
                 elite: Whole = 1):
        self.space, self.population, self.crossover_prob, self.mutation_prob, self.elite = (
            space, population, crossover_prob, mutation_prob, elite)
        self._cross = {"one_point": space.crossover_one_point, "uniform": space.crossover}[crossover]
        self._cross_name = {"one_point": "one-point crossover", "uniform": "uniform crossover"}[crossover]
        draws: dict[str, Draw] = {"truncation": lambda ordered, rng: truncated(ordered, rng, best), "roulette": roulette, "rank": by_rank,
                                  "tournament": lambda ordered, rng: won(ordered, rng, tournament)}
        self._draw = draws[selection]

    def ask(self, history: History, rng: random.Random) -> Proposal:
        parents = self._parents(history)
        if not parents:
            return Proposal(self.space.sample(rng), change="random")
        first, words = self._draw(parents, rng), []
        child, numbers = first.genotype, (first.number,)
        if rng.random() < self.crossover_prob:
            second = self._draw(parents, rng)
            child, numbers, words = self._cross(child, second.genotype, rng), (first.number, second.number), [self._cross_name]
        mutant = self.space.mutate_each(child, rng, self.mutation_prob)
        return Proposal(mutant, numbers, ", ".join([*words, *(["mutation"] if mutant != child else [])]) or "copy")

    def sees(self, number: int, begin: int = 0) -> int:
        return begin + (number - begin) // self.population * self.population

    def _parents(self, history: History) -> list[Trial]:
        """Best first: the generation before that of the asked trial, and the elite of what came before it; none for the first."""
        start = self.sees(history.number, history.begin)
        since = 0 if start == history.begin else start - self.population
        before = sorted((t for t in history.trials[:since] if t.refused is None), key=_best_first)[:self.elite]
        members = [t for t in history.trials[since:start] if t.refused is None]
        if start == history.begin:  # handed on: as many as a generation has
            members = sorted(members, key=_best_first)[:self.population]
        return sorted([*before, *members], key=_best_first)


def _best_first(trial: Trial) -> tuple[float, int]:
    return -trial.scores[0], trial.number


def truncated(ordered: Sequence[Trial], rng: random.Random, best: float) -> Trial:
    """One of the best share, at least of one."""
    return rng.choice(ordered[:max(1, round(best * len(ordered)))])


def won(ordered: Sequence[Trial], rng: random.Random, size: int) -> Trial:
    """The best of `size` drawn with replacement."""
    return ordered[min(rng.randrange(len(ordered)) for _ in range(size))]


def roulette(ordered: Sequence[Trial], rng: random.Random) -> Trial:
    """In proportion to the score less the lowest finite one; uniformly where all are equal."""
    finite = [t for t in ordered if t.scores[0] > float("-inf")] or list(ordered)
    lowest = finite[-1].scores[0]
    weights = [t.scores[0] - lowest for t in finite] if finite[0].scores[0] > lowest else None
    return rng.choices(finite, weights)[0]


def by_rank(ordered: Sequence[Trial], rng: random.Random) -> Trial:
    """The best of n with weight n, the worst with 1."""
    return rng.choices(ordered, range(len(ordered), 0, -1))[0]
