"""The search loop: trains a supernet's weights and its architecture parameters. It moves parts and tells a `Recorder`; it prints
nothing itself."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from supernet.bilevel import Bilevel
from supernet.costs.base import Cost, CostError
from supernet.genotype import Genotype
from supernet.interfaces import InterfaceError, seen
from supernet.monitors.base import Look, Monitor, Signal, shares
from supernet.networks.cell import MixedEdges
from supernet.optim.optimizers import set_lr
from supernet.optim.schedules import Schedule
from supernet.relaxations.base import entropies
from supernet.space import Space
from supernet.tasks.base import Batch
from supernet.training.evaluate import evaluate
from supernet.training.graphed import Graphed
from supernet.training.guard import Guard
from supernet.training.records import Generators, History, Position, Recorder, Silent, Stateful, Totals, Trajectory, Verdict, counting
from supernet.weights import EdgeWeights


def no_yardstick(genotype: Genotype) -> Mapping[str, float]:
    """Nothing is known of any genotype."""
    return {}


def no_skip_dropout(epoch: int, epochs: int) -> float:
    """Candidate skip connections stay whole."""
    return 0.0


@dataclass
class SearchLoop:
    """What a search, or one stage of it, needs beside its `Bilevel`. `shift`: added to the epoch that the schedules see."""

    search: Bilevel
    train: Any
    alpha_batches: Any
    val: Any
    drawn: Callable[[int | None], Iterable[Batch]]  # as `monitors.base.Look.drawn`
    lr: tuple[float, float]
    schedules: tuple[Schedule, Schedule]
    space: Space
    select: Callable[[EdgeWeights], Genotype]
    generators: Generators
    guard: Guard
    totals: Totals
    position: Position
    trajectory: Trajectory = field(default_factory=Trajectory)
    snapshots: int = 20
    shift: int = 0
    yardstick: Callable[[Genotype], Mapping[str, float]] = no_yardstick  # what is known of an epoch's genotype; for the record
    alpha_begin: int = 0  # epochs of weights alone
    alpha_every: int = 1  # steps of w for each of alpha
    drop_path_prob: float = 0.0  # of the last epoch
    drop_path_rises: bool = True  # in a straight line from 0 in the first epoch; False: it is the same in all
    skip_dropout: Callable[[int, int], float] = no_skip_dropout  # of candidate skip connections, by epoch
    monitors: Mapping[str, Monitor] = field(default_factory=dict)
    cost: Cost | None = None  # for a `finish` that asks for one
    finish: "Callable[[SearchLoop], Genotype] | None" = None  # how the genotype is found at the end; None: as after every epoch
    verdict: Verdict = field(default_factory=Verdict)
    history: History = field(default_factory=History)
    recorder: Recorder = field(default_factory=Silent)  # set while the loop runs; `finish` may tell it of its work
    first_epoch: int = 0  # of this stage, counted over the search
    schedule_epochs: int | None = None  # of the search, where learning rates, annealing and drop path run over it; None: over this stage
    about: Mapping[str, Any] = field(default_factory=dict)  # for every record: which stage
    graphed: Graphed | None = None  # takes the steps of `search`, where they are captured

    def step(self, train_batch: Batch, val_batch: Batch | None) -> dict[str, Tensor]:
        """As `Bilevel.step`."""
        return (self.search if self.graphed is None else self.graphed).step(train_batch, val_batch)

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The task's metrics of the supernet."""
        search = self.search
        return evaluate(search.net, search.task, batches, lambda: search.relaxation.evaluated(self.generators["alpha"]).detach(),
                        self.generators["net"], search.context, search.group)

    def evaluate_batch(self) -> None:
        """One batch of an evaluation, to see what it takes."""
        self.evaluate([next(iter(self.val))])

    def release(self) -> None:
        """Gives back what captured steps hold; the loop takes no step after that."""
        if self.graphed is not None:
            self.graphed.release()

    def learned(self) -> dict[str, Stateful]:
        """What training changes, by the name it has in a checkpoint."""
        s = self.search
        alpha = {} if s.alpha_optimizer is None else {"alpha_optimizer": s.alpha_optimizer}
        return {"net": s.net, "relaxation": s.relaxation, "w_optimizer": s.w_optimizer, **alpha, "streams": s.streams,
                "memory": s.memory, **{f"penalty_{n}": penalty for n, penalty in enumerate(s.penalties)},
                **{f"monitor_{name}": monitor for name, monitor in self.monitors.items()}}

    def stateful(self) -> dict[str, Stateful]:
        """All that moves, by the name it has in a checkpoint."""
        return {**self.learned(), "generators": self.generators, "train": self.train, "alpha_batches": self.alpha_batches,
                "totals": self.totals, "position": self.position, "trajectory": self.trajectory, "verdict": self.verdict,
                **({"history": self.history} if self.depth else {})}

    @property
    def depth(self) -> int:
        """How many epochs back a monitor may send the search."""
        return max((monitor.keeps for monitor in self.monitors.values()), default=0)

    def remember(self, own: int) -> None:
        """Where a monitor may send the search back to this epoch, the `own`-th of the stage, keeps what was learned until now."""
        if any(monitor.keeps and own % monitor.spacing == 0 for monitor in self.monitors.values()):
            self.history.remember(self.position.epoch - 1, self.learned(), self.depth)

    def go_back(self, epochs: int, weight_decay: float) -> None:
        """Undoes the last `epochs`, but for draws and records, and goes on with another weight decay. Where so old a state is not kept any
        more, because the search went back before, it is the oldest one that is."""
        healthy = self.history.nearest(self.position.epoch - 1 - epochs)
        if healthy is None:
            raise ValueError("a monitor sends the search back, and nothing that it had learned was kept")
        self.history.restore(healthy, self.learned())
        for group in self.search.w_optimizer.param_groups:
            if group["weight_decay"] > 0:  # norms and biases may be a group without
                group["weight_decay"] = weight_decay
        self.position.repeated += (self.position.epoch - 1 - healthy) * len(self.train)
        self.position.epoch = healthy + 1
        del self.verdict.genotypes[healthy + 1:]

    def set_epoch(self, epoch: int, epochs: int) -> tuple[float, float]:
        """What follows the epoch and is in no checkpoint, of the stage's `epochs`. Returns the learning rates of weights and alphas."""
        search, own = self.search, epoch - self.first_epoch
        scheduled, of = (own, epochs) if self.schedule_epochs is None else (epoch, self.schedule_epochs)
        progress = scheduled / max(1, of - 1)
        search.anneal(progress, scheduled)
        for monitor in self.monitors.values():
            monitor.before_epoch(search)
        # RobustDARTS, train_search.py: e / (E - 1). A final network's rises by e / E (`final.fit_final`).
        search.net.drop_path_prob = self.drop_path_prob * (progress if self.drop_path_rises else 1.0)
        set_skip_dropout(search.net, self.skip_dropout(own, epochs))
        return self.rates(epoch, epochs)

    def rates(self, epoch: int, epochs: int) -> tuple[float, float]:
        """The learning rates of weights and alphas in an epoch of the search, in a stage of so many."""
        scheduled, of = (epoch - self.first_epoch, epochs) if self.schedule_epochs is None else (epoch, self.schedule_epochs)
        lr, alpha_lr = (schedule(lr, scheduled + self.shift, of) for schedule, lr in zip(self.schedules, self.lr))
        return lr, alpha_lr

    def genotype(self) -> Genotype:
        """What the search has found: where a monitor ended it, the genotype that it went back to."""
        if self.verdict.stopped is not None:
            return self.verdict.genotype()
        return self.select(self.search.relaxation.mean().detach()) if self.finish is None else self.finish(self)


