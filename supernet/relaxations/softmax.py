"""Softmax over the ops of each edge (DARTS, Liu et al. 2019, eq. 2)."""

from supernet.relaxations.base import Noise, TableRelaxation
from supernet.weights import EdgeWeights


class Softmax(TableRelaxation):
    """`weights[e, o] = exp(alpha[e, o]) / sum over o' of exp(alpha[e, o'])` over the ops that the edge has. No noise."""

    static = True

    def weights(self, noise: Noise) -> EdgeWeights:
        return self.mean()
