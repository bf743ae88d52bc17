"""What wrappers of relaxations pass on, what they claim of themselves, and the edges of what they change."""

import inspect

import pytest
import torch

from supernet.errors import UsageError
from supernet.penalties.base import Replicated
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.base import Wrapper
from supernet.relaxations.binary_gates import BinaryGates
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.controller import Controller
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.greedy import Greedy
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.perturbed import Adversarial, RandomPerturbed
from supernet.relaxations.policy import RecurrentPolicy
from supernet.relaxations.reinmax import ReinMax
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.simplex import Simplex
from supernet.relaxations.softmax import Softmax
from supernet.relaxations.steered import Steered
from supernet.relaxations.uniform import Uniform
from supernet.select.perturbation import Decided
from supernet.space import CellSpec, Space
from supernet.spaces import darts, robust, toy

WRAPPERS = {"auxiliary_skip": lambda inner, space: AuxiliarySkip(inner, space, generator()),
            "edge_normalised": lambda inner, space: EdgeNormalised(inner, space, generator()),
            "greedy": lambda inner, space: Greedy(inner, space, generator()),
            "random_perturbed": lambda inner, space: RandomPerturbed(inner, space, generator()),
            "adversarial": lambda inner, space: Adversarial(inner, space, generator()), "decided": Decided,
            "steered": lambda inner, space: Steered(inner, space, generator()),
            "bare": lambda inner, space: Wrapper(inner)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Told(Softmax):
    """Notes what it is told."""

    def __init__(self, *args):
        super().__init__(*args)
        self.heard = []

    def anneal(self, progress, epoch):
        self.heard.append(("anneal", progress, epoch))

    def after_step(self):
        self.heard.append("after_step")

    def after_inherit(self):
        self.heard.append("after_inherit")

    def noise(self, generator):
        return {"drawn": torch.rand(3, generator=generator)}

    def for_w_step(self, draw, loss_of_weights, generator):
        self.heard.append("for_w_step")
        return draw


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_passes_on_what_it_is_told_and_asked(make):
    space = toy.make()
    inner = Told(space, generator())
    wrapped = make(inner, space)
    wrapped.anneal(0.25, 3), wrapped.after_step(), wrapped.after_inherit()
    draw = wrapped(generator()).detach()
    wrapped.for_w_step(draw, lambda weights: weights["cell"].ops.sum(), generator())
    assert inner.heard == [("anneal", 0.25, 3), "after_step", "after_inherit", "for_w_step"]
    assert torch.equal(wrapped.noise(generator(5))["drawn"], inner.noise(generator(5))["drawn"])
    assert wrapped.tables().keys() == {"cell"} and wrapped.tables()["cell"] is inner.alpha["cell"]
    assert wrapped.recorded()["cell"] is inner.alpha["cell"]
    with pytest.raises(ValueError, match="Softmax|Told"):
        wrapped.concentrations()


def test_what_is_static_says_so_and_a_wrapper_is_only_where_what_it_holds_is():
    """(static, static by draw): what a graph of a step may hold."""
    space = toy.make()
    expected = {Softmax: (True, False), Sigmoid: (True, False), Simplex: (True, False), Dirichlet: (True, False), Concrete: (True, False),
                ReinMax: (True, False), GumbelHard: (False, True), BinaryGates: (False, False), Uniform: (False, False),
                Controller: (False, False)}
    for kind, (static, by_draw) in expected.items():
        inner = kind(space, generator())
        assert (inner.static, inner.static_by_draw) == (static, by_draw), kind
        for name, make in WRAPPERS.items():
            keeps = name in ("auxiliary_skip", "edge_normalised")
            wrapped = make(inner, space)
            assert (wrapped.static, wrapped.static_by_draw) == (keeps and static, keeps and by_draw), (kind, name)


def test_what_needs_an_optimizer_of_the_simplex_says_so():
    space = toy.make()
    for kind in (Softmax, Sigmoid, Dirichlet, Concrete, ReinMax, GumbelHard, BinaryGates, Uniform, Controller, Simplex):
        inner = kind(space, generator())
        assert inner.on_simplex == (kind is Simplex)
        for name, make in WRAPPERS.items():
            assert make(inner, space).on_simplex == (kind is Simplex), name
        assert EdgeNormalised(inner, space, generator(), form="simplex").on_simplex


def test_edge_weights_of_two_wrappers_multiply_and_parameters_stand_in_the_order_of_kinds():
    """The order of parameters is that of an optimizer's state in a checkpoint."""
    space = darts.make(nodes=2)
    inner = EdgeNormalised(Softmax(space, generator()), space, generator(1), init_scale=1.0)
    outer = EdgeNormalised(inner, space, generator(2), init_scale=1.0)
    for kind, w in outer.mean().items():
        torch.testing.assert_close(w.edges, outer.edges()[kind] * inner.edges()[kind])
    assert [name for name, _ in inner.named_parameters() if "beta" in name] == [f"beta.{kind}.{n}" for kind in ("normal", "reduce")
                                                                               for n in (0, 1)]
    assert [name for name, _ in inner.inner.named_parameters()] == ["alpha.normal", "alpha.reduce"]


def test_random_perturbation_without_the_clip_leaves_out_absent_ops():
    space = robust.s1()
    relaxation = RandomPerturbed(Softmax(space, generator()), space, generator(), clip=False)
    draw = relaxation(generator()).detach()
    found = relaxation.for_w_step(draw, lambda weights: torch.zeros(()), generator(1))
    for kind, spec in space.cells.items():
        here = torch.tensor(spec.present)
        assert (~here).any() and (found[kind].ops[~here] == 0).all() and (found[kind].ops[here] != draw[kind].ops[here]).all()


def test_a_perturbation_does_not_shrink():
    space = toy.make()
    for make in (RandomPerturbed, Adversarial):
        with pytest.raises(ValueError, match="epsilon must be at most epsilon_end, got 0.5 and 0.1"):
            make(Softmax(space, generator()), space, generator(), epsilon=0.5, epsilon_end=0.1)


def test_the_auxiliary_skip_stands_in_what_is_evaluated_and_not_in_what_is_selected_from():
    space = toy.make()
    relaxation = AuxiliarySkip(Softmax(space, generator()), space, generator())
    relaxation.anneal(0.25, 1)
    assert relaxation.evaluated(generator())["cell"].skip.item() == relaxation(generator())["cell"].skip.item() == 0.75
    assert relaxation.mean()["cell"].skip is None


def test_of_a_row_of_which_nothing_is_left_the_largest_op_that_the_edge_has_stays():
    space = robust.s1()
    relaxation = RandomPerturbed(Softmax(space, generator()), space, generator()).double()
    draw = relaxation(generator()).detach()
    down = {kind: torch.full_like(w.ops, -2.0) for kind, w in draw.items()}
    last = {kind: [max(o for o, ok in enumerate(row) if ok) for row in spec.present] for kind, spec in space.cells.items()}
    for kind, columns in last.items():
        down[kind][range(len(columns)), columns] = -1.5
    for kind, delta in relaxation.clipped(draw, down).items():
        left = draw[kind].ops + delta
        assert left.argmax(1).tolist() == last[kind] and (left.count_nonzero(1) == 1).all()
        torch.testing.assert_close(left.sum(1), draw[kind].ops.sum(1))


def test_an_adversary_leaves_a_kind_of_which_the_loss_sees_nothing_at_its_random_start():
    space = darts.make(nodes=2)
    adversary = Adversarial(Softmax(space, generator()), space, generator(), epsilon=0.1, epsilon_end=0.1, clip=False).double()
    draw = adversary(generator()).detach()
    found = adversary.for_w_step(draw, lambda weights: weights["normal"].ops.square().sum(), generator(1))
    start = adversary.random(draw, generator(1))
    torch.testing.assert_close(found["reduce"].ops, draw["reduce"].ops + start["reduce"], rtol=0, atol=0)
    moved = found["normal"].ops - draw["normal"].ops
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))  # seven steps uphill, to the edge of what is allowed


