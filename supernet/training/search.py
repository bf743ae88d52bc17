"""The loops: fitting a supernet, training a final network, evaluating one. A loop moves parts and tells a `Recorder`; it prints
nothing itself."""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ops.kernels import on_plain_path
from supernet.bilevel import Bilevel, Streams
from supernet.costs.base import Cost, CostError
from supernet.errors import Mendable
from supernet.genotype import Genotype
from supernet.monitors.base import Look, Monitor, Signal, shares
from supernet.networks.cell import MixedEdges
from supernet.optim.averaging import Average, NoAverage
from supernet.optim.optimizers import set_lr
from supernet.optim.schedules import Schedule
from supernet.relaxations.base import Relaxation, entropies
from supernet.space import Space
from supernet.tasks.classification import Batch, Task
from supernet.training.graphed import Graphed
from supernet.weights import EdgeWeights


class Diverged(Mendable, RuntimeError):
    """The loss is not finite any more. The message, one line, says when and where that began."""


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Recorder(Protocol):
    """What a loop tells of itself."""

    def step(self, items: int, totals: "Totals") -> None:
        """After every step that is followed by another one of its epoch: progress, checkpoints, interrupts."""

    def line(self, text: str) -> None:
        """What a person should read now."""

    def working(self) -> None:
        """Between parts of work that no checkpoint holds: interrupts."""

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        """After every epoch, with its numbers and the genotype that would be selected now: a line, metrics, a checkpoint."""


class Silent:
    """A recorder of what nobody looks at."""

    def step(self, items: int, totals: "Totals") -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def working(self) -> None:
        pass

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        pass


class Totals:
    """Sums over an epoch (loss, correct, count), kept on the device so that no step waits for them."""

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, stats: Mapping[str, Tensor]) -> None:
        self.sums += torch.stack([stats["loss"].double(), stats["correct"].double(), stats["count"].to(self.sums)])

    def means(self) -> dict[str, float]:
        """`loss` an image, `accuracy` in percent. Reads the device."""
        loss, correct, count = self.sums.tolist()
        return {"loss": loss / count, "accuracy": 100 * correct / count} if count else {"loss": float("nan"), "accuracy": float("nan")}

    def reset(self) -> None:
        self.sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums.copy_(state["sums"])


@dataclass
class Position:
    """Where a run stands: epochs done, and steps done in all. `repeated` counts those of epochs that a search went back over."""

    epoch: int = 0
    step: int = 0
    repeated: int = 0

    @property
    def scheduled_step(self) -> int:
        """Steps done of those that the run's epochs have."""
        return self.step - self.repeated

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": self.step, "repeated": self.repeated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.repeated = state["epoch"], state["step"], state["repeated"]


