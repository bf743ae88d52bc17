"""What a result was computed with: versions, processor, commit. Nothing that names a person, a machine or a folder."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Plain JSON data; None stands for what cannot be known here."""
    commit, dirty = _git()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": _version("torchvision"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        **_GPU[device.type](device),
        "git_commit": commit,
        "git_dirty": dirty,
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "gpu": torch.cuda.get_device_name(device),
        "gpu_driver": driver.splitlines()[0] if driver else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


_GPU = {"cpu": lambda device: {}, "cuda": _gpu}


def _version(package: str) -> str | None:
    # torchvision is not imported for it: beside a CPU build of torch its import may fail.
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _git() -> tuple[str | None, bool | None]:
    """The commit of this code, and whether tracked files differ from it; (None, None) where it is not under git."""
    here = Path(__file__).resolve()
    git = ("git", "-C", str(here.parent))
    if not _output(*git, "ls-files", here.name):  # an environment inside somebody's repository is not that repository
        return None, None
    changes = _output(*git, "status", "--porcelain", "--untracked-files=no")
    return _output(*git, "rev-parse", "--verify", "--quiet", "HEAD"), None if changes is None else changes != ""


def _output(*command: str) -> str | None:
    """What the command prints; None where it is missing, fails, or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