def test_a_simplex_of_fewer_candidates_is_brought_back_to_sum_one():
    space = robust.s1()
    relaxation = Simplex(space, generator()).double()
    with torch.no_grad():
        for kind, theta in relaxation.alpha.items():
            theta.copy_(torch.rand(theta.shape, generator=generator(1), dtype=torch.float64))
            theta[0] = (~torch.tensor(space.cells[kind].present[0])).double()  # all weight lay on ops that are gone
    before = {kind: theta.detach().clone() for kind, theta in relaxation.alpha.items()}
    relaxation.after_inherit()
    for kind, theta in relaxation.alpha.items():
        here = torch.tensor(space.cells[kind].present)
        own = before[kind] * here
        own[0] = here[0].double()
        torch.testing.assert_close(theta.detach(), own / own.sum(1, keepdim=True), rtol=0, atol=1e-12)


def test_gates_of_an_edge_with_one_op_leave_its_alpha_to_the_optimizer():
    """There is nothing to compare, and no probability to keep."""
    spec = CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a"]), (0, 2, ["a", "b"])], outputs=(2,), keep=None)
    relaxation = BinaryGates(Space("s", {}, {"cell": spec}, build=None), generator()).double()
    relaxation(generator(1))
    with torch.no_grad():
        relaxation.alpha["cell"] += 0.5  # a step: the same for both ops of the second edge
    stepped = relaxation.alpha["cell"].detach().clone()
    relaxation.after_step()
    found = relaxation.alpha["cell"].detach()
    assert found[0, 0] == stepped[0, 0]
    torch.testing.assert_close(found[1], stepped[1] - 0.5)


