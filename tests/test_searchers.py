import math
import random
import statistics
from concurrent.futures import ThreadPoolExecutor

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from supernet.app.build import build
from supernet.app.options import CONF
from supernet.errors import UsageError
from supernet.objectives import Objective
from supernet.relaxations.policy import RecurrentPolicy, genotype_of
from supernet.searchers.annealing import Annealing
from supernet.searchers.bayesian import Bayesian
from supernet.searchers.decisions import decisions
from supernet.searchers.fronts import crowding, front, ranks
from supernet.searchers.genetic import Genetic
from supernet.searchers.hybrid import Hybrid
from supernet.searchers.local_search import LocalSearch
from supernet.searchers.loop import Budget
from supernet.searchers.nsga2 import NSGA2
from supernet.searchers.random import Random
from supernet.searchers.regularised_evolution import RegularisedEvolution
from supernet.searchers.reinforce import Reinforce
from supernet.searchers.spos import SinglePathEvolution
from supernet.searchers.successive_halving import Hyperband, SuccessiveHalving
from supernet.spaces import darts, layerwise, nasbench201, nasbench_macro, toy
from supernet.trials import History, best
from tests.searches import configs
from tests.trials import Additive, run, trials

SPACES = {"toy": toy.make(), "nasbench201": nasbench201.make(), "darts": darts.make(), "macro": nasbench_macro.make(),
          "layerwise": layerwise.make()}
NB = SPACES["nasbench201"]
SEARCHERS = {
    "random": Random,
    "regularised_evolution": lambda space: RegularisedEvolution(space, population=8, sample=3),
    "genetic": lambda space: Genetic(space, population=8, best=0.3),
    "genetic, tournament, uniform": lambda space: Genetic(space, population=7, selection="tournament", crossover="uniform", elite=2),
    "genetic, roulette": lambda space: Genetic(space, population=8, selection="roulette", elite=0),
    "genetic, rank": lambda space: Genetic(space, population=8, selection="rank"),
    "annealing": lambda space: Annealing(space, start=0.5, end=0.01, steps=40),
    "local_search": LocalSearch,
    "local_search, first": lambda space: LocalSearch(space, first_improvement=True),
    "successive_halving": lambda space: SuccessiveHalving(space, factor=2, rungs=3),
    "hyperband": lambda space: Hyperband(space, factor=2, rungs=3),
    "nsga2": lambda space: NSGA2(space, population=8),
    "spos": lambda space: SinglePathEvolution(space, population=8, parents=3, mutations=4, crossovers=3),
    "reinforce": lambda space: Reinforce(space, lr=0.3, entropy=0.01, scale=1.0),
    "bayesian": lambda space: Bayesian(space, candidates=12, refit=4),
    "bayesian, thompson, in batches": lambda space: Bayesian(space, encoding="adjacency", acquisition="thompson", initial=6, candidates=9,
                                                             batch=4, refit=3, most=20),
    "bayesian, screening": lambda space: Bayesian(space, encoding="paths", initial=7, candidates=5, screen=lambda s: Genetic(
        s, population=8, selection="tournament")),
    "hybrid": lambda space: Hybrid(space, parts={"genetic": lambda s: Genetic(s, population=6), "local": LocalSearch},
                                   trials={"genetic": 18}),
    "hybrid, into a policy and a front": lambda space: Hybrid(
        space, parts={"evolution": lambda s: RegularisedEvolution(s, population=5, sample=2),
                      "reinforce": lambda s: Reinforce(s, scale=1.0), "nsga2": lambda s: NSGA2(s, population=9)},
        trials={"evolution": 13, "reinforce": 16}),
    "hybrid, into a model": lambda space: Hybrid(
        space, parts={"random": Random, "bayesian": lambda s: Bayesian(s, initial=8, candidates=6, batch=5, most=15)},
        trials={"random": 7}),
    "hybrid, into generations": lambda space: Hybrid(
        space, parts={"random": Random, "genetic": lambda s: Genetic(s, population=6), "halving": lambda s: SuccessiveHalving(s, factor=2)},
        trials={"random": 11, "genetic": 14}),
}
every_searcher = pytest.mark.parametrize("searcher", SEARCHERS.values(), ids=SEARCHERS)


