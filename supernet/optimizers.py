"""What the bilevel step asks of the optimizer of the weights: the step it would take. And mirror descent on the simplex."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def virtual_step(optimizer: torch.optim.Optimizer, w: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The values of `w` after `optimizer.step()` with these gradients, differentiable in them; nothing is changed.

    Includes learning rate, weight decay, momentum (with the buffers as they stand), dampening and Nesterov. Gradient clipping
    is left out, as in the official DARTS code. Raises ValueError for an optimizer other than SGD.
    """
    if type(optimizer) is not torch.optim.SGD:
        raise ValueError(f"a second-order hypergradient needs w_optimizer=sgd, got {type(optimizer).__name__}")
    gradient = dict(zip(w, grads))
    stepped = {}
    for group in optimizer.param_groups:
        for p in (p for p in group["params"] if p in gradient):
            value = p.detach()
            d = gradient[p] + group["weight_decay"] * value
            buffer = optimizer.state.get(p, {}).get("momentum_buffer")
            if group["momentum"]:
                moving = d if buffer is None else group["momentum"] * buffer + (1 - group["dampening"]) * d
                d = d + group["momentum"] * moving if group["nesterov"] else moving
            stepped[p] = value - group["lr"] * d
    return tuple(stepped[p] for p in w)


class ExponentiatedGradient(torch.optim.Optimizer):
    """Mirror descent with the entropy as its mirror map: `theta <- theta * exp(-lr * gradient)`, each row (the last dimension) brought
    back to sum 1 (GAEA, Li et al. 2021, Sec. 3.1, eq. 4). Zeros stay zeros. No weight decay: rows are on the simplex. """

    def __init__(self, params: Iterable[Tensor], *, lr: float = 0.1, weight_decay: float = 0.0):
        if lr <= 0:
            raise ValueError(f"alpha_optimizer.lr must be positive, got {lr}")
        if weight_decay:
            raise ValueError(f"exponentiated gradients have no weight decay: pass alpha_optimizer.weight_decay=0, got {weight_decay}")
        super().__init__(params, {"lr": lr})
        for group in self.param_groups:
            for p in group["params"]:
                if bool((p < 0).any()) or not torch.allclose(p.sum(-1), torch.ones_like(p.sum(-1)), atol=1e-5):
                    raise ValueError("exponentiated gradients need parameters whose rows lie on the simplex: relaxation=simplex, and "
                                     "wrapper.edge_normalised.form=simplex")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    # multiplied by a factor that the division takes out, so that no exponential overflows
                    exponent = -group["lr"] * p.grad
                    p.mul_((exponent - exponent.amax(-1, keepdim=True)).exp())
                    p.div_(p.sum(-1, keepdim=True))
