"""What the sub-networks of a chain of decisions cost before any of them is trained: the smallest, a middle and the largest one."""

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from supernet.costs.additive import counted
from supernet.costs.base import FINAL, QUANTITIES, CostError
from supernet.costs.measured import Latency, PeakMemory
from supernet.genotype import Edge, Genotype
from supernet.passes import extremes, ordered
from supernet.space import Space

Rows = list[tuple[str, str]]
REPEATS, WARM_UP = 10, 3
SLOW_S = 1.0  # a pass that takes longer is timed once


class Sub(NamedTuple):
    """A sub-network. known: its parameters and multiply-adds of an item (QUANTITIES)."""

    name: str
    genotype: Genotype
    known: Mapping[str, float]

    @property
    def text(self) -> str:
        return f"{self.known['parameters'] / 1e6:.3f} M parameters, {self.known['multiply_adds'] / 1e6:.3f} M multiply-adds"


def sub_networks(space: Space, net: nn.Module) -> list[Sub]:
    """The smallest, a middle and the largest by multiply-adds, as large as they are in the supernet `net`. The middle one takes of each
    decision the middle choice by cost, of two the one and the other in turn. Empty where decisions are no single rows, where there is one
    architecture, or where nothing counts in this space."""
    if space.count() < 2 or not all(spec.is_chain for spec in space.cells.values()):
        return []
    sizes = {name: value for name, value in net.built.sizes.items() if name != "norm"}
    try:
        costs = {name: counted(space, name, **sizes) for name in QUANTITIES}
    except CostError:
        return []
    smallest, largest = extremes(space, costs["multiply_adds"])
    orders = ordered(space, costs["multiply_adds"], largest)
    middle = {kind: [Edge(d, s, spec.ops[order[(len(order) - e % 2) // 2]])
                     for e, ((s, d), order) in enumerate(zip(spec.edges, orders[kind]))] for kind, spec in space.cells.items()}
    return [Sub(name, genotype, {quantity: cost(genotype) for quantity, cost in costs.items()})
            for name, genotype in (("smallest", smallest), ("middle", space.genotype(middle)), ("largest", largest))]


def line(subs: list[Sub]) -> str:
    """For people, of what is counted."""
    return "sub-networks: " + "; ".join(f"{sub.name} {sub.text}" for sub in subs)


def rows(subs: list[Sub], space: Space, net: nn.Module, x: Tensor) -> Rows:
    """A row each, with what is measured here: peak memory and latency of a forward pass of the final network on `x`, one item, on its
    device. The median of REPEATS passes, or the only one where it takes more than SLOW_S seconds."""
    found = []
    for sub in subs:
        memory, ms = measured(sub.genotype, space, net, x)
        found.append((f"{sub.name} sub-network", f"{sub.text}, {memory / 2**20:.2f} MiB and {ms:.2f} ms an item, measured here"))
    return found


def measured(genotype: Genotype, space: Space, net: nn.Module, x: Tensor) -> tuple[float, float]:
    """Bytes and milliseconds."""
    sizes = dict(net.built.sizes) | {"norm": FINAL}
    with torch.random.fork_rng(devices=[]):
        final = space.network(space.candidates(genotype), **sizes).to(x.device, x.dtype if x.is_floating_point() else None).eval()
    started = time.perf_counter()
    memory = PeakMemory(lambda _: final, x)(genotype)
    slow = time.perf_counter() - started > SLOW_S
    return memory, Latency(lambda _: final, x, repeats=1 if slow else REPEATS, warmup=0 if slow else WARM_UP)(genotype)


def remarks(subs: list[Sub], costs: Mapping[str, Callable[[Genotype], float]], at_most: Mapping[str, float]) -> list[str]:
    """What whoever asks for limits should know before it begins: that they count networks of other sizes than the supernet's, and that
    one on what is measured, for which nothing is known of all architectures, is below what the smallest has here. costs: by name."""
    if not subs:
        return []
    smallest, found = subs[0], []
    for name, cost in costs.items():
        if name in smallest.known:
            value, own = cost(smallest.genotype), smallest.known[name]
            if not math.isclose(value, own, rel_tol=1e-9):
                found.append(f"note: {name} are counted in networks of other sizes than the supernet's: the smallest sub-network has "
                             f"{value:,.0f} there, {own:,.0f} as searched; cost={name} with cost.channels says which")
        elif name in at_most and (value := cost(smallest.genotype)) > at_most[name]:
            found.append(f"note: the smallest sub-network has {name} {value:,.4g} as measured here, above the limit of "
                         f"{at_most[name]:,.4g}: few architectures may keep it, or none")
    return found