@every_searcher
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_whoever_goes_on_after_any_trial_is_asked_for_the_same(searcher, space):
    whole = run(trials(searcher(space), space, patience=6, seed=1))
    for trial in whole:
        space.validate(trial.genotype)
        assert all(parent < trial.number for parent in trial.parents)
    for k in (1, 5, 6, 7, 8, 17, 18, 19, 31, 59):
        assert run(trials(searcher(space), space, patience=6, seed=1), History(whole[:k])) == whole


@every_searcher
def test_members_of_a_generation_are_asked_for_without_knowing_of_each_other(searcher):
    with ThreadPoolExecutor(3) as pool:
        def at_once(batch):
            sizes.append(len(batch))
            return [(found, 0.0) for found in pool.map(lambda one: Additive(NB)(*one), batch)]

        sizes: list[int] = []
        together = run(trials(searcher(NB), NB, evaluate_all=at_once, patience=6))
    assert together == run(trials(searcher(NB), NB, patience=6))
    ahead = searcher(NB)
    assert (max(sizes) > 1) == any(ahead.sees(n + 1) <= n for n in range(59)), "what can be evaluated together is"


@every_searcher
def test_what_was_refused_stops_no_searcher(searcher):
    evaluator = Additive(NB)
    costs = {"size": lambda genotype: evaluator(genotype).metrics["size"]}
    found = run(trials(searcher(NB), NB, objective=Objective(at_most={"size": 2.4}), costs=costs, seed=2))
    assert len([t for t in found if t.refused is None]) == 60 and any(t.refused for t in found)
    assert all(t.metrics["size"] <= 2.4 for t in found if t.refused is None)


LEARNING = {
    "regularised_evolution": lambda space: RegularisedEvolution(space, population=20, sample=10),
    "genetic": lambda space: Genetic(space, population=50, mutation_prob=0.05, elite=5),
    "annealing": lambda space: Annealing(space, start=0.3, end=0.005, steps=2000),
    "local_search": lambda space: LocalSearch(space, first_improvement=True),
    "reinforce": lambda space: Reinforce(space, lr=0.1, scale=1.0),
    "nsga2": lambda space: NSGA2(space, population=40, mutation_prob=0.05),
    "spos": lambda space: SinglePathEvolution(space, population=40, parents=10, mutations=20, crossovers=20, mutation_prob=0.05),
    "hybrid": lambda space: Hybrid(space, parts={"genetic": lambda s: Genetic(s, population=50), "local": LocalSearch},
                                   trials={"genetic": 300}),
}


@pytest.mark.equation("spos")
def test_spos_makes_new_children_of_the_best_of_all_so_far():
    searcher = SinglePathEvolution(NB, population=10, parents=3, mutations=5, crossovers=4)
    found = run(trials(searcher, NB))
    for start in range(10, 60, 10):
        each = {trial.genotype: trial for trial in reversed(found[:start])}  # the first of each
        top = sorted(each.values(), key=lambda trial: (-trial.scores[0], trial.number))[:3]
        mutants, children, others = found[start:start + 5], found[start + 5:start + 9], found[start + 9:start + 10]
        assert {parent for trial in (*mutants, *children) for parent in trial.parents} <= {trial.number for trial in top}
        assert all(len(trial.parents) == 1 for trial in mutants) and all(len(trial.parents) == 2 or trial.change == "random"
                                                                        for trial in children), "random where parents have nothing new"
        assert others[0].change == "random"
        met = {trial.genotype for trial in found[:start]}
        assert not met & {trial.genotype for trial in (*mutants, *children, *others)}


@pytest.fixture(scope="module")
def planted():
    """What counts in the darts space, and the best of it."""
    evaluator = Additive(SPACES["darts"], seed=5)
    return evaluator, max(_climbs(SPACES["darts"], evaluator), key=lambda genotype: evaluator(genotype).metrics["accuracy"])


