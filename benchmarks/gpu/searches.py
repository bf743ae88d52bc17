"""The searches that are checked and measured: a space, a method and sizes, made alike under every variant."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.card import capturing_of
from benchmarks.gpu.checks import Skipped
from benchmarks.gpu.variants import Variant
from benchmarks.sides import ALPHA_OPTIMIZER, CLIP_NORM, METHODS, SPACES, W_OPTIMIZER, Sizes, noise, supernet
from supernet.bilevel import Bilevel
from supernet.hypergradients.base import Hypergradient
from supernet.hypergradients.first_order import first_order
from supernet.space import Space
from supernet.spaces import darts
from supernet.tasks.base import Batch
from supernet.tasks.classification import Classification
from supernet.training.graphed import Graphed, refusals


@dataclass(frozen=True)
class Case:
    """A space and a method of `benchmarks.sides`, at the sizes of a card and of a stand-in."""

    name: str
    space: str
    method: str
    cells: int

    def made(self, toy: bool) -> Space:
        """The space; of a stand-in's DARTS a little."""
        return darts.make(nodes=1, ops=FEW) if toy and self.space == "darts" else SPACES[self.space]()

    def sizes(self, toy: bool, *, batch: int = 64) -> Sizes:
        if toy:  # 4 channels: PC-DARTS sends a quarter through the ops
            return Sizes(5 if self.space == "nasbench201" else 3, 4, 4, 8)
        return Sizes(self.cells, 16, batch, 32)


FEW = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
CASES = (Case("darts", "darts", "softmax", 8), Case("nasbench201", "nasbench201", "softmax", 17), Case("gdas", "darts", "gdas", 8),
         Case("pc_darts", "darts", "pc_darts", 8), Case("s1", "s1", "softmax", 8))


@dataclass(frozen=True)
class Made:
    search: Bilevel
    batches: tuple[Batch, Batch]  # for w, for alpha

    def losses(self) -> dict[str, torch.Tensor]:
        """Of both batches, under one draw; a function of nothing but the weights and the alphas."""
        noise_ = self.search.relaxation.noise(torch.Generator().manual_seed(5))
        problem = self.search.problem(*self.batches, noise_)
        return {"train": problem.train_loss(), "val": problem.val_loss()}

    def state(self) -> list[torch.Tensor]:
        """All that a step may move."""
        s = self.search
        return [*s.net.state_dict().values(), *s.relaxation.state_dict().values(),
                *(v for o in (s.w_optimizer, s.alpha_optimizer) for held in o.state.values() for v in held.values() if torch.is_tensor(v)),
                *(g.get_state() for g in s.generators.values())]


def make(case: Case, variant: Variant, device: torch.device, *, toy: bool, batch: int = 64, dtype: torch.dtype = torch.float32) -> Made:
    """A search of its own, always from the same weights, alphas and batches; within `variant.computing`."""
    how, space, sizes = METHODS[case.method], case.made(toy), case.sizes(toy, batch=batch)
    draw = torch.Generator().manual_seed(1)
    batches = [noise(sizes, draw, device, torch.float32) for _ in range(2)]  # another type would draw other numbers
    net = supernet(space, sizes, how, dtype, **variant.network).to(device, memory_format=variant.memory_format)
    relaxation = how.relaxation(space, torch.Generator().manual_seed(0)).to(device, dtype)
    sgd = variant.w_optimizer(net.parameters(), **W_OPTIMIZER)
    adam = torch.optim.Adam(relaxation.parameters(), **ALPHA_OPTIMIZER)
    generators = {"alpha": torch.Generator().manual_seed(2), "net": torch.Generator(device).manual_seed(3)}
    search = Bilevel(net, relaxation, first_order, Classification(), sgd, adam, generators, clip_norm=CLIP_NORM,
                     context=variant.context(device))
    variant.change(search)
    first, second = ((x.to(dtype, memory_format=variant.memory_format), y) for x, y in batches)
    return Made(search, (first, second))


def captured(made: Made, warm_up: int = 3) -> Graphed:
    """Its steps as graphs. Raises Skipped: a part cannot be captured."""
    for reason in refusals(made.search):
        raise Skipped(reason)
    search = made.search
    return Graphed(search, batch_size=len(made.batches[0][1]), capturing=capturing_of(search), warm_up=warm_up)


def with_hypergradient(made: Made, hypergradient: Hypergradient) -> Made:
    """The same network, alphas and optimizers under another hypergradient."""
    return replace(made, search=replace(made.search, hypergradient=hypergradient))


def released(graphed: Graphed | None) -> None:
    """Frees what graphs hold, before other graphs are made."""
    if graphed is not None:
        with suppress(RuntimeError):  # a device that is gone is told by who looks next
            graphed.release()


def gradients(search: Bilevel, batches: tuple[Batch, Batch], seed: int = 5) -> dict[str, Sequence[torch.Tensor | None]]:
    """Those of the weights, of the training batch, and the hypergradient, under one draw. The running statistics are left alone."""
    draw = search.relaxation.noise(torch.Generator().manual_seed(seed))
    problem = search.problem(*batches, draw)
    of_w = torch.autograd.grad(problem.train_loss(), search.w, allow_unused=True)
    of_alpha = search.hypergradient(search.problem(*batches, draw))
    return {"w": of_w, "alpha": of_alpha}


def distance(got: Sequence[Any], want: Sequence[Any]) -> float:
    """The norm of the difference over the norm of `want`, of all tensors together, in float64. None, no gradient, must stand on both
    sides. NaN where anything is not finite."""
    off, whole = 0.0, 0.0
    for a, b in zip(got, want, strict=True):
        if (a is None) != (b is None):
            return float("nan")
        if a is not None:
            off += (a.double() - b.double()).square().sum().item()
            whole += b.double().square().sum().item()
    return (off / whole) ** 0.5 if whole else off**0.5


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
