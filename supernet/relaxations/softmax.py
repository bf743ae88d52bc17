"""Softmax over the ops of each edge (DARTS, Liu et al. 2019, eq. 2)."""

import torch

from supernet.relaxations.base import Noise, Relaxation, absent, make_alpha
from supernet.space import Space
from supernet.weights import EdgeWeights, Weights


class Softmax(Relaxation):
    """`weights[e, o] = exp(alpha[e, o]) / sum over o' of exp(alpha[e, o'])` over the ops that the edge has. No noise.

    init_scale: alphas start as `init_scale` times standard normal draws; 1e-3 in the official code.
    """

    def __init__(self, space: Space, generator: torch.Generator, *, init_scale: float = 1e-3):
        super().__init__()
        self.alpha = make_alpha(space, init_scale, generator)
        for kind, mask in absent(space).items():
            self.register_buffer(f"absent_{kind}", mask, persistent=False)

    def noise(self, generator: torch.Generator) -> Noise:
        return {}

    def weights(self, noise: Noise) -> EdgeWeights:
        return EdgeWeights({kind: Weights(alpha.masked_fill(self.get_buffer(f"absent_{kind}"), -torch.inf).softmax(-1))
                            for kind, alpha in self.alpha.items()})

    def mean(self) -> EdgeWeights:
        return self.weights({})
