"""One step of the search: what each half sees, in which state of the network, and what it leaves alone."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from supernet.bilevel import ALPHA_NORM, TRAINING_LOSS, Memory, rehearse, rewound, running_statistics, statistics_held
from supernet.hypergradients.base import Problem, constant, grad, is_static, name_of, weights_at
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.implicit import conjugate_gradient, neumann
from supernet.hypergradients.reinforce import reinforce
from supernet.hypergradients.unrolled import unrolled
from supernet.interfaces import InterfaceError
from supernet.processes.group import Group
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.softmax import Softmax
from supernet.relaxations.uniform import Uniform
from supernet.tasks.base import Result
from tests.builders import small_search

F64 = torch.float64


def made(relaxation=Softmax, **network):
    search, batch, space = small_search(relaxation, **network)
    return search, batch, space


# ---- the weights' half


def test_weights_of_ops_that_do_not_run_stay_bit_for_bit():
    """Also in the second step, after gradients of the first: neither a decay nor a momentum moves what took no part."""
    search, batch, _ = made(GumbelHard)
    search.w_optimizer = torch.optim.SGD(search.net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for seed in range(2):
        draw = search.relaxation(torch.Generator().manual_seed(seed)).detach()
        before = {name: p.detach().clone() for name, p in search.net.named_parameters()}
        loss = search.task(search.net, batch, draw, generator=torch.Generator()).loss
        part = dict(zip(before, torch.autograd.grad(loss, search.w, allow_unused=True)))
        idle = {name for name, slope in part.items() if slope is None}
        search.w_step(batch, draw)
        still = {name for name, p in search.net.named_parameters() if torch.equal(p, before[name])}
        assert still == idle and 0 < len(idle) < len(before)


def test_gradients_are_averaged_over_processes_before_they_are_clipped_and_only_those_that_there_are():
    search, batch, _ = made(GumbelHard)
    seen = []

    class Two(Group):
        def mean_(self, tensors):
            seen.extend(tensors)
            for t in tensors:
                t.zero_()

    before = [p.detach().clone() for p in search.w]
    search.group = Two()
    search.clip_norm = 1.0
    search.w_step(batch)
    assert len(seen) == sum(p.grad is not None for p in search.w) > 0 and {id(t) for t in seen} == {
        id(p.grad) for p in search.w if p.grad is not None}
    assert all(torch.equal(a, b) for a, b in zip(before, search.w)), "the step was taken with what the mean has left"


def test_statistics_that_each_process_moves_by_itself_are_told():
    search, _, _ = made()
    norms = search.norms
    own = running_statistics(norms)
    assert own and len(own) == 2 * len(norms) and {id(t) for t in own} == {id(t) for n in norms for t in (n.running_mean, n.running_var)}
    bare = SimpleNamespace(across=None, running_mean=None, running_var=None)
    shared = SimpleNamespace(across=object(), running_mean=torch.zeros(1), running_var=torch.ones(1))
    assert running_statistics([bare, shared]) == []


def test_the_guard_sees_the_loss_and_the_norm_of_the_alphas_gradient_before_they_are_used():
    search, batch, _ = made()
    seen = []

    def guard(what, value, of):
        seen.append((what, value.item()))
        assert of is batch
        if len(seen) == 3:
            raise FloatingPointError

    search.guard = guard
    before = [p.detach().clone() for p in search.alpha]
    grads = search.hypergradient(search.problem(batch, batch))
    search.step(batch, batch)
    assert [what for what, _ in seen] == [ALPHA_NORM, TRAINING_LOSS]
    assert seen[0][1] == pytest.approx(sum(float(g.norm()) for g in grads), rel=1e-12)
    moved = [p.detach().clone() for p in search.alpha]
    assert not all(torch.equal(a, b) for a, b in zip(before, moved))
    with pytest.raises(FloatingPointError):
        search.step(batch, batch)
    assert all(torch.equal(a, b) for a, b in zip(moved, search.alpha)), "an alpha gradient that is refused moves nothing"


def test_an_adversary_sees_the_loss_in_evaluation_mode_without_gradients_of_the_weights_and_all_is_as_before():
    search, batch, space = made()
    seen = []

    def for_w_step(draw, loss_of_weights, generator):
        table = {kind: w.ops.clone().requires_grad_() for kind, w in draw.items()}
        weights = type(draw)({kind: type(w)(table[kind]) for kind, w in draw.items()})
        losses = [loss_of_weights(weights) for _ in range(2)]
        seen.append((losses, torch.autograd.grad(losses[0], list(table.values()))))
        return draw

    search.relaxation.for_w_step = for_w_step
    with torch.no_grad():
        for norm in search.norms:  # so that evaluation is something else
            norm.running_mean.fill_(-0.3)
    kept = [norm.running_mean.clone() for norm in search.norms]
    search.net.train()
    draw = search.draw_for_w(batch, search.relaxation.noise(torch.Generator()))
    ((losses, slopes),) = seen
    assert search.net.training and all(p.requires_grad for p in search.w) and all(torch.equal(a, n.running_mean) for a, n in zip(
        kept, search.norms))
    search.net.eval()
    expected = search.task(search.net, batch, draw).loss
    assert losses[0].item() == losses[1].item() == pytest.approx(expected.item(), rel=1e-12)
    assert all(s.abs().sum() > 0 for s in slopes)
    search.draw_for_w(batch, search.relaxation.noise(torch.Generator()))
    assert not search.net.training


# ---- the alphas' half


class Doubled:
    """The task with another loss."""

    def __init__(self, task):
        self.task = task

    def __call__(self, *args, **options):
        found = self.task(*args, **options)
        return Result(2 * found.loss + 1, found.stats, found.state)


def test_alphas_descend_on_their_own_task_where_there_is_one_and_weights_on_theirs():
    search, batch, _ = made()
    val, train = (loss().item() for loss in (search.problem(batch, batch).val_loss, search.problem(batch, batch).train_loss))
    search.alpha_task = Doubled(search.task)
    problem = search.problem(batch, batch)
    assert problem.val_loss().item() == pytest.approx(2 * val + 1) and problem.train_loss().item() == pytest.approx(train)
    assert problem.joint_loss().item() == pytest.approx(2 * val + 1)
    weights = search.relaxation.mean()
    assert search.val_loss_under(batch, weights).item() == pytest.approx(2 * val + 1)
    assert search.w_loss(batch, weights).loss.item() == pytest.approx(train)


def test_a_draw_that_is_handed_in_is_the_one_that_is_used():
    search, batch, _ = made(GumbelHard)
    noise = search.relaxation.noise(torch.Generator().manual_seed(9))
    state = search.generators["alpha"].get_state()
    expected = search.hypergradient(search.problem(batch, batch, noise))
    search.alpha_step(batch, batch, noise)
    assert all(torch.equal(p.grad, g) for p, g in zip(search.alpha, expected))
    assert torch.equal(state, search.generators["alpha"].get_state())
    search.alpha_step(batch, batch)
    assert not torch.equal(state, search.generators["alpha"].get_state())


def test_alphas_may_be_clipped():
    search, batch, _ = made()
    search.alpha_clip_norm = 1e-3
    search.alpha_step(batch, batch)
    assert torch.cat([p.grad.flatten() for p in search.alpha]).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_without_a_validation_batch_or_alphas_the_weights_alone_take_a_step():
    search, batch, _ = made()
    before = [p.detach().clone() for p in search.alpha]
    search.step(batch, None)
    assert all(torch.equal(a, b) for a, b in zip(before, search.alpha))
    search, batch, _ = made(Uniform)
    w = [p.detach().clone() for p in search.w]
    search.step(batch, batch)
    assert search.alpha == () and not all(torch.equal(a, b) for a, b in zip(w, search.w))


def test_what_a_hypergradient_remembers_is_replaced_as_a_whole():
    memory = Memory()
    values = memory.values
    values["old"] = torch.ones(1)
    memory.load_state_dict({"new": torch.zeros(1)})
    assert memory.values is values and set(values) == {"new"}


def test_penalties_are_told_of_every_step_of_the_alphas():
    search, batch, _ = made()
    told = []
    search.penalties = [SimpleNamespace(after_step=told.append, __call__=None)]
    search.alpha_update(tuple(torch.zeros_like(p) for p in search.alpha))
    assert told == [search.relaxation]


def test_a_score_needs_draws_with_a_probability():
    search, batch, _ = made()
    with pytest.raises(ValueError, match="relaxation=controller"):
        search.problem(batch, batch).score()


@pytest.mark.parametrize("method", [neumann, conjugate_gradient])
def test_implicit_gradients_are_the_direct_part_where_the_training_loss_sees_no_weight(method):
    w, alpha = torch.ones(2, dtype=F64, requires_grad=True), torch.ones(3, dtype=F64, requires_grad=True)
    problem = Problem((w,), (alpha,), lambda: torch.zeros((), dtype=F64), lambda: (w.sum() * alpha).sum(), lambda grads: grads)
    assert method(problem)[0].tolist() == [2.0] * 3


# ---- before any work


def test_a_rehearsal_names_what_does_not_return_gradients_of_the_alphas():
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    for method in (first_order, finite_difference, unrolled, functools.partial(finite_difference, radius=0.1)):
        rehearse(method, sgd, sampled=False)
    for wrong, told in ((lambda problem: problem.w, r"got \[\(1,\)\]"), (lambda problem: 3, "got int"),
                        (lambda problem: (1.0, torch.zeros(2)), r"got \[.*, \(2,\)\]"),
                        (lambda problem: problem.alpha[::-1], r"of shapes \[\(1,\), \(2,\)\], got \[\(2,\), \(1,\)\]")):
        with pytest.raises(InterfaceError, match=told):
            rehearse(wrong, sgd, sampled=False)
    with pytest.raises(ValueError, match="pass hypergradient=reinforce"):
        rehearse(first_order, sgd, sampled=True)
    with pytest.raises(ValueError, match="needs w_optimizer=sgd, got Adam"):
        rehearse(unrolled, torch.optim.Adam, sampled=False)
    rehearse(lambda problem: [g.detach() for g in reinforce(problem)], sgd, sampled=True)


def test_a_rehearsed_problem_depends_on_all_of_its_alphas_and_weights():
    """So that a method which goes through any of them meets numbers, not zeros."""
    found = {}

    def method(problem):
        found["val"] = torch.autograd.grad(problem.val_loss(), (*problem.w, *problem.alpha))
        found["train"] = torch.autograd.grad(problem.train_loss(), (*problem.w, *problem.alpha))
        found["joint"] = torch.autograd.grad(problem.joint_loss(), problem.alpha)
        found["score"] = torch.autograd.grad(problem.score().log_prob, problem.alpha)
        found["layered"] = problem.layered().loss({})
        return problem.alpha

    rehearse(method, functools.partial(torch.optim.SGD, lr=0.1), sampled=True)
    assert all((g != 0).all() for name in ("val", "train", "joint", "score") for g in found[name]) and found["layered"].requires_grad


# ---- helpers


def test_gradients_are_zero_where_an_input_is_frozen_or_takes_no_part():
    a, b, c = (torch.ones(n, dtype=F64, requires_grad=True) for n in (1, 2, 3))
    for frozen in (False, True):
        c.requires_grad_(not frozen)
        found = grad(3 * a.sum() + (0 if frozen else 1) * c.sum(), (a, b, c))
        assert [g.tolist() for g in found] == [[3.0], [0.0] * 2, [0.0 if frozen else 1.0] * 3]
    assert [g.tolist() for g in grad(torch.zeros(()), (a, c))] == [[0.0], [0.0] * 3]
    a.requires_grad_(False), b.requires_grad_(False)
    other = torch.ones((), requires_grad=True)
    assert [g.tolist() for g in grad(2 * other, (a, b))] == [[0.0], [0.0] * 2], "all of them frozen"


def test_within_constant_nothing_is_stored_for_the_weights_and_what_was_frozen_stays_so():
    w, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)
    with pytest.raises(KeyError), constant((w, frozen)):
        assert not (w * 2).requires_grad
        raise KeyError
    assert w.requires_grad and not frozen.requires_grad


def test_weights_are_put_back_bit_for_bit_whatever_happens():
    w = (nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(2)))
    before = [p.detach().clone() for p in w]
    with pytest.raises(KeyError), weights_at(w, [p + 1 for p in before]):
        assert all(torch.equal(p, q + 1) for p, q in zip(w, before))
        raise KeyError
    assert all(torch.equal(p, q) for p, q in zip(w, before)) and all(p.requires_grad and p.grad_fn is None for p in w)


def test_statistics_are_held_and_generators_rewound_also_after_an_error():
    norms, generator = [SimpleNamespace(updates=True) for _ in range(2)], torch.Generator().manual_seed(0)
    state = generator.get_state()
    with pytest.raises(KeyError), statistics_held(norms), rewound(generator) as given:
        assert given is generator and not any(norm.updates for norm in norms)
        torch.rand(1, generator=given)
        raise KeyError
    assert all(norm.updates for norm in norms) and torch.equal(state, generator.get_state())
    with rewound(None) as given:
        assert given is None


def test_what_is_static_and_its_name_are_known_through_options():
    assert is_static(first_order) and is_static(functools.partial(finite_difference, radius=0.1))
    assert not is_static(unrolled) and not is_static(functools.partial(reinforce, samples=1))
    assert name_of(functools.partial(finite_difference, radius=0.1)) == "finite_difference" and name_of(Doubled(None)) == "Doubled"
