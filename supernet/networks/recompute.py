"""Activation checkpointing (Chen et al. 2016): a part of a network keeps its inputs alone, and is computed again for the backward pass."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ops.kernels import path_of_now
from ops.op import BatchNorm


def recomputed(run: Callable[..., Tensor], inputs: Sequence[Tensor], modules: Sequence[nn.Module],
               generator: torch.Generator | None) -> Tensor:
    """`run(*inputs)`, to the same bits in outputs and gradients, without keeping what it computes in between.

    modules: all that `run` calls: running statistics follow the first computation only. generator: all that `run` draws from; later
    computations draw the same and leave it where it stands. `run` is called again in every backward pass, so it must depend on
    nothing that changes until then but the norms' `updates`.

    Later computations take the path of the first, plain or not: what the other path keeps for its backward pass is something else.
    """
    norms = [m for m in chain.from_iterable(module.modules() for module in modules) if type(m) is BatchNorm]
    again = _Again(norms, generator, path_of_now())
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), again))


class _Again:
    """Within, norms and generator are as when it was made, and what happens to them is forgotten. May be entered many times."""

    def __init__(self, norms: Sequence[BatchNorm], generator: torch.Generator | None, path: Callable[[], AbstractContextManager[None]]):
        self.norms, self.generator, self.path = norms, generator, path
        self.updates = [norm.updates for norm in norms]  # what a norm saves for its backward pass depends on it
        self.state = None if generator is None else generator.get_state()

    def __enter__(self) -> None:
        self.entered = ExitStack()
        self.entered.enter_context(self.path())
        self.held = [(norm.updates, norm.running_mean, norm.running_var) for norm in self.norms]
        for norm, updates in zip(self.norms, self.updates):
            norm.updates = updates
            if updates and norm.running_mean is not None:
                norm.running_mean, norm.running_var = torch.empty_like(norm.running_mean), torch.empty_like(norm.running_var)
        if self.generator is not None:
            self.now = self.generator.get_state()
            self.generator.set_state(self.state)

    def __exit__(self, *error: object) -> None:
        for norm, (updates, mean, var) in zip(self.norms, self.held):
            norm.updates, norm.running_mean, norm.running_var = updates, mean, var
        if self.generator is not None:
            self.generator.set_state(self.now)
        self.entered.close()
        del self.held
