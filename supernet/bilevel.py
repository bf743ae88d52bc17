"""One step of the search: the architecture parameters once, then the network's weights once. The only place that knows both
optimizers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ops.op import BatchNorm
from supernet.hypergradients.base import Hypergradient, Layered, Problem, Score
from supernet.network import batch_norms
from supernet.optimizers import virtual_step
from supernet.penalties.base import Penalty, WeightPenalty, WeightProblem
from supernet.relaxations.base import Noise, Relaxation
from supernet.task import Batch, Result, State, Task
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


def rehearse(hypergradient: Hypergradient, make_optimizer: Callable[..., torch.optim.Optimizer], sampled: bool) -> None:
    """Runs a hypergradient once on a problem of two numbers, so that one which cannot work with this optimizer, or with draws that have no
    log-probability, says so (ValueError) before any work starts. `sampled`: whether they have."""
    w, alpha = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = make_optimizer(params=[w])

    def train_loss() -> Tensor:
        return (w * alpha).sum() ** 2

    def score() -> Score:
        return Score(torch.ones(()), alpha.sum() if sampled else no_log_prob(), torch.ones(()))

    def problem() -> Problem:
        return Problem((w,), (alpha,), train_loss, lambda: (w + alpha).sum() ** 2, lambda grads: virtual_step(optimizer, (w,), grads),
                       joint_loss=train_loss, score=score, again=problem, layered=lambda: Layered({}, {}, lambda own: w.sum()))

    hypergradient(problem())


def no_log_prob() -> Tensor:
    raise ValueError("this hypergradient needs draws with a log-probability: relaxation=controller")


class _AtNoise(nn.Module):
    """A relaxation as a function of one frozen draw, for `functional_call`."""

    def __init__(self, relaxation: Relaxation):
        super().__init__()
        self.relaxation = relaxation

    def forward(self, noise: Noise) -> EdgeWeights:
        return self.relaxation.weights(noise)


class Streams:
    """Where the sequences of batches stand: what the task handed on after the last batch of `train` and of `val`. Tasks with
    independent batches leave both None."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {"train": None, "val": None}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.states)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.states = dict(state)


