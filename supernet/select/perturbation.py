"""Ops by what the supernet loses without them (DARTS-PT, Wang et al. 2021, Sec. 4.3, Algorithm 1)."""

import torch

from supernet.genotype import Edge, Genotype
from supernet.schedules import Cosine
from supernet.space import CellSpec, Space
from supernet.train import SearchLoop, evaluate, set_lr
from supernet.weights import EdgeWeights, Weights, replaced


class Perturbation:
    """Edge by edge in a random order, in all kinds of cells at once: each op of the edge is masked in turn, the op whose absence costs the
    supernet most validation accuracy is kept, and the supernet is fine-tuned for `finetune_epochs`. Then node by node: of the edges into
    it those are kept whose absence costs most, again with fine-tuning in between. Where a node keeps all its edges, ops alone
    are decided (NAS-Bench-201).

    Accuracy is that of the whole validation part, or of `val_batches` of it. Fine-tuning trains the weights alone, with the search's
    learning rate times `lr_factor` falling as half a cosine [official code: 5 epochs (their default 10), 0.1]. Masked weights are not
    renormalised [official code].
    """

    def __init__(self, *, finetune_epochs: int = 5, lr_factor: float = 0.1, val_batches: int | None = None):
        if finetune_epochs < 0 or lr_factor <= 0:
            raise ValueError(f"final_select needs finetune_epochs >= 0 and lr_factor > 0, got {finetune_epochs} and {lr_factor}")
        self.finetune_epochs, self.lr_factor, self.val_batches = finetune_epochs, lr_factor, val_batches

    def __call__(self, loop: SearchLoop) -> Genotype:
        space, generator = loop.space, loop.generators["alpha"]
        decided = Decided(space, loop.search.relaxation.mean().detach())
        batches = list(loop.val)[: self.val_batches]

        def accuracy(weights: EdgeWeights) -> float:
            return evaluate(loop.search.net, loop.search.task, batches, lambda: weights, loop.generators["net"])["accuracy"]

        edges = {kind: _shuffled([e for e in range(len(spec.edges)) if any(spec.selectable[e])], generator)
                 for kind, spec in sorted(space.cells.items())}
        nodes = {kind: _shuffled([i for i, node in enumerate(spec.nodes) if spec.keep[i][1] < len(spec.incoming(node))], generator)
                 for kind, spec in sorted(space.cells.items())}
        rounds = max(map(len, edges.values())) + max(map(len, nodes.values()))
        done = 0
        for queue, decide in ((edges, decided.op), (nodes, decided.edges_into)):
            for n in range(max(map(len, queue.values()))):
                for kind, order in queue.items():
                    if n < len(order):
                        decide(kind, order[n], accuracy)
                self._finetune(loop, decided, done, rounds)
                done += 1
        return decided.genotype()

    def _finetune(self, loop: SearchLoop, decided: "Decided", done: int, rounds: int) -> None:
        weights, schedule = decided.weights(), Cosine()
        loop.search.net.train()
        for epoch in range(self.finetune_epochs):
            lr = schedule(self.lr_factor * loop.lr[0], done * self.finetune_epochs + epoch, rounds * self.finetune_epochs + 1)
            set_lr(loop.search.w_optimizer, lr)
            for batch in loop.train:
                loop.search.w_step(batch, weights)
        loop.guard.look()


class Decided:
    """Mean edge weights of which some rows are settled: one op alone, or no edge."""

    def __init__(self, space: Space, mean: EdgeWeights):
        self.space, self.mean = space, mean
        self.ops: dict[str, dict[int, int]] = {kind: {} for kind in space.cells}
        self.gone: dict[str, set[int]] = {kind: set() for kind in space.cells}

    def weights(self, without: tuple[str, int, int | None] | None = None) -> EdgeWeights:
        """`without`: a kind, an edge, and the op to mask, or None for the whole edge."""
        def change(kind: str, w: Weights) -> dict[str, object]:
            spec, ops = self.space.cells[kind], w.ops.clone()
            active = [list(row) for row in spec.present]
            for e, o in self.ops[kind].items():
                ops[..., e, :], active[e] = 0.0, [k == o for k in range(len(spec.ops))]
                ops[..., e, o] = 1.0
            masked = [(e, None) for e in self.gone[kind]] + ([without[1:]] if without is not None and without[0] == kind else [])
            for e, o in masked:
                columns = range(len(spec.ops)) if o is None else (o,)
                for k in columns:
                    ops[..., e, k], active[e][k] = 0.0, False
            return {"ops": ops, "active": tuple(map(tuple, active))}

        return replaced(self.mean, change)

    def op(self, kind: str, e: int, accuracy) -> None:
        allowed = [o for o, ok in enumerate(self.space.cells[kind].selectable[e]) if ok]
        left = {o: accuracy(self.weights((kind, e, o))) for o in allowed} if len(allowed) > 1 else dict.fromkeys(allowed, 0.0)
        self.ops[kind][e] = min(allowed, key=left.__getitem__)

    def edges_into(self, kind: str, i: int, accuracy) -> None:
        spec: CellSpec = self.space.cells[kind]
        rows = spec.incoming(spec.nodes[i])
        left = {e: accuracy(self.weights((kind, e, None))) for e in rows}
        self.gone[kind] |= set(sorted(rows, key=left.__getitem__)[spec.keep[i][1]:])

    def genotype(self) -> Genotype:
        cells = {}
        for kind, spec in self.space.cells.items():
            kept = [e for e in range(len(spec.edges)) if e in self.ops[kind] and e not in self.gone[kind]]
            cells[kind] = [Edge(spec.edges[e][1], spec.edges[e][0], spec.ops[self.ops[kind][e]]) for e in kept]
        return self.space.genotype(cells)


def _shuffled(items: list[int], generator: torch.Generator) -> list[int]:
    return [items[n] for n in torch.randperm(len(items), generator=generator, device=generator.device).tolist()]
