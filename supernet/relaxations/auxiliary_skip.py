"""The weight of the auxiliary skip connections (DARTS-, Chu et al. 2021, eq. 5)."""

import torch
from torch import Tensor

from supernet.ranges import Positive, ranged
from supernet.relaxations.base import Noise, Relaxation, Wrapper, linear
from supernet.space import Space
from supernet.weights import EdgeWeights, replaced


@ranged
class AuxiliarySkip(Wrapper):
    """Every edge adds `beta` times a skip connection of its own to what its ops give: beta falls linearly from `beta` to 0, which it is in
    the last epoch, where those connections do not run any more. They are no candidates: no alpha stands for them, nothing can
    select them, and the final network has none. Needs a supernet built with `network={auxiliary_skip:true}`.
    """

    keeps_static = True

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, beta: Positive = 1.0):
        super().__init__(inner)
        self.first, self.beta = beta, beta

    def anneal(self, progress: float, epoch: int) -> None:
        super().anneal(progress, epoch)
        self.beta = linear(self.first, 0.0, progress)

    def weights(self, noise: Noise) -> EdgeWeights:
        return self._with_skip(self.inner.weights(noise))

    def evaluated(self, generator: torch.Generator) -> EdgeWeights:
        return self._with_skip(self.inner.evaluated(generator))

    def _with_skip(self, weights: EdgeWeights) -> EdgeWeights:
        if self.beta == 0:
            return weights

        def beta(like: Tensor) -> Tensor:
            return torch.full((), self.beta, dtype=like.dtype, device=like.device)

        return replaced(weights, lambda kind, w: {"skip": beta(w.ops)})
