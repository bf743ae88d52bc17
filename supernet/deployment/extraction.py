"""A sub-network of a supernet as a network of its own."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from supernet.evaluators.shared_weights import recalibrate
from supernet.genotype import Genotype
from supernet.networks.build import initial_weights
from supernet.networks.stacked import batch_norms, inherit
from supernet.space import Space
from supernet.tasks.base import Batch, Task


def extracted(space: Space, genotype: Genotype, supernet: nn.Module) -> nn.Module:
    """The final network of a genotype with the weights and running statistics that it has in the supernet, in evaluation mode. Its norms
    have factors and offsets, 1 and 0 where the supernet has none, so that it computes the same, and can be trained as final networks are.

    Raises ValueError: the supernet was built in another space.
    """
    sizes, like = dict(supernet.built.sizes), next(supernet.parameters())
    norm, candidates = sizes.pop("norm", None), space.candidates(genotype)
    own = {} if norm is None else {"norm": norm}
    final = {} if norm is None else {"norm": replace(norm, affine=True, running_statistics=True)}
    with initial_weights(0):
        twin, net = (space.network(candidates, **sizes, **norms).to(like) for norms in (own, final))
    inherit(twin, supernet)
    net.load_state_dict({**net.state_dict(), **twin.state_dict()})
    return net.to(memory_format=torch.channels_last).eval()


@torch.no_grad()
def with_own_statistics(net: nn.Module, task: Task, batches: Iterable[Batch], generator: torch.Generator) -> nn.Module:
    """The network, its norms with the statistics that it has on the batches alone: those that it inherits are of all architectures. It
    must be in evaluation mode."""
    norms = [norm for norm in batch_norms(net) if norm.running_mean is not None]
    recalibrate(net, norms, task, batches, None, generator)
    return net
