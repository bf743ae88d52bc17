"""Penalties on the alpha loss against their equations, in float64; that of the weights' loss is in test_implicit.py."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from supernet.costs.additive import Additive, additive, counted
from supernet.costs.base import CostError
from supernet.costs.measured import PeakMemory
from supernet.optim.optimizers import ExponentiatedGradient
from supernet.penalties.alphas import BetaDecay, DirichletKL
from supernet.penalties.cost import CostLimit, CostLinear, CostLog, CostPower
from supernet.penalties.weights import Entropy, ZeroOne
from supernet.relaxations.dirichlet import Dirichlet, concentration
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.simplex import Simplex
from supernet.relaxations.softmax import Softmax
from supernet.relaxations.uniform import Uniform
from supernet.select.argmax import argmax
from supernet.select.within_cost import WithinCost
from supernet.spaces import darts, nasbench_macro, robust, toy
from supernet.training.records import Silent
from supernet.training.stages import narrowed, strongest
from supernet.weights import one_hot
from tests.searches import searched

SPACES = [darts.make(nodes=2), robust.s1()]
LOSS = torch.tensor(1.5, dtype=torch.float64)


def made(make, space, seed=0):
    return make(space, torch.Generator().manual_seed(seed), init_scale=1.0).double()


def present(space, kind):
    return torch.tensor(space.cells[kind].present)


def edges_of(tables, space):
    """The rows of all kinds, each without the ops that its edge lacks."""
    return [row[here] for kind, table in tables.items() for row, here in zip(table, present(space, kind))]


# ---- on weights and alphas


@pytest.mark.equation("fair_darts")
@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_zero_one_is_the_official_loss(space):
    """ConvSeparateLoss and TriSeparateLoss of FairDARTS' separate_loss.py."""
    relaxation = made(Sigmoid, space)
    weights = relaxation.mean()
    flat = torch.cat(edges_of({kind: w.ops for kind, w in weights.items()}, space))
    half = torch.full_like(flat, 0.5)
    for form, distance in (("l2", F.mse_loss), ("l1", F.l1_loss)):
        torch.testing.assert_close(ZeroOne(space, weight=10.0, form=form)(LOSS, weights, relaxation), -10 * distance(flat, half))
    ZeroOne(space)(LOSS, weights, relaxation).backward()
    for kind, alpha in relaxation.alpha.items():
        here = present(space, kind)
        assert (alpha.grad[here].sign() == -alpha.detach()[here].sign()).all(), "descent drives each weight away from one half"
        assert (alpha.grad[~here] == 0).all()
    with pytest.raises(ValueError, match="l1 or l2"):
        ZeroOne(space, form="l3")


@pytest.mark.equation("beta_darts")
@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_beta_decay_is_the_mean_log_sum_exp_whose_gradient_is_the_softmax(space):
    relaxation = made(Softmax, space)
    penalty = BetaDecay(space, weight=50.0)
    rows = edges_of({kind: alpha.detach() for kind, alpha in relaxation.alpha.items()}, space)
    for progress in (0.0, 0.4, 1.0):
        penalty.anneal(progress)
        value = penalty(LOSS, relaxation.mean(), relaxation)
        torch.testing.assert_close(value, 50 * progress * torch.stack([row.exp().sum().log() for row in rows]).mean())
    relaxation.zero_grad()
    value.backward()
    for kind, alpha in relaxation.alpha.items():
        torch.testing.assert_close(alpha.grad, 50 * relaxation.mean()[kind].ops.detach() / len(rows))


