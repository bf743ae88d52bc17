import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from ops.op import BatchNorm, Normalisation
from supernet.app.build import build
from supernet.app.options import CONF
from supernet.data.cifar10 import CIFAR10
from supernet.evaluators.proxies import ProxyError, ZeroCost, grad_norm, jacob_cov, naswot, snip, synflow
from supernet.networks.build import initial_weights
from supernet.report.statistics import spearman
from supernet.spaces import darts, nasbench201, toy
from supernet.tables.files import read_table
from supernet.tasks.classification import Classification
from tests.shared import NB201, needs

NB = nasbench201.make()
PROXIES = {path.stem: build(OmegaConf.load(path)[path.stem]) for path in sorted((CONF / "proxy").glob("*.yaml"))}
CIFAR = "data"


class Plain(nn.Module):
    """A small network that the proxies can be computed for by hand."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 4, 3, padding=1), BatchNorm(4, affine=True), nn.Linear(4, 3)

    def forward(self, x, weights=None, *, generator=None):
        return self.b(F.relu(self.norm(self.a(x))).mean((2, 3)))


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return Plain().double(), (torch.randn(6, 3, 5, 5, dtype=torch.float64), torch.arange(6) % 3)


def test_synflow_is_its_definition(plain):
    net, batch = plain
    a, b = net.a.weight.detach().abs().requires_grad_(), net.b.weight.detach().abs().requires_grad_()
    ones = torch.ones(1, 3, 5, 5, dtype=torch.float64)
    out = F.linear(F.relu(F.conv2d(ones, a, net.a.bias.abs(), padding=1)).mean((2, 3)), b, net.b.bias.abs()).sum()
    want = sum((w * g).sum().item() for w, g in zip((a, b), torch.autograd.grad(out, (a, b))))
    assert synflow(net, batch, Classification()) == pytest.approx(want, rel=1e-12)


def test_synflow_counts_every_weight_by_its_size():
    class Difference(Plain):
        def forward(self, x, weights=None, *, generator=None):
            y = F.relu(self.norm(self.a(x)))
            return self.b((y * y).mean((2, 3))) - 3 * y[:, :3].sum((2, 3))  # some gradients are negative

    torch.manual_seed(0)
    net = Difference().double()
    weights = [p.detach().abs().requires_grad_() for p in net.parameters()]
    names = [name for name, _ in net.named_parameters()]
    flat = dict(zip(names, weights))
    y = F.relu(F.conv2d(torch.ones(1, 3, 5, 5, dtype=torch.float64), flat["a.weight"], flat["a.bias"], padding=1))
    out = (F.linear((y * y).mean((2, 3)), flat["b.weight"], flat["b.bias"]) - 3 * y[:, :3].sum((2, 3))).sum()
    weights = flat["a.weight"], flat["b.weight"]
    terms = [w.detach() * g for w, g in zip(weights, torch.autograd.grad(out, weights))]
    assert (terms[0] < 0).any() and (terms[0] > 0).any()
    found = synflow(net, (torch.zeros(1, 3, 5, 5), torch.zeros(1)), Classification())
    assert found == pytest.approx(sum(t.abs().sum().item() for t in terms), rel=1e-12)


def test_naswot_compares_codes_image_by_image(plain):
    net, batch = plain
    code = (F.relu(net.norm(net.a(batch[0]))) > 0).flatten(1)
    kernel = [[sum(bool(p == q) for p, q in zip(a, b)) for b in code] for a in code]
    assert naswot(net, batch, Classification()) == pytest.approx(np.linalg.slogdet(np.array(kernel, float))[1], rel=1e-10)
    same = (batch[0][:1].expand(3, -1, -1, -1), batch[1][:3])
    assert naswot(net, same, Classification()) == -math.inf


def test_gradient_proxies_are_their_definitions(plain):
    net, batch = plain
    grads = torch.autograd.grad(F.cross_entropy(net(batch[0]), batch[1]), (net.a.weight, net.b.weight))
    assert grad_norm(net, batch, Classification()) == pytest.approx(sum(g.norm().item() for g in grads))
    saliency = [(w * g).abs().sum().item() for w, g in zip((net.a.weight, net.b.weight), grads)]
    assert snip(net, batch, Classification()) == pytest.approx(sum(saliency))


def test_jacob_cov_is_its_definition(plain):
    net, batch = plain
    x = batch[0].clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(net(x).sum(), x)
    v = np.linalg.eigvalsh(np.corrcoef(jacobian.flatten(1).numpy()))
    assert jacob_cov(net, batch, Classification()) == pytest.approx(-np.sum(np.log(v + 1e-5) + 1 / (v + 1e-5)), rel=1e-4)


@pytest.mark.parametrize("space", [NB, darts.make(nodes=2)], ids=["nasbench201", "darts"])
def test_a_network_is_left_as_found(space):
    torch.manual_seed(0)
    net = space.network(space.candidates(space.sample(random.Random(0))), norm=Normalisation(True, False), layers=3, channels=2,
                        num_classes=3, image_size=(8, 8))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    batch = (torch.randn(6, 3, 8, 8), torch.arange(6) % 3)
    for name, proxy in PROXIES.items():
        assert isinstance(proxy(net, batch, Classification()), float), name
        assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in net.state_dict().items()) and net.training, name


def test_a_cell_without_a_path_has_no_flow_and_nothing_to_tell_images_apart_by():
    torch.manual_seed(0)
    genotype = NB.parse("|none~0|+|none~0|nor_conv_3x3~1|+|none~0|skip_connect~1|nor_conv_1x1~2|")
    net = NB.network(NB.candidates(genotype), norm=Normalisation(True, False), layers=3, channels=2, num_classes=3, image_size=(8, 8))
    found = ZeroCost(lambda genotype: net, (torch.randn(6, 3, 8, 8), torch.arange(6) % 3), Classification(), PROXIES)(genotype)
    assert found["synflow"] == 0 and found["naswot"] == found["jacob_cov"] == -math.inf
    assert found["parameters"] > 0 and all(math.isfinite(found[name]) for name in ("grad_norm", "snip", "multiply_adds"))


def test_a_relu_counts_once_for_each_op_that_reads_it():
    """Against the official way: a network in which every op applies its own ReLU."""
    space = toy.make()
    genotype = space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|")
    torch.manual_seed(0)
    net = space.network(space.candidates(genotype), norm=Normalisation(True, False), layers=3, channels=2, num_classes=3, image_size=(8, 8))
    x = torch.randn(5, 3, 8, 8)
    shared = naswot(net, (x, torch.zeros(5).long()), Classification())
    codes = []
    with torch.no_grad():
        state = net.stem(x)
        ops = net.cells[0].mixed.edges
        own = lambda edge, s: (codes.append(F.relu(s) > 0), ops[edge]["nor_conv_3x3"](s))[1]
        middle = own("0-1", state)
        state = own("0-2", state) + own("1-2", middle)
        for block in net.reductions:
            first = block.first(state)
            codes += [F.relu(state) > 0, F.relu(first) > 0]
            state = block(state)
        codes.append(F.relu(net.last(state)) > 0)
    kernel = sum((c.flatten(1)[:, None] == c.flatten(1)[None]).sum(-1).double() for c in codes)
    assert shared == pytest.approx(np.linalg.slogdet(kernel.numpy())[1], rel=1e-9)


@pytest.mark.parametrize("found, told", [(torch.ones(3), "got Tensor (3,)"), (torch.ones(()), "got Tensor ()"), (None, "got NoneType")])
def test_what_is_no_number_is_refused_by_the_name_of_its_proxy(found, told):
    with pytest.raises(ProxyError, match="proxy mine must return a number") as caught:
        ZeroCost(lambda genotype: None, None, None, {"mine": lambda net, batch, task: found})(None)
    assert told in str(caught.value)


def published_cells(number):
    table = read_table(NB201, NB)
    rows = random.Random(1).sample(range(len(table)), number)
    return table, rows, [table.genotype(row) for row in rows]


def full_size(genotype):
    with initial_weights(0):
        return NB.network(NB.candidates(genotype), norm=Normalisation(True, False), layers=17, channels=16, num_classes=10)


@needs(NB201)
def test_synflow_is_the_published_value_where_weights_begin_as_there():
    """The published values are means over three draws of normal weights (He et al. 2015, fan out); here one draw."""
    table, rows, genotypes = published_cells(60)
    ours, theirs = [], table.column("c10_synflow")[rows]
    for genotype in genotypes:
        net = full_size(genotype)
        with initial_weights(0):
            for m in net.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out")
        nn.init.zeros_(net.classifier.bias)
        ours.append(synflow(net, (torch.zeros(1, 3, 32, 32), torch.zeros(1)), Classification()))
    assert spearman(np.array(ours), theirs) >= 0.99
    ratio = np.array(ours) / theirs  # the values span 50 orders of magnitude
    assert 0.8 < np.median(ratio) < 1.25 and np.all((ratio > 0.4) & (ratio < 2.5))


@needs(NB201)
@pytest.mark.parametrize("name, cells", [("synflow", 100), ("naswot", 12), pytest.param("naswot", 100, marks=pytest.mark.slow)])
def test_proxies_order_cells_as_the_published_values_do(name, cells):
    source = CIFAR10(CIFAR)
    try:
        images = source.train()
    except ValueError as error:
        pytest.skip(f"needs CIFAR-10 under data/ ({error})")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (source.mean, source.std))
    batch = ((images.pixels[:64] / 255 - mean) / std, images.labels[:64])
    table, rows, genotypes = published_cells(cells)
    evaluate = ZeroCost(full_size, batch, Classification(), {name: PROXIES[name]})
    ours, theirs = np.array([evaluate(genotype)[name] for genotype in genotypes]), table.column(f"c10_{name}")[rows]
    finite = np.isfinite(ours) & np.isfinite(theirs)
    assert finite.sum() > 0.8 * cells
    assert spearman(ours[finite], theirs[finite]) >= 0.95
