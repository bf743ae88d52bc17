"""Sizes and costs of a network before it is trained: parameters, multiply-adds, peak memory, time."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(net: nn.Module, *, without: str = "auxiliary_head") -> int:
    """Number of trainable entries, the auxiliary head left out as in the published counts."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith(without))


def multiply_adds(net: nn.Module, image: tuple[int, int, int], **call: Any) -> int:
    """Multiply-adds of one image (C, H, W) in evaluation: convolutions and matrix products, as papers count."""
    p = next(net.parameters())
    training = net.training
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.eval()(torch.zeros(1, *image, device=p.device, dtype=p.dtype), **call)
    finally:
        net.train(training)
    return counter.get_total_flops() // 2


def peak_memory(step: Callable[[], object], device: torch.device) -> int:
    """Bytes at the highest moment of `step`, with all that is alive when it is called.

    On a GPU the allocator's maximum. On the CPU the live bytes of tensors: those alive before (counted by storage), plus the
    running sum of the allocations and releases that the profiler sees.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device)
    before = _live_bytes()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return before + peak


def _live_bytes() -> int:
    import gc

    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def seconds_per_step(step: Callable[[], object], device: torch.device, *, steps: int = 3) -> float:
    """Mean wall time of `steps` steps after one to warm up."""
    step()
    _wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return (time.perf_counter() - start) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
