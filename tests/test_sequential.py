"""The plain chain: its genotypes, its networks, what they cost, how they are written and drawn."""

import itertools
import json
import math
import random
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from hydra import compose as hydra_compose
from omegaconf import OmegaConf

from benchmarks import sequential as benchmark
from ops.op import Normalisation
from supernet import notation
from supernet.app.build import build
from supernet.costs.additive import counted
from supernet.costs.base import FINAL, CostError
from supernet.errors import UsageError
from supernet.genotype import Genotype, GenotypeError
from supernet.networks.measure import multiply_adds, parameters
from supernet.networks.sequential import Dropout
from supernet.report.draw import draw_cells
from supernet.report.summary import cell_text
from supernet.searchers.encodings import ENCODINGS
from supernet.searchers.loop import Budget
from supernet.spaces import sequential
from supernet.spaces.named import named_space, space_again
from supernet.trials import History
from supernet.weights import one_hot
from tests import groups, trials
from tests.helpers import only_error, run
from tests.searches import composed, configs

SPACE = sequential.make()
SMALL = sequential.make(features=[1, 3], head=[1, 2], kernels=[1], filters=[2], activations=["tanh"], units=[3], dropouts=[10, 50],
                        side=8)
SIZES = {"num_classes": 10, "in_channels": 1, "image_size": (28, 28)}


def genotype(*features, head=("fc_32",), space=SPACE):
    """These layers, and nothing behind them."""
    most = {"features": space.arguments["features"][1], "head": space.arguments["head"][1]}
    ops = {kind: [*own, *["nothing"] * (most[kind] - len(own))] for kind, own in (("features", features), ("head", head))}
    text = ";".join(f"{kind}:" + "+".join(f"|{op}~{n}|" for n, op in enumerate(own)) for kind, own in ops.items())
    return space.parse(text)


def layers(space, found):
    return [[e.op for e in space.canonical(found)[kind] if e.op != "nothing"] for kind in ("features", "head")]


def network(found, space=SPACE, **sizes):
    torch.manual_seed(0)
    return space.network(space.candidates(found), norm=FINAL, **space.sizes, **(SIZES | sizes))


@pytest.mark.parametrize("seed", range(5))
def test_genotypes_are_values_of_the_space(seed):
    rng = random.Random(seed)
    found, other = SPACE.sample(rng), SPACE.sample(rng)
    assert Genotype.from_json(json.loads(json.dumps(found.to_json()))) == found == SPACE.parse(SPACE.text(found))
    assert space_again("sequential", json.loads(json.dumps(found.to_json()))["arguments"]) == SPACE
    changed = SPACE.mutate(found, rng)
    assert changed != found and changed in set(SPACE.neighbours(found)) and found in set(SPACE.neighbours(changed))
    child = SPACE.crossover_one_point(found, other, rng)
    assert any(SPACE.genes(child) == [*SPACE.genes(found)[:n], *SPACE.genes(other)[n:]] for n in range(1, 10))
    assert SPACE.crossover(found, found, rng) == found == SPACE.mutate_each(found, rng, 0.0)
    for one in (SPACE.crossover(found, other, rng), SPACE.mutate_each(found, rng, 0.5), SPACE.canonical(found)):
        SPACE.validate(one)
    assert SPACE.canonical(SPACE.canonical(found)) == SPACE.canonical(found)


def test_the_space_has_4_to_10_layers_and_is_counted():
    layer, head = 2 * 3 * 2 + 2 * 2 + 3, 3 + 3
    assert SPACE.count() == layer**3 * (layer + 1) ** 4 * head * (head + 1) ** 2
    assert len(set(SMALL.enumerate())) == SMALL.count() == 7 * 8 * 8 * 3 * 4
    shortest = genotype("conv_3x3_8_relu", "conv_3x3_8_relu", "conv_3x3_8_relu")
    assert sum(map(len, layers(SPACE, shortest))) == 4
    with pytest.raises(GenotypeError, match="op must be one of"):
        genotype("conv_3x3_8_relu", "conv_3x3_8_relu")
    with pytest.raises(GenotypeError, match="op must be one of"):
        genotype("conv_3x3_8_relu", "conv_3x3_8_relu", "conv_3x3_8_relu", head=())


