"""Runs a list of jobs into a folder, so that nothing is done twice and nothing is lost.

    wanted = jobs("train_search", ["dataset=digits", "relaxation=gumbel"], "gumbel", seeds=[0, 1, 2])     # supernet.sweeps.jobs
    done = run_jobs(wanted, Path("runs/mine"), Local(processes=2))
    for state in done.states:
        if state.kind == "finished":
            values = summary_values(state.folder)                                                         # supernet.sweeps.states

`jobs` composes and checks options without reading data, and knows each job's digest. `run_jobs` runs those that are not finished under
the folder, by a launcher (`supernet.launchers`), and says what became of each: call it again with the same list, after a kill or on another
machine that shares the folder, and it does what is left. A job that is given twice is one job. What failed is not run again but with
`retry="failed"`. `Watch(folder).look(jobs)` says how they stand without running anything, `Watch(folder).runs()` has the runs by digest.
Jobs that need what others found (a genotype) are a second list for a second call.
"""

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from supernet.app.command_line import EXIT_ELSEWHERE
from supernet.errors import UsageError
from supernet.launchers.base import NOT_STARTED, Launcher, Outcome, Task, ask, work
from supernet.sweeps.jobs import Job
from supernet.sweeps.states import State, Watch

LOOK_S = 1.0  # between two looks at all runs


class Shown(Protocol):
    """Who is told how jobs stand."""

    def update(self, states: Sequence[State]) -> None:
        """Called about once a second, and at the end."""

    def line(self, text: str) -> None:
        """Something to say once."""


class Silent:
    """Tells nobody."""

    def update(self, states: Sequence[State]) -> None:
        pass

    def line(self, text: str) -> None:
        pass


@dataclass(frozen=True)
class Done:
    """What became of the jobs, in their order, each once; and the signal that stopped them, or why else they were."""

    states: list[State]
    signal: int | None = None
    given_up: str = ""
    run: frozenset[Job] = frozenset()  # those that were run now

    @property
    def stopped(self) -> bool:
        return self.signal is not None or self.given_up != ""

    def of(self, kind: str) -> list[State]:
        return [state for state in self.states if state.kind == kind]

    @property
    def code(self) -> int:
        """The exit code: 0 where all are finished, as a shell shows it where a signal stopped them, else 2."""
        return 128 + self.signal if self.signal is not None else 0 if len(self.of("finished")) == len(self.states) else 2


