"""Binary gates: one path runs, and two learn from being compared (ProxylessNAS, Cai et al. 2019, Sec. 3.2)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.ranges import NonNegative, ranged
from supernet.relaxations.base import Noise, SoftmaxDraws, gumbel, mask_of
from supernet.weights import EdgeWeights, Weights, replaced


@ranged
class BinaryGates(SoftmaxDraws):
    """For the alpha step two ops of each edge are drawn without replacement by p = softmax(alpha), and one of the two by their
    rescaled probabilities: its gate is 1. Both run, and the gradient of the loss with respect to a gate reaches the two alphas
    through the softmax over them (eq. 4 with the two paths of Sec. 3.2.1). After the update both are shifted together, so that the
    probabilities of the ops that were not drawn stay as they were. The weights train under the open gate alone: one op an edge.

    Drawing two without replacement, then one by rescaled probabilities, is not quite a draw by p, as in the official code's `two`.
    """

    def __init__(self, space: Any, generator: torch.Generator, *, init_scale: NonNegative = 1e-3):
        super().__init__(space, generator, init_scale=init_scale)
        self._drawn: dict[str, tuple[Tensor, Tensor]] = {}  # by kind: which alphas take part in this step, and their log-sum before it

    def noise(self, generator: torch.Generator) -> Noise:
        return {f"{part}_{kind}": gumbel(alpha, generator) for kind, alpha in self.alpha.items() for part in ("pair", "one")}

    def weights(self, noise: Noise) -> EdgeWeights:
        found = {}
        for kind in self.alpha:
            logits = self.logits(kind)
            own = (~self.absent(kind)).sum(-1, keepdim=True)
            order = (logits.detach() + noise[f"pair_{kind}"]).sort(dim=-1, descending=True, stable=True).indices
            pair = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order[:, :2], True) & ~self.absent(kind)
            two = logits.masked_fill(~pair, -torch.inf)
            soft = two.softmax(-1)  # over the one that an edge with a single op has
            hard = F.one_hot((two.detach() + noise[f"one_{kind}"]).argmax(-1), logits.shape[-1]).to(logits)
            found[kind] = Weights(hard + (soft - soft.detach()), active=mask_of(pair))
            self._drawn[kind] = (pair & (own > 1), two.detach().logsumexp(-1, keepdim=True))
        return EdgeWeights(found)

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: Callable[[EdgeWeights], Tensor], generator: torch.Generator) -> EdgeWeights:
        """The open gate alone runs."""
        return replaced(draw, lambda kind, w: {"active": mask_of(w.ops > 0.5)})

    @torch.no_grad()
    def after_step(self) -> None:
        for kind, alpha in self.alpha.items():
            pair, before = self._drawn[kind]
            now = alpha.masked_fill(~pair, -torch.inf).logsumexp(-1, keepdim=True)
            alpha += torch.where(pair, before - now, 0.0)
