"""Perturbation of the edge weights that the network's weights are trained under (SmoothDARTS, Chen & Hsieh 2020)."""

from collections.abc import Callable

import torch
from torch import Tensor

from supernet.relaxations.base import Relaxation, Wrapper, linear
from supernet.space import Space
from supernet.weights import EdgeWeights, replaced

LossOfWeights = Callable[[EdgeWeights], Tensor]


def _random(draw: EdgeWeights, epsilon: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Uniform in [-epsilon, epsilon], one number an entry."""
    return {kind: ((2 * torch.rand(w.ops.shape, generator=generator, device=generator.device) - 1) * epsilon).to(w.ops)
            for kind, w in draw.items()}


def _moved(draw: EdgeWeights, delta: dict[str, Tensor]) -> EdgeWeights:
    return replaced(draw, lambda kind, w: {"ops": w.ops + delta[kind]})


class RandomPerturbed(Wrapper):
    """The weights train under `draw + delta`, delta uniform in [-epsilon, epsilon] (Sec. 3.2, eq. 7, SDARTS-RS); alphas never change by it,
    and the alpha step sees the draw itself. epsilon grows linearly over the epochs [official code: 0.03 + 0.27 epoch / epochs].

    The perturbed weights need not be on the simplex, as in the official code.
    """

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, epsilon: float = 0.03, epsilon_end: float = 0.3):
        super().__init__(inner)
        self.ends = _checked(epsilon, epsilon_end)
        self.epsilon = epsilon

    def anneal(self, progress: float, epoch: int) -> None:
        super().anneal(progress, epoch)
        self.epsilon = linear(*self.ends, progress)

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: LossOfWeights, generator: torch.Generator) -> EdgeWeights:
        draw = super().for_w_step(draw, loss_of_weights, generator)
        return _moved(draw, _random(draw, self.epsilon, generator))


class Adversarial(Wrapper):
    """The weights train under `draw + delta`, where delta is sought within [-epsilon, epsilon] to raise the training loss (eq. 8,
    SDARTS-ADV): from a random start `steps` ascents of `step_share * epsilon` times the gradient's sign, each followed by a clip. The
    answer is dropped where it does not raise the loss [official code]. Alphas never change by it.
    """

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, epsilon: float = 0.03, epsilon_end: float = 0.3,
                 steps: int = 7, step_share: float = 2 / 7):
        super().__init__(inner)
        if steps < 1 or step_share <= 0:
            raise ValueError(f"wrapper.adversarial.steps must be at least 1 and step_share positive, got {steps} and {step_share}")
        self.ends, self.epsilon = _checked(epsilon, epsilon_end), epsilon
        self.steps, self.step_share = steps, step_share

    def anneal(self, progress: float, epoch: int) -> None:
        super().anneal(progress, epoch)
        self.epsilon = linear(*self.ends, progress)

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: LossOfWeights, generator: torch.Generator) -> EdgeWeights:
        draw = super().for_w_step(draw, loss_of_weights, generator)
        delta = _random(draw, self.epsilon, generator)
        for _ in range(self.steps):
            delta = {kind: d.detach().requires_grad_() for kind, d in delta.items()}
            slopes = torch.autograd.grad(loss_of_weights(_moved(draw, delta)), list(delta.values()))
            delta = {kind: (d.detach() + self.step_share * self.epsilon * slope.sign()).clamp(-self.epsilon, self.epsilon)
                     for (kind, d), slope in zip(delta.items(), slopes)}
        with torch.no_grad():
            raised = loss_of_weights(_moved(draw, delta)) > loss_of_weights(draw)
        # a factor of 0 or 1 on the device: nothing is read back
        return _moved(draw, {kind: d * raised.to(d) for kind, d in delta.items()})


def _checked(first: float, last: float) -> tuple[float, float]:
    if not 0 <= first <= last:
        raise ValueError(f"epsilon must be at least 0 and at most epsilon_end, got {first} and {last}")
    return first, last