@pytest.mark.equation("dr_nas")
@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_the_dirichlet_divergence_is_that_of_the_official_code(space):
    """_get_kl_reg of DrNAS' model_search.py: a sum over the edges of both kinds."""
    relaxation = made(Dirichlet, space)
    total = 0
    for row in edges_of({kind: beta.detach() for kind, beta in relaxation.alpha.items()}, space):
        q, p = (torch.distributions.Dirichlet(c) for c in (concentration(row), torch.ones_like(row)))
        total = total + torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(DirichletKL(space, weight=0.01)(LOSS, relaxation.mean(), relaxation), 0.01 * total)
    DirichletKL(space)(LOSS, relaxation.mean(), relaxation).backward()
    assert all(torch.isfinite(beta.grad).all() for beta in relaxation.alpha.values())
    with torch.no_grad():
        for beta in relaxation.alpha.values():
            beta.zero_()
    assert DirichletKL(space)(LOSS, relaxation.mean(), relaxation).abs() < 1e-12, "concentrations of 1 are the flat distribution"


@pytest.mark.equation("dr_nas_progressive")
def test_the_divergence_goes_on_counting_the_ops_that_a_stage_took_away():
    """DrNAS' model_search.py and utils.py: pruned alphas become 0, and `_get_kl_reg` sums over all of them."""
    space = SPACES[0]
    old, wide = made(Dirichlet, space), DirichletKL(space, weight=0.01)
    narrow = narrowed(space, strongest(space, old.mean().detach(), 2))
    new, divergence = Dirichlet(narrow, torch.Generator()).double(), DirichletKL(narrow, weight=0.01)
    new.load_state_dict(old.state_dict())
    new.after_inherit()
    divergence.load_state_dict(wide.state_dict())
    total = 0.0
    for kind in narrow.cells:
        kept = present(narrow, kind)
        alpha = torch.where(kept, old.alpha[kind], 0.0).detach()
        assert torch.equal(new.alpha[kind], alpha) and (~kept).any()
        flat = torch.distributions.Dirichlet(torch.ones_like(alpha))
        total = total + torch.distributions.kl_divergence(torch.distributions.Dirichlet(F.elu(alpha) + 1), flat).sum()
    found = divergence(LOSS, new.mean(), new)
    torch.testing.assert_close(found, 0.01 * total)
    assert not torch.allclose(DirichletKL(narrow, weight=0.01)(LOSS, new.mean(), new), found), "what begins with few ops counts these"
    found.backward()
    assert all(p.grad[~present(narrow, kind)].abs().min() > 0 for kind, p in new.alpha.items())


@pytest.mark.equation("dr_nas")
def test_l2_on_dirichlet_is_the_weight_decay_of_adam():
    """reg_type l2 of the official code: Adam's L2 term, the gradient of weight_decay / 2 * |beta|^2, before the moments."""
    space, steps = toy.make(), []
    for decay, by_hand in ((1e-3, 0.0), (0.0, 1e-3)):
        relaxation = made(Dirichlet, space)
        optimizer = torch.optim.Adam(relaxation.parameters(), lr=6e-4, betas=(0.5, 0.999), weight_decay=decay)
        for n in range(3):
            optimizer.zero_grad()
            w = relaxation(torch.Generator().manual_seed(n))["cell"].ops
            (w.square().sum() + by_hand / 2 * relaxation.alpha["cell"].square().sum()).backward()
            optimizer.step()
        steps.append(relaxation.alpha["cell"].detach())
    torch.testing.assert_close(*steps)


def test_entropy_is_in_nats_and_grows_where_asked():
    space = SPACES[1]
    relaxation = made(Softmax, space)
    rows = edges_of({kind: w.ops.detach() for kind, w in relaxation.mean().items()}, space)
    mean = torch.stack([-(row * row.log()).sum() for row in rows]).mean()
    torch.testing.assert_close(Entropy(space, weight=0.3)(LOSS, relaxation.mean(), relaxation), 0.3 * mean)
    growing = Entropy(space, weight=0.3, grows=True)
    growing.anneal(0.5)
    torch.testing.assert_close(growing(LOSS, relaxation.mean(), relaxation), 0.15 * mean)


# ---- on costs


@pytest.fixture(scope="module")
def priced():
    space = toy.make()
    return space, additive(space, "multiply_adds", layers=3, channels=4, num_classes=3, image_size=(8, 8))


