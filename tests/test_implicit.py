"""Hypergradients beyond DARTS: implicit, single level, the score function; layer alignment; and what a draw is shared by."""

import math

import pytest
import torch

from ops.op import Normalisation
from supernet.bilevel import Bilevel, rehearse
from supernet.hypergradients.base import Problem, Score
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.implicit import conjugate_gradient, neumann
from supernet.hypergradients.reinforce import reinforce
from supernet.hypergradients.single_level import single_level
from supernet.hypergradients.unrolled import unrolled
from supernet.penalties.alphas import BetaDecay
from supernet.penalties.base import WeightProblem
from supernet.penalties.layer_alignment import LayerAlignment, alignment
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.binary_gates import BinaryGates
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.controller import Controller
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.reinmax import ReinMax
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.space import Space
from supernet.spaces import darts, toy
from supernet.tasks.classification import Classification
from supernet.weights import EdgeWeights, Weights, replaced
from tests import groups, reference
from tests.runs import exactly

F64 = torch.float64


def quadratic(seed=0, n=6, m=4):
    """L_train = w^T H w / 2 - w^T B alpha, L_val = |w - b|^2 / 2 + |alpha|^2 / 2 + c.alpha at w* = H^-1 B alpha: the exact hypergradient is
    alpha + c + B^T H^-1 (w* - b)."""
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=g, dtype=F64)
    root = rand(n, n)
    h = root @ root.T / n + 0.5 * torch.eye(n, dtype=F64)
    b_matrix, b, c, alpha = rand(n, m), rand(n), rand(m), rand(m).requires_grad_()
    w = torch.linalg.solve(h, b_matrix @ alpha.detach()).requires_grad_()
    exact = alpha.detach() + c + b_matrix.T @ torch.linalg.solve(h, w.detach() - b)
    problem = Problem((w,), (alpha,), lambda: w @ h @ w / 2 - w @ b_matrix @ alpha,
                      lambda: (w - b).square().sum() / 2 + alpha.square().sum() / 2 + c @ alpha, lambda grads: grads)
    return problem, exact, h


@pytest.mark.equation("idarts")
def test_neumann_converges_to_the_exact_hypergradient_at_the_rate_of_its_series():
    problem, exact, h = quadratic()
    step = 1 / torch.linalg.eigvalsh(h)[-1].item()
    errors = [float((neumann(problem, terms=terms, step=step)[0] - exact).norm()) for terms in (0, 5, 20, 80, 400)]
    assert all(b < a for a, b in zip(errors, errors[1:])) and errors[-1] < 1e-9 * exact.norm()
    rate = 1 - step * torch.linalg.eigvalsh(h)[0].item()
    assert errors[3] / errors[2] < 2 * rate**60


@pytest.mark.equation("idarts")
def test_neumann_sums_the_first_terms_of_the_series():
    """Against the series written out with dense matrices."""
    problem, exact, h = quadratic()
    direct, v = torch.autograd.grad(problem.val_loss(), (*problem.alpha, *problem.w))
    mixed = torch.autograd.functional.jacobian(
        lambda a: torch.autograd.functional.jacobian(lambda w: w @ h @ w / 2 - w @ _b(problem) @ a, problem.w[0].detach(),
                                                     create_graph=True),
        problem.alpha[0].detach())
    for terms in (0, 1, 3):
        inverse = sum(0.1 * torch.linalg.matrix_power(torch.eye(6, dtype=F64) - 0.1 * h, k) for k in range(terms + 1))
        reference.close(neumann(problem, terms=terms, step=0.1)[0], direct - mixed.T @ inverse @ v, 1e-12)


def _b(problem):
    """B, from the mixed derivative of the training loss."""
    w, alpha = problem.w[0], problem.alpha[0]
    (g,) = torch.autograd.grad(problem.train_loss(), w, create_graph=True)
    return -torch.stack([torch.autograd.grad(e, alpha, retain_graph=True)[0] for e in g])