@pytest.mark.parametrize("found, same", [
    (["conv_3x3_8_relu"] * 3 + ["nothing", "dropout_10", "nothing", "conv_5x5_8_tanh"],
     ["conv_3x3_8_relu"] * 3 + ["dropout_10", "conv_5x5_8_tanh"]),
    (["dropout_30", "max_pool_3x3", "max_pool_2x2", "conv_3x3_8_relu"], ["max_pool_2x2", "max_pool_3x3", "dropout_30", "conv_3x3_8_relu"]),
    (["dropout_50", "dropout_10", "avg_pool_2x2"], ["avg_pool_2x2", "dropout_10", "dropout_50"]),
    (["max_pool_3x3", "avg_pool_2x2", "max_pool_2x2"], ["max_pool_3x3", "avg_pool_2x2", "max_pool_2x2"]),  # 28, 9, 4, 2
    (["max_pool_3x3", "max_pool_3x3", "conv_3x3_8_relu", "avg_pool_2x2"], ["max_pool_3x3", "max_pool_3x3", "conv_3x3_8_relu"]),  # 9, 3, 1
    (["max_pool_3x3", "max_pool_3x3", "avg_pool_2x2"], ["max_pool_3x3", "max_pool_3x3", "max_pool_3x3"]),  # the third fills up
])
def test_what_computes_the_same_is_the_same(found, same):
    assert layers(SPACE, genotype(*found))[0] == same


def test_equal_networks_are_equal_genotypes_and_no_others():
    """Every genotype of a small space, computed layer by layer as it is written: two compute the same where their canonical forms are
    equal, and else not. Dropout is some factor of each channel, or number, which its rate decides."""
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_form = defaultdict(set)
    for found in SMALL.enumerate():
        by_form[SMALL.canonical(found)].add(signature(found, x))
    assert all(len(signatures) == 1 for signatures in by_form.values())
    assert len(set.union(*by_form.values())) == len(by_form) < SMALL.count() / 2


def signature(found, x):
    learned = random.Random(0)

    def drawn(*shape):
        return torch.tensor([learned.gauss(0, 1) for _ in range(math.prod(shape))], dtype=x.dtype).view(shape)

    for kind in ("features", "head"):
        for op in [e.op for e in found[kind] if e.op != "nothing"]:
            word, size = op.split("_")[0], op.split("_")[-1]
            if word == "conv":
                x = F.conv2d(x, drawn(2, x.shape[1], 1, 1)).tanh()
            elif word == "fc":
                x = F.softplus(F.linear(x, drawn(3, x.shape[1])))  # where ReLU might leave nothing to tell apart
            elif word == "dropout":
                factors = 1 + torch.arange(1, x.shape[1] + 1, dtype=x.dtype) * int(size) / 1000
                x = x * factors.view(1, -1, *[1] * (x.dim() - 2))
            elif x.shape[-1] // int(size[0]) >= 2:
                x = {"max": F.max_pool2d, "avg": F.avg_pool2d}[word](x, int(size[0]))
        x = x.flatten(1)
    return (*x.shape, *(round(value, 8) for value in x.flatten().tolist()))


@pytest.mark.parametrize("seed", range(4))
def test_a_genotype_and_its_canonical_form_are_one_network(seed):
    found = SPACE.sample(random.Random(seed))
    net, same = network(found), network(SPACE.canonical(found))
    assert list(net.state_dict()) == list(same.state_dict())
    x = torch.randn(3, 1, 28, 28)
    for training in (True, False):
        a, b = (n.train(training)(x, generator=torch.Generator().manual_seed(1)) for n in (net, same))
        assert a.shape == (3, 10) and torch.equal(a, b)


