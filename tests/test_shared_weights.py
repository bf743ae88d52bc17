import random

import pytest
import torch

from ops.op import Normalisation
from supernet.evaluators.shared_weights import SharedWeights
from supernet.networks.stacked import batch_norms, inherit
from supernet.spaces import darts, layerwise, nasbench_macro, toy
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