@pytest.mark.equation("conjugate_gradient")
def test_conjugate_gradient_is_exact_after_as_many_iterations_as_weights_and_closer_with_each():
    problem, exact, h = quadratic()
    errors = [float((conjugate_gradient(problem, iterations=n, damping=0.0)[0] - exact).norm()) for n in (1, 2, 4, 6)]
    assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < 1e-8 * exact.norm()
    many = conjugate_gradient(problem, iterations=50, damping=0.0)[0]  # stands still, and does not divide by zero
    reference.close(many, exact, 1e-7)
    damped = conjugate_gradient(problem, iterations=6, damping=0.3)[0]
    b = _b(problem)
    v = torch.autograd.grad(problem.val_loss(), problem.w)[0]
    direct = torch.autograd.grad(problem.val_loss(), problem.alpha)[0]
    reference.close(damped, direct + b.T @ torch.linalg.solve(h + 0.3 * torch.eye(6, dtype=F64), v), 1e-8)


def small(relaxation_of, hypergradient=first_order, seed=0, penalties=(), space=None, layers=3):
    """A small supernet in float64 with two batches of random images."""
    space = space or darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3", "avg_pool_3x3"))
    torch.manual_seed(seed)
    net = space.network(space.candidates(), layers=layers, channels=2, num_classes=3, in_channels=2, image_size=(8, 8),
                        norm=Normalisation(False, True)).double()
    g = torch.Generator().manual_seed(seed)
    relaxation = relaxation_of(space, g).double()
    batches = [(torch.randn(6, 2, 8, 8, generator=g, dtype=F64), torch.randint(3, (6,), generator=g)) for _ in range(2)]
    generators = {"alpha": torch.Generator().manual_seed(seed + 1), "net": torch.Generator().manual_seed(seed + 2)}
    search = Bilevel(net, relaxation, hypergradient, Classification(), torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9),
                     torch.optim.Adam(relaxation.parameters(), lr=1e-2), generators, penalties=penalties)
    return search, batches, space


NEEDS_LOG_PROB = {"reinforce"}  # those that learn from the probability of draws, which other relaxations do not give


@pytest.mark.parametrize("choice, make", [(choice, make) for choice in groups.choices("hypergradient")
                                          for make in ([Controller] if choice in NEEDS_LOG_PROB else [Softmax, Dirichlet, GumbelHard])])
def test_every_hypergradient_works_on_a_network_and_leaves_it_as_found(choice, make):
    search, batches, _ = small(make)
    search.w_step(batches[0])
    problem = search.problem(*batches)

    def found():
        return exactly([search.net.state_dict(), search.relaxation.state_dict(), search.w_optimizer.state_dict(),
                        search.generators["net"].get_state(), [p.requires_grad for p in search.w]])

    before, draws = found(), search.generators["alpha"].get_state()
    grads = groups.made("hypergradient", choice)(problem)
    assert [g.shape for g in grads] == [a.shape for a in search.alpha] and all(torch.isfinite(g).all() for g in grads)
    assert before == found()
    assert choice in NEEDS_LOG_PROB or torch.equal(draws, search.generators["alpha"].get_state()), "the problem is one draw"


@pytest.mark.equation("snas", "gaea")
def test_single_level_descends_on_the_training_batch_with_penalties():
    search, batches, space = small(Softmax, single_level, penalties=[BetaDecay(darts.make(nodes=1, ops=(
        "skip_connect", "sep_conv_3x3", "avg_pool_3x3")), weight=2.0)])
    search.anneal(1.0, 0)
    found = single_level(search.problem(*batches))
    loss = search.task(search.net, batches[0], search.relaxation.mean(), generator=search.generators["net"]).loss
    loss = loss + 2.0 * torch.cat([a.logsumexp(-1) for a in search.relaxation.alpha.values()]).mean()
    for mine, expected in zip(found, torch.autograd.grad(loss, search.alpha)):
        reference.close(mine, expected, 1e-10)


@pytest.mark.equation("beta_darts")
def test_penalties_stand_in_the_alpha_loss_alone():
    search, batches, space = small(Softmax)
    val, train = (loss().detach() for loss in (search.problem(*batches).val_loss, search.problem(*batches).train_loss))
    search.penalties = [BetaDecay(space, weight=3.0)]
    search.anneal(0.5, 0)
    problem = search.problem(*batches)
    extra = 1.5 * torch.cat([a.logsumexp(-1) for a in search.relaxation.alpha.values()]).mean()
    torch.testing.assert_close(problem.val_loss(), val + extra)
    assert torch.equal(problem.train_loss(), train)


# ---- one draw for a problem, another for the weights


