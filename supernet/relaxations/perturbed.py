"""Perturbation of the edge weights that the network's weights are trained under (SmoothDARTS, Chen & Hsieh 2020)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.ranges import Count, NonNegative, Positive, ranged
from supernet.relaxations.base import Relaxation, Wrapper, absent, linear
from supernet.space import Space
from supernet.weights import EdgeWeights, replaced

LossOfWeights = Callable[[EdgeWeights], Tensor]
Tables = dict[str, Tensor]


@ranged
class Perturbed(Wrapper):
    """An interface for wrappers under which the weights train at `draw + delta`; alphas never change by it, and the alpha step sees the
    draw itself. epsilon grows linearly over the epochs [official code: 0.03 + 0.27 epoch / epochs].

    clip: wherever delta moves, the weights are clamped to [0, 1] and each row is brought back to the sum that it had, to its largest entry
    alone where nothing is left [official code, model_search.py, clip()]. One may then be further than epsilon from its draw; the paper's
    equations leave the weights where they are. Ops that an edge lacks never move.
    """

    def __init__(self, inner: Relaxation, space: Space, *, epsilon: NonNegative, epsilon_end: NonNegative, clip: bool):
        super().__init__(inner)
        if epsilon > epsilon_end:
            raise ValueError(f"epsilon must be at most epsilon_end, got {epsilon} and {epsilon_end}")
        self.ends, self.epsilon, self.clip = (epsilon, epsilon_end), epsilon, clip
        for kind, mask in absent(space).items():
            self.register_buffer(f"absent_{kind}", mask, persistent=False)

    def anneal(self, progress: float, epoch: int) -> None:
        super().anneal(progress, epoch)
        self.epsilon = linear(*self.ends, progress)

    def random(self, draw: EdgeWeights, generator: torch.Generator) -> Tables:
        """By kind, numbers uniform in [-epsilon, epsilon], one an entry; clipped."""
        noise = {kind: (2 * torch.rand(w.ops.shape, generator=generator, device=generator.device) - 1) * self.epsilon
                 for kind, w in draw.items()}
        return self.clipped(draw, {kind: delta.to(draw[kind].ops) for kind, delta in noise.items()})

    def clipped(self, draw: EdgeWeights, delta: Tables) -> Tables:
        delta = {kind: d.masked_fill(self.get_buffer(f"absent_{kind}"), 0.0) for kind, d in delta.items()}
        if not self.clip:
            return delta
        return {kind: self._rows(kind, w.ops + delta[kind], w.ops.sum(-1, keepdim=True)) - w.ops for kind, w in draw.items()}

    def _rows(self, kind: str, moved: Tensor, total: Tensor) -> Tensor:
        gone = self.get_buffer(f"absent_{kind}")
        inside = moved.clamp(0.0, 1.0).masked_fill(gone, 0.0)
        now = inside.sum(-1, keepdim=True)
        largest = F.one_hot(moved.masked_fill(gone, -torch.inf).argmax(-1), moved.shape[-1]).to(moved)
        return torch.where(now > 0, inside / now.clamp_min(1e-12), largest) * total


def moved(draw: EdgeWeights, delta: Tables) -> EdgeWeights:
    return replaced(draw, lambda kind, w: {"ops": w.ops + delta[kind]})


@ranged
class RandomPerturbed(Perturbed):
    """The weights train under `draw + delta`, delta uniform in [-epsilon, epsilon] (Sec. 3.2, eq. 7, SDARTS-RS)."""

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, epsilon: NonNegative = 0.03,
                 epsilon_end: NonNegative = 0.3, clip: bool = True):
        super().__init__(inner, space, epsilon=epsilon, epsilon_end=epsilon_end, clip=clip)

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: LossOfWeights, generator: torch.Generator) -> EdgeWeights:
        draw = super().for_w_step(draw, loss_of_weights, generator)
        return moved(draw, self.random(draw, generator))


@ranged
class Adversarial(Perturbed):
    """The weights train under `draw + delta`, where delta is sought within [-epsilon, epsilon] to raise the training loss (eq. 8,
    SDARTS-ADV): from a random start `steps` ascents of `step_share * epsilon` times the gradient's sign, each brought back within
    epsilon. The answer is dropped where it does not raise the loss [official code].
    """

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, epsilon: NonNegative = 0.03,
                 epsilon_end: NonNegative = 0.3, steps: Count = 7, step_share: Positive = 2 / 7, clip: bool = True):
        super().__init__(inner, space, epsilon=epsilon, epsilon_end=epsilon_end, clip=clip)
        self.steps, self.step_share = steps, step_share

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: LossOfWeights, generator: torch.Generator) -> EdgeWeights:
        draw = super().for_w_step(draw, loss_of_weights, generator)
        delta = self.random(draw, generator)
        for _ in range(self.steps):
            delta = {kind: d.detach().requires_grad_() for kind, d in delta.items()}
            loss = loss_of_weights(moved(draw, delta))
            if not loss.requires_grad:  # no op runs
                return draw
            slopes = torch.autograd.grad(loss, list(delta.values()), allow_unused=True, materialize_grads=True)
            ascended = {kind: (d.detach() + self.step_share * self.epsilon * slope.sign()).clamp(-self.epsilon, self.epsilon)
                        for (kind, d), slope in zip(delta.items(), slopes)}
            delta = self.clipped(draw, ascended)
        with torch.no_grad():
            raised = loss_of_weights(moved(draw, delta)) > loss_of_weights(draw)
        # a factor of 0 or 1 on the device: nothing is read back
        return moved(draw, {kind: d * raised.to(d) for kind, d in delta.items()})
