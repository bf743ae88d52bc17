"""Networks that compute one thing after another, so that two architectures of a supernet share all that they begin with."""

from collections.abc import Callable, Hashable, Sequence
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import nn

from supernet.weights import EdgeWeights


class Step(NamedTuple):
    """A part of a chain: `run(reached, generator)` goes on from what the step before gave, the input for the first, and leaves it as it is.

    choice: which of its ways the step runs; where the weights are those of one architecture, equal choices behind equal choices compute the
    same. module: what holds all its norms, which are no other step's.
    """

    choice: Hashable
    run: Callable[[Any, torch.Generator | None], Any]
    module: nn.Module


@singledispatch
def steps_of(net: nn.Module, weights: EdgeWeights | None) -> Sequence[Step] | None:
    """The steps whose last one gives `net(x, weights)`; None where the network is no chain. Each kind of chain is registered where it is
    defined."""
    return None
