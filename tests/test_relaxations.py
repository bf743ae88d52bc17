"""Each relaxation against what its paper claims, in float64."""

import itertools
import math

import pytest
import torch

from ops.op import Normalisation
from supernet.optim.optimizers import ExponentiatedGradient
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.base import SoftmaxDraws, TableRelaxation, Wrapper, gumbel
from supernet.relaxations.binary_gates import BinaryGates
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.controller import Controller
from supernet.relaxations.dirichlet import PROPOSALS, Dirichlet, concentration, gamma
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.greedy import PRUNED, Greedy
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.perturbed import Adversarial, RandomPerturbed
from supernet.relaxations.reinmax import ReinMax
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.simplex import Simplex
from supernet.relaxations.softmax import Softmax
from supernet.relaxations.uniform import Uniform
from supernet.select.argmax import argmax
from supernet.space import CellSpec, Space
from supernet.spaces import darts, nasbench201, robust, toy
from supernet.weights import EdgeWeights, Weights, replaced
from tests import groups
from tests.builders import small_search
from tests.searches import composed

TABLES = [choice for choice in groups.choices("relaxation") if issubclass(groups.target("relaxation", choice), TableRelaxation)]
NOT_NORMALISED = {"sigmoid"}  # those whose ops do not compete


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def edges_space(edges=3, ops=("a", "b", "c")):
    """Independent edges, for statistics: as many rows as wanted, all with the same ops."""
    every = ((True,) * len(ops),) * edges
    spec = CellSpec(1, edges, tuple((0, d) for d in range(1, edges + 1)), tuple(ops), every, every, ((1, 1),) * edges, (1,))
    return Space("edges", {}, {"cell": spec}, lambda *a, **k: None)


def alike(relaxation, row):
    """The relaxation in float64 with every edge's alphas equal to `row`."""
    relaxation = relaxation.double()
    with torch.no_grad():
        relaxation.alpha["cell"].copy_(torch.tensor(row, dtype=torch.float64))
    return relaxation


@pytest.mark.parametrize("choice", TABLES)
@pytest.mark.parametrize("space", [darts.make(nodes=2), robust.s1(), toy.make()], ids=lambda s: s.name)
def test_draws_are_weights_of_present_ops_and_repeat_under_the_same_noise(choice, space):
    relaxation = groups.made("relaxation", choice)(space, generator())
    g = generator(1)
    noise = relaxation.noise(g)
    first, again, other = relaxation.weights(noise), relaxation.weights(noise), relaxation(g)
    for kind, spec in space.cells.items():
        absent = ~torch.tensor(spec.present)
        assert first[kind].ops.shape == absent.shape and (first[kind].ops >= 0).all()
        assert (first[kind].ops[absent] == 0).all() and (relaxation.mean()[kind].ops[absent] == 0).all()
        assert torch.equal(first[kind].ops, again[kind].ops) and first[kind].active == again[kind].active
        if choice not in NOT_NORMALISED:
            torch.testing.assert_close(first[kind].ops.sum(1), torch.ones(len(absent)))
            torch.testing.assert_close(relaxation.mean()[kind].ops.sum(1), torch.ones(len(absent)))
    if noise:
        assert any(not torch.equal(first[kind].ops, other[kind].ops) for kind in space.cells)
    sum((w.ops * torch.randn(w.ops.shape, generator=g)).sum() for w in first.values()).backward()
    for kind, alpha in relaxation.alpha.items():
        assert alpha.grad is not None and alpha.grad.abs().sum() > 0
        assert (alpha.grad[~torch.tensor(space.cells[kind].present)] == 0).all(), "an op that an edge lacks learns nothing"


class Squared(TableRelaxation):
    """Weights that are no softmax: squares over their sum."""

    def op_weights(self, kind):
        squares = (self.alpha[kind] ** 2).masked_fill(self.absent(kind), 0.0)
        return squares / squares.sum(-1, keepdim=True)


def test_one_method_says_what_is_trained_and_what_is_selected_from():
    space = edges_space()
    relaxation = alike(Squared(space, generator()), [1.0, -3.0, 2.0])  # by softmax the last op were the strongest
    want = torch.tensor([1.0, 9.0, 4.0], dtype=torch.float64) / 14
    for found in (relaxation(generator()), relaxation.mean(), relaxation.evaluated(generator())):
        torch.testing.assert_close(found["cell"].ops, want.expand(3, 3), rtol=0, atol=1e-15)
    assert [e.op for e in argmax(space, relaxation.mean())["cell"]] == ["b"] * 3


@pytest.mark.parametrize("interface", [TableRelaxation, SoftmaxDraws])
def test_a_relaxation_that_says_half_of_what_is_needed_is_not_made(interface):
    """What says only how it draws were selected from by something else; what says only what it is selected from were trained under it."""
    half = {TableRelaxation: "weights", SoftmaxDraws: "op_weights"}[interface]
    made = type("Half", (interface,), {half: lambda self, of: None})
    with pytest.raises(TypeError, match="abstract method"):
        made(edges_space(), generator())


def test_a_wrapper_says_once_what_it_changes():
    class Halved(Wrapper):
        def changed(self, weights):
            return replaced(weights, lambda kind, w: {"ops": w.ops / 2})

    inner = Softmax(edges_space(), generator())
    wrapped = Halved(inner)
    for found, whole in ((wrapped(generator()), inner(generator())), (wrapped.mean(), inner.mean()),
                         (wrapped.evaluated(generator()), inner.evaluated(generator()))):
        assert torch.equal(found["cell"].ops, whole["cell"].ops / 2)


# ---- hard draws


@pytest.mark.equation("gdas", "reinmax")
@pytest.mark.parametrize("make", [GumbelHard, ReinMax])
def test_hard_draws_are_one_hot_with_the_probabilities_of_the_softmax(make):
    relaxation = alike(make(edges_space(40_000), generator()), [0.5, -1.0, 0.0])
    weights = relaxation(generator(1))["cell"]
    assert set(weights.ops.detach().unique().tolist()) == {0.0, 1.0} and (weights.ops.sum(1) == 1).all()
    p = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64).softmax(0)
    assert (weights.ops.detach().mean(0) - p).abs().max() < 4 * math.sqrt(0.25 / 40_000)
    if make is GumbelHard:
        assert weights.active == tuple(tuple(bool(v) for v in row) for row in weights.ops.tolist())


