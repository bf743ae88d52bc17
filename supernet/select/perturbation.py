"""Ops by what the supernet loses without them (DARTS-PT, Wang et al. 2021, Sec. 4.3, Algorithm 1)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ops.op import BatchNorm
from supernet.genotype import Edge, Genotype
from supernet.optim.optimizers import set_lr
from supernet.optim.schedules import Constant, Cosine
from supernet.ranges import Count, NonNegative, Positive, Whole, ranged
from supernet.relaxations.base import Relaxation, Wrapper
from supernet.select.base import FinalSelection
from supernet.space import Space
from supernet.training.evaluate import evaluate
from supernet.training.records import counting
from supernet.training.search import SearchLoop
from supernet.weights import OPEN, PRUNED, EdgeWeights, Weights, decided, replaced

Accuracy = Callable[[EdgeWeights], float]


@ranged
class Perturbation(FinalSelection):
    """Edge by edge in a random order, in all kinds of cells at once: each op of the edge is masked in turn, the op whose absence costs the
    supernet most validation accuracy is kept, and the supernet is fine-tuned for `finetune_epochs`. Then node by node: of the edges into
    it those are kept whose absence costs most, again with fine-tuning in between. Where a node keeps all its edges, ops alone
    are decided (NAS-Bench-201).

    Accuracy is that of the whole validation part, or of `val_batches` of it; batch norms use each batch's statistics [official code: the
    network is in training mode for it], or with `statistics=running` those of the supernet. So it depends on the batches, which are those
    of a new pass for every question, drawn as alpha's are, of `batch_size` or as many [official code: of 64 augmented images]. Masked
    weights are not renormalised [official code].

    Fine-tuning goes on with the search: weights, and with `train_alpha` the alphas of what is not decided [official code; the paper speaks
    of the supernet's weights]. The weights' optimizer starts anew, its learning rate stays at the search's times `lr_factor` (`schedule`
    constant [official code: 5 epochs, 0.1; a cosine to 0.001 is built there and never stepped]), or falls from there to `lr_minimum` as
    that half cosine (`schedule` cosine). Before the last decision `finetune_last` epochs count instead [official code on NAS-Bench-201: 4,
    since its 25 epochs end there]. After the last decision there is none.
    """

    def __init__(self, *, finetune_epochs: Whole = 5, finetune_last: Whole | None = None, lr_factor: Positive = 0.1,
                 schedule: str = "constant", lr_minimum: NonNegative = 0.001, val_batches: Count | None = None,
                 batch_size: Count | None = None, statistics: str = "batch", train_alpha: bool = True):
        if schedule not in ("constant", "cosine"):
            raise ValueError(f"final_select.schedule must be constant or cosine, got {schedule!r}")
        if statistics not in ("batch", "running"):
            raise ValueError(f"final_select.statistics must be batch or running, got {statistics!r}")
        self.finetune_epochs, self.val_batches = finetune_epochs, val_batches
        self.finetune_last = finetune_epochs if finetune_last is None else finetune_last
        self.lr_factor, self.lr_minimum, self.falls = lr_factor, lr_minimum, schedule == "cosine"
        self.batch_size = batch_size
        self.by_batch, self.train_alpha = statistics == "batch", train_alpha

    def __call__(self, loop: SearchLoop) -> Genotype:
        space, search, generator = loop.space, loop.search, loop.generators["alpha"]
        found = search.relaxation
        settled = search.relaxation = Decided(found, space)

        def accuracy(weights: EdgeWeights) -> float:
            loop.recorder.working()
            batches = counting(itertools.islice(loop.drawn(self.batch_size), self.val_batches), loop.position, search.group)
            with statistics_of_the_batch(search.norms if self.by_batch else ()):
                return evaluate(search.net, search.task, batches, lambda: weights, loop.generators["net"],
                                search.context, search.group)["accuracy"]

        edges = {kind: _shuffled([e for e in range(len(spec.edges)) if any(spec.selectable[e])], generator)
                 for kind, spec in sorted(space.cells.items())}
        nodes = {kind: _shuffled([i for i, node in enumerate(spec.nodes) if spec.keep[i][1] < len(spec.incoming(node))], generator)
                 for kind, spec in sorted(space.cells.items())}
        rounds = [(queue, decide, n) for queue, decide in ((edges, settled.decide_op), (nodes, settled.decide_edges))
                  for n in range(max(map(len, queue.values())))]
        search.w_optimizer.state.clear()
        try:
            for done, (queue, decide, n) in enumerate(rounds):
                for kind, order in queue.items():
                    if n < len(order):
                        decide(kind, order[n], accuracy)
                loop.recorder.line(f"decision {done + 1} of {len(rounds)}: validation accuracy {accuracy(settled.mean().detach()):.2f} %")
                if done < len(rounds) - 1:
                    self._finetune(loop, done, len(rounds) - 1)
        finally:
            search.relaxation = found
        return settled.genotype()

    def _finetune(self, loop: SearchLoop, done: int, rounds: int) -> None:
        """Between two decisions; `rounds` such pauses there are, `done` of them are over."""
        first = self.lr_factor * loop.lr[0]
        schedule = Cosine(min(self.lr_minimum, first)) if self.falls else Constant()
        before, all_epochs = done * self.finetune_epochs, (rounds - 1) * self.finetune_epochs + self.finetune_last
        loop.search.net.train()
        alpha_batches = counting(loop.alpha_batches, loop.position, loop.search.group)
        epochs, steps, item = self.finetune_last if done == rounds - 1 else self.finetune_epochs, 0, f"steps after decision {done + 1}"
        for epoch in range(epochs):
            set_lr(loop.search.w_optimizer, schedule(first, before + epoch, all_epochs + 1))
            for batch in counting(loop.train, loop.position, loop.search.group):
                loop.recorder.working(steps, epochs * len(loop.train), item)
                steps += 1
                loop.search.step(batch, next(alpha_batches) if self.train_alpha and loop.search.alpha else None)
        loop.guard.look()


class Decided(Wrapper):
    """A relaxation of which some rows are decided for good: one op alone, or no edge."""

    def __init__(self, inner: Relaxation, space: Space):
        super().__init__(inner)
        self.space = space
        self.rows = {kind: [OPEN] * len(spec.edges) for kind, spec in space.cells.items()}

    def changed(self, weights: EdgeWeights) -> EdgeWeights:
        return decided(self.space, weights, self.rows)

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: Callable[[EdgeWeights], Tensor], generator: torch.Generator) -> EdgeWeights:
        return self.changed(self.inner.for_w_step(draw, loss_of_weights, generator))

    def decide_op(self, kind: str, e: int, accuracy: Accuracy) -> None:
        allowed = [o for o, ok in enumerate(self.space.cells[kind].selectable[e]) if ok]
        left = {o: accuracy(self._without(kind, e, [o])) for o in allowed} if len(allowed) > 1 else dict.fromkeys(allowed, 0.0)
        self.rows[kind][e] = min(allowed, key=left.__getitem__)

    def decide_edges(self, kind: str, i: int, accuracy: Accuracy) -> None:
        """Of those into the kind's i-th node."""
        spec = self.space.cells[kind]
        rows = spec.incoming(spec.nodes[i])
        left = {e: accuracy(self._without(kind, e, range(len(spec.ops)))) for e in rows}
        for e in sorted(rows, key=left.__getitem__)[spec.keep[i][1]:]:
            self.rows[kind][e] = PRUNED

    def _without(self, kind: str, e: int, gone: Sequence[int]) -> EdgeWeights:
        """The mean with ops of one edge masked."""
        def change(name: str, w: Weights) -> dict[str, object]:
            if name != kind:
                return {}
            ops = w.ops.detach().clone()
            active = [list(row) for row in (self.space.cells[kind].present if w.active is None else w.active)]
            for o in gone:
                ops[..., e, o], active[e][o] = 0.0, False
            return {"ops": ops, "active": tuple(map(tuple, active))}

        return replaced(self.mean().detach(), change)

    def genotype(self) -> Genotype:
        return self.space.genotype({kind: [Edge(spec.edges[e][1], spec.edges[e][0], spec.ops[o])
                                           for e, o in enumerate(self.rows[kind]) if o >= 0] for kind, spec in self.space.cells.items()})


@contextmanager
def statistics_of_the_batch(norms: Sequence[BatchNorm]) -> Iterator[None]:
    """Within, `norms` normalise by each batch's own statistics in evaluation too."""
    for norm in norms:
        norm.by_batch = True
    try:
        yield
    finally:
        for norm in norms:
            norm.by_batch = False


def _shuffled(items: list[int], generator: torch.Generator) -> list[int]:
    return [items[n] for n in torch.randperm(len(items), generator=generator, device=generator.device).tolist()]
