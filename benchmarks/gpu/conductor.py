"""Runs the parts one after the other, each in a process of its own, until the time is over, and goes on past whatever fails.

What is known is one file, `gpu.jsonl` in the folder of results: a line a result, synced to the disk, so that a kill at any moment loses no
more than the check at work. What parts print is in `gpu.log` beside it.

A part that hangs is asked where (its stacks go to the log), then killed with all its children; one that dies, or loses its device, is
begun anew behind the check at which that happened. Verdicts: passed; failed (some of its checks); skipped (what it needs is not here); cut
(its time was over; what was done counts); error (it ended by itself, without its checks); no time (not begun).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import worker
from benchmarks.gpu.checks import FAILED, PASSED, SKIPPED
from benchmarks.gpu.parts import Part
from supernet.runs.journal import Journal

NAME, LOG = "gpu.jsonl", "gpu.log"
BEGUN_ANEW = 3  # so often after a death
START_S = 120.0  # until a process says that it is at work: on a bare machine the first imports read everything from the disk
CLOSING_S = 5.0  # between the time by which a part is to be done and its kill
LOOK_S = 0.1
FINAL = (PASSED, FAILED, SKIPPED, "error")  # verdicts that a later call does not try again

Records = list[dict[str, Any]]


@dataclass
class Conductor:
    """out: the folder of results. work: what is kept between parts. site: folders and files that are put on the path of every part."""

    out: Path
    work: Path
    device: str
    toy: bool
    data: Path | None
    site: Sequence[str]
    closing_s: float = CLOSING_S
    waiting: dict[str, subprocess.Popen] = field(default_factory=dict)
    at_turn: subprocess.Popen | None = None
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.out / NAME)

    def records(self) -> Records:
        return list(Journal.readable(self.journal.path))

    # ---- processes

    def started(self, part: Part) -> subprocess.Popen:
        """The part's process, which has begun to import, or begins to."""
        if part.name not in self.waiting:
            about = {"part": part.name, "module": f"{part.package}.{part.module}", "parent": os.getpid(), "device": self.device,
                     "toy": self.toy, "work": str(self.work), "data": None if self.data is None else str(self.data),
                     "journal": str(self.journal.path)}
            with open(self.out / LOG, "ab") as log:
                self.waiting[part.name] = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.gpu.worker", json.dumps(about)], stdin=subprocess.PIPE, stdout=log, stderr=log,
                    env=self.environment(part), cwd=Path(__file__).resolve().parents[2], start_new_session=True)
        return self.waiting[part.name]

    def environment(self, part: Part) -> dict[str, str]:
        known = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        root = str(Path(__file__).resolve().parents[2])
        known |= {"PYTHONPATH": os.pathsep.join([root, *self.site, *filter(None, [known.get("PYTHONPATH")])]),
                  "PYTHONUNBUFFERED": "1", "TRITON_CACHE_DIR": str(self.work / "triton"), **part.env}
        return known | ({"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if self.toy else {})

    def close(self) -> None:
        """Ends the processes whose turn has not come, or which are at work."""
        for process in (*self.waiting.values(), *filter(None, [self.at_turn])):
            kill(process)
        self.waiting.clear()

    # ---- one part

    def perform(self, part: Part, following: Part | None, ends: float) -> str:
        """The part until `ends` of time.monotonic(); its verdict. following: whose process may be started in the meantime."""
        begun, anew, verdict, why = time.monotonic(), 0, None, None
        while verdict is None:
            process = self.started(part)
            self.waiting.pop(part.name)
            self.at_turn = process
            if following is not None and not anew:
                self.started(following)
            end = self.watched(process, part, ends)
            self.end_last_line()
            at_work = self.at_work(part.name)
            if end.late:  # what was at work may be tried again
                verdict, why = "cut", None if at_work is None else f"no time was left in {at_work}"
            elif at_work is not None:  # it did not come back from this check
                lost = {"kind": "check", "part": part.name, "check": at_work, "verdict": FAILED, "seconds": 0.0, "error": end.how()}
                self.journal.append(lost, sync=True)
            elif end.code == worker.NOT_HERE:
                verdict = "skipped"
                why = next((r["skipped"] for r in reversed(self.records()) if r.get("part") == part.name and "skipped" in r), None)
            elif end.code == worker.LATE:
                verdict = "cut"
            elif end.code == worker.DONE:
                verdict, why = finding(counted(self.records(), part.name))
            elif end.code != worker.GONE:
                verdict, why = "error", f"{end.how()}: {self.last_words()}"
            if verdict is None:
                if anew == BEGUN_ANEW:
                    verdict, why = "error", f"it lost its process {anew + 1} times"
                elif ends - time.monotonic() < part.least_s:
                    verdict, why = "cut", "no time was left to begin it anew"
                anew += 1
        self.journal.append({"kind": "verdict", "part": part.name, "verdict": verdict, "seconds": round(time.monotonic() - begun, 2),
                             "checks": dict(counted(self.records(), part.name))} | ({"why": why} if why else {}), sync=True)
        return verdict

    def watched(self, process: subprocess.Popen, part: Part, ends: float) -> "End":
        """Gives the process its turn and waits for its end, at which it is killed at last."""
        turn = {"ends": ends - self.closing_s, "done": sorted({r["check"] for r in self.records() if is_result(r, part.name)})}
        with contextlib.suppress(BrokenPipeError):  # it is gone already, and its exit code says how
            process.stdin.write(json.dumps(turn).encode() + b"\n")
            process.stdin.close()
        size, since, stall_s = self.size(), time.monotonic(), START_S
        while process.poll() is None:
            time.sleep(LOOK_S)
            if self.size() != size:
                size, since, stall_s = self.size(), time.monotonic(), part.stall_s
            late, hung = time.monotonic() > ends, time.monotonic() - since > stall_s
            if late or hung:
                ask_where(process)
                kill(process)
                return End(process.returncode, late and not hung, hung)
        kill(process)  # children that it left behind
        return End(process.returncode, False, False)

    def size(self) -> int:
        return self.journal.path.stat().st_size

    def at_work(self, part: str) -> str | None:
        """The check that was begun and has no result."""
        open_check = None
        for record in self.records():
            if record.get("part") == part and record.get("kind") in ("begun", "check"):
                open_check = record["check"] if record["kind"] == "begun" else None
        return open_check

    def end_last_line(self) -> None:
        """A line that a kill cut off stands alone."""
        with open(self.journal.path, "rb+") as file:
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")

    def last_words(self) -> str:
        with open(self.out / LOG, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it has printed nothing"


class End(NamedTuple):
    """How a process ended: its exit code (None: it would not die), and whether it was killed because its time was over, or because nothing
    came of it any more."""

    code: int | None
    late: bool
    hung: bool

    def how(self) -> str:
        if self.hung:
            return "it hung, and was killed: its stacks are in the log"
        if self.code is not None and self.code < 0:
            return f"its process was ended by {signal.Signals(-self.code).name}"
        return f"its process ended with {self.code}"


def finding(counts: Counter[str]) -> tuple[str, str | None]:
    """The verdict of a part that came to its end, and why."""
    if not counts:
        return "error", "it has checked nothing"
    if counts[FAILED]:
        return FAILED, None
    return ("passed", None) if counts[PASSED] else (SKIPPED, None)


def is_result(record: dict[str, Any], part: str) -> bool:
    return record.get("kind") == "check" and record.get("part") == part


def counted(records: Records, part: str) -> Counter[str]:
    """How many checks came to what; the last result of each counts."""
    return Counter({r["check"]: r["verdict"] for r in records if is_result(r, part)}.values())


def ask_where(process: subprocess.Popen) -> None:
    """Its Python stacks, into the log."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)


def kill(process: subprocess.Popen) -> None:
    """The process and all that it has started. One that waits for a device may not end at once; then nothing waits for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def with_verdict(records: Records) -> set[str]:
    """The parts that are done with: what was cut, or not begun, is not."""
    last = {r["part"]: r["verdict"] for r in records if r.get("kind") == "verdict"}
    return {part for part, verdict in last.items() if verdict in FINAL}


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM is as Ctrl-C, so that processes are ended whoever stops this one."""
    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def conduct(conductor: Conductor, parts: Sequence[Part], whole_s: float, done: set[str], say: Any = print) -> dict[str, str]:
    """The verdict of each part of this call. done: parts that are left as they are."""
    ends, verdicts = time.monotonic() + whole_s, {}
    left = [part for part in parts if part.name not in done]
    try:
        with interruptible():
            for part, following in zip(left, [*left[1:], None]):
                room = ends - time.monotonic()
                limit = part.limit(whole_s, room)
                if limit < part.least_s:
                    conductor.journal.append({"kind": "verdict", "part": part.name, "verdict": "no time", "seconds": 0.0,
                                              "why": f"{max(0.0, room):.0f} s were left"}, sync=True)
                    verdicts[part.name] = "no time"
                else:
                    conductor.journal.append({"kind": "part", "part": part.name, "limit_s": round(limit, 1)}, sync=True)
                    verdicts[part.name] = conductor.perform(part, following, time.monotonic() + limit)
                say(line_of(conductor.records(), part.name))
    finally:
        conductor.close()
    return verdicts


def line_of(records: Records, part: str) -> str:
    """What a person sees of a part: its verdict, its counts, its time."""
    last = [r for r in records if r.get("kind") == "verdict" and r["part"] == part][-1]
    counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(last.get("checks", {}).items()))
    why = f"  ({' '.join(str(last['why']).split())[:160]})" if last.get("why") else ""
    return f"{part:12} {last['verdict']:8} {last['seconds']:7.1f} s  {counts}{why}"
