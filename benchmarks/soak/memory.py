"""What a run of 5,000 steps holds: memory, file descriptors and threads at three moments, looked at from outside."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.soak.subjects import TINY
from tests.helpers import Process, start

AT = (500, 2500, 5000)  # steps, or trials
STEPS = 100  # of an epoch
SAMPLES, APART_S = 15, 0.02  # of one moment, of which the median counts: between two of them a step comes and goes
PAGE_MB = os.sysconf("SC_PAGESIZE") / 2**20
EPOCHS = AT[-1] // STEPS + 2  # it is still at work when it is looked at for the last time

TRAINED = (f"split.max_train={4 * STEPS}", "split.max_val=32", "batch_size=4", f"epochs={EPOCHS}", "checkpoint_every_s=20")
SEARCH = (*TINY, *TRAINED)


class Configuration(NamedTuple):
    """options: of train_search.py, or of `script`. file: grows by a line every `per_line` steps."""

    options: tuple[str, ...]
    script: str = "train_search"
    file: str = "metrics.jsonl"
    per_line: int = STEPS


CONFIGURATIONS: Mapping[str, Configuration] = {
    "search, first order": Configuration(SEARCH),
    "search, second order, partial channels, stages": Configuration(
        (*SEARCH, "hypergradient=finite_difference", "wrapper=[edge_normalised]", "channels=4", "stage=p_darts",
         "stage.keep=[3,2]", f"stage.epochs=[8,20,{EPOCHS - 28}]", "stage.alpha_begin=1", "stage.layers=[3,3,3]",
         "stage.skip_dropout=[0,0,0]", "skip_dropout=p_darts", "network={partial:2}")),
    "search, sampled (GDAS)": Configuration((*SEARCH, "relaxation=gumbel")),
    "evolution with shared weights": Configuration(
        ("space=darts", "layers=3", "channels=2", "batch_size=8", "split.max_train=16", "split.max_val=8", "eval_batch_size=8", "epochs=1",
         "searcher=genetic", "searcher.population=20", f"budget.trials={AT[-1] + 100}", "evaluator.statistics=batch", "repeats=paid"),
        file="trials.jsonl", per_line=1),
    "final training": Configuration(
        ("genotype=darts_v2", "layers=3", "channels=4", f"split.max_train={4 * STEPS}", "batch_size=4", f"epochs={EPOCHS}",
         "checkpoint_every_s=20", "drop_path_prob=0.3", "split.val_portion=0.1"), script="train_final"),
}


def measured(of: Configuration, say: Callable[[str], None]) -> dict[str, Any]:
    """Anonymous resident memory (MiB), descriptors and threads at AT, and the bytes that the run's journals take by then."""
    with tempfile.TemporaryDirectory(prefix="soak_") as where:
        process = start(of.script, *of.options, cwd=Path(where), report=False)
        found: dict[str, Any] = {"steps": [], "memory_mib": [], "descriptors": [], "threads": [], "journal_bytes": []}
        try:
            for steps in AT:
                while not process.has_ended() and lines(Path(where), of.file) * of.per_line < steps:
                    time.sleep(0.1)
                if process.has_ended():
                    raise RuntimeError(f"it ended before step {steps}: {process.err()[-500:]}")
                memory, descriptors, threads = looked_at(process)
                for key, value in (("steps", steps), ("memory_mib", memory), ("descriptors", descriptors), ("threads", threads),
                                   ("journal_bytes", sum(path.stat().st_size for path in Path(where).glob("runs/*/*.jsonl")))):
                    found[key].append(value)
                say(f"  step {steps}: {memory:.1f} MiB, {descriptors} descriptors, {threads} threads")
        finally:
            if not process.has_ended():
                os.kill(process.pid, 9)
                process.wait()
    return found


def looked_at(process: Process) -> tuple[float, int, int]:
    folder, seen = Path(f"/proc/{process.pid}"), []
    for _ in range(SAMPLES):
        resident, shared = map(int, (folder / "statm").read_text().split()[1:3])
        seen.append((resident - shared) * PAGE_MB)
        time.sleep(APART_S)
    threads = next(int(line.split()[1]) for line in (folder / "status").read_text().splitlines() if line.startswith("Threads:"))
    return round(statistics.median(seen), 2), len(list((folder / "fd").iterdir())), threads


def lines(where: Path, name: str) -> int:
    return sum(path.read_bytes().count(b"\n") for path in where.glob(f"runs/*/{name}"))
