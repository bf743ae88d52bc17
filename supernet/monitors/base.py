"""What watches a search: numbers for the record, and what they may bring about."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from supernet.bilevel import Bilevel
from supernet.genotype import Genotype
from supernet.space import Space
from supernet.tasks.base import Batch
from supernet.weights import EdgeWeights

PARAMETER_FREE = frozenset({"none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "identity"})


class Look(NamedTuple):
    """A search after an epoch. `val` gives the validation batches in order, not augmented, in the size that is convenient to evaluate;
    `drawn` a new pass over that part as alpha's batches are drawn, shuffled and augmented, in batches of so many (None: as many as
    alpha's), for what depends on a batch's own statistics. `weights` are the mean ones; `values` is what is recorded of the epoch so far,
    that of monitors listed before included."""

    epoch: int
    epochs: int
    genotype: Genotype
    weights: EdgeWeights
    search: Bilevel
    val: Iterable[Batch]
    values: Mapping[str, float]
    drawn: Callable[[int | None], Iterable[Batch]]


@dataclass(frozen=True)
class Signal:
    """values: for the record. warning: a line for people. stop: why the search ends here, and then `back`, by how many epochs its
    genotype is an earlier one. retry: instead, the search undoes the last `back` epochs and goes on with this weight decay."""

    values: Mapping[str, float] = field(default_factory=dict)
    warning: str | None = None
    stop: str | None = None
    back: int = 0
    retry: float | None = None


@dataclass(frozen=True)
class Reaction:
    """What a monitor does when a search looks unhealthy: it warns; with `stop` it ends the search with the last healthy genotype; with
    `retry` (above 1) the search goes back to what was learned until the last healthy epoch, weights, alphas and both optimizers, and on
    from there to its last epoch with `retry` times the weight decay of the weights; where that would be above `retry_until`, or no
    epoch of this stage was healthy, it does what it does without `retry` (RobustDARTS, Zela et al. 2020, Sec. 5.3, DARTS-ADA; official
    code). What is drawn and which batches come is not repeated. The next stage has the raised weight decay where it inherits weights.

    monitor: its name, for errors.
    """

    monitor: str
    stop: bool = False
    retry: float | None = None
    retry_until: float = 0.03

    def __post_init__(self) -> None:
        if self.retry is not None and self.retry <= 1:
            raise ValueError(f"monitor.{self.monitor}.retry must be above 1, or null, got {self.retry}")
        if self.retry_until <= 0:
            raise ValueError(f"monitor.{self.monitor}.retry_until must be positive, got {self.retry_until}")

    def check(self, search: Bilevel) -> None:
        """Before any work. Raises ValueError."""
        if self.retry is not None and not weight_decay(search) > 0:
            raise ValueError(f"monitor.{self.monitor}.retry multiplies w_optimizer.weight_decay, which must be positive, got "
                             f"{weight_decay(search):g}")

    def __call__(self, look: Look, values: Mapping[str, float], why: str | None, back: int) -> Signal:
        """why: what is wrong, or None. back: by how many epochs the last healthy one is an earlier one."""
        hindered = ""
        if self.retry is not None:
            now = weight_decay(look.search)
            values = {**values, "weight_decay": now}
            if now * self.retry > self.retry_until * (1 + 1e-6):
                hindered = f"; the weight decay is {now:g} and stays"
            elif back < 1:
                hindered = "; there is no epoch before to go back to"
            elif why is not None:
                return Signal(values, why, back=back, retry=now * self.retry)
        if why is None:
            return Signal(values)
        return Signal(values, stop=why + hindered, back=back) if self.stop else Signal(values, warning=why + hindered)


def weight_decay(search: Bilevel) -> float:
    """That of the weights: the largest of the optimizer's groups'; 0 where it has none."""
    return max(group.get("weight_decay", 0.0) for group in search.w_optimizer.param_groups)


class Monitor:
    """An interface; made as `Monitor(space, **options)`. Monitors with a memory override the last two.

    gives: the names of its values. keeps: how many epochs back it may ask for a retry from; spacing: every how many epochs, counted from 0,
    that may be.
    """

    gives: Collection[str] = ()
    spacing = 1
    keeps = 0

    def check(self, search: Bilevel, known: Collection[str]) -> None:
        """Before any work: raises ValueError where it cannot watch this search. known: the names of the values that an epoch's record has
        when it is this monitor's turn."""

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


def checked_batch_size(value: int | None, option: str) -> int | None:
    """Raises ValueError."""
    if value is not None and value < 1:
        raise ValueError(f"{option} must be at least 1, or null for that of the search, got {value}")
    return value


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
