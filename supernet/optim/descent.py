"""How the weights go down their gradients, clipped: one step of their optimizer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

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
    with _in_one_call(optimizer):
        optimizer.step()


@contextmanager
def _in_one_call(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, SGD on a CPU takes the steps of a group in one call of PyTorch's instead of four for each of its tensors, of which a supernet
    has more than a thousand: a fifth of the time. Where a group says `foreach` or `fused`, it stays so. It rounds where the processor's
    multiply-and-add does, which in the last few numbers of a tensor of odd size is not as the four calls do."""
    groups = [group for group in optimizer.param_groups if type(optimizer) is torch.optim.SGD and _can_fuse(optimizer, group)]
    for group in groups:
        group["fused"] = True
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = None


def _can_fuse(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """The call walks through a weight, its gradient and its momentum as they lie in memory, and takes no first steps together with later
    ones, and checks neither."""
    if group["fused"] is not None or group["foreach"] is not None or group["differentiable"]:
        return False
    held = [p for p in group["params"] if p.grad is not None]
    momenta = [optimizer.state[p].get("momentum_buffer") if p in optimizer.state else None for p in held] if group["momentum"] else []
    first = [momentum is None for momentum in momenta]
    if any(first) and not all(first):
        return False
    return all(_alike(p, p.grad) for p in held) and all(_alike(p, m) for p, m in zip(held, momenta) if m is not None)


def _alike(p: Tensor, other: Tensor) -> bool:
    """Whether both hold numbers of one kind on the CPU, in the same order and without gaps."""
    return (p.is_cpu and other.is_cpu and p.dtype is other.dtype and p.is_floating_point() and other.layout is torch.strided
            and (p.is_contiguous() and other.is_contiguous()
                 or p.is_contiguous(memory_format=torch.channels_last) and other.is_contiguous(memory_format=torch.channels_last)))
