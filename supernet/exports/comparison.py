"""How far a file's network is from ours, on the same inputs, and how long each takes."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Call = Callable[[Tensors], Tensors]
TIMED = 5  # calls, of which the median counts; one before them warms up


@dataclass(frozen=True)
class Distance:
    """of: the largest difference of a logit (and of the next state), over the largest of them; infinite where one is not finite. agree,
    count: predictions that are the same, and all."""

    of: float
    agree: int
    count: int


def apart(ours: Tensors, theirs: Tensors) -> Distance:
    """ours, theirs: outputs, logits (..., classes) first."""
    far = []
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape or not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
            return Distance(math.inf, 0, ours[0][..., 0].numel())
        a, b = a.double(), b.double()
        far.append(((a - b).abs().max() / a.abs().max().clamp(min=1e-300)).item())
    same = ours[0].argmax(-1) == theirs[0].argmax(-1)
    return Distance(max(far), int(same.sum()), same.numel())


def milliseconds(call: Call, inputs: Tensors) -> float:
    """The median wall time of a call, warm."""
    call(inputs)
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        call(inputs)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def in_batches(call: Call, inputs: Tensors, dims: tuple[int, ...], batch: int) -> Tensors:
    """The outputs for many inputs, `batch` at a time and joined; a last batch that is smaller is filled up, so that all have the one size.
    dims: of the batch in each input; that of the outputs is the same for the first, the last one's for the others."""
    count, found = inputs[0].shape[dims[0]], []
    for start in range(0, count, batch):
        places = torch.arange(start, start + batch) % count
        kept = min(batch, count - start)
        outputs = call(tuple(x.index_select(dim, places) for x, dim in zip(inputs, dims)))
        found.append([y.narrow(dim, 0, kept) for y, dim in zip(outputs, dims)])
    return tuple(torch.cat(ys, dim) for ys, dim in zip(zip(*found), dims))
