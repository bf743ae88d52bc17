"""One step of the search: the architecture parameters once, then the network's weights once. The only place that knows both
optimizers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ops.op import BatchNorm
from supernet.hypergradients.base import Hypergradient, Problem
from supernet.network import batch_norms
from supernet.optimizers import virtual_step
from supernet.relaxations.base import Relaxation
from supernet.task import Batch, State, Task
from supernet.weights import EdgeWeights


@contextmanager
def statistics_held(norms: Sequence[BatchNorm]) -> Iterator[None]:
    """Within, training forwards leave the running statistics of `norms` as they are."""
    for norm in norms:
        norm.updates = False
    try:
        yield
    finally:
        for norm in norms:
            norm.updates = True


@contextmanager
def rewound(generator: torch.Generator) -> Iterator[torch.Generator]:
    """Within, `generator` may be drawn from; afterwards it stands where it stood."""
    state = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(state)


def rehearse(hypergradient: Hypergradient, make_optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    """Runs a hypergradient once on a problem of two numbers, so that one which cannot work with this optimizer says so
    (ValueError) before any work starts."""
    w, alpha = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = make_optimizer(params=[w])
    hypergradient(Problem((w,), (alpha,), lambda: (w * alpha).sum() ** 2, lambda: (w + alpha).sum() ** 2,
                          lambda grads: virtual_step(optimizer, (w,), grads)))


class Streams:
    """Where the sequences of batches stand: what the task handed on after the last batch of `train` and of `val`. Tasks with
    independent batches leave both None."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {"train": None, "val": None}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.states)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.states = dict(state)


@dataclass
class Bilevel:
    """A search's moving parts. `generators`: `alpha` draws edge weights, `net` what the network itself draws (drop path, noise).

    `alpha_optimizer` is None where the relaxation has no parameters: then only weights are trained.
    """

    net: nn.Module
    relaxation: Relaxation
    hypergradient: Hypergradient
    task: Task
    w_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer | None
    generators: dict[str, torch.Generator]
    clip_norm: float | None = None
    guard: Callable[[str, Tensor, Batch], None] = lambda what, value, batch: None  # sees each loss and alpha gradient before it is used

    def __post_init__(self) -> None:
        self.w = tuple(self.net.parameters())
        self.alpha = tuple(self.relaxation.parameters())
        self.norms = batch_norms(self.net)
        self.streams = Streams()
        self._ahead: dict[str, State] = {}  # where the streams would stand after the batches of the last losses

    def problem(self, train_batch: Batch, val_batch: Batch) -> Problem:
        """The bilevel problem on two batches under one draw: every loss of it sees the same edge weights' noise and the same
        drop-path masks, and leaves running statistics and generators as they were."""
        noise = self.relaxation.noise(self.generators["alpha"])

        def loss_on(batch: Batch, stream: str) -> Tensor:
            with statistics_held(self.norms), rewound(self.generators["net"]) as generator:
                result = self.task(self.net, batch, self.relaxation.weights(noise), state=self.streams.states[stream], generator=generator)
            self._ahead[stream] = result.state
            return result.loss

        return Problem(self.w, self.alpha, lambda: loss_on(train_batch, "train"), lambda: loss_on(val_batch, "val"),
                       lambda grads: virtual_step(self.w_optimizer, self.w, grads))

    def alpha_step(self, train_batch: Batch, val_batch: Batch) -> None:
        """One update of the architecture parameters. Leaves the weights bitwise as they are."""
        grads = self.hypergradient(self.problem(train_batch, val_batch))
        self.guard("alpha gradient's norm", torch.stack(torch._foreach_norm(list(grads))).sum(), val_batch)
        for p, g in zip(self.alpha, grads):
            p.grad = g
        self.alpha_optimizer.step()
        self.relaxation.after_step()
        self.streams.states["val"] = self._ahead["val"]

    def w_step(self, train_batch: Batch) -> dict[str, Tensor]:
        """One update of the weights under a new draw. Leaves the architecture parameters bitwise as they are."""
        loss, stats, state = self.task(self.net, train_batch, self._draw_for_w(train_batch), state=self.streams.states["train"],
                                       generator=self.generators["net"])
        self.guard("training loss", loss, train_batch)
        self.w_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.w, self.clip_norm)
        self.w_optimizer.step()
        self.streams.states["train"] = state
        return stats

    def _draw_for_w(self, batch: Batch) -> EdgeWeights:
        with torch.no_grad():
            draw = self.relaxation(self.generators["alpha"]).detach()

        def loss_of_weights(weights: EdgeWeights) -> Tensor:
            with statistics_held(self.norms), rewound(self.generators["net"]) as generator:
                return self.task(self.net, batch, weights, state=self.streams.states["train"], generator=generator).loss

        return self.relaxation.for_w_step(draw, loss_of_weights)

    def step(self, train_batch: Batch, val_batch: Batch | None) -> dict[str, Tensor]:
        """The alpha update on both batches (skipped without a validation batch, and where there is no alpha), then the w update.
        Returns the sums of the w step's batch (`loss`, `correct`, `count`), on the device."""
        if val_batch is not None and self.alpha:
            self.alpha_step(train_batch, val_batch)
        return self.w_step(train_batch)
