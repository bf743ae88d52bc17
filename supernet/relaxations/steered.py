"""The weights are trained in single architectures, drawn by what a relaxation weighs the ops with."""

from collections.abc import Callable

import torch
from torch import Tensor

from supernet.ranges import Share, ranged
from supernet.relaxations.base import Relaxation, Wrapper
from supernet.space import Space
from supernet.weights import EdgeWeights, Weights, replaced


@ranged
class Steered(Wrapper):
    """Alphas descend under the relaxation's own draws, mixtures or not; the weights are trained under one op an edge, drawn with the draw's
    weights as probabilities, so that what the alphas prefer is trained most: GDAS' split of roles (Dong & Yang 2019) for a relaxation of
    any kind. With `passes=sandwich` these draws stand beside the smallest and the largest architecture.

    explore: so much of an edge's probability is spread evenly over its ops, of those that the draw weighs with 0 too. A one-hot draw is
    trained as it is (explore=0), and only its ops run. The supernet is evaluated under such draws, one a batch: they are what the weights
    know. An edge whose weights are all 0, as `greedy` prunes it, runs nothing.

    Raises ValueError: layers of a kind have weights of their own.
    """

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, explore: Share = 0.0):
        super().__init__(inner)
        self.explore = explore
        for kind, w in inner.mean().items():
            if w.ops.dim() != 2:
                raise ValueError(f"wrapper.steered draws one op an edge for all cells of a kind, and {type(inner).__name__} weighs each "
                                 f"cell of {kind!r} by itself")
        for kind, spec in space.cells.items():
            self.register_buffer(f"open_{kind}", torch.tensor(spec.selectable), persistent=False)

    def samples(self, generator: torch.Generator) -> bool:
        return True

    def evaluated(self, generator: torch.Generator) -> EdgeWeights:
        return self.drawn(self.inner.evaluated(generator).detach(), generator)

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: Callable[[EdgeWeights], Tensor], generator: torch.Generator) -> EdgeWeights:
        return self.drawn(self.inner.for_w_step(draw, loss_of_weights, generator), generator)

    @torch.no_grad()
    def drawn(self, weights: EdgeWeights, generator: torch.Generator) -> EdgeWeights:
        """One op an edge, active alone. Weights below 0 count as 0."""
        return replaced(weights, lambda kind, w: self._drawn(kind, w, generator))

    def _drawn(self, kind: str, w: Weights, generator: torch.Generator) -> dict[str, object]:
        table = w.ops.detach().to(generator.device, torch.float64).clamp_min(0)
        mass = table.sum(1, keepdim=True)
        own = self.get_buffer(f"open_{kind}").to(table)
        p = (1 - self.explore) * table / mass.clamp_min(1e-300) + self.explore * own / own.sum(1, keepdim=True).clamp_min(1)
        runs = mass > 0  # (E, 1)
        drawn = torch.multinomial(torch.where(runs, p, 1.0), 1, generator=generator)
        hot = torch.zeros_like(table).scatter_(1, drawn, 1.0) * runs
        return {"ops": hot.to(w.ops), "active": tuple(tuple(row) for row in hot.bool().tolist())}
