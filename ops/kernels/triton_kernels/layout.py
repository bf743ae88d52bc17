"""How tensors lie in memory for the kernels: channels last, so that neighbouring threads read neighbouring channels."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor


def last(x: Tensor) -> Tensor:
    """(..., C, H, W) -> dense (..., H, W, C); no copy where `x` already lies so (channels_last)."""
    return x.movedim(-3, -1).contiguous()


def first(x: Tensor) -> Tensor:
    """(..., H, W, C) -> (..., C, H, W), a view."""
    return x.movedim(-1, -3)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Dense tensors of one shape -> (M, ...). A view where they lie one after the other in one buffer, else a copy (one launch)."""
    head = tensors[0]
    step, start = head.numel(), head.storage_offset()
    storage = head.untyped_storage().data_ptr()
    if all(t.untyped_storage().data_ptr() == storage and t.storage_offset() == start + m * step and t.is_contiguous()
           and t.dtype == head.dtype for m, t in enumerate(tensors)):
        return head.as_strided((len(tensors), *head.shape), (step, *_dense(head.shape)))
    return torch.stack(list(tensors))


def _dense(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return strides


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """What sums are kept in: float64 for float64, else float32."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def tile(channels: int, elements: int) -> tuple[int, int]:
    """(pixels, channels) of a tile of about `elements`, both powers of two."""
    block = min(triton.next_power_of_2(channels), 64)
    return max(elements // block, 1), block
