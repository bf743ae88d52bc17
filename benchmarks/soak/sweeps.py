"""Sweeps, whose jobs are processes of their own, killed or asked to stop: all of it at once, or the sweep alone."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.soak.cases import Case
from benchmarks.soak.subjects import TINY, left_by
from supernet.runs.folder import RunFolder
from tests.helpers import ROOT

KILLS, STOPS = 4, 3
SEEDS = (0, 1)
LIMIT_S = 900


def prepare(where: Path) -> None:
    options = dict(word.split("=", 1) for word in TINY)
    fixed = {key: json.loads(value) if value.isdigit() else value.strip("[]").split(",") if value[0] == "[" else value
             for key, value in options.items()}
    fixed |= {"split.max_train": 40, "split.max_val": 16, "batch_size": 8, "epochs": 2, "threads": 1, "wandb.mode": "disabled"}
    content = {"fixed": fixed, "seeds": list(SEEDS), "launcher": {"name": "local", "processes": 2}}
    (where / "s.yaml").write_text(json.dumps(content))


def start(where: Path) -> subprocess.Popen[bytes]:
    with open(where / "printed", "ab") as printed:
        return subprocess.Popen([sys.executable, "-m", "supernet.sweep", "s.yaml"], cwd=where, stdout=printed, stderr=printed,
                                stdin=subprocess.DEVNULL, start_new_session=True,
                                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def left(where: Path) -> dict[str, Any]:
    """By seed, what the one finished run of each job computed. Raises ValueError: there is none, or there are two."""
    runs = [RunFolder(path.parent) for path in sorted(where.glob("runs/s/*/run.json"))]
    found: dict[str, Any] = {}
    for run in runs:
        if (run.status() or {}).get("status") == "finished":
            seed = run.options()["seed"]
            if f"seed {seed}" in found:
                raise ValueError(f"seed {seed} was run twice")
            found[f"seed {seed}"] = left_by(run)
    if len(found) < len(SEEDS):
        raise ValueError(f"{len(found)} of {len(SEEDS)} jobs are finished")
    return found


@cache
def unbroken() -> tuple[dict[str, Any], float]:
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where, began = Path(folder), time.perf_counter()
        prepare(where)
        process = start(where)
        if process.wait(LIMIT_S):
            raise RuntimeError(f"the unbroken sweep ended with {process.returncode}: {said(where)}")
        return left(where), time.perf_counter() - began


def killed(name: str, seed: int) -> Case:
    """Odd seeds kill the sweep alone: its jobs go on, and the next sweep waits for them."""
    return disturbed(signal.SIGKILL, random.Random(f"kill sweep {seed}"), alone=bool(seed % 2))


def asked(name: str, seed: int) -> Case:
    return disturbed((signal.SIGTERM, signal.SIGINT)[seed % 2], random.Random(f"stop sweep {seed}"), alone=True)


def disturbed(number: int, rng: random.Random, alone: bool) -> Case:
    wanted, whole = unbroken()
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        where = Path(folder)
        prepare(where)
        process, share = start(where), rng.uniform(0.05, 0.95)
        try:
            try:
                process.wait(share * whole)
            except subprocess.TimeoutExpired:
                for pid in [process.pid] if alone else of_session(process.pid):
                    os.kill(pid, number)
            process.wait(LIMIT_S)
            to = "to the sweep alone " if alone else ""
            told = f"{signal.Signals(number).name} {to}after {100 * share:.0f} % of the time, {standing(where)}"
            if "Traceback" in (where / "printed").read_text():
                return Case("lost", f"{told}: {said(where)}")
            (where / "printed").unlink()
            again = start(where)
            if again.wait(LIMIT_S):
                return Case("lost", f"{told}: going on ended with {again.returncode}: {said(where)}")
            try:
                found = left(where)
            except ValueError as error:
                return Case("lost", f"{told}: {error}")
            differing = [f"{seed} {key}" for seed in wanted for key in wanted[seed] if found[seed].get(key) != wanted[seed][key]]
            return Case("wrong", f"{told}: {', '.join(differing)[:200]}") if differing else Case("survived", told)
        finally:
            for pid in of_session(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()


def of_session(session: int) -> list[int]:
    """The processes that this sweep has started, and itself, of those that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def standing(where: Path) -> str:
    states = [(RunFolder(path.parent).status() or {}).get("status", "damaged") for path in sorted(where.glob("runs/s/*/run.json"))]
    return "runs: " + (", ".join(states) or "none")


def said(where: Path) -> str:
    lines = [line for line in (where / "printed").read_text().splitlines() if line.strip()]
    return (lines or ["nothing printed"])[-1][:200]
