"""Supernets of networks that know nothing of them: against the networks themselves, and against slow sums written out."""

import copy
import json
import random
import shutil

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from examples import my_network
from ops.op import BatchNorm, Normalisation
from supernet.app.own_space import own_space
from supernet.app.trust import check_targets
from supernet.costs.chain import chain_costs
from supernet.costs.exact import optimum
from supernet.data.torchvision_import import import_torchvision
from supernet.errors import UsageError
from supernet.exports.source import source_of
from supernet.genotype import Edge
from supernet.networks.measure import multiply_adds_of, parameters
from supernet.networks.stacked import batch_norms, inherit
from supernet.runs.folder import FORMAT
from supernet.spaces import from_model
from supernet.spaces.own_model import Source
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.helpers import ROOT, python, run
from tests.reference import close
from tests.searches import searched

FINAL = Normalisation(affine=True, after_pools=False)
SIDE = 16


class Everything(nn.Module):
    """A kernel that may be smaller, a block with depthwise convolution and squeeze-and-excitation, a concatenation, a flattened map, and an
    MLP."""

    def __init__(self, num_classes=4, in_channels=3, drop=0.0):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(in_channels, 8, 5, 1, 2, bias=False), nn.BatchNorm2d(8)
        self.wide, self.wide_norm = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12, eps=1e-3)
        self.depthwise, self.depthwise_norm = nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.narrow, self.narrow_norm = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.beside = nn.Conv2d(8, 6, 3, 2, 1)
        self.pool, self.joined_norm = nn.MaxPool2d(2), nn.BatchNorm2d(14)
        self.last = nn.Conv2d(14, 4, 3, 2, 1)
        self.hidden, self.drop, self.out = nn.Linear(4 * 16, 8), nn.Dropout(drop), nn.Linear(8, num_classes)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        y = F.relu(self.wide_norm(self.wide(x)))
        y = F.hardswish(self.depthwise_norm(self.depthwise(y)))
        y = y * self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        x = F.relu(x + self.narrow_norm(self.narrow(y)))
        x = self.joined_norm(torch.cat([self.pool(x), self.beside(x)], 1))
        x = F.relu(self.last(x))
        return self.out(self.drop(F.gelu(self.hidden(torch.flatten(x, 1)))))


def torchvision_models():
    return import_torchvision().models


def resnet18(num_classes):
    return torchvision_models().resnet18(num_classes=num_classes)


def mobilenet_v3_small(num_classes):
    return torchvision_models().mobilenet_v3_small(num_classes=num_classes, dropout=0.0)


def vgg11_bn(num_classes):
    return torchvision_models().vgg11_bn(num_classes=num_classes)


def vision_transformer(num_classes, image_size):
    net = torchvision_models().VisionTransformer(image_size=image_size[0], patch_size=4, num_layers=2, num_heads=2, hidden_dim=16,
                                                 mlp_dim=32, num_classes=num_classes)
    nn.init.normal_(net.heads.head.weight)  # torchvision begins with zeros, which would make all networks equal
    return net


def densenet(num_classes):
    return torchvision_models().DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=num_classes)


def small(num_classes, in_channels):
    return my_network.make(num_classes, in_channels, channels=8, blocks=2)


def space_of(model, **options):
    return from_model.make(model=model, **{"image": (3, SIDE, SIDE), "divisor": 2 if model is Everything else 4} | options)


def own(model, **sizes):
    """The model itself, for the same data."""
    return Source(model).made({"num_classes": 4, "image_size": (SIDE, SIDE), "in_channels": 3} | sizes)


def sizes_of(space, **more):
    return {**space.sizes, "num_classes": 4, "image_size": (SIDE, SIDE)} | more


