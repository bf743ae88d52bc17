"""How networks are normalised, initialised and laid out in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ops.op import Normalisation


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Within, modules initialise from `seed`: torch's initialisers take no generator. The global state is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def search_normalisation(pool_norm: str, bn_statistics: str, affine: bool = False) -> Normalisation:
    """As candidates of a supernet: not affine unless asked for; a norm after pools unless `never`."""
    return Normalisation(affine=affine, after_pools=pool_norm != "never", running_statistics=bn_statistics == "running")


def final_normalisation(pool_norm: str, bn_statistics: str) -> Normalisation:
    """As ops of a final network: affine; a norm after pools, without factors, only if `always` (DrNAS)."""
    return Normalisation(affine=True, after_pools=pool_norm == "always", running_statistics=bn_statistics == "running")


def memory_format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format
