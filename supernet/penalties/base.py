"""What a penalty is: a term of the loss that alpha descends on."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from supernet.relaxations.base import Relaxation
from supernet.weights import EdgeWeights


class Penalty:
    """An interface; made as `Penalty(space, cost, **options)`, `cost` None where none is given. `penalty(loss, weights, relaxation)` is
    what is added to `loss` (a scalar, the task's, with gradients); `weights` is the draw that it was computed under. Most are free of
    state; those that are not override the last three."""

    def __call__(self, loss: Tensor, weights: EdgeWeights, relaxation: Relaxation) -> Tensor:
        raise NotImplementedError

    def anneal(self, progress: float) -> None:
        """Called before each epoch, with 0 in the first and exactly 1 in the last."""

    def after_step(self, relaxation: Relaxation) -> None:
        """Called after each alpha update."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def checked_weight(weight: float) -> float:
    """Raises ValueError: a penalty's weight is negative."""
    if weight < 0:
        raise ValueError(f"a penalty's weight must be at least 0, got {weight}")
    return weight
