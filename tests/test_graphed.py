"""The step as CUDA graphs hold it: against the published loop, against the eager step, and what is refused. Without a GPU the captured
functions run as they are, or as a stand-in for a graph replays them."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.costs.additive import additive
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.implicit import neumann
from supernet.hypergradients.single_level import single_level
from supernet.hypergradients.unrolled import unrolled
from supernet.monitors.freezing import OpFreezing
from supernet.monitors.skips import SkipCount
from supernet.optim.descent import descend
from supernet.optim.flat import FlatDescent
from supernet.optim.optimizers import ExponentiatedGradient, make_static, set_lr
from supernet.penalties.alphas import BetaDecay, DirichletKL
from supernet.penalties.cost import CostLimit
from supernet.penalties.layer_alignment import LayerAlignment
from supernet.penalties.weights import Entropy, ZeroOne
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.greedy import Greedy
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.perturbed import Adversarial, RandomPerturbed
from supernet.relaxations.reinmax import ReinMax
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.simplex import Simplex
from supernet.relaxations.softmax import Softmax
from supernet.relaxations.uniform import Uniform
from supernet.spaces import darts
from supernet.tasks.classification import Classification
from supernet.tasks.language_model import LanguageModel
from supernet.training.graphed import Capturing, Graphed, check_graphable, host_numbers
from supernet.weights import EdgeWeights, Weights
from tests import reference

OPS = ["none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3", "max_pool_3x3"]
SPACE, SMALL = darts.make(nodes=2, ops=OPS), darts.make(nodes=1, ops=OPS)
BATCH = 6
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}


def make(relaxation=Softmax, hypergradient=first_order, alpha_optimizer=torch.optim.Adam, device="cpu", dtype=torch.float64, space=SPACE,
         task=None, penalties=(), channels=2, flat=False, **network):
    """A search of its own, always the same, with one BN-free way to draw: `alpha`."""
    torch.manual_seed(0)
    net = space.network(space.candidates(), layers=3, channels=channels, num_classes=3, norm=Normalisation(False, True), **network)
    net = net.to(device, dtype).train()
    alphas = relaxation(space, torch.Generator().manual_seed(1)).to(device, dtype)
    optimizer = alpha_optimizer(alphas.parameters(), lr=1e-2) if list(alphas.parameters()) else None
    generators = {"alpha": torch.Generator().manual_seed(2), "net": torch.Generator(device).manual_seed(3)}
    sgd = torch.optim.SGD(net.parameters(), **SGD)
    return Bilevel(net, alphas, hypergradient, task or Classification(), sgd, optimizer, generators, clip_norm=5.0,
                   penalties=[p(space) for p in penalties], descend=FlatDescent(sgd) if flat else descend)


def batches(sizes, device="cpu", dtype=torch.float64):
    g = torch.Generator().manual_seed(7)
    return [(torch.randn(n, 3, 8, 8, generator=g, dtype=dtype).to(device), torch.randint(3, (n,), generator=g).to(device)) for n in sizes]


def state(search):
    """All that a step may move."""
    return [*search.net.state_dict().values(), *search.relaxation.state_dict().values(),
            *(v for o in (search.w_optimizer, search.alpha_optimizer) if o for s in o.state.values() for v in s.values()),
            *(g.get_state() for g in search.generators.values())]


def assert_close(mine, theirs, tolerance):
    """As `reference.close`, tensor by tensor; those that are 0 but for rounding (the mean of what a norm has centred) count as 1."""
    for a, b in zip(mine, theirs, strict=True):
        if a is None or b is None:
            assert a is b
        elif a.is_floating_point():
            scale = b.abs().max().item()
            assert (a - b).abs().max().item() <= tolerance * (scale if scale > 1e-12 else 1.0)
        else:
            assert torch.equal(a, b)


class StandIn:
    """A graph on the CPU. `capture` calls the function, as capturing does, and takes back whatever it changed, because a captured
    function does not run; `replay` calls it again and writes into the same outputs and gradients."""

    def __init__(self, search):
        self.search, self.captured, self.warmed, self.settled, self.forgotten = search, 0, 0, 0, 0

    def warm_up(self, run):
        self.warmed += 1
        return run()

    def capture(self, run, generators=()):
        search, parts = self.search, (self.search.net, self.search.relaxation, self.search.w_optimizer, self.search.alpha_optimizer)
        drawn = [g.get_state() for g in search.generators.values()]
        before = [copy.deepcopy(part.state_dict()) for part in parts]
        held = [[s for s in o.state.values()] for o in (search.w_optimizer, search.alpha_optimizer)]
        assert all(len(s) for states in held for s in states), "an optimizer would make its state within the graph"
        outputs = run()
        assert all(torch.equal(a, g.get_state()) for a, g in zip(drawn, search.generators.values())), "drawn within the graph"
        with torch.no_grad():
            for part, old in zip(parts[:2], before):
                for name, value in part.state_dict().items():
                    value.copy_(old[name])
            for optimizer, old in zip(parts[2:], before[2:]):
                for mine, theirs in zip(optimizer.state_dict()["state"].values(), old["state"].values()):
                    for key, value in mine.items():
                        value.copy_(theirs[key])
        self.captured += 1
        return StandInGraph(run, outputs, self.search)

    def settle(self):
        self.settled += 1

    def forget(self):
        self.forgotten += 1


class StandInGraph:
    def __init__(self, run, outputs, search):
        self.run, self.outputs, self.parameters = run, outputs, (*search.w, *search.alpha)
        self.gradients = [p.grad for p in self.parameters]

    def replay(self):
        outside = [p.grad for p in self.parameters]
        new = self.run()
        for name, value in self.outputs.items():
            value.copy_(new[name])
        for p, before, mine in zip(self.parameters, outside, self.gradients):
            if p.grad is not before:  # set by this graph
                assert (p.grad is None) == (mine is None)
                if mine is not None:
                    mine.copy_(p.grad)
                p.grad = before  # a replay moves no reference on the host

    def release(self):
        pass


HOW = {"as it is": lambda search: None, "captured": StandIn}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("hypergradient, tolerance", [(first_order, 1e-9), (finite_difference, 1e-6)])
def test_steps_equal_the_published_loop_on_the_reference_network(hypergradient, tolerance, how):
    """Alpha step, then weight step with clipping and momentum, other batches and another learning rate each time; the graph warms up for
    two steps, is captured in the third, and replayed twice. The published loop is plain PyTorch, edge by edge."""
    search = make(hypergradient=hypergradient)
    graphed = Graphed(search, batch_size=BATCH, capturing=HOW[how](search), warm_up=2)
    graphed.refresh()
    ref = reference.like(search.net, SPACE.cells, SPACE.candidates(), 2, 3)
    alpha = [a.detach().clone().requires_grad_() for a in search.alpha]
    sgd, adam = torch.optim.SGD(ref.parameters(), **SGD), torch.optim.Adam(alpha, lr=1e-2)
    weights = lambda: EdgeWeights({k: Weights(a.softmax(-1)) for k, a in zip(("normal", "reduce"), alpha)})
    loss = lambda net, batch: nn.functional.cross_entropy(net(batch[0], weights()), batch[1])
    data = batches([BATCH] * 8)
    for lr, train, val in zip((0.1, 0.05, 0.05, 0.02), data[0::2], data[1::2]):
        for optimizer in (sgd, search.w_optimizer):
            set_lr(optimizer, lr)
        stats = graphed.step(train, val)
        grads = published_second_order(ref, loss, alpha, sgd, train, val) if hypergradient is finite_difference else \
            torch.autograd.grad(loss(ref, val), alpha)
        for a, g in zip(alpha, grads):
            a.grad = g
        adam.step()
        sgd.zero_grad()
        expected = loss(ref, train)
        expected.backward(inputs=list(ref.parameters()))
        nn.utils.clip_grad_norm_(ref.parameters(), 5.0)
        sgd.step()
        reference.close(stats["loss"], expected.detach() * BATCH, tolerance)
        for mine, theirs in zip(search.alpha, alpha):
            reference.close(mine, theirs, tolerance)
        for mine, theirs in reference.parameters_side_by_side(search.net, ref):
            reference.close(mine, theirs, tolerance)


def published_second_order(net, loss, alpha, sgd, train, val):
    """quark0/darts, architect.py: a second network at w', then the central difference around w."""
    w = list(net.parameters())
    g = torch.autograd.grad(loss(net, train), w)
    group, other = sgd.param_groups[0], copy.deepcopy(net)
    with torch.no_grad():
        for p, q, slope in zip(w, other.parameters(), g):
            moment = sgd.state.get(p, {}).get("momentum_buffer", torch.zeros_like(p))
            q.sub_(group["lr"] * (group["momentum"] * moment + slope + group["weight_decay"] * p))
    both = torch.autograd.grad(loss(other, val), [*alpha, *other.parameters()])
    direct, v = both[: len(alpha)], both[len(alpha):]
    radius = 1e-2 / torch.cat([t.flatten() for t in v]).norm()
    slopes = []
    for sign in (1, -1):
        shifted = copy.deepcopy(net)
        with torch.no_grad():
            for q, direction in zip(shifted.parameters(), v):
                q.add_(sign * radius * direction)
        slopes.append(torch.autograd.grad(loss(shifted, train), alpha))
    return [d - group["lr"] * (p - n) / (2 * radius) for d, p, n in zip(direct, *slopes)]


