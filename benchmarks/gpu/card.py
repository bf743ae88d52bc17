"""What differs between a GPU and the stand-in for one on a CPU: graphs, clocks, the events of a profile, facts about the device."""

import copy
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from supernet.bilevel import Bilevel
from supernet.training.graphed import Capturing, Outputs

QUERIES = ("name", "driver_version", "memory.total", "compute_cap", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
           "temperature.gpu", "power.draw", "power.limit", "pstate", "utilization.gpu")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def capturing_of(search: Bilevel) -> Any:
    """How steps of `search` become graphs of its device; on a CPU a stand-in."""
    device = search.w[0].device
    return Capturing(device) if device.type == "cuda" else StandIn(search)


class StandIn:
    """Graphs on a CPU. `capture` calls the function, as capturing does, and takes back what it changed, because a captured function does
    not run; `replay` calls it again and writes into the same outputs and gradients."""

    def __init__(self, search: Bilevel) -> None:
        self.search = search

    def warm_up(self, run: Callable[[], Outputs]) -> Outputs:
        return run()

    def capture(self, run: Callable[[], Outputs], generators: Sequence[torch.Generator] = ()) -> "StandInGraph":
        parts = (self.search.net, self.search.relaxation, self.search.w_optimizer, self.search.alpha_optimizer)
        before = [copy.deepcopy(part.state_dict()) for part in parts]
        outputs = run()
        with torch.no_grad():
            for part, old in zip(parts[:2], before):
                for name, value in part.state_dict().items():
                    value.copy_(old[name])
            for part, old in zip(parts[2:], before[2:]):
                for mine, theirs in zip(part.state_dict()["state"].values(), old["state"].values()):
                    for key, value in mine.items():
                        value.copy_(theirs[key])
        return StandInGraph(run, outputs, self.search)

    def settle(self) -> None:
        pass

    def forget(self) -> None:
        pass


class StandInGraph:
    def __init__(self, run: Callable[[], Outputs], outputs: Outputs, search: Bilevel) -> None:
        self.run, self.outputs, self.parameters = run, outputs, (*search.w, *search.alpha)
        self.gradients = [p.grad for p in self.parameters]

    def replay(self) -> None:
        outside = [p.grad for p in self.parameters]
        new = self.run()
        for name, value in self.outputs.items():
            value.copy_(new[name])
        for p, before, mine in zip(self.parameters, outside, self.gradients):
            if p.grad is not before and mine is not None and p.grad is not None:  # set by this graph
                mine.copy_(p.grad)
                p.grad = before  # a replay moves no reference on the host

    def nodes(self) -> None:
        return None

    def release(self) -> None:
        pass


def smi() -> dict[str, str]:
    """What nvidia-smi says of the first GPU; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    first = (done.stdout.strip().splitlines() or [""])[0].split(",")
    return {name: value.strip() for name, value in zip(QUERIES, first)} if len(first) == len(QUERIES) else {}


class NothingSeen(RuntimeError):
    """The profiler has recorded nothing of the device."""


def launches(run: Callable[[], object], device: torch.device) -> int | None:
    """How many kernels one call runs; None where the profiler cannot see them, so that nothing else is lost with that."""
    try:
        return timeline(run, device, most=0)["launches"]
    except NothingSeen:
        return None


def timeline(run: Callable[[], object], device: torch.device, most: int = 10) -> Mapping[str, Any]:
    """One call under the profiler: how many kernels run, how long the device is busy (ms) and from the first to the last of them, the gaps
    in between, and the `most` that take longest. On a CPU its operations stand for kernels. Raises NothingSeen."""
    activity, kinds = torch.profiler.ProfilerActivity, torch.autograd.DeviceType
    wanted, kind = (activity.CUDA, kinds.CUDA) if device.type == "cuda" else (activity.CPU, kinds.CPU)
    with torch.profiler.profile(activities=[wanted], acc_events=True) as profile:  # which keeps torch 2.11 from warning that it would not
        run()
        wait(device)
    # As they were recorded: to nest a hundred thousand of them, which `profile.events()` does, takes longer than the steps.
    found = profile.profiler.kineto_results.events()
    events = sorted((e.start_ns() / 1e3, (e.start_ns() + e.duration_ns()) / 1e3, e.name()) for e in found if e.device_type() == kind)
    if not events:
        raise NothingSeen("the profiler has seen nothing of the device")
    by_name: dict[str, list[float]] = {}
    busy, gaps, reached = 0.0, [], events[0][0]
    for start, end, name in events:
        by_name.setdefault(name, []).append(end - start)
        if start > reached:
            gaps.append(start - reached)
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    total = sum(map(sum, by_name.values())) or 1.0
    top = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:most]
    return {"launches": len(events), "span_ms": (reached - events[0][0]) / 1e3, "busy_ms": busy / 1e3,
            "gaps_ms": sum(gaps) / 1e3, "median_gap_us": sorted(gaps)[len(gaps) // 2] if gaps else 0.0,
            "top": [{"name": name[:160], "share": sum(took) / total, "calls": len(took), "ms": sum(took) / 1e3} for name, took in top]}
