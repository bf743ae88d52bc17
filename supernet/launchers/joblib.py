"""joblib: processes or threads of this machine, or whatever backend is registered with it (Dask, for one)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Annotated, Any

from supernet.launchers.base import NOT_STARTED, POLL_S, Outcome, Task, cores, library, share
from supernet.ranges import Range, ranged


@ranged
class Joblib:
    """`joblib.Parallel(n_jobs, backend)`; of negative `n_jobs` -1 are all cores, -2 all but one."""

    def __init__(self, n_jobs: Annotated[int, Range(-1024, 1024)] = -1, backend: str = "loky") -> None:
        self.n_jobs, self.backend = n_jobs, backend
        self.joblib = library("joblib", "joblib")

    def ended(self, work: Callable[[Task], Outcome], tasks: Sequence[Task],
              stopping: Callable[[], bool]) -> Iterator[tuple[Task, Outcome] | None]:
        places = min(self.n_jobs if self.n_jobs > 0 else max(1, cores() + 1 + self.n_jobs), max(1, len(tasks)))
        given = [replace(task, environment=(*task.environment, *share(places))) for task in tasks]
        queue: SimpleQueue[tuple[int, Outcome] | str] = SimpleQueue()

        def feed() -> None:
            """Its generator waits, and whoever iterates here looks around meanwhile."""
            try:
                parallel = self.joblib.Parallel(n_jobs=places, backend=self.backend, return_as="generator_unordered", batch_size=1)
                for found in parallel(self.joblib.delayed(numbered)(work, n, task, os.getpid()) for n, task in enumerate(given)):
                    queue.put(found)
                queue.put("joblib ended without it")
            except Exception as error:  # a worker that was killed, an unknown backend
                queue.put(f"joblib: {type(error).__name__}: {' '.join(str(error).split())}"[:300])

        threading.Thread(target=feed, daemon=True).start()
        left = set(range(len(tasks)))
        while left:
            yield None
            try:
                found = queue.get(timeout=POLL_S)
            except Empty:
                continue
            if isinstance(found, str):  # the end of them all
                for n in sorted(left):
                    yield tasks[n], Outcome(NOT_STARTED if stopping() else 1, found)
                return
            left.remove(found[0])
            yield tasks[found[0]], found[1]


def numbered(work: Callable[[Task], Any], number: int, task: Task, sweep: int) -> tuple[int, Any]:
    """A task's outcome with its number, for they come in any order. In a worker, Ctrl-C in the terminal is for the sweep alone."""
    if os.getpid() != sweep and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which children would inherit
    return number, work(task)
