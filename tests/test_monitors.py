"""Monitors against what they claim to measure, in float64, and what they bring about."""

import math
from functools import partial

import pytest
import torch

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.first_order import first_order
from supernet.monitors import eigenvalue
from supernet.monitors.base import Look, Monitor, Reaction, Signal, shares
from supernet.monitors.eigenvalue import Dominant, Eigenvalue, dominant_eigenvalue, lanczos, rise
from supernet.monitors.freezing import OpFreezing
from supernet.monitors.layer_alignment import LayerAlignment
from supernet.monitors.limits import Limits
from supernet.monitors.skips import SkipCount
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.controller import Controller
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.spaces import darts, nasbench201, toy
from supernet.tasks.classification import Classification
from supernet.training.records import History, Verdict
from supernet.training.search import SearchLoop
from supernet.weights import EdgeWeights, Weights, one_hot
from tests import reference
from tests.test_presets import composed, searched
from tests.test_resume import exactly

F64 = torch.float64
SPACE = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3", "avg_pool_3x3"))


SPREAD = partial(Softmax, init_scale=0.5)


def small(seed=0, layers=3, space=SPACE, relaxation_of=SPREAD, auxiliary=False):
    torch.manual_seed(seed)
    net = space.network(space.candidates(), layers=layers, channels=2, num_classes=3, in_channels=2, image_size=(8, 8),
                        norm=Normalisation(False, True), **({"auxiliary_skip": True} if auxiliary else {})).double()
    g = torch.Generator().manual_seed(seed)
    relaxation = relaxation_of(space, g).double()
    if auxiliary:
        relaxation = AuxiliarySkip(relaxation, space, g)
    batches = [(torch.randn(6, 2, 8, 8, generator=g, dtype=F64), torch.randint(3, (6,), generator=g)) for _ in range(2)]
    search = Bilevel(net, relaxation, first_order, Classification(), torch.optim.SGD(net.parameters(), lr=0.05),
                     torch.optim.Adam(relaxation.parameters(), lr=1e-2), {"alpha": g, "net": torch.Generator()})
    return search, batches


def look_at(epoch, search=None, val=(), genotype=None, weights=None, values=None):
    return Look(epoch, 100, genotype, weights, search, val, values or {}, lambda batch_size: val)


# ---- the dominant eigenvalue


@pytest.mark.equation("darts_es")
@pytest.mark.parametrize("seed", range(5))
def test_lanczos_finds_all_eigenvalues_of_a_small_matrix_and_the_largest_of_a_large_one(seed):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(12, 12, generator=g, dtype=F64)
    matrix = root + root.T
    found = lanczos(lambda v: matrix @ v, torch.randn(12, generator=g, dtype=F64), 12)
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-9)
    root = torch.randn(224, 60, generator=g, dtype=F64)  # as many alphas as two kinds of DARTS cells have
    matrix = root @ root.T / 60 + 5 * torch.outer(root[:, 0], root[:, 0]) / 224
    found = lanczos(lambda v: matrix @ v, torch.randn(224, generator=g, dtype=F64), 10)
    assert found.values[-1].item() == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-4)
    assert lanczos(lambda v: 3 * v, torch.ones(5, dtype=F64), 5).values.tolist() == pytest.approx([3.0]), "stops where nothing is new"


@pytest.mark.equation("darts_es")
@pytest.mark.parametrize("seed", range(5))
def test_lanczos_ends_where_it_has_converged_and_knows_how_far_it_is_off(seed):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(224, 60, generator=g, dtype=F64)
    matrix = root @ root.T / 60  # without a gap below the largest: ten iterations are not enough
    exact, start = torch.linalg.eigvalsh(matrix)[-1], torch.randn(224, generator=g, dtype=F64)
    few = lanczos(lambda v: matrix @ v, start, 10, 1e-3)
    assert few.iterations == 10 and 1e-3 * exact < few.residual and exact - few.values[-1] <= few.residual
    enough = lanczos(lambda v: matrix @ v, start, 100, 1e-3)
    assert 10 < enough.iterations < 60 and abs(exact - enough.values[-1]) <= enough.residual <= 1e-3 * exact
    assert abs(exact - enough.values[-1]) < 1e-4 * exact
    with pytest.raises(ValueError, match="at least 1 iteration"):
        lanczos(lambda v: v, start, 0)