@pytest.mark.equation("fbnet", "proxyless", "snas")
def test_published_forms_of_the_cost_term(priced):
    """The loss that alpha descends on is the task's plus the term: for the multiplicative forms the product."""
    space, cost = priced
    relaxation = made(Softmax, space)
    expected = cost.expected(relaxation.mean()).detach()
    assert expected > 1

    def total(penalty):
        return (LOSS + penalty(LOSS, relaxation.mean(), relaxation)).detach()

    torch.testing.assert_close(total(CostLinear(space, cost, weight=0.01, reference=7.0)), LOSS + 0.01 * expected / 7)  # SNAS, eq. 12
    torch.testing.assert_close(total(CostLog(space, cost, alpha=0.2, beta=0.6)), LOSS * 0.2 * expected.log() ** 0.6)  # FBNet, eq. 2
    torch.testing.assert_close(total(CostLog(space, cost, alpha=0.2, beta=0.6, form="factor")),
                               LOSS * 0.2 * (expected**0.6).log())  # a re-implementation of FBNet, SupernetLoss
    target = 20_000.0  # ProxylessNAS' code, mul#log
    torch.testing.assert_close(total(CostLog(space, cost, alpha=0.2, beta=0.3, reference=target)),
                               LOSS * 0.2 * (expected.log() / torch.tensor(target, dtype=torch.float64).log()) ** 0.3)
    torch.testing.assert_close(total(CostPower(space, cost, target=target)), LOSS * (expected / target) ** 0.07)  # MnasNet, eq. 2
    for target, factor in ((expected.item() * 2, 1.0), (expected.item() / 2, 2**0.07)):
        torch.testing.assert_close(total(CostPower(space, cost, target=target, hard=True)), LOSS * factor)


