import collections
import csv
import gzip
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ops.op import Normalisation
from supernet.networks.measure import multiply_adds, parameters
from supernet.networks.stacked import inherit
from supernet.spaces import nasbench201, toy
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.reference import close, make, relu_conv_bn
from tests.shared import NB201, needs

FINAL = Normalisation(affine=True, after_pools=False)
SEARCH = Normalisation(affine=False, after_pools=True)
SPACE = nasbench201.make()


def final(genotype, classes=10, side=32, layers=17, channels=16):
    return SPACE.network(SPACE.candidates(genotype), norm=FINAL, layers=layers, channels=channels, num_classes=classes,
                         image_size=(side, side))


@pytest.fixture(scope="module")
def table():
    with gzip.open(NB201, "rt") as file:
        return list(csv.DictReader(file))


def test_golden_facts():
    assert SPACE.count() == 15_625 and len(SPACE.cells["cell"].edges) == 6 and toy.make().count() == 27
    nothing = SPACE.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert parameters(final(nothing)) == 73_306


@needs(NB201)
def test_parameters_and_flops_of_all_cells_equal_the_table(table):
    """Both are linear in how often each op occurs, so that five networks give the coefficients; random ones are counted themselves."""
    def counted(text, classes, side):
        net = final(SPACE.parse(text), classes, side)
        return np.array([parameters(net), multiply_adds(net, (3, side, side)) + classes])  # the table counts the classifier's biases

    form = "|{0}~0|+|{0}~0|{0}~1|+|{0}~0|{0}~1|{0}~2|"
    for data, classes, side in (("c10", 10, 32), ("c100", 100, 32), ("in16", 120, 16)):
        none = counted(form.format("none"), classes, side)
        per_op = {op: (counted(form.format(op), classes, side) - none) / 6 for op in SPACE.cells["cell"].ops}
        stated = np.array([[row[f"{data}_params_m"], row[f"{data}_flops_m"]] for row in table], float)
        ours = np.array([none + sum(row["arch"].count(op) * value for op, value in per_op.items()) for row in table])
        print(f"{data}: largest difference of parameters and FLOPs over all {len(table):,} cells:", *np.abs(ours - 1e6 * stated).max(0))
        np.testing.assert_allclose(ours / 1e6, stated, rtol=0, atol=1e-9)
        for i in random.Random(0).sample(range(len(table)), 2):
            np.testing.assert_allclose(counted(table[i]["arch"], classes, side) / 1e6, stated[i], rtol=0, atol=1e-9)


@needs(NB201)
def test_all_texts_and_the_benchmarks_isomorphism(table):
    genotypes = [SPACE.parse(row["arch"]) for row in table]
    assert len(set(genotypes)) == 15_625
    assert [SPACE.text(g) for g in genotypes] == [row["arch"] for row in table]
    ours, theirs = collections.defaultdict(set), collections.defaultdict(set)
    for genotype, row in zip(genotypes, table):
        ours[SPACE.canonical(genotype)].add(row["iso_rep"])
        theirs[row["iso_rep"]].add(SPACE.canonical(genotype))
    assert len(ours) == 6466 and all(len(v) == 1 for v in (*ours.values(), *theirs.values()))


def test_cells_with_one_canonical_form_compute_the_same_function():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    by_form = collections.defaultdict(list)
    for genotype in SPACE.enumerate():
        if not any("conv" in e.op for e in genotype["cell"]):  # without parameters, so that equal functions give equal numbers
            by_form[SPACE.canonical(genotype)].append(genotype)
    groups = [group for group in by_form.values() if len(group) > 2]
    assert groups
    fixed = final(groups[0][0], side=8, layers=5, channels=4).double().state_dict()
    for group in groups[::5]:
        outputs = []
        for genotype in group:
            net = final(genotype, side=8, layers=5, channels=4).double()
            net.load_state_dict(fixed)
            outputs.append(net.eval()(x))
        assert all(torch.allclose(outputs[0], other, atol=1e-12) for other in outputs)


