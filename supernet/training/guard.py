"""A run whose numbers are not finite any more stops, and says where that began."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ops.kernels import on_plain_path
from supernet.bilevel import ALPHA_NORM
from supernet.errors import Mendable
from supernet.processes.group import ALONE, Group
from supernet.tasks.base import Batch
from supernet.training.records import Position
from supernet.weights import EdgeWeights


class Diverged(Mendable, RuntimeError):
    """The loss is not finite any more. The message, one line, says when and where that began."""


# What it is where every output of the network is finite. A gradient can overflow where no loss does, on its way back.
OTHERWISE = {ALPHA_NORM: "so it is the gradient, which overflows on its way back"}


class Guard:
    """Stops a run whose numbers are not finite any more, before they are trained on or saved.

    On the CPU every number is looked at before anything moves. On a GPU that would make every step wait, so numbers are
    collected and looked at every `every` steps and before every checkpoint; the step reported is still the first bad one.
    describe(batch, otherwise): where it began, as `first_nonfinite` says it. group: the processes that all stop where one of them has to.
    """

    def __init__(self, net: nn.Module, device: torch.device, every: int, position: Position,
                 describe: Callable[[Batch, str], str], group: Group = ALONE):
        self.net, self.position, self.describe, self.group = net, position, describe, group
        self.every = 1 if device.type == "cpu" else every
        self.recent: list[tuple[str, int, Tensor, Batch]] = []
        self.last: Batch | None = None

    def __call__(self, what: str, value: Tensor, batch: Batch) -> None:
        """`value`: a scalar on the device. Raises Diverged."""
        self.last = batch
        self.recent.append((what, self.position.step, value.detach(), batch))
        if len(self.recent) >= self.every:
            self.look()

    def look(self) -> None:
        """Looks at all that was collected. Raises Diverged."""
        recent, self.recent = self.recent, []
        finite = torch.isfinite(torch.stack([value for _, _, value, _ in recent])).tolist() if recent else []
        before = finite.index(False) if not all(finite) else len(finite)
        first = len(finite) - int(self.group.largest(len(finite) - before)[0])  # of all processes
        if first < len(finite):
            what, step, value, batch = recent[first]
            self._stop(f"the {what} is {value.item()}", step, batch, OTHERWISE.get(what, "so it is the loss itself"), first == before)

    def before_save(self) -> None:
        """Looks at what was collected and at the weights, so that no checkpoint holds what cannot be trained on."""
        self.look()
        norms = torch._foreach_norm([p.detach() for p in self.net.parameters()])
        if not torch.isfinite(torch.stack(norms)).all():
            self._stop("a weight is not finite", self.position.step, self.last, "so it is what the last step did", True)

    def check(self, what: str, value: float) -> None:
        """The same for a number on the host, of an evaluation."""
        if not math.isfinite(value):
            raise Diverged(f"the {what} is {value} after epoch {self.position.epoch}, step {self.position.step} of the run, where the "
                           f"training losses were still finite: evaluation differs from training in batch norm's running statistics "
                           f"(compat.bn_statistics) and in dropout")

    def _stop(self, what: str, step: int, batch: Batch | None, otherwise: str, here: bool) -> None:
        """here: whether this process saw it; all raise what one of those that did has to say, best one that knows where it began."""
        text = ""
        if here:
            with self.group.apart():
                where = "no batch was seen yet" if batch is None else self.describe(batch, otherwise)
            text = f"{what} in epoch {self.position.epoch}, step {step} of the run: {where}"
        said = [text for text in self.group.texts(text) if text]
        raise Diverged(next((text for text in said if not text.endswith(otherwise)), said[0]))


def first_nonfinite(net: nn.Module, weights: EdgeWeights | None, batch: Batch, otherwise: str, **call: Any) -> str:
    """Names what was not finite first: the input, the edge weights, a parameter, a module's output; `otherwise` where none of these is."""
    if not torch.isfinite(batch[0]).all():
        return "the batch's images hold values that are not finite"
    for kind, w in (weights or {}).items():
        if not torch.isfinite(w.ops).all():
            return f"the edge weights of {kind!r} are not finite"
    for name, p in net.named_parameters():
        if not torch.isfinite(p).all():
            return f"parameter {name} is not finite since the step before: its gradient overflowed, or the learning rate is too large"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and torch.is_tensor(output) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    handles = [m.register_forward_hook(look(name)) for name, m in net.named_modules() if next(m.children(), None) is None]
    try:
        with torch.no_grad(), on_plain_path():
            net(batch[0], weights, **call)
    finally:
        for handle in handles:
            handle.remove()
    return f"first in the output of {found[0]}" if found else f"every output of the network is finite, {otherwise}"