SAMPLED = [GumbelHard, Concrete, ReinMax, Dirichlet, Controller, BinaryGates,
           lambda s, g: AuxiliarySkip(EdgeNormalised(Dirichlet(s, g), s, g), s, g)]


@pytest.mark.equation("gdas", "dr_nas")
@pytest.mark.parametrize("make", SAMPLED)
def test_alpha_and_w_step_draw_anew_and_a_problem_keeps_its_draw(make):
    """As the official GDAS and DrNAS do; and a finite difference subtracts two losses under the same draw."""
    search, batches, _ = small(make, finite_difference, space=darts.make(nodes=2, ops=("skip_connect", "sep_conv_3x3", "avg_pool_3x3")))
    seen = []
    forward = search.net.forward

    def spy(x, weights, **more):
        seen.append(torch.cat([w.ops.detach().flatten() for w in weights.values()]))
        return forward(x, weights, **more)

    search.net.forward = spy
    search.step(*batches)
    assert len(seen) == 5  # train loss, validation loss, two of the difference; then the weights' own
    assert all(torch.equal(seen[0], other) for other in seen[1:4]) and not torch.equal(seen[0], seen[4])


@pytest.mark.equation("r_darts_dp")
def test_the_losses_of_a_problem_share_their_drop_path_and_the_weights_draw_their_own():
    """So that a finite difference with drop path converges to the exact product; masks are of each edge and image (tests/test_cell.py)."""
    search, batches, _ = small(Softmax, space=darts.make(nodes=1, ops=("skip_connect", "avg_pool_3x3")))
    search.w_step(batches[0])
    search.net.drop_path_prob = 0.4
    problem = search.problem(*batches)
    losses = [problem.train_loss().item(), problem.train_loss().item(), search.problem(*batches).train_loss().item()]
    assert len(set(losses)) == 1
    search.net.drop_path_prob = 0.0
    assert search.problem(*batches).train_loss().item() != losses[0]
    search.net.drop_path_prob = 0.4
    exact, estimate = unrolled(problem), finite_difference(problem, radius=1e-4)
    assert sum(float((a - b).norm()) for a, b in zip(estimate, exact)) < 1e-3 * sum(float(e.norm()) for e in exact)
    state = search.generators["net"].get_state()
    search.w_step(batches[0])
    assert not torch.equal(state, search.generators["net"].get_state())
    assert search.problem(*batches).train_loss().item() != losses[0]


@pytest.mark.equation("dr_nas")
def test_the_finite_difference_of_a_sampled_relaxation_converges_to_the_exact_product():
    """It would not if the two losses had different draws."""
    search, batches, _ = small(Dirichlet, space=darts.make(nodes=1, ops=("skip_connect", "avg_pool_3x3")))
    search.w_step(batches[0])
    problem = search.problem(*batches)
    exact = unrolled(problem)
    errors = [sum(float((a - b).norm()) for a, b in zip(finite_difference(problem, radius=r), exact)) for r in (1e-2, 1e-4)]
    assert errors[1] < 1e-3 * sum(float(e.norm()) for e in exact)


# ---- the score function


@pytest.mark.equation("enas")
def test_reinforce_is_unbiased_on_a_space_that_can_be_enumerated():
    """The mean estimate against the exact gradient of the expected reward over all 27 cells."""
    space = toy.make()
    controller = Controller(space, torch.Generator().manual_seed(0), hidden=8).double()
    rewards = {space.text(g): 0.1 * sum(e.op == "skip_connect" for e in g["cell"]) for g in space.enumerate()}
    g = torch.Generator().manual_seed(1)
    alpha = tuple(controller.parameters())

    def problem():
        draw = controller(g)
        reward = torch.tensor(rewards[space.text(argmax(space, draw))], dtype=F64)
        return Problem((), alpha, lambda: 0, lambda: 0, lambda grads: (), again=problem,
                       score=lambda: Score(reward, draw.log_prob, draw.entropy))

    log_probs = {}
    while len(log_probs) < 27:
        draw = controller(g)
        log_probs.setdefault(space.text(argmax(space, draw)), draw.log_prob)
    expected = torch.autograd.grad(-sum(rewards[text] * log_p.exp() for text, log_p in log_probs.items()), alpha, allow_unused=True,
                                   materialize_grads=True)
    estimates = []
    for _ in range(2):
        p = problem()
        estimates.append(torch.cat([e.flatten() for e in reinforce(p, samples=100, baseline_decay=0.0, entropy_weight=0.0)]))
    # baseline_decay=0 makes the baseline the reward itself: nothing is learned
    assert torch.stack(estimates).abs().max() == 0
    estimates = []
    memory = {"baseline": torch.tensor(0.1, dtype=F64)}
    for _ in range(16):
        p = problem()
        p.memory.update(memory)
        estimates.append(torch.cat([e.flatten() for e in reinforce(p, samples=100, baseline_decay=1 - 1e-12, entropy_weight=0.0)]))
    stack = torch.stack(estimates)
    truth = torch.cat([e.flatten() for e in expected])
    error, scale = (stack.mean(0) - truth).norm(), stack.std(0).norm() / math.sqrt(len(stack))
    assert error < 2 * scale and scale < 0.5 * truth.norm()


