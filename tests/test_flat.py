"""Weights in one buffer against `optimizer.step()` over a list: the same bits without clipping, which adds in another order."""

import copy
import functools
import signal

import pytest
import torch
from torch import nn

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.monitors.freezing import OpFreezing
from supernet.optim.averaging import NonMonotonicAverage
from supernet.optim.descent import descend
from supernet.optim.flat import ALIGNED, ROW, FlatDescent
from supernet.optim.groups import weight_groups
from supernet.optim.optimizers import make_static, set_lr
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts
from supernet.tasks.classification import Classification
from supernet.training.stages import carry_over, narrowed
from tests.helpers import At, run
from tests.runs import assert_same, finished, go_on, outcome

OPS = ["none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]
SPACE, SMALL = darts.make(nodes=2, ops=OPS), darts.make(nodes=1, ops=OPS)
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}


def make(flat, relaxation=Softmax, hypergradient=first_order, clip_norm=None, sgd=SGD, decay_norms_and_biases=True, space=SPACE,
         dtype=torch.float64, affine=False, channels=3):
    """A search of its own, always the same."""
    torch.manual_seed(0)
    net = space.network(space.candidates(), layers=3, channels=channels, num_classes=3, norm=Normalisation(affine, True))
    net = net.to(dtype, memory_format=torch.channels_last).train()
    alphas = relaxation(space, torch.Generator().manual_seed(1)).to(dtype)
    # over the list one by one: in one call the last numbers of tensors of odd size round otherwise
    optimizer = torch.optim.SGD(weight_groups(net, decay_norms_and_biases=decay_norms_and_biases), **{"foreach": False, **sgd})
    generators = {"alpha": torch.Generator().manual_seed(2), "net": torch.Generator().manual_seed(3)}
    return Bilevel(net, alphas, hypergradient, Classification(), optimizer, torch.optim.Adam(alphas.parameters(), lr=1e-2), generators,
                   clip_norm=clip_norm, descend=FlatDescent(optimizer) if flat else descend)


def batch(seed, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 6, 6, generator=g, dtype=dtype), torch.randint(3, (4,), generator=g)


def take(search, steps, first=0, after=lambda search, n: None):
    for n in range(first, first + steps):
        set_lr(search.w_optimizer, 0.1 / (1 + n))
        search.step(batch(2 * n), batch(2 * n + 1))
        after(search, n)
    return search


def state(search):
    """All that a step may move, by name; gradients too."""
    momenta = {f"momentum {n}": s["momentum_buffer"] for n, s in search.w_optimizer.state_dict()["state"].items()}
    grads = {f"gradient of {name}": p.grad for name, p in search.net.named_parameters() if p.grad is not None}
    return {**search.net.state_dict(), **momenta, **grads, **search.relaxation.state_dict()}


def assert_same_bits(mine, theirs):
    assert mine.keys() == theirs.keys()
    assert not [name for name in mine if not torch.equal(mine[name], theirs[name])]


OPTIONS = {"first order": {"space": SMALL}, "second order": {"hypergradient": finite_difference, "space": SMALL},
           "GDAS": {"relaxation": GumbelHard},
           "GDAS, second order": {"relaxation": GumbelHard, "hypergradient": finite_difference},
           "nesterov": {"relaxation": GumbelHard, "sgd": {**SGD, "nesterov": True}},
           "dampening": {"relaxation": GumbelHard, "sgd": {**SGD, "dampening": 0.3}},
           "no momentum": {"relaxation": GumbelHard, "sgd": {"lr": 0.1, "weight_decay": 1e-2}},
           "groups": {"relaxation": GumbelHard, "decay_norms_and_biases": False, "affine": True},
           "as lists": {"relaxation": GumbelHard, "sgd": {**SGD, "foreach": True}},
           "lists, nesterov": {"relaxation": GumbelHard, "sgd": {**SGD, "weight_decay": 0.0, "foreach": True, "nesterov": True}}}


SLOW = ("GDAS, second order", "as lists", "lists, nesterov")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in OPTIONS])
def test_twenty_steps_without_clipping_give_the_same_bits(name):
    """Weights, momenta, gradients, running statistics and alphas; under GDAS with ops that wait many steps for their first gradient."""
    flat, plain = (take(make(flat, **OPTIONS[name]), 20) for flat in (True, False))
    assert_same_bits(state(flat), state(plain))


@pytest.mark.parametrize("name", ["first order", "second order", "GDAS", "groups"])
def test_twenty_steps_with_clipping_agree_to_rounding(name):
    flat, plain = (take(make(flat, clip_norm=0.5, **OPTIONS[name]), 20) for flat in (True, False))
    mine, theirs = state(flat), state(plain)
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=0, atol=1e-10 * max(1, value.abs().max().item()), msg=key)


