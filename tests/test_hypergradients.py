from dataclasses import replace

import pytest
import torch
from torch import nn

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.base import Problem
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.joined import Joined
from supernet.hypergradients.unrolled import unrolled
from supernet.optim.optimizers import linear_step, virtual_step
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts
from supernet.tasks.classification import Classification
from tests import reference

SGD = {"plain": {}, "momentum and decay": {"momentum": 0.9, "weight_decay": 3e-2},
       "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
       "dampened": {"momentum": 0.5, "dampening": 0.3}}


def quadratic(options, steps=2):
    """L_train = |w - A alpha|^2 / 2, L_val = |w - b|^2 / 2 + c.alpha. Everything about it can be written down."""
    g = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    A, b, c = rand(5, 3), rand(5), rand(3)
    w, alpha = rand(5).requires_grad_(), rand(3).requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.1, **options)
    train_loss = lambda: 0.5 * (w - A @ alpha).square().sum()
    for _ in range(steps):  # fills the momentum buffer
        optimizer.zero_grad(), train_loss().backward(inputs=[w]), optimizer.step()
    problem = Problem((w,), (alpha,), train_loss, lambda: 0.5 * (w - b).square().sum() + c @ alpha,
                      lambda grads: virtual_step(optimizer, (w,), grads))
    return problem, optimizer, (A, b, c)


@pytest.mark.equation("darts_first_order", "darts_second_order", "darts_unrolled", "r_darts_l2")
@pytest.mark.parametrize("options", SGD.values(), ids=SGD)
def test_closed_form(options):
    """With w' = w - lr k (w - A alpha) + const, the hypergradient is c + lr k A^T (w' - b); k is the step's factor on a gradient."""
    problem, optimizer, (A, b, c) = quadratic(options)
    (w,) = problem.w
    before = w.detach().clone()
    k = 1 + options["momentum"] if options.get("nesterov") else 1 - options.get("dampening", 0)
    results = [unrolled(problem), finite_difference(problem), first_order(problem)]
    assert torch.equal(w, before)
    optimizer.zero_grad()
    problem.train_loss().backward(inputs=[w])
    optimizer.step()
    stepped = w.detach()
    exact = c + 0.1 * k * A.T @ (stepped - b)
    reference.close(results[0][0], exact, 1e-12)
    reference.close(results[1][0], exact, 1e-9)  # the third derivative is zero: only rounding is left
    reference.close(results[2][0], c, 0)


