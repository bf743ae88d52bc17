"""Captured steps against eager ones, over 20 steps: every relaxation and hypergradient that says a graph can hold it, and every variant.

Both take the same draws and the same batches, with another learning rate at every step, in float64, where kernels that add in another order
differ by little (learning rates are in single precision on a GPU, and so is what they are multiplied with).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.gpu import searches
from benchmarks.gpu.card import capturing_of
from benchmarks.gpu.checks import Bench, Check, Failed, Report, Skipped, Values
from benchmarks.gpu.searches import CASES, distance, released
from benchmarks.gpu.variants import BY_NAME, VARIANTS, Variant
from supernet.bilevel import Bilevel
from supernet.hypergradients.base import Hypergradient
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.single_level import single_level
from supernet.networks.build import initial_weights, search_normalisation
from supernet.optim.optimizers import ExponentiatedGradient, set_lr
from supernet.penalties.alphas import BetaDecay, DirichletKL
from supernet.penalties.weights import Entropy, ZeroOne
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.base import Relaxation
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.reinmax import ReinMax
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.simplex import Simplex
from supernet.relaxations.softmax import Softmax
from supernet.space import Space
from supernet.spaces import darts
from supernet.tasks.base import Batch
from supernet.tasks.classification import Classification
from supernet.training.graphed import Graphed, refusals

STEPS, WARM_UP = 20, 3
NEAR = 1e-5  # of all that a step moves, together
OPS = ("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5", "avg_pool_3x3", "max_pool_3x3")


@dataclass(frozen=True)
class Search:
    """One to capture, on a small space. network: options of its network."""

    relaxation: Callable[[Space, torch.Generator], Relaxation] = Softmax
    hypergradient: Hypergradient = first_order
    penalties: tuple[Callable[[Space], Any], ...] = ()
    alpha_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    network: Mapping[str, Any] = field(default_factory=dict)


SEARCHES = {
    "softmax": Search(), "second order": Search(hypergradient=finite_difference), "single level": Search(hypergradient=single_level),
    "sigmoid": Search(Sigmoid, penalties=(ZeroOne,)), "concrete": Search(Concrete, penalties=(Entropy, BetaDecay)),
    "dirichlet": Search(Dirichlet, penalties=(DirichletKL,)), "reinmax": Search(ReinMax),
    "simplex": Search(lambda s, g: EdgeNormalised(Simplex(s, g), s, g, form="simplex"), alpha_optimizer=ExponentiatedGradient),
    "edge normalised, partial channels": Search(lambda s, g: EdgeNormalised(Softmax(s, g), s, g), network={"partial": 2}),
    "auxiliary skip": Search(lambda s, g: AuxiliarySkip(Softmax(s, g), s, g), network={"auxiliary_skip": True}),
    "checkpointed cells": Search(network={"checkpoint_cells": True}), "gumbel": Search(GumbelHard),
}


def run(bench: Bench, report: Report) -> None:
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    steps = 5 if bench.toy else STEPS
    plain = BY_NAME["graph"]
    chosen = dict(list(SEARCHES.items())[:3]) | {"gumbel": SEARCHES["gumbel"]} if bench.toy else SEARCHES
    for name, search in chosen.items():
        yield Check(f"{name}, plain", lambda search=search: equal(bench, search, plain, steps))
    for variant in [v for v in VARIANTS if v.graph and v.exact and v.name != plain.name]:
        for name in ("softmax",) if bench.toy else ("softmax", "second order", "edge normalised, partial channels"):
            yield Check(f"{name}, {variant.name}", lambda variant=variant, name=name: equal(bench, SEARCHES[name], variant, steps))
    yield Check("a search of full size in float32 goes on to learn", lambda: learns(bench))


def make(search: Search, variant: Variant, device: torch.device) -> Bilevel:
    """Always the same, in float64."""
    space = darts.make(nodes=2, ops=OPS)
    dtype = torch.float64
    with initial_weights(0):
        net = space.network(space.candidates(), layers=3, channels=4, num_classes=3, image_size=(8, 8),
                            norm=search_normalisation(pool_norm="search", bn_statistics="running"), **search.network, **variant.network)
    net = net.to(device, dtype, memory_format=variant.memory_format).train()
    relaxation = search.relaxation(space, torch.Generator().manual_seed(1)).to(device, dtype)
    alpha = list(relaxation.parameters())
    generators = {"alpha": torch.Generator().manual_seed(2), "net": torch.Generator(device).manual_seed(3)}
    made = Bilevel(net, relaxation, search.hypergradient, Classification(), variant.w_optimizer(net.parameters(), lr=0.1, momentum=0.9,
                   weight_decay=1e-2), search.alpha_optimizer(alpha, lr=1e-2), generators, clip_norm=5.0,
                   penalties=[penalty(space) for penalty in search.penalties])
    variant.change(made)
    return made


def batches(variant: Variant, device: torch.device, many: int) -> list[Batch]:
    g = torch.Generator().manual_seed(7)
    drawn = [(torch.randn(6, 3, 8, 8, generator=g, dtype=torch.float64), torch.randint(3, (6,), generator=g)) for _ in range(many)]
    return [(x.to(device, memory_format=variant.memory_format), y.to(device)) for x, y in drawn]


def equal(bench: Bench, search: Search, variant: Variant, steps: int) -> Values:
    """A graph of one against the same search without: all that steps move."""
    with variant.computing(bench.device):
        eager, held = (make(search, variant, bench.device) for _ in range(2))
        for reason in refusals(held):
            raise Skipped(reason)
        graphed = Graphed(held, batch_size=6, capturing=capturing_of(held), warm_up=WARM_UP)
        data, worst = batches(variant, bench.device, 4), 0.0
        try:
            for s in (eager, held):
                s.anneal(0.0, 0)
            graphed.refresh()
            for n in range(steps):
                train, val = data[n % 4], data[(n + 1) % 4]
                for s in (eager, held):
                    set_lr(s.w_optimizer, 0.125 / (1 + n))
                    set_lr(s.alpha_optimizer, 0.0078125)
                stats, expected = graphed.step(train, val), eager.step(train, val)
                worst = max(worst, distance([stats["loss"]], [expected["loss"]]))
            if any(half.graph is None for half in graphed.all_halves()):
                raise Failed("nothing was captured")
            nodes = graphed.nodes()
        finally:
            released(graphed)
        moved = {"w": distance(held.w, eager.w), "alpha": distance(held.alpha, eager.alpha),
                 "statistics": distance(list(held.net.buffers()), list(eager.net.buffers()))}
    values = {"loss": worst, **moved, "nodes": nodes}
    for kind, value in {"loss": worst, **moved}.items():
        if not value <= NEAR:
            raise Failed(f"after {steps} steps the {kind} differs by {value:.3g}, more than {NEAR:g}", values)
    return values


def learns(bench: Bench) -> Values:
    """The same batch again and again, captured, at the size of a real search: the loss must fall as that of the eager steps does."""
    case, steps = CASES[0], 8 if bench.toy else STEPS
    losses = {}
    for name in ("channels_last", "graph"):
        variant = BY_NAME[name]
        with variant.computing(bench.device):
            made = searches.make(case, variant, bench.device, toy=bench.toy)
            graphed = searches.captured(made) if variant.graph else None
            step = made.search.step if graphed is None else graphed.step
            try:
                losses[name] = [step(*made.batches)["loss"].item() / len(made.batches[0][1]) for _ in range(steps)]
            finally:
                released(graphed)
    eager, held = losses["channels_last"], losses["graph"]
    if not (held[-1] < held[0] and abs(held[-1] - eager[-1]) <= 0.2 * (eager[0] - eager[-1])):
        raise Failed(f"losses fall from {held[0]:.3f} to {held[-1]:.3f} captured, from {eager[0]:.3f} to {eager[-1]:.3f} eager",
                     {"graph": held, "eager": eager})
    return {"graph": held, "eager": eager}


