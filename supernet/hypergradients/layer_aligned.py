"""Gradients of the cells' own alphas, brought into line (Lambda-DARTS, Movahedi et al. 2023, Sec. 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.hypergradients.base import Hypergradient, Problem, Tensors, grad


def alignment(gradients: Tensor) -> Tensor:
    """The layer alignment of a kind: the mean cosine over all pairs of the L cells' gradients, (L, E, O) -> scalar in [-1, 1]."""
    unit = F.normalize(gradients.flatten(1), dim=1)
    cells = len(unit)
    return (unit.sum(0).square().sum() - unit.square().sum()) / (cells * (cells - 1))


def layer_aligned(problem: Problem, *, inner: Hypergradient, weight: float = 0.25, radius: float = 1e-4) -> Tensors:
    """`inner`'s hypergradient minus `weight * progress` (which grows linearly over the epochs [official scripts]) times d/d alpha of the
    mean over kinds of `alignment` of g_l = d val_loss / d alpha_l, so that alpha ascends on it.

    With u_l = d alignment / d g_l, that derivative is the sum over l of (d g_l / d alpha)^T u_l: the derivative along u of the gradient
    with respect to the shared alpha, here by a central difference at alpha_l +- eps u_l, eps = radius / |u| (the paper's eq. 11 and
    official code, epsilon_0). Kinds with one cell have nothing to align.
    """
    direct = inner(problem)
    if weight * problem.progress == 0:
        return direct
    layered = problem.layered()
    own = {kind: alpha.detach().expand(layered.layers[kind], *alpha.shape).clone().requires_grad_()
           for kind, alpha in layered.alphas.items() if layered.layers[kind] > 1}
    if not own:
        return direct
    fixed = {kind: alpha.detach().expand(layered.layers[kind], *alpha.shape) for kind, alpha in layered.alphas.items() if kind not in own}
    gradients = problem.reduce(grad(layered.loss(own | fixed), tuple(own.values())))
    leaves = [g.detach().requires_grad_() for g in gradients]
    u = torch.autograd.grad(torch.stack([alignment(g) for g in leaves]).mean(), leaves)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(u))))
    eps = radius / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    directions = dict(zip(own, u))

    def slope(sign: float) -> Tensors:
        moved = {kind: alpha.expand(layered.layers[kind], *alpha.shape) + (sign * eps * directions[kind] if kind in directions else 0.0)
                 for kind, alpha in layered.alphas.items()}
        return grad(layered.loss(moved), problem.alpha)

    change = torch._foreach_sub(list(slope(1.0)), list(slope(-1.0)))
    change = problem.reduce(tuple(torch._foreach_mul(change, 0.5 / eps)))
    return tuple(torch._foreach_sub(list(direct), torch._foreach_mul(list(change), weight * problem.progress)))


