"""Sub-networks of a supernet: found within limits, taken out, kept; the command that does it."""

import itertools
import json
import random
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

import supernet
from ops.op import Normalisation
from supernet.app.deployable import Deployable
from supernet.costs.additive import counted
from supernet.costs.chain import ChainCost, Term, chain_costs
from supernet.data.text import TextLoader
from supernet.deployment.extraction import extracted, with_own_statistics
from supernet.deployment.known import FILE, Known
from supernet.deployment.limits import (
    Bound,
    Quantity,
    chosen_by,
    genotype_of,
    name_of,
    planned,
    read_limits,
    repaired,
    spread,
    within,
    worst,
)
from supernet.deployment.methods import Evolution, Exact, Gradient, Problem
from supernet.deployment.models import Modelled, fitted, sampled
from supernet.deployment.results import free_name, read_result, seal
from supernet.errors import UsageError
from supernet.evaluators.shared_weights import SharedWeights
from supernet.exports.folder import plain_module
from supernet.passes import extremes
from supernet.spaces import accel_mnasnet, layerwise, nasbench_macro, ofa_mobilenet
from supernet.tasks.classification import Classification
from supernet.weights import one_hot
from tests import helpers
from tests.builders import with_statistics
from tests.helpers import At, only_error
from tests.reference import close

TINY = layerwise.make(stages=[[1, 1], [2, 2]], kernels=[3, 5], expansions=[1, 2], widths=[50, 100], activations=["relu"], dropouts=[0],
                      poolings=["max_pool"])
TINY_SIZES = {"layers": 3, "channels": 8, "num_classes": 7, "image_size": (8, 8)}
OFA = ofa_mobilenet.make(kernels=(3, 5), expansions=(2, 4), depths=(1, 2), sides=(8, 12), strides=(1, 2, 1, 1, 1), stem_stride=1)
SPACES = {"ofa": (OFA, {"channels": 8}), "accel": (accel_mnasnet.make(stem_stride=1), {"channels": 8}),
          "layerwise": (TINY, {"channels": 8}), "macro": (nasbench_macro.make(), {"channels": 4})}


def supernet_of(space, *, affine=False, channels=8, dtype=torch.float64):
    torch.manual_seed(0)
    norm = Normalisation(affine=affine, after_pools=True)
    net = space.network(space.candidates(), norm=norm, num_classes=7, image_size=(8, 8), channels=channels, **space.sizes)
    return with_statistics(net.to(dtype)).eval()


def batches(count=3, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 3, 8, 8, generator=g).to(dtype), torch.randint(7, (6,), generator=g)) for _ in range(count)]


# ---- taken out


@pytest.mark.parametrize("name, affine", [("ofa", False), ("ofa", True), ("accel", False), ("layerwise", False),
                                          pytest.param("macro", False, marks=pytest.mark.slow)])
def test_an_extracted_network_computes_what_the_supernet_computes_and_has_the_size_that_is_counted(name, affine):
    space, sizes = SPACES[name]
    net, (x, _) = supernet_of(space, affine=affine, **sizes), batches(1)[0]
    costs = counted(space, "parameters", num_classes=7, image_size=(8, 8), **sizes)
    for seed in range(2):
        genotype = space.sample(random.Random(seed))
        alone = extracted(space, genotype, net)
        with torch.no_grad():
            close(alone(x), net(x, one_hot(space, genotype, dtype=torch.float64)), 1e-10)
        assert sum(p.numel() for p in alone.parameters()) == costs(genotype)


def test_statistics_of_its_own_give_an_extracted_network_the_metrics_that_it_has_in_the_supernet():
    net, task, few = supernet_of(OFA), Classification(), batches()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shared = SharedWeights(net, OFA, task, few, torch.Generator(), calibration=few[:2])
    for seed in range(3):
        genotype = OFA.sample(random.Random(seed))
        found = shared(genotype)
        alone = with_own_statistics(extracted(OFA, genotype, net), task, few[:2], torch.Generator())
        with torch.no_grad():
            logits = torch.cat([alone(x) for x, _ in few])
        labels = torch.cat([y for _, y in few])
        assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(found["loss"], abs=1e-9)
        assert 100 * (logits.argmax(1) == labels).double().mean().item() == pytest.approx(found["accuracy"])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# ---- limits


