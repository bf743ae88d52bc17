"""A cost that several processes know alike."""

from torch import Tensor

from supernet.costs.base import Cost, CostError
from supernet.genotype import Genotype
from supernet.processes.group import Group
from supernet.weights import EdgeWeights


class Agreed:
    """`cost` as the first process of a group finds it: what is measured differs from process to process, and what is selected by it must
    not. Each architecture is asked for once."""

    def __init__(self, cost: Cost, group: Group):
        self.cost, self.group, self.name, self.unit = cost, group, cost.name, cost.unit
        self.known: dict[Genotype, float] = {}

    def __call__(self, genotype: Genotype) -> float:
        if genotype not in self.known:
            value, why = self.group.first(lambda: self._asked(genotype))
            if value is None:
                raise CostError(why)
            self.known[genotype] = value
        return self.known[genotype]

    def _asked(self, genotype: Genotype) -> tuple[float | None, str]:
        try:
            return float(self.cost(genotype)), ""
        except CostError as error:  # one that a search may go on after, in all processes or in none
            return None, str(error)

    def expected(self, weights: EdgeWeights) -> Tensor:
        return self.cost.expected(weights)

    def least(self) -> float:
        return self.cost.least()
