"""The exact solver against enumeration."""

import random
import sys

import numpy as np
import pytest
import torch

from supernet.costs.chain import ChainCost, Term, chain_costs
from supernet.costs.exact import additive_score, optimum
from supernet.errors import UsageError
from supernet.spaces import accel_mnasnet, layerwise, ofa_mobilenet

TINY = layerwise.make(stages=[[1, 1], [2, 1]], kernels=[3, 5], expansions=[1, 2], widths=[50, 100], activations=["relu"], dropouts=[0])
SIZES = {"layers": 2, "channels": 8, "num_classes": 7, "image_size": (9, 14)}


def random_score(space, seed, joint=False):
    """A number for each choice; with `joint` also one for each pair of neighbours' widths."""
    generator = torch.Generator().manual_seed(seed)
    terms = [Term(((kind, e),), torch.randn(len(spec.ops), generator=generator, dtype=torch.float64))
             for kind, spec in space.cells.items() for e in range(len(spec.edges))]
    if joint:
        n = len(space.cells["width"].ops)
        terms.append(Term((("width", 0), ("width", 1)), torch.randn(n, n, generator=generator, dtype=torch.float64)))
    return ChainCost(space, [Term((), torch.tensor(3.0, dtype=torch.float64)), *terms], "score")


def needs_scipy():
    pytest.importorskip("scipy", reason="needs the extra exact")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("joint", [False, True])
def test_the_optimum_within_limits_is_that_of_enumeration(seed, joint):
    """Costs multiply neighbouring widths."""
    needs_scipy()
    score, costs = random_score(TINY, seed, joint), chain_costs(TINY, **SIZES)
    every = list(TINY.enumerate())
    rng = random.Random(seed)
    limits = {name: (cost, sorted(map(cost, every))[rng.randrange(len(every) // 3, len(every))]) for name, cost in costs.items()}
    within = [g for g in every if all(cost(g) <= limit for cost, limit in limits.values())]
    found = optimum(TINY, score, limits)
    best = max(map(score, within))
    assert found.genotype in set(within)
    assert found.value == score(found.genotype) == pytest.approx(best, abs=1e-9) and found.bound == pytest.approx(best, abs=1e-6)


def test_a_limit_is_kept_to_the_last_digit():
    """The solver's own tolerance is a millionth."""
    needs_scipy()
    score = random_score(TINY, 2)
    fine = ChainCost(TINY, [Term(rows, table * 1e-9 + 1.0 / 12) for rows, table in score.terms if rows], "fine")
    best = optimum(TINY, score).genotype
    limit = float(np.nextafter(fine(best), 0))
    found = optimum(TINY, score, {"fine": (fine, limit)})
    assert fine(found.genotype) <= limit and found.value == max(score(g) for g in TINY.enumerate() if fine(g) <= limit)


def test_a_limit_that_nothing_meets_is_said_with_the_least():
    needs_scipy()
    costs = chain_costs(TINY, **SIZES)
    least = min(map(costs["parameters"], TINY.enumerate()))
    with pytest.raises(UsageError, match=f"parameters {least:,.6g} \\(limit 5\\)"):
        optimum(TINY, random_score(TINY, 0), {"parameters": (costs["parameters"], 5.0)})


def test_a_space_of_1e11_is_solved_and_nothing_near_is_better():
    needs_scipy()
    space = accel_mnasnet.make()
    cost = chain_costs(space, layers=7, channels=32, num_classes=10)["multiply_adds"]
    score, limit = random_score(space, 0), cost(space.sample(random.Random(3)))
    found = optimum(space, score, {"multiply_adds": (cost, limit)})
    assert cost(found.genotype) <= limit and found.bound == pytest.approx(found.value, abs=1e-6)
    assert all(score(g) <= found.value + 1e-9 for g in space.neighbours(found.genotype) if cost(g) <= limit)
    rng = random.Random(0)
    assert all(score(g) <= found.value for g in (space.sample(rng) for _ in range(300)) if cost(g) <= limit)


def test_an_additive_score_gives_back_what_is_additive():
    space = ofa_mobilenet.make(kernels=(3, 5), expansions=(2, 3), depths=(1, 2))
    truth, rng = random_score(space, 1), random.Random(0)
    drawn = [space.sample(rng) for _ in range(200)]
    fitted = additive_score(space, drawn[:150], [truth(g) for g in drawn[:150]], ridge=1e-6)
    assert np.allclose([fitted(g) for g in drawn[150:]], [truth(g) for g in drawn[150:]], atol=1e-4)
    with pytest.raises(ValueError, match="at least one"):
        additive_score(space, [], [])


def test_without_scipy_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UsageError, match="supernet\\[exact\\]"):
        optimum(TINY, random_score(TINY, 0))