@pytest.mark.equation("gdas")
def test_gdas_runs_exactly_one_op_an_edge_and_the_temperature_does_not_change_which():
    relaxation = GumbelHard(darts.make(), generator())
    noise = relaxation.noise(generator(1))
    seen = []
    for temperature in (10.0, 0.1):
        relaxation.temperature = temperature
        draw = relaxation.weights(noise)
        assert all(sum(row) == 1 for w in draw.values() for row in w.active)
        seen.append([w.active for w in draw.values()])
    assert seen[0] == seen[1]
    relaxation.anneal(0.0, 0)
    assert relaxation.temperature == 10
    relaxation.anneal(0.5, 1)
    assert relaxation.temperature == pytest.approx(5.05)
    relaxation.anneal(1.0, 2)
    assert relaxation.temperature == 0.1


@pytest.mark.equation("gdas")
@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_gdas_bias_is_as_derived(temperature):
    """Two ops with outputs c1, c2 and a loss linear in the output. With delta = alpha1 - alpha2 and logistic noise l the draw is op 1 where
    delta + l > 0, and s = sigmoid((delta + l) / temperature). Only the drawn op's output is known, so the estimate of d/d delta is
    c1 s (1 - s) / temperature, or -c2 s (1 - s) / temperature; its expectation is an integral over l. The truth is (c1 - c2) p (1 - p)."""
    delta, c = 0.7, torch.tensor([1.5, -0.5], dtype=torch.float64)
    relaxation = alike(GumbelHard(edges_space(100_000, ("a", "b")), generator()), [delta, 0.0])
    relaxation.temperature = temperature
    w = relaxation(generator(1))["cell"]
    drawn = torch.tensor(w.active, dtype=torch.float64)
    (w.ops * c * drawn).sum().backward()  # a network that runs the drawn op alone
    samples = relaxation.alpha["cell"].grad[:, 0]
    noise = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    density = torch.sigmoid(noise) * torch.sigmoid(-noise)
    s = torch.sigmoid((delta + noise) / temperature)
    expected = torch.trapezoid(density * torch.where(delta + noise > 0, c[0], -c[1]) * s * (1 - s) / temperature, noise)
    assert abs(samples.mean() - expected) < 4 * samples.std() / math.sqrt(len(samples))
    p = torch.sigmoid(torch.tensor(delta))
    assert abs(expected - (c[0] - c[1]) * p * (1 - p)) > 0.02, "the estimator is biased, and this test would see it if it were not"


def reinmax_expects(loss, logits):
    """The expectation of ReinMax's gradient over all draws, enumerated: noise that decides the draw, weighted by its probability."""
    n, p = len(logits), logits.softmax(0)
    relaxation = alike(ReinMax(edges_space(1, tuple("abcd"[:n])), generator()), logits.tolist())
    total = torch.zeros(n, dtype=torch.float64)
    for i in range(n):
        noise = {"cell": torch.full((1, n), -1e3, dtype=torch.float64).index_fill_(1, torch.tensor([i]), 1e3)}
        relaxation.zero_grad()
        w = relaxation.weights(noise)["cell"].ops[0]
        assert w[i] == 1
        loss(w).backward()
        total += p[i] * relaxation.alpha["cell"].grad[0]
    return total


def exact_and_slopes(loss, logits):
    """The gradient of the expected loss, and the loss's slopes in the weights at each op, a row each."""
    alpha, ones = logits.clone().requires_grad_(), torch.eye(len(logits), dtype=torch.float64)
    sum(prob * loss(row) for prob, row in zip(alpha.softmax(0), ones)).backward()
    at = ones.clone().requires_grad_()
    sum(loss(row) for row in at).backward()
    return alpha.grad, at.grad


@pytest.mark.equation("reinmax")
def test_reinmax_is_exact_for_quadratic_losses_and_straight_through_is_not():
    n = 4
    g = generator()
    q, c = torch.randn(n, n, dtype=torch.float64, generator=g), torch.randn(n, dtype=torch.float64, generator=g)
    logits = torch.randn(n, dtype=torch.float64, generator=g)

    def loss(w):
        return w @ q @ w + c @ w

    exact, slopes = exact_and_slopes(loss, logits)
    p = logits.softmax(0)
    straight = (torch.diag(p) - torch.outer(p, p)) @ (p @ slopes)
    torch.testing.assert_close(reinmax_expects(loss, logits), exact, rtol=0, atol=1e-12)
    assert (straight - exact).abs().max() > 0.05


@pytest.mark.equation("reinmax")
def test_reinmax_takes_slopes_for_differences_which_may_turn_its_sign():
    """f(i) - f(j) is (f'(i) + f'(j)) (i - j) / 2 to it. Here op b alone has no loss, but a little of it added to op a raises the loss, and
    at b all slopes have vanished: so it is for a convolution that has learned to do without what a skip connection adds."""
    logits = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64)

    def loss(w):
        return 0.7 * (1 - w[1]) ** 2 * (1 + 5 * w[0] * w[1]) + 0.2 * w[2] ** 3

    exact, slopes = exact_and_slopes(loss, logits)
    alpha, ones, fixed = logits.clone().requires_grad_(), torch.eye(3, dtype=torch.float64), logits.softmax(0)
    p = alpha.softmax(0)
    sum(fixed[j] * p[i] * ((slopes[i] + slopes[j]) / 2) @ (ones[i] - ones[j]) for i in range(3) for j in range(3)).backward()
    found = reinmax_expects(loss, logits)
    torch.testing.assert_close(found, alpha.grad, rtol=0, atol=1e-12)
    assert exact[1] < -0.1 and found[1] > 0.01, "b should gain, and loses"


# ---- soft draws