def as_trained(net, seed=0):
    """With factors, offsets and statistics of norms that are not the initial ones."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in (m for m in net.modules() if type(m) in (BatchNorm, nn.BatchNorm2d, nn.LayerNorm)):
            for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                if getattr(norm, name, None) is not None:
                    getattr(norm, name).copy_(low + torch.rand(getattr(norm, name).shape, generator=g))
    return net


def supernet_of(space):
    torch.manual_seed(0)
    return as_trained(space.network(space.candidates(), norm=FINAL, **sizes_of(space)).double())


def images(n=3):
    return torch.randn(n, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def full(space):
    return space.genotype({kind: [Edge(d, s, next(op for op, held in zip(spec.ops, row) if held))
                                  for (s, d), row in zip(spec.edges, spec.present)] for kind, spec in space.cells.items()})


def decided(space):
    return {kind: len(spec.edges) for kind, spec in space.cells.items()}


# ---- what becomes elastic

GOLDEN = {  # rows of each kind, and how many architectures there are
    resnet18: ({"width": 12, "kernel": 1, "depth": 5}, 3**12 * 3 * 2**5),
    mobilenet_v3_small: ({"width": 27, "kernel": 8, "depth": 6}, 3**26 * 2 * 2**8 * 2**6),
    vision_transformer: ({"width": 2, "depth": 4}, 3**2 * 2**4),
    densenet: ({"width": 10, "kernel": 1}, 3**6 * 2**4 * 3),
    small: ({"width": 9, "depth": 4}, 2**3 * 3**6 * 2**4),
    Everything: ({"width": 6, "kernel": 1, "depth": 1}, 3**3 * 2**3 * 2 * 2),
}


@pytest.mark.parametrize("model", GOLDEN)
def test_what_becomes_elastic_and_the_largest_network_is_the_model_itself_to_the_bit(model):
    space = space_of(model)
    assert (decided(space), space.count()) == GOLDEN[model]
    torch.manual_seed(0)
    alone = as_trained(own(model))
    torch.manual_seed(0)
    net = as_trained(space.network(space.candidates(), norm=FINAL, **sizes_of(space)))
    x, hot = images().float(), one_hot(space, full(space))
    for training in (False, True):
        alone.train(training), net.train(training)
        generator = torch.Generator().manual_seed(0)
        torch.testing.assert_close(net(x, hot, generator=generator), alone(x), rtol=0, atol=0)
    assert parameters(net) == parameters(alone)


@pytest.mark.slow
def test_vgg11_bn_is_elastic_in_all_but_its_classes():
    space = space_of(vgg11_bn, image=(3, 32, 32))
    assert (decided(space), space.count()) == ({"width": 10}, 3**10)
    sizes = sizes_of(space, image_size=(32, 32))
    torch.manual_seed(0)
    alone = vgg11_bn(4).eval()
    torch.manual_seed(0)
    net = space.network(space.candidates(), norm=FINAL, **sizes).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(net(x, one_hot(space, full(space))), alone(x))
        genotype = space.sample(random.Random(0))
        final = space.network(space.candidates(genotype), norm=FINAL, **sizes).eval()
        inherit(final, net)
        close(final(x), net(x, one_hot(space, genotype)), 1e-5)
    assert chain_costs(space, **sizes)["parameters"](genotype) == parameters(final)


def test_what_could_not_be_made_elastic_is_told_with_the_reason():
    told = space_of(vision_transformer).about
    assert any(line.startswith("fixed width: 16 channels of conv_proj: reshape reads it") for line in told)
    assert any("heads.head: it is the output's" in line for line in told)
    assert any(line == "fixed depth: add_2 (blocks.2.bn2 + blocks.2.shortcut.1): neither side of the sum is computed from the other"
               for line in space_of(small).about)


class Awkward(nn.Module):
    """What fixes channels: a grouped convolution, a layer norm over all, weights that two layers share, a sum that is read within."""

    def __init__(self, num_classes=4):
        super().__init__()
        self.first, self.grouped, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 8, 1)
        self.norm, self.one, self.other = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.other.weight = self.one.weight
        self.inner, self.outer, self.free = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.out = nn.Linear(8, num_classes)

    def forward(self, x):
        x = self.other(self.one(self.norm(self.second(self.grouped(self.first(x))))))
        y = self.inner(x)
        x = x + self.outer(y)
        return self.out(self.free(x + y).mean((2, 3)))


def test_what_is_not_understood_is_left_as_it_is():
    space = space_of(Awkward)
    told = "\n".join(space.about)
    for words in ("first: grouped reads it, a convolution of 4 groups", "second: GroupNorm (norm) reads it",
                  "which shares its weights with", "something else reads what the branch computes"):
        assert words in told
    assert decided(space) == {"width": 1} and "width 1: 8/4 of the 8 channels of free" in told
    torch.manual_seed(0)
    alone = Awkward()
    torch.manual_seed(0)
    net = space.network(space.candidates(), norm=FINAL, **sizes_of(space))
    x = images().float()
    assert torch.equal(net(x, one_hot(space, full(space))), alone(x)) and parameters(net) == parameters(alone)
    assert chain_costs(space, **sizes_of(space))["parameters"](full(space)) == parameters(alone)


class ByName(nn.Module):
    """Tensors that are given by name, `how` says which."""

    def __init__(self, how, num_classes=4):
        super().__init__()
        self.how, self.stem, self.branch, self.free = how, nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 1)
        self.out = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.stem(x)
        y = self.branch(input=x) if self.how == "layer" else self.branch(x)
        x = {"function": lambda: torch.add(x, other=y), "method": lambda: y.mul(other=x), "list": lambda: torch.cat(tensors=[x, y], dim=2),
             "layer": lambda: x + y}[self.how]()
        return self.out(self.free(x).mean((2, 3)))


@pytest.mark.parametrize("how", ["function", "method", "list", "layer"])
def test_what_reads_a_tensor_by_its_name_fixes_its_channels(how):
    space = space_of(ByName, arguments={"how": how})
    net, x = space.network(space.candidates(), norm=FINAL, **sizes_of(space)), images().float()
    assert decided(space)["width"] == 1 and "of the 16 channels of free" in space.about[0]
    assert all(net(x, one_hot(space, genotype)).shape == (len(x), 4) for genotype in space.enumerate())


# ---- exactness

EXACT = [pytest.param(mobilenet_v3_small, marks=pytest.mark.slow), vision_transformer, densenet, small, Everything]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model", EXACT)
def test_the_final_network_computes_what_the_supernet_computes_at_one_hot(model, training):
    space = space_of(model)
    supernet = supernet_of(space).train(training)
    genotype = space.sample(random.Random(1))
    final = space.network(space.candidates(genotype), norm=FINAL, **sizes_of(space)).double().train(training)
    inherit(final, supernet)
    hot, generator = one_hot(space, genotype, dtype=torch.float64), torch.Generator()
    state = copy.deepcopy(supernet.state_dict())
    outputs = [net(images(), weights, generator=generator)
               for net, weights in ((final, None), (supernet, hot), (supernet, EdgeWeights({k: Weights(w.ops) for k, w in hot.items()})))]
    for other in outputs[1:]:
        close(other, outputs[0], 1e-10)
    assert parameters(final) < parameters(supernet)
    changed = [name for name, value in supernet.state_dict().items() if not torch.equal(value, state[name])]
    assert bool(changed) == (training and model is not vision_transformer)  # statistics follow, those of slices too


def slow_everything(net, x, widths, kernel, run):
    """`Everything`, superposed: each layer that mixes channels is the sum of what it makes of the masked parts. widths: by layer that makes
    the channels, {how many: factor}; kernel: {size: factor}."""
    m = net.model

    def mixed(layer, x, *groups):
        """groups: of each part of x the factors by channels that are kept, its channels, and how often each stands in a row."""
        total, begin = 0, 0
        for factors, channels, repeat in groups:
            for kept, factor in factors.items():
                masked = torch.zeros_like(x)
                masked[:, begin : begin + kept * repeat] = x[:, begin : begin + kept * repeat]
                total = total + factor * (F.linear(masked, layer.weight) if x.dim() == 2
                                          else F.conv2d(masked, layer.weight, None, layer.stride, layer.padding))
            begin += channels * repeat
        return total if layer.bias is None else total + layer.bias.view(1, -1, *(1 for _ in x.shape[2:]))

    def norm(n, x):
        return F.batch_norm(x, None, None, n.weight, n.bias, training=True, eps=n.eps)

    a, w, s, b, last, h = (widths[name] for name in ("stem", "wide", "squeeze", "beside", "last", "hidden"))
    centre = m.stem.weight[:, :, 1:-1, 1:-1]
    x = kernel[5] * F.conv2d(x, m.stem.weight, None, 1, 2) + kernel[3] * F.conv2d(x, centre, None, 1, 1)
    x = F.relu(norm(m.stem_norm, x))
    y = F.relu(norm(m.wide_norm, mixed(m.wide, x, (a, 8, 1))))
    y = F.hardswish(norm(m.depthwise_norm, F.conv2d(y, m.depthwise.weight, None, 1, 1, 1, 12)))
    gate = mixed(m.excite, F.relu(mixed(m.squeeze, y.mean((2, 3), keepdim=True), (w, 12, 1))), (s, 4, 1))
    y = y * gate.sigmoid()
    x = F.relu(x + run * norm(m.narrow_norm, mixed(m.narrow, y, (w, 12, 1))))
    x = norm(m.joined_norm, torch.cat([F.max_pool2d(x, 2), mixed(m.beside, x, (a, 8, 1))], 1))
    x = F.relu(mixed(m.last, x, (a, 8, 1), (b, 6, 1)))
    return mixed(m.out, F.gelu(mixed(m.hidden, x.flatten(1), (last, 4, 16))), (h, 8, 1))


@pytest.mark.equation
def test_superposed_it_is_the_weighted_sum_of_masked_parts_written_out():
    """The sums of a layer's masked inputs, of padded kernels, and of a block beside its input; with all gradients."""
    space = space_of(Everything)
    net = supernet_of(space)
    g = torch.Generator().manual_seed(2)
    tables = {kind: torch.rand(len(s.edges), len(s.ops), generator=g, dtype=torch.float64).requires_grad_()
              for kind, s in space.cells.items()}
    x = images().requires_grad_()
    ours = net(x, EdgeWeights({kind: Weights(table) for kind, table in tables.items()}), generator=torch.Generator())
    rows = {net.traced.groups[group].layers[0]: {c: tables["width"][e, space.cells["width"].ops.index(name)]
                                                 for name, c in choices.items()}
            for e, (group, choices) in enumerate(net.decisions.widths)}
    kernel = {size: tables["kernel"][0, space.cells["kernel"].ops.index(name)] for name, size in net.decisions.kernels[0][1].items()}
    theirs = slow_everything(net, x, rows, kernel, tables["depth"][0, 0])
    close(ours, theirs, 1e-10)
    inputs = [x, *tables.values(), *net.parameters()]
    for one, other in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (ours, theirs))):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("model", [small, Everything, densenet])
