"""What the bilevel step asks of the optimizer of the weights: the step it would take."""

from collections.abc import Sequence

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
