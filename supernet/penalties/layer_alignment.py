"""Gradients of the cells' own edge weights, brought into line (Lambda-DARTS, Movahedi et al. 2023, Sec. 4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.hypergradients.base import Tensors, constant, grad
from supernet.penalties.base import WeightPenalty, WeightProblem
from supernet.ranges import NonNegative, Positive, ranged
from supernet.space import Space
from supernet.weights import replaced


def alignment(gradients: Tensor) -> Tensor:
    """The layer alignment of a kind: the mean cosine over all pairs of the L cells' gradients, (L, E, O) -> scalar in [-1, 1]."""
    unit = F.normalize(gradients.flatten(1), dim=1)
    cells = len(unit)
    return (unit.sum(0).square().sum() - unit.square().sum()) / (cells * (cells - 1))


@ranged
class LayerAlignment(WeightPenalty):
    """Makes the network's weights descend on `L_train - weight * progress * Lambda`, Lambda the mean over `kinds` of `alignment` of g_l = d
    L_train / d (edge weights of cell l). The coefficient grows linearly over the epochs [official code].

    With u_l = d Lambda / d g_l, the gradient of Lambda in the weights is the derivative of d L_train / d w along u, here by a central
    difference at the edge weights +- eps u_l, eps = radius / |u| [official code, get_perturbations and get_reg_grads, corr]. It costs one
    gradient of the edge weights and two of the weights; the official code takes the first from the weights' own backward pass.

    kinds: of cells; null for all that have more than one cell [official code: the normal cells].
    """

    def __init__(self, space: Space, *, weight: NonNegative = 0.25, radius: Positive = 1e-3,
                 kinds: Sequence[str] | None = None):
        if kinds is not None and not set(kinds) <= set(space.cells):
            raise ValueError(f"w_penalty.layer_alignment needs kinds of {sorted(space.cells)}, got {kinds}")
        self.weight, self.radius, self.progress = weight, radius, 0.0
        self.kinds = sorted(space.cells if kinds is None else kinds)

    def anneal(self, progress: float) -> None:
        self.progress = progress

    def __call__(self, problem: WeightProblem) -> Tensors | None:
        kinds = [kind for kind in self.kinds if problem.layers[kind] > 1]
        if self.weight * self.progress == 0 or not kinds:
            return None
        own = {kind: problem.draw[kind].ops.detach().expand(problem.layers[kind], *problem.draw[kind].ops.shape[-2:]) for kind in kinds}

        def loss(tables: dict[str, Tensor]) -> Tensor:
            return problem.loss(replaced(problem.draw, lambda kind, w: {"ops": tables[kind]} if kind in tables else {}))

        with constant(problem.w):
            leaves = {kind: table.clone().requires_grad_() for kind, table in own.items()}
            slopes = problem.reduce(grad(loss(leaves), tuple(leaves.values())))
        slopes = tuple(g.detach().requires_grad_() for g in slopes)
        u = torch.autograd.grad(torch.stack([alignment(g) for g in slopes]).mean(), slopes)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(u))))
        eps = self.radius / norm.clamp_min(torch.finfo(norm.dtype).tiny)  # a device tensor: nothing is read back
        ahead, behind = (grad(loss({kind: own[kind] + sign * eps * step for kind, step in zip(own, u)}), problem.w) for sign in (1, -1))
        return tuple(torch._foreach_mul(torch._foreach_sub(list(behind), list(ahead)), self.weight * self.progress * 0.5 / eps))
