"""The concrete distribution over the ops of each edge (SNAS, Xie et al. 2019, eq. 5; Maddison et al. 2017, eq. 10)."""

from typing import Any

import torch

from supernet.ranges import Finite, NonNegative, Positive, Whole, ranged
from supernet.relaxations.base import Noise, SoftmaxDraws, gumbel
from supernet.weights import EdgeWeights, Weights


@ranged
class Concrete(SoftmaxDraws):
    """`weights = softmax((log softmax(alpha) + g) / temperature)`, g standard Gumbel noise: a soft draw, nearly one-hot when cold.

    The temperature falls epoch by epoch from `temperature` to `temperature_end`: `decay` is `linear` (SNAS [official code: 1 to 0.03])
    or `exponential`, by the same factor an epoch (FBNet, Wu et al. 2019, Sec. 3.4). Before epoch `rest` it stays where it starts
    [re-implementation of FBNet: while the weights warm up].
    """

    static = True

    def __init__(self, space: Any, generator: torch.Generator, *, init_scale: NonNegative = 1e-2, init_mean: Finite = 0.0,
                 temperature: Positive = 1.0, temperature_end: Positive = 0.03, decay: str = "linear", rest: Whole = 0):
        super().__init__(space, generator, init_scale=init_scale)
        if decay not in ("linear", "exponential"):
            raise ValueError(f"relaxation.decay must be linear or exponential, got {decay!r}")
        self.temperature, self.ends, self.decay, self.rest = temperature, (temperature, temperature_end), decay, rest
        with torch.no_grad():
            for alpha in self.alpha.values():
                alpha += init_mean

    def anneal(self, progress: float, epoch: int) -> None:
        first, last = self.ends
        if self.rest and epoch > 0:  # progress is epoch / last epoch
            progress = max(0.0, (epoch - self.rest) / max(1.0, epoch / progress - self.rest))
        between = first + (last - first) * progress if self.decay == "linear" else first * (last / first) ** progress
        self.temperature = last if progress == 1 else between

    def noise(self, generator: torch.Generator) -> Noise:
        return {kind: gumbel(alpha, generator) for kind, alpha in self.alpha.items()}

    def weights(self, noise: Noise) -> EdgeWeights:
        return EdgeWeights({kind: Weights(((self.logits(kind).log_softmax(-1) + noise[kind]) / self.temperature).softmax(-1))
                            for kind in self.alpha})
