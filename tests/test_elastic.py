"""Entangled weights against slow, obvious sums of networks, and against the networks that are left when all is decided."""

import random

import pytest
import torch
import torch.nn.functional as F

from ops.elastic import ElasticDepthwise
from ops.op import Normalisation
from supernet.genotype import Edge
from supernet.networks.elastic import ElasticBlock, Squeeze, divisible
from supernet.networks.measure import parameters
from supernet.networks.stacked import inherit
from supernet.spaces import accel_mnasnet, ofa_mobilenet
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.reference import close

SEARCH = Normalisation(affine=False, after_pools=True)
FINAL = Normalisation(affine=True, after_pools=False)
SPACES = {
    "accel": accel_mnasnet.make(stem_stride=1),
    "ofa": ofa_mobilenet.make(strides=(1, 2, 1, 1, 2), stem_stride=1, depths=(1, 2)),
    "ofa, sides": ofa_mobilenet.make(kernels=(3, 7), expansions=(1, 2), depths=(1, 2), sides=(9, 12), strides=(1, 2, 1, 1, 1),
                                     stem_stride=1),
}
SQUEEZE = Squeeze("hidden", 0.25, "relu", "hard_sigmoid")


@pytest.fixture(params=SPACES.values(), ids=SPACES)
def space(request):
    return request.param


def build(space, genotype=None, norm=FINAL, **more):
    net = space.network(space.candidates(genotype), norm=norm, layers=space.sizes["layers"], channels=8, num_classes=3, **more).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sorted(net.state_dict().items()):  # maps that are not the identity, statistics that are not the initial ones
            if "maps" in name or "norm" in name or "running" in name:
                value += 0.2 * torch.rand(value.shape, generator=generator, dtype=value.dtype)
    return net


def images(n=4, side=10):
    return torch.randn(n, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.equation
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transforms", [False, True])
def test_one_convolution_with_the_sum_of_kernels_is_the_sum_of_the_convolutions(stride, transforms):
    """Cai et al. 2020, Sec. 3.2."""
    torch.manual_seed(0)
    layer = ElasticDepthwise(6, [3, 5, 7], stride, transforms=transforms).double()
    with torch.no_grad():
        for own in layer.maps.values():
            own.add_(torch.randn_like(own) / 10)
    factors = {k: torch.rand((), dtype=torch.float64, requires_grad=True) for k in (3, 7, 5)}
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64, requires_grad=True)
    ours = layer(x, factors)
    kernels = {7: layer.weight}
    for larger, k in ((7, 5), (5, 3)):
        centre = kernels[larger][:, :, 1:-1, 1:-1]
        kernels[k] = torch.einsum("ci,ij->cj", centre.reshape(6, -1), layer.maps[str(k)]).view(6, 1, k, k) if transforms else centre
    theirs = sum(factors[k] * F.conv2d(x, kernels[k], None, stride, k // 2, groups=6) for k in kernels)
    close(ours, theirs, 1e-12)
    inputs = [x, *factors.values(), *layer.parameters()]
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (ours, theirs))):
        close(a, b, 1e-10)


def slow_block(block, x, e, k, s):
    """The sum over expansions and squeezes of the whole block, each with its own norms; e, k, s: factors by choice."""
    def norm(y, of):
        weight, bias = (None, None) if of.weight is None else (of.weight[: y.shape[1]], of.bias[: y.shape[1]])
        return F.batch_norm(y, None, None, weight, bias, training=True)

    act, total = F.hardswish, 0
    for name, factor in e.items():
        hidden = block.hidden[name]
        h = act(norm(F.conv2d(x, block.expand.weight[:hidden]), block.norm1)) if name != "expansion_1" else x
        h = sum(f * F.conv2d(h, block.depthwise.kernel(block.kernel_sizes[n], hidden), None, 1, block.kernel_sizes[n] // 2, groups=hidden)
                for n, f in k.items())
        h = act(norm(h, block.norm2))
        for way, of_way in s.items():
            y = h
            if way == "se":
                middle = divisible(hidden / 4)
                reduce, expand = block.squeeze.reduce, block.squeeze.expand
                z = F.relu(F.linear(h.mean((2, 3)), reduce.weight[:middle, :hidden, 0, 0], reduce.bias[:middle]))
                z = F.linear(z, expand.weight[:hidden, :middle, 0, 0], expand.bias[:hidden])
                y = h * F.hardsigmoid(z)[:, :, None, None]
            total = total + factor * of_way * norm(F.conv2d(y, block.project.weight[:, :hidden]), block.norm3)
    return x + total


@pytest.mark.equation
@pytest.mark.parametrize("norm", [SEARCH, FINAL], ids=["search", "final"])
def test_a_block_is_the_weighted_sum_of_the_blocks_it_may_become(norm):
    torch.manual_seed(0)
    held = {"expansion": ["expansion_1", "expansion_3", "expansion_6"], "kernel": ["kernel_3", "kernel_5"], "squeeze": ["no_se", "se"]}
    block = ElasticBlock(held, channels_in=8, channels_out=8, stride=1, activation="hard_swish", squeeze=SQUEEZE, kernels=(3, 5),
                         transforms=True, norm=norm).double()
    rows = {kind: {name: torch.rand((), dtype=torch.float64, requires_grad=True) for name in names} for kind, names in held.items()}
    x = torch.randn(3, 8, 7, 7, dtype=torch.float64, requires_grad=True)
    ours, theirs = block(x, rows, 0.0, None), slow_block(block, x, rows["expansion"], rows["kernel"], rows["squeeze"])
    close(ours, theirs, 1e-10)
    inputs = [x, *(f for row in rows.values() for f in row.values()), *block.parameters()]
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (ours, theirs))):
        close(a, b, 1e-8)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("training", [True, False])