def fit_supernet(loop: SearchLoop, epochs: int, recorder: Recorder) -> None:
    """Trains weights and architecture parameters from where `loop.position` stands to the end of the last of the loop's `epochs`, or until
    a monitor ends the search. Positions and records count the epochs of the whole search, monitors those of the stage. Where a monitor
    sends the search back, epochs are recorded again."""
    search, position, steps = loop.search, loop.position, len(loop.train)
    loop.recorder = recorder
    every = max(1, steps // loop.snapshots)
    if not loop.trajectory.epochs:
        loop.trajectory.add(0.0, search.relaxation)
    end = loop.first_epoch + epochs
    if end == position.epoch > loop.first_epoch:  # gone on with after its last epoch: what comes next finds the loop as that epoch left it
        loop.set_epoch(end - 1, epochs)
    while position.epoch < end and loop.verdict.stopped is None:
        epoch, started = position.epoch, time.perf_counter()
        own = epoch - loop.first_epoch  # of this stage
        lr, alpha_lr = loop.set_epoch(epoch, epochs)
        if search.alpha_optimizer is not None:
            set_lr(search.alpha_optimizer, alpha_lr)
        search.net.train()
        if loop.graphed is not None:
            loop.graphed.refresh()
        done = position.scheduled_step - epoch * steps
        items = 0
        for batch in loop.train:
            set_lr(search.w_optimizer, lr * search.task.lr_factor(batch))
            due = own >= loop.alpha_begin and position.step % loop.alpha_every == 0
            val_batch = next(loop.alpha_batches) if due else None
            loop.totals.add(loop.step(batch, val_batch))
            for monitor in loop.monitors.values():
                monitor.after_step(search, batch, val_batch, position.step)
            position.step, done, items = position.step + 1, done + 1, items + search.group.items(batch)
            position.images += search.group.items(batch) + (0 if val_batch is None else search.group.items(val_batch))
            if done % every == 0 or done == steps:
                loop.trajectory.add(epoch + done / steps, search.relaxation)
            if done < steps:
                recorder.step(search.group.items(batch), loop.totals)
        loop.guard.look()
        seconds = time.perf_counter() - started
        end_epoch(loop, epochs, {"lr": lr, "alpha_lr": alpha_lr}, {"seconds": seconds, "items_per_s": items / seconds})


def end_epoch(loop: SearchLoop, epochs: int, rates: Mapping[str, float], speed: Mapping[str, float]) -> None:
    """After the last step of an epoch: evaluates the supernet, selects a genotype, asks the monitors, does what they say, and tells the
    recorder. rates, speed: what is recorded beside that."""
    search, position, recorder = loop.search, loop.position, loop.recorder
    epoch, own = position.epoch, position.epoch - loop.first_epoch
    mean = search.relaxation.mean().detach()
    train = search.task.metrics(loop.totals.means())
    val = loop.evaluate(counting(loop.val, position, search.group))
    loop.guard.check("validation loss", val["loss"])
    loop.totals.reset()
    position.epoch = epoch + 1
    genotype = loop.select(mean)
    loop.verdict.add(genotype)
    watched = {f"train_{k}": v for k, v in train.items()} | {f"val_{k}": v for k, v in val.items()}
    watched |= free_values(loop.space, genotype, mean, loop.cost)
    retry: Signal | None = None
    for name, monitor in loop.monitors.items():
        signal = monitor.after_epoch(Look(own, epochs, genotype, mean, search, loop.val, watched, loop.drawn))
        if not isinstance(signal, Signal):
            raise InterfaceError(f"monitor.{name}: {type(monitor).__qualname__}.after_epoch must return a Signal, got {seen(signal)}")
        watched |= signal.values
        if signal.warning is not None:
            recorder.line(f"{name}: {signal.warning}")
        if signal.stop is not None and loop.verdict.stopped is None:
            loop.verdict.stop(signal.stop, signal.back)
            recorder.line(f"{name}: {signal.stop}; the search ends with the genotype of epoch {loop.verdict.epoch + 1}")
        retry = retry or (signal if signal.retry is not None else None)
    if retry is not None and loop.verdict.stopped is None:
        loop.go_back(retry.back, retry.retry)
        recorder.line(f"back to what was learned until epoch {position.epoch}, with weight decay {retry.retry:g}")
    else:
        loop.remember(own)
    recorder.epoch({"epoch": epoch, **loop.about, "step": position.step, "images": position.images, **rates, **watched,
                    **loop.yardstick(genotype), **speed}, genotype)


def free_values(space: Space, genotype: Genotype, mean: EdgeWeights, cost: Cost | None) -> dict[str, float]:
    """What is recorded of every epoch because it costs nothing to know: `shares`; by kind of cell the mean entropy (nats) of the edges'
    weights; the cost of the genotype and the expected one of the weights, where the cost is not measured."""
    found = shares(space, genotype, mean) | {f"alpha_entropy/{kind}": value.item() for kind, value in entropies(mean).items()}
    if cost is not None:
        with suppress(CostError):  # a measured one has no expectation, and takes its time
            found |= {f"cost/{cost.name}_expected": cost.expected(mean).item(), f"cost/{cost.name}": float(cost(genotype))}
    return found


def set_skip_dropout(net: nn.Module, prob: float) -> None:
    for module in net.modules():
        if type(module) is MixedEdges:
            module.skip_dropout = prob