@pytest.mark.equation("enas")
def test_reinforce_moves_its_baseline_as_the_official_code_and_counts_entropy_as_reward():
    alpha = torch.zeros(1, dtype=F64, requires_grad=True)
    scores = iter([(0.5, 2.0), (0.9, 4.0)])

    def problem():
        reward, entropy = next(scores)
        return Problem((), (alpha,), lambda: 0, lambda: 0, lambda grads: (), again=problem, memory=memory,
                       score=lambda: Score(torch.tensor(reward, dtype=F64), 3.0 * alpha.sum(), torch.tensor(entropy, dtype=F64)))

    memory = {}
    (found,) = reinforce(problem(), samples=2, baseline_decay=0.9, entropy_weight=0.1)
    first, second = 0.5 + 0.2, 0.9 + 0.4
    b1 = 0.1 * first
    b2 = b1 + 0.1 * (second - b1)
    assert found.item() == pytest.approx(-3.0 * ((first - b1) + (second - b2)) / 2)
    assert memory["baseline"].item() == pytest.approx(b2)


@pytest.mark.equation("enas")
def test_a_baseline_of_the_epoch_before_and_a_differentiated_entropy_are_those_of_autodl_projects():
    """ENAS.py, train_controller, written out: `prev_baseline` is what the last sample of the epoch before left, None in the first epoch;
    `reward` is not detached."""
    alpha = torch.tensor([0.3], dtype=F64, requires_grad=True)
    accuracies = [[0.5, 0.9, 0.4], [0.6, 0.2, 0.7], [0.1, 0.3, 0.8]]
    memory, prev_baseline = {}, None
    for epoch, row in enumerate(accuracies):
        scores = iter(row)

        def problem(scores=scores, epoch=epoch):
            def score():
                return Score(torch.tensor(next(scores), dtype=F64), 3.0 * alpha.sum().sin(), alpha.sum().exp())

            return Problem((), (alpha,), lambda: 0, lambda: 0, lambda grads: (), again=lambda: problem(scores, epoch), score=score,
                           memory=memory, progress=epoch / 2)

        (found,) = reinforce(problem(), samples=3, baseline_decay=0.9, entropy_weight=0.1, baseline_update="epoch",
                             differentiate_entropy=True)
        losses = []
        for accuracy in row:
            log_prob, entropy, val_top1 = 3.0 * alpha.sum().sin(), alpha.sum().exp(), torch.tensor(accuracy, dtype=F64)
            reward = val_top1 + 0.1 * entropy
            baseline = val_top1 if prev_baseline is None else prev_baseline - (1 - 0.9) * (prev_baseline - reward)
            losses.append(-1 * log_prob * (reward - baseline))
        prev_baseline = baseline.item()
        (expected,) = torch.autograd.grad(torch.stack(losses).mean(), alpha)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert memory["baseline"].item() == pytest.approx(prev_baseline)
    with pytest.raises(ValueError, match="baseline_update must be draw or epoch, got 'step'"):
        reinforce(problem(), baseline_update="step")


