"""Stopping between two steps: Ctrl-C, SIGTERM, SIGHUP and SIGUSR2 set a flag that the loop reads, so that a checkpoint comes before the
exit."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from supernet.processes.group import Group


class Interrupt:
    """Within the block, the first SIGINT, SIGTERM, SIGHUP (its terminal was closed) or SIGUSR2 (a scheduler takes the machine back) only
    sets `signal`; a SIGINT after that raises KeyboardInterrupt at once.

    A job launcher may own SIGTERM: its handler is called as well, and all handlers are put back at the end. It may own SIGUSR2: there it
    queues the job anew and ends the process, so its handler is called at the end of the block, when all is saved. Python allows handlers
    in the main thread only; in another one this does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, object] = {}
        self._owner: Callable[[], object] | None = None

    @property
    def exit_code(self) -> int:
        """What a shell shows for a process ended by the signal (130 for Ctrl-C); 0 where none came."""
        return 0 if self.signal is None else 128 + self.signal

    def agreed(self, group: Group, due: bool = False) -> tuple[bool, bool]:
        """Whether a signal has come to any process of the group, which then counts as one to all; and whether anything is `due` in any."""
        number, found = group.largest(self.signal or 0, due)
        if number:
            self.signal = int(number)
        return bool(number), bool(found)

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_terminate)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: whoever started it wants it to go on
                self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_terminate)
            self._previous[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, self._on_preempted)
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was set by C code, and cannot be put back from here
        self._previous.clear()
        if self._owner is not None:
            self._owner()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = int(number)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or int(number)
        previous = self._previous.get(number)
        if callable(previous):  # SIG_DFL and SIG_IGN are numbers
            previous(number, frame)

    def _on_preempted(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or int(number)
        previous = self._previous.get(number)
        if callable(previous):
            self._owner = lambda: previous(number, None)
