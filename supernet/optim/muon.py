"""Muon: momentum whose matrices are made orthogonal before they are stepped along."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from supernet.ranges import Count, Fraction, NonNegative, Positive, ranged

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that is steepest at 0 among those that stay near 1 [Jordan 2024]


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of each matrix U S V^T of (..., m, n), by the quintic Newton-Schulz iteration (Jordan et al. 2024): singular values that
    are not tiny beside the Frobenius norm come within 0.68 to 1.13, and small ones grow 3.4-fold a step. In the precision that is given,
    where the published code takes bfloat16."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if wide else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if wide else x


def mixes_channels(p: Tensor) -> bool:
    """Whether it is the weight of a convolution in which every output reads several inputs: neither depthwise, nor a norm's or a bias, nor
    the matrix of a classifier or of a language model."""
    return p.dim() == 4 and p.shape[0] > 1 and p.shape[1] > 1


@ranged
class Muon(torch.optim.Optimizer):
    """`w <- w - lr sqrt(max(1, m / n)) O(g + momentum v)` for the weights of convolutions that mix channels, as matrices of m outputs by n
    inputs times window, `v <- momentum v + g`, O from `orthogonalised` (Jordan et al. 2024; `nesterov=false`: O(v)). All other weights take
    a step of Adam with `other_factor` times the learning rate. Both decay by `lr * weight_decay` of themselves, as in AdamW.

    PyTorch's Muon takes matrices alone, and leaves the other weights to a second optimizer.
    """

    def __init__(self, params: Iterable[Any], *, lr: Positive = 0.02, momentum: Fraction = 0.95, nesterov: bool = True,
                 weight_decay: NonNegative = 0.0, steps: Count = 5, other_factor: Positive = 0.15,
                 betas: tuple[Fraction, Fraction] = (0.9, 0.95), eps: Positive = 1e-8):
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "steps": steps,
                                  "other_factor": other_factor, "betas": tuple(betas), "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            for p in moving:
                rate = group["lr"] * (1.0 if mixes_channels(p) else group["other_factor"])
                p.mul_(1 - rate * group["weight_decay"])
            self._matrices([p for p in moving if mixes_channels(p)], group)
            for p in moving:
                if not mixes_channels(p):
                    self._adam(p, group)

    def _matrices(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Those of one shape are made orthogonal together."""
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        for same in by_shape.values():
            directions = []
            for p in same:
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                v = state["momentum_buffer"].mul_(group["momentum"]).add_(p.grad)
                directions.append((p.grad + group["momentum"] * v if group["nesterov"] else v).flatten(1))
            scale = max(1.0, directions[0].shape[0] / directions[0].shape[1]) ** 0.5
            for p, update in zip(same, orthogonalised(torch.stack(directions), group["steps"])):
                p.sub_(update.view_as(p), alpha=group["lr"] * scale)

    def _adam(self, p: Tensor, group: dict[str, Any]) -> None:
        state, (one, two) = self.state[p], group["betas"]
        if not state:
            state |= {"steps": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        state["steps"] += 1
        state["mean"].lerp_(p.grad, 1 - one)
        state["square"].mul_(two).addcmul_(p.grad, p.grad, value=1 - two)
        below = (state["square"] / (1 - two ** state["steps"])).sqrt_().add_(group["eps"])
        p.addcdiv_(state["mean"], below, value=-group["lr"] * group["other_factor"] / (1 - one ** state["steps"]))
