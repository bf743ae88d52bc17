"""Activation checkpointing (Chen et al. 2016): a part of a network keeps its inputs alone, and is computed again for the backward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ops.op import BatchNorm


def recomputed(run: Callable[..., Tensor], inputs: Sequence[Tensor], modules: Sequence[nn.Module],
               generator: torch.Generator | None) -> Tensor:
    """`run(*inputs)`, to the same bits in outputs and gradients, without keeping what it computes in between.

    modules: all that `run` calls: running statistics follow the first computation only. generator: all that `run` draws from; the second
    computation draws the same and leaves it where it stands. `run` is called again during the backward pass, so it must depend on nothing
    that changes until then.
    """
    norms = [m for m in chain.from_iterable(module.modules() for module in modules) if type(m) is BatchNorm]
    updates = [norm.updates for norm in norms]
    state = None if generator is None else generator.get_state()

    @contextmanager
    def again() -> Iterator[None]:
        held = [(norm.updates, norm.running_mean, norm.running_var) for norm in norms]
        now = None if generator is None else generator.get_state()
        for norm, flag in zip(norms, updates):
            norm.updates = flag  # as it was: what a norm saves for its backward depends on it
            if flag and norm.running_mean is not None:
                norm.running_mean, norm.running_var = torch.empty_like(norm.running_mean), torch.empty_like(norm.running_var)
        if generator is not None:
            generator.set_state(state)
        try:
            yield
        finally:
            for norm, (flag, mean, var) in zip(norms, held):
                norm.updates, norm.running_mean, norm.running_var = flag, mean, var
            if generator is not None:
                generator.set_state(now)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), again()

    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