@pytest.mark.parametrize("activation", sequential.ACTIVATIONS)
def test_a_chain_computes_its_layers_one_after_the_other(activation):
    space = sequential.make(features=[1, 4], head=[1, 2], kernels=[3, 5], activations=[activation], side=9)
    found = genotype(f"conv_5x5_8_{activation}", "max_pool_2x2", f"conv_3x3_16_{activation}", "avg_pool_2x2", head=("fc_64",), space=space)
    net = network(found, space, image_size=(9, 13), in_channels=2).double().eval()
    for norm in (m.norm for m in net.features if hasattr(m, "norm")):
        norm.running_mean.normal_()
    x = torch.randn(2, 2, 9, 13, dtype=torch.float64)
    functions = {"relu": torch.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "hard_swish": F.hardswish,
                 "swish": F.silu, "gelu": F.gelu}

    def conv(y, layer):
        y = F.conv2d(y, layer.conv.weight, padding=layer.conv.weight.shape[-1] // 2)
        n = layer.norm
        shape = (1, -1, 1, 1)
        y = (y - n.running_mean.view(shape)) / (n.running_var.view(shape) + 1e-5).sqrt() * n.weight.view(shape) + n.bias.view(shape)
        return functions[activation](y)

    y = F.max_pool2d(conv(x, net.features[0]), 2)
    y = conv(y, net.features[2])[:, :, :4, :6].unflatten(2, (2, 2)).unflatten(4, (3, 2)).mean((3, 5)).flatten(1)
    y = torch.relu(y @ net.head[0].linear.weight.T + net.head[0].linear.bias)
    torch.testing.assert_close(net(x), y @ net.classifier.weight.T + net.classifier.bias, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", [FINAL, Normalisation(affine=False, after_pools=False)])
@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 45)])
def test_parameters_and_multiply_adds_are_those_of_the_network(norm, image):
    rng = random.Random(2)
    sizes = {"num_classes": 7, "in_channels": image[0], "image_size": image[1:]}
    costs = {name: counted(SPACE, name, norm=norm, **sizes) for name in ("parameters", "multiply_adds")}
    for _ in range(15):
        found = SPACE.sample(rng)
        net = SPACE.network(SPACE.candidates(found), norm=norm, **SPACE.sizes, **sizes)
        assert costs["parameters"](found) == parameters(net) >= costs["parameters"].least()
        assert costs["multiply_adds"](found) == multiply_adds(net, image) >= costs["multiply_adds"].least()
        assert all(cost(SPACE.canonical(found)) == cost(found) for cost in costs.values())
    with pytest.raises(CostError, match="^parameters of plain chains have no exact expectation"):
        costs["parameters"].expected(one_hot(SPACE, found))
    with pytest.raises(GenotypeError, match="not of 'sequential'"):
        costs["parameters"](SMALL.sample(rng))


@pytest.mark.parametrize("shape, dropped", [((400, 6, 5, 5), (400, 6)), ((400, 6), (400, 6))])
def test_dropout_drops_whole_channels_of_images_and_single_numbers_otherwise(shape, dropped):
    layer, x = Dropout(0.3), torch.ones(shape, dtype=torch.float64)
    y = layer(x, torch.Generator().manual_seed(0))
    kept = y.flatten(2)[..., 0] if y.dim() > 2 else y
    assert kept.shape == dropped and torch.equal(y, kept.view(*dropped, *[1] * (y.dim() - 2)).expand_as(y))
    assert set(kept.round(decimals=9).unique().tolist()) == {0.0, round(1 / 0.7, 9)}
    assert abs((kept == 0).double().mean().item() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / kept.numel())
    assert layer.eval()(x, None) is x
    with pytest.raises(ValueError, match="called with generator="):
        layer.train()(x, None)


