"""The group that this process belongs to."""

import datetime
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from supernet.errors import UsageError
from supernet.processes.group import ALONE, Group
from supernet.processes.launched import Place, place


def device_of(device: torch.device, where: Place) -> torch.device:
    """The GPU that is this process's own, in the order of the processes of this machine; on a CPU the same. Raises UsageError."""
    if device.type != "cuda" or where.size == 1:
        return device
    if device.index is not None:
        raise UsageError(f"{where.size} processes need a GPU each, got device={device}: pass device=cuda")
    if where.here >= torch.cuda.device_count():
        raise UsageError(f"{where.beside} processes on this machine need a GPU each, and PyTorch sees {torch.cuda.device_count()}: pass "
                         "--nproc-per-node or device=cpu")
    torch.cuda.set_device(where.here)
    return torch.device("cuda", where.here)


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Within, the group of the processes that torchrun has started; alone, `ALONE`. device: the option. An error that ends one of them ends
    all, and is said once."""
    where = place()
    if where.size == 1:
        yield ALONE
        return
    import torch.distributed as dist  # with `together` the only place that imports it, and only where it is needed

    from supernet.processes.together import PATIENCE_S, Together

    store, rank, size = next(iter(dist.rendezvous("env://", timeout=datetime.timedelta(seconds=PATIENCE_S))))
    on_gpus = device != "cpu" and torch.cuda.is_available()
    group = Together(rank, size, dist.PrefixStore("supernet", store), backend="cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    try:
        yield group
    except Exception as error:
        code = group.ended(type(error), error)
        if code is None:
            raise
        sys.exit(code)
    group.leave()