SEARCHES = {
    "softmax": {}, "sigmoid": {"relaxation": Sigmoid, "penalties": [ZeroOne]},
    # without `none`: a node whose edges all draw it is 0, where ReLU has a kink that rounding falls off
    "reinmax": {"relaxation": ReinMax, "space": darts.make(nodes=1, ops=["skip_connect", "sep_conv_3x3", "avg_pool_3x3"])},
    "concrete": {"relaxation": Concrete, "penalties": [Entropy, BetaDecay]},
    "dirichlet": {"relaxation": Dirichlet, "penalties": [DirichletKL]},
    "simplex": {"relaxation": lambda s, g: EdgeNormalised(Simplex(s, g), s, g, form="simplex"), "alpha_optimizer": ExponentiatedGradient},
    # two channels for the ops: the weight of one alone before a norm has no gradient but for the norm's eps
    "pc-darts": {"relaxation": lambda s, g: EdgeNormalised(Softmax(s, g), s, g), "channels": 4, "partial": 2},
    "darts-": {"relaxation": lambda s, g: AuxiliarySkip(Softmax(s, g), s, g), "auxiliary_skip": True},
    "single level": {"hypergradient": single_level}, "second order": {"hypergradient": finite_difference},
    "adamw": {"alpha_optimizer": torch.optim.AdamW}, "checkpointed": {"checkpoint_cells": True},
    "flat weights": {"flat": True}, "flat weights, second order": {"flat": True, "hypergradient": finite_difference},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", SEARCHES)
def test_equals_the_eager_step(name, how):
    """Two epochs with a smaller last batch on either side, alphas in every second step, and the numbers of the epochs: learning
    rates, temperatures, penalties' weights, the last epoch without an auxiliary skip."""
    eager, search = (make(**{"space": SMALL} | SEARCHES[name]) for _ in range(2))
    capturing = HOW[how](search)
    graphed = Graphed(search, batch_size=BATCH, capturing=capturing, warm_up=2)
    ours, theirs = [], []
    for s, seen in ((search, ours), (eager, theirs)):
        s.guard = lambda what, value, batch, seen=seen: seen.append((what, value.item(), id(batch)))
    train, val = batches([BATCH] * 5 + [4]), batches([BATCH] * 2 + [2])
    for epoch in range(2):
        for s in (eager, search):
            s.anneal(epoch / 1, epoch)
        graphed.refresh()
        for n, batch in enumerate(train):
            for s in (eager, search):
                set_lr(s.w_optimizer, 0.1 / (1 + n))
                set_lr(s.alpha_optimizer, 0.01 / (1 + epoch))
            other = val[n // 2] if n % 2 == 0 else None
            stats, expected = graphed.step(batch, other), eager.step(batch, other)
            assert stats["correct"] == expected["correct"] and stats["count"] == expected["count"]
            reference.close(stats["loss"], expected["loss"], 1e-9)
    assert_close(state(search), state(eager), 1e-9)
    for (what, value, batch), (same, expected, seen) in zip(ours, theirs, strict=True):
        assert (what, batch) == (same, seen) and value == pytest.approx(expected, rel=1e-8)
    assert_close([p.grad for p in search.w], [p.grad for p in eager.w], 1e-9)
    if capturing is not None:
        assert capturing.captured >= 2 and capturing.warmed >= 4


def test_a_graph_is_captured_once_unless_a_number_of_the_host_changes():
    search = make(relaxation=Concrete)
    standing = StandIn(search)
    graphed = Graphed(search, batch_size=BATCH, capturing=standing, warm_up=2)
    train, val = batches([BATCH] * 2)
    for epoch in range(3):
        search.anneal(0.0, epoch)  # the temperature stays
        graphed.refresh()
        for _ in range(3):
            graphed.step(train, val)
    captured = standing.captured
    assert captured in (2, 4)  # modules may note on first use what they are
    search.anneal(0.5, 3)
    graphed.refresh()
    for _ in range(3):
        graphed.step(train, val)
    assert standing.captured == captured + 2
    before = host_numbers(search)
    search.w[3].requires_grad_(False)
    assert host_numbers(search) != before


@pytest.mark.parametrize("how", HOW)
def test_goes_on_from_a_checkpoint_to_the_same_bits(how):
    """Warming up takes the same step as a replay, so that it does not matter where a run was broken."""
    def run(search, data, start):
        graphed = Graphed(search, batch_size=BATCH, capturing=HOW[how](search), warm_up=2)
        for n, (train, val) in enumerate(zip(data[0::2], data[1::2]), start):
            set_lr(search.w_optimizer, 0.1 / (1 + n))
            graphed.step(train, val)
        return search

    data, parts = batches([BATCH] * 16), ("net", "relaxation", "w_optimizer", "alpha_optimizer")
    new = functools.partial(make, relaxation=Concrete, space=SMALL)
    unbroken, first, second = run(new(), data, 0), run(new(), data[:8], 0), new()
    for name in parts:
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    for name, generator in second.generators.items():
        generator.set_state(first.generators[name].get_state())
    run(second, data[8:], 4)
    assert all(torch.equal(a, b) for a, b in zip(state(second), state(unbroken), strict=True))
    assert second.w_optimizer.param_groups[0]["lr"] == unbroken.w_optimizer.param_groups[0]["lr"]


def test_results_of_a_step_outlive_the_next():
    search = make()
    graphed = Graphed(search, batch_size=BATCH, capturing=StandIn(search), warm_up=2)
    data = batches([BATCH] * 4)
    for _ in range(3):
        graphed.step(data[0], data[1])
    first = graphed.step(data[0], data[1])
    kept = {name: value.clone() for name, value in first.items()}
    graphed.step(data[2], data[3])
    assert all(torch.equal(first[name], kept[name]) for name in kept)


def test_a_static_optimizer_reads_its_learning_rate_from_one_tensor():
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.5)
    make_static(optimizer)
    lr = optimizer.param_groups[0]["lr"]
    set_lr(optimizer, 0.25)
    make_static(optimizer)
    assert optimizer.param_groups[0]["lr"] is lr and lr.item() == 0.25 and f"{lr:.4g}" == "0.25"
    p.grad = torch.ones_like(p)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full_like(p, 0.75), rtol=0, atol=1e-7)


