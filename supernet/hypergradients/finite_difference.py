"""The published second order of DARTS: the Hessian product by a central difference (Liu et al. 2019, eq. 7 and 8)."""

import torch

from supernet.hypergradients.base import Problem, Tensors, add_reduced, at_virtual_step, constant, grad, static, written
from supernet.hypergradients.joined import Joined
from supernet.ranges import Positive, ranged


@static
@ranged
def finite_difference(problem: Problem, *, radius: Positive = 1e-2) -> Tensors:
    """`d_alpha L_val(w', alpha) - xi * (d_alpha L_train(w+, alpha) - d_alpha L_train(w-, alpha)) / (2 eps)`.

    w' is the weights after a virtual step (momentum and weight decay included), w+- = w +- eps * d_w' L_val(w', alpha) around
    the weights w themselves, eps = radius / ||d_w' L_val||. Written with the direction u = -xi * d_w' L_val the term is the
    derivative of d_alpha L_train along u, so the same code serves every optimizer with a differentiable step.
    Raises ValueError for a radius that is not positive.
    """
    joined = Joined(problem.w)
    start = joined.copied(problem.w)
    with written(problem.w, joined, start) as write:
        direct, u = at_virtual_step(problem, joined, start, write)
        norm = joined.norm(u)
        eps = radius / norm.clamp_min(torch.finfo(norm.dtype).tiny)  # a device tensor: nothing is read back
        step = torch._foreach_mul(u, eps)

        def slope(values: list[torch.Tensor]) -> Tensors:
            write(values)
            with constant(problem.w):
                return grad(problem.train_loss(), problem.alpha)

        ahead, behind = slope(torch._foreach_add(start, step)), slope(torch._foreach_sub(start, step))
    product = torch._foreach_mul(torch._foreach_sub(list(ahead), list(behind)), 0.5 / eps)
    return add_reduced(problem, direct, tuple(product))
