"""Sums of tables that stand for what can only be measured: made from values of some architectures."""

import random
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from supernet.costs.chain import ChainCost, Term
from supernet.costs.exact import additive_score
from supernet.deployment.limits import Quantity
from supernet.genotype import Genotype
from supernet.space import Space

FOLDS = 5


class Model(NamedTuple):
    """error: the median of |model - value| / value over architectures that it was not made from; NaN where there are too few to tell."""

    cost: ChainCost
    error: float


def sampled(space: Space, count: int, seed: int, what: str) -> list[Genotype]:
    """Architectures drawn uniformly and distinct, as many as there are at most; the first so many of a longer list are those of a shorter
    one. Decisions that decide nothing in an architecture are drawn like others, so that a model can tell what they do where they do."""
    rng, found, seen = random.Random(f"{seed}/{what}"), [], set()
    for _ in range(20 * count):  # in a small space all may have been met
        genotype = space.sample(rng)
        if (same := space.canonical(genotype)) not in seen:
            seen.add(same)
            found.append(genotype)
        if len(found) == count:
            break
    return found


def fitted(space: Space, genotypes: Sequence[Genotype], values: Sequence[float], counted: Sequence[ChainCost], *, name: str, unit: str,
           ridge: float = 1.0, folds: int = FOLDS) -> Model:
    """`values` as a constant, a multiple of each of the counted costs (least squares), and a number for each choice of each decision of
    what is left (`additive_score`). So it is a sum of tables itself, and what it says of an architecture is an estimate."""
    def cost(rows: Sequence[int]) -> ChainCost:
        own, y = [genotypes[n] for n in rows], np.array([values[n] for n in rows])
        totals = np.array([[c(g) for c in counted] for g in own]).reshape(len(own), len(counted))
        scale = np.maximum(np.abs(totals).max(0, initial=0.0), 1e-12)
        design = np.column_stack([np.ones(len(own)), totals / scale])
        weights, *_ = np.linalg.lstsq(design, y, rcond=None)
        rest = additive_score(space, own, list(y - design @ weights), ridge=ridge)
        terms = [Term((), torch.tensor(float(weights[0]), dtype=torch.float64)), *rest.terms]
        for c, w, s in zip(counted, weights[1:], scale):
            terms += [Term(term.rows, term.table.double() * float(w / s)) for term in c.terms]
        made = ChainCost(space, terms, name)
        made.unit = unit
        return made

    everything = range(len(genotypes))
    missed: list[float] = []
    if len(genotypes) >= 2 * folds:
        for fold in range(folds):
            part = cost([n for n in everything if n % folds != fold])
            missed += [abs(part(genotypes[n]) - values[n]) / max(abs(values[n]), 1e-12) for n in everything if n % folds == fold]
    return Model(cost(everything), statistics.median(missed) if missed else float("nan"))


class Modelled:
    """A quantity that is found one architecture at a time, with its model; whatever else is found later makes the model anew.

    of: the value of an architecture, the same at every call. working(done, total): called before each of the first ones.
    """

    def __init__(self, space: Space, genotypes: Sequence[Genotype], of: Callable[[Genotype], float], counted: Sequence[ChainCost], *,
                 name: str, unit: str, working: Callable[[int, int], None] = lambda done, total: None):
        self.space, self.find, self.counted = space, of, counted
        self.genotypes: list[Genotype] = []
        self.values: list[float] = []
        self.same: set[Genotype] = set()
        for n, genotype in enumerate(genotypes):
            working(n, len(genotypes))
            self._add(genotype, of(space.canonical(genotype)))
        model = fitted(space, self.genotypes, self.values, counted, name=name, unit=unit)
        self.quantity = Quantity(name, unit, self.of, model.cost, False, model.error)

    def of(self, genotype: Genotype) -> float:
        same = self.space.canonical(genotype)
        value = self.find(same)
        if same not in self.same:
            self._add(genotype, value)
            plan = self.quantity.plan
            self.quantity.plan = fitted(self.space, self.genotypes, self.values, self.counted, name=plan.name, unit=plan.unit, folds=0).cost
        return value

    def _add(self, genotype: Genotype, value: float) -> None:
        self.same.add(self.space.canonical(genotype))
        self.genotypes.append(genotype)
        self.values.append(value)