@pytest.mark.parametrize("searcher", LEARNING.values(), ids=LEARNING)
def test_a_planted_optimum_of_the_darts_space_is_come_near_to_where_random_search_stays_far_below(searcher, planted):
    space, (evaluator, optimum) = SPACES["darts"], planted

    def found(make):
        return best(run(trials(make(space), space, evaluator=evaluator, budget=Budget(trials=1500)))).scores[0]

    top = evaluator(optimum).metrics["accuracy"]
    assert found(Random) < 0.9 * top < 0.975 * top < found(searcher)


def _climbs(space, evaluator):
    """Ends of steepest climbs from random starts: nodes are independent, so that the best of some is the optimum."""
    for seed in range(2):
        here = space.sample(random.Random(seed))
        while True:
            there = max(space.neighbours(here), key=lambda genotype: evaluator(genotype).metrics["accuracy"])
            if evaluator(there).metrics["accuracy"] <= evaluator(here).metrics["accuracy"]:
                break
            here = there
        yield here


def test_a_population_dies_of_age():
    searcher = RegularisedEvolution(NB, population=5, sample=50)
    found = run(trials(searcher, NB, budget=Budget(trials=40)))
    for trial in found[5:]:
        (parent,) = trial.parents
        assert trial.number - 5 <= parent < trial.number
        living = found[trial.number - 5:trial.number]
        assert found[parent].scores == max(t.scores for t in living), "fifty draws of five find the best"


def test_generations_have_parents_of_the_one_before_and_of_the_elite():
    found = run(trials(Genetic(NB, population=10, elite=2), NB, budget=Budget(trials=50)))
    for trial in found[10:]:
        start = trial.number // 10 * 10
        elite = {t.number for t in sorted(found[:start - 10], key=lambda t: (-t.scores[0], t.number))[:2]}
        assert set(trial.parents) <= elite | set(range(start - 10, start)) and trial.parents
    assert {t.change for t in found} <= {"random", "one-point crossover", "mutation", "one-point crossover, mutation", "copy"}
    later = statistics.mean(t.scores[0] for t in found[40:])
    assert later > statistics.mean(t.scores[0] for t in found[:10])


def test_each_selection_draws_as_it_says():
    from supernet.searchers.genetic import by_rank, roulette, truncated, won

    ordered = sorted(run(trials(Random(NB), NB, budget=Budget(trials=4), seed=7)), key=lambda t: -t.scores[0])
    rng, n = random.Random(0), 8000
    scores = [t.scores[0] - ordered[-1].scores[0] for t in ordered]
    expected = {truncated: [0.5, 0.5, 0, 0], won: [1 - 0.75**2, 0.75**2 - 0.5**2, 0.5**2 - 0.25**2, 0.25**2],
                roulette: [s / sum(scores) for s in scores], by_rank: [0.4, 0.3, 0.2, 0.1]}
    more = {truncated: (0.5,), won: (2,), roulette: (), by_rank: ()}
    for draw, shares in expected.items():
        drawn = [ordered.index(draw(ordered, rng, *more[draw])) for _ in range(n)]
        assert [drawn.count(place) / n for place in range(4)] == pytest.approx(shares, abs=0.025)


def test_annealing_stays_or_goes_as_metropolis_says():
    cold, hot = (run(trials(Annealing(NB, start=t, end=t), NB, budget=Budget(trials=200))) for t in (1e-9, 1e9))
    for found, goes in ((cold, lambda old, new: new.scores >= old.scores), (hot, lambda old, new: True)):
        for trial, before in zip(found[2:], found[1:]):
            here = found[before.parents[0]]
            assert trial.parents == ((before if goes(here, before) else here).number,)
    assert Annealing(NB, start=2, end=0.5, steps=10).temperature(5) == pytest.approx(1) and cold[-1].change == "mutation"


def test_local_search_ends_in_optima():
    found = run(trials(LocalSearch(NB), NB, budget=Budget(trials=150)))
    starts = [t.number for t in found if t.change == "start"]
    assert len(starts) > 1
    history = History(found[:starts[1]])
    top = best(history)
    assert all(history.known(other).scores <= top.scores for other in NB.neighbours(top.genotype)), "no neighbour is better"
    assert not [t for t in found if t.repeats is not None]


