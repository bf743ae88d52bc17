"""How far the cells agree on what alpha should be (Lambda-DARTS, Movahedi et al. 2023, Sec. 3)."""

from collections.abc import Collection

from supernet.bilevel import Bilevel, rewound, statistics_held
from supernet.hypergradients.base import grad
from supernet.monitors.base import Look, Monitor, Signal
from supernet.penalties.layer_alignment import alignment
from supernet.ranges import Count, ranged
from supernet.space import Space


@ranged
class LayerAlignment(Monitor):
    """Logs, by kind of cell, the mean cosine between the gradients of the validation loss with respect to each cell's own alphas, on one
    batch that is drawn as alpha's are, of `batch_size` or as many, every `every` epochs. (The official code takes the mean over the
    epoch's alpha batches.)"""

    def __init__(self, space: Space, *, every: Count = 1, batch_size: Count | None = None):
        self.every, self.batch_size = every, batch_size
        self.gives = [f"layer_alignment/{kind}" for kind in space.cells]

    def check(self, search: Bilevel, known: Collection[str]) -> None:
        search.check_layered()

    def after_epoch(self, look: Look) -> Signal:
        if look.epoch % self.every:
            return Signal()
        batch, search = next(iter(look.drawn(self.batch_size))), look.search
        with statistics_held(search.norms), rewound(search.generators["alpha"]):
            layered = search.problem(batch, batch).layered()
            found = {}
            for kind, _alpha in layered.alphas.items():
                if layered.layers[kind] > 1:
                    own = {k: a.detach().expand(layered.layers[k], *a.shape).clone() for k, a in layered.alphas.items()}
                    own[kind].requires_grad_()
                    (slopes,) = search.group.mean(grad(layered.loss(own), (own[kind],)))
                    found[f"layer_alignment/{kind}"] = alignment(slopes).item()
        return Signal(found)
