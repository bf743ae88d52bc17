"""The device a run computes on, and the settings of the process that go with it."""

import functools
import math
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ops import kernels
from supernet.errors import UsageError


def resolve_device(text: str) -> torch.device:
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`. Raises ValueError: not one of these, or not available."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {text!r}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device("cuda" if gpus else "cpu") if text == "auto" else torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ValueError(f"device={text} is not available: torch {torch.__version__} sees {gpus} GPUs (device=cpu always works)")
    return device


def prepare(device: torch.device, *, threads: int | None, deterministic: bool, tf32: bool = False) -> None:
    """Process-wide settings: CPU threads; on a GPU whether products of float32 may drop to TF32 (Torch's own default is yes for
    convolutions, no for matrix products), and kernels that give the same bits again where asked for."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # Set like this: torch 2.13 refuses to read any of these back once single backends were set apart.
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    if deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def precision(amp: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """`amp`, none or bf16, as a context around a network's forward pass. Weights stay in float32, and so do edge weights, batch norms' own
    parameters and running statistics, and losses."""
    if amp == "none":
        return nullcontext
    return functools.partial(torch.autocast, device.type, torch.bfloat16)


class Using(NamedTuple):
    """How this process computes from now on. `backend` is one line of text."""

    device: torch.device
    threads: int
    backend: str


def use(*, threads: int | None = 1, backend: str = "auto", device: str = "auto", deterministic: bool = False, tf32: bool = False) -> Using:
    """Sets how this whole process computes, as `threads=1 backend=auto device=auto` do in the scripts. Call it once, before the first step.

    threads: of the CPU, 1 unless asked for: beside other busy processes torch's own choice, a thread a core, makes the steps of a supernet
    tens of times slower, since each of its many short operations waits for a thread that has no core (docs/library.md has the numbers).
    None: as many as the cores that this process may use, which pays on an idle machine with large images.
    backend: one of `ops.kernels.BACKENDS`, who computes. device: `auto`, `cpu`, `cuda` or `cuda:N`; what is returned is the device
    to put networks and batches on. deterministic, tf32: as `prepare`. Raises UsageError, ValueError.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"threads must be a whole number of at least 1, or None, got {threads!r}")
    on = resolve_device(device)
    chosen = kernels.use(backend, device=on.type)
    prepare(on, threads=usable_cores() if threads is None else threads, deterministic=deterministic, tf32=tf32)
    return Using(on, torch.get_num_threads(), chosen.line)


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its container grants (torch counts the machine's)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()  # control group, version 2
        return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores
