"""What a compressed network is worth and what it takes: accuracy, size, time, memory."""

import gzip
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supernet.compression.networks import AsNetwork, parameter_count
from supernet.exports.formats import FORMATS
from supernet.networks.measure import multiply_adds_of, peak_memory
from supernet.runs.predictions import Keeping, Predictions
from supernet.tasks.base import Batch, Task
from supernet.training.evaluate import summed

BATCHES = (1, 32)  # that latency is measured at
GROWTH = Path(__file__).with_name("growth.py")
ROUNDS, ROUND_S, MOST = 9, 0.05, 40  # of the clock: times that all take their turn, seconds and calls of a turn


class OnnxNetwork(nn.Module):
    """An ONNX file, called as our networks are."""

    def __init__(self, path: Path, threads: int = 1):
        super().__init__()
        self.call = FORMATS["onnx"].read(path, threads)

    def forward(self, x: Tensor, weights: None = None, *, generator: torch.Generator | None = None) -> Tensor:
        return self.call((x.cpu().contiguous(),))[0].to(x.device)


def judged(net: nn.Module, task: Task, batches: Iterable[Batch], items: int,
           classes: Iterable[str]) -> tuple[dict[str, float], Predictions]:
    """The task's metrics over all batches, and what was predicted. Batches lie where the network does."""
    keeping = Keeping(task, items, tuple(classes))
    sums = summed(net, keeping, batches, lambda: None, torch.Generator())
    return task.evaluated(sums), keeping.predictions()


def sizes(module: nn.Module, x: Tensor) -> dict[str, int]:
    """Of a plain module: its parameters, those that are not zero, the multiply-adds of one image."""
    count, nonzero = parameter_count(module)
    return {"parameters": count, "nonzero": nonzero, "multiply_adds": multiply_adds_of(AsNetwork(module), x[:1])}


def bytes_of(path: Path) -> tuple[int, int]:
    """A file's, and what gzip makes of it."""
    data = path.read_bytes()
    return len(data), len(gzip.compress(data, 9, mtime=0))


def live_bytes_of(module: nn.Module, x: Tensor) -> int:
    """Bytes of live tensors at the highest moment of a forward pass, the weights among them."""
    net = module.eval()
    with torch.no_grad():
        return peak_memory(lambda: net(x), x.device, [x, *net.parameters(), *net.buffers()])


def grown(path: Path, shape: Iterable[int]) -> int | None:
    """Bytes by which a process of its own grows that loads the ONNX file and computes inputs of this shape. None where the system does not
    tell (only Linux does)."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    done = subprocess.run([sys.executable, "-P", str(GROWTH), str(path), *map(str, shape)], capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else None


def side_by_side(calls: Mapping[Any, Callable[[], object]], *, clock: Callable[[], float] = time.perf_counter) -> dict[Any, float]:
    """Median milliseconds of a call of each, warm. They take turns, so that what else the machine has to do meets all alike."""
    found: dict[Any, list[float]] = {key: [] for key in calls}
    turns = {}
    with torch.inference_mode():
        for key, call in calls.items():
            call()
            began = clock()
            call()
            turns[key] = max(1, min(MOST, int(ROUND_S / max(clock() - began, 1e-6))))
        for _ in range(ROUNDS):
            for key, call in calls.items():
                for _ in range(turns[key]):
                    began = clock()
                    call()
                    found[key].append(1000 * (clock() - began))
    return {key: statistics.median(times) for key, times in found.items()}
