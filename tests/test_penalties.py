"""Penalties on the alpha loss against their equations, in float64; that of the weights' loss is in test_implicit.py."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from supernet.costs import Additive, CostError, PeakMemory, additive
from supernet.penalties.alphas import BetaDecay, DirichletKL
from supernet.penalties.cost import CostLimit, CostLinear, CostLog, CostPower
from supernet.penalties.weights import Entropy, ZeroOne
from supernet.relaxations.dirichlet import Dirichlet, concentration
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.select.within_cost import WithinCost
from supernet.spaces import darts, robust, toy

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
    small = Additive(space, "latency_table", "ms", 0.9, {"cell": np.zeros((3, 3))})  # its log is negative, which has no power of 0.6
    with pytest.raises(ValueError, match=r"the expected cost must be above 1 \(ms\), got 0.9"):
        CostLog(space, small)
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
    loop = SimpleNamespace(space=space, cost=cost, search=SimpleNamespace(relaxation=held))
    found = WithinCost(limit=limit)(loop)
    assert cost(found) <= limit
    logs = held.mean()["cell"].ops.detach().log()
    strength = lambda genotype: sum(logs[e, o].item() for e, o in space.cells["cell"].rows(genotype["cell"]))
    assert all(cost(other) > limit or strength(other) <= strength(found) for other in space.neighbours(found)), "no change is better"


def test_the_multiplier_is_saved_and_no_limit_below_the_cheapest_is_accepted(priced):
    space, cost = priced
    relaxation, penalty = searched_within(space, cost, 0, min(cost(g) for g in space.enumerate()) * 1.1, steps=20)
    other = CostLimit(space, cost, limit=1.0)
    other.load_state_dict(penalty.state_dict())
    assert other.multiplier == penalty.multiplier > 0
    loop = SimpleNamespace(space=space, cost=cost, search=SimpleNamespace(relaxation=relaxation))
    with pytest.raises(ValueError, match="no architecture within it, the least multiply_adds found is"):
        WithinCost(limit=min(cost(space.sample(random.Random(n))) for n in range(100)) / 2)(loop)
    with pytest.raises(ValueError, match="needs a cost"):
        WithinCost(limit=1.0)(SimpleNamespace(cost=None))
