"""Processes that work for a command: tasks in, results out, in order or as they come."""

import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

from supernet.commands.worker import end_with
from supernet.errors import Mendable

T, R = TypeVar("T"), TypeVar("R")
WAITING_TASKS = 2  # for each process, handed out before the first result is fetched: none is idle, and few are done for nothing
LOOKS_S = 0.2  # between looks whether the command was asked to stop


class WorkerDied(Mendable, RuntimeError):
    """A worker ended by itself. The message is one line."""


class Pool:
    """`processes` new ones, which call `start(*arguments)` first; made when the first task is there, and gone at the end of the block, at
    once where it ends by an error. `start` and what works are functions of a module, and what they take and return is plain data.

    A worker leaves signals that its terminal sends to all (Ctrl-C) to the command, and ends when the command was killed. working: called
    while results are waited for; it may raise.
    """

    def __init__(self, processes: int, start: Callable[..., None], arguments: tuple = (), *, working: Callable[[], None] = lambda: None):
        context = multiprocessing.get_context("spawn")
        self.processes, self.working = processes, working
        self._dropped = False
        theirs, self._line = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin,
                                             initargs=(os.getpid(), theirs, start, arguments))

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None or self._dropped:
            self._line.close()  # ends the workers; else the end would wait for tasks under way whose results nobody fetches
        self._executor.shutdown(cancel_futures=True)
        self._line.close()

    def ordered(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """The results in the order of the tasks. Tasks are taken as there is room for them. Raises WorkerDied, and what `work` raises."""
        left, under_way = iter(tasks), deque[Future[R]]()
        try:
            while True:
                for task in itertools.islice(left, WAITING_TASKS * self.processes - len(under_way)):
                    under_way.append(self._submit(work, task))
                if not under_way:
                    return
                self._wait([under_way[0]])
                yield _result(under_way.popleft())
        finally:
            self._drop(under_way)

    def as_they_come(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Each task with its result. Raises as `ordered`."""
        left, under_way = iter(tasks), dict[Future[R], T]()
        try:
            while True:
                for task in itertools.islice(left, WAITING_TASKS * self.processes - len(under_way)):
                    under_way[self._submit(work, task)] = task
                if not under_way:
                    return
                for future in self._wait(under_way):
                    yield under_way.pop(future), _result(future)
        finally:
            self._drop(under_way)

    def _drop(self, futures: Iterable["Future[R]"]) -> None:
        for future in futures:
            self._dropped |= not future.cancel()

    def _submit(self, work: Callable[[T], R], task: T) -> "Future[R]":
        try:
            return self._executor.submit(work, task)
        except BrokenProcessPool as error:
            raise _died() from error

    def _wait(self, futures: Iterable["Future[R]"]) -> "set[Future[R]]":
        while not (done := wait(futures, LOOKS_S, FIRST_COMPLETED).done):
            self.working()
        return done


def _result(future: "Future[R]") -> R:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _died() from error


def _died() -> WorkerDied:
    return WorkerDied("a worker process ended by itself (killed, or there was not enough memory for so many): what was finished is kept, "
                      "and the same command goes on, with fewer processes if need be")


def _begin(parent: int, line: Connection, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with(parent, line)
    start(*arguments)