@pytest.mark.equation("snas", "fbnet")
def test_concrete_draws_follow_the_distribution_and_their_gradient_the_path():
    """P(argmax) is the softmax at any temperature (Maddison et al. 2017, Prop. 1b); gradients under frozen noise are ordinary ones."""
    relaxation = alike(Concrete(edges_space(40_000), generator()), [0.5, -1.0, 0.0])
    for progress, temperature in ((0.0, 1.0), (0.5, 0.515), (1.0, 0.03)):
        relaxation.anneal(progress, 0)
        assert relaxation.temperature == pytest.approx(temperature)
        top = relaxation(generator(1))["cell"].ops.argmax(1)
        p = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64).softmax(0)
        assert (torch.bincount(top) / 40_000 - p).abs().max() < 4 * math.sqrt(0.25 / 40_000)
    small = alike(Concrete(edges_space(2), generator()), [0.5, -1.0, 0.0])
    noise = small.noise(generator(2))
    alpha = small.alpha["cell"].detach().clone().requires_grad_()

    def drawn(alpha):
        return torch.func.functional_call(_Frozen(small), {"relaxation.alpha.cell": alpha}, (noise,))

    assert torch.autograd.gradcheck(drawn, (alpha,))


class _Frozen(torch.nn.Module):
    def __init__(self, relaxation):
        super().__init__()
        self.relaxation = relaxation

    def forward(self, noise):
        return self.relaxation.weights(noise)["cell"].ops


@pytest.mark.equation("fbnet")
def test_an_exponential_temperature_falls_by_the_same_factor_every_epoch():
    relaxation = Concrete(edges_space(), generator(), temperature=5.0, temperature_end=0.091, decay="exponential")
    temperatures = []
    for epoch in range(90):
        relaxation.anneal(epoch / 89, epoch)
        temperatures.append(relaxation.temperature)
    assert temperatures[0] == 5.0 and temperatures[-1] == 0.091
    assert [b / a for a, b in itertools.pairwise(temperatures)] == pytest.approx([math.exp(-0.045)] * 89, rel=1e-3)  # FBNet's decay


@pytest.mark.equation("fbnet")
def test_a_temperature_may_rest_while_the_weights_warm_up():
    """The numbers of the re-implementation that fbnet_cifar10 follows: 180 epochs, 10 without alphas, e^-0.045 after each other one."""
    cfg = composed("experiment=fbnet_cifar10")
    options = {name: value for name, value in cfg.relaxation.items() if not name.startswith("_")}
    relaxation, temperature, epochs = Concrete(edges_space(), generator(), **options), 5.0, cfg.epochs
    for epoch in range(epochs):
        relaxation.anneal(epoch / (epochs - 1), epoch)
        assert relaxation.temperature == pytest.approx(temperature, rel=2e-3)
        temperature *= math.exp(-0.045) if epoch >= cfg.alpha_begin else 1.0
    assert relaxation.temperature == options["temperature_end"] and (epochs, cfg.alpha_begin, options["rest"]) == (180, 10, 10)


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 3.0, 20.0])
def test_gamma_draws_have_their_distribution(shape):
    """Kolmogorov and Smirnov's distance to the exact distribution function; above 1.63 / sqrt(n) once in a hundred times."""
    n, g = 20_000, generator()
    noise = (torch.randn(n, PROPOSALS, generator=g, dtype=torch.float64), torch.rand(n, PROPOSALS, generator=g, dtype=torch.float64),
             torch.empty(n, dtype=torch.float64).exponential_(generator=g))
    a = torch.full((n,), shape, dtype=torch.float64)
    found = torch.special.gammainc(a, gamma(a, *noise).sort().values)
    even = torch.arange(n + 1, dtype=torch.float64) / n
    assert torch.maximum((found - even[:-1]).abs(), (found - even[1:]).abs()).max() < 1.63 / n**0.5


@pytest.mark.equation("dr_nas")
def test_dirichlet_gradients_match_the_derivative_of_the_expectation():
    """E[sum c_i theta_i^2] = sum c_i a_i (a_i + 1) / (A (A + 1)), differentiated numerically, against the mean of the path derivatives."""
    row, c = [0.4, -0.7, 0.1], torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    relaxation = alike(Dirichlet(edges_space(200_000), generator()), row)
    w = relaxation(generator(1))["cell"].ops
    (w.square() @ c).sum().backward()
    samples = relaxation.alpha["cell"].grad

    def expectation(beta):
        a = concentration(torch.tensor(beta, dtype=torch.float64))
        return float((c * a * (a + 1)).sum() / (a.sum() * (a.sum() + 1)))

    h = 1e-5
    for i in range(3):
        up, down = ([b + s * h * (k == i) for k, b in enumerate(row)] for s in (1, -1))
        numerical = (expectation(up) - expectation(down)) / (2 * h)
        assert abs(samples[:, i].mean() - numerical) < 4 * samples[:, i].std() / math.sqrt(len(samples))
        assert abs(numerical) > 0.01  # the noise of the estimate is far below what is compared
    a = concentration(torch.tensor(row, dtype=torch.float64))
    assert (w.mean(0) - a / a.sum()).abs().max() < 0.003
    torch.testing.assert_close(relaxation.mean()["cell"].ops[0], a / a.sum())


def test_tiny_concentrations_give_no_nan():
    relaxation = Dirichlet(edges_space(2000), generator())
    with torch.no_grad():
        relaxation.alpha["cell"].fill_(-12.0)
    w = relaxation(generator(1))["cell"].ops
    w.square().sum().backward()
    assert torch.isfinite(w).all() and torch.isfinite(relaxation.alpha["cell"].grad).all()


@pytest.mark.equation("fair_darts")
def test_sigmoids_do_not_compete():
    relaxation = Sigmoid(edges_space(), generator())
    before = relaxation.mean()["cell"].ops.detach()
    with torch.no_grad():
        relaxation.alpha["cell"][0, 0] += 3
    after = relaxation.mean()["cell"].ops.detach()
    assert after[0, 0] > 0.9 and torch.equal(after[0, 1:], before[0, 1:]) and torch.equal(after[1:], before[1:])


# ---- mirror descent


@pytest.mark.equation("gaea", "gaea_pc_darts")
def test_mirror_descent_stays_on_the_simplex_and_is_its_closed_form():
    space = robust.s1()
    relaxation = Simplex(space, generator()).double()
    with torch.no_grad():
        for p in relaxation.parameters():
            p.div_(p.sum(-1, keepdim=True))
    optimizer = ExponentiatedGradient(relaxation.parameters(), lr=0.5)
    g = generator(1)
    for _ in range(500):
        expected = {}
        for kind, p in relaxation.alpha.items():
            p.grad = 10 * torch.randn(p.shape, generator=g, dtype=torch.float64)
            moved = p.detach() * torch.exp(-0.5 * p.grad)
            expected[kind] = moved / moved.sum(-1, keepdim=True)
        optimizer.step()
        for kind, p in relaxation.alpha.items():
            torch.testing.assert_close(p.detach(), expected[kind], rtol=1e-9, atol=1e-300)
    for kind, w in relaxation.mean().items():
        assert (w.ops >= 0).all() and (w.ops.sum(1) - 1).abs().max() < 1e-12
        assert (w.ops[~torch.tensor(space.cells[kind].present)] == 0).all()


def test_a_huge_gradient_does_not_leave_the_simplex():
    p = torch.nn.Parameter(torch.tensor([[0.2, 0.3, 0.5]]))
    optimizer = ExponentiatedGradient([p], lr=1.0)
    p.grad = torch.tensor([[1e6, -1e6, 0.0]])
    optimizer.step()
    assert p.tolist() == [[0.0, 1.0, 0.0]]


def test_mirror_descent_refuses_what_is_not_on_the_simplex():
    with pytest.raises(ValueError, match="relaxation=simplex"):
        ExponentiatedGradient(Softmax(toy.make(), generator(), init_scale=1.0).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="weight_decay must be 0, got 0.001"):
        ExponentiatedGradient(Simplex(toy.make(), generator()).parameters(), lr=0.1, weight_decay=1e-3)


# ---- binary gates


@pytest.mark.equation("proxyless")
def test_binary_gates_compare_two_paths_and_leave_the_others_probabilities():
    space = darts.make(nodes=2)
    relaxation = BinaryGates(space, generator(), init_scale=1.0).double()
    g = generator(1)
    before = {kind: w.ops.detach().clone() for kind, w in relaxation.mean().items()}
    draw = relaxation(g)
    coefficients = {kind: torch.randn(w.ops.shape, generator=g, dtype=torch.float64) for kind, w in draw.items()}
    sum((w.ops * coefficients[kind]).sum() for kind, w in draw.items()).backward()
    pairs = {kind: torch.tensor(w.active) for kind, w in draw.items()}
    for kind, w in draw.items():
        assert (pairs[kind].sum(1) == 2).all() and (w.ops.detach().sum(1) == 1).all()
        assert (w.ops.detach()[~pairs[kind]] == 0).all(), "the open gate is one of the two"
        for e in range(len(w.ops)):  # eq. 4 with the two: d L / d alpha_i = sum_j dL/dg_j p_j (delta_ij - p_i)
            i, j = pairs[kind][e].nonzero().flatten().tolist()
            p = relaxation.alpha[kind].detach()[e, [i, j]].softmax(0)
            slope = p[0] * p[1] * (coefficients[kind][e, i] - coefficients[kind][e, j])
            expected = torch.zeros(w.ops.shape[1], dtype=torch.float64)
            expected[i], expected[j] = slope, -slope
            torch.testing.assert_close(relaxation.alpha[kind].grad[e], expected)
    optimizer = torch.optim.SGD(relaxation.parameters(), lr=0.5)
    optimizer.step()
    relaxation.after_step()
    for kind, w in relaxation.mean().items():
        torch.testing.assert_close(w.ops.detach()[~pairs[kind]], before[kind][~pairs[kind]])
        assert not torch.allclose(w.ops.detach()[pairs[kind]], before[kind][pairs[kind]])
    open_gates = relaxation.for_w_step(draw.detach(), lambda weights: torch.zeros(()), g)
    assert all(sum(row) == 1 for w in open_gates.values() for row in w.active)


def test_an_edge_with_one_op_keeps_it():
    spec = CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a"]), (0, 2, ["a", "b"])], outputs=(2,), keep=None)
    relaxation = BinaryGates(Space("one", {}, {"cell": spec}, lambda *a, **k: None), generator())
    relaxation(generator(1))["cell"].ops.sum().backward()
    relaxation.after_step()
    assert torch.isfinite(relaxation.alpha["cell"]).all() and relaxation.mean()["cell"].ops[0].tolist() == [1.0, 0.0]


# ---- wrappers


@pytest.mark.equation("pc_darts", "gaea_pc_darts")
def test_edge_weights_sum_to_one_at_each_node_and_leave_the_op_weights():
    space = robust.s1()
    relaxation = EdgeNormalised(Softmax(space, generator(), init_scale=1.0), space, generator(1), init_scale=1.0)
    weights = relaxation(generator())
    for kind, spec in space.cells.items():
        assert torch.equal(weights[kind].ops, relaxation.inner.mean()[kind].ops)
        for node, beta in zip(spec.nodes, relaxation.beta[kind]):
            torch.testing.assert_close(weights[kind].edges[spec.incoming(node)], beta.softmax(0))
    names = [name for name, _ in relaxation.named_parameters()]
    assert sum(name.startswith("inner.alpha") for name in names) == 2 and len(names) == 2 + 8
    simplex = EdgeNormalised(Simplex(space, generator()), space, generator(), form="simplex")
    ExponentiatedGradient(simplex.parameters(), lr=0.1)  # accepts all of them
    assert simplex.mean()["normal"].edges[:2].tolist() == [0.5, 0.5]


@pytest.mark.equation("pc_darts")
def test_the_strongest_edge_is_that_of_alpha_times_beta():
    """PC-DARTS selects by the product, not by alpha alone."""
    space = darts.make(nodes=2, ops=("skip_connect", "sep_conv_3x3"), edges_per_node=1)
    relaxation = EdgeNormalised(Softmax(space, generator()), space, generator())
    with torch.no_grad():
        relaxation.inner.alpha["normal"][:2] = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        relaxation.beta["normal"][0].copy_(torch.tensor([-3.0, 3.0]))
    edges = [e for e in argmax(space, relaxation.mean())["normal"] if e.destination == 2]
    assert [(e.source, e.op) for e in edges] == [(1, "sep_conv_3x3")]


