"""One step of the search: the architecture parameters once, then the network's weights once. The only place that knows both
optimizers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ops import heap
from ops.op import BatchNorm
from supernet.hypergradients.base import Hypergradient, Layered, Problem, Score, Tensors, constant, name_of
from supernet.interfaces import InterfaceError, seen
from supernet.networks.stacked import batch_norms
from supernet.optim.descent import Descent, descend
from supernet.optim.optimizers import linear_step, virtual_step
from supernet.passes import Passes, Step
from supernet.penalties.base import Penalty, WeightPenalty, WeightProblem
from supernet.processes.group import ALONE, Group
from supernet.relaxations.base import Noise, Relaxation
from supernet.tasks.base import Batch, Result, State, Task
from supernet.weights import EdgeWeights, replaced

ALPHA_NORM, TRAINING_LOSS = "alpha gradient's norm", "training loss"  # what a guard is told that it sees


@contextmanager
def statistics_held(norms: Sequence[BatchNorm]) -> Iterator[None]:
    """Within, training forwards leave the running statistics of `norms` as they are."""
    # Into the dictionary: a module looks at what it is given, and there are hundreds of norms.
    for norm in norms:
        vars(norm)["updates"] = False
    try:
        yield
    finally:
        for norm in norms:
            vars(norm)["updates"] = True


def running_statistics(norms: Sequence[BatchNorm]) -> list[Tensor]:
    """Those that each process's own part of a batch has moved."""
    return [s for norm in norms if norm.across is None and norm.running_mean is not None for s in (norm.running_mean, norm.running_var)]


@contextmanager
def rewound(generator: torch.Generator | None) -> Iterator[torch.Generator | None]:
    """Within, `generator` may be drawn from; afterwards it stands where it stood. None, for what draws nothing, stays None."""
    if generator is None:
        yield None
        return
    state = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(state)


