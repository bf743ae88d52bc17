"""What a relaxation is: architecture parameters, and how a draw of edge weights comes from them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from supernet.space import Space
from supernet.weights import EdgeWeights

Noise = Mapping[str, Tensor]


class Relaxation(nn.Module, ABC):
    """Owns the architecture parameters; a network only ever sees the `EdgeWeights` drawn from them.

    A draw has two halves, so that a finite difference can subtract two losses under the same one:
    `noise = relaxation.noise(generator)`, then `relaxation.weights(noise)`; calling the relaxation does both.
    """

    @abstractmethod
    def noise(self, generator: torch.Generator) -> Noise:
        """What is random in a draw; empty where nothing is."""

    @abstractmethod
    def weights(self, noise: Noise) -> EdgeWeights:
        """Edge weights, differentiable in the parameters."""

    @abstractmethod
    def mean(self) -> EdgeWeights:
        """Edge weights without noise: what is evaluated, drawn and selected from."""

    def evaluated(self, generator: torch.Generator) -> EdgeWeights:
        """What the supernet is evaluated under, a batch at a time: the mean, unless that is no network of the space's kind."""
        return self.mean()

    def forward(self, generator: torch.Generator) -> EdgeWeights:
        return self.weights(self.noise(generator))

    def anneal(self, progress: float) -> None:
        """Called before each epoch with 0 in the first and exactly 1 in the last."""

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: Callable[[EdgeWeights], Tensor]) -> EdgeWeights:
        """What the network weights are trained under: the draw itself, unless a method perturbs it."""
        return draw

    def after_step(self) -> None:
        """Called after each alpha update."""


def make_alpha(space: Space, scale: float, generator: torch.Generator) -> nn.ParameterDict:
    """One (E, O) table of `scale` times standard normal draws for each kind of cell."""
    return nn.ParameterDict({kind: nn.Parameter(scale * torch.randn(len(spec.edges), len(spec.ops), generator=generator))
                             for kind, spec in sorted(space.cells.items())})


def absent(space: Space) -> dict[str, Tensor]:
    """By kind, a boolean (E, O): True where an edge does not have the op."""
    return {kind: ~torch.tensor(spec.present) for kind, spec in space.cells.items()}


def entropies(weights: EdgeWeights) -> dict[str, Tensor]:
    """By kind, the mean over edges of the entropy (nats) of each edge's op weights, taken as probabilities."""
    return {kind: torch.special.entr(w.ops).sum(-1).mean() for kind, w in weights.items()}
