"""Operation-level early stopping: ops whose training and validation gradients part ways are frozen (OLES, Jiang et al. 2023)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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

Gradients = Sequence[Tensor]  # one for each of an op's weights


def cosine_along_outputs(train: Sequence[Gradients], val: Sequence[Gradients]) -> list[Tensor]:
    """For each of N ops how far the sum of its two gradients points along the training gradient, a scalar in [-1, 1]: the cosine of
    g_train + g_val and g_train along the first dimension of each weight (its output channels), its mean over the other entries, the mean
    of these over the op's weights [official code, check_grads_cosine, which compares what the alpha step leaves in p.grad].

    Weights of one shape are computed together: a network has hundreds of ops and a handful of shapes.
    """
    owners = [n for n, ops in enumerate(train) for _ in ops]
    a, b = ([g for op in ops for g in op] for ops in (train, val))
    by_shape: dict[torch.Size, list[int]] = {}
    for i, g in enumerate(a):
        by_shape.setdefault(g.shape, []).append(i)
    total = a[0].new_zeros(len(train))
    for rows in by_shape.values():
        ours = torch.stack([a[i] for i in rows])
        both = ours + torch.stack([b[i] for i in rows])
        values = torch.cosine_similarity(both, ours, dim=1).flatten(1).mean(1)
        shares = values.new_tensor([1 / len(train[owners[i]]) for i in rows])
        total.index_add_(0, torch.tensor([owners[i] for i in rows], device=total.device), values * shares)
    return list(total.unbind())


def cosine(train: Sequence[Gradients], val: Sequence[Gradients]) -> list[Tensor]:
    """For each of N ops the cosine of its training and its validation gradient, all weights as one vector."""
    flat = ([torch.cat([g.flatten() for g in op]) for op in ops] for ops in (train, val))
    return [torch.cosine_similarity(a, b, dim=0) for a, b in zip(*flat)]


@dataclass(frozen=True)
class Agreement:
    """How gradients are compared, and how many comparisons are summed up before the sum, over `count`, is looked at: `count` + `extra`."""

    of: Callable[[Sequence[Gradients], Sequence[Gradients]], list[Tensor]]
    extra: int


AGREEMENTS = {"along_outputs": Agreement(cosine_along_outputs, 1),  # [official code: a counter that is compared before it grows]
              "cosine": Agreement(cosine, 0)}


@ranged
class OpFreezing(Monitor):
    """How far the gradients of the training and of the validation loss with respect to an op's weights agree, averaged over `count` steps;
    where the mean falls below `threshold` the op's weights are not trained any more.

    agreement: `along_outputs` is the official code's, for which its 20 and 0.4 are meant (`cosine_along_outputs`; it sums 21 steps and
    divides by 20): a validation gradient that is orthogonal to the training gradient and as long gives 0.7, one that points against it
    gives less than 0. `cosine` compares both as they are: orthogonal ones give 0, so that it needs a threshold of its own.

    The training gradient is that of the last step of the weights, clipped [official code]; the validation gradient is computed after it
    [official code], on the step's own validation batch (there the next step's) under the edge weights of an evaluation, one more backward
    pass; with `every` only each so many steps. Logged: `gradient_cosine`, the mean over ops, and `frozen_share` of the ops that have
    weights.
    """

    gives = ("frozen_share", "gradient_cosine")

    def __init__(self, space: Space, *, threshold: Finite = 0.4, count: Count = 20, every: Count = 1, freeze: bool = True,
                 agreement: str = "along_outputs"):
        if agreement not in AGREEMENTS:
            raise ValueError(f"monitor.op_freezing.agreement must be {' or '.join(AGREEMENTS)}, got {agreement!r}")
        self.threshold, self.count, self.every, self.freeze = threshold, count, every, freeze
        self.agreement = AGREEMENTS[agreement]
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
        with torch.no_grad(), rewound(search.generators["alpha"]) as generator:
            weights = search.relaxation.evaluated(generator)
        slopes = iter(search.group.mean(grad(search.val_loss_under(val_batch, weights), [p for ps in held.values() for p in ps])))
        with torch.no_grad():
            values = self.agreement.of([[p.grad for p in ps] for ps in held.values()], [[next(slopes) for _ in ps] for ps in held.values()])
            self._add(dict(zip(held, values)))

    def _add(self, values: Mapping[str, Tensor]) -> None:
        """One comparison of each op. Sums are read back once in so many steps."""
        due = []
        for name, value in values.items():
            total, n = self.sums.get(name, (torch.zeros_like(value), 0))
            self.sums[name] = (total + value, n + 1)
            if n + 1 == self.count + self.agreement.extra:
                due.append(name)
        if not due:
            return
        for name, total in zip(due, torch.stack([self.sums.pop(name)[0] for name in due]).tolist()):
            self.means[name] = total / self.count
            if self.freeze and self.means[name] < self.threshold:
                self.frozen.add(name)
                _freeze(self._ops[name])

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
