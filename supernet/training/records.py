"""What a loop keeps of itself beside what it trains: where it stands, what it counted, what it found, and whom it tells."""

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from supernet.genotype import Genotype
from supernet.processes.group import ALONE, Group
from supernet.relaxations.base import Relaxation
from supernet.tasks.base import Batch, means


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Recorder(Protocol):
    """What a loop tells of itself."""

    def step(self, items: int, totals: "Totals") -> None:
        """After every step that is followed by another one of its epoch: progress, checkpoints, interrupts."""

    def line(self, text: str) -> None:
        """What a person should read now."""

    def working(self, done: int = 0, total: int = 0, item: str = "") -> None:
        """Between parts of work that no checkpoint holds: interrupts. done, total: of so many items, where that is known."""

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        """After every epoch, with its numbers and the genotype that would be selected now: a line, metrics, a checkpoint."""


class Silent:
    """A recorder of what nobody looks at."""

    def step(self, items: int, totals: "Totals") -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def working(self, done: int = 0, total: int = 0, item: str = "") -> None:
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
        return means(dict(zip(("loss", "correct", "count"), self.sums.tolist())))

    def reset(self) -> None:
        self.sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums.copy_(state["sums"])


class Sums:
    """All sums that a task gives of the batches of an evaluation, by name, of any shape, kept on the device until they are read. Whole
    numbers are summed as such, others in double precision."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, stats: Mapping[str, Tensor]) -> None:
        for name, value in stats.items():
            wide = torch.float64 if value.is_floating_point() else torch.int64
            if name in self.sums:
                self.sums[name] += value
            else:
                self.sums[name] = value.to(wide, copy=True)

    def on_host(self) -> dict[str, np.ndarray]:
        """Empty where nothing was added. Reads the device."""
        return {name: value.cpu().numpy() for name, value in self.sums.items()}


@dataclass
class Position:
    """Where a run stands: epochs done, and steps done in all. `repeated` counts those of epochs that a search went back over. images: seen
    so far, in training and evaluation, each as often as it was read (a step may compute with its batch several times). trials: how many
    architectures a selection at the end evaluated by themselves."""

    epoch: int = 0
    step: int = 0
    repeated: int = 0
    images: int = 0
    trials: int = 0

    @property
    def scheduled_step(self) -> int:
        """Steps done of those that the run's epochs have."""
        return self.step - self.repeated

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": self.step, "repeated": self.repeated, "images": self.images, "trials": self.trials}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.repeated = state["epoch"], state["step"], state["repeated"]
        self.images, self.trials = state["images"], state["trials"]


def counting(batches: Iterable[Batch], position: Position, group: Group = ALONE) -> Iterator[Batch]:
    """The batches, each of whose images is counted, those of the other processes' parts too."""
    for batch in batches:
        position.images += group.items(batch)
        yield batch


class Verdict:
    """The genotype of every epoch, and whether a monitor ended the search: why, and the epoch whose genotype is the result."""

    def __init__(self) -> None:
        self.genotypes: list[dict[str, Any]] = []
        self.stopped: str | None = None
        self.epoch: int | None = None

    def add(self, genotype: Genotype) -> None:
        """That of an epoch. One that is as that of the epoch before is kept once."""
        found = genotype.to_json()
        self.genotypes.append(self.genotypes[-1] if self.genotypes and self.genotypes[-1] == found else found)

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


MAX_SNAPSHOTS = 2000  # of a search's alphas, however long it is: every checkpoint has all of them


def snapshots(each_epoch: int, epochs: int) -> int:
    """How many snapshots an epoch has: as many as are asked for, in a long search fewer, but always one."""
    return max(1, min(each_epoch, MAX_SNAPSHOTS // max(1, epochs)))


class Trajectory:
    """Snapshots of the alphas and of the mean edge weights over a search, for the record. They stay on the device until they are asked
    for, so that no step waits for one; from then on they are one array a table, for thousands of small tensors take several times as much.
    """

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.tables: dict[str, list[Tensor]] = {}  # each is cut along time into pieces

    def add(self, epoch: float, relaxation: Relaxation) -> None:
        self.epochs.append(epoch)
        with torch.no_grad():
            tables = {f"alpha.{name}": p for name, p in relaxation.recorded().items()}
            mean = relaxation.mean()
            tables |= {f"weights.{kind}": w.ops for kind, w in mean.items()}
            tables |= {f"edge_weights.{kind}": w.edges for kind, w in mean.items() if w.edges is not None}
            if len(self.epochs) > 1:  # an older version's record, gone on with, has no tables but those that it began with
                tables = {name: table for name, table in tables.items() if name in self.tables}
            for name, table in tables.items():
                self.tables.setdefault(name, []).append(table.detach().float().clone()[None])

    def arrays(self) -> dict[str, Any]:
        """`epoch` (T,) and one (T, E, O) array a table; (T, E) of `edge_weights`, where edges have weights of their own."""
        epochs = torch.tensor(self.epochs, dtype=torch.float64).numpy()
        return {"epoch": epochs} | {name: table.numpy() for name, table in self._on_host().items()}

    def _on_host(self) -> dict[str, Tensor]:
        self.tables = {name: [torch.cat([piece.cpu() for piece in pieces])] for name, pieces in self.tables.items()}
        return {name: table for name, (table,) in self.tables.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": list(self.epochs), "tables": self._on_host()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs, self.tables = list(state["epochs"]), {k: [v] for k, v in state["tables"].items()}


@dataclass
class SearchRecords:
    """What the stages of a search share: where it stands, its alphas over time, and what it has found."""

    position: Position = field(default_factory=Position)
    trajectory: Trajectory = field(default_factory=Trajectory)
    verdict: Verdict = field(default_factory=Verdict)