def test_inactive_choices_are_not_computed_nor_read(model):
    space = space_of(model)
    net = supernet_of(space)
    hot = one_hot(space, space.sample(random.Random(0)), dtype=torch.float64)
    spoiled = EdgeWeights({k: Weights(w.ops + torch.where(w.ops == 0, torch.nan, 0.0), active=w.active) for k, w in hot.items()})
    generator = torch.Generator()
    assert torch.equal(net(images(), hot, generator=generator), net(images(), spoiled, generator=generator))


def test_the_factor_of_a_choice_that_runs_alone_has_a_gradient_that_no_norm_takes_away():
    """Where a layer reads that choice alone; in `small` every width is followed by a convolution and its norm."""
    space = space_of(small)
    net = supernet_of(space)
    hot = one_hot(space, full(space), dtype=torch.float64)
    ops = {k: w.ops.clone().requires_grad_() for k, w in hot.items()}
    logits = net(images(4), EdgeWeights({k: Weights(ops[k], active=w.active) for k, w in hot.items()}))
    F.cross_entropy(logits, torch.arange(4)).backward()
    for kind, table in ops.items():
        assert (table.grad[hot[kind].ops > 0].abs() > 1e-4).all(), kind


@pytest.mark.parametrize("model", EXACT)
def test_sorted_channels_compute_the_same(model):
    space = space_of(model)
    net = supernet_of(space).eval()
    hot = one_hot(space, full(space), dtype=torch.float64)
    before, weights = net(images(), hot), copy.deepcopy(net.state_dict())
    net.sort()
    close(net(images(), hot), before, 1e-9)
    assert any(not torch.equal(value, weights[name]) for name, value in net.state_dict().items())