@pytest.mark.parametrize("given, said", [
    ({}, "limits must be {parameters:NUMBER, ...} of parameters, latency_ms, or sweep, got {}"),
    ({"parameter": 3}, "got 'parameter'; did you mean parameters"), ({"parameters": 0}, "limits.parameters must be positive and finite"),
    ({"parameters": float("inf")}, "limits.parameters must be positive"), ({"parameters": True}, "limits.parameters must be positive"),
    ({"latency_ms": "12"}, "limits.latency_ms must be positive and finite, or sweep, got '12'"), ("all", "or sweep, got 'all'"),
    ({"latency_ms": "sweep", "parameters": "sweep"}, "one quantity is swept over, got latency_ms and parameters")])
def test_limits_that_cannot_be_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        read_limits(given, ["parameters", "latency_ms"])


def test_limits_are_read_named_and_spread():
    known = ["multiply_adds", "parameters"]
    assert read_limits({"parameters": 1e6, "multiply_adds": 5}, known) == ({"parameters": 1e6, "multiply_adds": 5.0}, None)
    assert read_limits({"parameters": 1e6, "multiply_adds": "sweep"}, known) == ({"parameters": 1e6}, "multiply_adds")
    assert read_limits("sweep", known) == ({}, "multiply_adds")
    assert name_of({"latency_ms": 0.8, "parameters": 1e6}) == "latency_ms_0.8_parameters_1e06" and name_of({}) == "all"
    assert spread(1.0, 16.0, 4) == pytest.approx([2, 4, 8, 16])


@pytest.fixture(scope="module")
def tiny():
    """All architectures of a small space with what they cost."""
    costs = chain_costs(TINY, **TINY_SIZES)
    every = list(dict.fromkeys(TINY.canonical(g) for g in TINY.enumerate()))
    return costs, {g: {name: cost(g) for name, cost in costs.items()} for g in every}


def bounds_of(costs, **limits):
    return [Bound(Quantity(name, "", costs[name], costs[name], True), limit) for name, limit in limits.items()]


def test_plans_of_choices_are_those_of_genotypes_to_the_bit(tiny):
    costs, every = tiny
    for genotype in list(every)[:20]:
        chosen = chosen_by(TINY, genotype)
        assert genotype_of(TINY, chosen) == genotype
        assert all(planned(cost, chosen) == cost(genotype) for cost in [*costs.values(), additive(0)])


