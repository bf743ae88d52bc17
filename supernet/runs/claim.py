"""One of many processes, on one machine or several that share a folder, makes a thing that the others then find."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def claim(output: Path, job: str) -> Iterator[None]:
    """Held by one process at a time; others wait here, for as long as it takes to make a run's folder. Whoever gets in looks again at what
    is there. Raises OSError: nothing can be written under `output`.

    The lock is a file that is gone afterwards. So whoever has waited for it looks whether the one it got still lies there: two who hold
    different files of one name would both get in.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = _path(output, job)
    while True:
        file = open(path, "ab")  # noqa: SIM115  (closed below, or by the end of the process)
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                break
        file.close()
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def claimed(output: Path, job: str) -> bool:
    """Whether a process has it now, or was killed while it had it."""
    return _path(output, job).exists()


def _path(output: Path, job: str) -> Path:
    return output / f".{job[:32]}.claim"
