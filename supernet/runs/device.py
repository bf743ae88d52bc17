"""The device a run computes on, and the settings of the process that go with it."""

import functools
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


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