@pytest.mark.equation("enas")
def test_the_controllers_entropy_can_be_differentiated_beside_ops_that_are_never_chosen():
    space = darts.make(nodes=1, ops=("none", "skip_connect", "avg_pool_3x3"))
    controller = Controller(space, torch.Generator().manual_seed(0), hidden=4).double()
    noise = controller.noise(torch.Generator().manual_seed(1))
    p = controller.head.bias

    def entropy(shift):
        with torch.no_grad():
            p.copy_(start + shift)
        return controller.weights(noise).entropy

    start = torch.tensor([0.0, 0.3, -0.2], dtype=F64)  # where the two are not as likely, which is where the entropy is level
    (slope,) = torch.autograd.grad(entropy(0.0), p)
    numeric = [(entropy(1e-6 * unit) - entropy(-1e-6 * unit)).item() / 2e-6 for unit in torch.eye(3, dtype=F64)]
    assert torch.isfinite(slope).all() and slope.tolist() == pytest.approx(numeric, abs=1e-8) and slope.abs().max() > 1e-4


def test_reinforce_refuses_draws_without_a_probability_before_any_work():
    with pytest.raises(ValueError, match="relaxation=controller"):
        rehearse(reinforce, lambda params: torch.optim.SGD(params, lr=0.1), sampled=False)
    rehearse(reinforce, lambda params: torch.optim.SGD(params, lr=0.1), sampled=True)


def test_the_controllers_step_uses_the_validation_batch_and_its_baseline_is_saved():
    search, batches, _ = small(Controller, lambda p: reinforce(p, samples=3))
    before = [p.detach().clone() for p in search.alpha]
    w = [p.detach().clone() for p in search.w]
    search.alpha_step(*batches)
    assert any(not torch.equal(a, b) for a, b in zip(before, search.alpha)) and all(torch.equal(a, b) for a, b in zip(w, search.w))
    other, _, _ = small(Controller)
    other.memory.load_state_dict(search.memory.state_dict())
    assert torch.equal(other.memory.values["baseline"], search.memory.values["baseline"])


# ---- layer alignment


@pytest.mark.equation("lambda_darts")
def test_alignment_is_the_mean_cosine_of_all_pairs():
    g = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    pairs = [torch.cosine_similarity(g[i].flatten(), g[j].flatten(), dim=0) for i in range(5) for j in range(i)]
    torch.testing.assert_close(alignment(g), torch.stack(pairs).mean())


KINDS, LAYERS = {"a": (2, 3), "b": (1, 2), "c": (2, 2)}, {"a": 4, "b": 1, "c": 2}


def smooth_layers():
    """A smooth loss of weights w and of tables that each layer has for itself."""
    g = torch.Generator().manual_seed(0)
    w = (torch.randn(5, 6, generator=g, dtype=F64).requires_grad_(), torch.randn(3, generator=g, dtype=F64).requires_grad_())
    draw = EdgeWeights({kind: Weights(torch.randn(shape, generator=g, dtype=F64)) for kind, shape in KINDS.items()})
    mix = {kind: torch.randn(LAYERS[kind], 6, math.prod(shape), generator=g, dtype=F64) for kind, shape in KINDS.items()}

    def loss(weights):
        total = w[1].square().sum()
        for kind, layers in LAYERS.items():
            table = weights[kind].ops
            for layer in range(layers):
                x = torch.tanh(mix[kind][layer] @ (table[layer] if table.dim() == 3 else table).flatten())
                total = total + torch.sin(w[0] @ x).sum() * (1 + layer) + w[1].sum() * x.square().sum()
        return total

    return WeightProblem(w, draw, LAYERS, loss), draw, loss


def exact_alignment_gradient(w, draw, layers, loss, kinds):
    """d Lambda / d w by differentiating the gradients twice."""
    own = {k: draw[k].ops.detach().expand(layers[k], *draw[k].ops.shape[-2:]).clone().requires_grad_() for k in kinds}
    value = loss(replaced(draw, lambda k, _: {"ops": own[k]} if k in own else {}))
    slopes = torch.autograd.grad(value, tuple(own.values()), create_graph=True)
    return torch.autograd.grad(torch.stack([alignment(g) for g in slopes]).mean(), w, allow_unused=True, materialize_grads=True)


