"""deterministic=true: the same search twice, and one that is killed and gone on with, to the same bits.

Two searches in this process for spaces and variants; then the script itself, as a user runs it: to its end; killed with SIGKILL after some
checkpoints; gone on with by resume=auto. Everything that a run leaves behind must be equal, but for clocks.
"""

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import torch

from benchmarks.gpu import searches
from benchmarks.gpu.checks import Bench, Check, Failed, Report, Skipped, Values
from benchmarks.gpu.searches import CASES, Case, released
from benchmarks.gpu.speed import cleaned
from benchmarks.gpu.variants import VARIANTS, Variant

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
SMALL = ("split.max_train=40", "split.max_val=16", "space.nodes=2", "layers=3", "channels=4", "batch_size=8", "epochs=3", "threads=1",
         "wandb.mode=disabled", "checkpoint_every_s=0")
SCRIPT_S = 90.0  # what one run of the script may take
KILLED_AT = 4  # checkpoints that it has written by then


def run(bench: Bench, report: Report) -> None:
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    scripts = {"as it is": (), "backend=native": ("backend=native",)}
    if not bench.toy:
        scripts |= {"compile=graph": ("compile=graph",), "amp=bf16": ("amp=bf16",)}
    for name, options in list(scripts.items())[:1]:
        yield Check(f"a kill and resume, {name}", lambda options=options: killed(bench, options))
    for case in CASES[:1] if bench.toy else CASES[:3]:
        for variant in VARIANTS[1:2] if bench.toy else [v for v in VARIANTS if v.name != "plain"]:
            yield Check(f"twice, {case.name}, {variant.name}", lambda case=case, variant=variant: twice(bench, case, variant))
    for name, options in [] if bench.toy else list(scripts.items())[1:]:
        yield Check(f"a kill and resume, {name}", lambda options=options: killed(bench, options))


def twice(bench: Bench, case: Case, variant: Variant) -> Values:
    """The state after some pairs of steps, tensor by tensor."""
    found: list[list[torch.Tensor]] = []
    for _ in range(2):
        cleaned(bench.device)
        with variant.computing(bench.device, deterministic=True):
            made = searches.make(case, variant, bench.device, toy=bench.toy)
            graphed = searches.captured(made, warm_up=2) if variant.graph else None
            step = made.search.step if graphed is None else graphed.step
            try:
                for n in range(STEPS):
                    step(made.batches[n % 2], made.batches[1 - n % 2])
                found.append([t.detach().cpu().clone() for t in made.state()])
            finally:
                released(graphed)
        del made, graphed, step
    differing = [n for n, (a, b) in enumerate(zip(*found, strict=True)) if not torch.equal(a, b)]
    if differing:
        off = max((a.double() - b.double()).abs().max().item() for n in differing for a, b in [(found[0][n], found[1][n])])
        raise Failed(f"{len(differing)} of {len(found[0])} tensors differ after {STEPS} steps, by up to {off:.3g}")
    return {"tensors": len(found[0])}


# ---- the script


def start(options: tuple[str, ...], where: Path) -> subprocess.Popen:
    where.mkdir(parents=True, exist_ok=True)
    with open(where / "printed", "ab") as printed:
        return subprocess.Popen([sys.executable, str(ROOT / "train_search.py"), *options], cwd=where, stdout=printed, stderr=printed,
                                stdin=subprocess.DEVNULL)


def ended(process: subprocess.Popen, where: Path) -> None:
    """Raises Failed where it did not end well, and in time."""
    try:
        code = process.wait(timeout=SCRIPT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"train_search.py took more than {SCRIPT_S:.0f} s: {last_line(where)}") from None
    if code:
        raise Failed(f"train_search.py ended with {code}: {last_line(where)}")


def last_line(where: Path) -> str:
    return ((where / "printed").read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1][:300]


def killed(bench: Bench, options: tuple[str, ...]) -> Values:
    if importlib.util.find_spec("hydra") is None:
        raise Skipped("hydra-core is not installed, which the scripts need")
    from tests.runs import finished, outcome

    folder = Path(mkdtemp(prefix="determinism_", dir=bench.work))
    words = (*SMALL, f"device={bench.device}", "deterministic=true", *options)
    unbroken, broken = folder / "unbroken", folder / "broken"
    both = start(words, unbroken), start(words, broken)  # beside each other: most of their time is that of starting up
    try:
        until_checkpoints(both[1], broken)
        both[1].send_signal(signal.SIGKILL)
        if both[1].wait() != -signal.SIGKILL:
            raise Failed(f"train_search.py ended before it could be killed: {last_line(broken)}")
        ended(both[0], unbroken)
    finally:
        for process in both:
            process.kill()
            process.wait()
    ended(start((*words, "resume=auto"), broken), broken)
    want, got = outcome(finished(unbroken)), outcome(finished(broken))
    differing = [key for key in want if got.get(key) != want[key]]
    if differing or got.keys() != want.keys():
        raise Failed(f"after a kill and resume these differ: {', '.join(differing) or sorted(got.keys() ^ want.keys())}")
    return {"equal": sorted(want)}


def until_checkpoints(process: subprocess.Popen, where: Path) -> None:
    """Waits until some steps are saved; the names of their files sort in time, and only the newest are kept."""
    seen: set[str] = set()
    end = time.monotonic() + SCRIPT_S
    while len(seen) < KILLED_AT and process.poll() is None:
        seen |= {path.name for path in where.glob("runs/*/checkpoints/*.pt")}
        if time.monotonic() > end:
            raise Failed(f"train_search.py has written {len(seen)} checkpoints in {SCRIPT_S:.0f} s: {last_line(where)}")
        time.sleep(0.002)


