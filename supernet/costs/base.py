"""What an architecture costs: parameters, multiply-adds, memory, latency, any column of a table.

A cost is called with a genotype. `expected(weights)` is the mean cost of the architectures that edge weights describe, differentiable,
and exists where it is exact: linear for sums over edges, multilinear for a table of all architectures. Elsewhere it raises.
"""

from typing import Protocol

from torch import Tensor

from ops.op import Normalisation
from supernet.errors import Mendable
from supernet.genotype import Genotype
from supernet.weights import EdgeWeights

FINAL = Normalisation(affine=True, after_pools=False)  # how final networks normalise
QUANTITIES = ("parameters", "multiply_adds")


class CostError(Mendable, ValueError):
    """A cost that cannot be computed for this space, or has no exact expectation. The message is one line."""


class Cost(Protocol):
    name: str
    unit: str

    def __call__(self, genotype: Genotype) -> float: ...

    def expected(self, weights: EdgeWeights) -> Tensor:
        """A scalar. Raises CostError where no exact expectation exists."""

    def least(self) -> float:
        """What no genotype costs less than. Raises CostError where that is not known."""


def no_expectation(what: str) -> CostError:
    return CostError(f"{what} is no sum over edges: it has no exact expectation; use a latency table, parameters or multiply_adds")