def test_what_has_no_gradient_does_not_move():
    """Ops that a draw leaves out keep their weights and momenta, though both would go on by themselves."""
    search = take(make(True, GumbelHard), 5)
    for n in range(5, 12):
        before = {name: p.detach().clone() for name, p in search.net.named_parameters()}
        moments = {p: s["momentum_buffer"].clone() for p, s in search.w_optimizer.state.items()}
        take(search, 1, n)
        drawn = {name for name, p in search.net.named_parameters() if p.grad is not None}
        moved = {name for name, p in search.net.named_parameters() if not torch.equal(p, before[name])}
        assert moved == drawn and 0 < len(drawn) < len(before)
        assert all(p.grad is not None or torch.equal(s["momentum_buffer"], moments[p]) for p, s in search.w_optimizer.state.items())


@pytest.mark.parametrize("relaxation", [Softmax, GumbelHard])
def test_frozen_ops_do_not_move_and_the_monitor_that_freezes_sees_the_same_gradients(relaxation):
    found = []
    for flat in (True, False):
        search, monitor = make(flat, relaxation, space=SMALL), OpFreezing(SMALL, threshold=1.85, count=1)
        monitor.before_epoch(search)
        held = {}

        def after(search, n, monitor=monitor, held=held):
            for name, p in search.net.named_parameters():
                if not p.requires_grad:
                    assert torch.equal(held.setdefault(name, p.detach().clone()), p)
            monitor.after_step(search, batch(2 * n), batch(2 * n + 1), n)

        take(search, 20, after=after)
        found.append((state(search), monitor.frozen, monitor.means, len(held)))
    assert_same_bits(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert 0 < found[0][3] < len(search.w)


@pytest.mark.parametrize("first, second", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", ["GDAS", "groups"])
def test_a_checkpoint_of_either_way_is_gone_on_with_in_the_other(first, second, name, tmp_path):
    """After a few steps, when some ops have no momentum yet; through a file."""
    unbroken, begun = take(make(False, **OPTIONS[name]), 12), take(make(first, **OPTIONS[name]), 4)
    parts = ("net", "relaxation", "w_optimizer", "alpha_optimizer")
    torch.save({part: getattr(begun, part).state_dict() for part in parts}, tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    went_on = make(second, **OPTIONS[name])
    for part in parts:
        getattr(went_on, part).load_state_dict(saved[part])
    for key, generator in went_on.generators.items():
        generator.set_state(begun.generators[key].get_state())
    kept = copy.deepcopy(saved)
    take(went_on, 8, 4)
    assert_same_bits(state(went_on), state(unbroken))
    assert 0 < len(kept["w_optimizer"]["state"]) < len(list(begun.w))
    if second:  # what was loaded is copied, not moved on
        for n, s in kept["w_optimizer"]["state"].items():
            assert torch.equal(saved["w_optimizer"]["state"][n]["momentum_buffer"], s["momentum_buffer"])


def test_a_checkpoint_says_the_same_of_either_way():
    flat, plain = (take(make(flat, GumbelHard), 3).w_optimizer.state_dict() for flat in (True, False))
    assert flat["param_groups"] == plain["param_groups"] and flat["state"].keys() == plain["state"].keys()
    assert all(flat["state"][n].keys() == s.keys() for n, s in plain["state"].items())


def test_a_run_that_is_killed_on_one_way_and_gone_on_with_in_the_other_ends_as_an_unbroken_one(tmp_path):
    options = ("experiment=gdas_nasbench201", "dataset=digits", "split.max_train=40", "split.max_val=16", "layers=3", "channels=2",
               "batch_size=8", "epochs=2", "clip_norm=null", "checkpoint_every_s=0")
    for name in ("unbroken", "killed"):
        (tmp_path / name).mkdir()
    assert run("train_search", *options, cwd=tmp_path / "unbroken", report=False).code == 0
    ended = run("train_search", *options, "flat_weights=true", cwd=tmp_path / "killed", report=False, at=At(3, ".pt."))
    assert ended.code == -signal.SIGKILL, ended.err
    go_on("train_search", *options, where=tmp_path / "killed")
    assert_same(outcome(finished(tmp_path / "killed")), outcome(finished(tmp_path / "unbroken")))


def test_an_average_of_the_weights_is_evaluated_and_taken_back():
    search, average = make(True), NonMonotonicAverage(epochs=1)
    average.started = True
    take(search, 4, after=lambda search, n: average.after_step(search.w))
    last = [p.detach().clone() for p in search.w]
    with average.evaluated(search.w):
        assert all(torch.equal(p, mean) for p, mean in zip(search.w, average.mean))
    take(search, 1, 4)
    plain = take(make(False), 4)
    assert all(torch.equal(p, q) for p, q in zip(plain.w, last))
    assert_same_bits(state(search), state(take(plain, 1, 4)))


def test_the_next_stage_goes_on_from_it():
    """Pruned ops are left behind, momenta come along, into a buffer of the new network's own."""
    kept = {kind: tuple(tuple(op != "dil_conv_3x3" for op in spec.ops) for _ in spec.edges) for kind, spec in SPACE.cells.items()}
    found = []
    for flat in (True, False):
        before = take(make(flat, GumbelHard), 4)
        after = make(flat, GumbelHard, space=narrowed(SPACE, kept))
        carry_over(before, after)
        after.generators.update(before.generators)
        found.append(state(take(after, 6, 4)))
    assert_same_bits(*found)


def test_the_state_may_be_forgotten():
    """As selection by perturbation does."""
    found = []
    for flat in (True, False):
        search = take(make(flat), 3)
        search.w_optimizer.state.clear()
        found.append(state(take(search, 3, 3)))
    assert_same_bits(*found)


@pytest.mark.parametrize("relaxation", [Softmax, GumbelHard])
def test_a_static_step_gives_the_same_bits_as_one_over_a_list(relaxation):
    """Fused, with the learning rate in a tensor, as a CUDA graph holds it. Only once all have moved: PyTorch's own step over a list cannot
    take first steps and later ones together. Eight channels, since on a CPU the fused step rounds what is left over by its vectors of eight
    in another way."""
    searches = []
    for flat in (True, False):
        search = take(make(flat, Softmax, channels=8), 2)
        if relaxation is GumbelHard:
            search.relaxation = make(flat, GumbelHard).relaxation
            search.alpha, search.alpha_optimizer = tuple(search.relaxation.parameters()), torch.optim.Adam(search.relaxation.parameters())
        make_static(search.w_optimizer)
        searches.append(state(take(search, 5, 2)))
    assert_same_bits(*searches)


def test_first_steps_and_later_ones_may_come_together_in_a_static_step():
    static, eager = (make(True, GumbelHard) for _ in range(2))
    make_static(static.w_optimizer)
    mine, theirs = state(take(static, 8)), state(take(eager, 8))
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-10, msg=name)


def test_weights_stay_where_kernels_expect_them():
    """Strides as they were, and as aligned as an allocation of their own."""
    search, plain = make(True), make(False)
    assert [p.stride() for p in search.w] == [p.stride() for p in plain.w]
    start = search.w[0].untyped_storage().data_ptr()
    assert all(p.untyped_storage().data_ptr() == start and (p.data_ptr() - start) % (ALIGNED * 8) == 0 for p in search.w)
    assert any(p.numel() % ALIGNED for p in search.w)


def test_a_network_that_is_moved_takes_its_buffers_along():
    net = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(net.parameters(), **SGD)
    flat, other = FlatDescent(optimizer), copy.deepcopy(net)
    sgd = torch.optim.SGD(other.parameters(), **SGD)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for step in range(4):
        if step == 2:
            net.float(), net.double(), other.float(), other.double()
        for module, take_step in ((net, lambda: flat(optimizer, list(net.parameters()), None)), (other, sgd.step)):
            module.zero_grad()
            module(x).square().sum().backward()
            take_step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters()))


