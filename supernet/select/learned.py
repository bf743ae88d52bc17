"""Architectures of what a relaxation has learned: the strongest one, and others drawn."""

import torch

from supernet.genotype import Genotype
from supernet.relaxations.base import Relaxation
from supernet.select.argmax import argmax
from supernet.space import Space
from supernet.weights import replaced


@torch.no_grad()
def learned(space: Space, relaxation: Relaxation, n: int, generator: torch.Generator) -> list[Genotype]:
    """`n` architectures, some of them perhaps equal: `argmax` of the mean weights, then that of draws. A relaxation that draws nothing is
    drawn from by the Gumbel-max trick on its mean weights, so that an edge has an op with the probability that its weight says."""
    mean = relaxation.mean()
    found = [argmax(space, mean)]
    draws = bool(relaxation.noise(generator))

    def disturbed(table: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(table.shape, generator=generator, device=generator.device, dtype=torch.float64)
        gumbel = -(-uniform.clamp(1e-20, 1 - 1e-16).log()).log()
        return (table.double().clamp_min(1e-30).log() + gumbel.to(table.device)).exp().to(table.dtype)

    while len(found) < n:
        weights = relaxation(generator) if draws else replaced(mean, lambda kind, w: {"ops": disturbed(w.ops)})
        found.append(argmax(space, weights))
    return found
