"""What a penalty is: a term of the loss that alpha descends on, or of that which the network's weights descend on."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from supernet.hypergradients.base import Tensors
from supernet.relaxations.base import Relaxation
from supernet.weights import EdgeWeights


class Penalty:
    """An interface; made as `Penalty(space, cost, **options)`, `cost` None where none is given. `penalty(loss, weights, relaxation)` is
    what is added to `loss` (a scalar, the task's, with gradients); `weights` is the draw that it was computed under. Most are free of
    state; those that are not override the last three.

    static: a call is the same operations on the same tensors at every step, and `after_step` does nothing, so that a CUDA graph can hold
    it.
    """

    static = False

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


class WeightProblem(NamedTuple):
    """A weights' step as a penalty on it sees it: the weights, the draw that they train under, the number of cells by kind, and the loss of
    the step's batch under any edge weights, with the same drop-path masks, which leaves statistics and generators as they are. reduce:
    averages gradients over processes, before anything that is not linear is made of them; the penalty's answer is averaged later."""

    w: Tensors
    draw: EdgeWeights
    layers: Mapping[str, int]
    loss: Callable[[EdgeWeights], Tensor]
    reduce: Callable[[Tensors], Tensors] = lambda grads: grads


class WeightPenalty:
    """An interface; made as `WeightPenalty(space, **options)`. `penalty(problem)` is the gradient, by weight, of a term that is added to
    the training loss in the weights' step, or None for nothing. It is no part of the loss that a hypergradient sees. Free of state."""

    def __call__(self, problem: WeightProblem) -> Tensors | None:
        raise NotImplementedError

    def anneal(self, progress: float) -> None:
        """Called before each epoch, with 0 in the first and exactly 1 in the last."""


class Replicated:
    """A tensor that is needed on the device of others. It is copied there once: a copy from the host in every step would stop a GPU."""

    def __init__(self, value: Tensor):
        self._value, self._copies = value, {value.device: value}

    def on(self, device: torch.device) -> Tensor:
        if device not in self._copies:
            self._copies[device] = self._value.to(device)
        return self._copies[device]
