"""What a checkpoint costs the steps around it: none, written in their midst, and written by a thread (`runs.checkpoint_writer`).

Rounds of equally many steps, interleaved, each to its end on the device; in those with checkpoints one is saved every so many steps. What
a checkpoint costs is the difference to a round without, by checkpoint. And the thread's must hold the moment at which it was asked for,
bit for bit, though steps went on at once.
"""

import copy
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.compare import seconds
from benchmarks.gpu import searches
from benchmarks.gpu.checks import Bench, Check, Failed, Report, Values
from benchmarks.gpu.searches import CASES, Made
from benchmarks.gpu.speed import cleaned
from benchmarks.gpu.variants import BY_NAME, Variant
from supernet.processes.group import digest
from supernet.runs import checkpoint
from supernet.runs.checkpoint_writer import Writer

ROUNDS, STEPS, EVERY = 5, 30, 10
WAYS = {"none": None, "in their midst": False, "in the background": True}


def run(bench: Bench, report: Report) -> None:
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    for name in ("channels_last", "graph_native"):
        if not bench.toy or name == "channels_last":
            yield Check(f"steps of darts, {name}", lambda name=name: measure(bench, BY_NAME[name]))
    yield Check("a checkpoint of the moment", lambda: of_the_moment(bench))


def state(made: Made) -> dict[str, Any]:
    """All that a search of this kind has to save."""
    s = made.search
    generators = {name: generator.get_state() for name, generator in s.generators.items()}
    return {"parts": {"net": s.net.state_dict(), "relaxation": s.relaxation.state_dict(), "w_optimizer": s.w_optimizer.state_dict(),
                      "alpha_optimizer": s.alpha_optimizer.state_dict(), "generators": generators}}


def measure(bench: Bench, variant: Variant) -> Values:
    cleaned(bench.device)
    steps, every, rounds = (1, 1, 1) if bench.toy else (STEPS, EVERY, ROUNDS)
    folder = bench.work / "checkpoints"
    with variant.computing(bench.device):
        made = searches.make(CASES[0], variant, bench.device, toy=bench.toy)
        graphed = searches.captured(made) if variant.graph else None
        step: Callable[..., Any] = made.search.step if graphed is None else graphed.step
        try:
            took: dict[str, list[float]] = {way: [] for way in WAYS}
            for round_ in range(rounds + 1):  # the first one warms up, and makes the pinned memory
                for way, background in WAYS.items():
                    shutil.rmtree(folder, ignore_errors=True)
                    writer = None if background is None else Writer(folder, keep=2, background=background)
                    wall, _ = seconds(lambda writer=writer: stepped(step, made, writer, steps, every), bench.device)
                    if writer is not None:
                        writer.wait()
                    if round_:
                        took[way].append(wall)
        finally:
            searches.released(graphed)
    medians = {way: statistics.median(found) for way, found in took.items()}
    saved = steps // every
    return {"step_ms": {way: 1e3 * wall / steps for way, wall in medians.items()}, "saved": saved, "steps": steps,
            "checkpoint_ms": {way: 1e3 * (wall - medians["none"]) / saved for way, wall in medians.items() if way != "none"},
            "bytes": size(folder)}


def stepped(step: Callable[..., Any], made: Made, writer: Writer | None, steps: int, every: int) -> None:
    for n in range(steps):
        step(*made.batches)
        if writer is not None and (n + 1) % every == 0:
            writer.save(state(made), f"step_{n:04}")


def size(folder: Path) -> int:
    return max(path.stat().st_size for path in checkpoint.all_files(folder))


def of_the_moment(bench: Bench) -> Values:
    """Saved by the thread, with steps behind it at once, against a deep copy that was waited for. Raises Failed: they differ."""
    folder, variant = bench.work / "checkpoints", BY_NAME["channels_last"]
    shutil.rmtree(folder, ignore_errors=True)
    with variant.computing(bench.device):
        made = searches.make(CASES[0], variant, bench.device, toy=bench.toy)
        writer, wanted, count = Writer(folder, keep=100, background=True), [], 2 if bench.toy else 5
        for n in range(count):
            made.search.step(*made.batches)
            wanted.append(digest(copy.deepcopy(state(made))))
            writer.save(state(made), f"step_{n}")
            for _ in range(2):
                made.search.step(*made.batches)
        writer.wait()
    found = [digest(checkpoint.load_file(path)) for path in checkpoint.all_files(folder)]
    if found != wanted:
        raise Failed(f"{sum(a != b for a, b in zip(found, wanted))} of {count} checkpoints are not of their moment")
    if len(set(found)) < count:
        raise Failed("steps changed nothing")
    return {"checkpoints": count}
