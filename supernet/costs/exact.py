"""The best architecture of a chain within limits, exactly: where score and costs are sums of tables over few decisions, a mixed-integer
program finds the optimum and proves it.

A binary stands for each choice, one of a decision's being 1. A table over several decisions (a width and that of the layer before) has a
number in [0, 1] for each joint entry, whose sums over all but one decision are that decision's binaries (the local marginal polytope): at
binary choices these are forced to be the one entry that is chosen.
"""

import math
from collections.abc import Container, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from supernet.costs.chain import ChainCost, Term
from supernet.errors import UsageError
from supernet.genotype import Edge, Genotype
from supernet.space import Space

Row = tuple[str, int]  # a decision: kind, edge


class Optimum(NamedTuple):
    """`value` of the genotype, and `bound`, what no architecture within the limits exceeds."""

    genotype: Genotype
    value: float
    bound: float


def optimum(space: Space, score: ChainCost, limits: Mapping[str, tuple[ChainCost, float]] | None = None,
            without: Sequence[Genotype] = ()) -> Optimum:
    """The architecture of the highest score among those whose costs are at most so much, by name (cost, limit); of several, any one.
    without: such as are not asked for, and all others that compute the same (`Space.canonicalise`).

    Raises UsageError: scipy is missing, no architecture meets the limits (the message says the least of each cost by itself), or the solver
    gave up.
    """
    limits = {} if limits is None else limits
    found = solved(space, score, limits, without)
    if found is None:
        least = ", ".join(f"{name} {-solved(space, _negative(cost), {}).value:,.6g} (limit {limit:,.6g})"
                          for name, (cost, limit) in limits.items())
        raise UsageError(f"no architecture of {space.name} is within the limits; the least of each by itself: {least}")
    return found


def additive_score(space: Space, genotypes: Sequence[Genotype], scores: Sequence[float], *, ridge: float = 1.0) -> ChainCost:
    """The linear model of the choices that fits measured scores best: a number for each choice of each decision, by ridge regression (of
    the deviation from the mean, with penalty `ridge`). Raises ValueError: nothing to fit."""
    if len(genotypes) != len(scores) or not scores:
        raise ValueError(f"expected a score for each of at least one architecture, got {len(genotypes)} and {len(scores)}")
    places, columns = {}, 0
    for kind, spec in space.cells.items():
        for e in range(len(spec.edges)):
            places[kind, e], columns = columns, columns + len(spec.ops)
    design = np.zeros((len(genotypes), columns))
    for n, genotype in enumerate(genotypes):
        for kind, spec in space.cells.items():
            for e, o in spec.rows(genotype[kind]):
                design[n, places[kind, e] + o] = 1
    target = np.asarray(scores, np.float64)
    mean, centre = target.mean(), design.mean(0)
    around = design - centre
    effects = np.linalg.solve(around.T @ around + ridge * np.eye(columns), around.T @ (target - mean))
    constant = mean - centre @ effects
    terms = [Term((row,), torch.from_numpy(effects[place : place + len(space.cells[row[0]].ops)].copy()))
             for row, place in places.items()]
    return ChainCost(space, [Term((), torch.tensor(constant, dtype=torch.float64)), *terms], "additive score")


def _negative(cost: ChainCost) -> ChainCost:
    return ChainCost(cost.space, [Term(rows, -table) for rows, table in cost.terms], cost.name)


def deciding(space: Space, genotype: Genotype) -> set[Row]:
    """The decisions that what it computes depends on: another choice of one of them alone makes another network. All architectures with
    these choices are the same one (a layer that does not run decides nothing)."""
    same, found = space.canonical(genotype), set()
    for kind, spec in space.cells.items():
        edges = list(genotype[kind])
        for e, o in spec.rows(edges):
            for other in (op for op, may in zip(spec.ops, spec.selectable[e]) if may and op != spec.ops[o]):
                changed = [edge._replace(op=other) if n == e else edge for n, edge in enumerate(edges)]
                if space.canonical(space.genotype(dict(genotype.cells) | {kind: changed})) != same:
                    found.add((kind, e))
                    break
    return found


def solved(space: Space, score: ChainCost, limits: Mapping[str, tuple[ChainCost, float]],
           without: Sequence[Genotype] = ()) -> Optimum | None:
    """None where nothing meets the limits."""
    program = _Program(space)
    objective, constant = program.linear(score)
    rows = [(row, limit - fixed) for (row, fixed), limit in ((program.linear(cost), limit) for cost, limit in limits.values())]
    rows += [program.other_than(genotype, deciding(space, genotype)) for genotype in without]
    while (found := program.maximise(objective, rows)) is not None:
        genotype, bound = found
        if all(cost(genotype) <= limit for cost, limit in limits.values()):
            return Optimum(genotype, score(genotype), bound + constant)
        rows.append(program.other_than(genotype))  # beyond a limit by no more than the solver tolerates, and yet beyond it
    return None


