import random
import statistics

import pytest

from supernet.errors import UsageError
from supernet.objectives import Objective
from supernet.searchers.hybrid import Hybrid
from supernet.searchers.loop import Budget
from supernet.searchers.random import Random
from supernet.searchers.regularised_evolution import RegularisedEvolution
from supernet.searchers.tpe import TPE
from supernet.spaces import darts, nasbench201, nasbench_macro, toy
from supernet.trials import History, best
from tests.trials import Additive, run, trials

NB = nasbench201.make()
SPACES = {"toy": toy.make(), "nasbench201": NB, "darts": darts.make(), "macro": nasbench_macro.make()}


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="Optuna is not installed (extra `search`)")


def test_without_optuna_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UsageError, match=r"searcher=tpe needs Optuna .*pip install \"supernet\[search\]\""):
        TPE(NB)


def test_cells_whose_edges_hold_several_ops_are_refused():
    with pytest.raises(UsageError, match="searcher=tpe decides about one op of each edge"):
        TPE(darts.make(ops_per_edge=2))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_whoever_goes_on_after_any_trial_is_asked_for_the_same(space, optuna):
    whole = run(trials(TPE(space, initial=5), space, seed=1, budget=Budget(trials=14)))
    for trial in whole:
        space.validate(trial.genotype)
    for k in (1, 4, 5, 6, 13):
        assert run(trials(TPE(space, initial=5), space, seed=1, budget=Budget(trials=14)), History(whole[:k])) == whole


def test_it_asks_as_a_study_does_that_is_told_each_value(optuna):
    """Optuna's own loop on the same parameters, with a new sampler of each trial's seed."""
    found = run(trials(TPE(NB), NB, seed=3, budget=Budget(trials=30)))
    evaluator = Additive(NB)
    study = optuna.create_study(direction="maximize")
    for trial in found:
        study.sampler = optuna.samplers.TPESampler(seed=random.Random(f"3/{trial.number}/").getrandbits(32))
        asked = study.ask()
        ops = NB.cells["cell"].ops
        taken = [ops[asked.suggest_categorical(f"cell/{e}/op/0,1,2,3,4", (0, 1, 2, 3, 4))] for e in range(6)]
        genotype = NB.genotype({"cell": [edge._replace(op=op) for edge, op in zip(found[0].genotype["cell"], taken)]})
        assert genotype == trial.genotype
        study.tell(asked, evaluator(genotype).metrics["accuracy"])


def test_it_finds_more_than_random_search_and_says_nothing(optuna, capfd):
    def found(searcher, seed):
        return best(run(trials(searcher, NB, evaluator=Additive(NB, seed), seed=seed, budget=Budget(trials=50)))).scores[0]

    before = optuna.logging.get_verbosity()
    ours = [found(TPE(NB), seed) for seed in range(3)]
    assert statistics.mean(ours) > statistics.mean(found(Random(NB), seed) for seed in range(3))
    assert capfd.readouterr() == ("", "") and optuna.logging.get_verbosity() == before


def test_it_knows_several_scores_refusals_and_what_is_handed_on(optuna):
    evaluator = Additive(NB)
    costs = {"size": lambda genotype: evaluator(genotype).metrics["size"]}
    wanted = Objective(minimise=["size"], at_most={"size": 2.4})
    many = run(trials(TPE(NB, initial=5), NB, objective=wanted, costs=costs, budget=Budget(trials=12)))
    refused = [trial.genotype for trial in many if trial.refused is not None]
    assert refused and len(many) - len(refused) == 12
    models = [trial.genotype for trial in many if trial.refused is not None and trial.change == "tpe"]
    assert len(set(models)) == len(models), "what was refused is not asked for again"
    handed = lambda: Hybrid(NB, parts={"evolution": lambda s: RegularisedEvolution(s, population=5, sample=2), "tpe": TPE},  # noqa: E731
                            trials={"evolution": 15})
    whole = run(trials(handed(), NB, budget=Budget(trials=30)))
    assert run(trials(handed(), NB, budget=Budget(trials=30)), History(whole[:20])) == whole