TWO_OPS = darts.make(nodes=1, ops=["skip_connect", "sep_conv_3x3"])  # 16 sets of ops
SAMPLED = {"first order": {}, "second order": {"hypergradient": finite_difference},
           "edge weights": {"relaxation": lambda s, g: EdgeNormalised(GumbelHard(s, g), s, g)}}


@pytest.mark.parametrize("name, kept", [("first order", 1000), ("edge weights", 3),
                                        pytest.param("second order", 3, marks=pytest.mark.slow)])
def test_sampled_draws_equal_the_eager_step(name, kept):
    """Two epochs, with another temperature each and a smaller last batch: ops that were not drawn have no gradient and stay where they are,
    whatever graph was replayed before."""
    eager, search = (make(**{"relaxation": GumbelHard, "space": TWO_OPS, "flat": True} | SAMPLED[name]) for _ in range(2))
    standing = StandIn(search)
    graphed = Graphed(search, batch_size=BATCH, capturing=standing, warm_up=2, kept=kept)
    train, val = batches([BATCH] * 39 + [4]), batches([BATCH] * 40)
    lacked = set()
    for epoch in range(2):
        for s in (eager, search):
            s.anneal(epoch / 1, epoch)
        graphed.refresh()
        for n, (batch, other) in enumerate(zip(train, val)):
            for s in (eager, search):
                set_lr(s.w_optimizer, 0.01 / (1 + n))
            ours, theirs = graphed.step(batch, other), eager.step(batch, other)
            reference.close(ours["loss"], theirs["loss"], 1e-8)
            lacks = [p.grad is None for p in search.w]
            assert lacks == [p.grad is None for p in eager.w]
            lacked.add(tuple(lacks))
    assert_close(state(search), state(eager), 1e-7)
    assert len(lacked) > 3 and all(len(halves) <= kept for halves in graphed.halves.values())
    assert standing.captured > 8 if kept == 1000 else standing.captured >= standing.settled > 0


