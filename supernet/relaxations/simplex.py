"""Op weights that are the parameters themselves, kept on the simplex by the optimizer (GAEA, Li et al. 2021, Sec. 3)."""

from typing import Any

import torch
from torch import Tensor

from supernet.relaxations.base import TableRelaxation


class Simplex(TableRelaxation):
    """`weights[e] = theta[e]`, each row on the simplex; needs `optimizer@alpha_optimizer=exponentiated_gradient`, whose step keeps
    it there. Rows start uniform over the ops that the edge has; entries of absent ops are 0 and stay so."""

    static = True
    on_simplex = True

    def __init__(self, space: Any, generator: torch.Generator):
        super().__init__(space, generator, init_scale=0.0)
        with torch.no_grad():
            for kind, theta in self.alpha.items():
                theta.copy_(self.logits(kind).softmax(-1))

    @torch.no_grad()
    def after_inherit(self) -> None:
        """Rows are brought back to sum 1 over the ops that are left, uniform where these have no weight at all."""
        for kind, theta in self.alpha.items():
            own = theta.masked_fill(self.absent(kind), 0.0)
            total = own.sum(-1, keepdim=True)
            uniform = torch.zeros_like(theta).masked_fill(self.absent(kind), -torch.inf).softmax(-1)
            theta.copy_(torch.where(total > 0, own / total, uniform))

    def op_weights(self, kind: str) -> Tensor:
        return self.alpha[kind].masked_fill(self.absent(kind), 0.0)
