import itertools
import math
import random
import statistics

import numpy as np
import pytest

from supernet.errors import UsageError
from supernet.genotype import Edge
from supernet.searchers.bayesian import Bayesian, distinct, telling
from supernet.searchers.encodings import ENCODINGS, Numbered, adjacency, differences, most_paths, paths
from supernet.searchers.gaussian_process import LENGTHS, NOISES, Kernel, expected_improvement, fit, normal_scores, predict
from supernet.searchers.genetic import Genetic
from supernet.searchers.loop import Budget
from supernet.searchers.random import Random
from supernet.searchers.successive_halving import SuccessiveHalving
from supernet.space import CellSpec, Space
from supernet.spaces import darts, layerwise, nasbench201, nasbench_macro, toy
from supernet.trials import History, Trial, best
from tests.trials import Additive, run, trials

NB = nasbench201.make()
SPACES = {"toy": toy.make(), "nasbench201": NB, "darts": darts.make(), "macro": nasbench_macro.make(), "layerwise": layerwise.make()}


# ---- encodings


def test_adjacency_tells_every_architecture_of_a_space_apart():
    encode = adjacency(NB)
    assert len({encode(genotype) for genotype in NB.enumerate()}) == NB.count() == 15_625


def test_a_cell_is_encoded_by_its_ways_and_none_breaks_one():
    cell = NB.parse("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|avg_pool_3x3~2|")
    assert paths(NB)(cell) == {("cell", 0, ("nor_conv_3x3", "avg_pool_3x3"), 0), ("cell", 0, ("avg_pool_3x3",), 0),
                               ("cell", 0, ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3"), 0)}
    assert paths(NB)(NB.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")) == frozenset()
    twice = NB.parse("|avg_pool_3x3~0|+|avg_pool_3x3~0|none~1|+|none~0|skip_connect~1|skip_connect~2|")
    assert paths(NB)(twice) == {("cell", 0, ("avg_pool_3x3",), n) for n in range(2)}


def test_cells_of_one_function_have_the_same_ways():
    """None of NAS-Bench-201's 6,466 classes is torn apart. Fewer are told apart, since an op on a sum has the ways of a sum of ops."""
    encode, found = paths(NB), {}
    for genotype in NB.enumerate():
        found.setdefault(nasbench201.expression(NB, genotype), set()).add(encode(genotype))
    assert len(found) == 6_466 and all(len(ways) == 1 for ways in found.values())
    assert len(set.union(*found.values())) == 4_120


def test_a_skip_that_makes_an_image_smaller_is_an_op_of_a_way():
    space = SPACES["darts"]
    edges = [Edge(node, source, "skip_connect") for node in range(2, 6) for source in ((0, 1) if node == 2 else (0, 2))]
    genotype = space.genotype({"normal": edges, "reduce": edges})
    assert {feature[2] for feature in paths(space)(genotype) if feature[0] == "normal"} == {()}
    assert {feature[2] for feature in paths(space)(genotype) if feature[0] == "reduce"} == {("skip_connect",)}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_ways_are_those_that_one_finds_by_walking_back_from_the_outputs(space):
    rng, encode = random.Random(0), paths(space)

    def back(spec, edges, node):
        if node < spec.num_inputs:
            yield (node, ())
        for edge in edges:
            if edge.destination == node and space.op(edge.op).contributes:
                nothing = space.op(edge.op).is_skip and not (spec.stride == 2 and edge.source < spec.num_inputs)
                yield from ((start, ops if nothing else (*ops, edge.op)) for start, ops in back(spec, edges, edge.source))

    for _ in range(10):
        genotype = space.sample(rng)
        slow = [(kind, *way) for kind, spec in space.cells.items() for out in spec.outputs for way in back(spec, genotype[kind], out)]
        found = encode(genotype)
        assert sorted(feature[:3] for feature in found) == sorted(slow) and len(found) == len(slow)
        assert len(slow) <= sum(most_paths(spec) for spec in space.cells.values())


def test_cells_of_too_many_ways_are_refused_in_one_line():
    spec = CellSpec.full(num_inputs=1, num_nodes=13, ops=("a", "b"), outputs=(13,), keep=None)
    large = Space("large", {}, {"cell": spec}, build=lambda *_: None)
    assert most_paths(spec) == 2 ** 12
    for encoding in ("paths", "both"):
        with pytest.raises(UsageError, match="at most 2,000 ways .* cell 'cell' of space large may have 4,096: pass .*adjacency"):
            Bayesian(large, encoding=encoding)
    assert Bayesian(large, encoding="adjacency")


@pytest.mark.parametrize("name", ENCODINGS)
def test_differences_count_the_features_that_one_has_alone(name):
    rng, encode = random.Random(1), ENCODINGS[name](SPACES["darts"])
    number, (a, b) = Numbered(encode), ([SPACES["darts"].sample(rng) for _ in range(n)] for n in (7, 5))
    found = differences([number(x) for x in a], [number(x) for x in b])
    assert found.tolist() == [[len(encode(x) ^ encode(y)) for y in b] for x in a]
    assert differences([number(x) for x in a], [number(x) for x in a]).diagonal().tolist() == [0] * 7
    nothing = Numbered(paths(NB))(NB.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))
    assert differences([nothing], [nothing]).tolist() == [[0]], "without any feature"


# ---- the process


def points(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n, n) of random architectures, and normal values."""
    rng, encode = random.Random(seed), Numbered(adjacency(NB))
    features = [encode(NB.sample(rng)) for _ in range(n)]
    return differences(features, features), np.array([rng.gauss(0, 1) for _ in range(n)])


def test_scores_become_normal_by_their_ranks():
    quantile = statistics.NormalDist().inv_cdf
    assert normal_scores([3.0, -math.inf, 90.0, 3.0]) == pytest.approx([0.0, quantile(1 / 8), quantile(7 / 8), 0.0])
    assert normal_scores([5.0, 5.0]).tolist() == [0.0, 0.0]


def test_a_prediction_is_the_normal_distribution_given_what_is_known():
    """Conditioned through the inverse of the whole covariance: that of the unknown given the known is the inverse of its block."""
    distances, y = points(30)
    known, kernel = 20, Kernel(3.0, 0.2)
    mean, deviation = predict(kernel, distances[:known, :known], distances[:known, known:], y[:known])
    k = np.exp(-distances / 3.0)
    variance = y[:known] @ np.linalg.inv(k[:known, :known] + 0.2 * np.eye(known)) @ y[:known] / known
    for other in range(10):
        which = [*range(known), known + other]
        whole = k[np.ix_(which, which)] + np.diag([0.2] * known + [0.0])
        precision = np.linalg.inv(whole)
        assert deviation[other] ** 2 == pytest.approx(variance / precision[-1, -1])
        assert mean[other] == pytest.approx(-precision[-1, :-1] @ y[:known] / precision[-1, -1])


def test_the_fit_is_the_likeliest_of_the_grid():
    distances, _ = points(40)
    y = np.random.default_rng(0).multivariate_normal(np.zeros(40), np.exp(-distances / 6) + 0.03 * np.eye(40))
    mean = distances[~np.eye(40, dtype=bool)].mean()

    def likelihood(kernel):
        k = np.exp(-distances / kernel.length) + kernel.noise * np.eye(40)
        k *= y @ np.linalg.inv(k) @ y / 40  # the variance under which y is likeliest
        return -0.5 * (y @ np.linalg.inv(k) @ y + np.linalg.slogdet(k)[1])

    grid = [Kernel(multiple * mean, noise) for multiple, noise in itertools.product(LENGTHS, NOISES)]
    found = fit(distances, y)
    assert likelihood(found) == pytest.approx(max(map(likelihood, grid)))
    assert 2 < found.length < 20 and found.noise < 0.3


def test_the_expected_improvement_is_an_integral():
    mean, deviation = np.array([0.0, 1.0, -3.0]), np.array([1.0, 0.2, 0.5])
    grid = np.linspace(-12, 12, 200_001)
    for m, s, value in zip(mean, deviation, expected_improvement(mean, deviation, 0.7)):
        density = np.exp(-((grid - m) / s) ** 2 / 2) / (s * math.sqrt(2 * math.pi))
        assert value == pytest.approx(float((np.maximum(grid - 0.7, 0) * density).sum() * (grid[1] - grid[0])), abs=1e-8)


# ---- the searcher


def made(number: int, score: float, text: str = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", **options) -> Trial:
    return Trial(number, NB.parse(text), (score,), **options)


def test_a_model_learns_each_architecture_once_from_its_longest_training():
    other = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    told = [made(0, 1.0), made(1, 1.0, repeats=0), made(2, 5.0, other), made(3, math.nan, refused="size")]
    assert [trial.number for trial in distinct(told)] == [0, 2]
    assert [trial.number for trial in distinct([*told, made(4, 9.0, fidelity=0.5)])] == [0, 2]
    assert distinct([]) == []


def test_of_too_many_architectures_the_best_and_an_even_choice_of_the_others_are_known():
    told = [made(number, float(score)) for number, score in enumerate(random.Random(0).sample(range(100), 100))]
    kept = telling(told, 20)
    assert [trial.number for trial in kept] == sorted(trial.number for trial in kept)
    assert sorted(trial.scores[0] for trial in kept) == [*range(8, 90, 9), *range(90, 100)]
    assert telling(told, 100) == told


MODELS = {"as it is": {}, "thompson": {"acquisition": "thompson"}, "adjacency": {"encoding": "adjacency"}, "paths": {"encoding": "paths"},
          "batches": {"batch": 5}, "screened": {"screen": lambda space: Genetic(space, population=20)}}


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_a_model_finds_more_than_random_search(options):
    def found(searcher, seed):
        return best(run(trials(searcher, NB, evaluator=Additive(NB, seed), seed=seed, budget=Budget(trials=40)))).scores[0]

    ours = [found(Bayesian(NB, candidates=40, **options), seed) for seed in range(4)]
    assert statistics.mean(ours) > statistics.mean(found(Random(NB), seed) for seed in range(4))


def test_nothing_is_asked_for_twice_while_there_is_something_new():
    found = run(trials(Bayesian(NB, candidates=20), NB, budget=Budget(trials=80)))
    assert not [trial for trial in found[10:] if trial.repeats is not None]
    small = toy.make()
    everything = run(trials(Bayesian(small, candidates=10, initial=2), small, budget=Budget(trials=100_000)))
    assert len({trial.genotype for trial in everything}) == small.count(), "it ends with the space"


def test_screening_asks_for_proposals_of_the_other_searcher_alone():
    inner = Genetic(NB, population=10)
    found = run(trials(Bayesian(NB, initial=10, candidates=8, screen=lambda space: inner), NB, budget=Budget(trials=50)))
    plain = run(trials(inner, NB, budget=Budget(trials=10)))
    assert found[:10] == plain, "as long as nothing is known it is not screened"
    assert {trial.change for trial in found[10:]} <= {"one-point crossover", "mutation", "one-point crossover, mutation", "copy"}
    with pytest.raises(UsageError, match="searcher.screen must be a searcher that trains each architecture whole.*SuccessiveHalving"):
        Bayesian(NB, screen=SuccessiveHalving)


def test_failed_trainings_stop_no_model():
    class Failing(Additive):
        def __call__(self, genotype, fidelity=1.0):
            found = super().__call__(genotype, fidelity)
            failed = Edge(1, 0, "none") in genotype["cell"] or self.all_fail
            return found._replace(metrics={**found.metrics, "accuracy": math.nan if failed else found.metrics["accuracy"]})

    for Failing.all_fail in (False, True):
        searcher = Bayesian(NB, candidates=20, refit=3)
        found = run(trials(searcher, NB, evaluator=Failing(NB), budget=Budget(trials=30)))
        assert len(found) == 30 and len(distinct(History(found).trials)) == 30
        if not Failing.all_fail:
            assert sum(math.isinf(trial.scores[0]) for trial in found[10:]) < 4