def test_the_eigenvalue_says_when_it_has_not_converged():
    search, (batch, _) = small()
    sure, unsure = Eigenvalue(SPACE, every=1), Eigenvalue(SPACE, every=1, iterations=2, tolerance=1e-6)
    assert sure.after_epoch(look_at(0, search, [batch])).warning is None
    signal = unsure.after_epoch(look_at(0, search, [batch]))
    assert signal.warning.startswith("after 2 iterations the dominant eigenvalue") and "monitor.eigenvalue.iterations=4" in signal.warning
    assert signal.values["alpha_eigenvalue_off"] > 1e-6 * signal.values["alpha_eigenvalue"]
    unsure.values, unsure.window, unsure.delta, unsure.start_epoch, unsure.reach = [1e-9, 1e-9], 1, 1, 0, 1
    both = unsure.after_epoch(look_at(5, search, [batch])).warning
    assert "mean rose by a factor" in both and "may be" in both, "one does not hide the other"


@pytest.mark.equation("darts_es")
def test_the_dominant_eigenvalue_is_that_of_the_dense_hessian_of_the_validation_loss():
    search, (batch, _) = small()
    alphas = list(search.relaxation.alpha.values())
    sizes = [a.numel() for a in alphas]
    flat = torch.cat([a.detach().flatten() for a in alphas])

    def loss(vector):
        tables = [part.view_as(a) for part, a in zip(vector.split(sizes), alphas)]
        weights = EdgeWeights({kind: Weights(t.softmax(-1)) for kind, t in zip(search.relaxation.alpha, tables)})
        return search.val_loss_under(batch, weights)

    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    state = {name: value.clone() for name, value in search.net.state_dict().items()}
    search.net.eval()
    exact = dense[-1].item()
    assert dominant_eigenvalue(search, batch, iterations=len(flat), tolerance=1e-12).value == pytest.approx(exact, rel=1e-8)
    assert dominant_eigenvalue(search, batch).value == pytest.approx(exact, rel=1e-5)
    assert not search.net.training and all(torch.equal(value, state[name]) for name, value in search.net.state_dict().items())


def test_the_eigenvalue_is_of_the_loss_with_an_auxiliary_skip_where_there_is_one():
    """An evaluation runs it too; without it the Hessian of DARTS- would be that of another network."""
    search, (batch, _) = small(auxiliary=True)
    search.relaxation.anneal(0.0, 0)
    alphas = list(search.relaxation.inner.alpha.values())
    sizes = [a.numel() for a in alphas]

    def loss(vector, skip):
        tables = [part.view_as(a) for part, a in zip(vector.split(sizes), alphas)]
        weights = {kind: Weights(t.softmax(-1), skip=skip) for kind, t in zip(search.relaxation.inner.alpha, tables)}
        return search.val_loss_under(batch, EdgeWeights(weights))

    flat = torch.cat([a.detach().flatten() for a in alphas])
    skip = search.relaxation.evaluated(torch.Generator())["normal"].skip
    dense, without = (torch.linalg.eigvalsh(torch.autograd.functional.hessian(lambda v: loss(v, s), flat))[-1].item() for s in (skip, None))
    found = dominant_eigenvalue(search, batch, iterations=len(flat), tolerance=1e-12).value
    assert found == pytest.approx(dense, rel=1e-8) and found != pytest.approx(without, rel=1e-3)


