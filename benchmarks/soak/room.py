"""A disk that is full, and a limit on the size of files: is an error one line, is the work so far still there, and does a run that is gone
on with, once there is room, end as one that always had some?"""

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.soak.cases import Case
from benchmarks.soak.kills import compared, gone_on, last_line, standing, unbroken
from benchmarks.soak.subjects import EVERY, SUBJECTS, Subject
from tests.helpers import At, Ended

TRIED = {"search": 6, "final training": 6, "search by trials": 6, "table": 2}
SIZES = (2_000, 400_000)  # bytes that a file may have at most: less than a checkpoint of any of them


def cases(most: int) -> list[tuple[str, Callable[[], Case]]]:
    """A disk of a few megabytes that fills up (where one can be mounted), one that is full from some change of a file on, and files that
    cannot grow."""
    found: list[tuple[str, Callable[[], Case]]] = []
    for kind, make in (("full disk", full_disk), ("ENOSPC", no_space), ("RLIMIT_FSIZE", limited)):
        for name, count in TRIED.items():
            if kind == "full disk" and not can_mount():
                continue
            found += [(f"{kind}, {name} {n}", lambda make=make, name=name, n=n: make(name, n)) for n in range(min(most, count))]
    return found


def judged(subject: Subject, where: Path, ended: Ended, rng: random.Random, told: str) -> Case:
    """`ended` is the run that had no room. It goes on where there is some."""
    lines = [line for line in ended.err.splitlines() if line.strip()]
    if ended.code == 0:
        return compared(subject.left(where), unbroken(subject.name).left, f"{told}: there was room")
    if ended.code != 2 or "Traceback" in ended.err or not lines[-1].startswith("error: "):
        return Case("lost", f"{told}: exit code {ended.code}, {last_line(ended)}")
    return gone_on(subject, where, rng, f"{told}, {standing(where)}: {lines[-1][7:].replace(str(where), '')[-70:]}")


def full_disk(name: str, n: int) -> Case:
    """On a file system that has room for some of what the run writes."""
    subject, rng = SUBJECTS[name], random.Random(f"full {name} {n}")
    needed = size_of(name)
    with tempfile.TemporaryDirectory(prefix="soak_") as folder, small_disk(max(64, int(rng.uniform(0.05, 1.0) * needed / 1024))) as disk:
        subject.prepare(disk)
        ended = subject.ended(disk, rng.choice(EVERY))
        where = Path(folder) / "roomy"
        shutil.copytree(disk, where)
        return judged(subject, where, ended, rng, "full")


def no_space(name: str, n: int) -> Case:
    """From a drawn change of a file on, no file can be opened for writing and no folder made."""
    subject, rng = SUBJECTS[name], random.Random(f"ENOSPC {name} {n}")
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        subject.prepare(where)
        at = At(rng.randint(1, 40), "runs" if name != "table" else "toy", None)
        return judged(subject, where, subject.ended(where, EVERY[0], at=at), rng, f"from change {at.n} on")


def limited(name: str, n: int) -> Case:
    subject, rng = SUBJECTS[name], random.Random(f"size {name} {n}")
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        subject.prepare(where)
        most = int(rng.uniform(*SIZES)) if name != "table" else rng.randint(100, 2000)
        return judged(subject, where, subject.ended(where, rng.choice(EVERY), max_file_bytes=most), rng, f"files of {most:,} bytes")


def size_of(name: str) -> int:
    """Bytes that the run leaves."""
    subject = SUBJECTS[name]
    if name not in _sizes:
        with tempfile.TemporaryDirectory(prefix="soak_") as folder:
            subject.prepare(Path(folder))
            subject.ended(Path(folder), EVERY[1])
            _sizes[name] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return _sizes[name]


_sizes: dict[str, int] = {}


@contextmanager
def small_disk(kib: int) -> Iterator[Path]:
    where = Path(tempfile.mkdtemp(prefix="soak_disk_"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(where)], check=True, capture_output=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, capture_output=True)
        where.rmdir()


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    if not _may:
        try:
            with small_disk(64):
                _may.append(True)
        except (OSError, subprocess.CalledProcessError):
            _may.append(False)
    return _may[0]


_may: list[bool] = []