def test_sorted_channels_put_first_what_counts_most():
    space = space_of(Everything)
    net = supernet_of(space)
    net.sort()
    for layer, repeat in ((net.model.excite, 1), (net.model.hidden, 16), (net.model.out, 1)):
        weight = layer.weight.reshape(*layer.weight.shape[:2], -1)
        counts = weight.detach().abs().sum((0, 2)).view(-1, repeat).sum(1)
        assert (counts.diff() <= 1e-12).all() and counts[0] > counts[-1]


# ---- costs and export


@pytest.mark.parametrize("model", EXACT)
def test_costs_are_those_of_the_extracted_network(model):
    space, rng = space_of(model), random.Random(3)
    costs = chain_costs(space, **sizes_of(space))
    assert max(term.table.numel() for term in costs["parameters"].terms) <= 2 * 3**3
    for genotype in (full(space), space.sample(rng), space.sample(rng)):
        final = space.network(space.candidates(genotype), norm=FINAL, **sizes_of(space))
        assert costs["parameters"](genotype) == parameters(final)
        assert costs["multiply_adds"](genotype) == multiply_adds_of(final, images(1).float())
        assert costs["parameters"].expected(one_hot(space, genotype, dtype=torch.float64)).item() == pytest.approx(parameters(final))


def test_the_smallest_network_by_the_exact_solver_is_that_of_enumeration():
    pytest.importorskip("scipy", reason="needs the extra exact")
    space = space_of(Everything)
    cost = chain_costs(space, **sizes_of(space))["parameters"]
    terms = [term._replace(table=-term.table) for term in cost.terms]
    found = optimum(space, type(cost)(space, terms, "score"))
    assert -found.value == min(map(cost, space.enumerate()))