@pytest.mark.equation("sdarts_rs")
def test_random_perturbation_stays_within_epsilon_and_touches_no_alpha():
    """The paper's equation, without the clip of the official code."""
    search, batch, space = small_search(lambda s, g: RandomPerturbed(Softmax(s, g, init_scale=1.0), s, g, clip=False))
    relaxation = search.relaxation
    for progress, epsilon in ((0.0, 0.03), (0.5, 0.165), (1.0, 0.3)):
        relaxation.anneal(progress, 0)
        assert relaxation.epsilon == pytest.approx(epsilon)
        before = [p.detach().clone() for p in relaxation.parameters()]
        draw = relaxation(generator()).detach()
        moved = relaxation.for_w_step(draw, lambda w: torch.zeros(()), generator(1))
        for kind in space.cells:
            delta = moved[kind].ops - draw[kind].ops
            assert delta.abs().max() <= epsilon and delta.abs().max() > 0.8 * epsilon and abs(delta.mean()) < 0.3 * epsilon
        search.w_step(batch)
        assert all(torch.equal(p, q) for p, q in zip(relaxation.parameters(), before))
    assert torch.equal(relaxation(generator())["normal"].ops, relaxation.inner.mean()["normal"].ops), "alpha learns without it"


def official_clip(ops):
    """`clip()` of SmoothDARTS' model_search.py, row by row."""
    ops = ops.clone()
    for line in ops:
        largest = line.argmax()
        line.clamp_(0, 1)
        if line.sum() == 0:
            line[largest] = 1.0
        line.div_(line.sum())
    return ops


@pytest.mark.equation("sdarts_rs", "sdarts_adv")
def test_the_clip_is_that_of_the_official_code_and_leaves_out_absent_ops():
    for space in (darts.make(nodes=2), robust.s1()):
        relaxation = RandomPerturbed(Softmax(space, generator(), init_scale=1.0), space, generator(), epsilon=0.9, epsilon_end=0.9).double()
        draw = relaxation(generator()).detach()
        seen = relaxation.for_w_step(draw, lambda w: torch.zeros(()), generator(1))
        g = generator(1)
        for kind, spec in space.cells.items():
            noise = (2 * torch.rand(draw[kind].ops.shape, generator=g) - 1) * 0.9
            for e, here in enumerate(torch.tensor(spec.present)):
                expected = official_clip((draw[kind].ops[e] + noise[e].double())[None, here])[0]
                torch.testing.assert_close(seen[kind].ops[e, here], expected, rtol=0, atol=1e-12)
                assert seen[kind].ops[e, ~here].abs().sum() == 0
    gone = draw["normal"].ops.clone()
    gone[0] = 0.0  # an edge that is pruned stays so
    pruned = EdgeWeights({kind: Weights(gone if kind == "normal" else w.ops) for kind, w in draw.items()})
    assert relaxation.for_w_step(pruned, lambda w: torch.zeros(()), generator(2))["normal"].ops[0].abs().sum() == 0


@pytest.mark.equation("sdarts_adv")
@pytest.mark.parametrize("clip, draws", [(True, 50), (False, 50)])
def test_the_adversary_raises_the_training_loss_in_all_draws_and_more_than_noise_does(clip, draws):
    search, batch, space = small_search(lambda s, g: Adversarial(Softmax(s, g, init_scale=1.0), s, g, clip=clip))
    adversary, x = search.relaxation, batch
    for _ in range(5):
        search.w_step(x)
    noisy = RandomPerturbed(adversary.inner, space, generator(), clip=clip)
    before = [p.detach().clone() for p in adversary.parameters()]
    net_before = {k: v.clone() for k, v in search.net.state_dict().items()}
    raised, by_noise = [], []

    def loss_of_weights(weights):
        search.net.eval()
        return search.task(search.net, x, weights, generator=search.generators["net"]).loss

    for n in range(draws):
        progress = n / (draws - 1)
        adversary.anneal(progress, n), noisy.anneal(progress, n)
        draw = adversary(generator(n)).detach()
        with torch.no_grad():
            start = loss_of_weights(draw)
        for wrapper, found in ((adversary, raised), (noisy, by_noise)):
            answer = wrapper.for_w_step(draw, loss_of_weights, generator(100 + n))
            if clip:
                assert all((w.ops >= 0).all() and (w.ops.sum(1) - 1).abs().max() < 1e-12 for w in answer.values())
            else:
                assert all((answer[kind].ops - draw[kind].ops).abs().max() <= wrapper.epsilon + 1e-12 for kind in space.cells)
            with torch.no_grad():
                found.append(float(loss_of_weights(answer) - start))
    assert all(rise >= 0 for rise in raised) and sum(rise > 0 for rise in raised) == draws
    assert sum(raised) > sum(by_noise) and sum(a > b for a, b in zip(raised, by_noise)) >= 0.9 * draws
    assert all(torch.equal(p, q) for p, q in zip(adversary.parameters(), before)), "alpha is bitwise as it was"
    assert all(torch.equal(v, net_before[k]) for k, v in search.net.state_dict().items())


def test_an_adversary_without_a_running_op_answers_nothing():
    space = toy.make()
    adversary = Adversarial(GumbelHard(space, generator()), space, generator())
    draw = adversary(generator()).detach()
    assert adversary.for_w_step(draw, lambda weights: torch.ones(()), generator()) is draw


@pytest.mark.equation("sdarts_adv")
def test_an_answer_that_does_not_raise_the_loss_is_dropped():
    space = toy.make()
    adversary = Adversarial(Softmax(space, generator()), space, generator(), epsilon=0.1, epsilon_end=0.1)
    draw = adversary(generator()).detach()
    peak = draw["cell"].ops.clone()
    # a loss with its maximum at the draw, and a gradient there that lures away from it
    answer = adversary.for_w_step(draw, lambda w: -(w["cell"].ops - peak).abs().sum() - (w["cell"].ops - peak).square().sum(), generator())
    assert torch.equal(answer["cell"].ops, peak)


