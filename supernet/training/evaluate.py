"""The metrics of a network over all batches of a part."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from supernet.processes.group import ALONE, Group
from supernet.tasks.base import Batch, Result, State, Task
from supernet.training.records import Sums
from supernet.weights import EdgeWeights


def evaluate(net: nn.Module, task: Task, batches: Iterable[Batch], draw: Callable[[], EdgeWeights | None], generator: torch.Generator,
             context: Callable[[], AbstractContextManager[Any]] = nullcontext, group: Group = ALONE) -> dict[str, float]:
    """The task's metrics in evaluation mode (`task.gives`), over all batches; `draw` gives the edge weights of each. group: the processes
    that have a part of each batch."""
    return task.evaluated(summed(net, task, batches, draw, generator, context, group))


@torch.no_grad()
def summed(net: nn.Module, task: Callable[..., Result], batches: Iterable[Batch], draw: Callable[[], EdgeWeights | None],
           generator: torch.Generator, context: Callable[[], AbstractContextManager[Any]] = nullcontext,
           group: Group = ALONE) -> dict[str, np.ndarray]:
    """The sums that those metrics are made from. The device is read once, at the end."""
    training = net.training
    if training:  # a walk over thousands of modules, which who evaluates a network many times spares
        net.eval()
    sums = Sums()
    state = None
    for batch in batches:
        with context():
            state = add(sums, net, task, batch, draw(), generator, group, state)
    if training:
        net.train()
    return whole(sums, group)


def add(sums: Sums, net: nn.Module, task: Callable[..., Result], batch: Batch, weights: EdgeWeights | None, generator: torch.Generator,
        group: Group = ALONE, state: State = None) -> State:
    """One batch of an evaluation, of a network that is in that mode: into its sums. The state for the next batch."""
    with group.counting(batch):
        found = task(net, batch, weights, state=state, generator=group.own(generator))
    sums.add(group.weighed(found.loss, found.stats, batch)[1])
    return found.state


def whole(sums: Sums, group: Group = ALONE) -> dict[str, np.ndarray]:
    """Those of all processes, on the host."""
    for value in sums.sums.values():
        group.sum_(value)
    return sums.on_host()