def test_sampled_draws_go_on_from_a_checkpoint_to_the_same_bits():
    def run(search, data, start):
        graphed = Graphed(search, batch_size=BATCH, capturing=StandIn(search), warm_up=2, kept=8)
        for n, (train, val) in enumerate(zip(data[0::2], data[1::2]), start):
            set_lr(search.w_optimizer, 0.1 / (1 + n))
            graphed.step(train, val)
        return search

    new = functools.partial(make, relaxation=GumbelHard, space=TWO_OPS, flat=True)
    data = batches([BATCH] * 80)
    unbroken, first, second = run(new(), data, 0), run(new(), data[:50], 0), new()
    for name in ("net", "relaxation", "w_optimizer", "alpha_optimizer"):
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    for name, generator in second.generators.items():
        generator.set_state(first.generators[name].get_state())
    run(second, data[50:], 25)
    assert all(torch.equal(a, b) for a, b in zip(state(second), state(unbroken), strict=True))


def test_sampled_draws_need_flat_weights_and_the_host_to_know_no_more_than_the_ops():
    x = batches([1])[0][0]
    check_graphable(make(relaxation=GumbelHard, flat=True), [], x, kept=4)
    with pytest.raises(ValueError, match="^sampled_graphs=4 needs flat_weights=true"):
        check_graphable(make(relaxation=GumbelHard), [], x, kept=4)
    with pytest.raises(ValueError, match="cannot hold Adversarial"):
        check_graphable(make(relaxation=lambda s, g: Adversarial(GumbelHard(s, g), s, g), flat=True), [], x, kept=4)
    with pytest.raises(ValueError, match="cannot hold Uniform"):
        check_graphable(make(relaxation=Uniform, flat=True), [], x, kept=4)