@pytest.mark.parametrize("change, message", [
    ({"features": [3]}, r"space.features must be \[fewest, most\] layers, got \[3\]"), ({"head": [3, 2]}, "space.head must be"),
    ({"features": [0, 3]}, "features must be"), ({"kernels": [4]}, "space.kernels must be distinct, odd"),
    ({"kernels": []}, "space.kernels must be distinct, odd, at least one"), ({"filters": [8, 8]}, "space.filters must be distinct"),
    ({"activations": ["rely"]}, "space.activations must be distinct, of relu"), ({"pools": [2, 4]}, "space.pools must be distinct, primes"),
    ({"poolings": ["pool"]}, "space.poolings must be"), ({"dropouts": [100]}, "dropouts must be"), ({"dropouts": [10, 10]}, "distinct"),
    ({"side": 1}, "side must be at least 2"), ({"units": [0]}, "units must be"),
])
def test_the_space_says_what_is_wrong_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        sequential.make(**change)
    assert "\n" not in str(error.value)


def test_networks_that_cannot_be_are_refused():
    found = SPACE.sample(random.Random(0))
    with pytest.raises(UsageError, match="shares no weights .* expected one layer in each place, got 20; pass a searcher and evaluator="):
        SPACE.network(SPACE.candidates(), norm=FINAL, **SPACE.sizes, **SIZES)
    with pytest.raises(UsageError, match="space.side must be at most the smaller side of the images, 8, got 28: pass space.side=8"):
        network(found, image_size=(8, 8))
    with pytest.raises(ValueError, match="layers and channels must be 10 and 32 in this space, got 9 and 32"):
        SPACE.network(SPACE.candidates(found), norm=FINAL, layers=9, channels=32, **SIZES)


def test_chains_for_images_of_another_size_are_of_another_space():
    """What a pool does depends on it, and no cell shows it."""
    other = sequential.make(side=32)
    assert other.cells == SPACE.cells and other.fingerprint != SPACE.fingerprint
    with pytest.raises(GenotypeError, match=r"arguments that differ: \['side'\]"):
        other.validate(SPACE.sample(random.Random(0)))


def test_a_chain_is_written_drawn_and_read_back(tmp_path):
    found = genotype("conv_3x3_8_relu", "max_pool_2x2", "conv_5x5_32_tanh", "dropout_30", head=("fc_64", "dropout_50"))
    (tmp_path / "genotype.txt").write_text(notation.write(SPACE, found))
    assert notation.find(tmp_path / "genotype.txt") == notation.find(tmp_path / "genotype.txt", SPACE) == found
    assert "conv 3x3 8 relu" in cell_text(found, SPACE).splitlines()[0] and cell_text(found, SPACE).splitlines()[1].startswith("head")
    draw_cells(found, tmp_path / "cell.svg")
    drawn = (tmp_path / "cell.svg").read_text()
    assert all(label in drawn for label in ("max pool 2x2", "dropout 30", "flatten", "fc 64")) and "nothing" not in drawn


def test_models_of_architectures_tell_chains_apart():
    rng = random.Random(4)
    some = [SPACE.canonical(SPACE.sample(rng)) for _ in range(30)]
    for make in ENCODINGS.values():
        encode = make(SPACE)
        assert all(encode(a) != encode(b) for a, b in itertools.combinations(dict.fromkeys(some), 2))


def test_the_files_defaults_are_the_functions():
    assert named_space("sequential") == SPACE and named_space("sequential").arguments == SPACE.arguments


@pytest.mark.parametrize("name", groups.choices("searcher"))
def test_every_searcher_searches_among_chains_and_goes_on_after_any_trial(name):
    if name == "tpe":
        pytest.importorskip("optuna", reason="needs the extra: pip install supernet[search]")
    with configs():
        node = hydra_compose(f"searcher/{name}").searcher
    made = lambda: build(OmegaConf.create({"searcher": node}).searcher)(SPACE)
    found = trials.run(trials.trials(made(), SPACE, budget=Budget(trials=13)))
    assert len(found) == 13 and all(trial.genotype.space == "sequential" for trial in found)
    assert trials.run(trials.trials(made(), SPACE, budget=Budget(trials=13)), History(found[:11])) == found


SMALLEST = ("space.side=8", "dataset=digits", "split.max_train=64", "epochs=1")


