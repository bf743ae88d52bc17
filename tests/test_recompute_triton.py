"""Cells that are computed again for the backward pass by the Triton kernels: the same bits. In Triton's interpreter on a CPU."""

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need Triton (pip install .[triton])")

from benchmarks.counting import addresses, saved_bytes
from ops import kernels
from ops.kernels import triton_kernels
from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.unrolled import unrolled
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts, nasbench201
from supernet.tasks.classification import Classification

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPS = ["none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3", "avg_pool_3x3", "max_pool_3x3"]
SMALL, FEW = darts.make(nodes=1, ops=OPS), darts.make(nodes=1, ops=OPS[:3])


@pytest.fixture(autouse=True)
def triton(monkeypatch):
    monkeypatch.setattr(triton_kernels, "computes", lambda x: x.dim() == 4 and x.stride(1) == 1)
    monkeypatch.setattr(kernels, "_fused", triton_kernels)


def make(space, checkpoint_cells, relaxation=Softmax, hypergradient=first_order, layers=3, drop_path=0.3, **network):
    torch.manual_seed(0)
    net = space.network(space.candidates(), layers=layers, channels=4, num_classes=3, norm=Normalisation(False, True),
                        checkpoint_cells=checkpoint_cells, **network).to(DEVICE, torch.float64, memory_format=torch.channels_last).train()
    net.drop_path_prob = drop_path
    alphas = relaxation(space, torch.Generator().manual_seed(0)).to(DEVICE, torch.float64)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    generators = {"alpha": torch.Generator().manual_seed(2), "net": torch.Generator(DEVICE).manual_seed(3)}
    return Bilevel(net, alphas, hypergradient, Classification(), sgd, torch.optim.Adam(alphas.parameters(), lr=1e-2), generators,
                   clip_norm=5.0)


def batch(seed, side=4):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, side, side, generator=g, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    return x.to(DEVICE), torch.randint(3, (2,), generator=g).to(DEVICE)


def moved(search):
    return [*search.net.state_dict().values(), *search.relaxation.state_dict().values(), *(p.grad for p in (*search.w, *search.alpha)),
            *(g.get_state() for g in search.generators.values())]


SEARCHES = {"darts": {"space": SMALL}, "nasbench201": {"space": nasbench201.make(), "layers": 5, "drop_path": 0.0},
            "partial channels": {"space": SMALL, "partial": 2}, "GDAS": {"space": SMALL, "relaxation": GumbelHard},
            "second order": {"space": FEW, "hypergradient": finite_difference},
            "exact second order, on the plain path": {"space": FEW, "hypergradient": unrolled}}
QUICK = ("GDAS",)  # the interpreter takes its time


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SEARCHES])
def test_a_step_gives_the_same_bits(name):
    """Weights, gradients, running statistics and generators, with drop path."""
    found = []
    for again in (False, True):
        search = make(checkpoint_cells=again, **SEARCHES[name])
        assert torch.isfinite(search.step(batch(0), batch(1))["loss"])
        found.append(moved(search))
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.slow
def test_less_is_kept_for_the_backward_pass():
    kept = []
    for again in (False, True):
        search, data = make(FEW, again, layers=4), batch(0)
        kept.append(saved_bytes(lambda search=search, data=data: search.w_step(data), addresses([*search.w, *search.alpha, *data])))
    assert kept[1] < 0.5 * kept[0], kept
