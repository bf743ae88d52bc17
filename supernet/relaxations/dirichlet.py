"""Dirichlet draws over the ops of each edge (DrNAS, Chen et al. 2021, Sec. 3.1), differentiated along the sample's path."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from supernet.ranges import NonNegative, ranged
from supernet.relaxations.base import Noise, TableRelaxation
from supernet.weights import EdgeWeights, Weights

PROPOSALS = 16  # of a Gamma variable; each is refused with probability below 0.05, so that all are with one below 1e-20


def concentration(beta: Tensor) -> Tensor:
    """The parameters of the Dirichlet distribution, elu(beta) + 1 > 0 (Sec. 3.1)."""
    return F.elu(beta) + 1


@ranged
class Dirichlet(TableRelaxation):
    """`weights[e] ~ Dirichlet(elu(beta[e]) + 1)` over the ops that the edge has; the mean is the concentration over its row's sum. (The
    official code compares edges by softmax(beta) when it selects. Within an edge both agree.)

    A draw is normalised Gamma variables, each with its implicit path derivative (Figurnov et al. 2018). They are made of standard normal,
    uniform and exponential draws (`gamma`), so that the same noise gives the same draw and nothing is drawn where weights are
    computed. betas start as `init_scale` times standard normal draws, so that concentrations start near 1.
    """

    static = True

    def __init__(self, space: Any, generator: torch.Generator, *, init_scale: NonNegative = 1e-3):
        super().__init__(space, generator, init_scale=init_scale)

    def noise(self, generator: torch.Generator) -> Noise:
        found = {}
        for kind, beta in self.alpha.items():
            like = {"dtype": beta.dtype, "device": generator.device}
            found[f"normal_{kind}"] = torch.randn(*beta.shape, PROPOSALS, generator=generator, **like).to(beta.device)
            found[f"uniform_{kind}"] = torch.rand(*beta.shape, PROPOSALS, generator=generator, **like).to(beta.device)
            found[f"exponential_{kind}"] = torch.empty(beta.shape, **like).exponential_(generator=generator).to(beta.device)
        return found

    def after_inherit(self) -> None:
        """Those of ops that are candidates no more begin anew from 0, a concentration of 1 [official code, utils.py, prune]: no weight
        depends on them, but a divergence does (`penalties.alphas.DirichletKL`)."""
        with torch.no_grad():
            for kind, beta in self.alpha.items():
                beta.masked_fill_(self.absent(kind), 0.0)

    def concentrations(self) -> dict[str, Tensor]:
        return {kind: concentration(beta) for kind, beta in self.alpha.items()}

    def weights(self, noise: Noise) -> EdgeWeights:
        found = {}
        for kind, beta in self.alpha.items():
            c = concentration(beta)
            # a Gamma variable of a small concentration may round to 0 in a whole row
            tiny = torch.finfo(beta.dtype).tiny
            value = gamma(c.detach(), *(noise[f"{part}_{kind}"] for part in ("normal", "uniform", "exponential")))
            gammas = _AlongPath.apply(c, value).clamp_min(tiny).masked_fill(self.absent(kind), 0.0)
            found[kind] = Weights(gammas / gammas.sum(-1, keepdim=True))
        return EdgeWeights(found)

    def op_weights(self, kind: str) -> Tensor:
        own = concentration(self.alpha[kind]).masked_fill(self.absent(kind), 0.0)
        return own / own.sum(-1, keepdim=True)


def gamma(shape: Tensor, normal: Tensor, uniform: Tensor, exponential: Tensor) -> Tensor:
    """Gamma variables of this shape and scale 1 (Marsaglia & Tsang 2000): `d v`, d = shape - 1/3, v = (1 + x / sqrt(9 d))^3, of the first
    proposal x, standard normal, for which v > 0 and log u < x^2 / 2 + d - d v + d log v, u uniform. Shapes below 1 are reached from one
    above, times U^(1 / shape) (ibid., Sec. 6), where -log U is exponential.

    normal, uniform: (E, O, PROPOSALS) for shapes (E, O), or (L, E, O), where layers share their noise. exponential: (E, O).
    """
    below = shape < 1
    d = (shape + below.to(shape) - 1 / 3)[..., None]
    v = (1 + normal / (9 * d).sqrt()) ** 3
    log_v = v.clamp_min(torch.finfo(v.dtype).tiny).log()
    accepted = (v > 0) & (uniform.log() < normal.square() / 2 + d - d * v + d * log_v)
    value = (d * v.gather(-1, accepted.to(torch.uint8).argmax(-1, keepdim=True)))[..., 0]
    return torch.where(below, value * (-exponential / shape).exp(), value)


class _AlongPath(torch.autograd.Function):
    """A Gamma variable that was drawn, as a function of its shape: the quantile at which it stands stays (Figurnov et al. 2018, eq. 5)."""

    @staticmethod
    def forward(ctx: Any, shape: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(shape, value)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        shape, value = ctx.saved_tensors
        return slope * torch._standard_gamma_grad(shape, value), None
