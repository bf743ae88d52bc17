import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from supernet.errors import UsageError
from supernet.objectives import Objective
from supernet.searchers.base import Searcher
from supernet.searchers.loop import MAX_REFUSED, Budget
from supernet.searchers.random import Random
from supernet.searchers.regularised_evolution import RegularisedEvolution
from supernet.spaces import darts, nasbench201, toy
from supernet.trials import History, Proposal, Trial, best, source
from tests.trials import Additive, run, trials

NB, TOY = nasbench201.make(), toy.make()


class Stubborn(Searcher):
    """Always asks for the same."""

    def __init__(self, space):
        self.genotype = space.sample(source(0, 0))

    def ask(self, history, rng):
        return Proposal(self.genotype)


@pytest.mark.parametrize("budget, spent", [
    (Budget(trials=17), lambda found: len(found) == 17),
    (Budget(images=95), lambda found: sum(t.images for t in found) == 100),
    (Budget(simulated_s=30), lambda found: sum(t.simulated_s for t in found[:-1]) < 30 <= sum(t.simulated_s for t in found)),
    (Budget(trials=17, images=55), lambda found: len(found) == 6)])
def test_a_search_ends_with_the_trial_that_reaches_its_budget(budget, spent):
    assert spent(run(trials(Random(NB), NB, budget=budget)))


def test_a_budget_of_seconds_that_pass_ends_a_search():
    found = run(trials(Random(NB), NB, budget=Budget(wall_s=1e-9)))
    assert len(found) == 1


def test_a_search_ends_where_the_whole_space_was_met():
    found = run(trials(Random(TOY), TOY, budget=Budget(images=10**6)))
    assert len({t.genotype for t in found}) == TOY.count() == 27 and found[-1].repeats is None


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(UsageError, match="expected at least one of trials"):
        Budget()
    with pytest.raises(ValueError, match="trials must be at least 1, or null, got 0"):
        Budget(trials=0)


def test_a_repeat_reads_what_is_known_and_costs_a_trial_alone():
    for repeats, images in (("free", 10), ("paid", 60)):
        evaluator = Additive(TOY)
        found = run(trials(Stubborn(TOY), TOY, evaluator=evaluator, budget=Budget(trials=6), repeats=repeats))
        assert len(evaluator.calls) == 1 and len(found) == 6 and {t.scores for t in found} == {found[0].scores}
        assert [t.repeats for t in found] == [None, 0, 0, 0, 0, 0] and sum(t.images for t in found) == images


def test_after_many_repeats_in_a_row_one_is_drawn_at_random():
    found = run(trials(Stubborn(NB), NB, budget=Budget(trials=12), patience=3))
    assert [t.number for t in found if "after 3 repeats" in t.change] == [4, 8]
    assert len({t.genotype for t in found}) == 3


class ShutIn(Searcher):
    """Asks in turn for what it asked for first and for what no limit allows."""

    def __init__(self, space):
        self.turns = [space.sample(source(0, 0)), space.sample(source(0, 1))]

    def ask(self, history, rng):
        return Proposal(self.turns[history.number % 2])


