"""The strongest architecture whose cost is within a limit."""

from collections.abc import Callable
from contextlib import suppress

from supernet.costs.base import Cost, CostError
from supernet.genotype import Genotype
from supernet.ranges import Positive, ranged
from supernet.select.argmax import argmax
from supernet.select.base import FinalSelection
from supernet.space import Space
from supernet.training.search import SearchLoop
from supernet.weights import EdgeWeights


@ranged
class WithinCost(FinalSelection):
    """Starts from `argmax` and, while the cost is above `limit`, makes of all single changes that lower it the one that loses least
    log-weight for each unit of cost; then, while one fits, the change that gains most. Raises CostError: no change lowers the cost any
    more, from where this walk has come to."""

    def __init__(self, *, limit: Positive):
        self.limit = limit

    def check(self, loop: SearchLoop) -> None:
        """What every architecture costs is held against the limit; a cost that is measured tells only at the end."""
        if loop.cost is None:
            raise CostError("final_select=within_cost needs a cost: pass cost=multiply_adds or another")
        with suppress(CostError):
            if (least := loop.cost.least()) > self.limit:
                raise ValueError(f"final_select.limit is {self.limit:g} {loop.cost.unit}, and every architecture has at least {least:g}")

    def __call__(self, loop: SearchLoop) -> Genotype:
        weights = loop.search.relaxation.mean().detach()
        return strongest_within(loop.space, weights, loop.cost, self.limit, loop.recorder.working, "final_select.limit")


def strongest_within(space: Space, weights: EdgeWeights, measured: Cost, limit: float, working: Callable[[], None] = lambda: None,
                     option: str = "the limit") -> Genotype:
    """As `WithinCost`, of any edge weights. working: called now and then."""
    known: dict[Genotype, float] = {}
    logs = {kind: (w.ops if w.edges is None else w.ops * w.edges[:, None]).double().clamp_min(1e-12).log().tolist()
            for kind, w in weights.items()}

    def cost(genotype: Genotype) -> float:
        if genotype not in known:
            working()
            known[genotype] = measured(genotype)
        return known[genotype]

    def strength(genotype: Genotype) -> float:
        return sum(logs[kind][e][o] for kind, spec in space.cells.items() for e, o in spec.rows(genotype[kind]))

    found = argmax(space, weights)
    while cost(found) > limit:
        here, own = cost(found), strength(found)
        steps = [((own - strength(other)) / (here - c), other.digest, other)
                 for other, c in ((other, cost(other)) for other in space.neighbours(found)) if c < here]
        if not steps:
            raise CostError(f"{option}={limit:g}: found no architecture within it; the least {measured.name} found is "
                            f"{here:g} {measured.unit}")
        found = min(steps)[2]
    while True:
        better = [(strength(other), other.digest, other) for other in space.neighbours(found)
                  if strength(other) > strength(found) and cost(other) <= limit]
        if not better:
            return found
        found = max(better)[2]
