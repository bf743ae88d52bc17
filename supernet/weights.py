"""`EdgeWeights`: the numbers a network is called with, and the only thing that passes from a relaxation to a network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from supernet.genotype import Genotype
from supernet.space import Mask, Space


@dataclass(frozen=True)
class Weights:
    """Weights of one kind of cell.

    ops: (E, O), or (L, E, O) where each of the L cells of the kind has its own. edges: (E), or None for ones.
    active: on the host, which ops to run, (E, O); None for all. Work is skipped where it is False; values are never read.
    """

    ops: Tensor
    edges: Tensor | None = None
    active: Mask | None = None

    def scales(self, layer: int = 0) -> tuple[tuple[Tensor, ...], ...]:
        """The factor of each (edge, op) of the kind's `layer`-th cell, as rows of scalar tensors."""
        table = self.ops[layer] if self.ops.dim() == 3 else self.ops
        if self.edges is not None:
            table = table * self.edges[:, None]
        width = table.shape[1]
        flat = table.reshape(-1).unbind()
        return tuple(flat[i : i + width] for i in range(0, len(flat), width))


@dataclass(frozen=True)
class EdgeWeights(Mapping[str, Weights]):
    """Weights by kind of cell; `log_prob` is the log-probability of a sampled draw, where the relaxation gives one."""

    kinds: Mapping[str, Weights]
    log_prob: Tensor | None = field(default=None)

    def __getitem__(self, kind: str) -> Weights:
        return self.kinds[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def scales(self, kinds: Sequence[str]) -> list[tuple[tuple[Tensor, ...], ...]]:
        """The scales of each of a network's cells, `kinds` naming their kinds in order; cells of one kind share theirs unless
        the kind has (L, E, O) weights."""
        made: dict[tuple[str, int], tuple[tuple[Tensor, ...], ...]] = {}
        rows = []
        for n, kind in enumerate(kinds):
            layer = kinds[:n].count(kind) if self.kinds[kind].ops.dim() == 3 else 0
            if (kind, layer) not in made:
                made[kind, layer] = self.kinds[kind].scales(layer)
            rows.append(made[kind, layer])
        return rows

    def detach(self) -> "EdgeWeights":
        """The same numbers without their history."""
        return EdgeWeights({k: Weights(w.ops.detach(), None if w.edges is None else w.edges.detach(), w.active)
                            for k, w in self.kinds.items()})


def one_hot(space: Space, genotype: Genotype, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> EdgeWeights:
    """Weights 1 for the ops of `genotype`, 0 elsewhere; only its ops are active."""
    kinds = {}
    for kind, mask in space.candidates(genotype).items():
        kinds[kind] = Weights(torch.tensor(mask, dtype=dtype, device=device), active=mask)
    return EdgeWeights(kinds)


def check_shapes(space: Space, weights: EdgeWeights) -> None:
    """Raises ValueError unless every kind of cell has a table of the right shape."""
    for kind, spec in space.cells.items():
        want = (len(spec.edges), len(spec.ops))
        if kind not in weights:
            raise ValueError(f"edge weights must cover cells {sorted(space.cells)}, got {sorted(weights)}")
        if tuple(weights[kind].ops.shape[-2:]) != want:
            raise ValueError(f"weights of {kind!r} must be (E, O) = {want}, got {tuple(weights[kind].ops.shape)}")
