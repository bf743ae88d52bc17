"""One op an edge, drawn by the Gumbel-max trick, with straight-through gradients (GDAS, Dong & Yang 2019, Sec. 3.2, eq. 5 to 7)."""

from typing import Any

import torch

from supernet.ranges import NonNegative, Positive, ranged
from supernet.relaxations.base import Noise, SoftmaxDraws, gumbel, linear, mask_of
from supernet.weights import EdgeWeights, Weights


@ranged
class GumbelHard(SoftmaxDraws):
    """A draw is exactly one-hot in argmax(log softmax(alpha) + g) and says which op is active, so that a network runs one op an edge.
    Its gradient is that of softmax((log softmax(alpha) + g) / temperature).

    The forward pass knows the drawn op's output only, so the gradient of the others' weights is taken as 0 (eq. 7; the official code
    adds their bare weights to the output, a constant that changes nothing but a norm's input: here it does not). Temperature falls
    linearly, epoch by epoch, from `temperature` to `temperature_end` [official code: 10 to 0.1].
    """

    static_by_draw = True

    def __init__(self, space: Any, generator: torch.Generator, *, init_scale: NonNegative = 1e-3,
                 temperature: Positive = 10.0, temperature_end: Positive = 0.1):
        super().__init__(space, generator, init_scale=init_scale)
        self.temperature, self.ends = temperature, (temperature, temperature_end)

    def anneal(self, progress: float, epoch: int) -> None:
        self.temperature = linear(*self.ends, progress)

    def noise(self, generator: torch.Generator) -> Noise:
        return {kind: gumbel(alpha, generator) for kind, alpha in self.alpha.items()}

    def weights(self, noise: Noise) -> EdgeWeights:
        found = {}
        for kind in self.alpha:
            soft = ((self.logits(kind).log_softmax(-1) + noise[kind]) / self.temperature).softmax(-1)
            hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
            # the bracket is exactly 0
            found[kind] = Weights(hard + (soft - soft.detach()), active=mask_of(hard))
        return EdgeWeights(found)
