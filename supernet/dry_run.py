"""What a run would take: size, memory and time, measured over a few steps before any training."""

import os
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from supernet.measure import multiply_adds_of, parameters, peak_memory, seconds_per_step

Rows = list[tuple[str, str]]
SLOW_STEP_S = 120.0


def smaller(**sizes: int) -> list[str]:
    """Options that ask for about half as much: `smaller(batch_size=64) == ["batch_size=32"]`."""
    return [f"{name}={max(2, size // 2)}" for name, size in sizes.items()]


def report(net: nn.Module, step: Callable[[], object], *, example: torch.Tensor, item: str, batch_size: int, steps_per_epoch: int,
           epochs: int, device: torch.device, remedies: Sequence[str]) -> Rows:
    """Rows of a table. `step` trains one step and may change the network: it is thrown away afterwards. example: one input."""
    rows = [("parameters", f"{parameters(net) / 1e6:.6f} M"),
            ("multiply-adds", f"{multiply_adds_of(net, example) / 1e6:.3f} M per {item}")]
    try:
        # The step that memory is followed on also warms up; where a step is slow, it is timed as well.
        started = time.perf_counter()
        peak = peak_memory(step, device, [*net.parameters(), *net.buffers()])
        seconds = time.perf_counter() - started
        if seconds < SLOW_STEP_S:
            seconds = seconds_per_step(step, device)
    except torch.cuda.OutOfMemoryError:
        return rows + [("peak memory", f"more than the device has at batch size {batch_size}"), ("to make it fit", "; ".join(remedies))]
    have = available_memory(device)
    how = "allocated" if device.type == "cuda" else "live tensors"
    rows.append(("peak memory", f"{peak / 2**20:.0f} MiB at batch size {batch_size} ({how}; {have / 2**20:.0f} MiB are free)"))
    if peak > have:
        rows.append(("to make it fit", "; ".join(remedies)))
    rows += [("time", f"{seconds:.3f} s a step, {duration(seconds * steps_per_epoch)} an epoch of {steps_per_epoch} steps"),
             ("time of the run", f"{duration(seconds * steps_per_epoch * epochs)} for {epochs} epochs, evaluation not counted"),
             ("device", f"{device}, {torch.get_num_threads()} CPU threads")]
    return rows


def available_memory(device: torch.device) -> int:
    """Bytes that are free on the device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
