"""What the page of a search by trials is made from, against slow and obvious versions."""

import itertools
import math
import random
import statistics
from collections import Counter

import numpy as np
import pytest

from supernet.costs.additive import counted
from supernet.costs.base import FINAL
from supernet.genotype import Edge, Genotype
from supernet.networks.measure import multiply_adds
from supernet.objectives import Objective
from supernet.report.progress import (
    ancestry,
    anytime,
    comparable,
    distance,
    diversity,
    fitness,
    forebears,
    front_of,
    grouped,
    mean_distance,
    not_evaluated,
    staircase,
)
from supernet.searchers.fronts import dominated_by, front
from supernet.searchers.genetic import Genetic
from supernet.searchers.hybrid import Hybrid
from supernet.searchers.local_search import LocalSearch
from supernet.searchers.loop import Budget
from supernet.searchers.nsga2 import NSGA2
from supernet.searchers.random import Random
from supernet.searchers.regularised_evolution import RegularisedEvolution
from supernet.spaces import darts, nasbench201, toy
from supernet.trials import Trial, best, source
from tests.trials import Additive, run, trials

NB, TOY, DARTS = nasbench201.make(), toy.make(), darts.make()


def planted(number, score, **more) -> Trial:
    return Trial(number, NB.sample(source(0, number)), () if "refused" in more else (score,), **more)


def varied(n: int = 80) -> list[Trial]:
    """Trials of all kinds: of two lengths, refused, repeated, with scores that are not finite, and of costs that are not whole."""
    rng, found = random.Random(7), []
    for number in range(n):
        more = {"images": rng.randrange(50), "wall_s": rng.random(), "simulated_s": 10 * rng.random(), "fidelity": rng.choice((0.5, 1.0))}
        if rng.random() < 0.2:
            found.append(planted(number, 0.0, refused=f"size {rng.random():.3g} is above 0.5"))
        else:
            found.append(planted(number, rng.choice((-math.inf, *[rng.random() for _ in range(9)])), **more))
    return found


# ---- generations


@pytest.mark.parametrize("made, count, bounds, words", [
    (lambda: Genetic(NB, population=12), 60, [0, 12, 24, 36, 48, 60], "generations of 12"),
    (lambda: Genetic(NB, population=12), 61, [0, 12, 24, 36, 48, 60, 61], "generations of 12"),
    (lambda: Random(NB), 60, list(range(0, 61, 10)), "windows of 10 trials"),
    (lambda: Random(NB), 500, list(range(0, 501, 25)), "windows of 25 trials"),
    (lambda: LocalSearch(NB), 40, [0, 10, 20, 30, 40], "windows of 10 trials"),
    (lambda: RegularisedEvolution(NB, population=15, sample=3), 50, [0, 15, 30, 45, 50], "windows of 15 trials"),
    (lambda: Hybrid(NB, parts={"a": lambda s: Genetic(s, population=8), "b": LocalSearch}, trials={"a": 24}), 40, [0, 8, 16, 24, 32, 40],
     "generations, then windows of 8 trials")])
def test_generations_are_those_of_the_searcher_and_else_windows(made, count, bounds, words):
    found = run(trials(made(), NB, budget=Budget(trials=count)))
    assert grouped(found) == ([range(a, b) for a, b in itertools.pairwise(bounds)], words)


@pytest.mark.parametrize("n", [0, 1, 2, 9, 33])
def test_every_trial_is_of_one_group_however_few_there_are(n):
    found = run(trials(Genetic(NB, population=5), NB, budget=Budget(trials=33)))[:n]
    assert [number for group in grouped(found).groups for number in group] == list(range(n))


def test_fitness_is_that_of_the_finite_scores_of_a_group():
    some = varied()
    groups = [range(0, 30), range(30, 79), range(79, 80)]
    for group, seen in zip(groups, fitness(some, groups), strict=True):
        values = [some[n].scores[0] for n in group if some[n].scores and some[n].scores[0] > -math.inf]
        assert seen.best == (max(values) if values else None)
        assert seen.mean == (pytest.approx(np.mean(values)) if values else None)
        assert seen.deviation == (pytest.approx(np.std(values, ddof=1)) if len(values) > 1 else None)
    lost = [planted(0, -math.inf), planted(1, 0.0, refused="size 5 is above 3")]
    assert fitness(lost, [range(2)]) == [(None, None, None)]


# ---- the best so far