@pytest.mark.equation("darts_minus")
def test_the_auxiliary_skip_fades_and_leaves_no_trace():
    search, batch, space = small_search(lambda s, g: AuxiliarySkip(Softmax(s, g), s, g), auxiliary_skip=True)
    relaxation, net = search.relaxation, search.net
    betas = []
    for epoch in range(5):
        search.anneal(epoch / 4, epoch)
        betas.append(0.0 if relaxation(generator())["normal"].skip is None else relaxation(generator())["normal"].skip.item())
    assert betas == [1.0, 0.75, 0.5, 0.25, 0.0]
    plain, _, _ = small_search(lambda s, g: Softmax(s, g))
    shared = plain.net.state_dict()
    plain.net.load_state_dict({k: v for k, v in net.state_dict().items() if k in shared})
    x = batch[0]
    net.eval(), plain.net.eval()
    weights = relaxation(generator())
    torch.testing.assert_close(net(x, weights), plain.net(x, weights), rtol=0, atol=0)  # at beta 0 it is the DARTS supernet
    relaxation.anneal(0.0, 0)
    assert not torch.allclose(net(x, relaxation(generator())), plain.net(x, weights))
    assert set(net.state_dict()) - set(shared) and all("auxiliary" in name for name in set(net.state_dict()) - set(shared))
    genotype = argmax(space, relaxation.mean())
    final = space.network(space.candidates(genotype), layers=3, channels=4, num_classes=3, in_channels=2, image_size=(8, 8),
                          norm=Normalisation(True, False))
    assert not any("mixed.auxiliary" in name for name in final.state_dict())
    assert relaxation.mean()["normal"].ops.shape == (5, 4), "no column stands for it, so nothing can select it"


def test_wrappers_compose_in_order():
    search, batch, space = small_search(
        lambda s, g: Adversarial(AuxiliarySkip(EdgeNormalised(Dirichlet(s, g), s, g), s, g), s, g), auxiliary_skip=True, partial=2)
    search.anneal(0.0, 0)
    before = [p.detach().clone() for p in search.relaxation.parameters()]
    search.step(batch, batch)
    assert all(not torch.equal(p, q) for p, q in zip(search.relaxation.parameters(), before)), "alphas and betas all learn"
    draw = search.relaxation(generator())
    assert draw["normal"].edges is not None and draw["normal"].skip is not None
    search.relaxation.load_state_dict(search.relaxation.state_dict())


# ---- greedy decisions