REFUSED = {
    "GumbelHard": {"relaxation": GumbelHard}, "Adversarial": {"relaxation": lambda s, g: Adversarial(Softmax(s, g), s, g)},
    "RandomPerturbed": {"relaxation": lambda s, g: RandomPerturbed(Softmax(s, g), s, g)},
    "Greedy": {"relaxation": lambda s, g: EdgeNormalised(Greedy(Softmax(s, g), s, g), s, g)},
    "GumbelHard, ": {"relaxation": lambda s, g: EdgeNormalised(GumbelHard(s, g), s, g)},
    "Uniform": {"relaxation": Uniform}, "neumann": {"hypergradient": functools.partial(neumann, terms=1)},
    "unrolled": {"hypergradient": unrolled},
    "CostLimit": {"penalties": [lambda s: CostLimit(s, additive(s, "parameters", layers=3, channels=2, num_classes=3), limit=1e6)]},
    "batches go on": {"task": LanguageModel(item="word", bptt=3)},
    "got RMSprop": {"alpha_optimizer": torch.optim.RMSprop},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_graph_cannot_hold_is_one_clear_line(what):
    search = make(**REFUSED[what])
    with pytest.raises(ValueError, match=what) as error:
        check_graphable(search, [], batches([1])[0][0])
    assert str(error.value).startswith("compile=graph cannot hold") and str(error.value).endswith("pass compile=none")
    with pytest.raises(ValueError, match=what):
        Graphed(search, batch_size=BATCH, capturing=None)


def test_a_penalty_on_the_step_of_w_is_refused():
    search = make()
    search.w_penalties = [LayerAlignment(SPACE)]
    with pytest.raises(ValueError, match="LayerAlignment on the step of w"):
        check_graphable(search, [], batches([1])[0][0])


def test_monitors_that_act_in_a_step_are_refused_and_others_are_not():
    search, x = make(), batches([1])[0][0]
    check_graphable(search, [SkipCount(SPACE)], x)
    with pytest.raises(ValueError, match="SkipCount with retry, which loads the optimizers' states anew: pass compile=none"):
        check_graphable(search, [SkipCount(SPACE, retry=3)], x)
    with pytest.raises(ValueError, match="OpFreezing, which acts in it"):
        check_graphable(search, [OpFreezing(SPACE)], x)


def test_a_network_that_draws_is_refused_and_left_as_found():
    space = darts.make(nodes=1, ops=["skip_connect", "noise", "sep_conv_3x3"])
    search = make(space=space)
    before = state(make(space=space))
    with pytest.raises(ValueError, match="op 'noise' draws"):
        check_graphable(search, [], batches([1])[0][0])
    assert all(torch.equal(a, b) for a, b in zip(state(search), before, strict=True))


def test_batches_of_another_image_size_are_refused():
    search = make()
    graphed = Graphed(search, batch_size=BATCH, capturing=None)
    (train, val) = batches([BATCH] * 2)
    graphed.step(train, val)
    with pytest.raises(ValueError, match="whole batches to have one shape"):
        graphed.step((train[0][:, :, :4], train[1]), val)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", SEARCHES)
def test_on_a_gpu_replays_equal_the_eager_step(name):
    """In float64, where kernels that add in another order differ by little; learning rates are in single precision there."""
    device = torch.device("cuda")
    eager, search = (make(device=device, **SEARCHES[name]) for _ in range(2))
    graphed = Graphed(search, batch_size=BATCH, capturing=Capturing(device), warm_up=2)
    train, val = batches([BATCH] * 8 + [4], device), batches([BATCH] * 8 + [2], device)
    for epoch in range(2):
        for s in (eager, search):
            s.anneal(epoch / 1, epoch)
        graphed.refresh()
        for n, (batch, other) in enumerate(zip(train, val)):
            for s in (eager, search):
                set_lr(s.w_optimizer, 0.125 / 2**n)
                set_lr(s.alpha_optimizer, 0.0078125)
            ours, theirs = graphed.step(batch, other), eager.step(batch, other)
            reference.close(ours["loss"], theirs["loss"], 1e-6)
    assert all(half.graph is not None for half in graphed.all_halves())
    assert_close(state(search), state(eager), 1e-5)
    print(graphed.nodes())


class Capturable(TorchDispatchMode):
    """Within, what a CUDA graph cannot hold fails: reading a value, a shape that depends on values, drawing, data from the host (a new
    tensor is on the device, one made of numbers is copied there). `ops` are the names of all operations, in order."""

    READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2", "item"}
    DRAWS = {"bernoulli", "bernoulli_", "normal_", "uniform_", "exponential_", "random_", "rand", "randn", "randint", "randperm",
             "multinomial", "_standard_gamma", "native_dropout"}
    COPIES = {"lift_fresh", "lift_fresh_copy"}

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        assert name not in self.READS | self.DRAWS | self.COPIES, name
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            assert not any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]), "picks by a mask"
        self.ops.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SEARCHES)
