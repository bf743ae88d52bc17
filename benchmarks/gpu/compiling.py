"""Compiles the kernels of the checks on idle cores, the last cases first, while the checks run from the front: half a second a kernel, of
which there are hundreds. Both share Triton's cache, and need not know of each other.

`python -m benchmarks.gpu.compiling INDEX COUNT CAPABILITY`: every COUNT-th case, for a GPU that this process does not touch.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

MOST = 8


def start(device: torch.device) -> list[subprocess.Popen]:
    """Processes on half of the cores. They end with their group, if not before."""
    major, minor = torch.cuda.get_device_capability(device)
    count = max(1, min(MOST, (os.cpu_count() or 2) // 2))
    environment = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "benchmarks.gpu.compiling"]
    return [subprocess.Popen([*words, str(index), str(count), str(10 * major + minor)], env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, cwd=Path(__file__).resolve().parents[2]) for index in range(count)]


def end(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def main(words: Sequence[str]) -> None:
    index, count, capability = map(int, words)
    from tests import compiled  # before the kernels: it says for which GPU

    compiled.compile_only(capability)
    from benchmarks.gpu import kernels
    from ops.kernels import triton_kernels

    for case in kernels.cases(toy=False)[::-1][index::count]:
        for autocast in (False, True):
            with suppress(Exception):  # results are undefined here, and what does not compile is told by the check
                kernels.computed(triton_kernels, case, kernels.leaves_of(case, torch.device("cpu")), autocast)


if __name__ == "__main__":
    main(sys.argv[1:])