class LocalAverage:
    """EVLocalAvg of RobustDARTS' utils.py: the mean of the last `window` eigenvalues belongs to the epoch in the middle of them."""

    def __init__(self, window, every, delta, factor, start):
        self.window, self.every, self.delta, self.factor, self.start = window, every, delta, factor, start
        self.values, self.averages = [], []

    def stops_at(self, epoch, value):
        """The epoch whose genotype is taken, or None."""
        self.values.append(value)
        if len(self.values) < math.ceil(self.window / 2):
            return None
        self.averages.append(sum(self.values[-self.window:]) / len(self.values[-self.window:]))
        back_to = epoch - self.every * (self.window // 2) - self.every * self.delta
        if back_to < self.start or self.averages[-1] / self.averages[-1 - self.delta] <= self.factor:
            return None
        return back_to


@pytest.mark.equation("darts_es")
@pytest.mark.parametrize("seed", range(20))
def test_early_stopping_is_that_of_the_official_code(seed, monkeypatch):
    g = torch.Generator().manual_seed(seed)
    growth = 1 + 0.15 * torch.rand((), generator=g).item()
    values = [(growth**n * (0.8 + 0.4 * torch.rand((), generator=g))).item() for n in range(50)]
    monitor, official = Eigenvalue(SPACE, stop=True), LocalAverage(5, 2, 4, 1.3, 10)
    verdict = Verdict()
    for epoch in range(100):
        verdict.genotypes.append(epoch)
        value = values[epoch // 2]
        monkeypatch.setattr(eigenvalue, "dominant_eigenvalue", lambda *args: Dominant(value, 0.0, 1))
        signal = monitor.after_epoch(look_at(epoch, val=[None]))
        expected = None if epoch % 2 else official.stops_at(epoch, value)
        assert (signal.stop is None) == (expected is None), epoch
        if signal.stop is not None:
            verdict.stop(signal.stop, signal.back)
            assert verdict.epoch == expected >= 10
            return
        assert signal.values == ({} if epoch % 2 else {"alpha_eigenvalue": value, "alpha_eigenvalue_off": 0.0})
    assert growth < 1.1, "what grows fast enough is stopped"


def test_a_rise_needs_two_windows_and_is_a_warning_without_stop(monkeypatch):
    assert rise([1.0] * 8, 5, 4) is None and rise([1.0] * 4 + [3.0] * 5, 5, 4) == pytest.approx(15 / 7)
    assert rise([-1.0] * 9, 5, 4) is None
    monitor = Eigenvalue(SPACE, every=1, window=1, delta=1, start_epoch=0)
    signals = []
    for epoch, value in enumerate([1.0, 1.2, 2.0]):
        monkeypatch.setattr(eigenvalue, "dominant_eigenvalue", lambda *args: Dominant(value, 0.0, 1))
        signals.append(monitor.after_epoch(look_at(epoch, val=[None])))
    assert [s.warning is not None for s in signals] == [False, False, True] and all(s.stop is None for s in signals)
    other = Eigenvalue(SPACE)
    other.load_state_dict(monitor.state_dict())
    assert other.values == [1.0, 1.2, 2.0]
    with pytest.raises(ValueError, match="monitor.eigenvalue.window"):
        Eigenvalue(SPACE, window=0)


# ---- gradients that part ways


def ops_of(net):
    return {f"cells.{n}.mixed.edges.{edge}.{op}": list(module.parameters()) for n, cell in enumerate(net.cells)
            for edge, ops in cell.mixed.edges.items() for op, module in ops.items() if list(module.parameters())}


@pytest.mark.equation("oles")
def test_freezing_averages_the_cosine_of_training_and_validation_gradients_by_op():
    search, (train, val) = small()
    monitor = OpFreezing(SPACE, threshold=-2.0, count=3)
    monitor.before_epoch(search)
    cosines = {}
    for step in range(3):
        search.step(train, val)
        weights = search.relaxation.mean().detach()
        for name, parameters in ops_of(search.net).items():
            slopes = torch.autograd.grad(search.val_loss_under(val, weights), parameters, allow_unused=True, materialize_grads=True)
            a, b = (torch.cat([t.flatten() for t in tensors]) for tensors in ([p.grad for p in parameters], slopes))
            cosines.setdefault(name, []).append((a @ b / (a.norm() * b.norm())).item())
        monitor.after_step(search, train, val, step)
        assert step == 2 or not monitor.means
    assert monitor.means.keys() == cosines.keys() and len(cosines) >= 6
    for name, mean in monitor.means.items():
        assert mean == pytest.approx(sum(cosines[name]) / 3, abs=1e-10)
    assert not monitor.frozen and not monitor.sums
    values = monitor.after_epoch(look_at(0)).values
    assert values["frozen_share"] == 0 and values["gradient_cosine"] == pytest.approx(sum(monitor.means.values()) / len(cosines))


@pytest.mark.equation("oles")
def test_ops_below_the_threshold_are_not_trained_any_more_and_the_others_are():
    search, (train, val) = small()
    measured = OpFreezing(SPACE, threshold=-2.0, count=2)
    monitor = OpFreezing(SPACE, count=2)
    for m in (measured, monitor):
        m.before_epoch(search)
    for step in range(2):
        search.step(train, val)
        measured.after_step(search, train, val, step)
        if step == 1:
            monitor.threshold = sorted(measured.means.values())[len(measured.means) // 2]
        monitor.after_step(search, train, val, step)
    assert monitor.frozen == {name for name, mean in measured.means.items() if mean < monitor.threshold}
    frozen = set(monitor.frozen)
    assert 0 < len(frozen) < len(measured.means)
    before = {name: [p.detach().clone() for p in ps] for name, ps in ops_of(search.net).items()}
    for step in range(2, 4):
        search.step(train, val)
        monitor.after_step(search, train, val, step)
    for name, parameters in ops_of(search.net).items():
        same = all(torch.equal(p, q) for p, q in zip(parameters, before[name]))
        assert same == (name in frozen), name
    assert monitor.after_epoch(look_at(0)).values["frozen_share"] == len(monitor.frozen) / len(before)
    other_search, _ = small()
    other = OpFreezing(SPACE)
    other.load_state_dict(monitor.state_dict())
    other.before_epoch(other_search)
    resting = {name for name, ps in ops_of(other_search.net).items() if not any(p.requires_grad for p in ps)}
    assert resting == monitor.frozen >= frozen, "also after a run was gone on with"
    with pytest.raises(ValueError, match="monitor.op_freezing.count"):
        OpFreezing(SPACE, count=0)


def test_a_search_that_went_back_to_before_it_froze_ops_trains_them_again():
    search, (train, val) = small()
    monitor = OpFreezing(SPACE, threshold=2.0, count=1)  # every cosine is below
    monitor.before_epoch(search)
    search.step(train, val)
    monitor.after_step(search, train, val, 0)
    assert monitor.frozen == ops_of(search.net).keys()
    monitor.load_state_dict(OpFreezing(SPACE).state_dict())
    monitor.before_epoch(search)
    assert all(p.requires_grad for p in search.net.parameters())


def test_freezing_may_only_watch_and_only_every_so_many_steps():
    search, (train, val) = small()
    monitor = OpFreezing(SPACE, threshold=2.0, count=1, every=2, freeze=False)
    monitor.before_epoch(search)
    for step in range(4):
        search.step(train, val)
        monitor.means.clear()
        monitor.after_step(search, train, None if step == 2 else val, step)
        assert bool(monitor.means) == (step == 0)
    assert not monitor.frozen and all(p.requires_grad for p in search.net.parameters())


# ---- alignment, skips, shares


def test_the_logged_alignment_is_the_mean_cosine_between_cells():
    search, (batch, _) = small(layers=5)
    state = search.generators["alpha"].get_state()
    found = LayerAlignment(SPACE).after_epoch(look_at(0, search, [batch])).values
    assert torch.equal(state, search.generators["alpha"].get_state())
    for kind, cells in (("normal", 3), ("reduce", 2)):
        own = [search.relaxation.alpha[kind].detach().clone().requires_grad_() for _ in range(cells)]
        tables = {k: Weights(torch.stack([a.softmax(-1) for a in own]) if k == kind else w.ops)
                  for k, w in search.relaxation.mean().items()}
        slopes = torch.autograd.grad(search.val_loss_under(batch, EdgeWeights(tables)), own)
        pairs = [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for n, a in enumerate(slopes) for b in slopes[:n]]
        reference.close(torch.tensor(found[f"layer_alignment/{kind}"], dtype=F64), torch.stack(pairs).mean(), 1e-9)
    assert LayerAlignment(SPACE, every=2).after_epoch(look_at(1)).values == {}


def test_skips_are_counted_by_kind_and_stop_the_search_with_the_epoch_before():
    space = darts.make(nodes=2, ops=("skip_connect", "sep_conv_3x3"))
    hot = {kind: torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.5]]) for kind in space.cells}
    genotype = argmax(space, EdgeWeights({kind: Weights(t) for kind, t in hot.items()}))
    look = look_at(3, genotype=genotype)
    assert SkipCount(space, most=2).after_epoch(look).values == {"skips/normal": 2.0, "skips/reduce": 2.0}
    assert SkipCount(space, most=2).after_epoch(look).warning is not None and SkipCount(space, most=3).after_epoch(look).warning is None
    stopped = SkipCount(space, most=2, kind="normal", stop=True).after_epoch(look)
    assert stopped.stop is not None and stopped.back == 1
    assert SkipCount(space, stop=True).after_epoch(look_at(0, genotype=genotype)).back == 0
    assert SkipCount(space, stop=True, start_epoch=4).after_epoch(look).stop is None
    found = shares(space, genotype, one_hot(space, genotype))
    assert found["skip_share"] == 0.5 and found["parameter_free_share"] == 0.5
    with pytest.raises(ValueError, match="monitor.skips"):
        SkipCount(space, kind="middle")