@pytest.mark.parametrize("axis", ["trials", "images", "wall_s", "simulated_s"])
def test_the_best_so_far_is_what_a_search_that_stopped_there_would_choose(axis):
    some = varied()
    found = anytime(some)
    spent = [math.fsum((t.refused is None) if axis == "trials" else getattr(t, axis) for t in some[: n + 1]) for n in range(len(some))]
    for n in range(len(some)):
        kept = [t for t in some[: n + 1] if t.scores and math.isfinite(t.scores[0])]
        place = sum(x <= spent[n] + 1e-9 for x in found.spent[axis])
        assert (found.best[place - 1] if place else None) == (best(kept).scores[0] if kept else None)
    assert found.spent[axis][-1] == pytest.approx(spent[-1])


def test_a_budget_of_which_nothing_was_spent_has_no_curve():
    some = [planted(n, float(n)) for n in range(5)]
    assert anytime(some) == ({"trials": [1, 2, 3, 4, 5]}, [0, 1, 2, 3, 4])
    assert anytime([]) == anytime([planted(0, 0.0, refused="x")]) == ({}, [])


# ---- diversity


def doubled(rng: random.Random) -> Genotype:
    """Of a space whose architectures may have an edge twice, and differ in size."""
    edges = [Edge(1 + rng.randrange(2), 0, rng.choice("ab")) for _ in range(rng.randrange(1, 6))]
    return Genotype("x", "f", (("cell", tuple(sorted(edges))),))


@pytest.mark.parametrize("draw", [NB.sample, DARTS.sample, doubled], ids=["nasbench201", "darts", "parallel edges"])
@pytest.mark.parametrize("n", [2, 3, 40])
def test_the_mean_distance_is_that_over_all_pairs(draw, n):
    some = [draw(random.Random(i % 30)) for i in range(n)]
    slow = statistics.fmean(distance(a, b) for a, b in itertools.combinations(some, 2))
    assert mean_distance(some) == pytest.approx(slow, abs=1e-12)


def test_a_distance_counts_the_edges_that_differ():
    base = NB.sample(random.Random(0))
    for other in NB.neighbours(base):
        assert distance(base, other) == distance(other, base) == 1
    for i in range(20):
        a, b = NB.sample(random.Random(i)), NB.sample(random.Random(i + 1))
        assert distance(a, b) == sum(x != y for x, y in zip(a["cell"], b["cell"], strict=True))
    assert distance(base, base) == 0 and mean_distance([base]) is None


def test_new_architectures_are_those_that_no_trial_before_had():
    some = run(trials(Genetic(TOY, population=6), TOY, budget=Budget(trials=30)))
    groups = grouped(some).groups
    for group, seen in zip(groups, diversity(some, groups), strict=True):
        assert seen.new == sum(all(t.genotype != some[n].genotype for t in some[:n]) for n in group) / len(group)


# ---- what was not evaluated


def test_repeats_and_refusals_are_counted_by_reason():
    costs = {"size": lambda genotype: Additive(TOY)(genotype).metrics["size"]}
    some = run(trials(Random(TOY), TOY, objective=Objective(at_most={"size": 2.0}), costs=costs, budget=Budget(trials=40)))
    refused = sum(t.refused is not None for t in some)
    assert refused and len({t.refused for t in some}) >= 2, "the values differ, the reason does not"
    assert dict(not_evaluated(some)) == {"repeats of an architecture that was evaluated before": sum(t.repeats is not None for t in some),
                                         "refused: size above 2": refused}
    (row,) = not_evaluated([planted(0, math.nan), planted(1, 1.0)])
    assert row[0].startswith("evaluated, and not a finite score") and row[1] == 1 and not_evaluated([planted(0, 1.0)]) == []


# ---- how the best came about


def test_the_way_to_the_best_goes_over_the_better_parent_and_leaves_copies_out():
    a, b = NB.sample(random.Random(1)), NB.sample(random.Random(2))
    c, d = NB.mutate(a, random.Random(3)), NB.crossover(a, b, random.Random(4))
    some = [Trial(0, a, (1.0,), change="random"), Trial(1, b, (3.0,), change="random"),
            Trial(2, c, (2.0,), parents=(0,), change="mutation"), Trial(3, c, (2.0,), parents=(2,), change="copy", repeats=2),
            Trial(4, b, (), refused="size", parents=(1,)), Trial(5, d, (5.5,), parents=(3, 0), change="crossover")]
    steps = ancestry(some, some[5])
    assert [(s.trial.number, s.before and s.before.number, s.others, s.gain) for s in steps] == [
        (0, None, (), None), (2, 0, (), 1.0), (5, 2, (0,), 3.5)]
    assert forebears(some, some[5]) == {0, 2, 3} and forebears(some, some[0]) == set()
    longer = Trial(6, d, (4.0,), parents=(5,), change="promoted")
    shorter = some[:5] + [some[5]._replace(fidelity=0.3)]
    assert [(s.trial.number, s.gain) for s in ancestry([*shorter, longer], longer)][-1] == (6, None), "of trainings of different length"


