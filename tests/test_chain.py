"""Chains of layers: NAS-Bench-Macro against its table, the factorised layers against a slow reference."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ops.activations import ACTIVATIONS
from ops.op import Normalisation
from supernet.networks.measure import multiply_adds, parameters
from supernet.networks.stacked import inherit
from supernet.spaces import layerwise, nasbench_macro
from supernet.tables.files import read_table
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.reference import close
from tests.shared import MACRO, needs

SEARCH, FINAL = Normalisation(affine=False, after_pools=True), Normalisation(affine=True, after_pools=False)
MACRO_SPACE = nasbench_macro.make()
SMALL = layerwise.make(stages=[[1, 2], [2, 2]], kernels=[3, 5], expansions=[1, 2], widths=[50, 100], activations=["relu", "hard_swish"],
                       dropouts=[0, 20])

NARROW = layerwise.make(stages=[[1, 3], [2, 3]], widths=[25, 50], dropouts=[0, 20, 50])  # no layer at full width, more than one rate


def build(space, genotype=None, norm=SEARCH, channels=4, **more):
    return space.network(space.candidates(genotype), norm=norm, layers=space.sizes["layers"], channels=channels, num_classes=3, **more)


@needs(MACRO)
def test_parameters_and_flops_of_all_macro_architectures_equal_the_table():
    """Both are sums over layers, so that 1 + 8 * 2 networks give every term; random ones are counted themselves."""
    table = read_table(MACRO, MACRO_SPACE)
    assert len(table) == MACRO_SPACE.count() == 6561
    digits = np.array([[MACRO_SPACE.cells["layers"].ops.index(e.op) for e in table.genotype(row)["layers"]] for row in range(len(table))])

    def counted(row):
        net = MACRO_SPACE.network(MACRO_SPACE.candidates(table.genotype(row)), norm=FINAL, layers=8, channels=32, num_classes=10)
        return np.array([parameters(net), multiply_adds(net, (3, 32, 32))])

    def row_of(changes):
        want = np.zeros(8, int)
        for layer, digit in changes.items():
            want[layer] = digit
        return int(np.flatnonzero((digits == want).all(1))[0])

    base = counted(row_of({}))
    terms = np.array([[counted(row_of({layer: digit})) - base for digit in range(3)] for layer in range(8)])
    ours = base + terms[np.arange(8), digits].sum(1)
    stated = np.stack([table.column("params"), table.column("flops")], 1)
    assert np.abs(ours - stated).max() == 0
    for row in random.Random(0).sample(range(len(table)), 2):
        assert (counted(row) == stated[row]).all()
    best = int(table.column("test_accuracy").argmax())
    assert "".join(map(str, digits[best])) == "22212220" and round(table.column("test_accuracy")[best], 2) == 93.13


@needs(MACRO)
def test_macro_architectures_of_one_canonical_form_share_a_row_of_the_table():
    table = read_table(MACRO, MACRO_SPACE)
    columns = np.stack([table.column(name) for name in ("test_accuracy", "params", "flops")], 1)
    by_form = {}
    for row in range(len(table)):
        by_form.setdefault(MACRO_SPACE.canonical(table.genotype(row)), set()).add(tuple(columns[row]))
    assert len(by_form) == 3969 and all(len(values) == 1 for values in by_form.values())


@pytest.mark.parametrize("space", [MACRO_SPACE, SMALL], ids=["macro", "layerwise"])
def test_a_canonical_form_computes_the_same_function(space):
    """Ops of one name are made equal in all layers of the same shape, so that only what the genotype says can differ."""
    changed = 0
    for seed in range(12):
        genotype = space.sample(random.Random(seed))
        canonical = space.canonical(genotype)
        assert space.canonical(canonical) == canonical
        changed += canonical != genotype
        nets = [build(space, g).double().eval() for g in (genotype, canonical)]
        with torch.no_grad():
            for net in nets:
                for p in net.parameters():
                    p.copy_(torch.linspace(-0.3, 0.4, p.numel(), dtype=torch.float64).sin().view_as(p))
        x = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(nets[0](x), nets[1](x), rtol=0, atol=1e-12)
        assert parameters(nets[0]) == parameters(nets[1])
    assert changed >= 4


def test_edge_weights_are_multiplied_in():
    net = build(SMALL).double().eval()
    tables = {k: torch.rand(len(s.edges), len(s.ops), dtype=torch.float64) for k, s in SMALL.cells.items()}
    factors = {k: torch.rand(len(s.edges), dtype=torch.float64) for k, s in SMALL.cells.items()}
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    ours = net(x, EdgeWeights({k: Weights(t, edges=factors[k]) for k, t in tables.items()}))
    theirs = net(x, EdgeWeights({k: Weights(t * factors[k][:, None]) for k, t in tables.items()}))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_counts_are_those_of_enumeration():
    tiny = layerwise.make(stages=[[1, 1], [2, 1]], kernels=[3, 5], expansions=[1], widths=[50, 100], activations=["relu"], dropouts=[0])
    every = set(tiny.enumerate())
    assert len(every) == tiny.count() == (2 * 2) * 2 * (2 * 2) * 2  # kernel and width of each; the first may be skipped, the other pools
    assert len({tiny.canonical(g) for g in every}) == (2 * 2 + 2) * (2 * 2) * 2


def test_every_kind_has_one_row_a_layer():
    space = layerwise.make()
    assert {len(spec.edges) for spec in space.cells.values()} == {6}
    assert [space.cells["pooling"].ops[row.index(True)] for row in space.cells["pooling"].present] == \
        ["no_pool", "no_pool", "max_pool", "no_pool", "max_pool", "no_pool"]


def test_golden_counts():
    per_layer = 3 * 3 * 3 * 3 * 2
    assert layerwise.make().count() == per_layer**6 * 2**4 * 2**2  # the first layers of stages 2 and 3 cannot be skipped, and pool


@pytest.mark.parametrize("space", [MACRO_SPACE, SMALL, NARROW], ids=["macro", "layerwise", "narrow"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("training", [True, False])
def test_final_network_computes_what_the_supernet_computes_at_one_hot(space, seed, training):
    torch.manual_seed(seed)
    genotype = space.sample(random.Random(seed))
    supernet, final = build(space).double(), build(space, genotype).double()
    inherit(final, supernet)
    x = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    supernet.train(training), final.train(training)
    ours = final(x, generator=torch.Generator().manual_seed(0))
    theirs = supernet(x, one_hot(space, genotype, dtype=torch.float64), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert parameters(final) <= parameters(supernet)


def slow_layer(layer, x, weights, index, begins_stage, training_noise):
    """`out = width_mask * (run * block(x) + x)`, term by term; `training_noise` (N, C) is what dropout compares with its rates."""
    w = {kind: dict(zip(SMALL.cells[kind].ops, table[index])) for kind, table in weights.items() if kind != "pooling"}

    def norm(y):
        return F.batch_norm(y, None, None, training=True)

    def activated(y):
        return sum(w["activation"][name] * ACTIVATIONS[name](y) for name in ("relu", "hard_swish"))

    if begins_stage:
        w["pooling"] = dict(zip(SMALL.cells["pooling"].ops, weights["pooling"][index]))
        x = (w["pooling"]["max_pool"] * F.max_pool2d(x, 2, 2, ceil_mode=True)
             + w["pooling"]["avg_pool"] * F.avg_pool2d(x, 2, 2, ceil_mode=True))
    h = activated(norm(F.conv2d(x, layer.expand.weight)))
    hidden = h.shape[1]
    h = activated(sum(w["kernel"][f"kernel_{k}"] * norm(F.conv2d(h, layer.depthwise[f"kernel_{k}"].weight, padding=k // 2, groups=hidden))
                      for k in (3, 5)))
    half = hidden // 2
    h = w["expansion"]["expansion_1"] * torch.cat([h[:, :half], torch.zeros_like(h[:, half:])], 1) + w["expansion"]["expansion_2"] * h
    h = norm(F.conv2d(h, layer.project.weight))
    h = w["dropout"]["dropout_0"] * h + w["dropout"]["dropout_20"] * h * (training_noise >= 0.2)[:, :, None, None] / 0.8
    h = w["depth"]["run"] * h
    if not begins_stage:
        h = h + x
    half = h.shape[1] // 2
    return w["width"]["width_50"] * torch.cat([h[:, :half], torch.zeros_like(h[:, half:])], 1) + w["width"]["width_100"] * h


def test_factorised_layers_equal_the_slow_sum():
    torch.manual_seed(0)
    net = build(SMALL).double()
    tables = {k: torch.rand(len(s.edges), len(s.ops), dtype=torch.float64, requires_grad=True) for k, s in SMALL.cells.items()}
    x = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    ours = net(x, EdgeWeights({k: Weights(t) for k, t in tables.items()}), generator=torch.Generator().manual_seed(1))
    generator, y = torch.Generator().manual_seed(1), net.stem(x)
    for index, layer in enumerate(net.layers):
        noise = torch.rand(4, layer.full_width, 1, 1, generator=generator, dtype=torch.float64)[:, :, 0, 0]
        y = slow_layer(layer, y, tables, index, index == 2, noise)
    theirs = net.classifier(net.head(y).mean((2, 3)))
    close(ours, theirs, 1e-10)
    inputs = [*tables.values(), *net.parameters()]
    gradients = [torch.autograd.grad(out.square().sum(), inputs, allow_unused=True, materialize_grads=True) for out in (ours, theirs)]
    for a, b in zip(*gradients):
        close(a, b, 1e-9)


@pytest.mark.parametrize("space", [MACRO_SPACE, SMALL], ids=["macro", "layerwise"])
def test_inactive_choices_are_not_computed_nor_read(space):
    net = build(space).double()
    genotype = space.sample(random.Random(0))
    hot = one_hot(space, genotype, dtype=torch.float64)
    spoiled = EdgeWeights({k: Weights(w.ops + torch.where(w.ops == 0, torch.nan, 0.0), active=w.active) for k, w in hot.items()})
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    a, b = (net(x, w, generator=torch.Generator().manual_seed(0)) for w in (hot, spoiled))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("space", [MACRO_SPACE, SMALL], ids=["macro", "layerwise"])
def test_drop_path_acts_in_training_only_and_asks_for_a_generator(space):
    net = build(space, space.sample(random.Random(1)))
    net.drop_path_prob = 0.5
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net.eval()(x), net(x))
    a, b = (net.train()(x, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match="generator="):
        net(x)


def test_drop_path_drops_the_blocks_of_all_choices_of_a_layer_together_and_no_shortcut():
    layer = next(layer for layer in build(MACRO_SPACE).double().layers if all(op.shape_kept for op in layer.ops.values()))
    channels = next(op.body for op in layer.ops.values() if op.body is not None).project.out_channels
    x = torch.randn(256, channels, 4, 4, dtype=torch.float64)
    row = {name: torch.tensor(0.5, dtype=torch.float64) for name in layer.ops}
    whole = layer(x, {"layers": row}, 0.0, None)
    dropped = layer(x, {"layers": row}, 0.25, torch.Generator().manual_seed(0))
    shortcut = 0.5 * len(row) * x
    factors = ((dropped - shortcut) / (whole - shortcut)).flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors)), "one draw for all choices"
    assert {round(v, 6) for v in factors[:, 0].tolist()} == {0.0, round(1 / 0.75, 6)}


@pytest.mark.parametrize("options, message", [
    ({"stages": []}, "stages"), ({"stages": [[1, 0]]}, "stages"), ({"stages": [[1, 101]]}, "at most 100"),
    ({"kernels": [2]}, "kernels"), ({"expansions": [0]}, "expansions"), ({"widths": [101]}, "widths"),
    ({"dropouts": [100]}, "dropouts"), ({"activations": ["step"]}, "activations"), ({"poolings": []}, "poolings"),
    ({"kernels": ["3"]}, "kernels"), ({"widths": [50, 50]}, "widths"),
])
def test_options_of_the_layerwise_space_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        layerwise.make(**options)
