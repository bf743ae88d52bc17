"""Weights of whole edges, normalised over the edges into each node (PC-DARTS, Xu et al. 2020, eq. 3)."""

import torch
from torch import Tensor, nn

from supernet.ranges import NonNegative, ranged
from supernet.relaxations.base import Relaxation, Wrapper
from supernet.space import Space
from supernet.weights import EdgeWeights, replaced


@ranged
class EdgeNormalised(Wrapper):
    """`edges[e] = softmax(beta)` over the edges into e's destination, beside the op weights of `inner`, which stay as they are: channels
    that pass partial connections by see the edge weight alone.

    form: `softmax`, or `simplex` where the betas are the weights themselves and an exponentiated gradient keeps them on the simplex
    (GAEA, Li et al. 2021). Betas start as `init_scale` times standard normal draws, or uniform.
    """

    keeps_static = True

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, init_scale: NonNegative = 1e-3,
                 form: str = "softmax"):
        super().__init__(inner)
        if form not in ("softmax", "simplex"):
            raise ValueError(f"wrapper.edge_normalised.form must be softmax or simplex, got {form!r}")
        self.softmax, self.beta = form == "softmax", nn.ModuleDict()
        for kind, spec in sorted(space.cells.items()):
            rows = [len(spec.incoming(node)) for node in spec.nodes]  # in the order of the edges: a spec has them by destination
            self.beta[kind] = nn.ParameterList(
                nn.Parameter(init_scale * torch.randn(n, generator=generator) if self.softmax else torch.full((n,), 1 / n)) for n in rows)

    @property
    def on_simplex(self) -> bool:
        return not self.softmax or self.inner.on_simplex

    def edges(self) -> dict[str, Tensor]:
        """By kind, (E)."""
        return {kind: torch.cat([beta.softmax(0) if self.softmax else beta for beta in rows]) for kind, rows in self.beta.items()}

    def changed(self, weights: EdgeWeights) -> EdgeWeights:
        edges = self.edges()
        return replaced(weights, lambda kind, w: {"edges": edges[kind] if w.edges is None else edges[kind] * w.edges})