def test_draws_that_run_some_of_the_ops_alone_say_so():
    space = toy.make()
    for kind, samples in ((Softmax, False), (Dirichlet, False), (Concrete, False), (GumbelHard, True), (BinaryGates, True), (Uniform, True),
                          (Controller, True)):
        assert kind(space, generator()).samples(generator(1)) is samples, kind


def test_uniform_draws_have_nothing_to_keep():
    relaxation = Uniform(toy.make(), generator())
    assert not relaxation.state_dict() and not list(relaxation.parameters())


def test_the_policys_options_begin_as_the_controllers():
    taken = inspect.signature(Controller.__init__).parameters
    for name, parameter in inspect.signature(RecurrentPolicy.__init__).parameters.items():
        if name not in ("self", "space", "init_seed"):
            assert parameter.default == taken[name].default, name


def test_the_policy_refuses_a_space_of_which_one_node_alone_may_keep_more_edges_or_fewer():
    spec = CellSpec.full(num_inputs=1, num_nodes=3, ops=("a", "b"), outputs=(3,), keep=(1, 2))  # the first node has one edge to keep
    assert spec.keep == ((1, 1), (1, 2), (1, 2))
    with pytest.raises(UsageError, match="fixed number of edges, and nodes of 'cell' in space s may keep more or fewer"):
        RecurrentPolicy(Space("s", {}, {"cell": spec}, build=None))


def test_the_policy_takes_one_step_of_adam_for_each_result():
    """Nothing of the gradient of the last result is left in the next."""
    space = toy.make()
    policy = RecurrentPolicy(space, hidden=4)
    other = Controller(space, generator(), hidden=4).double()
    other.load_state_dict(policy.controller.state_dict())
    adam = torch.optim.Adam(other.parameters(), lr=0.01)
    for genotype, advantage in zip(space.enumerate(), (1.0, -0.5, 2.0)):
        policy.learn(genotype, advantage, 0.3, 0.01)
        taken = other.in_order(None, genotype)
        adam.zero_grad()
        (-advantage * taken.log_prob - 0.3 * taken.entropy).backward()
        adam.step()
    for mine, theirs in zip(policy.controller.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-15)


def test_a_tensor_is_copied_to_another_device_once():
    kept = Replicated(torch.ones(2))
    assert kept.on(torch.device("cpu")) is kept.on(torch.device("cpu"))
    there = kept.on(torch.device("meta"))
    assert there.device.type == "meta" and kept.on(torch.device("meta")) is there