@pytest.mark.equation("lambda_darts")
@pytest.mark.parametrize("kinds", [None, ["a"]])
def test_the_alignment_penalty_is_minus_the_derivative_of_the_alignment(kinds):
    problem, draw, loss = smooth_layers()
    space = Space("kinds", {}, dict.fromkeys(KINDS), lambda *a, **k: None)
    penalty = LayerAlignment(space, weight=0.4, radius=1e-4, kinds=kinds)
    penalty.anneal(0.5)
    exact = exact_alignment_gradient(problem.w, draw, LAYERS, loss, kinds or ["a", "c"])  # b has one layer: nothing to align
    assert exact[0].abs().max() > 1e-2
    for found, e in zip(penalty(problem), exact):
        reference.close(found, -0.4 * 0.5 * e, 1e-6)
    penalty.anneal(0.0)
    assert penalty(problem) is None
    with pytest.raises(ValueError, match="w_penalty.layer_alignment needs"):
        LayerAlignment(space, kinds=["d"])


@pytest.mark.equation("lambda_darts")
def test_descent_on_the_alignment_penalty_raises_the_alignment():
    problem, draw, loss = smooth_layers()
    penalty = LayerAlignment(Space("kinds", {}, dict.fromkeys(KINDS), lambda *a, **k: None), weight=1.0)
    penalty.anneal(1.0)

    def aligned():
        own = {k: draw[k].ops.expand(LAYERS[k], *KINDS[k]).clone().requires_grad_() for k in ("a", "c")}
        slopes = torch.autograd.grad(loss(replaced(draw, lambda k, _: {"ops": own[k]} if k in own else {})), tuple(own.values()))
        return torch.stack([alignment(g) for g in slopes]).mean().item()

    start = aligned()
    for _ in range(30):
        step = penalty(problem)
        with torch.no_grad():
            for p, g in zip(problem.w, step):
                p -= 0.05 * g
    assert aligned() > start + 0.1


@pytest.mark.equation("lambda_darts")
def test_the_weights_step_descends_on_the_alignment_too_and_changes_nothing_else():
    """One step with the penalty against the exact gradient on a network; alphas, statistics and generators as without it."""
    plain, batches, space = small(Softmax, layers=5)
    aligned, _, _ = small(Softmax, layers=5)
    aligned.w_penalties = [LayerAlignment(space, weight=0.3, radius=1e-6)]
    aligned.anneal(1.0, 0)
    draw = aligned.relaxation.mean().detach()
    exact = exact_alignment_gradient(aligned.w, draw, {"normal": 3, "reduce": 2},
                                     lambda weights: aligned.task(aligned.net, batches[0], weights, generator=torch.Generator()).loss,
                                     ["normal", "reduce"])
    for search in (plain, aligned):
        search.clip_norm = None
        for norm in search.norms:  # the exact gradient's forward pass counted too
            norm.running_mean.zero_(), norm.running_var.fill_(1.0)
        search.w_step(batches[0])
    assert max(e.abs().max() for e in exact) > 1e-3
    whole = torch.cat([(b.grad - a.grad).flatten() for a, b in zip(plain.w, aligned.w)])
    reference.close(whole, torch.cat([-0.3 * e.flatten() for e in exact]), 1e-4)
    assert all(torch.equal(a, b) for a, b in zip(plain.alpha, aligned.alpha))
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in zip(plain.norms, aligned.norms))
    assert all(torch.equal(g.get_state(), aligned.generators[name].get_state()) for name, g in plain.generators.items())


def test_layers_have_tables_of_their_own_in_a_problem():
    """As the monitor of the alignment sees them: their gradients add up to that of the shared alphas."""
    search, batches, _ = small(Softmax, layers=5)
    search.progress = 1.0
    problem = search.problem(*batches)
    layered = problem.layered()
    assert layered.layers == {"normal": 3, "reduce": 2}
    own = {k: a.detach().expand(layered.layers[k], *a.shape).clone().requires_grad_() for k, a in layered.alphas.items()}
    torch.testing.assert_close(layered.loss(own), problem.val_loss())
    by_layer = torch.autograd.grad(layered.loss(own), tuple(own.values()))
    for summed, whole in zip(by_layer, torch.autograd.grad(problem.val_loss(), tuple(layered.alphas.values()))):
        torch.testing.assert_close(summed.sum(0), whole)


@pytest.mark.parametrize("call", [lambda p: neumann(p, terms=-1), lambda p: neumann(p, step=0), lambda p: reinforce(p, samples=0),
                                  lambda p: conjugate_gradient(p, iterations=0)])
def test_wrong_options_are_refused(call):
    with pytest.raises(ValueError, match="(terms|step|samples|iterations) must be "):
        call(quadratic()[0])
