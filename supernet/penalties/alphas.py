"""Penalties on the alphas themselves: beta decay, and the divergence of DrNAS from the flat Dirichlet distribution."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from supernet.costs.base import Cost
from supernet.penalties.base import Penalty, Replicated
from supernet.ranges import NonNegative, ranged
from supernet.relaxations.base import Relaxation, absent
from supernet.space import Space
from supernet.weights import EdgeWeights


@ranged
class BetaDecay(Penalty):
    """`weight * progress` times the mean over edges of log sum exp(alpha) (Beta-DARTS, Ye et al. 2022, eq. 14), whose gradient is the
    softmax: strong ops decay most, so that no op runs away. Official code: the weight grows linearly to 25 in 50 epochs, to 50 in 100.

    The mean is over the edges of all kinds together, as there.
    """

    static = True

    def __init__(self, space: Space, cost: Cost | None = None, *, weight: NonNegative = 25.0):
        self.weight, self.progress = weight, 0.0
        self.absent = {kind: Replicated(mask) for kind, mask in absent(space).items()}

    def anneal(self, progress: float) -> None:
        self.progress = progress

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        rows = [alpha.masked_fill(self.absent[kind].on(alpha.device), -torch.inf).logsumexp(-1)
                for kind, alpha in relaxation.tables().items()]
        return self.weight * self.progress * torch.cat(rows).mean()


@ranged
class DirichletKL(Penalty):
    """`weight` times the sum over the edges of all kinds of KL(Dir(c) || Dir(1)), c the concentrations of relaxation=dirichlet (DrNAS, Chen
    et al. 2021, eq. 6, with the divergence as the distance; official code, --reg_type kl, _get_kl_reg).

    Counted are the ops that there were when the search began: after a stage has taken some away, theirs go on [official code, which sums
    over all alphas, pruned ones from 0 on: `Dirichlet.after_inherit`]. They weigh nothing in the network, and move by this term alone.
    """

    static = True

    def __init__(self, space: Space, cost: Cost | None = None, *, weight: NonNegative = 1e-3):
        self.weight = weight
        self._count({kind: ~mask for kind, mask in absent(space).items()})

    def _count(self, ops: Mapping[str, Tensor]) -> None:
        self.counted = {kind: Replicated(mask) for kind, mask in ops.items()}

    def state_dict(self) -> dict[str, Any]:
        return {kind: mask.on(torch.device("cpu")) for kind, mask in self.counted.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What a stage has counted, the next one counts."""
        self._count(state)

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        rows = []
        for kind, concentration in relaxation.concentrations().items():
            here = self.counted[kind].on(concentration.device)
            c = concentration.where(here, torch.ones_like(concentration))  # an op with concentration 1 that counts below as none
            total = (c * here).sum(-1)
            terms = ((c - 1) * (torch.digamma(c) - torch.digamma(total)[:, None]) - torch.lgamma(c)) * here
            rows.append(torch.lgamma(total) - torch.lgamma(here.sum(-1).to(c)) + terms.sum(-1))
        return self.weight * torch.cat(rows).sum()
