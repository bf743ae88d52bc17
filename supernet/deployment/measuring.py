"""What a sub-network takes on this machine: the time of a call and the highest memory, of the network as it is handed out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ops.forms import NoPlainForm
from supernet.compression.networks import AsNetwork, module_of
from supernet.costs.measured import PeakMemory, median_ms
from supernet.genotype import Genotype
from supernet.interfaces import InterfaceError, check_interface
from supernet.networks.written import WritesItself
from supernet.runs.environment import describe

REPEATS, WARMUP = 30, 5  # calls, of which the median counts, and calls before them
ROUNDS, ENOUGH_S = 3, 0.5  # medians at most, and seconds after which there is no further one
CPU = torch.device("cpu")


def handed_out(net: nn.Module) -> nn.Module:
    """In plain PyTorch, called as our networks are; the network itself where it has no such form."""
    try:
        check_interface(net, WritesItself, "network")
        return AsNetwork(module_of(net.plain())).eval()
    except (NoPlainForm, InterfaceError):
        return net.eval()


@dataclass(frozen=True)
class Here:
    """make(genotype): its network, on the CPU. x: an input. clock: of a thread's processor time where torch has one thread, which other
    work of the machine lengthens little; else the wall's."""

    make: Callable[[Genotype], nn.Module]
    x: Tensor

    @cached_property
    def machine(self) -> dict[str, Any]:
        """All that a time depends on beside the architecture."""
        here = describe(CPU)
        return {"cpu": here["cpu"], "torch": here["torch"], "threads": torch.get_num_threads(), "shape": list(self.x.shape),
                "clock": "processor" if torch.get_num_threads() == 1 else "wall", "repeats": REPEATS}

    def latency_ms(self, genotype: Genotype) -> float:
        """The median of `REPEATS` calls; where these are short the least of several such, for other work only adds to it."""
        net, generator = handed_out(self.make(genotype)), torch.Generator()
        clock = {"processor": time.thread_time, "wall": time.perf_counter}[self.machine["clock"]]
        began, found = time.perf_counter(), []
        while not found or (len(found) < ROUNDS and time.perf_counter() - began < ENOUGH_S):
            found.append(median_ms(lambda: net(self.x, generator=generator), CPU, REPEATS, WARMUP, clock=clock))
        return min(found)

    def peak_memory(self, genotype: Genotype) -> float:
        """Bytes of live tensors at the highest moment, weights included: the same at every call."""
        return PeakMemory(lambda g: handed_out(self.make(g)), self.x)(genotype)