def test_of_a_search_every_step_leads_from_a_parent_and_gains_add_up():
    some = run(trials(Genetic(NB, population=10), NB, budget=Budget(trials=150)))
    top = best(some)
    steps = ancestry(some, top)
    assert steps[-1].trial.genotype == top.genotype and steps[0].before is None and len(steps) > 2
    assert steps[0].trial.scores[0] + sum(step.gain for step in steps[1:]) == pytest.approx(top.scores[0])
    assert {step.trial.number for step in steps} <= forebears(some, top) | {top.number}
    assert all(a.trial is b.before and a.trial.genotype != b.trial.genotype for a, b in itertools.pairwise(steps))


# ---- fronts


@pytest.mark.parametrize("n, scores, levels", [(0, 2, 5), (1, 2, 5), (60, 1, 9), (120, 2, 6), (150, 3, 5), (80, 3, 100)])
def test_the_front_is_what_no_point_dominates(n, scores, levels):
    points = np.random.default_rng(n).integers(0, levels, (n, scores)).astype(float)
    points[points == 0] = -math.inf
    assert front(points).tolist() == (~dominated_by(points).any(1)).tolist()


def test_a_front_has_each_architecture_once_and_only_the_longest_trainings():
    some = run(trials(NSGA2(NB, population=10), NB, objective=Objective(minimise=["size"]), budget=Budget(trials=120)))
    some[5] = some[5]._replace(fidelity=0.5, scores=(1e9, 1e9))
    some[6] = some[6]._replace(scores=(-math.inf, -math.inf))
    known = comparable(some)
    assert len({t.genotype for t in known}) == len(known) and not {5, 6} & {t.number for t in known}
    members = front_of(known)
    assert [t.scores[0] for t in members] == sorted((t.scores[0] for t in members), reverse=True)
    for trial in known:
        beaten = any(all(a >= b for a, b in zip(o.scores, trial.scores)) and o.scores != trial.scores for o in known)
        assert beaten != (trial in members)
    assert front_of([]) == []


def test_the_border_of_a_front_is_that_of_what_it_dominates():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 20, (60, 2)).astype(float)
    points = points[front(points)]
    corners = staircase([tuple(point) for point in points])
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        assert (x0 == x1 and y1 < y0) or (y0 == y1 and x1 > x0), "along one axis, to the right and down"
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        assert (points >= middle).all(1).any() and not (points >= middle + 1e-6).all(1).any()
    assert set(map(tuple, points)) <= set(corners) and staircase([]) == []


# ---- hard limits


@pytest.mark.parametrize("searcher", [lambda: Random(NB), lambda: Genetic(NB, population=10), lambda: NSGA2(NB, population=10),
                                      lambda: LocalSearch(NB)], ids=["random", "genetic", "nsga2", "local_search"])
def test_every_evaluated_trial_keeps_a_hard_limit_on_the_multiply_adds_of_its_network(searcher):
    sizes = {"channels": 4, "layers": 3}
    shape = {"num_classes": 10, "in_channels": 3, "image_size": (8, 8)}
    cost = counted(NB, "multiply_adds", **sizes, **shape)
    limit = float(np.median([cost(NB.sample(random.Random(i))) for i in range(50)]))
    some = run(trials(searcher(), NB, objective=Objective(at_most={"multiply_adds": limit}), costs={"multiply_adds": cost}, budget=Budget(
        trials=40)))
    kept = {t.genotype for t in some if t.refused is None}
    broken = {t.genotype for t in some if t.refused is not None}
    assert kept and broken

    def built(genotype):
        return multiply_adds(NB.network(NB.candidates(genotype), **sizes, num_classes=10, in_channels=3, norm=FINAL), (3, 8, 8))

    assert all(built(genotype) <= limit for genotype in kept) and all(built(genotype) > limit for genotype in broken)
    assert all(t.images == t.simulated_s == t.wall_s == 0 for t in some if t.refused is not None)
    assert Counter(t.refused is None for t in some)[True] == 40
