"""What watches a search: numbers for the record, and what they may bring about."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from supernet.bilevel import Bilevel
from supernet.genotype import Genotype
from supernet.space import Space
from supernet.task import Batch
from supernet.weights import EdgeWeights

PARAMETER_FREE = frozenset({"none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "identity"})


class Look(NamedTuple):
    """A search after an epoch. `val` gives the validation batches in order, not augmented; `weights` are the mean ones."""

    epoch: int
    epochs: int
    genotype: Genotype
    weights: EdgeWeights
    search: Bilevel
    val: Iterable[Batch]


@dataclass(frozen=True)
class Signal:
    """values: for the record. warning: a line for people. stop: why the search ends here, and then `back`, by how many epochs its
    genotype is an earlier one."""

    values: Mapping[str, float] = field(default_factory=dict)
    warning: str | None = None
    stop: str | None = None
    back: int = 0


class Monitor:
    """An interface; made as `Monitor(space, **options)`. Monitors with a memory override the last two."""

    def before_epoch(self, search: Bilevel) -> None:
        """Also before an epoch that is gone on with."""

    def after_step(self, search: Bilevel, train_batch: Batch, val_batch: Batch | None, step: int) -> None:
        """After an update of alpha and w; the gradients of w are still there. `step` counts from 0 over the run."""

    def after_epoch(self, look: Look) -> Signal:
        return Signal()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def shares(space: Space, genotype: Genotype, weights: EdgeWeights) -> dict[str, float]:
    """What costs nothing to know: the genotype's share of skip connections and of parameter-free ops among its edges, and by kind of cell
    the mean over edges of the gap between the two largest weights."""
    ops = [edge.op for kind in space.cells for edge in genotype[kind]]
    found = {"skip_share": ops.count("skip_connect") / max(1, len(ops)),
             "parameter_free_share": sum(op in PARAMETER_FREE for op in ops) / max(1, len(ops))}
    for kind, w in weights.items():
        if w.ops.shape[-1] > 1:
            top = w.ops.topk(2, -1).values
            found[f"alpha_gap/{kind}"] = (top[..., 0] - top[..., 1]).mean().item()
    return found