@pytest.mark.parametrize("model", EXACT)
def test_the_plain_network_computes_the_same(model):
    space = space_of(model)
    final = as_trained(space.network(space.candidates(space.sample(random.Random(2))), norm=FINAL, **sizes_of(space))).double().eval()
    block, made = final.plain(), {}
    exec(source_of(block), made)
    written = made["Network"]().double()
    written.load_state_dict(block.tensors)
    close(written.eval()(images()), final(images()), 1e-12)


def test_all_batch_norms_can_be_calibrated_again():
    net = space_of(small).network(space_of(small).candidates(), norm=FINAL, **sizes_of(space_of(small)))
    assert len(batch_norms(net)) == sum(type(m) is nn.BatchNorm2d for m in own(small).modules())


# ---- what the genotype says, and what a run begins with


class Renamed(my_network.SmallResNet):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.trunk, self.head = self.stem, self.classifier
        del self.stem, self.classifier

    def forward(self, x):
        return self.head(self.blocks(self.trunk(x)).mean((2, 3)))


def test_the_genotype_knows_the_graph_and_no_name():
    space = space_of(small)
    genotype = space.sample(random.Random(0))
    assert "small" not in json.dumps(genotype.to_json()) and genotype.arguments["graph"] in json.dumps(genotype.to_json())
    digests = {name: space_of(make).arguments["graph"] for name, make in {
        "again": small, "renamed": lambda num_classes, in_channels: Renamed(8, 2, in_channels, num_classes),
        "deeper": lambda num_classes: my_network.make(num_classes, 3, 8, 3),
        "wider": lambda num_classes: my_network.make(num_classes)}.items()}
    assert digests["again"] == digests["renamed"] == genotype.arguments["graph"]
    assert len(set(digests.values())) == 3
    space_of(small, graph=genotype.arguments["graph"]).validate(genotype)
    with pytest.raises(UsageError, match="another network, or other arguments"):
        space_of(small, graph="0" * 16)
    with pytest.raises(UsageError, match=r"pass space=from_model space.model=my_file.make"):
        from_model.make(**genotype.arguments)