def test_limits_hold_values_of_the_record():
    space = toy.make()
    monitor = Limits(space, above={"skip_share": 0.5}, below={"alpha_gap/cell": 0.1}, stop=True, back=3, start_epoch=1)
    fine, bad = {"skip_share": 0.5, "alpha_gap/cell": 0.1}, {"skip_share": 0.75, "alpha_gap/cell": 0.05}
    assert monitor.after_epoch(look_at(5, values=fine)) == Signal()
    signal = monitor.after_epoch(look_at(5, values=bad))
    assert signal.stop == "skip_share is 0.75, above 0.5; alpha_gap/cell is 0.05, below 0.1" and signal.back == 3
    assert monitor.after_epoch(look_at(2, values=bad)).back == 2 and monitor.after_epoch(look_at(0, values=bad)) == Signal()
    assert Limits(space, above={"skip_share": 0.5}).after_epoch(look_at(0, values=bad)).warning == "skip_share is 0.75, above 0.5"
    assert monitor.after_epoch(look_at(5, values={})) == Signal(), "a value that is not there in this epoch is not held against it"
    with pytest.raises(ValueError, match="knows of no value 'alpha_gap/cell'; this search records skip_share"):
        monitor.check(None, {"skip_share"})
    for wrong in ({}, {"above": {"skip_share": "much"}}, {"above": {"skip_share": 1.0}, "back": -1}):
        with pytest.raises(ValueError, match="monitor.limits"):
            Limits(space, **wrong)


