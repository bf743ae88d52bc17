"""A run as the processes behind the first one live it."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from supernet.genotype import Genotype
from supernet.processes.together import Together
from supernet.runs.interrupt import Interrupt
from supernet.runs.run import Interrupted, check_same
from supernet.training.records import Stateful, Totals


@dataclass
class Follower:
    """What `Run` is in the first process (a `supernet.training.records.Recorder`): it writes and says nothing, and takes part in all that
    is decided together, at the moments at which the first one does. parts, before_save: as of a `Run`."""

    group: Together
    parts: Mapping[str, Stateful]
    before_save: Callable[[], None]
    interrupt: Interrupt = field(default_factory=Interrupt)

    def __enter__(self) -> "Follower":
        self.interrupt.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.interrupt.__exit__(*error)

    def resume(self) -> None:
        """Takes over what the first process has read from a checkpoint."""
        state = torch.load(io.BytesIO(self.group.take()), weights_only=True, map_location="cpu")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def begin(self) -> None:
        check_same(self.group, self.parts)

    def step(self, items: int, totals: Totals) -> None:
        stops, due = self.interrupt.agreed(self.group)
        if stops or due:
            self.before_save()
        if stops:
            raise Interrupted

    def line(self, text: str) -> None:
        pass

    def working(self, done: int = 0, total: int = 0, item: str = "") -> None:
        if self.interrupt.agreed(self.group)[0]:
            raise Interrupted

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        check_same(self.group, self.parts)
        self.before_save()
        self.working()

    def begun_work(self) -> None:
        if self.group.largest(0.0)[0]:
            self.before_save()