def test_an_architecture_within_limits_is_found_where_there_is_one(tiny):
    costs, every = tiny
    rng, met = random.Random(0), [0, 0]
    for _ in range(20):
        limits = {name: rng.choice(sorted(v[name] for v in every.values())[: len(every) // 4]) * rng.choice([0.8, 1.0]) for name in costs}
        there = any(all(v[name] <= limit for name, limit in limits.items()) for v in every.values())
        found = within(TINY, bounds_of(costs, **limits))
        assert (found is not None) == there
        met[there] += 1
        if found is not None:
            assert all(costs[name](found) <= limit for name, limit in limits.items())
    assert min(met) > 0


def test_a_repaired_architecture_is_within_the_limits_and_keeps_what_it_can(tiny):
    costs, every = tiny
    limit = sorted(v["parameters"] for v in every.values())[len(every) // 3]
    bounds = bounds_of(costs, parameters=limit)
    anchor = within(TINY, bounds)
    for seed in range(10):
        rng = random.Random(seed)
        drawn = TINY.sample(rng)
        found = repaired(TINY, drawn, bounds, anchor, rng)
        assert costs["parameters"](found) <= limit
        assert all(edge in (a, b) for (_, own), (_, mine), (_, least) in zip(found.cells, drawn.cells, anchor.cells)
                   for edge, a, b in zip(own, mine, least))
        if costs["parameters"](drawn) <= limit:
            assert found == drawn


# ---- models


def test_a_model_is_right_where_the_quantity_is_of_its_form(tiny):
    costs, every = tiny
    slow = torch.rand(2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def truth(genotype):
        chosen = dict(TINY.cells["kernel"].rows(genotype["kernel"]))
        return 3 + 1e-4 * costs["multiply_adds"](genotype) + slow[chosen[0]].item()

    genotypes = sampled(TINY, 80, 0, "test")
    assert len({TINY.canonical(g) for g in genotypes}) == 80 and genotypes[:20] == sampled(TINY, 20, 0, "test")
    model = fitted(TINY, genotypes, [truth(g) for g in genotypes], [costs["multiply_adds"]], name="ms", unit="ms", ridge=1e-9)
    assert model.error < 1e-4
    for genotype in list(every)[:30]:
        assert model.cost(genotype) == pytest.approx(truth(genotype), rel=1e-3)


def test_what_is_measured_later_makes_the_model_anew():
    costs = chain_costs(TINY, **TINY_SIZES)
    asked = []

    def of(genotype):
        asked.append(genotype)
        return 1.0 if len(asked) <= 6 else 5.0

    made = Modelled(TINY, sampled(TINY, 6, 0, "a"), of, list(costs.values()), name="ms", unit="ms")
    other = extremes(TINY, costs["parameters"])[1]
    before = made.quantity.plan(other)
    assert made.quantity.of(other) == 5.0 and made.quantity.plan(other) > before + 0.1
    count = len(made.values)
    made.quantity.of(other)
    assert len(made.values) == count


# ---- what is known


def test_values_are_found_once_and_known_again_whatever_the_file_has_met(tmp_path):
    asked = []

    def make(genotype):
        asked.append(genotype)
        return {"accuracy": float(len(asked))}

    known = Known(tmp_path, OFA)
    genotypes = sampled(OFA, 4, 0, "known")
    with known.journal.held():
        assert [known("a", g, make)["accuracy"] for g in genotypes + genotypes] == [1, 2, 3, 4] * 2
        assert known("b", genotypes[0], make)["accuracy"] == 5
    deep = extremes(OFA, chain_costs(OFA, **TINY_SIZES | OFA.sizes)["parameters"])[0]  # of few layers: many genotypes are this network
    twin = OFA.genotype(dict(deep.cells) | {"kernel": [e._replace(op="kernel_5") if e.destination == 2 else e for e in deep["kernel"]]})
    assert twin != deep and OFA.canonical(twin) == OFA.canonical(deep)
    again = Known(tmp_path, OFA)
    with again.journal.held():
        assert again("a", genotypes[2], make)["accuracy"] == 3 and again("a", deep, make) == again("a", twin, make) == {"accuracy": 6.0}
    assert [genotype for genotype, _ in again.all("b")] == [OFA.canonical(genotypes[0])]
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"accuracy": 2', b'"accuracy": 9')
    (tmp_path / FILE).write_bytes(b"".join([*lines, b'{"of": "a", "architecture": "no such", "values": {}}\n', lines[0][:30]]))
    once_more = Known(tmp_path, OFA)
    with once_more.journal.held():
        assert once_more("a", genotypes[1], make)["accuracy"] == 7 and once_more("a", genotypes[0], make)["accuracy"] == 1
    assert Known(tmp_path, OFA).has("a", genotypes[1])


# ---- methods


def additive(seed):
    g = torch.Generator().manual_seed(seed)
    return ChainCost(TINY, [Term(((kind, e),), torch.randn(len(spec.ops), generator=g, dtype=torch.float64))
                            for kind, spec in TINY.cells.items() for e in range(len(spec.edges))], "score")


def problem(tiny, seed, share=0.4, **more):
    costs, every = tiny
    bounds = bounds_of(costs, **{name: sorted(v[name] for v in every.values())[int(share * len(every))] for name in costs})
    score, evaluated = additive(seed), []

    def scored(genotype):
        evaluated.append(genotype)
        return score(TINY.canonical(genotype))

    made = Problem(TINY, bounds, scored, sampled(TINY, 30, seed, "problem"), lambda g: all(b.holds(g) for b in bounds), seed, **more)
    best = max(score(g) for g, v in every.items() if all(v[b.quantity.name] <= b.limit for b in bounds))
    return made, evaluated, best


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_evolution_finds_the_best_within_limits_and_evaluates_nothing_beyond_them(tiny, seed):
    made, evaluated, best = problem(tiny, seed)
    found = list(Evolution(trials=60)(made))
    assert made.score(found[0]) == pytest.approx(best) and all(worst(made.bounds, g) <= 0 for g in [*found, *evaluated])
    assert [made.score(g) for g in found] == sorted((made.score(g) for g in found), reverse=True)
    assert seed or found == list(Evolution(trials=60)(problem(tiny, seed)[0]))


def test_evolution_says_where_no_architecture_is_within_the_limits(tiny):
    costs, every = tiny
    made, _, _ = problem(tiny, 0)
    made.bounds = bounds_of(costs, parameters=min(v["parameters"] for v in every.values()) - 1)
    with pytest.raises(UsageError, match="found no architecture of layerwise within all of parameters"):
        next(Evolution(trials=1)(made))


def test_the_exact_method_gives_the_best_real_score_and_the_certificate_of_its_model(tiny):
    pytest.importorskip("scipy", reason="needs the extra exact")
    made, _, best = problem(tiny, 1)
    first = next(Exact(candidates=5)(made))
    facts = made.facts
    assert facts["model_value"] == pytest.approx(facts["model_bound"]) and facts["fitted_to"] == 30
    assert made.score(first) >= facts["first_score"] and made.score(first) <= best + 1e-9


def test_the_exact_method_passes_over_what_is_measured_beyond_a_limit(tiny):
    pytest.importorskip("scipy", reason="needs the extra exact")
    made, _, _ = problem(tiny, 2)
    every = list(Exact(candidates=4)(made))
    forbidden = set(every[:2])
    other, _, _ = problem(tiny, 2)
    other.holds = lambda genotype: genotype not in forbidden
    found = list(Exact(candidates=4)(other))
    assert len(found) == 4 and not forbidden & set(found) and set(every[2:]) <= set(found)


def test_alphas_learn_within_limits_and_leave_the_supernet_as_it_was(tiny):
    costs, every = tiny
    net = supernet_of(TINY, dtype=torch.float32)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    few = batches(dtype=torch.float32)
    made, _, _ = problem(tiny, 0, share=0.3)
    measured = []

    def of(genotype):
        measured.append(genotype)
        return costs["parameters"](genotype) * 1.2

    quantity = made.bounds[1].quantity
    made.bounds = [made.bounds[0], Bound(Quantity(quantity.name, "", of, quantity.plan, False), made.bounds[1].limit)]

    def endless():
        while True:
            yield from few

    candidates = Gradient(net, Classification(), endless, steps=12)(made)
    first, second = next(candidates), next(candidates)
    assert worst(made.bounds, first) <= 0 and costs["parameters"](second) < costs["parameters"](first)
    assert measured and made.facts["steps"] == 12
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters()) and not any(m.training for m in net.modules())


def test_alphas_learn_from_the_same_batches_for_each_limit():
    cpu = torch.device("cpu")
    val = TextLoader(torch.arange(200), 2, 9, generator=torch.Generator().manual_seed(1), random_lengths=True, device=cpu)
    made = Deployable(None, None, None, None, SimpleNamespace(loaders=SimpleNamespace(val=val)), None, None, [], cpu, seed=3)
    first, second = ([batch.inputs for batch in itertools.islice(made.alpha_batches(), 30)] for _ in range(2))
    assert len({len(inputs) for inputs in first}) > 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# ---- folders


def test_a_result_is_read_only_where_every_file_is_as_it_was_written(tmp_path):
    def made(text):
        part = tmp_path / "part"
        (part / "plain").mkdir(parents=True)
        (part / "plain" / "network.py").write_text(text)
        seal(part, tmp_path / "one", {"key": "k1"})

    made("a")
    assert read_result(tmp_path / "one")["key"] == "k1" and free_name(tmp_path, "one", "k1") == "one"
    assert free_name(tmp_path, "one", "other_key") == "one_other_" and free_name(tmp_path, "two", "k1") == "two"
    (tmp_path / "one" / "plain" / "network.py").write_text("b")
    assert read_result(tmp_path / "one") is None and free_name(tmp_path, "one", "k1") == "one"
    made("c")
    assert read_result(tmp_path / "one") and sorted(path.name for path in tmp_path.iterdir()) == ["one"]
    shutil.copytree(tmp_path / "one", tmp_path / ".one.old")  # of a kill at the end
    made("d")
    assert read_result(tmp_path / "one") and sorted(path.name for path in tmp_path.iterdir()) == ["one"]
    (tmp_path / "mine").mkdir()
    assert free_name(tmp_path, "mine", "k1") == "mine_k1" and read_result(tmp_path / "mine") is None


# ---- the command

SEARCH = ("space=layerwise", "space.stages=[[1,1],[2,2]]", "space.kernels=[3]", "space.expansions=[1,2]", "space.widths=[50,100]",
          "space.activations=[relu]", "space.dropouts=[0]", "space.poolings=[max_pool]", "passes=sandwich", "relaxation=uniform",
          "dataset=digits", "channels=4", "epochs=1", "split.max_train=96", "split.max_val=64", "batch_size=32", "name=net")
FEW = ("samples=6", "trials=6", "calibration_batches=1", "threads=1", "candidates=3")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    where = tmp_path_factory.mktemp("deploy")
    assert helpers.run("train_search", *SEARCH, "output=.", cwd=where, report=False).code == 0
    (run,) = where.glob("*_net_*")
    return run


@pytest.fixture
def run(searched, tmp_path):
    return shutil.copytree(searched, tmp_path / "net")


def deploy(*words, cwd):
    done = helpers.python("-m", "supernet.deploy", *words, cwd=cwd)
    return helpers.Ended(done.returncode, done.stdout, done.stderr, 0.0)


def test_a_deployed_network_is_within_its_limits_and_can_be_used_and_exported(run, tmp_path):
    done = deploy("net", "limits={parameters:5000,multiply_adds:60000}", *FEW, cwd=tmp_path)
    assert done.code == 0, done.err
    folder = run / "deployed" / "parameters_5000_multiply_adds_60000"
    result = json.loads((folder / "results.json").read_text())
    assert result["costs"]["parameters"] <= 5000 and result["costs"]["multiply_adds"] <= 60000 and result["test"]["items"] == 360
    assert result["validation"] == pytest.approx(result["shared_weights"], abs=1e-4)
    loaded = supernet.load(folder)
    assert sum(p.numel() for p in loaded.network.parameters()) == result["costs"]["parameters"]
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        close(plain_module(folder / "plain")(x), loaded.network(x), 1e-5)
    known = (run / "deployed" / FILE).read_bytes()
    again = deploy("run=net", "limits={parameters:5000,multiply_adds:60000}", *FEW, cwd=tmp_path)
    assert again.code == 0 and "parameters_5000_multiply_adds_60000: there already" in again.out
    assert (run / "deployed" / FILE).read_bytes() == known and json.loads((folder / "results.json").read_text()) == result


WRONG = {
    (): "deploy needs the folder of a search: python -m supernet.deploy RUN limits={parameters:1e6}",
    ("net",): "limits must say what the network may take",
    ("net", "limits={parameters:1e6}", "by=evolutio"): "did you mean evolution?",
    ("net", "limits={parameter:1e6}"): "did you mean parameters?",
    ("net", "limits={parameters:-1}"): "limits.parameters must be positive and finite, or sweep, got -1",
    ("nothing", "limits={parameters:1e6}"): "run=nothing: expected the folder of a search; there is no run.json",
    ("net", "limits={parameters:1e6}", "distil=true"): "distil=true teaches what is trained further: pass epochs of at least 1",
    ("net", "limits={parameters:1e6}", "samples=1"): "samples must be at least 2",
    ("net", "limits={tpu_ms:3}", "columns={tpu_ms:tpu}"): "device_table and columns go together",
    ("net", "limits={parameters:100,multiply_adds:1e9}"): "no architecture of layerwise keeps limits.parameters; the least of each: ",
}


@pytest.mark.parametrize("words", [("net",), ("net", "limits={parameters:100,multiply_adds:1e9}"),
                                   *(pytest.param(words, marks=pytest.mark.slow) for words in list(WRONG)[2:-1])])
def test_what_cannot_be_had_is_said_in_a_line_and_leaves_nothing(words, run, tmp_path):
    before = helpers.contents(tmp_path)
    assert WRONG[words] in only_error(deploy(*words, cwd=tmp_path))
    assert helpers.contents(tmp_path) == before


@pytest.mark.slow
def test_a_stopped_deployment_goes_on_to_the_same_network(run, tmp_path):
    words = ("limits={parameters:5000}", *FEW)
    unbroken = shutil.copytree(run, tmp_path / "unbroken")
    assert deploy("unbroken", *words, cwd=tmp_path).code == 0
    for n in (2, 5, 5):
        process = helpers._start({"module": "supernet.deploy", "options": ["net", *words], "cwd": str(tmp_path), "env": {},
                                  "at": At(n, FILE, signal.SIGINT)})
        ended = process.wait()
        assert ended.code == 130 and "interrupted; finished: nothing new; what was evaluated is kept" in ended.err, (n, ended)
    killed = helpers._start({"module": "supernet.deploy", "options": ["net", *words], "cwd": str(tmp_path), "env": {},
                             "at": At(1, "parameters_5000")}).wait()
    assert killed.code == -signal.SIGKILL
    assert deploy("net", *words, cwd=tmp_path).code == 0
    one, other = (supernet.load(folder / "deployed" / "parameters_5000") for folder in (run, unbroken))
    assert one.genotype == other.genotype
    assert all(torch.equal(value, other.network.state_dict()[name]) for name, value in one.network.state_dict().items())
    scores = [[line for line in (folder / "deployed" / FILE).read_text().splitlines() if "accuracy" in line] for folder in (run, unbroken)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_sweep_draws_a_front_whose_scores_rise_with_the_limits(run, tmp_path):
    done = deploy("net", "limits={parameters:sweep}", "points=3", *FEW, cwd=tmp_path)
    assert done.code == 0, done.err
    told = json.loads((run / "deployed" / "front_parameters.json").read_text())
    scores = [row["shared_weights"]["accuracy"] for row in told["deployed"]]
    limits = [row["asked"]["limits"]["parameters"] for row in told["deployed"]]
    assert scores == sorted(scores) and limits == sorted(limits)
    assert all(row["costs"]["parameters"] <= limit for row, limit in zip(told["deployed"], limits))
    page = (run / "deployed" / "front_parameters.html").read_text()
    assert all(row["name"] in page for row in told["deployed"]) and (run / "deployed" / "front_parameters.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize("by", ["gradient", "exact"])
def test_measured_limits_hold_by_every_method(by, run, tmp_path):
    if by == "exact":
        pytest.importorskip("scipy", reason="needs the extra exact")
    words = ("net", f"by={by}", "measured=8", "gradient_steps=5", *FEW)
    most = 60_000
    done = deploy(*words, f"limits={{peak_memory:{most},latency_ms:1000,parameters:9000}}", cwd=tmp_path)
    assert done.code == 0, done.err
    (folder,) = (run / "deployed").glob("peak_memory*")
    result = json.loads((folder / "results.json").read_text())
    assert result["costs"]["peak_memory"] <= most and result["costs"]["latency_ms"] <= 1000 and result["found"]["by"] == by
    failed = deploy(*words, "limits={latency_ms:1e-6}", cwd=tmp_path)
    assert "keeps limits.latency_ms; the least of each: latency_ms" in only_error(failed)


@pytest.mark.slow
def test_a_deployed_network_is_trained_further_and_taught(run, tmp_path):
    words = ("net", "limits={parameters:5000}", *FEW)
    assert deploy(*words, cwd=tmp_path).code == 0
    done = deploy(*words, "epochs=1", "distil=true", "lr=0.01", cwd=tmp_path)
    assert done.code == 0, done.err
    plain, tuned = sorted((run / "deployed").glob("parameters_5000*"))
    one, other = (supernet.load(folder) for folder in (plain, tuned))
    assert one.genotype == other.genotype and not torch.equal(one.network.classifier.weight, other.network.classifier.weight)
    assert json.loads((tuned / "results.json").read_text())["trained_further"]["train_loss"] > 0


@pytest.mark.slow
def test_a_rehearsal_writes_nothing(run, tmp_path):
    before = helpers.contents(tmp_path)
    done = deploy("net", "limits={parameters:5000,latency_ms:5}", "dry_run=true", *FEW, cwd=tmp_path)
    assert done.code == 0 and "limit 5,000" in done.out and helpers.contents(tmp_path) == before, done.err