@pytest.mark.parametrize("together", [False, True])
def test_a_search_between_what_is_known_and_what_is_refused_does_not_stand_still(together):
    shut = ShutIn(NB)
    costs = {"forbidden": lambda genotype: float(genotype == shut.turns[1])}

    def search():
        return trials(shut, NB, objective=Objective(at_most={"forbidden": 0}), costs=costs, budget=Budget(simulated_s=5), patience=3,
                      evaluate_all=(lambda batch: [(Additive(NB)(*one), 0.0) for one in batch]) if together else None)

    found = [trial._replace(wall_s=0.0) for trial in itertools.islice(search().run(History()), 100)]
    assert 5 <= sum(t.simulated_s for t in found) < 7, "what is known or refused costs nothing, and is no way on"
    assert [t.number for t in found if t.change == "random, after 3 repeats"] == [5, 9, 13][:len(found) // 4]
    assert all(run(search(), History(found[:k])) == found for k in range(len(found)))


def test_what_breaks_a_limit_on_a_cost_is_refused_before_anything_is_spent():
    evaluator = Additive(NB)
    costs = {"size": lambda genotype: evaluator(genotype).metrics["size"]}
    wanted = Objective(at_most={"size": 3.0})
    own = Additive(NB)
    found = run(trials(Random(NB), NB, objective=wanted, evaluator=own, costs=costs))
    refused = [t for t in found if t.refused is not None]
    assert len(found) - len(refused) == 60 and refused and all(t.metrics["size"] <= 3 for t in found if t.refused is None)
    assert len(own.calls) == len({t.genotype for t in found if t.refused is None}) and all(t.images == 0 for t in refused)
    assert refused[0].refused.endswith("is above 3") and not any(History(found).known(t.genotype) for t in refused)
    assert all(t.scores == (-math.inf,) for t in run(trials(Random(NB), NB, objective=wanted)) if t.metrics["size"] > 3), "known only later"


def test_limits_that_nothing_keeps_end_a_search_in_a_line():
    costs = {"size": lambda genotype: 5.0}
    with pytest.raises(UsageError, match=f"^{MAX_REFUSED} proposals in a row were refused.*size 5 is above 1"):
        run(trials(Random(NB), NB, objective=Objective(at_most={"size": 1}), costs=costs))


def test_an_objective_is_held_against_what_is_known_before_any_work():
    with pytest.raises(UsageError, match="no metric 'acuracy' here.*did you mean accuracy"):
        trials(Random(NB), NB, objective=Objective(maximise=["acuracy"]))
    with pytest.raises(UsageError, match="compares one score, and the objective has 2 .*pass objective.weights"):
        trials(RegularisedEvolution(NB), NB, objective=Objective(minimise=["size"]))
    trials(RegularisedEvolution(NB), NB, objective=Objective(minimise=["size"], weights={"accuracy": 1, "size": 0.5}))
    with pytest.raises(UsageError, match="each once"):
        Objective(maximise=["accuracy", "accuracy"])
    with pytest.raises(UsageError, match="must have a number for each of accuracy, size"):
        Objective(minimise=["size"], weights={"size": 1})


def test_scores_are_all_higher_is_better():
    metrics = {"accuracy": 90.0, "size": 3.0}
    front, summed = Objective(minimise=["size"]), Objective(minimise=["size"], weights={"accuracy": 1, "size": 10})
    assert front.scores(metrics) == (90.0, -3.0) and front.names == ("accuracy", "-size")
    assert summed.scores(metrics) == (60.0,) and summed.names == ("1 accuracy - 10 size",)
    assert front.scores({"accuracy": math.nan, "size": 1.0}) == (-math.inf, -1.0)


@pytest.mark.parametrize("searcher", [Random, lambda space: RegularisedEvolution(space, population=10, sample=3)])
@pytest.mark.parametrize("space", [TOY, NB, darts.make()], ids=["toy", "nasbench201", "darts"])
def test_a_search_gone_on_with_after_any_trial_is_the_unbroken_one(searcher, space):
    whole = run(trials(searcher(space), space, patience=5, seed=3))
    for k in range(0, 60, 7):
        assert run(trials(searcher(space), space, patience=5, seed=3), History(whole[:k])) == whole
    assert run(trials(searcher(space), space, patience=5, seed=4)) != whole


@pytest.mark.parametrize("searcher", [Random, lambda space: RegularisedEvolution(space, population=10, sample=3)])
@pytest.mark.parametrize("budget", [Budget(trials=60), Budget(simulated_s=60), Budget(images=155)])
def test_a_generation_evaluated_at_once_gives_what_one_after_the_other_gives(searcher, budget):
    with ThreadPoolExecutor(3) as pool:
        def at_once(batch):
            return [(found, 0.0) for found in pool.map(lambda one: Additive(TOY)(*one), batch)]

        assert run(trials(searcher(TOY), TOY, budget=budget, patience=4, evaluate_all=at_once)) == \
            run(trials(searcher(TOY), TOY, budget=budget, patience=4))


def test_the_best_is_the_first_of_the_longest_trainings_that_none_beats():
    def trial(number, score, fidelity=1.0, **more):
        return Trial(number, TOY.sample(source(0, number)), (score,), fidelity=fidelity, **more)

    found = [trial(0, 9.0, 0.5), trial(1, 2.0), trial(2, 3.0), trial(3, 3.0), trial(4, 8.0)._replace(scores=(), refused="size 5")]
    assert best(found).number == 2 and best(found[:1]).number == 0 and best([]) is None


def test_trials_are_plain_data():
    (found, *_) = run(trials(Random(NB), NB))
    told = json.loads(json.dumps(found.to_json()))
    assert told["number"] == 0 and told["genotype"] == found.genotype.to_json()["cells"] and "repeats" not in told


def test_trials_have_no_gaps():
    with pytest.raises(ValueError, match="expected 0, got 1"):
        History().append(Trial(1, TOY.sample(source(0, 0)), (1.0,)))
