"""Dirichlet draws over the ops of each edge (DrNAS, Chen et al. 2021, Sec. 3.1), differentiated along the sample's path."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.relaxations.base import Noise, TableRelaxation
from supernet.weights import EdgeWeights, Weights


def concentration(beta: Tensor) -> Tensor:
    """The parameters of the Dirichlet distribution, elu(beta) + 1 > 0 (Sec. 3.1)."""
    return F.elu(beta) + 1


class Dirichlet(TableRelaxation):
    """`weights[e] ~ Dirichlet(elu(beta[e]) + 1)` over the ops that the edge has; the mean is the concentration over its row's sum.

    A draw is normalised Gamma variables, each with its implicit path derivative (Figurnov et al. 2018), so that its noise is a seed and
    the same noise gives the same draw. betas start as `init_scale` times standard normal draws, so that concentrations start near 1.
    """

    def __init__(self, space: Any, generator: torch.Generator, *, init_scale: float = 1e-3):
        super().__init__(space, generator, init_scale=init_scale)

    def noise(self, generator: torch.Generator) -> Noise:
        """A seed a kind."""
        return {kind: torch.randint(2**62, (), generator=generator, device=generator.device) for kind in self.alpha}

    def weights(self, noise: Noise) -> EdgeWeights:
        found = {}
        for kind, beta in self.alpha.items():
            generator = torch.Generator(beta.device).manual_seed(int(noise[kind]))
            gammas = torch._standard_gamma(concentration(beta), generator=generator)
            # a Gamma variable of a small concentration may round to 0 in a whole row
            gammas = gammas.clamp_min(torch.finfo(gammas.dtype).tiny).masked_fill(self.absent(kind), 0.0)
            found[kind] = Weights(gammas / gammas.sum(-1, keepdim=True))
        return EdgeWeights(found)

    def mean(self) -> EdgeWeights:
        found = {}
        for kind, beta in self.alpha.items():
            own = concentration(beta).masked_fill(self.absent(kind), 0.0)
            found[kind] = Weights(own / own.sum(-1, keepdim=True))
        return EdgeWeights(found)