@pytest.mark.equation("darts_second_order", "darts_unrolled", "r_darts_l2")
@pytest.mark.parametrize("options", SGD.values(), ids=SGD)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_virtual_step_is_the_optimizers_step(options, steps):
    problem, optimizer, _ = quadratic(options, steps)
    g = torch.autograd.grad(problem.train_loss(), problem.w)
    before = problem.w[0].detach().clone()
    promised = problem.virtual_step(g)
    assert torch.equal(problem.w[0], before)
    problem.w[0].grad = g[0]
    optimizer.step()
    torch.testing.assert_close(promised[0], problem.w[0].detach(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("options", SGD.values(), ids=SGD)
@pytest.mark.parametrize("steps", [0, 3])
def test_the_virtual_step_of_all_weights_joined_is_that_of_each(options, steps):
    w = like_weights()
    optimizer = torch.optim.SGD(w, lr=0.1, **options)
    for _ in range(steps):
        for p in w:
            p.grad = torch.randn_like(p)
        optimizer.step()
    joined, g = Joined(w), [torch.randn_like(p) for p in w]
    base, factor = linear_step(optimizer, w, joined.of, joined.of(w))
    found = joined.parts(torch._foreach_add(base, torch._foreach_mul(joined.of(g), factor)))
    for a, b in zip(found, virtual_step(optimizer, w, g), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=1e-15)
        assert a.shape == b.shape


def test_where_weights_take_different_steps_there_is_no_joined_one():
    w = like_weights()
    of = Joined(w).of
    optimizer = torch.optim.SGD(w, lr=0.1, momentum=0.9)
    w[0].grad = torch.ones_like(w[0])
    optimizer.step()
    assert linear_step(optimizer, w, of, of(w)) is None  # one has a momentum
    groups = [{"params": w[:1]}, {"params": w[1:], "lr": 0.2}]
    assert linear_step(torch.optim.SGD(groups, lr=0.1), w, of, of(w)) is None
    assert linear_step(torch.optim.SGD(w[1:], lr=0.1), w, of, of(w)) is None


@pytest.mark.parametrize("joins", [True, False])
def test_joined_tensors_keep_their_bits_and_their_norm(joins):
    w = like_weights(torch.float32) + ([] if joins else [torch.ones(3, dtype=torch.float64)])  # of two types: lists as they are
    joined, bits = Joined(w), [p.detach().clone() for p in w]
    values, kept = joined.of(w), joined.copied(w)
    assert len(values) == (1 if joins else len(w)) and not any(v.requires_grad for v in values)
    assert all(torch.equal(a, b) for a, b in zip(joined.parts(values), w, strict=True))
    exact = torch.cat([p.double().flatten() for p in bits]).norm()
    torch.testing.assert_close(joined.norm(values).double(), exact, rtol=1e-6, atol=0) if joins else None
    with torch.no_grad():
        for p in w:
            p.mul_(3)
    joined.put(kept, w)
    assert all(torch.equal(a, b) for a, b in zip(w, bits, strict=True))


def like_weights(dtype=torch.float64):
    """Of several layouts, one not of one piece."""
    torch.manual_seed(0)
    dense = torch.randn(4, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    own = [torch.randn(3), torch.randn(5, 4), torch.randn(6, 1, 3, 3), dense, torch.randn(4, 7)[:, ::2], torch.randn(())]
    return [p.to(dtype).detach().requires_grad_() for p in own]


def test_the_second_order_is_the_same_with_a_step_of_each_weight():
    parts, batches = smooth_problem()
    problem = parts.problem(*batches)
    assert problem.linear_step(Joined(problem.w), Joined(problem.w).of(problem.w)) is not None
    apart = replace(problem, linear_step=lambda joined, w: None)
    for hypergradient in (finite_difference, unrolled):
        for a, b in zip(hypergradient(problem), hypergradient(apart), strict=True):
            reference.close(a, b, 1e-10)


def test_virtual_step_refuses_other_optimizers():
    w = torch.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match="needs w_optimizer=sgd, got Adam"):
        virtual_step(torch.optim.Adam([w]), [w], [w])
    with pytest.raises(ValueError, match="needs w_optimizer=sgd, got Adam"):
        linear_step(torch.optim.Adam([w]), [w], list, [w])


class Smooth(nn.Module):
    """A network call without kinks, so that a finite difference converges."""

    def __init__(self, space):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.head = nn.Linear(6, 3)

    def forward(self, x, weights, generator=None):
        table = weights["normal"].ops
        for i, layer in enumerate(self.layers):
            x = table[0, i] * torch.tanh(layer(x)) + table[1, i] * x
        return self.head(x)


def smooth_problem(seed=0, steps=2):
    torch.manual_seed(seed)
    space = darts.make(nodes=1, ops=["skip_connect", "max_pool_3x3", "avg_pool_3x3"])
    net = Smooth(space).double()
    return bilevel(space, net, 6, 3, steps)


def bilevel(space, net, features, classes, steps, batch=8, image=None):
    g = torch.Generator().manual_seed(5)
    relaxation = Softmax(space, g, init_scale=0.3).double()
    shape = (batch, features) if image is None else (batch, features, image, image)
    batches = [(torch.randn(shape, generator=g, dtype=torch.float64), torch.randint(classes, (batch,), generator=g)) for _ in range(2)]
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    adam = torch.optim.Adam(relaxation.parameters(), lr=1e-2)
    parts = Bilevel(net, relaxation, first_order, Classification(), sgd, adam, {"alpha": g, "net": torch.Generator()}, clip_norm=5.0)
    for _ in range(steps):
        parts.w_step(batches[0])
    return parts, batches


def network_problem(ops=("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3", "max_pool_3x3"), steps=2):
    torch.manual_seed(0)
    space = darts.make(nodes=2, ops=list(ops))
    net = space.network(space.candidates(), layers=3, channels=2, num_classes=3, norm=Normalisation(False, True)).double()
    return bilevel(space, net, 3, 3, steps, image=8)


def numerical(parts, batches, h):
    """Central differences of alpha -> L_val(w - step(d_w L_train(w, alpha)), alpha), one entry at a time."""
    start = [p.detach().clone() for p in parts.w]

    def objective():
        problem = parts.problem(*batches)
        g = torch.autograd.grad(problem.train_loss(), problem.w)
        stepped = problem.virtual_step(g)
        with torch.no_grad():
            for p, v in zip(parts.w, stepped):
                p.copy_(v)
            value = problem.val_loss().item()
            for p, v in zip(parts.w, start):
                p.copy_(v)
        return value

    grads = []
    for a in parts.alpha:
        g = torch.zeros_like(a)
        for i in range(a.numel()):
            flat, old = a.data.view(-1), a.data.view(-1)[i].item()
            flat[i] = old + h
            up = objective()
            flat[i] = old - h
            down = objective()
            flat[i] = old
            g.view(-1)[i] = (up - down) / (2 * h)
        grads.append(g)
    return grads


@pytest.mark.equation("darts_unrolled")
def test_unrolled_equals_a_numerical_derivative_of_the_bilevel_objective():
    for parts, batches in (smooth_problem(), network_problem()):
        exact = unrolled(parts.problem(*batches))
        direct = first_order(parts.problem(*batches))
        total = torch.cat([g.flatten() for g in exact])
        reference.close(total, torch.cat([g.flatten() for g in numerical(parts, batches, 1e-6)]), 1e-5)
        assert (total - torch.cat([g.flatten() for g in direct])).abs().max() > 1e-3 * total.abs().max()  # it is not the first order


@pytest.mark.equation("darts_second_order")
def test_finite_difference_converges_to_unrolled_on_a_smooth_network():
    parts, batches = smooth_problem()
    exact = torch.cat([g.flatten() for g in unrolled(parts.problem(*batches))])
    errors = []
    for radius in (1e-1, 1e-2, 1e-3):
        estimate = torch.cat([g.flatten() for g in finite_difference(parts.problem(*batches), radius=radius)])
        errors.append(((estimate - exact).abs().max() / exact.abs().max()).item())
    assert errors[1] < 2e-4
    assert errors[1] < errors[0] / 30 and errors[2] < errors[1] / 30  # second order in the radius


@pytest.mark.equation("darts_second_order")
def test_finite_difference_equals_the_published_formula_edge_by_edge():
    """Against quark0/darts' procedure written out: a second network for w', plain SGD arithmetic, R = 1e-2 / |v|."""
    parts, batches = network_problem()
    space = darts.make(nodes=2, ops=["none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3", "max_pool_3x3"])
    ours = finite_difference(parts.problem(*batches))
    alpha = [a.detach().clone().requires_grad_() for a in parts.alpha]
    group, state = parts.w_optimizer.param_groups[0], parts.w_optimizer.state

    def copy_of(net, shift=None):
        ref = reference.like(net, space.cells, space.candidates(), 2, 3)
        pairs = reference.parameters_side_by_side(net, ref)
        if shift:
            with torch.no_grad():
                for mine, theirs in pairs:
                    theirs += shift[mine]
        return ref, pairs

    def loss(ref, batch):
        from supernet.weights import EdgeWeights, Weights

        weights = EdgeWeights({k: Weights(a.softmax(-1)) for k, a in zip(("normal", "reduce"), alpha)})
        return nn.functional.cross_entropy(ref(batch[0], weights), batch[1])

    ref, pairs = copy_of(parts.net)
    grads = torch.autograd.grad(loss(ref, batches[0]), [t for _, t in pairs])
    shift = {}
    for (mine, _), g in zip(pairs, grads):
        moment = state[mine]["momentum_buffer"] * group["momentum"]
        shift[mine] = -group["lr"] * (moment + g + group["weight_decay"] * mine.detach())
    ref, pairs = copy_of(parts.net, shift)
    both = torch.autograd.grad(loss(ref, batches[1]), alpha + [t for _, t in pairs])
    dalpha, v = both[:2], both[2:]
    R = 1e-2 / torch.cat([t.flatten() for t in v]).norm()
    slopes = []
    for sign in (1, -1):
        ref, pairs = copy_of(parts.net, {mine: sign * R * t for (mine, _), t in zip(pairs, v)})
        slopes.append(torch.autograd.grad(loss(ref, batches[0]), alpha))
    for mine, d, p, n in zip(ours, dalpha, *slopes):
        reference.close(mine, d - group["lr"] * (p - n) / (2 * R), 1e-9)


def test_both_halves_of_the_step_touch_only_their_own_parameters():
    parts, batches = network_problem()
    w = [p.detach().clone() for p in parts.w]
    alpha = [a.detach().clone() for a in parts.alpha]
    parts.alpha_step(*batches)
    assert all(torch.equal(a, b) for a, b in zip(w, parts.w))
    moved = [a.detach().clone() for a in parts.alpha]
    assert not any(torch.equal(a, b) for a, b in zip(alpha, moved))
    parts.w_step(batches[0])
    assert all(torch.equal(a, b) for a, b in zip(moved, parts.alpha))
    assert not all(torch.equal(a, b) for a, b in zip(w, parts.w))


@pytest.mark.equation("darts_first_order")
def test_three_steps_equal_the_published_loop_on_the_reference_network():
    """Alpha step, then weight step with clipping and momentum, three times: every weight and alpha within 1e-9."""
    parts, batches = network_problem(steps=0)
    space = darts.make(nodes=2, ops=["none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3", "max_pool_3x3"])
    ref = reference.like(parts.net, space.cells, space.candidates(), 2, 3)
    alpha = [a.detach().clone().requires_grad_() for a in parts.alpha]
    sgd = torch.optim.SGD(ref.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    adam = torch.optim.Adam(alpha, lr=1e-2)
    from supernet.weights import EdgeWeights, Weights

    weights = lambda: EdgeWeights({k: Weights(a.softmax(-1)) for k, a in zip(("normal", "reduce"), alpha)})
    for _ in range(3):
        parts.step(*batches)
        loss = nn.functional.cross_entropy(ref(batches[1][0], weights()), batches[1][1])
        for a, g in zip(alpha, torch.autograd.grad(loss, alpha)):
            a.grad = g
        adam.step()
        sgd.zero_grad()
        nn.functional.cross_entropy(ref(batches[0][0], weights()), batches[0][1]).backward(inputs=list(ref.parameters()))
        nn.utils.clip_grad_norm_(ref.parameters(), 5.0)
        sgd.step()
    for mine, theirs in zip(parts.alpha, alpha):
        reference.close(mine, theirs, 1e-9)
    for mine, theirs in reference.parameters_side_by_side(parts.net, ref):
        reference.close(mine, theirs, 1e-9)
