"""What a run would take: size, memory and time, measured over a few steps before any training."""

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from supernet.networks.measure import live_tensors, multiply_adds_an_item, parameters, peak_memory, seconds_per_step
from supernet.processes.group import ALONE, Group

Rows = list[tuple[str, str]]
SLOW_STEP_S = 120.0
DRAWS = 10  # steps whose memory is looked at where each runs other ops


def smaller(**sizes: int) -> list[str]:
    """Options that ask for about half as much: `smaller(batch_size=64) == ["batch_size=32"]`."""
    return [f"{name}={max(2, size // 2)}" for name, size in sizes.items()]


def report(net: nn.Module, step: Callable[[], object], *, example: torch.Tensor, item: str, batch_size: int, steps_per_epoch: int,
           epochs: int, device: torch.device, remedies: Sequence[str], evaluation: Callable[[], object] = lambda: None,
           settling: int = 1, steps: int = 1, graphs: bool = False, group: Group = ALONE) -> Rows:
    """Rows of a table. `step` trains one step and may change the network: it is thrown away afterwards. example: one input. evaluation:
    evaluates one batch. settling, steps, graphs: those of `peak_of_training`. group: the processes that take the steps together; memory
    is that of the one which needs most, and time that of the slowest."""
    rows = [("parameters", f"{parameters(net) / 1e6:.6f} M"),
            ("multiply-adds", f"{multiply_adds_an_item(net, example) / 1e6:.3f} M per {item}")]
    have = available_memory(device) + live_bytes(device)  # the peak holds what lives already, and what the steps leave alive
    try:
        # The steps that memory is followed on also warm up; where they are slow, they are timed as well.
        started = time.perf_counter()
        peak = peak_of_training(step, evaluation, device, settling=settling, steps=steps, graphs=graphs)
        (seconds,) = group.largest((time.perf_counter() - started) / (settling + steps))
        if seconds < SLOW_STEP_S:
            seconds = seconds_per_step(step, device, agreed=lambda seconds: group.largest(seconds)[0])
        before = group.traffic
        if group.size > 1:
            step()
        traffic = [now - then for now, then in zip(group.traffic, before)]
    except torch.cuda.OutOfMemoryError:
        return rows + [("peak memory", f"more than the device has at batch size {batch_size}"), ("to make it fit", "; ".join(remedies))]
    how = ("reserved" if graphs else "allocated") if device.type == "cuda" else "live tensors"
    most, least = group.largest(peak, -have)
    peak, have = int(most), -int(least)
    rows.append(("peak memory", f"{peak / 2**20:.0f} MiB{group.each} at batch size {batch_size} ({how}; {have / 2**20:.0f} MiB are free)"))
    if peak > have:
        rows.append(("to make it fit", "; ".join(remedies)))
    rows += [("time", f"{seconds:.3f} s a step, {duration(seconds * steps_per_epoch)} an epoch of {steps_per_epoch} steps"),
             ("time of the run", f"{duration(seconds * steps_per_epoch * epochs)} for {epochs} epochs, evaluation not counted"),
             ("device", f"{device}, {torch.get_num_threads()} CPU threads")]
    return rows + traffic_rows(group, *traffic)


def traffic_rows(group: Group, summed: int, messages: int) -> Rows:
    """What is summed over the processes in a step, bytes in so many messages, and what each sends for it where it goes round a ring."""
    if group.size == 1:
        return []
    sent = 2 * (group.size - 1) / group.size * summed
    return [("processes", f"{group.size}, each with {1 / group.size:.3g} of a batch"),
            ("traffic", f"{summed / 2**20:.2f} MiB in {messages} messages a step; each process sends {sent / 2**20:.2f} MiB in a ring")]


def peak_of_training(step: Callable[[], object], evaluation: Callable[[], object], device: torch.device, *, settling: int = 1,
                     steps: int = 1, graphs: bool = False) -> int:
    """Bytes at the highest moment of a training: of the largest of `steps` steps or of the evaluation of a batch, beside all that lives
    between them, resident data too. The `settling` steps before make the optimizers' states and leave the gradients that a later
    step finds. graphs: steps become CUDA graphs in the meantime; then that moment counts, and what they keep."""
    def later() -> None:
        for _ in range(steps):
            step()
        evaluation()

    def settle() -> None:
        for _ in range(settling):
            step()

    if graphs:
        return peak_memory(lambda: (settle(), later()), device, live_tensors(device), reserved=True)
    settle()
    return peak_memory(later, device, live_tensors(device))


def available_memory(device: torch.device) -> int:
    """Bytes that this process can take on the device now beside its tensors, what can be reclaimed among them: PyTorch's own reserve on a
    GPU, the system's caches on a CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if found is None else int(found[1]) * 1024
    return min(free, *_container_rooms())


def _container_rooms() -> list[int | float]:
    """What the control group that a container shows as the root leaves, version 2 or 1; infinite where there is no limit."""
    rooms: list[int | float] = [math.inf]
    for folder, limit, usage in (("/sys/fs/cgroup", "memory.max", "memory.current"),
                                 ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most, used = (int(Path(folder, name).read_text()) for name in (limit, usage))
            stat = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # "max"
            continue
        rooms.append(most - used + int(stat.get("inactive_file", 0)))  # caches that the limit would drop
    return rooms


def live_bytes(device: torch.device) -> int:
    """Bytes of the tensors that are alive now."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else peak_memory(lambda: None, device, live_tensors(device))


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
