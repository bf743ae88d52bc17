import collections
import itertools
import random

import pytest
import torch

from ops.op import Normalisation
from supernet.evaluators import shared_weights
from supernet.evaluators.shared_weights import SharedWeights
from supernet.networks.stacked import batch_norms, inherit
from supernet.spaces import accel_mnasnet, darts, layerwise, nasbench_macro, ofa_mobilenet, toy
from supernet.tasks.classification import Classification

NORM = Normalisation(affine=False, after_pools=True)
SPACES = {"toy": toy.make(), "darts": darts.make(nodes=2), "macro": nasbench_macro.make()}


@pytest.fixture(params=SPACES.values(), ids=SPACES)
def setting(request):
    torch.manual_seed(0)
    space = request.param
    sizes = {"layers": 3, "channels": 2} | space.sizes
    make = lambda genotype=None: space.network(space.candidates(genotype), norm=NORM, num_classes=3, image_size=(8, 8), **sizes).double()
    batches = [(torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.arange(8) % 3) for _ in range(4)]
    net = make()
    for x, _ in batches:  # statistics that are not those at the start
        net.train()(x)
    return space, net, make, batches


@pytest.mark.equation("spos", "random_ws")
@pytest.mark.parametrize("statistics", ["recalibrated", "batch", "running"])
def test_the_same_as_a_network_of_its_own_with_inherited_weights(setting, statistics):
    space, net, make, batches = setting
    evaluate = SharedWeights(net, space, Classification(), batches[2:], torch.Generator(), statistics=statistics, calibration=batches[:2])
    for seed in range(3):
        genotype = space.sample(random.Random(seed))
        alone = make(genotype)
        inherit(alone, net)
        if statistics == "recalibrated":
            for norm in batch_norms(alone):
                norm.running_mean.zero_(), norm.running_var.zero_()
            for n, (x, _) in enumerate(batches[:2]):
                for norm in batch_norms(alone):
                    norm.momentum = 1 / (n + 1)
                alone.train()(x)
        alone.train(statistics == "batch")
        losses = [Classification(label_smoothing=0)(alone, batch).loss.item() for batch in batches[2:]]
        assert evaluate(genotype)["loss"] == pytest.approx(sum(losses) / 2, abs=1e-9)


@pytest.mark.parametrize("statistics", ["recalibrated", "batch", "running"])
def test_the_supernet_is_left_as_found(setting, statistics):
    space, net, _, batches = setting
    generator = torch.Generator().manual_seed(1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    evaluate = SharedWeights(net, space, Classification(), batches, generator, statistics=statistics, calibration=batches)
    first = evaluate(space.sample(random.Random(0)))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and net.training
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(1).get_state())
    assert all(n.momentum == 0.1 and not n.by_batch for n in batch_norms(net))
    assert evaluate(space.sample(random.Random(0))) == first


@pytest.mark.parametrize("statistics", ["recalibrated", "batch", "running"])
def test_every_module_is_left_in_the_mode_it_was_found_in(setting, statistics):
    space, net, _, batches = setting
    norms = batch_norms(net)
    norms[0].eval()
    norms[1].by_batch = True
    evaluate = SharedWeights(net, space, Classification(), batches, torch.Generator(), statistics=statistics, calibration=batches)
    evaluate(space.sample(random.Random(0)))
    assert [m for m in net.modules() if not m.training] == [norms[0]] and [n for n in norms if n.by_batch] == [norms[1]]


@pytest.mark.parametrize("statistics", ["recalibrated", "batch", "running"])
def test_a_stream_is_a_call_for_each_and_leaves_the_supernet_as_found(setting, statistics):
    space, net, _, batches = setting
    evaluate = SharedWeights(net, space, Classification(), batches[2:], torch.Generator(), statistics=statistics, calibration=batches[:2])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    genotypes = [space.sample(random.Random(seed)) for seed in range(3)]
    assert list(evaluate.stream(genotypes)) == [evaluate(genotype) for genotype in genotypes]
    stream = evaluate.stream(genotypes)
    next(stream)
    stream.close()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and net.training


CHAINS = {"macro": nasbench_macro.make(), "layerwise": layerwise.make(stages=[[1, 2], [2, 2]]),
          "ofa": ofa_mobilenet.make(), "accel": accel_mnasnet.make()}


def relatives(space, count, seed=0):
    """Random architectures, mutants of them, and one that is there twice."""
    rng = random.Random(seed)
    found = [space.sample(rng) for _ in range(2)]
    while len(found) < count - 1:
        found.append(space.mutate_each(rng.choice(found), rng, 0.15))
    return [*found, found[1]]