def test_data_of_other_channels_sizes_and_classes_have_the_same_space():
    space = from_model.make(model=my_network.make)  # traced with 3 channels and 32 pixels
    net = space.network(space.candidates(), norm=FINAL, **space.sizes, num_classes=7, in_channels=1, image_size=(20, 12))
    assert net(torch.zeros(2, 1, 20, 12), one_hot(space, full(space))).shape == (2, 7)


def test_what_lies_within_blocks_that_are_left_out_decides_nothing():
    space = space_of(small)
    genotype = space.sample(random.Random(0))
    without = space.genotype(dict(genotype.cells) | {"depth": [e._replace(op="skip" if n == 0 else "run")
                                                               for n, e in enumerate(genotype["depth"])]})
    inner = 1  # the channels within the first block
    for other in space.neighbours(without):
        changed = [(kind, n) for kind, edges in without.cells for n, (a, b) in enumerate(zip(edges, other[kind])) if a != b]
        assert (space.canonical(other) == space.canonical(without)) == (changed == [("width", inner)]), changed


def test_it_begins_as_the_network_of_a_file_of_weights(tmp_path):
    alone = as_trained(own(small), seed=5)
    torch.save(alone.state_dict(), tmp_path / "weights.pt")
    space = space_of(small, state=str(tmp_path / "weights.pt"))
    net = space.network(space.candidates(), norm=FINAL, **sizes_of(space)).eval()
    assert torch.equal(net(images().float(), one_hot(space, full(space))), alone.eval()(images().float()))


WRONG_STATES = {
    "missing": (None, "cannot be read"), "text": (b"hello", "not a file of weights alone"), "a module": (nn.Linear(1, 1), "not a file"),
    "a list": ([1], "must hold a state dict"), "another network": (nn.Linear(1, 1).state_dict(), "it lacks stem.0.weight"),
    "other classes": (my_network.make(9, 3, 8).state_dict(), "classifier.weight must be (4, 32)"),
}


@pytest.mark.parametrize("name", WRONG_STATES)
def test_a_wrong_file_of_weights_is_one_line(tmp_path, name):
    held, words = WRONG_STATES[name]
    path = tmp_path / "weights.pt"
    if type(held) is bytes:
        path.write_bytes(held)
    elif held is not None:
        torch.save(held, path)
    space = space_of(small, state=str(path))
    with pytest.raises(UsageError) as error:
        space.network(space.candidates(), norm=FINAL, **sizes_of(space))
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


