"""Runs that are killed, or asked to stop, at a random moment, and gone on with: do they end as one that nobody disturbed?"""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.soak.cases import Case
from benchmarks.soak.subjects import EVERY, LIMIT_S, SUBJECTS, Subject
from supernet.runs.checkpoint_files import has_checkpoint, name_of, newest_first
from tests.helpers import Ended, Process, start
from tests.runs import folders

KILLS = {"search": 30, "search, stages and second order": 14, "search, sampled": 10, "final training": 20, "search by trials": 12,
         "search by trainings": 4, "table": 6}  # and those of sweeps (`benchmarks.soak.sweeps`)
STOPS = {"search": 15, "search, stages and second order": 6, "final training": 10, "search by trials": 8, "search by trainings": 4,
         "table": 4}
SIGNALS = (signal.SIGTERM, signal.SIGINT)
STARTING = 6


class Unbroken(NamedTuple):
    """What the subject leaves when nothing happens to it; its seconds of processor time until it writes, and in all."""

    left: dict[str, Any]
    begun_s: float
    whole_s: float


@cache
def unbroken(name: str) -> Unbroken:
    subject = SUBJECTS[name]
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where, begun = Path(folder), 0.0
        subject.prepare(where)
        process = start(subject.script_in(where), *subject.words(EVERY[1]), cwd=where, report=False)
        while not process.has_ended() and not [*where.glob("runs/*/run.json"), *where.glob("*.journal")]:
            begun = process.cpu_s()
            time.sleep(0.005)
        ended = process.wait(LIMIT_S)
        if ended.code:
            raise RuntimeError(f"{name}: the unbroken run ended with {ended.code}: {ended.err[-800:]}")
        return Unbroken(subject.left(where), begun, ended.cpu_s)


def killed(name: str, seed: int) -> Case:
    """`kill -9` at a moment drawn from the processor time of a run."""
    subject, rng = SUBJECTS[name], random.Random(f"kill {name} {seed}")
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        subject.prepare(where)
        ended = disturbed(subject, where, rng, signal.SIGKILL)
        assert ended.code == -signal.SIGKILL
        return gone_on(subject, where, rng, standing(where))


def asked(name: str, seed: int) -> Case:
    """SIGTERM or SIGINT at such a moment. A run that has begun saves, and says how to go on; before that it ends, in at most one line (but
    where Python imports modules and Ctrl-C ends that)."""
    subject, rng = SUBJECTS[name], random.Random(f"stop {name} {seed}")
    number = SIGNALS[seed % 2]
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        subject.prepare(where)
        ended = disturbed(subject, where, rng, number)
        told = f"{number.name} {standing(where)}"
        if "Traceback" in ended.err and "importlib._bootstrap" in ended.err and not folders(where):
            told = f"{number.name} while modules were imported"  # of which Python itself tells, and nothing was begun
        elif "Traceback" in ended.err:
            where_from = [line.strip() for line in ended.err.splitlines() if line.strip().startswith("File ")]
            return Case("lost", f"{told}: {last_line(ended)} ({where_from[-1][:200]})")
        elif ended.code not in (-number, 128 + number, 0):  # 0: the signal came when all was done
            return Case("lost", f"{told}: exit code {ended.code}, {last_line(ended)}")
        if "; saved." in ended.err and (why := unsaved(where, ended)):
            return Case("lost", f"{told}: {why}")
        return gone_on(subject, where, rng, told)


def disturbed(subject: Subject, where: Path, rng: random.Random, number: int) -> Ended:
    """A run that got the signal before its end: one in STARTING while it starts up, which takes most of the time of so small a run, the
    others at a moment of what follows."""
    of = unbroken(subject.name)
    while True:
        process = start(subject.script_in(where), *subject.words(rng.choice(EVERY)), cwd=where, report=False)
        at = rng.uniform(0, of.begun_s) if rng.random() < 1 / STARTING else rng.uniform(of.begun_s, of.whole_s)
        while not process.has_ended() and process.cpu_s() < at:
            time.sleep(0.005)
        if not process.has_ended():
            return sent(process, number)
        for path in where.glob("*"):  # it was faster than the one before: again, from nothing
            remove(path)
        subject.prepare(where)


def sent(process: Process, number: int) -> Ended:
    os.kill(process.pid, number)
    return process.wait(LIMIT_S)


def gone_on(subject: Subject, where: Path, rng: random.Random, told: str) -> Case:
    """Goes on to the end, and compares."""
    had = [f.path.name for f in folders(where) if has_checkpoint(f.checkpoints)]
    ended = subject.ended(where, rng.choice(EVERY))
    if ended.code or "Traceback" in ended.err:
        return Case("lost", f"{told}: going on ended with {ended.code}, {last_line(ended)}")
    if had and not any(word in ended.err for word in ("resuming", "left alone")):
        return Case("lost", f"{told}: it began anew beside {had[-1]}")
    return compared(subject.left(where), unbroken(subject.name).left, told)


def compared(seen: Mapping[str, Any], wanted: Mapping[str, Any], told: str) -> Case:
    differing = [key for key in {**wanted, **seen} if seen.get(key) != wanted.get(key)]
    return Case("wrong", f"{told}: {', '.join(differing)[:200]}") if differing else Case("survived", told)


def unsaved(where: Path, ended: Ended) -> str:
    """Why the checkpoint is not that of the step which the run says it stopped at; empty where it is."""
    said = next(line for line in ended.err.splitlines() if "; saved." in line)
    words = said.replace(",", "").replace(";", "").split()
    epoch, step = int(words[words.index("epoch") + 1]), int(words[words.index("step") + 1])
    newest = name_of(newest_first(folders(where)[-1].checkpoints)[0])
    return "" if newest == f"epoch_{epoch:05d}_step_{step:08d}" else f"{said}, but the newest checkpoint is {newest}"


def standing(where: Path) -> str:
    """How far it was, by what lies there."""
    for folder in folders(where)[-1:]:
        if (folder.status() or {}).get("status") == "finished":
            return "when it was finished"
        if newest := newest_first(folder.checkpoints):
            trials = folder.trials.read_bytes().count(b"\n") if folder.trials.exists() else 0
            return f"after {name_of(newest[0])}" + (f" and {trials} trials" if trials else "")
        return "before its first checkpoint"
    journal = where / "toy.csv.gz.journal"
    return f"after {len(journal.read_bytes().splitlines())} trainings" if journal.exists() else "before its folder was made"


def last_line(ended: Ended) -> str:
    return ([line for line in ended.err.splitlines() if line.strip()] or ["nothing printed"])[-1][:200]


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
