"""Architectures drawn uniformly from the space, without parameters: the weights are trained for all of them alike (random search
with weight sharing, Li & Talwalkar 2019, Sec. 3.3; single path one-shot, Guo et al. 2020, Sec. 3.2)."""

import random

import torch

from supernet.relaxations.base import Noise, Relaxation
from supernet.space import Space
from supernet.weights import EdgeWeights, Weights, one_hot


class Uniform(Relaxation):
    """A draw is `one_hot(space.sample())`, so that a DARTS cell runs two edges a node; there is nothing to learn.

    `mean` gives each op the share of genotypes that hold it, assumed independent of the other edges: it is drawn and logged, but
    no network of the space behaves like it, and the supernet is evaluated under fresh draws, one a batch.
    """

    def __init__(self, space: Space, generator: torch.Generator):
        super().__init__()
        self.space = space
        for kind, spec in space.cells.items():
            table = torch.tensor(spec.selectable, dtype=torch.float32)
            for i, node in enumerate(spec.nodes):
                rows = spec.incoming(node)
                table[rows] *= sum(spec.keep[i]) / 2 / table[rows].sum().clamp(min=1)
            self.register_buffer(f"share_{kind}", table, persistent=False)

    def noise(self, generator: torch.Generator) -> Noise:
        """One integer, from which the genotype is drawn."""
        return {"seed": torch.randint(2**62, (), generator=generator, device=generator.device)}

    def weights(self, noise: Noise) -> EdgeWeights:
        like = next(self.buffers())
        return one_hot(self.space, self.space.sample(random.Random(int(noise["seed"]))), dtype=like.dtype, device=like.device)

    def mean(self) -> EdgeWeights:
        return EdgeWeights({kind: Weights(self.get_buffer(f"share_{kind}")) for kind in self.space.cells})

    def evaluated(self, generator: torch.Generator) -> EdgeWeights:
        return self(generator)
