"""Hypergradients by the implicit function theorem: at a minimum w* of the training loss, d w* / d alpha = -H^-1 d_alpha d_w L_train with
H = d_w^2 L_train (iDARTS, Zhang et al. 2021, eq. 3; Lorraine et al. 2020)."""

import torch
from torch import Tensor

from ops.kernels import differentiable_twice
from supernet.hypergradients.base import Problem, Tensors, add_reduced, grad
from supernet.ranges import Count, NonNegative, Positive, Whole, ranged


@ranged
def neumann(problem: Problem, *, terms: Whole = 2, step: Positive = 0.01) -> Tensors:
    """`H^-1 v` as `step * sum over k = 0..terms of (I - step H)^k v`, which converges for 0 < step < 2 / largest eigenvalue of H (iDARTS,
    eq. 8, with the weights' learning rate as the step). terms=0 is first order with a scaled correction.

    Raises ValueError for terms below 0 or a step that is not positive.
    """
    direct, v = _at_weights(problem)
    training = _Training(problem)
    p, total = list(v), list(v)
    for _ in range(terms):
        p = torch._foreach_sub(p, torch._foreach_mul(list(training.hessian(p)), step))
        total = torch._foreach_add(total, p)
    return add_reduced(problem, direct, training.mixed([-step * t for t in total]))


@ranged
def conjugate_gradient(problem: Problem, *, iterations: Count = 5, damping: NonNegative = 0.1,
                       tolerance: NonNegative = 1e-10) -> Tensors:
    """`(H + damping I)^-1 v` by at most `iterations` of the conjugate gradient method (Pedregosa 2016; Rajeswaran et al. 2019). It stands
    still where the residual is small or a direction has no positive curvature (H is definite at a minimum, not on the way there)."""
    direct, v = _at_weights(problem)
    training = _Training(problem)
    x = [torch.zeros_like(t) for t in v]
    r, p = list(v), list(v)
    square = start = _dot(r, r)
    for _ in range(iterations):
        hp = torch._foreach_add(list(training.hessian(p)), torch._foreach_mul(p, damping))
        curvature = _dot(p, hp)
        goes_on = (curvature > 0) & (square > tolerance * start)
        size = torch.where(goes_on, square / torch.where(goes_on, curvature, 1.0), 0.0)  # a device scalar: nothing is read back
        x = torch._foreach_add(x, torch._foreach_mul(p, size))
        r = torch._foreach_sub(r, torch._foreach_mul(hp, size))
        now = _dot(r, r)
        ratio = torch.where(goes_on, now / square.clamp_min(torch.finfo(square.dtype).tiny), 0.0)
        p = torch._foreach_add(r, torch._foreach_mul(p, ratio))
        square = torch.where(goes_on, now, square)
    return add_reduced(problem, direct, training.mixed(torch._foreach_neg(x)))


def _at_weights(problem: Problem) -> tuple[Tensors, Tensors]:
    """d val_loss / d alpha and d val_loss / d w at the weights as they are."""
    both = grad(problem.val_loss(), (*problem.alpha, *problem.w))
    return both[: len(problem.alpha)], problem.reduce(both[len(problem.alpha):])


class _Training:
    """Products with the second derivatives of the training loss, from one graph."""

    def __init__(self, problem: Problem):
        self.problem = problem
        with differentiable_twice():
            self.gradient = grad(problem.train_loss(), problem.w, create_graph=True)

    def hessian(self, v: list[Tensor]) -> Tensors:
        """d_w^2 L_train v."""
        return self.problem.reduce(self._along(v, self.problem.w))

    def mixed(self, v: list[Tensor]) -> Tensors:
        """d_alpha <d_w L_train, v>."""
        return self._along(v, self.problem.alpha)

    def _along(self, v: list[Tensor], inputs: Tensors) -> Tensors:
        used = [(g, t) for g, t in zip(self.gradient, v) if g.requires_grad]
        if not used:
            return tuple(torch.zeros_like(p) for p in inputs)
        return grad(sum((g * t).sum() for g, t in used), inputs, retain_graph=True)


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b)]).sum()