class Branching(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.out = nn.Linear(3, num_classes)

    def forward(self, x):
        x = x.mean((2, 3))
        if x.sum() > 0:
            x = -x
        return self.out(x)


class InPlace(Branching):
    def forward(self, x):
        x = self.out(x.mean((2, 3)))
        F.relu(x, inplace=True)
        return x


class Pair(Branching):
    def forward(self, x):
        return self.out(x.mean((2, 3))), x


class OneBatch(Branching):
    def forward(self, x):
        return self.out(x.reshape(2, 3, SIDE, SIDE).mean((2, 3)))


def failing(num_classes):
    raise KeyError("no such thing")


WRONG = {
    "control flow": (dict(model=Branching), r"cannot be traced at test_from_model.py, line \d+ \(if x.sum\(\) > 0:\)"),
    "in place": (dict(model=InPlace), "changes tensors in place"), "a pair": (dict(model=Pair), "must give one tensor"),
    "a fixed batch": (dict(model=OneBatch), "must read batches of any size, and reads 2 images but not one"),
    "other numbers": (dict(model=lambda: small(4, 3).double()), "of torch.float32, as images are, got .* is torch.float64"),
    "nothing trained": (dict(model=lambda: small(4, 3).requires_grad_(False)), "nothing is trained: requires_grad is False throughout"),
    "no module": (dict(model=lambda: 3), "must return a torch.nn.Module, got int"),
    "no parameters": (dict(model=nn.Identity), "without parameters"),
    "fails": (dict(model=failing), r"failing failed at test_from_model.py, line \d+ \(KeyError"),
    "needs more": (dict(model=lambda depth: nn.Linear(3, depth)), r"needs depth: pass space.arguments=\{depth:...\}"),
    "no such argument": (dict(model=small, arguments={"num_clases": 3}), "did you mean num_classes"),
    "nothing elastic": (dict(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 4))), "nothing of .* can be made smaller"),
    "images too small": (dict(model=lambda: nn.Conv2d(3, 4, 99)), "cannot read images of 3x16x16"),
    "no file": (dict(model="no_such_file.make"), "there is no module 'no_such_file'"),
    "no function": (dict(model="examples.my_network.mak"), "has no 'mak'; did you mean make"),
    "no dot": (dict(model="make"), "my_file.make"),
    "widths": (dict(model=small, widths=[0.5]), "space.widths must hold 1"), "twice": (dict(model=small, widths=[1, 1]), "distinct"),
    "kernels": (dict(model=small, kernels=[4]), "odd"), "image": (dict(model=small, image=[3, 3]), r"space.image must be \[channels"),
}