def test_captured_functions_hold_nothing_that_a_graph_cannot(name):
    """And they are the same operations at every step."""
    search = make(**{"space": SMALL} | SEARCHES[name])
    graphed = Graphed(search, batch_size=BATCH, capturing=None)
    train, val = batches([BATCH] * 2)
    for _ in range(2):
        graphed.step(train, val)
    for half in graphed.all_halves():
        seen = []
        for _ in range(2):
            with Capturable() as mode:
                half.run()
            seen.append(mode.ops)
        assert seen[0] == seen[1] and len(seen[0]) > 100


def test_captured_functions_of_a_draw_hold_nothing_that_a_graph_cannot():
    """Once every op has moved."""
    search = make(relaxation=GumbelHard, space=TWO_OPS, flat=True)
    graphed = Graphed(search, batch_size=BATCH, capturing=None, kept=1000)
    for train, val in zip(*(batches([BATCH] * 60)[n::2] for n in range(2))):
        graphed.step(train, val)
    for halves in graphed.halves.values():
        last, seen = list(halves.values())[-1], []
        for _ in range(2):
            with Capturable() as mode:
                last.run()
            seen.append(mode.ops)
        assert seen[0] == seen[1] and len(seen[0]) > 100


def test_what_a_graph_cannot_hold_is_seen():
    """The check itself: a sampled draw reads a mask, an eager penalty copies its table."""
    search = make(relaxation=GumbelHard)
    with pytest.raises(AssertionError, match="_local_scalar_dense|lift_fresh"), Capturable():
        search.alpha_gradient(*batches([BATCH] * 2), search.relaxation.noise(torch.Generator()))
    with pytest.raises(AssertionError, match="lift_fresh"), Capturable():
        torch.tensor([1.0])
    with pytest.raises(AssertionError, match="mask"), Capturable():
        torch.ones(3)[torch.ones(3) > 0]
