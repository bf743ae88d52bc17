"""Costs measured on this machine: peak memory and latency of final networks."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from supernet.costs.additive import asked
from supernet.costs.base import FINAL, CostError, no_expectation
from supernet.genotype import Genotype
from supernet.networks.measure import peak_memory
from supernet.ranges import Channels, Count, Layers, Range, Whole, ranged
from supernet.space import Space
from supernet.weights import EdgeWeights

Batch = Annotated[int, Range(1, 65_536)]  # of images that are all in memory


class PeakMemory:
    """Bytes of live tensors at the highest moment of one forward pass of the final network, its weights included. `make(genotype)`
    builds the network, `x` is its input."""

    name, unit = "peak_memory", "bytes"

    def __init__(self, make: Callable[[Genotype], nn.Module], x: Tensor):
        self.make, self.x = make, x

    def __call__(self, genotype: Genotype) -> float:
        net = self.make(genotype).eval()
        generator = torch.Generator(self.x.device)
        with torch.no_grad():
            return float(peak_memory(lambda: net(self.x, generator=generator), self.x.device, [self.x, *net.parameters(), *net.buffers()]))

    def expected(self, weights: EdgeWeights) -> Tensor:
        raise no_expectation("peak memory")

    def least(self) -> float:
        raise no_expectation("peak memory")


class Latency:
    """Milliseconds of one forward pass of the final network on the device of `x`: the median of `repeats` after `warmup` passes. Each
    architecture is measured once, so that comparisons agree with each other."""

    name, unit = "latency", "ms"

    def __init__(self, make: Callable[[Genotype], nn.Module], x: Tensor, *, repeats: int = 30, warmup: int = 5):
        self.make, self.x, self.repeats, self.warmup = make, x, repeats, warmup
        self.known: dict[Genotype, float] = {}

    def __call__(self, genotype: Genotype) -> float:
        if genotype not in self.known:
            net, generator = self.make(genotype).eval(), torch.Generator(self.x.device)
            run = lambda: net(self.x, generator=generator)
            self.known[genotype] = median_ms(run, self.x.device, self.repeats, self.warmup)
        return self.known[genotype]

    def expected(self, weights: EdgeWeights) -> Tensor:
        raise no_expectation("the latency of a whole network")

    def least(self) -> float:
        raise no_expectation("the latency of a whole network")


@ranged
def measured_memory(space: Space, *, layers: Layers | None = None, channels: Channels | None = None, batch_size: Batch = 1,
                    **sizes: Any) -> PeakMemory:
    """The peak memory of final networks of these sizes, on the CPU. Raises CostError: networks that read no images."""
    sizes |= asked(layers, channels)
    return PeakMemory(_maker(space, sizes), _images(batch_size, sizes))


@ranged
def measured_latency(space: Space, *, layers: Layers | None = None, channels: Channels | None = None, batch_size: Batch = 1,
                     repeats: Count = 30, warmup: Whole = 5, **sizes: Any) -> Latency:
    """The latency of final networks of these sizes, on the CPU. Raises CostError: networks that read no images."""
    sizes |= asked(layers, channels)
    return Latency(_maker(space, sizes), _images(batch_size, sizes), repeats=repeats, warmup=warmup)


def _maker(space: Space, sizes: Mapping[str, Any]) -> Callable[[Genotype], nn.Module]:
    def make(genotype: Genotype) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return space.network(space.candidates(genotype), norm=FINAL, **(dict(sizes) | dict(space.sizes)))

    return make


def _images(batch_size: int, sizes: Mapping[str, Any]) -> Tensor:
    if "num_classes" not in sizes:
        raise CostError(f"memory and latency are measured for networks that read images, got the sizes {', '.join(sorted(sizes))}")
    return torch.zeros(batch_size, sizes.get("in_channels", 3), *sizes.get("image_size", (32, 32)))


@torch.no_grad()
def median_ms(run: Callable[[], object], device: torch.device, repeats: int, warmup: int, *,
              clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds of a call, without gradients; the device is waited for."""
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    times = []
    for n in range(warmup + repeats):
        wait()
        started = clock()
        run()
        wait()
        if n >= warmup:
            times.append(1000 * (clock() - started))
    return statistics.median(times)
