"""Penalties on the edge weights: zero-one and entropy."""

import torch
from torch import Tensor

from supernet.costs.base import Cost
from supernet.penalties.base import Penalty, Replicated
from supernet.ranges import NonNegative, ranged
from supernet.relaxations.base import Relaxation, absent
from supernet.space import Space
from supernet.weights import EdgeWeights


@ranged
class ZeroOne(Penalty):
    """Drives each weight to 0 or 1 (FairDARTS, Chu et al. 2020, eq. 5 and 6): minus `weight` times the mean over all weights of
    (w - 1/2)^2 (`form=l2`) or of |w - 1/2| (`form=l1`)."""

    static = True

    def __init__(self, space: Space, cost: Cost | None = None, *, weight: NonNegative = 10.0, form: str = "l2"):
        if form not in ("l1", "l2"):
            raise ValueError(f"penalty.zero_one.form must be l1 or l2, got {form!r}")
        self.weight, self.form = weight, form
        # by number: to pick by a mask is to read it, which stops a GPU
        self.present = {kind: Replicated((~mask).flatten().nonzero().flatten()) for kind, mask in absent(space).items()}

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        entries = torch.cat([w.ops.flatten(-2).index_select(-1, self.present[kind].on(w.ops.device)).flatten()
                             for kind, w in weights.items()]) - 0.5
        return -self.weight * (entries.square() if self.form == "l2" else entries.abs()).mean()


@ranged
class Entropy(Penalty):
    """`weight` times the mean entropy (nats) of the edges' mean weights as probabilities, times progress where `grows`."""

    static = True

    def __init__(self, space: Space, cost: Cost | None = None, *, weight: NonNegative = 0.1, grows: bool = False):
        self.weight, self.grows, self.progress = weight, grows, 0.0

    def anneal(self, progress: float) -> None:
        self.progress = progress

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        rows = torch.cat([torch.special.entr(w.ops).sum(-1).flatten() for w in relaxation.mean().values()])
        return self.weight * (self.progress if self.grows else 1.0) * rows.mean()
