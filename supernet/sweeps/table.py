"""How jobs stand, as text: a table that is redrawn on a terminal, a line for each change elsewhere."""

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from supernet.runs.progress import duration
from supernet.sweeps.running import Lines, Shown
from supernet.sweeps.states import Kind, State, counted

ORDER: tuple[Kind, ...] = ("running", "starting", "failed", "elsewhere", "stopped", "waiting", "finished")  # where not all fit
SAID = {"elsewhere": "not here"}


def shown_on(stream: TextIO | None = None) -> Shown:
    """A live table where somebody looks, else lines."""
    stream = sys.stderr if stream is None else stream
    return Table(stream) if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" else Lines()


class Table:
    """A table that is redrawn in place, as high as the terminal at most: what is at work and what failed stays in sight."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._height = 0  # of what was drawn last
        self._lines: list[str] = []

    def update(self, states: Sequence[State]) -> None:
        columns, lines = os.get_terminal_size(self._stream.fileno())
        room = max(1, (lines or 24) - 3)
        kept = {id(state) for state in sorted(states, key=lambda state: ORDER.index(state.kind))[:room]}
        rows = table([state for state in states if id(state) in kept])
        hidden = [f"  ... {len(states) - len(kept)} more"] if len(kept) < len(states) else []
        self._lines = [line[: (columns or 80) - 1] for line in [headline(states), *rows, *hidden]]
        self._draw()

    def line(self, text: str) -> None:
        self._wipe()
        self._stream.write(text + "\n")
        self._draw()

    def _wipe(self) -> None:
        if self._height:
            self._stream.write(f"\x1b[{self._height}A\x1b[J")
        self._height = 0

    def _draw(self) -> None:
        self._wipe()
        self._stream.write("".join(line + "\n" for line in self._lines))
        self._stream.flush()
        self._height = len(self._lines)


def headline(states: Sequence[State]) -> str:
    """How many jobs there are of each kind, and how long the rest may take."""
    counts = ", ".join(f"{n} {SAID.get(kind, kind)}" for kind, n in counted(states))
    left = left_s(states)
    return f"{len(states)} jobs: {counts}" + ("" if left is None else f"; about {duration(left)} left")


def left_s(states: Sequence[State]) -> float | None:
    """Seconds until all are done, by the pace of those that have begun; None where none is at work, or none has done an epoch."""
    working = [state for state in states if state.kind in ("running", "starting")]
    paces = [state.elapsed_s / state.epoch for state in states if state.epoch]
    if not working or not paces:
        return None
    pace = sum(paces) / len(paces)
    rest = sum(state.left_s if state.left_s is not None else pace * state.job.epochs
               for state in states if state.kind in ("running", "starting", "waiting", "stopped"))
    return rest / len(working)


def table(states: Sequence[State]) -> list[str]:
    """A line for each job."""
    if not states:
        return []
    name = min(60, max(len(state.job.name) for state in states))
    return [row(state, name).rstrip() for state in states]


def row(state: State, width: int) -> str:
    name = state.job.name if len(state.job.name) <= width else state.job.name[:width - 3] + "..."
    epoch = f"{state.epoch}/{state.job.epochs}" if state.epoch else ""
    best = "" if state.best is None else f"{state.best:.2f} %"
    left = duration(state.left_s) if state.kind == "running" and state.left_s is not None else ""
    said = SAID.get(state.kind, state.kind)
    return f"  {said:8}  {name:{width}}  seed {state.job.seed:<4} {epoch:>9}  {best:>8}  {left:>8}  {state.error}"
