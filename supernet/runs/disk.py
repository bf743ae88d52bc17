"""What a run will need on the disk, told before it begins. Nearly all of it are checkpoints: so many as are kept, and one that is being
written."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supernet.errors import UsageError
from supernet.optim.averaging import NoAverage
from supernet.training.final import FinalLoop
from supernet.training.records import Stateful
from supernet.training.search import SearchLoop

MIB = 2**20
WORTH_TELLING = MIB
ENTRY = 400  # bytes that a file of PyTorch takes for each tensor beside its entries: its name, twice, and where it lies


def checkpoint_bytes(parts: Mapping[str, Stateful], later: int = 0) -> int:
    """About how many bytes a checkpoint of a run takes once it has taken a step. later: what it holds at last beside the optimizers'
    states and what there is now."""
    states = {name: part.state_dict() for name, part in parts.items()}
    return held(states) + later + sum(_unstarted(part) for part in parts.values() if isinstance(part, torch.optim.Optimizer))


def of_search(loop: SearchLoop, epochs: int) -> int:
    """Bytes that come to a search's checkpoint with time: the trajectory of its alphas, and what monitors may send it back to."""
    recorded = loop.search.relaxation.recorded()
    snapshots = epochs * loop.snapshots * (10 + sum(2 * 4 * table.numel() for table in recorded.values()))  # alphas, and mean weights
    if not loop.depth:
        return snapshots
    learned = held({name: part.state_dict() for name, part in loop.learned().items()}) + _unstarted(loop.search.w_optimizer)
    return snapshots + learned * (1 + loop.depth // max(1, min(m.spacing for m in loop.monitors.values() if m.keeps)))


def of_final(loop: FinalLoop) -> int:
    """The same of a final training: an average of the weights that is kept beside them."""
    return 0 if type(loop.average) is NoAverage else sum(t.nbytes + ENTRY for t in loop.averaged)


def held(value: Any) -> int:
    """Bytes that nested plain data and tensors take in a file; tensors that are one count once."""
    one = {(t.device, t.data_ptr(), t.shape, t.dtype) if t.numel() else id(t): t.nbytes + ENTRY for t in _tensors(value)}
    return sum(one.values())


def told(size: int, keep: int, output: Path) -> str:
    """A line on the disk that checkpoints of `size` bytes need under `output`, and on what is free there."""
    return (f"{(keep + 1) * size / MIB:,.1f} MiB of checkpoints (keep_checkpoints={keep}, and one that is being written, about "
            f"{size / MIB:,.1f} MiB each); {free(output) / MIB:,.0f} MiB are free")


def check_room(size: int, keep: int, output: Path, there: int = 0) -> None:
    """there: how many checkpoints the run has already. Raises UsageError: what it will need is not free."""
    need, have = max(1, keep + 1 - there) * size, free(output)
    if need > have:
        fewer = "keep_checkpoints=1 or " if keep > 1 else ""
        raise UsageError(f"output={output}: checkpoints will need {need / MIB:,.1f} MiB ({max(1, keep + 1 - there)} of about "
                         f"{size / MIB:,.1f} MiB), and {have / MIB:,.1f} MiB are free there: pass {fewer}output=, or make room")


def free(output: Path) -> int:
    """Bytes that this user may still write where `output` is, or will be."""
    where = Path(os.path.abspath(output))
    while not where.exists():
        where = where.parent
    return shutil.disk_usage(where).free


def _unstarted(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the state that an optimizer has after its first step; 0 where it has one."""
    if optimizer.state:
        return 0
    copies = 2 if "betas" in optimizer.defaults else 1 if optimizer.defaults.get("momentum") else 0
    return copies * sum(p.nbytes + ENTRY for group in optimizer.param_groups for p in group["params"])


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _tensors(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _tensors(child)