class Memory:
    """What a hypergradient keeps from step to step (a baseline)."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.values)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values.clear()
        self.values.update(state)


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
    penalties: Sequence[Penalty] = ()
    w_penalties: Sequence[WeightPenalty] = ()
    alpha_clip_norm: float | None = None

    def __post_init__(self) -> None:
        self.w = tuple(self.net.parameters())
        self.alpha = tuple(self.relaxation.parameters())
        self.norms = batch_norms(self.net)
        self.streams = Streams()
        self.memory = Memory()
        self.progress = 0.0
        self._ahead: dict[str, State] = {}  # where the streams would stand after the batches of the last losses

    def anneal(self, progress: float, epoch: int) -> None:
        """Before each epoch: schedules of the relaxation and the penalties."""
        self.progress = progress
        self.relaxation.anneal(progress, epoch)
        for penalty in (*self.penalties, *self.w_penalties):
            penalty.anneal(progress)

    def problem(self, train_batch: Batch, val_batch: Batch) -> Problem:
        """The bilevel problem on two batches under one draw: every loss of it sees the same edge weights' noise and the same
        drop-path masks, and leaves running statistics and generators as they were."""
        noise = self.relaxation.noise(self.generators["alpha"])

        def result(batch: Batch, stream: str, weights: EdgeWeights) -> Result:
            with statistics_held(self.norms), rewound(self.generators["net"]) as generator:
                found = self.task(self.net, batch, weights, state=self.streams.states[stream], generator=generator)
            self._ahead[stream] = found.state
            return found

        def penalised(batch: Batch, stream: str) -> Tensor:
            weights = self.relaxation.weights(noise)
            loss = result(batch, stream, weights).loss
            for penalty in self.penalties:  # each sees the task's loss and the terms before its own
                loss = loss + penalty(loss, weights, self.relaxation)
            return loss

        def score() -> Score:
            weights = self.relaxation.weights(noise)
            if weights.log_prob is None or weights.entropy is None:
                no_log_prob()
            with torch.no_grad():
                stats = result(val_batch, "val", weights.detach()).stats
            return Score(stats["correct"] / stats["count"], weights.log_prob, weights.entropy)

        return Problem(
            self.w, self.alpha, lambda: result(train_batch, "train", self.relaxation.weights(noise)).loss,
            lambda: penalised(val_batch, "val"), lambda grads: virtual_step(self.w_optimizer, self.w, grads),
            joint_loss=lambda: penalised(train_batch, "train"), score=score, again=lambda: self.problem(train_batch, val_batch),
            layered=lambda: self._layered(noise, lambda weights: result(val_batch, "val", weights).loss), progress=self.progress,
            memory=self.memory.values)

    def _layered(self, noise: Noise, loss_of_weights: Callable[[EdgeWeights], Tensor]) -> Layered:
        tables = self.relaxation.tables()
        names = {id(p): f"relaxation.{name}" for name, p in self.relaxation.named_parameters()}
        at_noise = _AtNoise(self.relaxation)

        def loss(own: Mapping[str, Tensor]) -> Tensor:
            values = {names[id(tables[kind])]: alphas for kind, alphas in own.items()}
            return loss_of_weights(torch.func.functional_call(at_noise, values, (noise,)))

        return Layered(tables, {kind: self.net.kinds.count(kind) for kind in tables}, loss)

    def val_loss_under(self, batch: Batch, weights: EdgeWeights) -> Tensor:
        """The task's loss of a validation batch in training mode; generators, statistics and streams are left as they were."""
        with statistics_held(self.norms), rewound(self.generators["net"]) as generator:
            return self.task(self.net, batch, weights, state=self.streams.states["val"], generator=generator).loss

    def alpha_step(self, train_batch: Batch, val_batch: Batch) -> None:
        """One update of the architecture parameters. Leaves the weights bitwise as they are."""
        grads = self.hypergradient(self.problem(train_batch, val_batch))
        self.guard("alpha gradient's norm", torch.stack(torch._foreach_norm(list(grads))).sum(), val_batch)
        for p, g in zip(self.alpha, grads):
            p.grad = g
        if self.alpha_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.alpha, self.alpha_clip_norm)
        self.alpha_optimizer.step()
        self.relaxation.after_step()
        for penalty in self.penalties:
            penalty.after_step(self.relaxation)
        self.streams.states["val"] = self._ahead.get("val")

    def w_step(self, train_batch: Batch, weights: EdgeWeights | None = None) -> dict[str, Tensor]:
        """One update of the network's weights under a new draw, or under given edge weights. Leaves the architecture parameters bitwise
        as they are."""
        draw = self._draw_for_w(train_batch) if weights is None else weights
        net_state = self.generators["net"].get_state() if self.w_penalties else None
        loss, stats, state = self.task(self.net, train_batch, draw, state=self.streams.states["train"],
                                       generator=self.generators["net"])
        self.guard("training loss", loss, train_batch)
        self.w_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for penalty in self.w_penalties:
            self._add_gradient(penalty, train_batch, draw, net_state)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.w, self.clip_norm)
        self.w_optimizer.step()
        self.streams.states["train"] = state
        return stats

    def _add_gradient(self, penalty: WeightPenalty, batch: Batch, draw: EdgeWeights, net_state: Tensor) -> None:
        """Adds a penalty's gradient to those of the weights that took part in the step; `net_state`: of the generator at its loss."""
        def loss(weights: EdgeWeights) -> Tensor:
            with statistics_held(self.norms), rewound(self.generators["net"]) as generator:
                generator.set_state(net_state)
                return self.task(self.net, batch, weights, state=self.streams.states["train"], generator=generator).loss

        layers = {kind: self.net.kinds.count(kind) for kind in draw}
        extra = penalty(WeightProblem(self.w, draw, layers, loss))
        if extra is not None:
            held = [(p.grad, g) for p, g in zip(self.w, extra) if p.grad is not None]
            torch._foreach_add_([own for own, _ in held], [g for _, g in held])

    def _draw_for_w(self, batch: Batch) -> EdgeWeights:
        with torch.no_grad():
            draw = self.relaxation(self.generators["alpha"]).detach()

        def loss_of_weights(weights: EdgeWeights) -> Tensor:
            training = self.net.training
            self.net.eval()
            try:
                return self.task(self.net, batch, weights, state=self.streams.states["train"], generator=self.generators["net"]).loss
            finally:
                self.net.train(training)

        return self.relaxation.for_w_step(draw, loss_of_weights, self.generators["alpha"])

    def step(self, train_batch: Batch, val_batch: Batch | None) -> dict[str, Tensor]:
        """The alpha update on both batches (skipped without a validation batch, and where there is no alpha), then the w update.
        Returns the sums of the w step's batch (`loss`, `correct`, `count`), on the device."""
        if val_batch is not None and self.alpha:
            self.alpha_step(train_batch, val_batch)
        return self.w_step(train_batch)
