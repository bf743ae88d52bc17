"""Cells that are computed again for the backward pass: the same bits, less memory."""

import random
from contextlib import nullcontext

import pytest
import torch

from ops.kernels import on_plain_path
from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.implicit import neumann
from supernet.hypergradients.unrolled import unrolled
from supernet.networks.measure import peak_memory
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.perturbed import Adversarial
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts, nasbench201
from supernet.tasks.classification import Classification
from supernet.training.search import set_skip_dropout
from tests import backends

NOISY = darts.make(nodes=2, ops=["none", "skip_connect", "noise", "sep_conv_3x3", "avg_pool_3x3"])
SPACES = {"darts": (darts.make(nodes=2), {}), "nasbench201": (nasbench201.make(), {}), "noise ops": (NOISY, {}),
          "pc-darts": (darts.make(nodes=2), {"partial": 2})}


@pytest.fixture(params=["plain", "native"], autouse=True)
def backend(request):
    with backends.using(request.param):
        yield request.param


def make(space, checkpoint_cells, relaxation=Softmax, hypergradient=first_order, channels=4, layers=4, dtype=torch.float64, **network):
    torch.manual_seed(0)
    net = space.network(space.candidates(), layers=layers, channels=channels, num_classes=3, norm=Normalisation(False, True),
                        checkpoint_cells=checkpoint_cells, **network).to(dtype, memory_format=torch.channels_last).train()
    net.drop_path_prob = 0.3
    set_skip_dropout(net, 0.2)
    alphas = relaxation(space, torch.Generator().manual_seed(0)).to(dtype)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    return Bilevel(net, alphas, hypergradient, Classification(), sgd, torch.optim.Adam(alphas.parameters(), lr=1e-2),
                   {"alpha": torch.Generator().manual_seed(2), "net": torch.Generator().manual_seed(3)}, clip_norm=5.0)


def batch(seed, n=4, side=8, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, side, side, generator=g, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(3, (n,), generator=g)


def moved(search):
    return [*search.net.state_dict().values(), *search.relaxation.state_dict().values(), *(p.grad for p in (*search.w, *search.alpha)),
            *(g.get_state() for g in search.generators.values())]


def same_bits(a, b):
    return all((x is None and y is None) or torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", SPACES)
def test_two_steps_give_the_same_bits(name):
    """With drop path, dropout of skips and noise ops: weights, gradients, running statistics and generators."""
    space, options = SPACES[name]
    searches = [make(space, again, **options) for again in (False, True)]
    for search in searches:
        stats = [search.step(batch(n), batch(n + 5))["loss"] for n in range(2)]
        assert torch.isfinite(torch.stack(stats)).all()
    assert same_bits(*map(moved, searches))


METHODS = {"finite difference": {"hypergradient": finite_difference}, "unrolled": {"hypergradient": unrolled},
           "implicit": {"hypergradient": neumann}, "sampled": {"relaxation": GumbelHard},
           "adversarial": {"relaxation": lambda s, g: Adversarial(Softmax(s, g), s, g, steps=2)}}


@pytest.mark.parametrize("name", METHODS)
def test_every_way_to_differentiate_gives_the_same_bits(name):
    """Those that differentiate twice, too, and those whose weights or flags are other ones by the time of the backward pass."""
    searches = [make(darts.make(nodes=1), again, layers=3, **METHODS[name]) for again in (False, True)]
    for search in searches:
        search.step(batch(0), batch(1))
    assert same_bits(*map(moved, searches))


def test_a_final_network_with_an_auxiliary_head_gives_the_same_bits():
    space = darts.make()
    candidates = space.candidates(space.sample(random.Random(0)))
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        net = space.network(candidates, layers=5, channels=4, num_classes=3, norm=Normalisation(True, False), auxiliary=True,
                            image_size=(8, 8), checkpoint_cells=again).to(torch.float64, memory_format=torch.channels_last).train()
        net.drop_path_prob = 0.4
        g = torch.Generator().manual_seed(1)
        Classification(auxiliary_weight=0.4)(net, batch(0), generator=g).loss.backward()
        found.append([*(p.grad for p in net.parameters()), *net.state_dict().values(), g.get_state()])
    assert same_bits(*found)


def test_evaluation_and_what_needs_no_gradient_compute_once():
    search = make(darts.make(nodes=1), True, layers=3)
    calls = []
    search.net.cells[0].register_forward_pre_hook(lambda *args: calls.append(0))
    forward = lambda: search.net(batch(0)[0], search.relaxation.mean(), generator=search.generators["net"])
    with torch.no_grad():
        forward()
    search.net.eval()
    forward().sum().backward()
    assert len(calls) == 2
    search.net.train()
    forward().sum().backward()
    assert len(calls) == 4


@pytest.mark.parametrize("forward, backward", [(nullcontext, on_plain_path), (on_plain_path, nullcontext)])
def test_a_cell_is_computed_again_on_the_path_of_its_forward_pass(forward, backward):
    """Wherever the backward pass runs."""
    found = []
    for again in (False, True):
        search = make(darts.make(nodes=1), again, layers=3)
        with forward():
            loss = search.net(batch(0)[0], search.relaxation.mean(), generator=search.generators["net"]).square().sum()
        with backward():
            found.append(torch.autograd.grad(loss, search.w, allow_unused=True))
    assert same_bits(*found)


def test_the_peak_is_lower():
    """Of live tensors, in a weight step: what remains is about one cell's activations and the others' inputs."""
    peaks = []
    for again in (False, True):
        search = make(darts.make(nodes=2), again, layers=6, channels=4, dtype=torch.float32)
        step = lambda search=search: search.w_step(batch(0, n=8, side=16, dtype=torch.float32))
        peaks.append(peak_memory(step, torch.device("cpu"), [*search.net.parameters(), *search.net.buffers()]))
    assert peaks[1] < 0.5 * peaks[0], peaks
