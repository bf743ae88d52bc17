"""Draws of one op an edge with a second-order straight-through gradient (ReinMax, Liu et al. 2023, Algorithm 2)."""

from typing import Annotated, Any

import torch

from supernet.ranges import NonNegative, Range, ranged
from supernet.relaxations.base import Noise, SoftmaxDraws, gumbel
from supernet.weights import EdgeWeights, Weights


@ranged
class ReinMax(SoftmaxDraws):
    """A draw D is one-hot with probabilities p = softmax(alpha). Its gradient is that of 2 q - p / 2, where q is the softmax whose
    value is (D + softmax(alpha / temperature)) / 2, moved by alpha: Heun's method, exact where the loss is quadratic in the weights
    (Theorem 3.1; at temperature 1), where straight-through is exact only where it is linear.

    Unlike GDAS all ops run: the estimator needs the gradient of undrawn weights.
    """

    static = True

    def __init__(self, space: Any, generator: torch.Generator, *, init_scale: NonNegative = 1e-3,
                 temperature: Annotated[float, Range(1)] = 1.0):
        super().__init__(space, generator, init_scale=init_scale)
        self.temperature = temperature

    def noise(self, generator: torch.Generator) -> Noise:
        return {kind: gumbel(alpha, generator) for kind, alpha in self.alpha.items()}

    def weights(self, noise: Noise) -> EdgeWeights:
        found = {}
        for kind in self.alpha:
            logits = self.logits(kind)
            here = ~self.absent(kind)
            hard = torch.zeros_like(logits).scatter(-1, (logits + noise[kind]).argmax(-1, keepdim=True), 1.0)
            p = logits.softmax(-1)
            middle = ((hard + (logits / self.temperature).softmax(-1)) / 2).detach().log()
            # moved by alpha, at its value: the added bracket is 0 (and -inf - -inf where the op is absent, so it is filled)
            moved = middle + torch.where(here, self.alpha[kind] - self.alpha[kind].detach(), 0.0)
            estimate = 2 * moved.softmax(-1) - p / 2
            found[kind] = Weights(hard + (estimate - estimate.detach()))
        return EdgeWeights(found)
