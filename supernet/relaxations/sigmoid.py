"""A sigmoid for each op, without competition between the ops of an edge (FairDARTS, Chu et al. 2020, eq. 3)."""

import torch
from torch import Tensor

from supernet.relaxations.base import TableRelaxation


class Sigmoid(TableRelaxation):
    """`weights[e, o] = sigmoid(alpha[e, o])`, each in (0, 1) on its own; 0 where an edge does not have the op. No noise.

    Rows do not sum to 1: pick by `select=threshold`, and add `penalty=zero_one`, which drives the weights to 0 or 1.
    """

    static = True

    def op_weights(self, kind: str) -> Tensor:
        return torch.sigmoid(self.logits(kind))
