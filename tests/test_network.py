import pytest
import torch

from ops import OPS, make_op
from ops.op import BatchNorm, Normalisation
from supernet import genotype as genotypes
from supernet.networks.build import final_normalisation
from supernet.spaces import darts
from tests.reference import ReferenceNetwork, close, like

SEARCH, FINAL = Normalisation(affine=False, after_pools=True), Normalisation(affine=True, after_pools=False)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def final(name, **sizes):
    genotype = genotypes.find(name)
    space = darts.make(**genotype.arguments)
    with torch.device("meta"):
        return space.network(space.candidates(genotype), **{"layers": 20, "channels": 36, "num_classes": 10, "norm": FINAL} | sizes)


def test_parameters_of_the_darts_supernet():
    space = darts.make()
    net = space.network(space.candidates(), layers=8, channels=16, num_classes=10, norm=SEARCH)
    assert parameters(net) == 1_930_618


@pytest.mark.parametrize("name, count", [("darts_v1", 3_169_414), ("darts_v2", 3_349_342)])
def test_parameters_of_published_cells(name, count):
    assert parameters(final(name)) == count


@pytest.mark.equation("dr_nas")
def test_pools_of_dr_nas_final_network_have_a_norm_without_factors():
    """Its operations.py: AvgPoolBN and MaxPoolBN, affine=False, in the search and in the final network."""
    found = genotypes.find("drnas_cifar10")
    space = darts.make(**found.arguments)
    candidates, norm = space.candidates(found), final_normalisation("always", "running")
    torch.manual_seed(0)
    net = space.network(candidates, layers=3, channels=4, num_classes=10, norm=norm).double()
    pools = [op for cell in net.cells for ops in (*cell.mixed.shared.values(), *cell.mixed.edges.values())
             for name, op in ops.items() if "pool" in name]
    assert pools and all(op.norm is not None and op.norm.weight is None for op in pools)
    other = like(net, space.cells, candidates, 4, 10, affine=True, pool_bn=True)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    close(net(x), other(x), 1e-10)
    close(net.eval()(x), other.eval()(x), 1e-10)
    assert parameters(final("drnas_cifar10", norm=norm)) == parameters(final("drnas_cifar10"))


def test_every_published_cell_builds_and_counts_like_the_reference():
    known = set(darts.OPS)
    compared = 0
    for name in genotypes.published_names():
        genotype = genotypes.find(name)
        net = final(name, layers=8)  # two normal cells in a row, and both kinds behind both: what 20 layers repeat
        space = darts.make(**genotype.arguments)
        reached = all({e.destination for e in genotype[k]} == set(space.cells[k].nodes) for k in space.cells)
        if {e.op for _, edges in genotype.cells for e in edges} <= known and reached:
            with torch.device("meta"):
                other = ReferenceNetwork(space.cells, space.candidates(genotype), net.kinds, 36, 10, affine=True, pool_bn=False)
            assert parameters(net) == parameters(other), name
            compared += 1
    assert compared >= 50


@pytest.mark.parametrize("size, channels", [(8, 1), (28, 1), (32, 3), (33, 3), (224, 3)])
def test_image_sizes(size, channels):
    space = darts.make()
    genotype = genotypes.find("darts_v2")
    sizes = dict(layers=5, channels=4, num_classes=7, in_channels=channels, image_size=(size, size))
    net = space.network(space.candidates(genotype), norm=FINAL, auxiliary=True, **sizes)
    logits, extra = net(torch.randn(2, channels, size, size), auxiliary=True)
    assert logits.shape == extra.shape == (2, 7)
    supernet = space.network(space.candidates(), norm=SEARCH, **(sizes | {"layers": 3}))
    assert supernet(torch.randn(2, channels, size, size)).shape == (2, 7)


def test_reductions_stand_at_one_and_two_thirds():
    space = darts.make()
    for layers, where in ((8, [2, 5]), (20, [6, 13]), (14, [4, 9]), (5, [1, 3])):
        with torch.device("meta"):
            net = space.network(space.candidates(), layers=layers, channels=4, num_classes=2, norm=SEARCH)
        assert [i for i, kind in enumerate(net.kinds) if kind == "reduce"] == where


@pytest.mark.parametrize("sizes, message", [
    ({"layers": 0}, "layers >= 1"), ({"channels": 1}, "channels >= 2"), ({"stem": "none"}, "stem must be")])
def test_bad_sizes(sizes, message):
    space = darts.make(nodes=1)
    with pytest.raises(ValueError, match=message):
        space.network(space.candidates(), **{"layers": 3, "channels": 4, "num_classes": 3, "norm": SEARCH} | sizes)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_equals_torch(affine):
    ours, theirs = BatchNorm(6, affine=affine).double(), torch.nn.BatchNorm2d(6, affine=affine).double()
    for step in range(3):
        x = torch.randn(5, 6, 4, 4, dtype=torch.float64)
        scale = torch.tensor(0.3 + step, dtype=torch.float64)
        torch.testing.assert_close(ours(x, scale), scale * theirs(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    before = ours.running_mean.clone()
    ours.updates = False
    ours(torch.randn(5, 6, 4, 4, dtype=torch.float64))
    assert torch.equal(before, ours.running_mean)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [8, 7, 1])
def test_every_op_keeps_or_halves_the_size(name, stride, size):
    op = make_op(name, 4, stride, SEARCH).eval()
    out = op(torch.randn(2, 4, size, size), torch.Generator())
    assert out.shape == (2, 4, -(-size // stride), -(-size // stride))


def test_unknown_op():
    with pytest.raises(ValueError, match="op must be one of none, skip_connect.*got 'conv_9x9'"):
        make_op("conv_9x9", 4, 1, SEARCH)
