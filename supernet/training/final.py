"""The loop that trains a final network. It moves parts and tells a `Recorder`; it prints nothing itself."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ops import heap
from supernet.bilevel import Streams, running_statistics
from supernet.networks.stacked import batch_norms
from supernet.optim.averaging import Average, NoAverage
from supernet.optim.descent import Descent, descend
from supernet.optim.optimizers import set_lr
from supernet.optim.schedules import Schedule
from supernet.processes.group import ALONE, Group
from supernet.tasks.base import Batch, Task
from supernet.training.evaluate import evaluate
from supernet.training.guard import Guard
from supernet.training.records import Generators, Position, Recorder, Stateful, Totals


@dataclass
class FinalLoop:
    """What the training of a final network needs. `context` opens mixed precision around a forward pass. group: as of a `Bilevel`."""

    net: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    train: Any
    val: Any
    test: Any  # None: not looked at while training
    lr: float
    schedule: Schedule
    drop_path_prob: float
    clip_norm: float | None
    generators: Generators
    guard: Guard
    totals: Totals
    position: Position
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    call: nn.Module | None = None  # the compiled network, where it is not `net` itself
    shift: int = 0
    average: Average = field(default_factory=NoAverage)
    descend: Descent = descend  # how the weights take their step
    group: Group = ALONE
    more: Mapping[str, Stateful] = field(default_factory=dict)  # what else a checkpoint holds
    notes: Sequence[str] = ()  # what it begins with, lines for people
    lr_every_step: bool = False  # the learning rate moves within an epoch too

    def __post_init__(self) -> None:
        self.norms = batch_norms(self.net)
        self.streams = Streams(self.group)

    def stateful(self) -> dict[str, Stateful]:
        """All that moves, by the name it has in a checkpoint."""
        return {"net": self.net, "optimizer": self.optimizer, "generators": self.generators, "train": self.train,
                "streams": self.streams, "average": self.average, "totals": self.totals, "position": self.position, **self.more}

    @cached_property
    def weights(self) -> list[nn.Parameter]:
        """Asked for once: a network of twenty cells takes milliseconds to go through."""
        return list(self.net.parameters())

    @cached_property
    def averaged(self) -> list[Tensor]:
        """What `average` is of: the weights, and the running statistics, which belong to them."""
        return [*self.weights, *(buffer for buffer in self.net.buffers() if buffer.is_floating_point())]

    def evaluated(self) -> AbstractContextManager[None]:
        """Within, the network holds what is evaluated and kept."""
        return self.average.evaluated(self.averaged)

    def rate(self, epoch: float, epochs: int) -> float:
        """The learning rate of an epoch."""
        return self.schedule(self.lr, epoch + self.shift, epochs)

    def evaluate_batch(self) -> None:
        """One batch of an evaluation, to see what it takes; nothing where no images are held out."""
        if self.val is not None:
            self.evaluate([next(iter(self.val))])

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The task's metrics of the network as it is."""
        return evaluate(self.net, self.task, batches, lambda: None, self.generators["net"], self.context, self.group)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the weights."""
        if batch[0].is_cpu:
            heap.follow()
        with self.context(), self.group.counting(batch):
            net = self.net if self.call is None else self.call
            state = self.streams.before("train", batch)
            found = self.task(net, batch, state=state, generator=self.group.own(self.generators["net"]))
        loss, stats = self.group.weighed(found.loss, found.stats, batch)
        self.guard("training loss", loss, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.group.mean_([p.grad for p in self.weights if p.grad is not None])
        self.descend(self.optimizer, self.weights, self.clip_norm)
        stats = self.group.settle(stats, batch, lambda: running_statistics(self.norms))
        self.average.after_step(self.averaged)
        self.streams.after("train", batch, found.state)
        return stats


def fit_final(loop: FinalLoop, epochs: int, recorder: Recorder, *, until: int | None = None,
              enough: Callable[[], bool] = lambda: False) -> None:
    """Trains a final network from where `loop.position` stands. `loop.test`, where given, is evaluated after every epoch.

    until: stops after that epoch, so that the training can be gone on with; learning rate and drop path run over all `epochs`. enough:
    asked before every epoch, whether the training is to end there.
    """
    position, steps = loop.position, len(loop.train)
    for epoch in range(position.epoch, epochs if until is None else min(until, epochs)):
        if enough():
            return
        started = time.perf_counter()
        lr = loop.rate(epoch, epochs)
        loop.net.drop_path_prob = loop.drop_path_prob * epoch / epochs  # DARTS, train.py: 0 in the first epoch
        loop.net.train()
        done = position.step - epoch * steps
        items = 0
        for batch in loop.train:
            own = loop.rate(epoch + done / steps, epochs) if loop.lr_every_step else lr
            set_lr(loop.optimizer, own * loop.task.lr_factor(batch))
            loop.totals.add(loop.step(batch))
            position.step, done, items = position.step + 1, done + 1, items + loop.group.items(batch)
            if done < steps:
                recorder.step(loop.group.items(batch), loop.totals)
        loop.guard.look()
        seconds = time.perf_counter() - started
        record = {"epoch": epoch, "step": position.step, "lr": lr, "drop_path_prob": loop.net.drop_path_prob}
        record |= {f"train_{k}": v for k, v in loop.task.metrics(loop.totals.means()).items()}
        for name, batches in (("val", loop.val), ("test", loop.test)):
            if batches is not None:
                with loop.evaluated():
                    means = loop.evaluate(batches)
                loop.guard.check(f"{name} loss", means["loss"])
                record |= {f"{name}_{key}": value for key, value in means.items()}
        loop.average.after_epoch(record.get("val_loss"))
        loop.totals.reset()
        position.epoch = epoch + 1
        recorder.epoch(record | {"seconds": seconds, "items_per_s": items / seconds}, None)
