"""A task, a process that may run anywhere, and what all launchers have in common: a task is a command, and to stop is a file.

A launcher only decides where `work(task)` is called. What the task does it says in its own run folder, which all machines share; so the
table of a sweep, its going on and its stopping are the same for all of them.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from supernet.errors import UsageError

POLL_S = 0.2  # between two looks at a process, and at whether to stop
PASSED_ON_S = 60  # how long a script has to save, once the machine is taken back
NOT_STARTED = -1000  # the code of a task that was told to stop before it began; no signal has that number


@dataclass(frozen=True)
class Task:
    """A command to run, its name, the file that takes what it prints, and the file whose being there says to stop. Plain values, so that it
    can be sent to another machine."""

    name: str
    command: tuple[str, ...]
    cwd: str
    log: str
    stop: str
    environment: tuple[tuple[str, str], ...] = ()  # beside that of the process which runs it


@dataclass(frozen=True)
class Outcome:
    """How a task's process ended: its exit code, or minus the signal that killed it, and, where that is not 0, the line that says why."""

    code: int
    error: str = ""

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop, or never began: a signal did that, or a script that saved when it got one."""
        return self.code < 0 or self.code > 128


class Launcher(Protocol):
    """Where tasks run."""

    def ended(self, work: Callable[[Task], Outcome], tasks: Sequence[Task],
              stopping: Callable[[], bool]) -> Iterator[tuple[Task, Outcome] | None]:
        """Runs `work` on each task, somewhere. Yields each with its outcome as it ends, and None several times a second meanwhile, so that
        whoever iterates can look around. Once `stopping()` holds, what has not begun need not begin; what has ends by itself (`work`)."""
        ...


def work(task: Task) -> Outcome:
    """Runs the task's command to its end. While the file `task.stop` is there, nothing begins and what has begun is asked to save and to
    end, as by Ctrl-C."""
    if Path(task.stop).exists():
        return Outcome(NOT_STARTED, "not started")
    with open(task.log, "ab") as log:
        begin = log.tell()
        process = subprocess.Popen(task.command, cwd=task.cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   env=os.environ | dict(task.environment),
                                   process_group=0)  # Ctrl-C in the terminal is for the sweep, which asks once
        at_work.add(process)
        try:
            code = waited(process, Path(task.stop))
        finally:
            at_work.discard(process)
    told = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return Outcome(code, (said(task.log, begin) or told) if code else "")


def waited(process: subprocess.Popen[bytes], stop: Path) -> int:
    """The exit code, once the process has ended. It is asked to end when the file is there, and again for as long as that is written anew
    (a second Ctrl-C)."""
    asked = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        with contextlib.suppress(OSError):
            seen = stop.stat().st_mtime_ns
            if seen != asked:
                asked = seen
                process.send_signal(signal.SIGINT)


def pass_on(number: int) -> None:
    """Sends a signal to the commands of this process, and waits until they have ended. For the handler of a signal, which may have come in
    the middle of a wait for them: so they are looked at, and left for that one to wait for."""
    for process in list(at_work):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
    end = time.monotonic() + PASSED_ON_S
    for process in list(at_work):
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < end and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(POLL_S / 2)


at_work: set[subprocess.Popen[bytes]] = set()  # the commands of this process


def said(log: str | os.PathLike, begin: int = 0) -> str:
    """The line of a command's output that says why it failed: the first error of ours, else the last line, where a traceback says it."""
    with open(log, "rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read(10_000_000).decode(errors="replace").splitlines() if line.strip()]
    ours = next((line for line in lines if line.startswith("error: ")), None)
    return (ours or (lines[-1] if lines else "")).removeprefix("error: ")[:500]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def share(places: int) -> tuple[tuple[str, str], ...]:
    """The environment of each of so many tasks on this machine: its share of the cores as threads, unless whoever started this has said how
    many. An option `threads` of the task's own goes before it."""
    return () if "OMP_NUM_THREADS" in os.environ else (("OMP_NUM_THREADS", str(max(1, cores() // places))),)


def ask(stop: str | os.PathLike) -> None:
    """Asks all tasks that look at this file to end after their step; asked again, at once."""
    path = Path(stop)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, ns=(time.time_ns(), time.time_ns()))


def library(package: str, launcher: str) -> Any:
    """The library of a launcher. Raises UsageError: it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise UsageError(f"launcher={launcher} needs the package {package}, which cannot be imported ({error}): pip install {package}, or "
                         "pip install 'supernet[sweep]'") from error