def test_halving_trains_the_best_longer():
    found = run(trials(SuccessiveHalving(NB, factor=3, rungs=3), NB, budget=Budget(trials=26)))
    assert [t.fidelity for t in found[:14]] == [pytest.approx(1 / 9)] * 9 + [pytest.approx(1 / 3)] * 3 + [1.0] + [pytest.approx(1 / 9)]
    order = sorted(found[:9], key=lambda t: -t.scores[0])
    assert [t.genotype for t in found[9:12]] == [t.genotype for t in order[:3]]
    assert [t.parents for t in found[9:12]] == [(t.number,) for t in order[:3]]
    assert Hyperband(NB, factor=3, rungs=5).brackets() == [[81, 27, 9, 3, 1], [34, 11, 3, 1], [15, 5, 1], [8, 2], [5]]
    assert Hyperband(NB, factor=3, rungs=11).brackets()[2][0] == 8019, "11 / 9 * 3^8, and no more since a float is rounded up"


def test_parts_of_a_hybrid_must_have_their_trials():
    for given in ({}, {"b": 5}, {"a": 5, "b": 5}):
        with pytest.raises(UsageError, match="a number for each of searcher.parts but the last"):
            Hybrid(NB, parts={"a": Random, "b": LocalSearch}, trials=given)
    found = run(trials(SEARCHERS["hybrid"](NB), NB))
    handed = best(History(found[:18]))
    assert found[18].parents == (handed.number,), "local search begins at the best of what it is handed"


def test_ranks_and_crowding_are_what_their_definitions_say():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (40, 3)).astype(float)
    left, rank, slow = set(range(40)), 0, {}
    while left:  # peel off what none of those left dominates
        peeled = {i for i in left if not any((points[j] >= points[i]).all() and (points[j] > points[i]).any() for j in left)}
        slow |= dict.fromkeys(peeled, rank)
        left, rank = left - peeled, rank + 1
    assert ranks(points).tolist() == [slow[i] for i in range(40)] and (front(points) == (ranks(points) == 0)).all()
    line = np.array([[0.0, 10], [1, 8], [3, 7], [10, 0]])
    assert crowding(line).tolist() == [math.inf, 0.3 + 0.3, 0.9 + 0.8, math.inf]
    assert crowding(np.full((3, 2), -math.inf)).tolist() == [math.inf, 0, math.inf], "trainings that all went astray"


def test_nsga2_comes_nearer_to_the_front_than_random_search():
    wanted = Objective(minimise=["size"])
    evaluator = Additive(NB, seed=2)

    def area(searcher, seed):
        """Of what is dominated, above accuracy 0 and below size 6."""
        found = np.array([t.scores for t in run(trials(searcher, NB, objective=wanted, evaluator=evaluator, seed=seed,
                                                       budget=Budget(trials=200)))])
        kept, total, height = found[front(found)], 0.0, 0.0
        for accuracy, size in sorted(kept.tolist(), key=lambda point: -point[1]):
            total, height = total + (size + 6) * max(0.0, accuracy - height), max(height, accuracy)
        return total

    ours = [area(NSGA2(NB, population=20), seed) for seed in range(4)]
    assert statistics.mean(ours) > max(area(Random(NB), seed) for seed in range(4))


def test_parents_of_a_front_are_the_best_of_all_before():
    found = run(trials(NSGA2(NB, population=10), NB, objective=Objective(minimise=["size"]), budget=Budget(trials=40)))
    alive = [t for t in found[:30]]
    points = np.array([t.scores for t in alive])
    best_of_all = {alive[i].genotype for i in np.flatnonzero(ranks(points) == 0)}
    parents = {found[p].genotype for t in found[30:] for p in t.parents}
    assert parents and (len(best_of_all) > 10 or parents & best_of_all)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_policy_knows_by_which_decisions_it_came_to_an_architecture(space):
    """The probabilities of all architectures of a small space sum to 1; elsewhere those of the decisions are allowed ones."""
    rng, searcher = random.Random(0), Reinforce(space, lr=0.5, scale=1.0)
    run(trials(searcher, space, budget=Budget(trials=20)))
    searcher._learn_from(History(run(trials(searcher, space, budget=Budget(trials=20)))))
    policy = searcher._policy

    def probability(genotype):
        return math.prod(policy.probabilities(d.key, d.size, d.allowed)[d.allowed.index(d.taken)] for d in decisions(space, genotype))

    if space.count() < 20_000:
        assert sum(map(probability, space.enumerate())) == pytest.approx(1)
    assert 0 < probability(space.sample(rng)) < 1


