"""Edges decided one after the other during the search (SGAS, Li et al. 2020, Sec. 3)."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from supernet.ranges import Count, Range, Whole, ranged
from supernet.relaxations.base import Relaxation, Wrapper
from supernet.space import CellSpec, Space
from supernet.weights import OPEN, PRUNED, EdgeWeights, decided


@ranged
class Greedy(Wrapper):
    """After epoch `warm_up`, counted from 0, and then every `every` epochs, in each kind of cell the edge with the best criterion gets its
    strongest op for good; when a node has all the edges that a genotype keeps, its others are pruned. Decided rows are one-hot,
    pruned ones 0, and neither runs anything else; the open ones go on being searched.

    criterion 1: importance (the weight of ops other than `none`) times certainty (1 - the normalised entropy of those); criterion 2 also
    times stability (the mean histogram intersection of these with those of the last `history` epochs), eq. 4 to 8. Each factor is
    scaled to [0, 1] over all edges of the kind, closed ones as they were when they were closed [official code, edge_decision]. The batch,
    which the official code enlarges with each decision, stays.
    """

    def __init__(self, inner: Relaxation, space: Space, generator: torch.Generator, *, criterion: Annotated[int, Range(1, 2)] = 1,
                 warm_up: Whole = 9, every: Count = 5, history: Count = 4):
        super().__init__(inner)
        self.space, self.criterion, self.warm_up, self.every, self.length = space, criterion, warm_up, every, history
        self.rows = {kind: [OPEN] * len(spec.edges) for kind, spec in space.cells.items()}
        self.epoch = -1  # the last before which it was decided
        self.history: list[dict[str, Tensor]] = []  # weights after epochs, by kind
        self.closed: dict[str, dict[str, Tensor]] = {kind: {} for kind in space.cells}  # by edge, weights when it was closed

    def get_extra_state(self) -> dict[str, Any]:
        return {"rows": {kind: list(rows) for kind, rows in self.rows.items()}, "epoch": self.epoch,
                "history": [dict(tables) for tables in self.history], "closed": {kind: dict(rows) for kind, rows in self.closed.items()}}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.rows = {kind: list(rows) for kind, rows in state["rows"].items()}
        self.epoch, self.history = state["epoch"], [dict(tables) for tables in state["history"]]
        self.closed = {kind: dict(rows) for kind, rows in state["closed"].items()}

    def anneal(self, progress: float, epoch: int) -> None:
        super().anneal(progress, epoch)
        if epoch == self.epoch:  # gone on with within the epoch
            return
        self.epoch, done = epoch, epoch - 1
        if done < 0:
            return
        with torch.no_grad():
            now = {kind: self._operations(kind, w.ops) for kind, w in self.inner.mean().items()}
            if done >= self.warm_up and (done - self.warm_up) % self.every == 0:
                for kind, spec in self.space.cells.items():
                    self._decide(kind, spec, now[kind])
            self.history = [*self.history, now][-self.length:]

    def _operations(self, kind: str, ops: Tensor) -> Tensor:
        """(E, O): the weights of ops that contribute, without those of `none`; of closed edges as they were then."""
        spec = self.space.cells[kind]
        selectable = torch.tensor(spec.selectable, device=ops.device)
        contributes = torch.tensor([self.space.op(op).contributes for op in spec.ops], device=ops.device)
        table = ops.detach() * (selectable & contributes)
        for e, row in self.closed[kind].items():
            table[int(e)] = row.to(table)
        return table

    def _decide(self, kind: str, spec: CellSpec, table: Tensor) -> None:
        if OPEN not in self.rows[kind]:
            return
        importance = table.sum(1)
        p = table / importance.clamp_min(1e-12)[:, None]
        counts = (p > 0).sum(1).clamp_min(2)
        factors = [importance, 1 - torch.special.entr(p).sum(1) / counts.log()]
        if self.criterion == 2 and self.history:
            earlier = [tables[kind].to(p) for tables in self.history]
            factors.append(torch.stack([torch.minimum(p, t / t.sum(1, keepdim=True).clamp_min(1e-12)).sum(1) for t in earlier]).mean(0))
        score = torch.stack([_scaled(f) for f in factors]).prod(0)
        e = max((e for e, row in enumerate(self.rows[kind]) if row == OPEN), key=score.tolist().__getitem__)
        self._close(kind, e, int(table[e].argmax()), table)
        for i, node in enumerate(spec.nodes):
            incoming = spec.incoming(node)
            if e in incoming and sum(self.rows[kind][k] >= 0 for k in incoming) >= spec.keep[i][1]:
                for k in incoming:
                    if self.rows[kind][k] == OPEN:
                        self._close(kind, k, PRUNED, table)

    def _close(self, kind: str, e: int, row: int, table: Tensor) -> None:
        self.rows[kind][e] = row
        self.closed[kind][str(e)] = table[e].clone()

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: Callable[[EdgeWeights], Tensor], generator: torch.Generator) -> EdgeWeights:
        return self.changed(self.inner.for_w_step(draw, loss_of_weights, generator))

    def changed(self, weights: EdgeWeights) -> EdgeWeights:
        return decided(self.space, weights, self.rows)


def _scaled(values: Tensor) -> Tensor:
    """From 0 to 1; ones where all are equal but for rounding, as the importance is in a space without `none`."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high - low > 1e-6 else torch.ones_like(values)
