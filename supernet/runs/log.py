"""Where a run's numbers go beside its journals: `Progress`, one line on a terminal (and `supernet.runs.tracker`: W&B, where wanted)."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO


class Progress:
    """One line that is redrawn in place: `epoch 3/50  step 120/391  loss 1.234  acc 45.6 %  812 images/s  12:34 left`.

    Silent where `stream` is not a terminal, but for `line`. Time left follows the mean pace since this process began, pauses
    for evaluation included; items a second those of about the last ten seconds.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int, *, start_step: int = 0, item: str = "image", stream: TextIO | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.start_step = start_step
        self.item = item
        self._stream = sys.stderr if stream is None else stream
        self._shows = self._stream.isatty()
        self._clock = clock
        self._start = self._last_update = clock()
        self._last_draw = float("-inf")
        self._items = self._seconds = 0.0  # both fade alike, so that their quotient is a recent rate
        self._drawn = ""

    def update(self, step: int, fields: Callable[[], Mapping[str, float]], items: int) -> None:
        """`step` steps of the whole run are done, the last one with `items` items (images, words). Draws at most five times a second.

        `fields` is called only when a line is drawn, since reading a GPU makes it wait. A field's name may end in its
        unit: `{"acc %": 45.6}` reads `acc 45.6 %`.
        """
        now = self._clock()
        fade = 0.5 ** ((now - self._last_update) / 10)
        self._items = fade * self._items + items
        self._seconds = fade * self._seconds + (now - self._last_update)
        self._last_update = now
        if self._shows and now - self._last_draw >= 0.2:
            self._last_draw = now
            self._draw(self._text(step, fields(), now))

    def line(self, text: str) -> None:
        """Prints a line that stays, above the moving one."""
        moving = self._drawn
        self._draw("")
        self._stream.write(text + "\n")
        self._draw(moving)
        self._stream.flush()

    def close(self) -> None:
        """Takes the moving line away."""
        self._draw("")

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
            f"{_duration(left)} left",
        ])

    def _draw(self, text: str) -> None:
        """Replaces the line drawn last. Blanks, not escape codes, wipe it: every terminal knows those."""
        if not (self._shows and (text or self._drawn)):
            return
        # A terminal that does not know its width says 0. The last column stays free: some wrap when it is filled.
        text = text[: (os.get_terminal_size(self._stream.fileno()).columns or 80) - 1]
        blanks = " " * (len(self._drawn) - len(text))
        self._stream.write(f"\r{text}{blanks}" if text else f"\r{blanks}\r")
        self._stream.flush()
        self._drawn = text


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "--:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
