"""Lion: steps of one size, along the signs of a momentum."""

from collections.abc import Iterable
from typing import Any

import torch

from supernet.ranges import Fraction, NonNegative, Positive, ranged


@ranged
class Lion(torch.optim.Optimizer):
    """`w <- w - lr (sign(b1 m + (1 - b1) g) + weight_decay w)`, then `m <- b2 m + (1 - b2) g` (Chen et al. 2023, Algorithm 2). The authors
    take a learning rate of a third to a tenth of AdamW's, and a weight decay that is as many times larger."""

    def __init__(self, params: Iterable[Any], *, lr: Positive = 1e-4, betas: tuple[Fraction, Fraction] = (0.9, 0.99),
                 weight_decay: NonNegative = 0.0):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            one, two = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"]
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(torch.lerp(m, p.grad, 1 - one).sign_(), alpha=group["lr"])
                m.lerp_(p.grad, 1 - two)