class _Program:
    """Variables: the choices that a space has, then the joint entries of terms, as those are met."""

    def __init__(self, space: Space):
        self.space = space
        if not all(spec.is_chain for spec in space.cells.values()):
            raise UsageError(f"an exact optimum needs a space whose decisions are single rows, got {space.name!r}")
        self.of: dict[tuple[Row, int], int] = {}
        for kind, spec in space.cells.items():
            for e in range(len(spec.edges)):
                for o, may in enumerate(spec.selectable[e]):
                    if may:
                        self.of[(kind, e), o] = len(self.of)
        self.binaries = self.count = len(self.of)
        self.equal: list[tuple[dict[int, float], float]] = []
        for row in dict.fromkeys(row for row, _ in self.of):
            self.equal.append(({place: 1.0 for (of, _), place in self.of.items() if of == row}, 1.0))
        self.joint: dict[tuple[Row, ...], dict[tuple[int, ...], int]] = {}

    def linear(self, cost: ChainCost) -> tuple[dict[int, float], float]:
        """Its coefficients, and what is the same for all."""
        found: dict[int, float] = {}
        constant = 0.0
        for rows, table in cost.terms:
            if not rows:
                constant += table.item()
                continue
            for key, place in self._entries(rows).items():
                found[place] = found.get(place, 0.0) + table[key].item()
        return found, constant

    def _entries(self, rows: tuple[Row, ...]) -> Mapping[tuple[int, ...], int]:
        choices = [[o for of, o in self.of if of == row] for row in rows]
        if len(rows) == 1:
            return {(o,): self.of[rows[0], o] for o in choices[0]}
        if rows not in self.joint:
            keys = [tuple(key) for key in np.stack(np.meshgrid(*choices, indexing="ij"), -1).reshape(-1, len(rows)).tolist()]
            self.joint[rows] = {key: self.count + n for n, key in enumerate(keys)}
            self.count += len(keys)
            for n, row in enumerate(rows):
                for o in choices[n]:
                    marginal = {place: 1.0 for key, place in self.joint[rows].items() if key[n] == o}
                    self.equal.append((marginal | {self.of[row, o]: -1.0}, 0.0))
        return self.joint[rows]

    def other_than(self, genotype: Genotype, deciding: Container[Row] | None = None) -> tuple[dict[int, float], float]:
        """What every other architecture is at most. deciding: the decisions of which one is to be another; None for all."""
        chosen = [self.of[(kind, e), o] for kind, spec in self.space.cells.items() for e, o in spec.rows(genotype[kind])
                  if deciding is None or (kind, e) in deciding]
        return dict.fromkeys(chosen, 1.0), len(chosen) - 1.0

    def maximise(self, objective: Mapping[int, float], at_most: Sequence[tuple[Mapping[int, float], float]]
                 ) -> tuple[Genotype, float] | None:
        optimize, sparse = _scipy()

        def matrix(rows: Sequence[Mapping[int, float]], scales: Sequence[float]) -> object:
            entries = [(n, place, value / scale) for n, (row, scale) in enumerate(zip(rows, scales)) for place, value in row.items()]
            r, c, v = zip(*entries)
            return sparse.csr_array((v, (r, c)), shape=(len(rows), self.count))

        c = np.zeros(self.count)
        c[list(objective)] = [-value for value in objective.values()]
        equal, right = zip(*self.equal)
        constraints = [optimize.LinearConstraint(matrix(equal, [1.0] * len(equal)), right, right)]
        if at_most:  # costs of millions beside ones are brought to one size
            rows, bounds = zip(*at_most)
            scales = [max(map(abs, row.values()), default=1.0) or 1.0 for row in rows]
            constraints.append(optimize.LinearConstraint(matrix(rows, scales), -np.inf, [b / s for b, s in zip(bounds, scales)]))
        integral = np.zeros(self.count)
        integral[: self.binaries] = 1
        size = np.abs(c).max() or 1.0
        done = optimize.milp(c / size, constraints=constraints, integrality=integral, bounds=optimize.Bounds(0, 1),
                             options={"mip_rel_gap": 0.0})
        if done.status == 2:
            return None
        if done.status != 0:
            raise UsageError(f"the solver gave up: {' '.join(str(done.message).split())}")
        chosen = {row: o for (row, o), place in self.of.items() if done.x[place] > 0.5}
        cells = {kind: [Edge(d, s, spec.ops[chosen[kind, e]]) for e, (s, d) in enumerate(spec.edges)]
                 for kind, spec in self.space.cells.items()}
        return self.space.genotype(cells), -done.mip_dual_bound * size if math.isfinite(done.mip_dual_bound) else -done.fun * size


def _scipy() -> tuple[ModuleType, ModuleType]:
    try:
        from scipy import optimize, sparse
    except ImportError as error:
        raise UsageError(f'an exact optimum needs scipy ({error}): pip install "supernet[exact]"') from error
    return optimize, sparse