class Stopping(AbstractContextManager["Stopping"]):
    """Within, Ctrl-C, SIGTERM and SIGHUP ask all tasks to end after their step; a further Ctrl-C to end at once. Tasks look at a file, so
    that those on other machines learn of it as well. Handlers can be set in the main thread only; in another one `ask` is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.signal: int | None = None
        self.reason = ""
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if error[0] is None:
            self.path.unlink(missing_ok=True)
        else:
            ask(self.path)  # whatever happened here, nobody waits for those that are at work

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or int(number)
        ask(self.path)

    def ask(self, reason: str) -> None:
        """Asks all tasks to end after their step."""
        if not self.reason:
            self.reason = reason
            ask(self.path)

    def __call__(self) -> bool:
        return self.signal is not None or self.reason != ""


def run_jobs(jobs: Sequence[Job], output: Path, launcher: Launcher, *, retry: Literal["none", "failed"] = "none",
             max_failures: int | None = None, shown: Shown | None = None, begin: Callable[[], None] = lambda: None) -> Done:
    """Runs jobs to their end; those that are finished are skipped with a line.

    retry: `failed` runs those that failed before, and no others. max_failures: with one more, the others are stopped. A job that another
    process is at work on is waited for, and run here should that process end without having finished it. begin: is called once the folder
    is there. Raises UsageError: it cannot be written.
    """
    shown = shown or Silent()
    jobs = list({job.digest: job for job in jobs}.values())
    try:
        (output / "logs").mkdir(parents=True, exist_ok=True)
        begin()
    except OSError as error:
        raise UsageError(f"output={output}: cannot make the folder ({error.strerror})") from error
    watch = Watch(output)
    states = watch.look(jobs)
    for state in states:
        if state.kind == "finished":
            shown.line(f"skipped   {state.job.title}: finished in {state.folder.path}")
        if state.kind == "failed" and retry == "none":
            shown.line(f"failed    {state.job.title}: {state.error} (retry=failed runs it again)")
    wanted = ("failed",) if retry == "failed" else ("waiting", "stopped", "running", "elsewhere")
    left = [state.job for state in states if state.kind in wanted]
    failures, run = 0, set()
    with Stopping(output / "logs" / f"stop-{uuid.uuid4().hex}") as stopping:
        while left and not stopping():
            busy = {state.job.digest for state in watch.look(left) if state.kind == "running"}
            mine = [job for job in left if job.digest not in busy]
            if not mine:  # all that is left is under way elsewhere
                shown.update(watch.look(jobs))
                time.sleep(LOOK_S)
                ended = [state.job for state in watch.look(left) if state.kind == "finished"]
                left = [job for job in left if job not in ended]
                continue
            tasks = {task_of(job, output, stopping.path): job for job in mine}
            begun, looked = {job.digest: written_at(job, output) for job in mine}, 0.0
            for found in launcher.ended(work, list(tasks), stopping):
                if found is not None:
                    job = tasks[found[0]]
                    run.add(job)
                    kind = entered(watch, job, found[1], stopping())
                    failures += kind == "failed"
                    if kind != "running":
                        left.remove(job)
                    if max_failures is not None and failures > max_failures:
                        stopping.ask(f"{failures} jobs failed, and max_failures={max_failures} allows no more")
                if time.monotonic() - looked > LOOK_S:
                    shown.update([starting(state, output, begun[state.job.digest]) if state.job.digest in begun and state.job not in run
                                  else state for state in watch.look(jobs)])
                    looked = time.monotonic()
    states = watch.look(jobs)
    shown.update(states)
    return Done(states, stopping.signal, stopping.reason, frozenset(run))


def entered(watch: Watch, job: Job, outcome: Outcome, asked: bool) -> str:
    """What became of a job whose process has ended; a failure is written down, so that the next start knows it."""
    if outcome.code == 0 and watch.look([job])[0].kind == "finished":
        return "finished"
    if outcome.code == EXIT_ELSEWHERE and watch.look([job])[0].kind in ("running", "finished"):
        return watch.look([job])[0].kind  # another process was faster
    kind = "elsewhere" if outcome.code == EXIT_ELSEWHERE else "stopped" if outcome.stopped and (asked or outcome.code < 0) else "failed"
    if outcome.code != NOT_STARTED:
        error = outcome.error or "it ended without having finished"
        watch.ledger.add(job, kind, error)
    return kind


def log_of(job: Job, output: Path) -> Path:
    """What its processes print."""
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in job.name)[:120]
    return output / "logs" / f"{job.script.removeprefix('train_')}_{name}_seed{job.seed}_{job.digest[:8]}.log"


def task_of(job: Job, output: Path, stop: Path) -> Task:
    return Task(job.title, tuple(job.command(output)), os.getcwd(), str(log_of(job, output).absolute()), str(stop.absolute()))


def starting(state: State, output: Path, before: int | None) -> State:
    """A job whose process has begun, and has no run yet: it imports, and reads its data. before: when its log had been written to before.
    No other clock is compared, for that of the folder may be another machine's."""
    if state.kind not in ("waiting", "stopped", "failed") or written_at(state.job, output) == before:
        return state
    return State(state.job, "starting", state.folder, state.epoch, state.best, state.elapsed_s)


def written_at(job: Job, output: Path) -> int | None:
    """When its log was last written to, by the clock of the folder; None where there is none."""
    try:
        return log_of(job, output).stat().st_mtime_ns
    except OSError:
        return None


class Lines:
    """A line on stderr for each change of a state."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write or (lambda text: print(text, file=sys.stderr, flush=True))
        self._seen: dict[str, tuple[str, int]] = {}

    def update(self, states: Sequence[State]) -> None:
        for state in states:
            now = state.kind, state.epoch
            if self._seen.get(state.job.digest, ("waiting", 0)) != now:
                self._seen[state.job.digest] = now
                self._write(told(state))

    def line(self, text: str) -> None:
        self._write(text)


def told(state: State) -> str:
    """A state in one line."""
    parts = [f"{state.kind:9} {state.job.title}"]
    if state.epoch:
        parts.append(f"epoch {state.epoch}/{state.job.epochs}")
    if state.best is not None:
        parts.append(f"best {state.best:.2f} %")
    if state.error:
        parts.append(state.error)
    return "  ".join(parts)