# ---- before any work


def test_monitors_refuse_searches_that_they_cannot_watch():
    space = toy.make()
    search, _ = small(relaxation_of=Controller, space=space, layers=5)
    for monitor in (Eigenvalue(space), LayerAlignment(space)):
        with pytest.raises(ValueError, match="Controller has no table of alphas"):
            monitor.check(search, ())
    search, _ = small(space=space, layers=5)
    for monitor in (SkipCount(space, retry=3), Eigenvalue(space, retry=3), Limits(space, above={"skip_share": 1}, retry=3)):
        with pytest.raises(ValueError, match="w_optimizer.weight_decay, which must be positive, got 0"):
            monitor.check(search, {"skip_share"})
    for wrong in ({"retry": 1.0}, {"retry": 3, "retry_until": 0.0}):
        with pytest.raises(ValueError, match="monitor.skips.retry"):
            SkipCount(space, **wrong)


def test_layered_checks_name_the_network():
    space = nasbench201.make()
    search, _ = small(space=space, layers=5)
    search.check_layered()
    search.net.kinds = []
    with pytest.raises(ValueError, match="cells that share alphas"):
        search.check_layered()


# ---- going back


class Alarm(Monitor):
    """Says, at its `n`-th look, that the search was healthy `back` epochs before."""

    gives = ("looks",)

    def __init__(self, space, *, n, back, retry=None, retry_until=0.03, stop=False):
        self.n, self.keeps, self.looks = n, back, 0
        self.reaction = Reaction("alarm", stop, retry, retry_until)

    def after_epoch(self, look):
        self.looks += 1
        return self.reaction(look, {"looks": float(self.looks)}, "it rang" if self.looks == self.n else None, self.keeps)

    def state_dict(self):
        return {"looks": self.looks}

    def load_state_dict(self, state):
        self.looks = state["looks"]