def test_the_gradient_of_a_policy_is_that_of_its_log_probability_and_entropy():
    searcher, rng = Reinforce(SPACES["darts"]), random.Random(1)
    policy = searcher._policy
    for decision in decisions(SPACES["darts"], SPACES["darts"].sample(rng)):
        policy.logits[decision.key] = np.array([rng.gauss(0, 1) for _ in range(decision.size)])

        def value(row, decision=decision):
            row = row[list(decision.allowed)]
            log_p = row - np.log(np.exp(row).sum())
            return 0.7 * log_p[decision.allowed.index(decision.taken)] - 0.3 * (np.exp(log_p) * log_p).sum()

        row, h = policy.logits[decision.key], 1e-6
        slow = [(value(row + h * unit) - value(row - h * unit)) / (2 * h) for unit in np.eye(decision.size)]
        assert policy.gradient(decision, 0.7, 0.3) == pytest.approx(slow, abs=1e-8)


@pytest.mark.parametrize("space", [toy.make(), darts.make(nodes=2, ops=["none", "skip_connect", "max_pool_3x3"]),
                                   nasbench_macro.make()], ids=["toy", "darts", "macro"])
def test_the_recurrent_policys_probabilities_of_all_architectures_sum_to_1(space):
    policy = RecurrentPolicy(space, hidden=8, tanh_constant=5.0)
    for p in policy.controller.parameters():
        p.data.mul_(8)  # so that architectures differ in their probability
    genotypes = list(space.enumerate()) if space.count() < 1000 else [space.sample(random.Random(n)) for n in range(3)]
    with torch.no_grad():
        found = [policy.controller.in_order(None, genotype) for genotype in genotypes]
    assert [genotype_of(space, weights) for weights in found] == genotypes
    if space.count() < 1000:
        p = torch.stack([weights.log_prob for weights in found]).exp()
        assert p.sum().item() == pytest.approx(1) and p.max() > 1.5 * p.min()
    for n in range(5):
        drawn = policy.controller.in_order(torch.Generator().manual_seed(n))
        assert policy.controller.in_order(None, genotype_of(space, drawn)).log_prob == drawn.log_prob


def test_the_recurrent_policy_learns_to_draw_what_scores_well():
    def make():
        return Reinforce(space, lr=0.05, scale=1.0, policy=lambda s: RecurrentPolicy(s, hidden=8, tanh_constant=5.0, op_tanh_reduce=1.0))

    space, evaluator = NB, Additive(NB, seed=3)
    found = run(trials(make(), space, evaluator=evaluator, budget=Budget(trials=150), repeats="paid"))
    for k in (1, 9):
        assert run(trials(make(), space, evaluator=evaluator, budget=Budget(trials=20), repeats="paid"), History(found[:k])) == found[:20]
    early, late = ([trial.scores[0] for trial in part] for part in (found[:50], found[-50:]))
    assert np.mean(late) > np.mean(early) + 2 * np.std(early) / 50**0.5


def test_the_recurrent_policy_refuses_nodes_whose_number_of_edges_varies():
    with pytest.raises(UsageError, match="a fixed number of edges"):
        RecurrentPolicy(darts.make(edges_per_node=[0, 2]))


def test_a_policy_refuses_cells_whose_edges_hold_several_ops():
    with pytest.raises(UsageError, match="decides about one op of each edge"):
        Reinforce(darts.make(ops_per_edge=2))


@pytest.mark.parametrize("choice", sorted(path.stem for path in (CONF / "searcher").glob("*.yaml")))
def test_every_config_makes_its_searcher_which_finds_something(choice):
    if choice == "tpe":
        pytest.importorskip("optuna")
    with configs():
        node = hydra.compose(f"searcher/{choice}").searcher
        found = run(trials(build(OmegaConf.create({"searcher": node}).searcher)(NB), NB, budget=Budget(trials=20)))
    assert len(found) == 20
