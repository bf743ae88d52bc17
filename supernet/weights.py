"""`EdgeWeights`: the numbers a network is called with, and the only thing that passes from a relaxation to a network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from supernet.genotype import Genotype, short
from supernet.space import Mask, Space

OPEN, PRUNED = -1, -2  # what `decided` says of an edge instead of the column of its op


class Scales(NamedTuple):
    """Factors of one cell, all scalar tensors: of each (edge, op), edge weight included; of each edge alone; of each edge's auxiliary
    skip. The last two are None for ones and for zeros. kept: by whom it concerns, what cells with the same scales share in one call of the
    network (`ops.kernels.packed`)."""

    ops: Sequence[Sequence[Tensor]]
    edges: Sequence[Tensor] | None = None
    skip: Sequence[Tensor] | None = None
    kept: dict[Any, Any] | None = None


@dataclass(frozen=True)
class Weights:
    """Weights of one kind of cell.

    ops: (E, O), or (L, E, O) where each of the L cells of the kind has its own. edges: (E), or None for ones.
    active: on the host, which ops to run, (E, O); None for all. Work is skipped where it is False; values are never read.
    skip: a scalar, the weight of the auxiliary skip of every edge, in networks that have one; None for 0.
    """

    ops: Tensor
    edges: Tensor | None = None
    active: Mask | None = None
    skip: Tensor | None = None

    def scales(self, layer: int = 0) -> "Scales":
        """What the kind's `layer`-th cell is called with."""
        table = self.ops[layer] if self.ops.dim() == 3 else self.ops
        width, edges, skip = table.shape[1], None, None
        if self.edges is not None:
            table, edges = table * self.edges[:, None], self.edges.unbind()
        if self.skip is not None:
            skip = (self.skip,) * len(table) if self.edges is None else (self.skip * self.edges).unbind()
        flat = table.reshape(-1).unbind()
        return Scales(tuple(flat[i : i + width] for i in range(0, len(flat), width)), edges, skip, {})


@dataclass(frozen=True)
class EdgeWeights(Mapping[str, Weights]):
    """Weights by kind of cell; `log_prob` is the log-probability of a sampled draw, and `entropy` (nats) that of the distributions it was
    drawn from, where the relaxation gives them, both differentiable."""

    kinds: Mapping[str, Weights]
    log_prob: Tensor | None = field(default=None)
    entropy: Tensor | None = field(default=None)

    def __getitem__(self, kind: str) -> Weights:
        return self.kinds[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def scales(self, kinds: Sequence[str]) -> list[Scales]:
        """The scales of each of a network's cells, `kinds` naming their kinds in order; cells of one kind share theirs unless
        the kind has (L, E, O) weights."""
        made: dict[tuple[str, int], Scales] = {}
        rows = []
        for n, kind in enumerate(kinds):
            layer = kinds[:n].count(kind) if self.kinds[kind].ops.dim() == 3 else 0
            if (kind, layer) not in made:
                made[kind, layer] = self.kinds[kind].scales(layer)
            rows.append(made[kind, layer])
        return rows

    def detach(self) -> "EdgeWeights":
        """The same numbers without their history."""
        return EdgeWeights({k: replace(w, ops=w.ops.detach(), edges=None if w.edges is None else w.edges.detach())
                            for k, w in self.kinds.items()},
                           *(None if value is None else value.detach() for value in (self.log_prob, self.entropy)))


def replaced(weights: EdgeWeights, change: Callable[[str, Weights], Mapping[str, Any]]) -> EdgeWeights:
    """`weights` with fields of each kind replaced by those that `change(kind, weights)` names."""
    return replace(weights, kinds={kind: replace(w, **change(kind, w)) for kind, w in weights.items()})


def decided(space: Space, weights: EdgeWeights, rows: Mapping[str, Sequence[int]]) -> EdgeWeights:
    """`weights` with some rows settled: for each edge of a kind, by `rows`, the one op that it keeps, PRUNED, or OPEN. Only what is kept or
    open runs."""
    def change(kind: str, w: Weights) -> dict[str, Any]:
        if all(row == OPEN for row in rows[kind]):
            return {}
        width = w.ops.shape[-1]
        hot = torch.tensor([[float(row == o) for o in range(width)] for row in rows[kind]]).to(w.ops)
        is_open = torch.tensor([[row == OPEN] for row in rows[kind]], device=w.ops.device)
        present = space.cells[kind].present if w.active is None else w.active
        active = tuple(present[e] if row == OPEN else tuple(row == o for o in range(width)) for e, row in enumerate(rows[kind]))
        return {"ops": torch.where(is_open, w.ops, hot), "active": active}

    return replaced(weights, change)


def one_hot(space: Space, genotype: Genotype, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> EdgeWeights:
    """Weights 1 for the ops of `genotype`, 0 elsewhere; only its ops are active."""
    kinds = {}
    for kind, mask in space.candidates(genotype).items():
        kinds[kind] = Weights(torch.tensor(mask, dtype=dtype, device=device), active=mask)
    return EdgeWeights(kinds)


def check_shapes(space: Space, weights: EdgeWeights) -> None:
    """Raises ValueError unless every kind of cell has tables of the right shapes."""
    for kind, spec in space.cells.items():
        want = (len(spec.edges), len(spec.ops))
        if kind not in weights:
            raise ValueError(f"edge weights must cover cells {sorted(space.cells)}, got {sorted(weights)}")
        own = weights[kind]
        if own.ops.dim() not in (2, 3) or tuple(own.ops.shape[-2:]) != want:
            raise ValueError(f"weights of {kind!r} must be (E, O) = {want}, got {tuple(own.ops.shape)}")
        if own.edges is not None and tuple(own.edges.shape) != want[:1]:
            raise ValueError(f"weights of the edges of {kind!r} must be (E) = {want[:1]}, got {tuple(own.edges.shape)}")
        if own.active is not None and [len(row) for row in own.active] != [want[1]] * want[0]:
            raise ValueError(f"the active ops of {kind!r} must be (E, O) = {want}, got rows of {short([len(row) for row in own.active])}")