@pytest.mark.parametrize("norm", [SEARCH, replace(SEARCH, affine=True), replace(SEARCH, running_statistics=False)])
@pytest.mark.parametrize("seed", range(2))
def test_final_network_computes_what_the_supernet_computes_at_one_hot(seed, norm):
    genotype = SPACE.sample(random.Random(seed))
    sizes = {"norm": norm, "layers": 5, "channels": 4, "num_classes": 10, "image_size": (8, 8)}
    supernet = SPACE.network(SPACE.candidates(), **sizes).double()
    alone = SPACE.network(SPACE.candidates(genotype), **sizes).double()
    with torch.no_grad():  # factors and offsets that are not those at the start
        for p in supernet.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p))
    inherit(alone, supernet)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    hot = one_hot(SPACE, genotype, dtype=torch.float64)
    for mode in (True, False):
        torch.testing.assert_close(alone.train(mode)(x), supernet.train(mode)(x, hot), rtol=0, atol=1e-10)


@pytest.mark.parametrize("affine", [False, True])
def test_supernet_equals_the_edge_by_edge_sum(affine):
    torch.manual_seed(0)
    norm = replace(SEARCH, affine=affine)
    net = SPACE.network(SPACE.candidates(), norm=norm, layers=5, channels=4, num_classes=10, image_size=(9, 9)).double()
    spec = SPACE.cells["cell"]
    table = torch.rand(6, 5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 3, 9, 9, dtype=torch.float64)

    def slow_op(name, ours):
        if name.startswith("nor_conv"):
            size = int(name[-1])
            module = relu_conv_bn(4, 4, affine=affine)
            module[1] = torch.nn.Conv2d(4, 4, size, padding=size // 2, bias=False)
            module.double()
            module[1].weight.data.copy_(ours.body.weight)
            if affine:
                module[2].load_state_dict(ours.norm.state_dict(), strict=False)
            return module
        return make(name, 4, 1, False, False)  # pools without batch norm

    def slow_cell(state, cell):
        states = [state]
        for node in spec.nodes:
            total = 0
            for e, (source, destination) in enumerate(spec.edges):
                if destination == node:
                    for o, name in enumerate(spec.ops):
                        ours = cell.mixed.edges[f"{source}-{destination}"][name] if name.startswith("nor") else None
                        total = total + table[e, o] * slow_op(name, ours)(states[source])
            states.append(total)
        return states[-1]

    first = net.cells[0]
    for p in first.parameters():
        if p.dim() == 1:
            p.data.add_(torch.randn_like(p))
    inside = torch.randn(3, 4, 9, 9, dtype=torch.float64)
    ours = first([inside], Weights(table).scales())
    theirs = slow_cell(inside, first)
    close(ours, theirs, 1e-10)
    for a, b in zip(torch.autograd.grad(ours.square().sum(), [table]), torch.autograd.grad(theirs.square().sum(), [table])):
        close(a, b, 1e-10)
    assert net(x, EdgeWeights({"cell": Weights(table)})).shape == (3, 10)


@pytest.mark.parametrize("layers, cells", [(17, (5, 5, 5)), (8, (2, 2, 2)), (5, (1, 1, 1)), (3, (1, 0, 0))])
def test_depth_counts_cells_and_residual_blocks(layers, cells):
    net = SPACE.network(SPACE.candidates(), norm=SEARCH, layers=layers, channels=2, num_classes=2, image_size=(8, 8))
    assert len(net.cells) == sum(cells) and net.ends == (cells[0], cells[0] + cells[1])
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize("change, message", [({"layers": 2}, "layers >= 3"), ({"image_size": (2, 8)}, "sides of at least 4")])
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SPACE.network(SPACE.candidates(), **{"norm": SEARCH, "layers": 5, "channels": 2, "num_classes": 2} | change)
