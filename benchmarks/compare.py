"""Two implementations side by side in one process: the measuring that the benchmarks of steps share.

The first of a round changes from round to round. Times are medians over the rounds, a ratio is the median of the rounds' ratios
(reference / ours). Peak memory is measured in a step of its own: on the CPU the bytes of live tensors of that side; on a GPU what is
allocated, with the other side's parameters at rest. Kernels are the calls that PyTorch dispatches and that compute
(`counting.Kernels`): those of fused backends go past it and are not among them.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import counting
from ops import kernels
from supernet.networks.measure import peak_memory
from supernet.runs.collector import lasting_objects_passed_over
from supernet.runs.device import prepare, resolve_device
from supernet.runs.environment import describe
from supernet.runs.progress import tracked
from supernet.tasks.base import Batch

SIDES = ("ours", "reference")
SAME_LOSS = 1e-4  # relative, float32


@dataclass(frozen=True)
class Side:
    """One of two implementations. `losses` are those of its batches as the weights stand, by name, a function of nothing else."""

    net: nn.Module
    alpha: Sequence[Tensor]
    optimizers: Sequence[torch.optim.Optimizer]
    batches: Sequence[Batch]
    losses: Callable[[], Mapping[str, Tensor]]
    steps: Mapping[str, Callable[[], object]]

    def held(self) -> Iterator[Tensor]:
        """The tensors that live between steps."""
        for p in (*self.net.parameters(), *self.alpha):
            yield p
            if p.grad is not None:
                yield p.grad
        yield from self.net.buffers()
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                yield from (value for value in state.values() if torch.is_tensor(value))
        for batch in self.batches:
            yield from batch


def check_losses(sides: Mapping[str, Side]) -> dict[str, dict[str, float]]:
    """The losses of each side. Raises RuntimeError where they differ by more than `SAME_LOSS`."""
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        losses = {name: {batch: loss.item() for batch, loss in sides[name].losses().items()} for name in SIDES}
    for batch, ours in losses["ours"].items():
        theirs = losses["reference"][batch]
        if not abs(ours - theirs) <= SAME_LOSS * abs(theirs):
            raise RuntimeError(f"the {batch} losses must agree to {SAME_LOSS}, got {ours} (ours) and {theirs} (reference)")
    return losses


def seconds(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall time and process CPU time of one step."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(sides: Mapping[str, Side], step: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Medians, and every round's times, of one kind of step. Updates the weights or the alphas of both sides."""
    peaks, counts = {}, {}
    for name in SIDES:
        sides[name].steps[step]()  # warms up; a first step makes the optimizer's state
        counts[name], peaks[name] = weigh(sides[name], step, device)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for number in tracked(range(rounds), f"rounds of {step}"):
        for name in SIDES if number % 2 == 0 else reversed(SIDES):
            times[name].append(seconds(sides[name].steps[step], device))
    result: dict[str, Any] = {name: summary(times[name]) | {"peak_bytes": peaks[name], "kernels": counts[name]} for name in SIDES}
    return result | {"ratio": ratios(times["reference"], times["ours"]) | {
        "memory": peaks["reference"] / peaks["ours"], "kernels": counts["reference"] / counts["ours"]}}


def run_steps(sides: Mapping[str, Side], steps: Sequence[str], rounds: int, device: torch.device, *,
              names: tuple[str, str] | None = None) -> dict[str, Any]:
    """By step, what `measure` gives and `hottest` of ours; prints a table of them, a row as soon as it is there. names: of the sides, where
    they have others. Python's collector passes over what is there, for both sides, as it does in a training."""
    print(header(*(names or SIDES)))
    found = {}
    with lasting_objects_passed_over():
        for step in steps:
            found[step] = measure(sides, step, rounds, device) | {"hottest": hottest(sides["ours"].steps[step], device)}
            print(row(step, found[step]), flush=True)
    return found


def hottest(step: Callable[[], object], device: torch.device, most: int = 8) -> list[dict[str, Any]]:
    """What one step spends its time in: `most` operations, their share of the time without what they call, and their number. On a GPU it is
    the GPU's time."""
    cuda = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU, *[torch.profiler.ProfilerActivity.CUDA] * cuda]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:  # else torch 2.11 warns
        step()
        _wait(device)
    took = [(e.self_device_time_total if cuda else e.self_cpu_time_total, e.key, e.count) for e in profile.key_averages()]
    total = sum(time for time, _, _ in took)
    return [{"name": name, "share": time / total, "calls": calls} for time, name, calls in sorted(took, reverse=True)[:most]]


def weigh(side: Side, step: str, device: torch.device) -> tuple[int, int]:
    """Kernels and peak bytes of one step."""
    counted: list[int] = []
    peak = peak_memory(lambda: counted.append(counting.kernels(side.steps[step]).total()), device, side.held())
    return counted[0], peak


