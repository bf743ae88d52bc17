"""Operation-level early stopping: ops whose training and validation gradients part ways are frozen (OLES, Jiang et al. 2023)."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supernet.bilevel import Bilevel, rewound
from supernet.hypergradients.base import grad
from supernet.monitors.base import Look, Monitor, Signal
from supernet.networks.cell import MixedEdges
from supernet.ranges import Count, Finite, ranged
from supernet.space import Space
from supernet.tasks.base import Batch


@ranged
class OpFreezing(Monitor):
    """The cosine between the gradients of the training and of the validation loss with respect to an op's weights, averaged over `count`
    steps; where the mean falls below `threshold` the op's weights are not trained any more (official code: 20 and 0.4).

    All of an op's weights are one vector here; the official code takes cosines along the first dimension of each weight, their mean, and
    the sum of 21 of them over 20. A step's validation gradient is computed after it [official code], on its validation batch under the
    edge weights of an evaluation, one more backward pass; with `every` only each so many steps. Logged: `gradient_cosine`, the mean over
    ops, and `frozen_share` of the ops that have weights.
    """

    gives = ("frozen_share", "gradient_cosine")

    def __init__(self, space: Space, *, threshold: Finite = 0.4, count: Count = 20, every: Count = 1,
                 freeze: bool = True):
        self.threshold, self.count, self.every, self.freeze = threshold, count, every, freeze
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.means: dict[str, float] = {}
        self.frozen: set[str] = set()
        self._ops: dict[str, list[nn.Parameter]] = {}

    def check(self, search: Bilevel, known: Collection[str]) -> None:
        if not any(parameters for _, parameters in _ops(search.net)):
            raise ValueError("monitor=[op_freezing] needs a network of cells whose edges have ops with weights of their own")

    def before_epoch(self, search: Bilevel) -> None:
        self._ops = {name: parameters for name, parameters in _ops(search.net) if parameters}
        for name, parameters in self._ops.items():
            for p in parameters:
                p.requires_grad_(name not in self.frozen)  # a search that went back has fewer of them than before

    def after_step(self, search: Bilevel, train_batch: Batch, val_batch: Batch | None, step: int) -> None:
        if val_batch is None or step % self.every:
            return
        held = {name: ps for name, ps in self._ops.items() if name not in self.frozen and all(p.grad is not None for p in ps)}
        if not held:
            return
        parameters = [p for ps in held.values() for p in ps]
        with torch.no_grad(), rewound(search.generators["alpha"]) as generator:
            weights = search.relaxation.evaluated(generator)
        slopes = iter(grad(search.val_loss_under(val_batch, weights), parameters))
        for name, ps in held.items():
            a, b = (torch.cat([t.flatten() for t in tensors]) for tensors in ([p.grad for p in ps], [next(slopes) for _ in ps]))
            total, n = self.sums.get(name, (a.new_zeros(()), 0))
            self.sums[name] = (total + torch.cosine_similarity(a, b, dim=0), n + 1)
            if n + 1 == self.count:  # read back once in so many steps
                self.means[name] = (self.sums.pop(name)[0] / self.count).item()
                if self.freeze and self.means[name] < self.threshold:
                    self.frozen.add(name)
                    _freeze(ps)

    def after_epoch(self, look: Look) -> Signal:
        values = {"frozen_share": len(self.frozen) / max(1, len(self._ops))}
        return Signal(values | ({"gradient_cosine": sum(self.means.values()) / len(self.means)} if self.means else {}))

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: [total, n] for name, (total, n) in self.sums.items()}, "means": dict(self.means),
                "frozen": sorted(self.frozen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = {name: (total, n) for name, (total, n) in state["sums"].items()}
        self.means, self.frozen = dict(state["means"]), set(state["frozen"])


def _ops(net: nn.Module) -> list[tuple[str, list[nn.Parameter]]]:
    """Every candidate op of every cell with its own weights, by name."""
    return [(f"{name}.edges.{edge}.{op}", list(module.parameters()))
            for name, mixed in net.named_modules() if type(mixed) is MixedEdges
            for edge, ops in mixed.edges.items() for op, module in ops.items()]


def _freeze(parameters: list[nn.Parameter]) -> None:
    for p in parameters:
        p.requires_grad_(False)
        p.grad = None
