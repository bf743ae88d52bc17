"""What a long command says of how far it is: a line that is redrawn in place where somebody looks, else a line now and then."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TextIO, TypeVar

Piece = TypeVar("Piece")

DRAW_S = 0.2  # between two drawings of a moving line
FIRST_S, MOST_S = 60.0, 600.0  # between two lines where nobody looks: a minute, twice as long each time, ten minutes at most


class Moving:
    """The last line of the output. On a terminal it is redrawn in place, at most five times a second, and what is printed through `line`
    stays above it. Elsewhere a log is being written, and it is printed after a minute without another line, then more and more rarely."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shows = self._stream.isatty()
        self._clock = clock
        self._pause = FIRST_S
        self._last = float("-inf") if self._shows else clock()
        self._drawn = ""

    def show(self, text: Callable[[], str]) -> None:
        """`text` is called only when it is drawn, since what it tells may have to be waited for."""
        now = self._clock()
        if now - self._last < (DRAW_S if self._shows else self._pause):
            return
        self._last = now
        if self._shows:
            self._draw(text())
        else:
            self._pause = min(2 * self._pause, MOST_S)
            self._stream.write(text() + "\n")
            self._stream.flush()

    def line(self, text: str) -> None:
        """Prints a line that stays, above the moving one."""
        moving = self._drawn
        self._draw("")
        self._stream.write(text + "\n")
        self._draw(moving)
        self._stream.flush()
        if not self._shows:
            self._last = self._clock()

    def close(self) -> None:
        """Takes the moving line away."""
        self._draw("")

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


class Counted:
    """So many of `total` pieces of work are done: `37/120 architectures  2.1 a second  00:39 left  ...`. Time left follows the mean pace
    since this began, so `total` is what is left to do here. Within `with`, the line is taken away at the end."""

    def __init__(self, total: int, item: str, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.item, self.done = total, item, 0
        self._moving, self._clock, self._start = Moving(stream, clock), clock, clock()

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._moving.close()

    def add(self, n: int = 1, said: str = "") -> None:
        """`n` more are done. said: what else the line tells, of the last one."""
        self.done += n
        self._moving.show(lambda: self._text(said))

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        self._moving.line(text)

    def hide(self) -> None:
        """Takes the line away until the next piece is done, for who prints elsewhere."""
        self._moving.close()

    def _text(self, said: str) -> str:
        return counted(self.done, self.total, self.item, self._clock() - self._start, said)


def tracked(pieces: Sequence[Piece], item: str, stream: TextIO | None = None) -> Iterator[Piece]:
    """The pieces, one after the other, counted as the next one is asked for."""
    with Counted(len(pieces), item, stream=stream) as progress:
        for piece in pieces:
            yield piece
            progress.add()


def counted(done: int, total: int, item: str, spent_s: float, said: str = "") -> str:
    """`37/120 architectures  2.1 a second  00:39 left`, and what else is said."""
    left = (total - done) * spent_s / done if done else None
    return "  ".join(filter(None, [f"{done:,}/{total:,} {item}", pace(done, spent_s), f"{duration(left)} left", said]))


def pace(done: float, seconds: float) -> str:
    """`2.1 a second`, `12 a minute`, `3.0 an hour`: in the unit in which it is at least 1."""
    if seconds <= 0:
        return ""
    size, unit = next(((size, unit) for size, unit in ((1, "a second"), (60, "a minute")) if done * size / seconds >= 1), (3600, "an hour"))
    rate = done * size / seconds
    return f"{rate:.1f} {unit}" if rate < 10 else f"{rate:,.0f} {unit}"


def duration(seconds: float | None) -> str:
    """`12:34`, `1:02:03`; dashes for what is not known."""
    if seconds is None:
        return "--:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
