"""How the weights go down their gradients, clipped: one step of their optimizer."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Descent(Protocol):
    """One step of `optimizer` with the gradients of `w`, all of its parameters, which are first scaled so that their norm as one vector
    is at most `clip_norm`; None leaves them. Afterwards the gradients are what the step was taken with."""

    def __call__(self, optimizer: torch.optim.Optimizer, w: Sequence[Tensor], clip_norm: float | None) -> None: ...


def descend(optimizer: torch.optim.Optimizer, w: Sequence[Tensor], clip_norm: float | None) -> None:
    """As PyTorch does it, over a list of tensors."""
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(w, clip_norm)
    optimizer.step()