TINY = ("split.max_train=40", "split.max_val=16", "space.nodes=1", "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "layers=3",
        "channels=2", "batch_size=8", "table=none", "threads=1")
ALARM = ("+monitor.alarm={_target_:tests.test_monitors.Alarm,_partial_:true,n:4,back:2,retry:10}", "w_optimizer.weight_decay=3e-4")


@pytest.mark.equation("darts_ada")
def test_a_search_goes_back_with_more_weight_decay(monkeypatch):
    """Epoch 3 rings: what was learned until epoch 1 is there again, bit for bit, but for the weight decay; then it goes on."""
    kept, restored = {}, {}
    go_back, remember = SearchLoop.go_back, SearchLoop.remember

    def learned(loop):
        return {name: exactly(part.state_dict()) for name, part in loop.learned().items()}

    def spy_remember(loop, own):
        remember(loop, own)
        kept.setdefault(loop.position.epoch - 1, learned(loop))

    def spy_go_back(loop, *how):
        go_back(loop, *how)
        restored.update(learned(loop))

    monkeypatch.setattr(SearchLoop, "remember", spy_remember)
    monkeypatch.setattr(SearchLoop, "go_back", spy_go_back)
    stages, records, genotype = searched(*TINY, *ALARM, "epochs=6")
    assert [r["epoch"] for r in records] == [0, 1, 2, 3, 2, 3, 2, 3, 4, 5]
    assert [r["step"] for r in records] == [5 * n for n in range(1, 11)], "steps never fall"
    assert [r["looks"] for r in records] == [1, 2, 3, 4, 3, 4, 3, 4, 5, 6], "monitors go back too"
    back = "back to what was learned until epoch 2, with weight decay "
    assert records.lines == ["alarm: it rang", back + "0.003", "alarm: it rang", back + "0.03",
                             "alarm: it rang; the weight decay is 0.03 and stays"], "at the largest weight decay it goes on as it is"
    assert [r["weight_decay"] for r in records] == pytest.approx([3e-4] * 4 + [3e-3] * 2 + [3e-2] * 4)
    groups = restored["w_optimizer"].pop("param_groups"), kept[1]["w_optimizer"].pop("param_groups")
    assert restored == kept[1] and [{k: v for k, v in g.items() if k != "weight_decay"} for g in groups[0]] == [
        {k: v for k, v in g.items() if k != "weight_decay"} for g in groups[1]]
    assert [r["lr"] for r in records[4:6]] == [r["lr"] for r in records[2:4]], "schedules follow the epochs"
    assert [r["train_loss"] for r in records[4:6]] != [r["train_loss"] for r in records[2:4]]
    loop = stages.loop
    assert len(loop.verdict.genotypes) == 6 and loop.position.step == 50 and loop.position.scheduled_step == 30
    assert max(loop.history.states) == 5 and min(loop.history.states) >= 3
    stages.space.validate(genotype)


@pytest.mark.equation("darts_ada")
def test_the_official_ladder_of_weight_decays():
    """3e-4, 3e-3, 0.03 with the script's factor of ten; 3e-4 times 3 up to 243e-4 with the default of args.py."""
    search, _ = small(space=toy.make(), layers=5)
    (group,) = search.w_optimizer.param_groups
    for factor, most, wanted in ((10.0, 0.03, [3e-3, 0.03, None]), (3.0, 243e-4, [9e-4, 27e-4, 81e-4, 243e-4, None])):
        react, found = Reaction("alarm", retry=factor, retry_until=most), []
        group["weight_decay"] = 3e-4
        for _ in wanted:
            signal = react(look_at(4, search=search), {}, "it rang", 2)
            assert signal.stop is None and signal.warning.startswith("it rang")
            found.append(signal.retry)
            group["weight_decay"] = signal.retry or group["weight_decay"]
        assert found == [None if value is None else pytest.approx(value) for value in wanted]