def summary(times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Medians of (wall, CPU) seconds, and all of them."""
    wall, cpu = zip(*times, strict=True)
    return {"wall_s": statistics.median(wall), "cpu_s": statistics.median(cpu), "rounds": {"wall_s": wall, "cpu_s": cpu}}


def ratios(slow: Sequence[tuple[float, float]], fast: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Medians of the rounds' ratios, by clock."""
    wall, cpu = (statistics.median(a[clock] / b[clock] for a, b in zip(slow, fast, strict=True)) for clock in (0, 1))
    return {"wall": wall, "cpu": cpu}


COLUMNS = f"{'wall s':>9} {'CPU s':>9} {'MiB':>9} {'kernels':>9} |"


def header(ours: str, reference: str) -> str:
    """Two lines above the rows."""
    return (f"{'':6}{ours:>39} |{reference:>39} |{f'{reference} / {ours}':>28}\n"
            f"{'step':6}{COLUMNS}{COLUMNS}{'wall':>7}{'CPU':>7}{'MiB':>7}{'kern.':>7}")


def row(step: str, result: Mapping[str, Any]) -> str:
    sides = [f"{result[s]['wall_s']:9.3f} {result[s]['cpu_s']:9.3f} {result[s]['peak_bytes'] / 2**20:9.1f} {result[s]['kernels']:9,d} |"
             for s in SIDES]
    return f"{step:6}{''.join(sides)}{''.join(f'{ratio:7.2f}' for ratio in result['ratio'].values())}"


def parser_for(doc: str | None, *, rounds: int, device: bool = True) -> argparse.ArgumentParser:
    """The options that benchmarks share. doc: the module's."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    if device:
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
        parser.add_argument("--backend", choices=kernels.BACKENDS, default="auto", help="whose kernels our side computes with")
    return parser


def prepared(parser: argparse.ArgumentParser, options: argparse.Namespace) -> torch.device:
    """The device, once the shared options are known to be good: one line on stderr and exit code 2 otherwise."""
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    try:
        device = resolve_device(getattr(options, "device", "cpu"))
    except ValueError as error:
        parser.error(str(error))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    prepare(device, threads=getattr(options, "threads", 1), deterministic=False)
    try:
        options.backend = kernels.use(getattr(options, "backend", "plain"), device=device.type).name
    except ValueError as error:
        parser.error(str(error))
    return device


def begun(benchmark: str, argv: Sequence[str] | None, device: torch.device) -> dict[str, Any]:
    """What every result begins with: which benchmark, how it was called, and where it ran. argv: None for the process's own."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--json" in words:  # where a result is kept is not how it was made
        at = words.index("--json")
        words[at : at + 2] = []
    return {"benchmark": benchmark, "command": shlex.join(["python", "-m", f"benchmarks.{benchmark}", *words]),
            "environment": describe(device)}


def write(path: Path | None, result: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")


def clock(result: Mapping[str, Any]) -> str:
    """Which clock's ratios are told: process CPU time on a CPU, where other processes disturb it least; wall time on a GPU."""
    return "wall" if result["environment"]["device"].startswith("cuda") else "cpu"


def where(result: Mapping[str, Any]) -> str:
    """On what a result was measured, briefly."""
    known = result["environment"]
    return known["gpu"] if "gpu" in known else f"CPU, {'one thread' if known['threads'] == 1 else str(known['threads']) + ' threads'}"


def counted(result: Mapping[str, Any]) -> str:
    """What the kernels of a result are: the calls of fused backends go past what counts them."""
    return "kernels" if result["backend"] == "plain" else "kernels dispatched by PyTorch"


def gains(result: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The ratios of every step in words."""
    return "; ".join(f"{names[name]} {step['ratio'][clock(result)]:.2f}x, {100 / step['ratio']['memory']:.0f} % of the memory, "
                     f"{step['ours']['kernels']:,} of {step['reference']['kernels']:,} {counted(result)}"
                     for name, step in result["steps"].items())


def steps_notes(result: Mapping[str, Any]) -> list[str]:
    """Where the time of our side's steps goes."""
    return [f"Ours spends `{name}` in: " + ", ".join(f"`{op['name']}` {op['share']:.0%} ({op['calls']:,})" for op in step["hottest"]) + "."
            for name, step in result["steps"].items() if "hottest" in step]


def steps_table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Head and rows of all that `measure` gave."""
    head = ("step", *(f"{side}: wall s, CPU s, MiB, {counted(result)}" for side in SIDES), "reference / ours: wall, CPU, MiB, kernels")

    def side(numbers: Mapping[str, Any]) -> str:
        return f"{numbers['wall_s']:.2f}, {numbers['cpu_s']:.2f}, {numbers['peak_bytes'] / 2**20:.0f}, {numbers['kernels']:,}"

    return head, [(f"`{name}`", *(side(step[s]) for s in SIDES), ", ".join(f"{ratio:.2f}" for ratio in step["ratio"].values()))
                  for name, step in result["steps"].items()]