def test_gradient_search_is_refused_in_one_line(tmp_path):
    said = only_error(run("train_search", "space=sequential", *SMALLEST, "split.max_val=64", cwd=tmp_path))
    assert "shares no weights" in said and "from_scratch" in said
    assert not list(tmp_path.glob("runs/*"))


def test_a_chain_is_retrained_from_its_file(tmp_path):
    space = sequential.make(side=8)
    found = genotype("conv_3x3_8_relu", "dropout_10", "max_pool_2x2", head=("fc_32", "dropout_50"), space=space)
    found.save(tmp_path / "genotype.json")
    done = run("train_final", "genotype=genotype.json", *SMALLEST[1:], "batch_size=32", cwd=tmp_path, report=False)
    assert done.code == 0 and "test accuracy" in done.out, done.err
    (folder,) = tmp_path.glob("runs/*")
    told = json.loads((folder / "summary.json").read_text())["values"]
    assert told["parameters"] == counted(space, "parameters", num_classes=10, in_channels=1, image_size=(8, 8))(found)
    assert Genotype.load(folder / "genotype.json") == found


def test_the_benchmark_compares_chains_of_the_winners_size():
    cost = counted(SPACE, "parameters", **SIZES)
    winner = genotype("conv_3x3_16_relu", "max_pool_2x2", "conv_3x3_32_relu", "avg_pool_2x2", "conv_3x3_32_relu", head=("fc_64",))
    others = benchmark.of_equal_size(SPACE, winner, cost, 4, random.Random(0))
    assert len(set(others)) == 4 and winner not in others and others == benchmark.of_equal_size(SPACE, winner, cost, 4, random.Random(0))
    assert all(abs(cost(other) - cost(winner)) <= 0.05 * cost(winner) and other == SPACE.canonical(other) for other in others)
    assert len({SPACE.text(other) for other in others}) == 4
    found = benchmark.compared(80.0, [70.0, 90.0, 75.0, 79.0])
    assert found["random_median"] == 77.0 and found["difference"] == 3.0 and (found["beaten"], found["of"]) == (3, 4)


def test_the_benchmark_tells_fitness_by_generation():
    rows = benchmark.generations([{"scores": [score]} for score in (1.0, 3.0, 2.0, 5.0, 4.0, 4.0)], 2)
    assert [row["best"] for row in rows] == [3.0, 5.0, 4.0] and [row["best_so_far"] for row in rows] == [3.0, 5.0, 5.0]
    assert [row["mean"] for row in rows] == [2.0, 3.5, 4.0] and rows[0]["median"] == 2.0


def test_the_benchmark_goes_on_with_what_is_done_and_refuses_other_settings(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    kept = benchmark.Kept(path)
    assert kept.once("a", lambda: 3) == 3 and benchmark.Kept(path).once("a", lambda: pytest.fail("was done")) == 3
    monkeypatch.setitem(benchmark.RETRAINING, "epochs", 99)
    with pytest.raises(ValueError, match="holds results of other settings"):
        benchmark.Kept(path)
    with pytest.raises(SystemExit):
        benchmark.main(["--chains", "1"])


@pytest.mark.parametrize("words", [(), ("dataset=cifar10",), ("searcher.crossover=uniform",)])
def test_the_worked_example_has_its_defaults(words):
    cfg = composed("space=sequential", "searcher=genetic", "evaluator=from_scratch", "dataset=fashion_mnist", *words)
    assert (cfg.epochs, cfg.budget.trials, cfg.searcher.population, cfg.evaluator.epochs) == (0, 80, 16, 2)
    assert cfg.evaluator.options.split.max_train == 2000
    cfg = composed("space=sequential", "searcher=random", "evaluator=from_scratch", "budget.trials=3", "epochs=1")
    assert (cfg.epochs, cfg.budget.trials) == (1, 3)
    cfg = composed("searcher=genetic", "budget.trials=7", "space=toy")
    assert (cfg.epochs > 0, cfg.searcher.population) == (True, 100)
    assert composed("searcher=hyperband", "evaluator=from_scratch").evaluator.epochs == 27 == 3 ** (4 - 1)