def test_the_final_network_computes_what_the_supernet_computes_at_one_hot(space, seed, training):
    """Every slice is its own: kernels by their maps, hidden channels and squeezes by the leading ones, depth, sides."""
    genotype = space.sample(random.Random(seed))
    supernet, final = build(space), build(space, genotype)
    inherit(final, supernet)
    supernet.train(training), final.train(training)
    hot = one_hot(space, genotype, dtype=torch.float64)
    close(final(images()), supernet(images(), hot), 1e-10)
    all_computed = EdgeWeights({k: Weights(w.ops) for k, w in hot.items()})
    close(final(images()), supernet(images(), all_computed), 1e-10)
    assert parameters(final) < parameters(supernet)


def test_inactive_choices_are_not_computed_nor_read(space):
    net = build(space)
    hot = one_hot(space, space.sample(random.Random(0)), dtype=torch.float64)
    spoiled = EdgeWeights({k: Weights(w.ops + torch.where(w.ops == 0, torch.nan, 0.0), active=w.active) for k, w in hot.items()})
    assert torch.equal(net(images(), hot), net(images(), spoiled))


def test_a_factor_of_a_choice_that_runs_alone_has_a_gradient_that_its_norm_does_not_take_away(space):
    """Before a norm a factor is scaled away: the gradient would be a rounding error of the others'."""
    net = build(space)
    hot = one_hot(space, space.sample(random.Random(0)), dtype=torch.float64)
    ops = {k: w.ops.clone().requires_grad_() for k, w in hot.items()}
    logits = net(images(), EdgeWeights({k: Weights(ops[k], active=w.active) for k, w in hot.items()}))
    F.cross_entropy(logits, torch.arange(4) % 3).backward()
    for kind, table in ops.items():
        assert table.grad[hot[kind].ops > 0].abs().max() > 1e-4, kind


def test_a_stage_is_the_weighted_sum_of_its_depths():
    stage = build(SPACES["accel"]).stages[3]
    x, last = torch.randn(2, 16, 6, 6, dtype=torch.float64), stage.blocks[0].channels_in
    rows = [{kind: {name: torch.rand((), dtype=torch.float64) for name in held} for kind, held in
             (("expansion", block.hidden), ("kernel", block.kernel_sizes), ("squeeze", block.squeezes))} for block in stage.blocks]
    factors = torch.rand(3, dtype=torch.float64).softmax(0)
    want, y = 0, x[:, :last]
    for n, block in enumerate(stage.blocks):
        y = block(y, rows[n], 0.0, None)
        want = want + factors[n] * y
    close(stage(x[:, :last], rows, dict(zip(stage.depths, factors)), 0.0, None), want, 1e-10)


def test_sorted_channels_compute_the_same_and_put_first_what_counts_most():
    space = SPACES["ofa"]
    net = build(space).eval()
    widest = space.genotype({kind: [Edge(d, s, spec.ops[-1]) for s, d in spec.edges] for kind, spec in space.cells.items()})
    weights = one_hot(space, widest, dtype=torch.float64)
    before = net(images(), weights)
    net.sort()
    close(net(images(), weights), before, 1e-10)
    norms = net.stages[2].blocks[1].project.weight.detach().abs().sum((0, 2, 3))
    assert (norms.diff() <= 0).all() and norms[0] > norms[-1]


def test_layers_that_do_not_run_decide_nothing():
    tiny = ofa_mobilenet.make(kernels=(3, 5), expansions=(2,), depths=(1, 2))
    assert tiny.count() == (2**2 * 2) ** 5
    genotype = tiny.sample(random.Random(0))
    idle = {2 * n + 2 for n, e in enumerate(genotype["depth"]) if e.op == "depth_1"}  # the second layers of stages that have one
    assert 0 < len(idle) < 5
    for other in tiny.neighbours(genotype):
        changed = [(kind, a.destination) for kind, edges in genotype.cells for a, b in zip(edges, other[kind]) if a != b]
        alike = tiny.canonical(other) == tiny.canonical(genotype)
        assert alike == all(kind != "depth" and layer in idle for kind, layer in changed)


def test_golden_counts():
    """Cai et al. 2020, Sec. 3.1: roughly 2e19 networks of kernels, expansions and depths; as strings there are more."""
    assert accel_mnasnet.make().count() == (3 * 2 * 3 * 2) ** 6 * (3 * 2 * 4 * 2)
    assert ofa_mobilenet.make().count() == 9**20 * 3**5
    assert ofa_mobilenet.make(sides=tuple(range(128, 225, 4))).count() == 9**20 * 3**5 * 25
    assert (9**2 + 9**3 + 9**4) ** 5 == pytest.approx(2.18e19, rel=1e-2)


@pytest.mark.parametrize("options, message", [
    ({"kernels": [2]}, "kernels"), ({"expansions": []}, "expansions"), ({"depths": [2, 2]}, "depths"), ({"strides": [2, 2]}, "strides"),
    ({"strides": [2, 2, 2, 2, 3]}, "strides"), ({"sides": [4]}, "sides"),
])
def test_options_of_the_space_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ofa_mobilenet.make(**options)
