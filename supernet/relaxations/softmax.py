"""Softmax over the ops of each edge (DARTS, Liu et al. 2019, eq. 2)."""

from torch import Tensor

from supernet.relaxations.base import TableRelaxation


class Softmax(TableRelaxation):
    """`weights[e, o] = exp(alpha[e, o]) / sum over o' of exp(alpha[e, o'])` over the ops that the edge has. No noise."""

    static = True

    def op_weights(self, kind: str) -> Tensor:
        return self.logits(kind).softmax(-1)