@pytest.mark.parametrize("statistics", ["recalibrated", "batch", "running"])
@pytest.mark.parametrize("space", CHAINS.values(), ids=CHAINS)
def test_a_population_of_a_chain_gives_the_bits_of_single_calls(space, statistics, monkeypatch):
    net, batches, generator, genotypes = *chain(space), relatives(space, 7)
    monkeypatch.setattr(shared_weights, "AT_ONCE", 3)  # groups that share, and that part in the middle of a way
    evaluate = SharedWeights(net, space, Classification(), batches[2:], generator, statistics=statistics, calibration=batches[:2])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = dict(itertools.chain(*evaluate.population(genotypes)))
    assert [found[n] for n in range(len(genotypes))] == [evaluate(genotype) for genotype in genotypes]
    assert len({one["loss"] for one in found.values()}) > 2, "architectures differ"
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and net.training
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(1).get_state())


def chain(space):
    torch.manual_seed(0)
    net = space.network(space.candidates(), norm=NORM, num_classes=3, image_size=(16, 16), channels=8, **space.sizes)
    batches = [(torch.randn(6, 3, 16, 16), torch.arange(6) % 3) for _ in range(4)]
    for x, _ in batches:
        net.train()(x, generator=torch.Generator().manual_seed(0))
    return net, batches, torch.Generator().manual_seed(1)


def test_a_population_computes_what_its_architectures_begin_with_once():
    space = CHAINS["macro"]
    net, batches, generator = chain(space)
    first = space.sample(random.Random(0))
    last = [first, *(g for g in space.neighbours(first) if sum(a != b for a, b in zip(first["layers"][:-1], g["layers"][:-1])) == 0)]
    assert len(last) == 3
    calls = collections.Counter()
    for name, module in (("stem", net.stem), *((f"layer {n}", layer) for n, layer in enumerate(net.layers)), ("head", net.head)):
        module.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
    list(SharedWeights(net, space, Classification(), batches[2:], generator, calibration=batches[:2]).population(last))
    assert calls == {"stem": 4, **{f"layer {n}": 4 for n in range(7)}, "layer 7": 12, "head": 12}, "of four batches"


def test_a_population_of_a_chain_whose_candidates_keep_no_statistics_gives_the_bits_of_single_calls():
    torch.manual_seed(0)
    space = CHAINS["macro"]
    net = space.network(space.candidates(), norm=Normalisation(affine=False, after_pools=True, running_statistics=False), num_classes=3,
                        image_size=(8, 8), channels=2, **space.sizes)
    batches = [(torch.randn(6, 3, 8, 8), torch.arange(6) % 3) for _ in range(3)]
    evaluate = SharedWeights(net, space, Classification(), batches[1:], torch.Generator(), calibration=batches)
    genotypes = relatives(space, 4)
    found = dict(itertools.chain(*evaluate.population(genotypes)))
    assert [found[n] for n in range(4)] == [evaluate(genotype) for genotype in genotypes]


def test_a_population_can_be_left_in_the_middle_and_the_supernet_is_as_found(monkeypatch):
    space = CHAINS["macro"]
    monkeypatch.setattr(shared_weights, "AT_ONCE", 2)
    net, batches, generator = chain(space)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    evaluate = SharedWeights(net, space, Classification(), batches[2:], generator, calibration=batches[:2])
    population = evaluate.population(relatives(space, 5))
    next(population)
    population.close()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and net.training

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(evaluate.population(relatives(space, 5), working=stop))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and net.training


def test_a_population_of_cells_is_evaluated_one_by_one():
    torch.manual_seed(0)
    space = SPACES["toy"]
    net = space.network(space.candidates(), norm=NORM, num_classes=3, image_size=(8, 8), layers=3, channels=2)
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 3) for _ in range(3)]
    evaluate = SharedWeights(net, space, Classification(), batches, torch.Generator(), calibration=batches)
    genotypes = [space.sample(random.Random(seed)) for seed in range(3)]
    assert list(evaluate.population(genotypes)) == [[one] for one in enumerate(map(evaluate, genotypes))]


def test_recalibration_sees_the_network_without_dropout():
    torch.manual_seed(0)
    space = layerwise.make(stages=[[1, 3]], dropouts=[50], skippable=False)
    net = space.network(space.candidates(), norm=NORM, num_classes=3, image_size=(8, 8), channels=4, **space.sizes).double()
    batches = [(torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.arange(8) % 3) for _ in range(3)]
    genotype = space.sample(random.Random(0))
    first, second = (SharedWeights(net, space, Classification(), batches[2:], torch.Generator().manual_seed(seed), calibration=batches[:2])
                     for seed in (1, 2))
    assert first(genotype) == second(genotype)


def test_wrong_options_are_refused(setting):
    space, net, _, batches = setting
    with pytest.raises(ValueError, match="statistics must be"):
        SharedWeights(net, space, Classification(), batches, torch.Generator(), statistics="none")
    with pytest.raises(ValueError, match="calibration batches"):
        SharedWeights(net, space, Classification(), batches, torch.Generator())