def test_where_there_is_no_way_back_a_monitor_warns_or_ends_the_search():
    search, _ = small(space=toy.make(), layers=5)
    (group,) = search.w_optimizer.param_groups
    for decay, back, why in ((3e-4, 0, "there is no epoch before to go back to"), (0.03, 1, "the weight decay is 0.03 and stays")):
        group["weight_decay"] = decay
        assert Reaction("alarm", retry=10.0)(look_at(1, search=search), {}, "it rang", back).warning == f"it rang; {why}"
        assert Reaction("alarm", stop=True, retry=10.0)(look_at(1, search=search), {}, "it rang", back).stop == f"it rang; {why}"
    with pytest.raises(ValueError, match="monitor.limits.back epochs, which must be at least 1, got 0"):
        Limits(toy.make(), above={"skip_share": 1}, back=0, retry=3)


def test_trouble_from_the_first_epoch_on_goes_back_as_far_as_it_can():
    """The first epoch has none before it; later ones go back to it, until the weight decay is as large as it may be."""
    _, records, _ = searched(*TINY, "w_optimizer.weight_decay=3e-4", "monitor=[limits]", "monitor.limits.above={train_loss:0}",
                             "monitor.limits.back=3", "monitor.limits.retry=10", "epochs=4")
    assert [r["epoch"] for r in records] == [0, 1, 1, 1, 2, 3]
    assert records.lines[0].endswith("there is no epoch before to go back to")
    assert sum("back to what was learned until epoch 1" in line for line in records.lines) == 2


def test_a_search_goes_back_to_the_oldest_epoch_that_is_kept():
    history, part = History(), torch.nn.Linear(1, 1)
    assert history.nearest(3) is None
    for epoch in range(4):
        history.remember(epoch, {"part": part}, 2)
    assert [history.nearest(epoch) for epoch in (5, 3, 2, 1, 0)] == [3, 3, 2, 1, 1]


@pytest.mark.parametrize("inherit", ["weights", "none"])
def test_a_raised_weight_decay_goes_on_in_a_stage_that_inherits(inherit):
    _, records, _ = searched(*TINY, *ALARM, "stage.keep=[2]", "stage.epochs=[4,2]", f"stage.inherit={inherit}", "stage.schedules=search")
    decays = [r["weight_decay"] for r in records]
    assert decays[4] == pytest.approx(3e-3) and decays[-1] == pytest.approx(3e-2 if inherit == "weights" else 3e-4)


@pytest.mark.parametrize("monitor", ["skips", "limits"])
def test_a_search_that_ends_early_gives_the_genotype_it_went_back_to(monitor):
    options = {"skips": ["monitor.skips.most=1", "monitor.skips.start_epoch=2"],
               "limits": ["monitor.limits.above={train_loss:0}", "monitor.limits.start_epoch=2"]}[monitor]
    stages, records, genotype = searched(*TINY, "space.ops=[skip_connect,max_pool_3x3]", f"monitor=[{monitor}]",
                                         f"monitor.{monitor}.stop=true", *options, "epochs=6", "alpha_optimizer.lr=0.5")
    loop = stages.loop
    assert len(records) == len(loop.verdict.genotypes) < 6 and loop.verdict.stopped and loop.verdict.epoch == len(records) - 2
    assert genotype.to_json() == loop.verdict.genotypes[-2]
    assert records.lines == [f"{monitor}: {loop.verdict.stopped}; the search ends with the genotype of epoch {len(records) - 1}"]


def test_what_costs_nothing_is_always_recorded():
    _, records, _ = searched(*TINY, "epochs=1")
    assert {"skip_share", "parameter_free_share", "alpha_gap/normal", "alpha_gap/reduce", "alpha_entropy/normal",
            "alpha_entropy/reduce"} <= set(records[0])


def test_early_stopping_and_adaptive_regularisation_have_the_official_numbers():
    """DARTS-ES' script; and DARTS-ADA_search.sh's, ten times the weight decay up to 0.03."""
    for options, does in ((["experiment=darts_es_cifar10"], {"stop": True, "retry": None}),
                          (["experiment=darts_ada_cifar10"], {"stop": False, "retry": 10, "retry_until": 0.03})):
        monitor = composed(*options).monitor.eigenvalue
        official = {"every": 2, "window": 5, "delta": 4, "factor": 1.3, "start_epoch": 10} | does
        assert {key: monitor[key] for key in official} == official
