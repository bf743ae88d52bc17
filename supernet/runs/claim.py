"""One of many processes, on one machine or several that share a folder, makes a thing that the others then find."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from supernet.runs.locks import FOLDER, Lock


@contextlib.contextmanager
def claim(output: Path, job: str) -> Iterator[None]:
    """Held by one process at a time; others wait here, for as long as it takes to make a run's folder. Whoever gets in looks again at what
    is there. Raises OSError: nothing can be written under `output`."""
    output.mkdir(parents=True, exist_ok=True)
    with _lock(output, job).held(wait=True):
        yield


def claimed(output: Path, job: str) -> bool:
    """Whether a process has it now."""
    return _lock(output, job).is_held()


def _lock(output: Path, job: str) -> Lock:
    return Lock(output / FOLDER, job[:32])