@pytest.mark.equation("sgas")
def test_greedy_decides_the_most_certain_edges_and_prunes_the_rest():
    space = darts.make(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3"), edges_per_node=2)
    inner = Softmax(space, generator())
    greedy = Greedy(inner, space, generator(), warm_up=1, every=2)
    with torch.no_grad():  # edges 3 and 4 of node 3 are certain, 3 more so
        inner.alpha["normal"][3] = torch.tensor([-5.0, 0.0, 5.0])
        inner.alpha["normal"][4] = torch.tensor([-3.0, 3.0, 0.0])
    order = []
    for epoch in range(10):
        greedy.anneal(epoch / 9, epoch)
        again = list(greedy.rows["normal"])
        greedy.anneal(epoch / 9, epoch)  # gone on with within the epoch
        assert again == greedy.rows["normal"]
        order.append([e for e, row in enumerate(greedy.rows["normal"]) if row >= 0])
    assert order[:5] == [[], [], [3], [3], [3, 4]], "after epochs 1 and 3"
    assert greedy.rows["normal"][2] == PRUNED and greedy.rows["normal"][3] == 2 and greedy.rows["normal"][4] == 1
    weights = greedy.weights({})["normal"]
    assert weights.active[2] == (False,) * 3 and weights.active[3] == (False, False, True) and weights.ops[2].tolist() == [0.0] * 3
    assert order[-1] == [0, 1, 3, 4], "every edge that a genotype keeps is decided"
    genotype = argmax(space, greedy.mean())
    assert {(e.source, e.op) for e in genotype["normal"] if e.destination == 3} == {(1, "sep_conv_3x3"), (2, "skip_connect")}
    other = Greedy(Softmax(space, generator(9)), space, generator(), warm_up=1, every=2)
    other.load_state_dict(greedy.state_dict())
    assert other.rows == greedy.rows and other.epoch == greedy.epoch and len(other.history) == len(greedy.history)


def official_decisions(tables, criterion, warm_up, every, history_size):
    """`edge_decision` of SGAS' train_search.py and `check_edges` of its model_search.py for one kind of cell, two edges a node, op 0 being
    `none`: tables[epoch] holds the softmax after that epoch; rows that are closed are frozen. Returns by edge its op, or None."""
    normalize = lambda v: (v - v.min()) / (v.max() - v.min())
    frozen, selected, history, starts = tables[0].clone(), {}, [], [(0, 2), (2, 5), (5, 9)]
    for epoch, table in enumerate(tables):
        mat = torch.stack([frozen[e] if e in selected else row for e, row in enumerate(table)])
        importance = mat[:, 1:].sum(-1)
        probs = mat[:, 1:] / importance[:, None]
        entropy = torch.distributions.Categorical(probs=probs).entropy() / math.log(probs.shape[1])
        score = normalize(importance) * normalize(1 - entropy)
        if criterion == 2 and history:
            score = score * normalize(sum(torch.minimum(h, probs).sum(1) for h in history) / len(history))
        history = [*history, probs][-history_size:]
        if epoch < warm_up or (epoch - warm_up) % every or len(selected) == len(table):
            continue
        edge = max((e for e in range(len(table)) if e not in selected), key=lambda e: score[e].item())
        closing = {edge: int(probs[edge].argmax()) + 1}
        for start, end in starts:
            chosen = [e for e in range(start, end) if (selected | closing).get(e) is not None]
            if len(chosen) >= 2:
                closing |= {e: None for e in range(start, end) if e not in selected and e not in closing}
        for e in closing:
            frozen[e] = mat[e]
        selected |= closing
    return selected


@pytest.mark.equation("sgas")
@pytest.mark.parametrize("criterion", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_greedy_decides_as_the_official_code(criterion, seed):
    space = darts.make(nodes=3, ops=("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3"))
    inner = Softmax(space, generator()).double()
    greedy = Greedy(inner, space, generator(), criterion=criterion, warm_up=2, every=2, history=3)
    tables, g = [], generator(seed)
    for epoch in range(16):
        greedy.anneal(epoch / 15, epoch)
        with torch.no_grad():  # what is learned in the epoch
            inner.alpha["normal"] += torch.randn(inner.alpha["normal"].shape, generator=g, dtype=torch.float64)
        tables.append(inner.mean()["normal"].ops.detach().clone())
    greedy.anneal(1.0, 16)
    expected = official_decisions(tables, criterion, 2, 2, 3)
    assert len(expected) == 9, "six decisions close all edges"
    assert {e: None if row == PRUNED else row for e, row in enumerate(greedy.rows["normal"])} == expected


def test_both_criteria_are_not_the_same():
    generator_of = lambda seed: torch.Generator().manual_seed(seed)
    tables = [torch.randn(20, 9, 4, generator=generator_of(seed), dtype=torch.float64).cumsum(0).softmax(-1) for seed in range(6)]
    decided = [[official_decisions(t, criterion, 2, 2, 3) for t in tables] for criterion in (1, 2)]
    assert decided[0] != decided[1]


@pytest.mark.equation("sgas")
def test_stability_counts_by_the_second_criterion():
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3"), edges_per_node=1)
    found = []
    for criterion in (1, 2):
        inner = Softmax(space, generator())
        greedy = Greedy(inner, space, generator(), criterion=criterion, warm_up=4, every=1)
        for epoch in range(6):
            with torch.no_grad():  # edge 1 is more certain and keeps changing its mind; edge 0 does not
                inner.alpha["normal"][0] = torch.tensor([1.9, 0.0])
                inner.alpha["normal"][1] = torch.tensor([2.0, 0.0] if epoch % 2 == 0 else [0.0, 2.0])
            greedy.anneal(epoch / 5, epoch)
        found.append([e for e, row in enumerate(greedy.rows["normal"]) if row >= 0])
    assert found == [[1], [0]], "with certainty and stability at odds both scores are 0, and of equals the first wins"


@pytest.mark.equation("sgas")
def test_importances_that_differ_by_rounding_are_equal():
    """In a space without `none` each edge's weights sum to 1: what rounding leaves of that must not decide."""
    space = darts.make(nodes=2, ops=("skip_connect", "sep_conv_3x3", "avg_pool_3x3"))
    inner = Softmax(space, generator())
    greedy = Greedy(inner, space, generator(), warm_up=0, every=1)
    with torch.no_grad():
        inner.alpha["normal"].copy_(torch.randn(5, 3, generator=generator(3)))
        inner.alpha["normal"][1] = torch.tensor([0.0, 6.0, 0.0])  # the most certain
    table = inner.mean()["normal"].ops.detach()
    table = table * (1 + 6e-8 * torch.tensor([[2.0], [0.0], [1.0], [1.0], [1.0]]))
    greedy._decide("normal", space.cells["normal"], table)
    assert greedy.rows["normal"][1] == 1


# ---- sampled architectures


@pytest.mark.equation("spos", "random_ws")
def test_uniform_draws_are_genotypes_of_the_space():
    space = darts.make(nodes=3)
    relaxation, g = Uniform(space, generator()), generator(1)
    for _ in range(20):
        draw = relaxation(g)
        genotype = argmax(space, draw)
        space.validate(genotype)
        assert all(sum(map(sum, draw[kind].active)) == 6 for kind in space.cells), "two edges a node, one op each"


@pytest.mark.equation("enas")
def test_the_controllers_probabilities_are_those_of_its_draws_and_sum_to_one():
    space = toy.make()
    controller, g = Controller(space, generator()).double(), generator(1)
    with torch.no_grad():
        controller.head.bias.copy_(torch.tensor([0.0, 2.0, -1.0]))
    found, counts = {}, {}
    for _ in range(3000):
        draw = controller(g)
        text = space.text(argmax(space, draw))
        assert found.setdefault(text, draw.log_prob.item()) == pytest.approx(draw.log_prob.item())
        counts[text] = counts.get(text, 0) + 1
    assert len(found) == 27 and sum(math.exp(p) for p in found.values()) == pytest.approx(1, abs=1e-9)
    most = max(found, key=found.get)
    assert abs(counts[most] / 3000 - math.exp(found[most])) < 4 * math.sqrt(0.25 / 3000)
    greedy = controller.mean()
    assert greedy.log_prob.item() <= max(found.values()) + 1e-9


@pytest.mark.equation("enas")
@pytest.mark.parametrize("favoured", [(), ("sep_conv_3x3", "sep_conv_5x5")])
def test_the_controller_reads_and_scores_as_the_official_one(favoured):
    """Against micro_controller.py of melodyguan/enas, written out: same parameters, same random numbers. But an edge is taken once."""
    space = darts.make()
    controller = Controller(space, generator(), favoured=favoured, hidden=6).double()
    with torch.no_grad():
        for p in controller.parameters():
            p += torch.randn(p.shape, generator=generator(2), dtype=torch.float64)
    for seed in range(5):
        draw, g = controller.weights({"seed": torch.tensor(seed)}), generator(seed)
        log_prob, entropy, cells = enas_draw(controller, space, g, favoured)
        assert draw.log_prob.item() == pytest.approx(log_prob, abs=1e-12) and draw.entropy.item() == pytest.approx(entropy, abs=1e-12)
        for kind in space.cells:
            taken = {(e, o) for e, row in enumerate(draw[kind].active) for o, on in enumerate(row) if on}
            assert taken == cells[kind] and len(taken) == 8


def enas_draw(controller, space, g, favoured):
    """The log-probability and the entropy of a draw, and {kind: {(edge, op)}}."""
    w = {name: p.detach() for name, p in controller.named_parameters()}
    h = c = torch.zeros(6, dtype=torch.float64)
    log_prob = entropy = 0.0

    def step(x):
        nonlocal h, c
        i, f, new, o = (w["lstm.0.weight_ih"] @ x + w["lstm.0.weight_hh"] @ h).view(4, 6)
        c = f.sigmoid() * c + i.sigmoid() * new.tanh()
        h = o.sigmoid() * c.tanh()

    def choose(logits):
        nonlocal log_prob, entropy
        p = logits.exp() / logits.exp().sum()
        log_prob, entropy = log_prob + p.log(), entropy - (p[p > 0] * p[p > 0].log()).sum()
        n = int(torch.multinomial(p, 1, generator=g))
        log_prob = log_prob[n]
        return n

    cells, start = {}, w["start"][0]
    for kind in ("normal", "reduce"):
        spec, cells[kind] = space.cells[kind], set()
        read, compared = [], []
        for _ in range(2):
            step(start)
            read.append(torch.zeros(6, dtype=torch.float64))
            compared.append(w["of_anchor.weight"] @ h)
        for node in range(2, 6):
            step_reads, nodes = start, list(range(node))
            if node > 2:  # two edges of two leave nothing to choose
                nodes, left = [], list(range(node))
                for _ in range(2):
                    step(step_reads)
                    scores = torch.stack([w["score.weight"][0] @ torch.tanh(compared[n] + w["of_state.weight"] @ h) for n in left])
                    nodes.append(left.pop(choose(1.1 * scores.tanh())))
                    step_reads = read[nodes[-1]]
            for n in nodes:
                step(step_reads)
                logits = 1.1 / 2.5 * (w["head.weight"] @ h + w["head.bias"]).tanh()
                if favoured and kind == "normal":
                    logits = logits + torch.tensor([0.25 if op in favoured else -0.25 for op in spec.ops])
                logits[0] = -torch.inf  # none
                o = choose(logits)
                cells[kind].add((spec.edges.index((n, node)), o))
                step_reads = w["embedding"][o]
            step(step_reads)
            read.append(h)
            compared.append(w["of_anchor.weight"] @ h)
    return float(log_prob), float(entropy), cells


@pytest.mark.equation("enas")
def test_the_controller_of_the_benchmark_reads_op_after_op():
    """Against search_model_enas_utils.py of AutoDL-Projects, with torch's own LSTM of two layers, whose biases are 0 here."""
    space = nasbench201.make()
    controller = Controller(space, generator(), hidden=6, lstm_layers=2, tanh_constant=2.5, op_tanh_reduce=1.0, temperature=5.0).double()
    with torch.no_grad():
        for p in controller.parameters():
            p += torch.randn(p.shape, generator=generator(2), dtype=torch.float64)
    w = {name: p.detach() for name, p in controller.named_parameters()}
    assert not any("score" in name or "of_" in name for name in w)
    lstm = torch.nn.LSTM(6, 6, num_layers=2).double()
    with torch.no_grad():
        for name, p in lstm.named_parameters():  # weight_ih_l0, ...
            p.copy_(w[f"lstm.{name[-1]}.{name[:-3]}"] if name.startswith("weight") else torch.zeros(24))
    for seed in range(5):
        draw, g = controller.weights({"seed": torch.tensor(seed)}), generator(seed)
        read, state, log_prob, entropy = w["start"][None], None, 0.0, 0.0
        for e in range(6):
            out, state = lstm(read, state)
            found = torch.distributions.Categorical(logits=2.5 * torch.tanh((out[0, 0] @ w["head.weight"].T + w["head.bias"]) / 5.0))
            o = torch.multinomial(found.probs, 1, generator=g)[0]
            assert draw["cell"].active[e][o] and sum(draw["cell"].active[e]) == 1
            log_prob, entropy, read = log_prob + found.log_prob(o), entropy + found.entropy(), w["embedding"][o].view(1, 1, 6)
        assert abs(draw.log_prob - log_prob) < 1e-12 and abs(draw.entropy - entropy) < 1e-12


@pytest.mark.equation("enas")
def test_favoured_ops_begin_ahead_of_the_others():
    """Where nothing is learned: by 0.44 in a reduction cell, by 0.94 in a normal one."""
    space = darts.make()
    controller = Controller(space, generator(), favoured=["sep_conv_3x3", "sep_conv_5x5"], hidden=4)
    assert controller.head.bias.tolist() == [10.0 if "sep" in op else 0.0 for op in darts.OPS]
    for kind, ahead in (("normal", 0.5), ("reduce", 0.0)):
        lean = controller.get_buffer(f"lean_{kind}")
        assert (lean[4] - lean[1]).item() == ahead and len(set(lean.tolist())) == 1 + (kind == "normal")
    shares = torch.stack([w.ops.sum(0) for n in range(200) for w in controller(generator(n)).values()]).view(200, 2, 8).mean(0)
    odds = (shares[:, 4:6].mean(-1) / shares[:, [1, 2, 3, 6, 7]].mean(-1)).log()
    assert 0.8 < odds[0] < 1.1 and 0.3 < odds[1] < 0.6
    with pytest.raises(ValueError, match=r"relaxation.favoured must name ops of space toy \(.*\), got \['sep_conv_3x3'\]"):
        Controller(toy.make(), generator(), favoured=["sep_conv_3x3"])


def test_the_controller_keeps_as_many_edges_as_the_space():
    space = darts.make(nodes=3)
    controller, g = Controller(space, generator()), generator(1)
    for _ in range(10):
        draw = controller(g)
        genotype = argmax(space, draw)
        space.validate(genotype)
        assert all(sum(map(sum, w.active)) == 6 for w in draw.values()) and all(e.op != "none" for e in genotype["normal"])
        draw.log_prob.backward()
    assert all(p.grad is not None for p in controller.parameters())


def test_gumbel_draws_have_the_right_mean_and_variance():
    draws = gumbel(torch.empty(200_000, dtype=torch.float64), generator())
    assert abs(draws.mean() - 0.5772) < 0.01 and abs(draws.var() - math.pi**2 / 6) < 0.03


@pytest.mark.parametrize("make, options", [
    (GumbelHard, {"temperature": 0.0}), (Concrete, {"temperature_end": -1.0}), (Concrete, {"decay": "slow"}), (Concrete, {"rest": -1}),
    (ReinMax, {"temperature": 0.5}),
])
def test_wrong_options_are_refused(make, options):
    with pytest.raises(ValueError):
        make(toy.make(), generator(), **options)


def test_edge_weights_of_a_random_table_stay_apart():
    """What a wrapper replaces in one kind leaves the other kinds and the log-probability."""
    space = darts.make(nodes=1)
    weights = EdgeWeights({k: Weights(torch.rand(2, 8)) for k in space.cells}, torch.tensor(1.0), torch.tensor(2.0))
    detached = weights.detach()
    assert detached.log_prob == 1 and detached.entropy == 2