def test_a_file_that_fails_where_it_looks_for_something_is_told_as_such(tmp_path, monkeypatch):
    (tmp_path / "my_broken_file.py").write_text("import torch\ntorch.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="my_broken_file cannot be imported .AttributeError: module 'torch' has no attribute"):
        space_of("my_broken_file.make")


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_network_is_one_line(name):
    options, words = WRONG[name]
    with pytest.raises(ValueError if name in ("widths", "twice", "kernels", "image") else UsageError, match=words) as error:
        space_of(**options)
    assert "\n" not in str(error.value)


def test_a_network_of_other_classes_than_the_datas_is_one_line():
    space = space_of(lambda: my_network.make(9, 3, 8))
    with pytest.raises(UsageError, match=r"must give \(N, 4\) for the data's classes, got \(N, 9\); pass space.arguments"):
        space.network(space.candidates(), norm=FINAL, **sizes_of(space))


def test_a_run_folder_from_elsewhere_cannot_name_a_function_to_be_called(tmp_path):
    options = {"space": {"_target_": "supernet.spaces.from_model.make", "model": "os.system"}}
    with pytest.raises(UsageError, match=r"space.model names 'os.system'.*trust=\[os.system\] .*take --trust os.system"):
        check_targets(options, tmp_path)
    check_targets(options, tmp_path, ["os.system"])


def test_what_was_deployed_is_of_the_space_that_its_search_names(tmp_path):
    space = space_of(small)
    deployed = tmp_path / "deployed" / "parameters_100"
    deployed.mkdir(parents=True)
    space.sample(random.Random(0)).save(deployed / "genotype.json")
    assert own_space(deployed, []) is None  # nothing says what it is made of
    options = {"space": {"_target_": "supernet.spaces.from_model.make", "model": "tests_own.make"}}
    (tmp_path / "run.json").write_text(json.dumps(FORMAT.stamp() | {"status": "finished"}), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    with pytest.raises(UsageError, match="space.model names 'tests_own.make'"):
        own_space(deployed, [])
    with pytest.raises(UsageError, match="no module 'tests_own'"):  # it is called once the user says so
        own_space(deployed / "weights.pt", ["tests_own.make"])


# ---- noise


def dropping(num_classes):
    return Everything(num_classes, drop=0.5)


def test_what_the_model_drops_comes_from_the_generator_in_training_alone():
    space = space_of(dropping)
    net, hot = supernet_of(space), one_hot(space, full(space), dtype=torch.float64)
    found = [net(images(), hot, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    state = torch.get_rng_state()
    net(images(), hot, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="generator="):
        net(images(), hot)
    net.eval()
    assert torch.equal(net(images(), hot), net(images(), hot))


def test_stochastic_depth_rests_in_evaluation_though_its_graph_was_traced_in_training():
    models = torchvision_models()

    def convnext(num_classes):
        layers = [models.convnext.CNBlockConfig(16, None, 2)]
        return models.convnext.ConvNeXt(layers, num_classes=num_classes, stochastic_depth_prob=0.9, layer_scale=1.0)

    space = space_of(convnext)
    assert decided(space) == {"width": 2, "kernel": 2, "depth": 2}
    torch.manual_seed(0)
    alone = convnext(4).eval()
    torch.manual_seed(0)
    net, hot = space.network(space.candidates(), norm=FINAL, **sizes_of(space)), one_hot(space, full(space))
    assert not torch.equal(*(net(images().float(), hot, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)))
    assert torch.equal(net.eval()(images().float(), hot), alone(images().float()))


def test_drop_path_drops_the_branches_of_blocks():
    space = space_of(small)
    net, hot = supernet_of(space), one_hot(space, full(space), dtype=torch.float64)
    undropped = net(images(), hot)
    net.drop_path_prob = 0.5
    found = [net(images(), hot, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2]) and not torch.equal(found[0], undropped)
    net.eval()
    assert torch.equal(net(images(), hot), net(images(), hot))


def test_a_copy_of_the_network_computes_the_same():
    space = space_of(Everything)
    net = supernet_of(space).eval()
    hot = one_hot(space, space.sample(random.Random(0)), dtype=torch.float64)
    again = copy.deepcopy(net)
    assert torch.equal(again(images(), hot), net(images(), hot))
    with torch.no_grad():
        next(again.parameters()).add_(1)
    assert not torch.equal(again(images(), hot), net(images(), hot))


# ---- the scripts


def test_a_search_goes_through_the_scripts_parts():
    stages, records, genotype = searched("space=from_model", "space.model=examples.my_network.make", "space.arguments={channels:8}",
                                         "space.divisor=4", "split.max_train=32", "split.max_val=32", "batch_size=16", "epochs=1",
                                         "relaxation=uniform", "passes=sandwich")
    stages.space.validate(genotype)
    assert len(records) == 1 and stages.space.about[-1].startswith("fixed depth: add_4")


@pytest.mark.slow
def test_a_network_of_ones_own_is_searched_retrained_and_exported_from_another_folder(tmp_path):
    shutil.copy(ROOT / "examples" / "my_network.py", tmp_path)
    space = ["space=from_model", "space.model=my_network.make", "space.arguments={channels:8}", "space.divisor=4", "split.max_train=64",
             "epochs=1"]
    done = run("train_search", *space, "relaxation=uniform", "passes=sandwich", "split.max_val=64", cwd=tmp_path)
    assert done.code == 0 and "fixed width: 10 channels of classifier: it is the output's" in done.err, done.err
    (found,) = tmp_path.glob("runs/*/genotype.json")
    done = run("train_final", *space, cwd=tmp_path)
    assert done.code == 0 and "test accuracy" in done.out, done.err
    done = run("train_final", "epochs=1", cwd=tmp_path)  # the genotype alone does not say where the network is
    assert done.code == 2 and "pass space=from_model space.model=" in done.err
    (final,) = tmp_path.glob("runs/*/weights.pt")
    done = python("-m", "supernet.export", str(final.parent), "-o", "net", cwd=tmp_path)
    assert done.returncode == 2 and "my_network.make" in done.stderr
    done = python("-m", "supernet.export", str(final.parent), "-o", "net", "--trust", "my_network.make", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "net" / "network.py").exists(), done.stderr
    words = ("samples=2", "trials=1", "calibration_batches=1", "max_val=16", "threads=1", "name=one")
    done = python("-m", "supernet.deploy", str(found.parent), "limits={parameters:1e5}", *words, "trust=[my_network.make]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    deployed = str(found.parent / "deployed" / "one")
    done = python("-m", "supernet.export", deployed, "-o", "smaller", "--trust", "my_network.make", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "smaller" / "network.py").exists(), done.stderr