def test_a_cost_term_needs_a_cost_and_positive_numbers(priced):
    space, cost = priced
    with pytest.raises(ValueError, match="penalty=cost_limit needs a cost"):
        CostLimit(space, None, limit=1.0)
    for make in (lambda: CostLimit(space, cost, limit=0.0), lambda: CostLinear(space, cost, weight=1.0, reference=-1.0),
                 lambda: CostPower(space, cost, target=0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            make()
    with pytest.raises(ValueError, match="at least 0"):
        BetaDecay(space, weight=-1.0)


def test_a_cost_term_that_cannot_be_computed_says_so_before_the_search(priced):
    space, _ = priced
    memory = PeakMemory(lambda genotype: None, torch.zeros(1))
    for make in (lambda: CostLinear(space, memory, weight=1.0, reference=1.0), lambda: CostLog(space, memory),
                 lambda: CostPower(space, memory, target=1.0), lambda: CostLimit(space, memory, limit=1.0)):
        with pytest.raises(CostError, match="no exact expectation"):
            make()
    small = Additive(space, "latency_table", "ms", 0.9, {"cell": np.eye(3)})  # the log of its least has no power of 0.6
    with pytest.raises(ValueError, match=r"the cost of every architecture must be above 1 \(ms\), got 0.9"):
        CostLog(space, small)
    with pytest.raises(ValueError, match="form must be power or factor, got 'log'"):
        CostLog(space, small, form="log")
    with pytest.raises(ValueError, match="reference must be above 1"):
        CostLog(space, Additive(space, "x", "ms", 2.0, {"cell": np.zeros((3, 3))}), reference=1.0)


def searched_within(space, cost, seed, limit, steps=700):
    """Alphas that descend on minus a random liking for ops, in which dearer ops are liked better; and the penalty."""
    g = torch.Generator().manual_seed(seed)
    relaxation = Softmax(space, g).double()
    liking = torch.rand(relaxation.alpha["cell"].shape, generator=g, dtype=torch.float64) + torch.tensor([0.0, 0.2, 1.0])
    penalty = None if limit is None else CostLimit(space, cost, limit=limit, rate=0.02)
    optimizer = torch.optim.Adam(relaxation.parameters(), lr=0.05, betas=(0.5, 0.999))
    for _ in range(steps):
        weights = relaxation.mean()
        loss = -(weights["cell"].ops * liking).sum()
        loss = loss if penalty is None else loss + penalty(loss, weights, relaxation)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        if penalty is not None:
            penalty.after_step(relaxation)
    return relaxation, penalty


@pytest.mark.parametrize("seed", range(5))
def test_the_augmented_lagrangian_meets_its_limit_and_the_genotype_stays_within(priced, seed):
    space, cost = priced
    costs = sorted(cost(g) for g in space.enumerate())
    limit = (costs[0] + costs[-1]) / 2
    free, _ = searched_within(space, cost, seed, None)
    held, penalty = searched_within(space, cost, seed, limit)
    assert cost.expected(free.mean()) > 1.05 * limit and cost(argmax(space, free.mean())) > limit
    assert abs(cost.expected(held.mean()).item() - limit) < 0.02 * limit and penalty.multiplier > 0
    loop = SimpleNamespace(space=space, cost=cost, recorder=Silent(), search=SimpleNamespace(relaxation=held))
    found = WithinCost(limit=limit)(loop)
    assert cost(found) <= limit
    logs = held.mean()["cell"].ops.detach().log()
    strength = lambda genotype: sum(logs[e, o].item() for e, o in space.cells["cell"].rows(genotype["cell"]))
    assert all(cost(other) > limit or strength(other) <= strength(found) for other in space.neighbours(found)), "no change is better"


def test_the_multiplier_is_saved_and_no_limit_below_the_cheapest_is_accepted(priced):
    space, cost = priced
    relaxation, penalty = searched_within(space, cost, 0, min(cost(g) for g in space.enumerate()) * 1.1, steps=20)
    other = CostLimit(space, cost, limit=2 * cost.least())
    other.load_state_dict(penalty.state_dict())
    assert other.multiplier == penalty.multiplier > 0
    loop = SimpleNamespace(space=space, cost=cost, recorder=Silent(), search=SimpleNamespace(relaxation=relaxation))
    with pytest.raises(ValueError, match="found no architecture within it; the least multiply_adds found is"):
        WithinCost(limit=min(cost(space.sample(random.Random(n))) for n in range(100)) / 2)(loop)
    with pytest.raises(ValueError, match="needs a cost"):
        WithinCost(limit=1.0).check(SimpleNamespace(cost=None))
    told = []
    loop.recorder.working = lambda: told.append(None)
    WithinCost(limit=cost.least())(loop)
    assert len(told) > 1, "a person may interrupt it"
    loop.cost = PeakMemory(lambda genotype: None, torch.zeros(1))
    WithinCost(limit=1.0).check(loop)  # nothing is measured before the search


def test_the_augmented_lagrangian_is_the_textbooks(priced):
    """Nocedal & Wright 2006, eq. 17.60 with psi of eq. 17.65 for an inequality: the minimum over slacks of the equality's form."""
    space, cost = priced
    relaxation = made(Softmax, space)
    size = cost.expected(relaxation.mean()).item()
    for limit, multiplier in ((1.2, 0.0), (1.2, 3.0), (0.96, 0.0), (0.96, 2.0)):
        penalty = CostLimit(space, cost, limit=limit * size, rho=10.0, rate=0.5)
        penalty.multiplier = torch.tensor(multiplier, dtype=torch.float64)
        c = 1 / limit - 1
        slacks = [s / 1e4 for s in range(20_000)]
        textbook = min(multiplier * (c + s) + 5.0 * (c + s) ** 2 for s in slacks)
        found = penalty(torch.ones(()), relaxation.weights({}), relaxation)
        assert found.item() == pytest.approx(textbook, abs=1e-6)
        penalty.after_step(relaxation)
        assert penalty.multiplier.item() == pytest.approx(max(0.0, multiplier + 0.5 * 10.0 * c))
    other = CostLimit(space, cost, limit=size)
    other.load_state_dict(penalty.state_dict())
    assert torch.equal(other.multiplier, penalty.multiplier)


def constrained(make, seed, cost, limit, steps, lr):
    """Alphas, of draws or on the simplex, that descend on a random linear loss which likes dear ops; with and without a limit."""
    space, g = cost.space, torch.Generator().manual_seed(seed)
    liking = torch.rand(3, 3, generator=g, dtype=torch.float64) / 3 + torch.tensor([0.0, 0.0, 1.0])
    relaxation = make(space, torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        if make is Simplex:
            relaxation.alpha["cell"].div_(relaxation.alpha["cell"].sum(-1, keepdim=True))  # of float32's thirds, in float64
    optimizer = (ExponentiatedGradient if make is Simplex else torch.optim.Adam)(relaxation.parameters(), lr=lr)
    penalty = None if limit is None else CostLimit(space, cost, limit=limit, rate=0.02)
    for _ in range(steps):
        weights = relaxation(g)
        loss = -(weights["cell"].ops * liking).sum()
        loss = loss if penalty is None else loss + penalty(loss, weights, relaxation)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        if penalty is not None:
            penalty.after_step(relaxation)
    return relaxation


@pytest.mark.parametrize("make, steps, lr, seed", [
    *(pytest.param(Dirichlet, 2000, 0.01, seed, marks=[pytest.mark.slow] if seed else []) for seed in range(5)),
    *((Simplex, 1000, 0.05, seed) for seed in range(5))])
def test_draws_and_the_simplex_meet_a_limit_too(priced, make, steps, lr, seed):
    space, cost = priced
    limit = (cost.least() + max(cost(g) for g in space.enumerate())) / 2
    held = constrained(make, seed, cost, limit, steps, lr)
    assert abs(cost.expected(held.mean()).item() - limit) < 0.02 * limit
    loop = SimpleNamespace(space=space, cost=cost, recorder=Silent(), search=SimpleNamespace(relaxation=held))
    assert cost(WithinCost(limit=limit)(loop)) <= limit
    free = constrained(make, seed, cost, None, steps // 2, lr)
    assert cost.expected(free.mean()) > 1.02 * limit and cost(argmax(space, free.mean())) > limit


TOY = ("space=toy", "protocol.final.layers=5", "protocol.final.channels=4", "layers=5", "channels=4", "split.max_train=128",
       "split.max_val=64", "batch_size=16", "epochs=50", "alpha_optimizer.lr=0.05", "alpha_optimizer.weight_decay=0", "cost=multiply_adds",
       "table=none", "threads=1")
LIMIT = 60_000  # multiply-adds; the cheapest cell has 31,136 and the dearest 114,080


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_search_on_digits_meets_a_limit_that_it_exceeds_without(seed):
    """The whole search. What asks for more than the limit allows is a term that pays for cost; digits themselves need little."""
    pays = f"penalty.cost_power.target={LIMIT}", "penalty.cost_power.exponent=-1"
    limited = f"penalty.cost_limit.limit={LIMIT}", "final_select=within_cost", f"final_select.limit={LIMIT}"
    expected, selected = [], []
    for options in (("penalty=[cost_power,cost_limit]", *pays, *limited), ("penalty=[cost_power]", *pays)):
        stages, _, genotype = searched(*TOY, *options, f"seed={seed}")
        with torch.no_grad():
            expected.append(stages.loop.cost.expected(stages.loop.search.relaxation.mean()).item() / LIMIT)
        selected.append(stages.loop.cost(genotype) / LIMIT)
    assert abs(expected[0] - 1) < 0.02 and selected[0] <= 1
    assert expected[1] > 1.02 and selected[1] > 1


SIZES = {"layers": 5, "channels": 4, "num_classes": 3, "image_size": (8, 8)}
SMALL = darts.make(nodes=2, edges_per_node=[1, 2], ops=("skip_connect", "sep_conv_3x3", "avg_pool_3x3"))


@pytest.mark.parametrize("space", [toy.make(), SMALL, robust.s1()], ids=lambda s: s.name)
@pytest.mark.parametrize("quantity", ["parameters", "multiply_adds"])
def test_the_least_cost_is_the_cheapest_architectures(space, quantity):
    cost = additive(space, quantity, **SIZES)
    some = list(space.enumerate()) if space.count() < 1000 else [space.sample(random.Random(n)) for n in range(300)]
    least = min(cost(genotype) for genotype in some)
    assert least == cost.least() if space.count() < 1000 else least >= cost.least()
    with pytest.raises(ValueError, match="every architecture has at least"):
        CostLimit(space, cost, limit=0.99 * cost.least())
    loop = SimpleNamespace(space=space, cost=cost, recorder=Silent(), search=SimpleNamespace(relaxation=made(Softmax, space)))
    with pytest.raises(ValueError, match="final_select.limit is .* and every architecture has at least"):
        WithinCost(limit=0.99 * cost.least()).check(loop)
    WithinCost(limit=1.5 * cost.least()).check(loop)


def test_chains_have_costs_that_penalties_take():
    """NAS-Bench-Macro: the expectation at one-hot weights is the cost, and every architecture costs at least the bound."""
    space = nasbench_macro.make()
    sizes = {"channels": 8, "num_classes": 10, "image_size": (32, 32), **space.sizes}
    for quantity in ("parameters", "multiply_adds"):
        cost = counted(space, quantity, **sizes)
        for n in range(5):
            genotype = space.sample(random.Random(n))
            assert cost.expected(one_hot(space, genotype, dtype=torch.float64)).item() == pytest.approx(cost(genotype))
            assert cost(genotype) >= cost.least()
        relaxation = made(Softmax, space)
        penalty = CostLimit(space, cost, limit=1.05 * cost.least())
        penalty(torch.ones(()), relaxation.weights({}), relaxation).backward()
        assert all(alpha.grad.abs().sum() > 0 for alpha in relaxation.alpha.values())
    assert (cost.name, cost.unit) == ("multiply_adds", "multiply-adds an image")


def test_edge_weights_scale_the_expected_cost():
    """With PC-DARTS' edge weights an edge counts as much as it weighs."""
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3"), edges_per_node=1)
    cost = additive(space, "parameters", **SIZES)
    relaxation = EdgeNormalised(Softmax(space, torch.Generator().manual_seed(0)), space, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        relaxation.inner.alpha["normal"].copy_(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]))  # edge 0 skips, edge 1 is a convolution
        relaxation.inner.alpha["reduce"].copy_(torch.tensor([[9.0, -9.0], [9.0, -9.0]]))
        sizes = []
        for beta in ([9.0, -9.0], [-9.0, 9.0]):
            relaxation.beta["normal"][0].copy_(torch.tensor(beta))
            sizes.append(cost.expected(relaxation.mean()).item())
    assert sizes[1] > sizes[0] * 1.05


def test_penalties_refuse_relaxations_that_have_not_what_they_need():
    space = toy.make()
    uniform, softmax = Uniform(space, torch.Generator().manual_seed(0)), Softmax(space, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="Uniform has no table of alphas"):
        BetaDecay(space)(torch.ones(()), uniform(torch.Generator().manual_seed(0)), uniform)
    with pytest.raises(ValueError, match="pass relaxation=dirichlet"):
        DirichletKL(space)(torch.ones(()), softmax(torch.Generator().manual_seed(0)), softmax)
    wrapped = EdgeNormalised(Dirichlet(space, torch.Generator().manual_seed(0)), space, torch.Generator().manual_seed(0))
    assert DirichletKL(space)(torch.ones(()), wrapped(torch.Generator().manual_seed(0)), wrapped).item() >= 0


def test_a_cost_without_an_expectation_is_refused():
    space = toy.make()
    cost = PeakMemory(lambda genotype: None, torch.zeros(1))
    with pytest.raises(CostError, match="no exact expectation"):
        CostLimit(space, cost, limit=1.0)
    relaxation = Softmax(space, torch.Generator().manual_seed(0))
    with pytest.raises(CostError, match="no exact expectation"):
        CostLog(space, cost)(torch.ones(()), relaxation.weights({}), relaxation)
