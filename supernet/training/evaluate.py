"""The metrics of a network over all batches of a part."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from supernet.processes.group import ALONE, Group
from supernet.tasks.base import Batch, Task
from supernet.training.records import Totals
from supernet.weights import EdgeWeights


@torch.no_grad()
def evaluate(net: nn.Module, task: Task, batches: Iterable[Batch], draw: Callable[[], EdgeWeights | None], generator: torch.Generator,
             context: Callable[[], AbstractContextManager[Any]] = nullcontext, group: Group = ALONE) -> dict[str, float]:
    """The task's metrics in evaluation mode, over all batches; `draw` gives the edge weights of each. group: the processes that have a part
    of each batch."""
    training = net.training
    if training:  # a walk over thousands of modules, which who evaluates a network many times spares
        net.eval()
    totals = Totals(next(net.parameters()).device)
    state = None
    for batch in batches:
        with context(), group.counting(batch):
            found = task(net, batch, draw(), state=state, generator=group.own(generator))
        state = found.state
        totals.add(group.weighed(found.loss, found.stats, batch)[1])
    group.sum_(totals.sums)
    if training:
        net.train()
    return task.metrics(totals.means())