def rehearse(hypergradient: Hypergradient, make_optimizer: Callable[..., torch.optim.Optimizer], sampled: bool) -> None:
    """Runs a hypergradient once on a problem of four numbers, so that one which cannot work with this optimizer, with draws that have no
    log-probability, or with those that have nothing else, says so (ValueError) before any work starts; so does one whose gradients are not
    those of the alphas (InterfaceError). `sampled`: whether they have."""
    w = torch.ones(1, requires_grad=True)
    alpha = torch.ones(1, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = make_optimizer(params=[w])

    def total() -> Tensor:
        return alpha[0].sum() + alpha[1].sum()

    def train_loss() -> Tensor:
        return (w * total()).sum() ** 2

    scored = []

    def score() -> Score:
        scored.append(True)
        return Score(torch.ones(()), total() if sampled else no_log_prob(), torch.ones(()))

    def problem() -> Problem:
        return Problem((w,), alpha, train_loss, lambda: (w + total()).sum() ** 2, lambda grads: virtual_step(optimizer, (w,), grads),
                       joint_loss=train_loss, score=score, again=problem, layered=lambda: Layered({}, {}, lambda own: w.sum()))

    found = hypergradient(problem())
    want = [tuple(a.shape) for a in alpha]
    got = [tuple(g.shape) if isinstance(g, Tensor) else seen(g) for g in found] if isinstance(found, tuple | list) else seen(found)
    if got != want:
        raise InterfaceError(f"hypergradient {name_of(hypergradient)} must return one gradient for each tensor of problem.alpha, here "
                             f"of shapes {want}, got {got}")
    if sampled and not scored:
        raise ValueError("draws of this relaxation have a log-probability and no gradient: pass hypergradient=reinforce")


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
    independent batches leave both None. group: the processes that have a part of each batch; what is kept is of whole batches."""

    def __init__(self, group: Group = ALONE) -> None:
        self.group = group
        self.states: dict[str, State] = {"train": None, "val": None}

    def before(self, stream: str, batch: Batch) -> State:
        """The state that the next `batch` goes on from, where that lies: checkpoints are read on the CPU."""
        state = self.states[stream]
        return None if state is None else self.group.part(state.to(batch[0].device), batch)

    def after(self, stream: str, batch: Batch, state: State) -> None:
        """Keeps what a step on `batch` handed on."""
        self.states[stream] = None if state is None else self.group.whole(state, batch)

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

    `alpha_optimizer` is None where the relaxation has no parameters: then only weights are trained. context: opens mixed precision around
    the network and its loss; edge weights and penalties are computed outside. `net_draws` is to be False where the network draws nothing:
    it is then called without a generator, which none of its parts that draw accepts.

    group: of the processes that take the same steps, each on its part of the batches. Losses are then weighed so that the mean over them
    is the whole batch's (`Group.weighed`); whoever asks for one takes `group.mean` of the gradients.

    A step is made of `alpha_gradient`, `alpha_update`, `w_loss` and `w_update`, which are tensor operations alone where relaxation,
    hypergradient and penalties say `static`: what is drawn, looked at or kept for the next step comes between them. So `graphed.Graphed`
    takes the same step.
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
    alpha_task: Task | None = None  # what alpha descends on, where that is another loss than the weights'
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    net_draws: bool = True
    descend: Descent = descend  # how w takes its step
    passes: Passes | None = None  # which architectures a step of w runs; None: the draw alone
    group: Group = ALONE

    def __post_init__(self) -> None:
        self.w = tuple(self.net.parameters())
        self.alpha = tuple(self.relaxation.parameters())
        self.norms = batch_norms(self.net)
        self.streams = Streams(self.group)
        self.memory = Memory()
        self.progress = 0.0
        self._ahead: dict[str, State] = {}  # where the streams would stand after the batches of the last losses

    def anneal(self, progress: float, epoch: int) -> None:
        """Before each epoch: schedules of the relaxation and the penalties."""
        self.progress = progress
        self.relaxation.anneal(progress, epoch)
        for penalty in (*self.penalties, *self.w_penalties):
            penalty.anneal(progress)

    @property
    def net_generator(self) -> torch.Generator | None:
        return self.generators["net"] if self.net_draws else None

    def _result(self, batch: Batch, stream: str, weights: EdgeWeights, generator: torch.Generator | None, *,
                of_alpha: bool = False, task: Task | None = None) -> Result:
        if batch[0].is_cpu:
            heap.follow()
        task = self.alpha_task if of_alpha and self.alpha_task is not None else task or self.task
        with self.context(), self.group.counting(batch):
            found = task(self.net, batch, weights, state=self.streams.before(stream, batch), generator=self.group.own(generator))
        return Result(*self.group.weighed(found.loss, found.stats, batch), found.state)

    def problem(self, train_batch: Batch, val_batch: Batch, noise: Noise | None = None) -> Problem:
        """The bilevel problem on two batches under one draw (`noise`, or a new one): every loss of it sees the same edge weights' noise
        and the same drop-path masks, and leaves running statistics and generators as they were."""
        if noise is None:
            noise = self.relaxation.noise(self.generators["alpha"])

        def result(batch: Batch, stream: str, weights: EdgeWeights, of_alpha: bool = True) -> Result:
            with statistics_held(self.norms), rewound(self.net_generator) as generator:
                found = self._result(batch, stream, weights, generator, of_alpha=of_alpha)
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
                stats = self.group.settle(result(val_batch, "val", weights.detach()).stats, val_batch)
            return Score(stats["correct"] / stats["count"], weights.log_prob, weights.entropy)

        return Problem(
            self.w, self.alpha, lambda: result(train_batch, "train", self.relaxation.weights(noise), of_alpha=False).loss,
            lambda: penalised(val_batch, "val"), lambda grads: virtual_step(self.w_optimizer, self.w, grads), reduce=self.group.mean,
            linear_step=lambda joined, w: linear_step(self.w_optimizer, self.w, joined.of, w),
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

    def check_layered(self) -> None:
        """Raises ValueError unless each kind of cell has one table of alphas that all its cells share."""
        self.relaxation.tables()
        if not getattr(self.net, "kinds", ()):
            raise ValueError(f"layer alignment needs a network of cells that share alphas, got {type(self.net).__name__}")

    def val_loss_under(self, batch: Batch, weights: EdgeWeights) -> Tensor:
        """What alpha descends on, without penalties, of a validation batch in training mode; generators, statistics and streams are left
        as they were."""
        with statistics_held(self.norms), rewound(self.net_generator) as generator:
            return self._result(batch, "val", weights, generator, of_alpha=True).loss

    def alpha_gradient(self, train_batch: Batch, val_batch: Batch, noise: Noise) -> tuple[Tensors, Tensor]:
        """The hypergradient under one draw, and the sum of its tensors' norms."""
        grads = self.hypergradient(self.problem(train_batch, val_batch, noise))
        return grads, torch.stack(torch._foreach_norm(list(grads))).sum()

    def alpha_update(self, grads: Tensors) -> None:
        """One step of the optimizer of alpha with these gradients."""
        for p, g in zip(self.alpha, grads):
            p.grad = g
        if self.alpha_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.alpha, self.alpha_clip_norm)
        self.alpha_optimizer.step()
        self.relaxation.after_step()
        for penalty in self.penalties:
            penalty.after_step(self.relaxation)

    def alpha_step(self, train_batch: Batch, val_batch: Batch, noise: Noise | None = None) -> None:
        """One update of the architecture parameters under one draw (`noise`, or a new one). Leaves the weights bitwise as they are."""
        if noise is None:
            noise = self.relaxation.noise(self.generators["alpha"])
        grads, norm = self.alpha_gradient(train_batch, val_batch, noise)
        self.guard(ALPHA_NORM, norm, val_batch)
        self.alpha_update(grads)
        self.streams.after("val", val_batch, self._ahead.get("val"))

    def w_loss(self, batch: Batch, weights: EdgeWeights) -> Result:
        """The task's loss of a training batch; running statistics follow it."""
        return self._result(batch, "train", weights, self.net_generator)

    def w_update(self, loss: Tensor, add: Callable[[], None] = lambda: None) -> None:
        """One step of the optimizer of w, down `loss`; `add` may change the gradients before they are clipped."""
        self.w_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._w_descend(add)

    def _w_descend(self, add: Callable[[], None]) -> None:
        add()
        self.group.mean_([p.grad for p in self.w if p.grad is not None])
        self.descend(self.w_optimizer, self.w, self.clip_norm)

    def w_step(self, train_batch: Batch, weights: EdgeWeights | None = None) -> dict[str, Tensor]:
        """One update of the network's weights under a new draw, or under given edge weights. Leaves the architecture parameters bitwise
        as they are."""
        if weights is None:
            weights = self.draw_for_w(train_batch, self.relaxation.noise(self.generators["alpha"]))
        net_state = self.generators["net"].get_state() if self.w_penalties else None

        def add() -> None:
            for penalty in self.w_penalties:
                self._add_gradient(penalty, train_batch, weights, net_state)

        if self.passes is None:
            loss, stats, state = self.w_loss(train_batch, weights)
            self.guard(TRAINING_LOSS, loss, train_batch)
            self.w_update(loss, add)
        else:
            self.w_optimizer.zero_grad(set_to_none=True)
            found = []
            for result in self.passes(self._of_step(train_batch, weights)):
                self.guard(TRAINING_LOSS, result.loss, train_batch)
                result.loss.backward()
                found.append(result._replace(loss=None))
            self._w_descend(add)
            _, stats, state = found[0]
        self.streams.after("train", train_batch, state)
        return self.group.settle(stats, train_batch, lambda: running_statistics(self.norms))

    def _of_step(self, batch: Batch, draw: EdgeWeights) -> Step:
        """For `passes`: after the step the network's generator stands where one pass would have left it."""
        own = self.net_generator
        start = None if own is None else own.get_state()
        runs = iter(range(2**31))

        def run(weights: EdgeWeights, task: Task) -> Result:
            if next(runs) == 0 or own is None:
                return self._result(batch, "train", weights, own, task=task)
            with rewound(own) as generator:
                generator.set_state(start)
                return self._result(batch, "train", weights, generator, task=task)

        @torch.no_grad()
        def loss(weights: EdgeWeights) -> Tensor:
            with statistics_held(self.norms), rewound(own) as generator:
                if generator is not None:
                    generator.set_state(start)
                return self.group.loss(self._result(batch, "train", weights, generator).loss)

        return Step(self.net, self.task, draw, lambda: self.draw_for_w(batch, self.relaxation.noise(self.generators["alpha"])), run, loss)

    def _add_gradient(self, penalty: WeightPenalty, batch: Batch, draw: EdgeWeights, net_state: Tensor) -> None:
        """Adds a penalty's gradient to those of the weights that took part in the step; `net_state`: of the generator at its loss."""
        def loss(weights: EdgeWeights) -> Tensor:
            with statistics_held(self.norms), rewound(self.generators["net"]) as generator:
                generator.set_state(net_state)
                return self._result(batch, "train", weights, generator).loss

        layers = {kind: self.net.kinds.count(kind) for kind in draw}
        extra = penalty(WeightProblem(self.w, draw, layers, loss, self.group.mean))
        if extra is not None:
            held = [(p.grad, g) for p, g in zip(self.w, extra) if p.grad is not None]
            torch._foreach_add_([own for own, _ in held], [g for _, g in held])

    def draw_for_w(self, batch: Batch, noise: Noise) -> EdgeWeights:
        """The edge weights that w is trained under on a batch, without gradients."""
        with torch.no_grad():
            draw = self.relaxation.weights(noise).detach()

        def loss_of_weights(weights: EdgeWeights) -> Tensor:
            """Of the whole batch, whose gradient is that too: what is made of it by a sign or a comparison is the same everywhere."""
            training = self.net.training
            self.net.eval()
            weights = replaced(weights, lambda kind, w: {"ops": self.group.shared(w.ops)})
            try:
                with constant(self.w), rewound(self.net_generator) as generator:  # losses are compared: all see the same noise
                    return self.group.loss(self._result(batch, "train", weights, generator).loss)
            finally:
                self.net.train(training)

        return self.relaxation.for_w_step(draw, loss_of_weights, self.generators["alpha"])

    def step(self, train_batch: Batch, val_batch: Batch | None) -> dict[str, Tensor]:
        """The alpha update on both batches (skipped without a validation batch, and where there is no alpha), then the w update.
        Returns the sums of the w step's batch (`loss`, `correct`, `count`), on the device."""
        if val_batch is not None and self.alpha:
            self.alpha_step(train_batch, val_batch)
        return self.w_step(train_batch)
