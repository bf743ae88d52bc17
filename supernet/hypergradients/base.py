"""The bilevel problem as a hypergradient sees it."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.hypergradients.joined import Joined

Tensors = tuple[Tensor, ...]


class Score(NamedTuple):
    """What a sampled architecture reached on the validation batch, a share in [0, 1], without gradients; the log-probability of the draw,
    and the entropy (nats) of the distributions that it was drawn from, both differentiable in alpha."""

    accuracy: Tensor
    log_prob: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Layered:
    """The validation loss as a function of alphas that each cell has for itself.

    alphas: by kind (E, O), the shared ones. layers: by kind, the number of cells. `loss(own)` takes (L, E, O) tables by kind.
    """

    alphas: Mapping[str, Tensor]
    layers: Mapping[str, int]
    loss: Callable[[Mapping[str, Tensor]], Tensor]


def _identity(grads: Tensors) -> Tensors:
    return grads


def _missing() -> Tensor:
    raise ValueError("this problem lacks what the hypergradient asks for")


@dataclass(frozen=True)
class Problem:
    """min over alpha of val_loss(w*(alpha), alpha), where w* minimises train_loss(., alpha).

    `train_loss` and `val_loss` (with penalties) read the current values of `w` and `alpha`, under one frozen draw and batch.
    `virtual_step(grads)` is the weights after one step of the w optimizer with these gradients, differentiable in them, with nothing
    changed. `reduce` averages gradients over processes (identity on one).

    Further: `joint_loss`, the training batch's loss with penalties; `score`, of a draw with a log-probability; `again`, the problem on the
    same batches under a new draw; `layered`, the same draw with alphas of each cell's own; `progress`, 0 in the first epoch and 1 in the
    last; `memory`, what a hypergradient keeps from step to step; `linear_step(joined, w)`, the virtual step of `w`, given as `joined` has
    them, as numbers like them and the factor of the gradients that is added, or None where it is no such step for all weights alike.
    """

    w: Tensors
    alpha: Tensors
    train_loss: Callable[[], Tensor]
    val_loss: Callable[[], Tensor]
    virtual_step: Callable[[Tensors], Tensors]
    reduce: Callable[[Tensors], Tensors] = _identity
    joint_loss: Callable[[], Tensor] = _missing
    score: Callable[[], Score] = _missing
    again: Callable[[], "Problem"] = _missing
    layered: Callable[[], Layered] = _missing
    progress: float = 1.0
    memory: dict[str, Tensor] = field(default_factory=dict)
    linear_step: Callable[[Joined, list[Tensor]], "tuple[list[Tensor], float | Tensor] | None"] = lambda joined, w: None


Hypergradient = Callable[[Problem], Tensors]
_STATIC: set[Hypergradient] = set()


def static(hypergradient: Hypergradient) -> Hypergradient:
    """Marks one that is the same operations on the same tensors at every step, reads nothing back, draws nothing anew and differentiates
    once, so that a CUDA graph can hold it."""
    _STATIC.add(hypergradient)
    return hypergradient


def is_static(hypergradient: Hypergradient) -> bool:
    """Whether one, with options or without, was marked `static`."""
    return _plain(hypergradient) in _STATIC


def name_of(hypergradient: Hypergradient) -> str:
    return getattr(_plain(hypergradient), "__name__", type(hypergradient).__name__)


def _plain(hypergradient: Hypergradient) -> Hypergradient:
    return hypergradient.func if isinstance(hypergradient, functools.partial) else hypergradient


def grad(loss: Tensor, inputs: Sequence[Tensor], **options: bool) -> Tensors:
    """Gradients of `loss`, zero where an input does not take part (frozen weights; a drawn cell that no op connects)."""
    if not loss.requires_grad:
        return tuple(torch.zeros_like(p) for p in inputs)
    if all(p.requires_grad for p in inputs):
        return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True, **options)
    trained = [p for p in inputs if p.requires_grad]
    found = iter(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True, **options) if trained else ())
    return tuple(next(found) if p.requires_grad else torch.zeros_like(p) for p in inputs)


@contextmanager
def written(w: Tensors, joined: Joined, kept: Sequence[Tensor]) -> Iterator[Callable[[Sequence[Tensor]], None]]:
    """Within, the tensors `w` can be written to, in a call with values as `joined` has them; afterwards they hold what they held before,
    `kept`, bit for bit."""
    try:
        yield lambda values: joined.put(values, w)
    finally:
        joined.put(kept, w)


@contextmanager
def weights_at(w: Tensors, values: Sequence[Tensor]) -> Iterator[None]:
    """Within, the tensors `w` hold `values`; afterwards what they held before, bit for bit."""
    joined = Joined(w)
    with written(w, joined, joined.copied(w)) as write:
        write(joined.of(values))
        yield


@contextmanager
def constant(parameters: Tensors) -> Iterator[None]:
    """Within, no gradients flow to them: a loss computed here stores nothing for them."""
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def at_virtual_step(problem: Problem, joined: Joined, start: list[Tensor], write: Callable[[Sequence[Tensor]], None]
                    ) -> tuple[Tensors, list[Tensor]]:
    """With w' the weights after a virtual step: d val_loss(w', alpha) / d alpha at fixed w', and the direction u = (d w' /
    d g)^T d val_loss / d w', where g is the gradient of train_loss. For SGD u = -xi * d val_loss / d w'.

    start: the weights, as `joined` has them, and the direction. write: gives the weights other values, in which it leaves them."""
    with constant(problem.alpha):
        g = problem.reduce(grad(problem.train_loss(), problem.w))
    step = problem.linear_step(joined, start)
    if step is None:
        g = tuple(t.detach().requires_grad_() for t in g)
        stepped = problem.virtual_step(g)
        write(joined.of(stepped))
    else:
        base, factor = step
        write(torch._foreach_add(base, torch._foreach_mul(joined.of(g), factor)))
    both = grad(problem.val_loss(), (*problem.alpha, *problem.w))
    direct, v = both[: len(problem.alpha)], problem.reduce(both[len(problem.alpha):])
    if step is None:
        return direct, joined.of(torch.autograd.grad(stepped, g, v))
    return direct, torch._foreach_mul(joined.of(v), factor)


def add_reduced(problem: Problem, direct: Tensors, indirect: Tensors) -> Tensors:
    """The sum of both parts of a hypergradient, averaged over processes."""
    return problem.reduce(tuple(torch._foreach_add(list(direct), list(indirect))))
