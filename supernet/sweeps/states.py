"""What has become of jobs, read from what their runs leave behind under one folder, by whichever process or machine."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from supernet.files import damaged_lines, number, read_bytes
from supernet.runs.checkpoint_files import has_checkpoint
from supernet.runs.claim import claim
from supernet.runs.folder import RunFolder
from supernet.runs.journal import MAX_BYTES, Journal
from supernet.sweeps.jobs import Job

Kind = Literal["waiting", "starting", "running", "stopped", "finished", "failed", "elsewhere"]
BEST = ("val_accuracy", "train_accuracy")  # the first that a run records is the value that is watched


@dataclass(frozen=True)
class State:
    """Of one job. `elsewhere`: half done, and met another device, backend or data there; `stopped`: half done, and goes on. error: why it
    failed, or what is wrong with the records of its run."""

    job: Job
    kind: Kind
    folder: RunFolder | None = None
    epoch: int = 0  # how many are done
    best: float | None = None  # percent
    elapsed_s: float = 0.0
    error: str = ""

    @property
    def left_s(self) -> float | None:
        """Seconds, by the pace so far; None where no epoch is done."""
        return None if not self.epoch else self.elapsed_s / self.epoch * (self.job.epochs - self.epoch)


class Ledger:
    """How the processes of jobs ended, one line each, in `jobs.jsonl` beside their runs: what failed before it had a folder is known from
    there alone."""

    def __init__(self, output: Path) -> None:
        self.path = output / "jobs.jsonl"
        self.journal = Journal(self.path)

    def add(self, job: Job, kind: Kind, error: str) -> None:
        record = {"job": job.digest, "script": job.script, "name": job.name, "seed": job.seed, "options": list(job.options), "kind": kind,
                  "error": error}
        with claim(self.path.parent, self.path.name):  # two machines that append to one file of NFS at once overwrite each other
            self.journal.keep(record)

    def last(self) -> dict[str, dict[str, Any]]:
        """The newest line of each job, by its digest; damaged lines are passed over."""
        return {entry["job"]: entry for entry in self.journal.readable(self.path) if type(entry.get("job")) is str}


class Watch:
    """Looks at the runs of jobs, again and again. What has not changed is not read again."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.ledger = Ledger(output)
        self._read: dict[Path, tuple[Any, Any]] = {}  # what a file held, and its time and size then

    def runs(self) -> dict[str, list[RunFolder]]:
        """The runs under the folder by the digest of their job, the newest first."""
        found: dict[str, list[RunFolder]] = {}
        for path in sorted(self.output.glob("*/run.json"), reverse=True):
            folder = RunFolder(path.parent)
            status = self._cached(path, folder.known_status) or {}
            found.setdefault(str(status.get("job")), []).append(folder)
        return found

    def look(self, jobs: Sequence[Job]) -> list[State]:
        """The state of each job."""
        runs, last = self.runs(), self._cached(self.ledger.path, self.ledger.last) or {}
        return [self._state(job, runs.get(job.digest, []), last.get(job.digest, {})) for job in jobs]

    def _state(self, job: Job, runs: Sequence[RunFolder], last: dict[str, Any]) -> State:
        for kind, holds in (("finished", self._is_finished), ("running", RunFolder.is_locked)):
            if run := next((run for run in runs if holds(run)), None):
                return self._with_records(State(job, kind, run))
        half = next((run for run in runs if has_checkpoint(run.checkpoints)), None)
        kind = next((kind for kind in ("failed", "elsewhere") if kind == last.get("kind")), "waiting" if half is None else "stopped")
        error = str(last.get("error", "")) if kind in ("failed", "elsewhere") else ""
        state = State(job, kind, half, error=error)
        return state if half is None else self._with_records(state)

    def _is_finished(self, run: RunFolder) -> bool:
        status = self._cached(run.run_json, run.known_status) or {}
        return status.get("status") == "finished" and not run.is_locked()

    def _with_records(self, state: State) -> State:
        records, wrong = self._cached(state.folder.metrics, lambda: records_of(state.folder)) or ([], "")
        state = replace(state, error=state.error or wrong)
        if not records:
            return state
        named = next((name for name in BEST if records[-1].get(name) is not None), None)
        values = [value for record in records if named and (value := number(record.get(named))) is not None]
        epoch, elapsed_s = (number(records[-1].get(name)) for name in ("epoch", "elapsed_s"))
        done = 0 if epoch is None else int(epoch) + 1
        return State(state.job, state.kind, state.folder, done, max(values, default=None), elapsed_s or 0.0, state.error)

    def _cached(self, path: Path, read: Any) -> Any:
        with contextlib.suppress(OSError, ValueError):
            seen = path.stat()
            mark = seen.st_mtime_ns, seen.st_size, seen.st_ino
            if path not in self._read or self._read[path][1] != mark:
                self._read[path] = read(), mark
            return self._read[path][0]
        return None


def records_of(run: RunFolder) -> tuple[list[dict[str, Any]], str]:
    """The records of its epochs that are whole; and what is wrong with the others."""
    damaged = damaged_lines(read_bytes(run.metrics, MAX_BYTES))
    wrong = f"{run.metrics.name} is not what the run wrote (sha256 differs)" if run.changed((run.metrics.name,)) else (
        f"line {damaged[0]} of {run.metrics.name} is damaged" if damaged else "")
    return list(Journal.readable(run.metrics)), wrong


def summary_values(run: RunFolder) -> dict[str, Any]:
    """The values of a finished run, by name. Raises RunFolderError: they are not what the run wrote."""
    run.check_unchanged(run.summary.name)
    return json.loads(run.summary.read_text(encoding="utf-8"))["values"]


def counted(states: Sequence[State]) -> Iterator[tuple[Kind, int]]:
    """How many jobs there are of each kind, of those kinds that there are."""
    for kind in ("finished", "running", "starting", "waiting", "stopped", "elsewhere", "failed"):
        if n := sum(state.kind == kind for state in states):
            yield kind, n
