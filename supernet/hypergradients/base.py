"""The bilevel problem as a hypergradient sees it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


def _identity(grads: Tensors) -> Tensors:
    return grads


@dataclass(frozen=True)
class Problem:
    """min over alpha of val_loss(w*(alpha), alpha), where w* minimises train_loss(., alpha).

    `train_loss` and `val_loss` read the current values of `w` and `alpha`, under one frozen draw and batch. `virtual_step(grads)`
    is the weights after one step of the w optimizer with these gradients, differentiable in them, with nothing changed.
    `reduce` averages gradients over processes (identity on one).
    """

    w: Tensors
    alpha: Tensors
    train_loss: Callable[[], Tensor]
    val_loss: Callable[[], Tensor]
    virtual_step: Callable[[Tensors], Tensors]
    reduce: Callable[[Tensors], Tensors] = _identity


Hypergradient = Callable[[Problem], Tensors]


def grad(loss: Tensor, inputs: Sequence[Tensor], **options: bool) -> Tensors:
    """Gradients of `loss`, zero where an input does not take part."""
    return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True, **options)


@contextmanager
def weights_at(w: Tensors, values: Sequence[Tensor]) -> Iterator[None]:
    """Within, the tensors `w` hold `values`; afterwards what they held before, bit for bit."""
    kept = [p.detach().clone() for p in w]
    try:
        with torch.no_grad():
            torch._foreach_copy_(list(w), list(values))
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(w), kept)


@contextmanager
def constant(w: Tensors) -> Iterator[None]:
    """Within, no gradients flow to `w`: a loss computed here stores nothing for them."""
    trained = [p for p in w if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def at_virtual_step(problem: Problem) -> tuple[Tensors, Tensors]:
    """With w' the weights after a virtual step: d val_loss(w', alpha) / d alpha at fixed w', and the direction u = (d w' /
    d g)^T d val_loss / d w', where g is the gradient of train_loss. For SGD u = -xi * d val_loss / d w'."""
    g = problem.reduce(grad(problem.train_loss(), problem.w))
    g = tuple(t.detach().requires_grad_() for t in g)
    stepped = problem.virtual_step(g)
    with weights_at(problem.w, [t.detach() for t in stepped]):
        both = grad(problem.val_loss(), (*problem.alpha, *problem.w))
    direct, v = both[: len(problem.alpha)], problem.reduce(both[len(problem.alpha):])
    return direct, torch.autograd.grad(stepped, g, v)


def add_reduced(problem: Problem, direct: Tensors, indirect: Tensors) -> Tensors:
    """The sum of both parts of a hypergradient, averaged over processes."""
    return problem.reduce(tuple(torch._foreach_add(list(direct), list(indirect))))
