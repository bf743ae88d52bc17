"""Penalties on the expected cost of the architectures that edge weights describe."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from supernet.costs.base import Cost
from supernet.penalties.base import Penalty
from supernet.ranges import Finite, NonNegative, Positive, ranged
from supernet.relaxations.base import Relaxation
from supernet.space import Space
from supernet.weights import EdgeWeights, Weights


def _needed(space: Space, cost: Cost | None, name: str) -> Cost:
    """The cost. Raises ValueError: there is none, or (CostError) none with an expectation."""
    if cost is None:
        raise ValueError(f"penalty={name} needs a cost: pass cost=multiply_adds, cost=parameters, cost=table or cost=latency_table")
    tables = {kind: torch.tensor(spec.present, dtype=torch.float64) for kind, spec in space.cells.items()}
    cost.expected(EdgeWeights({kind: Weights(t / t.sum(1, keepdim=True).clamp_min(1)) for kind, t in tables.items()}))
    return cost


@ranged
class CostLinear(Penalty):
    """`weight * E[cost] / reference` (SNAS, Xie et al. 2019, eq. 12, with the expectation in closed form)."""

    def __init__(self, space: Space, cost: Cost | None, *, weight: NonNegative, reference: Positive):
        self.cost, self.weight, self.reference = _needed(space, cost, "cost_linear"), weight, reference

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        return self.weight * self.cost.expected(relaxation.mean()) / self.reference


@ranged
class CostLog(Penalty):
    """Makes the loss `CE * alpha * log(E[cost])^beta`: FBNet's (Wu et al. 2019, eq. 2; cost in its own unit), and with `reference` the
    official ProxylessNAS code's `CE * alpha * (log(E[cost]) / log(reference))^beta`. With `form=factor` it is `CE * alpha * beta *
    log(E[cost])`, as re-implementations of FBNet read that equation (the log of the power). Raises ValueError: a cost that may be 1 or
    less in its unit, whose log has no such power."""

    def __init__(self, space: Space, cost: Cost | None, *, alpha: NonNegative = 0.2, beta: Finite = 0.6,
                 reference: Positive | None = None, form: str = "power"):
        if form not in ("power", "factor"):
            raise ValueError(f"penalty.cost_log.form must be power or factor, got {form!r}")
        self.cost, self.alpha, self.beta, self.reference = _needed(space, cost, "cost_log"), alpha, beta, reference
        self.is_power = form == "power"
        for what, value in (("the cost of every architecture", self.cost.least()), ("reference", reference)):
            if value is not None and value <= 1:
                raise ValueError(f"penalty=cost_log takes a power of the log of the cost: {what} must be above 1 ({cost.unit}), got "
                                 f"{value:.4g}")

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        size = self.cost.expected(relaxation.mean()).log()
        if self.reference is not None:
            size = size / torch.tensor(self.reference).log().to(size)
        return loss * (self.alpha * (size**self.beta if self.is_power else self.beta * size) - 1)


@ranged
class CostPower(Penalty):
    """Makes the loss `CE * (E[cost] / target)^exponent`, MnasNet's reward (Tan et al. 2019, eq. 2: ACC * (LAT / T)^w, w = -0.07) as a loss
    to descend on, so with a positive exponent. `hard` counts only what is above the target (their w = 0 below it)."""

    def __init__(self, space: Space, cost: Cost | None, *, target: Positive, exponent: Finite = 0.07, hard: bool = False):
        self.cost, self.target = _needed(space, cost, "cost_power"), target
        self.exponent, self.hard = exponent, hard

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        ratio = self.cost.expected(relaxation.mean()) / self.target
        return loss * ((ratio.clamp_min(1.0) if self.hard else ratio) ** self.exponent - 1)


@ranged
class CostLimit(Penalty):
    """Keeps `E[cost] <= limit` by an augmented Lagrangian (Nocedal & Wright 2006, Sec. 17.4): with c = E[cost] / limit - 1 the term is
    `(max(0, multiplier + rho c)^2 - multiplier^2) / (2 rho)`, and after each alpha step the multiplier becomes
    max(0, multiplier + rate * rho * c). The multiplier finds the weight that the limit needs, so that there is none to choose.

    The limit holds for the expectation; `final_select=within_cost` holds it for the genotype.
    """

    def __init__(self, space: Space, cost: Cost | None, *, limit: Positive, rho: Positive = 10.0, rate: Positive = 0.01):
        self.cost, self.limit = _needed(space, cost, "cost_limit"), limit
        if self.limit < self.cost.least():
            raise ValueError(f"penalty.cost_limit.limit is {limit:g} {self.cost.unit}, and every architecture has at least "
                             f"{self.cost.least():g}")
        self.rho, self.rate = rho, rate
        self.multiplier = torch.zeros(())

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        c = self._excess(relaxation)
        multiplier = self.multiplier.to(c)
        return ((multiplier + self.rho * c).clamp_min(0.0).square() - multiplier.square()) / (2 * self.rho)

    @torch.no_grad()
    def after_step(self, relaxation: Relaxation) -> None:
        c = self._excess(relaxation)
        self.multiplier = (self.multiplier.to(c) + self.rate * self.rho * c).clamp_min(0.0)

    def _excess(self, relaxation: Relaxation) -> Tensor:
        return self.cost.expected(relaxation.mean()) / self.limit - 1

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.multiplier = state["multiplier"]