class Verdict:
    """The genotype of every epoch, and whether a monitor ended the search: why, and the epoch whose genotype is the result."""

    def __init__(self) -> None:
        self.genotypes: list[dict[str, Any]] = []
        self.stopped: str | None = None
        self.epoch: int | None = None

    def stop(self, why: str, back: int) -> None:
        self.stopped, self.epoch = why, max(0, len(self.genotypes) - 1 - back)

    def genotype(self) -> Genotype:
        return Genotype.from_json(self.genotypes[self.epoch])

    def state_dict(self) -> dict[str, Any]:
        return {"genotypes": list(self.genotypes), "stopped": self.stopped, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.genotypes, self.stopped, self.epoch = list(state["genotypes"]), state["stopped"], state["epoch"]


class History:
    """What a search had learned after some of its epochs, by epoch, so that it can go back there."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Any]] = {}

    def remember(self, epoch: int, parts: Mapping[str, Stateful], depth: int) -> None:
        """Keeps a copy, and those of the `depth` epochs before."""
        self.states[epoch] = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        self.states = {e: state for e, state in self.states.items() if epoch - depth <= e}

    def nearest(self, epoch: int) -> int | None:
        """The last epoch until `epoch` that is remembered; where none is, the first after it; None where nothing is remembered."""
        return max((e for e in self.states if e <= epoch), default=min(self.states, default=None))

    def restore(self, epoch: int, parts: Mapping[str, Stateful]) -> None:
        """Gives the parts what they held; later states are dropped."""
        for name, part in parts.items():
            part.load_state_dict(copy.deepcopy(self.states[epoch][name]))  # else what is trained on would be this copy
        self.states = {e: state for e, state in self.states.items() if e <= epoch}

    def state_dict(self) -> dict[str, Any]:
        return {"states": self.states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.states = dict(state["states"])


class Generators(dict[str, torch.Generator]):
    """Named sources of randomness, all made from one seed, saved and restored together."""

    @classmethod
    def from_seed(cls, seed: int, devices: Mapping[str, torch.device]) -> "Generators":
        """One generator a name; what one draws does not depend on which others there are."""
        made = cls()
        for name, device in devices.items():
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            made[name] = torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "little"))
        return made

    def state_dict(self) -> dict[str, Any]:
        return {name: generator.get_state() for name, generator in self.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, generator in self.items():
            generator.set_state(state[name])


class Trajectory:
    """Snapshots of the alphas and of the mean edge weights over a search, for the record. They stay on the device until they are asked
    for, so that no step waits for one."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.tables: dict[str, list[Tensor]] = {}

    def add(self, epoch: float, relaxation: Relaxation) -> None:
        self.epochs.append(epoch)
        with torch.no_grad():
            tables = {f"alpha.{name}": p for name, p in relaxation.recorded().items()}
            tables |= {f"weights.{kind}": w.ops for kind, w in relaxation.mean().items()}
            for name, table in tables.items():
                self.tables.setdefault(name, []).append(table.detach().float().clone())

    def arrays(self) -> dict[str, Any]:
        """`epoch` (T,) and one (T, E, O) array a table."""
        epochs = torch.tensor(self.epochs, dtype=torch.float64).numpy()
        return {"epoch": epochs} | {name: table.numpy() for name, table in self._on_host().items()}

    def _on_host(self) -> dict[str, Tensor]:
        self.tables = {name: [table.cpu() for table in tables] for name, tables in self.tables.items()}
        return {name: torch.stack(tables) for name, tables in self.tables.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": list(self.epochs), "tables": self._on_host()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs, self.tables = list(state["epochs"]), {k: list(v) for k, v in state["tables"].items()}


class Guard:
    """Stops a run whose numbers are not finite any more, before they are trained on or saved.

    On the CPU every number is looked at before anything moves. On a GPU that would make every step wait, so numbers are
    collected and looked at every `every` steps and before every checkpoint; the step reported is still the first bad one.
    """

    def __init__(self, net: nn.Module, device: torch.device, every: int, position: Position, describe: Callable[[Batch], str]):
        self.net, self.position, self.describe = net, position, describe
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
        if not all(finite):
            what, step, value, batch = recent[finite.index(False)]
            self._stop(f"the {what} is {value.item()}", step, batch)

    def before_save(self) -> None:
        """Looks at what was collected and at the weights, so that no checkpoint holds what cannot be trained on."""
        self.look()
        norms = torch._foreach_norm([p.detach() for p in self.net.parameters()])
        if not torch.isfinite(torch.stack(norms)).all():
            self._stop("a weight is not finite", self.position.step, self.last)

    def check(self, what: str, value: float) -> None:
        """The same for a number on the host, of an evaluation."""
        if not math.isfinite(value):
            raise Diverged(f"the {what} is {value} after epoch {self.position.epoch}, step {self.position.step} of the run, where the "
                           f"training losses were still finite: evaluation differs from training in batch norm's running statistics "
                           f"(compat.bn_statistics) and in dropout")

    def _stop(self, what: str, step: int, batch: Batch | None) -> None:
        where = "no batch was seen yet" if batch is None else self.describe(batch)
        raise Diverged(f"{what} in epoch {self.position.epoch}, step {step} of the run: {where}")


def first_nonfinite(net: nn.Module, weights: EdgeWeights | None, batch: Batch, **call: Any) -> str:
    """Names what was not finite first: the input, the edge weights, a parameter, a module's output, or only the loss."""
    if not torch.isfinite(batch[0]).all():
        return "the batch's images hold values that are not finite"
    for kind, w in (weights or {}).items():
        if not torch.isfinite(w.ops).all():
            return f"the edge weights of {kind!r} are not finite"
    for name, p in net.named_parameters():
        if not torch.isfinite(p).all():
            return f"parameter {name} is not finite"
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
    return f"first in the output of {found[0]}" if found else "every output of the network is finite, so it is the loss itself"


@torch.no_grad()
def evaluate(net: nn.Module, task: Task, batches: Iterable[Batch], draw: Callable[[], EdgeWeights | None], generator: torch.Generator,
             context: Callable[[], AbstractContextManager[Any]] = nullcontext) -> dict[str, float]:
    """The task's metrics in evaluation mode, over all batches; `draw` gives the edge weights of each."""
    training = net.training
    if training:  # a walk over thousands of modules, which who evaluates a network many times spares
        net.eval()
    totals = Totals(next(net.parameters()).device)
    state = None
    for batch in batches:
        with context():
            _, stats, state = task(net, batch, draw(), state=state, generator=generator)
        totals.add(stats)
    if training:
        net.train()
    return task.metrics(totals.means())


def no_yardstick(genotype: Genotype) -> Mapping[str, float]:
    """Nothing is known of any genotype."""
    return {}


@dataclass
class SearchLoop:
    """What a search, or one stage of it, needs beside its `Bilevel`. `shift`: added to the epoch that the schedules see."""

    search: Bilevel
    train: Any
    alpha_batches: Any
    val: Any
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
    drop_path_prob: float = 0.0  # reached in a straight line over the epochs
    skip_dropout: Callable[[int, int], float] = lambda epoch, epochs: 0.0  # of candidate skip connections, by epoch
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
                        self.generators["net"], search.context)

    def evaluate_batch(self) -> None:
        """One batch of an evaluation, to see what it takes."""
        self.evaluate([next(iter(self.val))])

    def learned(self) -> dict[str, Stateful]:
        """What training changes, by the name it has in a checkpoint."""
        s = self.search
        alpha = {} if s.alpha_optimizer is None else {"alpha_optimizer": s.alpha_optimizer}
        return {"net": s.net, "relaxation": s.relaxation, "w_optimizer": s.w_optimizer, **alpha, "streams": s.streams,
                "memory": s.memory, **{f"penalty_{n}": penalty for n, penalty in enumerate(s.penalties)},
                **{f"monitor_{name}": monitor for name, monitor in self.monitors.items()}}

    def parts(self) -> dict[str, Stateful]:
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
            group["weight_decay"] = weight_decay
        self.position.repeated += (self.position.epoch - 1 - healthy) * len(self.train)
        self.position.epoch = healthy + 1
        del self.verdict.genotypes[healthy + 1:]

    def set_epoch(self, epoch: int, epochs: int) -> tuple[float, float]:
        """What follows the epoch and is in no checkpoint, of the stage's `epochs`. Returns the learning rates of weights and alphas."""
        search, own = self.search, epoch - self.first_epoch
        scheduled, of = (own, epochs) if self.schedule_epochs is None else (epoch, self.schedule_epochs)
        search.anneal(scheduled / max(1, of - 1), scheduled)
        for monitor in self.monitors.values():
            monitor.before_epoch(search)
        search.net.drop_path_prob = self.drop_path_prob * scheduled / of
        set_skip_dropout(search.net, self.skip_dropout(own, epochs))
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
            position.step, done, items = position.step + 1, done + 1, items + batch[1].numel()
            if done % every == 0 or done == steps:
                loop.trajectory.add(epoch + done / steps, search.relaxation)
            if done < steps:
                recorder.step(batch[1].numel(), loop.totals)
        loop.guard.look()
        seconds = time.perf_counter() - started
        mean = search.relaxation.mean().detach()
        train = search.task.metrics(loop.totals.means())
        val = loop.evaluate(loop.val)
        loop.guard.check("validation loss", val["loss"])
        loop.totals.reset()
        position.epoch = epoch + 1
        genotype = loop.select(mean)
        loop.verdict.genotypes.append(genotype.to_json())
        watched = {f"train_{k}": v for k, v in train.items()} | {f"val_{k}": v for k, v in val.items()}
        watched |= free_values(loop.space, genotype, mean, loop.cost)
        retry: Signal | None = None
        for name, monitor in loop.monitors.items():
            signal = monitor.after_epoch(Look(own, epochs, genotype, mean, search, loop.val, watched))
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
        recorder.epoch({"epoch": epoch, **loop.about, "step": position.step, "lr": lr, "alpha_lr": alpha_lr, **watched,
                        **loop.yardstick(genotype), "seconds": seconds, "items_per_s": items / seconds}, genotype)


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


@dataclass
class FinalLoop:
    """What the training of a final network needs. `context` opens mixed precision around a forward pass."""

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
    streams: Streams = field(default_factory=Streams)
    average: Average = field(default_factory=NoAverage)

    def parts(self) -> dict[str, Stateful]:
        """All that moves, by the name it has in a checkpoint."""
        return {"net": self.net, "optimizer": self.optimizer, "generators": self.generators, "train": self.train,
                "streams": self.streams, "average": self.average, "totals": self.totals, "position": self.position}

    def evaluate_batch(self) -> None:
        """One batch of an evaluation, to see what it takes; nothing where no images are held out."""
        if self.val is not None:
            evaluate(self.net, self.task, [next(iter(self.val))], lambda: None, self.generators["net"], self.context)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the weights."""
        with self.context():
            net = self.net if self.call is None else self.call
            state = self.streams.before("train", batch)
            loss, stats, state = self.task(net, batch, state=state, generator=self.generators["net"])
        self.guard("training loss", loss, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
        self.optimizer.step()
        self.average.after_step(list(self.net.parameters()))
        self.streams.states["train"] = state
        return stats


def fit_final(loop: FinalLoop, epochs: int, recorder: Recorder) -> None:
    """Trains a final network from where `loop.position` stands. `loop.test`, where given, is evaluated after every epoch."""
    position, steps = loop.position, len(loop.train)
    for epoch in range(position.epoch, epochs):
        started = time.perf_counter()
        lr = loop.schedule(loop.lr, epoch + loop.shift, epochs)
        loop.net.drop_path_prob = loop.drop_path_prob * epoch / epochs  # DARTS, train.py: 0 in the first epoch
        loop.net.train()
        done = position.step - epoch * steps
        items = 0
        for batch in loop.train:
            set_lr(loop.optimizer, lr * loop.task.lr_factor(batch))
            loop.totals.add(loop.step(batch))
            position.step, done, items = position.step + 1, done + 1, items + batch[1].numel()
            if done < steps:
                recorder.step(batch[1].numel(), loop.totals)
        loop.guard.look()
        seconds = time.perf_counter() - started
        record = {"epoch": epoch, "step": position.step, "lr": lr, "drop_path_prob": loop.net.drop_path_prob}
        record |= {f"train_{k}": v for k, v in loop.task.metrics(loop.totals.means()).items()}
        for name, batches in (("val", loop.val), ("test", loop.test)):
            if batches is not None:
                with loop.average.evaluated(list(loop.net.parameters())):
                    means = evaluate(loop.net, loop.task, batches, lambda: None, loop.generators["net"], loop.context)
                loop.guard.check(f"{name} loss", means["loss"])
                record |= {f"{name}_{key}": value for key, value in means.items()}
        loop.average.after_epoch(record.get("val_loss"))
        loop.totals.reset()
        position.epoch = epoch + 1
        recorder.epoch(record | {"seconds": seconds, "items_per_s": items / seconds}, None)
