"""Where a run's numbers go beside its journals: `Progress`, one line on a terminal (and `supernet.runs.tracker`: W&B, where wanted)."""

import time
from collections.abc import Callable, Mapping
from typing import TextIO

from supernet.runs.progress import Moving, counted, duration


class Progress:
    """One line that is redrawn in place: `epoch 3/50  step 120/391  loss 1.234  acc 45.6 %  812 images/s  12:34 left`.

    Where `stream` is not a terminal, it is printed now and then alone. Time left follows the mean pace since this process began,
    pauses for evaluation included; items a second those of about the last ten seconds.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int, *, start_step: int = 0, item: str = "image", stream: TextIO | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.start_step = start_step
        self.item = item
        self._moving = Moving(stream, clock)
        self._clock = clock
        self._start = self._last_update = clock()
        self._work: tuple[str, float] | None = None  # what was told of last by `working`, and when that began
        self._items = self._seconds = 0.0  # both fade alike, so that their quotient is a recent rate

    def update(self, step: int, fields: Callable[[], Mapping[str, float]], items: int) -> None:
        """`step` steps of the whole run are done, the last one with `items` items (images, words).

        `fields` is called only when a line is drawn, since reading a GPU makes it wait. A field's name may end in its
        unit: `{"acc %": 45.6}` reads `acc 45.6 %`.
        """
        now = self._clock()
        fade = 0.5 ** ((now - self._last_update) / 10)
        self._items = fade * self._items + items
        self._seconds = fade * self._seconds + (now - self._last_update)
        self._last_update = now
        self._moving.show(lambda: self._text(step, fields(), now))

    def working(self, done: int, total: int, item: str) -> None:
        """Work between or after the steps, so much of it done: `37/120 architectures  2.1 a second  00:39 left`. Its first call, with
        `done` 0 where that is known, begins the clock."""
        now = self._clock()
        if self._work is None or self._work[0] != item:
            self._work = item, now
        began = self._work[1]
        self._moving.show(lambda: counted(done, total, item, now - began))

    def line(self, text: str) -> None:
        """Prints a line that stays, above the moving one."""
        self._moving.line(text)

    def close(self) -> None:
        """Takes the moving line away."""
        self._moving.close()

    def _text(self, step: int, fields: Mapping[str, float], now: float) -> str:
        epoch = max(0, step - 1) // self.steps_per_epoch
        in_epoch = step - epoch * self.steps_per_epoch
        done = step - self.start_step
        left = (self.total_steps - step) * (now - self._start) / done if done > 0 else None
        named = ((*name.partition(" "), value) for name, value in fields.items())
        return "  ".join([
            f"epoch {epoch + 1}/{-(-self.total_steps // self.steps_per_epoch)}",
            f"step {in_epoch}/{self.steps_per_epoch}",
            *(f"{name} {value:.4g} {unit}".rstrip() for name, _, unit, value in named),
            f"{self._items / self._seconds:.0f} {self.item}s/s" if self._seconds else f"-- {self.item}s/s",
            f"{duration(left)} left",
        ])
