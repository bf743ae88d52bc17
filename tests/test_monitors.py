"""Monitors against what they claim to measure, in float64, and what they bring about."""

import math

import pytest
import torch

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.first_order import first_order
from supernet.monitors import eigenvalue
from supernet.monitors.base import Look, shares
from supernet.monitors.eigenvalue import Eigenvalue, dominant_eigenvalue, lanczos, rise
from supernet.monitors.freezing import OpFreezing
from supernet.monitors.layer_alignment import LayerAlignment
from supernet.monitors.skips import SkipCount
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.spaces import darts
from supernet.task import Classification
from supernet.train import Verdict
from supernet.weights import EdgeWeights, Weights, one_hot
from tests import reference

F64 = torch.float64
SPACE = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3", "avg_pool_3x3"))


def small(seed=0, layers=3):
    torch.manual_seed(seed)
    net = SPACE.network(SPACE.candidates(), layers=layers, channels=2, num_classes=3, in_channels=2, image_size=(8, 8),
                        norm=Normalisation(False, True)).double()
    g = torch.Generator().manual_seed(seed)
    relaxation = Softmax(SPACE, g, init_scale=0.5).double()
    batches = [(torch.randn(6, 2, 8, 8, generator=g, dtype=F64), torch.randint(3, (6,), generator=g)) for _ in range(2)]
    search = Bilevel(net, relaxation, first_order, Classification(), torch.optim.SGD(net.parameters(), lr=0.05),
                     torch.optim.Adam(relaxation.parameters(), lr=1e-2), {"alpha": g, "net": torch.Generator()})
    return search, batches


def look_at(epoch, search=None, val=(), genotype=None, weights=None):
    return Look(epoch, 100, genotype, weights, search, val)


# ---- the dominant eigenvalue


@pytest.mark.equation("darts_es")
@pytest.mark.parametrize("seed", range(5))
def test_lanczos_finds_all_eigenvalues_of_a_small_matrix_and_the_largest_of_a_large_one(seed):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(12, 12, generator=g, dtype=F64)
    matrix = root + root.T
    found = lanczos(lambda v: matrix @ v, torch.randn(12, generator=g, dtype=F64), 12)
    torch.testing.assert_close(found, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-9)
    root = torch.randn(224, 60, generator=g, dtype=F64)  # as many alphas as two kinds of DARTS cells have
    matrix = root @ root.T / 60 + 5 * torch.outer(root[:, 0], root[:, 0]) / 224
    found = lanczos(lambda v: matrix @ v, torch.randn(224, generator=g, dtype=F64), 10)
    assert found[-1].item() == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-4)
    assert lanczos(lambda v: 3 * v, torch.ones(5, dtype=F64), 5).tolist() == pytest.approx([3.0]), "stops where nothing is new"


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
    assert dominant_eigenvalue(search, batch, iterations=len(flat)) == pytest.approx(dense[-1].item(), rel=1e-8)
    assert dominant_eigenvalue(search, batch, iterations=10) == pytest.approx(dense[-1].item(), rel=1e-3)
    assert not search.net.training and all(torch.equal(value, state[name]) for name, value in search.net.state_dict().items())


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
        monkeypatch.setattr(eigenvalue, "dominant_eigenvalue", lambda *args: value)
        signal = monitor.after_epoch(look_at(epoch, val=[None]))
        expected = None if epoch % 2 else official.stops_at(epoch, value)
        assert (signal.stop is None) == (expected is None), epoch
        if signal.stop is not None:
            verdict.stop(signal.stop, signal.back)
            assert verdict.epoch == expected >= 10
            return
        assert signal.values == ({} if epoch % 2 else {"alpha_eigenvalue": value})
    assert growth < 1.1, "what grows fast enough is stopped"


def test_a_rise_needs_two_windows_and_is_a_warning_without_stop(monkeypatch):
    assert rise([1.0] * 8, 5, 4) is None and rise([1.0] * 4 + [3.0] * 5, 5, 4) == pytest.approx(15 / 7)
    assert rise([-1.0] * 9, 5, 4) is None
    monitor = Eigenvalue(SPACE, every=1, window=1, delta=1, start_epoch=0)
    signals = []
    for epoch, value in enumerate([1.0, 1.2, 2.0]):
        monkeypatch.setattr(eigenvalue, "dominant_eigenvalue", lambda *args: value)
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