def test_a_weight_that_was_changed_by_the_step_is_known_to_have_changed():
    """A backward pass that needs its old value says so, as it does after a step over a list."""
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    flat, loss = FlatDescent(optimizer), (w * w).sum()
    w.grad = torch.ones(3)
    flat(optimizer, [w], None)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_norm_of_long_vectors_is_exact_in_float32():
    p = torch.zeros(ROW * 1500 + 7, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=1.0)
    flat = FlatDescent(optimizer)
    g = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    p.grad = g.clone()
    flat(optimizer, [p], 1.0)
    assert p.double().norm().item() == pytest.approx(1.0, rel=1e-6)


def test_gradients_in_another_order_of_a_lone_dimension_are_copied_together():
    w = torch.randn(4, 4, 1, 1, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    p = nn.Parameter(w.clone(memory_format=torch.preserve_format))
    optimizer = torch.optim.SGD([p], lr=1.0)
    flat = FlatDescent(optimizer)
    for stride in ((4, 1, 1, 1), (4, 1, 4, 4), (1, 4, 1, 1)):
        before = p.detach().clone()
        p.grad = torch.randn(16).as_strided((4, 4, 1, 1), stride)
        expected = before - p.grad
        flat(optimizer, [p], None)
        assert torch.equal(p.detach(), expected)


REFUSED = {"got Adam": lambda w: torch.optim.Adam([w]), "got torch.float32 on cpu and torch.float64 on cpu":
           lambda w: torch.optim.SGD([w, nn.Parameter(torch.ones(2).double())], lr=1.0)}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_hold_is_one_clear_line(what):
    with pytest.raises(ValueError, match=f"^flat_weights=true needs .*{what}$"):
        FlatDescent(REFUSED[what](nn.Parameter(torch.ones(2))))


def test_no_gradient_at_all_moves_nothing():
    w = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([w], **SGD)
    FlatDescent(optimizer)(optimizer, [w], 1.0)
    assert torch.equal(w.detach(), torch.ones(3)) and not optimizer.state


def test_a_step_takes_few_operations():
    """Copy, norm, clip and step of a run: the same number for ten weights and for a hundred."""
    from benchmarks.counting import kernels

    counts = []
    for n in (10, 100):
        w = [nn.Parameter(torch.ones(5)) for _ in range(n)]
        optimizer = torch.optim.SGD(w, **SGD)
        flat = FlatDescent(optimizer)
        for _ in range(2):
            for p in w:
                p.grad = torch.ones(5)
            step = functools.partial(flat, optimizer, w, 1.0)
            counts.append(kernels(step).total())
    assert counts[0] == counts[2] and counts[1] == counts[3] <= 15
