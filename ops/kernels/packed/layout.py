"""Several images beside one another along the channels, (N, M * C, H, W), in either memory format."""

from collections.abc import Sequence

import torch
from torch import Tensor


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels innermost (NHWC) or outermost (NCHW)."""
    return torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format


def repeated(x: Tensor, counts: Sequence[int], layout: torch.memory_format) -> Tensor:
    """Each of the images of `x` (N, len(counts) * C, H, W) as often as `counts` says, one copy in all; in `layout`."""
    if layout == torch.channels_last:  # the axes of one image's channels are the last two
        return _repeated(x.permute(0, 2, 3, 1), counts, 3).permute(0, 3, 1, 2)
    return _repeated(x, counts, 1)


def _repeated(x: Tensor, counts: Sequence[int], axis: int) -> Tensor:
    images = x.unflatten(axis, (len(counts), 1, -1))
    if len(set(counts)) == 1:
        shape = [-1] * images.dim()
        shape[axis + 1] = counts[0]
        return images.expand(shape).flatten(axis, axis + 2)
    wide = [image.expand([count if a == axis else -1 for a in range(image.dim())]) for image, count in zip(images.unbind(axis), counts)]
    return torch.cat(wide, axis).flatten(axis, axis + 1)


def as_rows(x: Tensor, count: int, layout: torch.memory_format) -> Tensor:
    """(N, M * C, H, W) as (B, M, Q), whose rows along M are the M images: no copy in its own layout."""
    if layout == torch.channels_last:
        return x.permute(0, 2, 3, 1).reshape(-1, count, x.shape[1] // count)
    return x.reshape(x.shape[0], count, -1)


def from_row(row: Tensor, shape: Sequence[int], layout: torch.memory_format) -> Tensor:
    """One of them, (B, 1, Q), as an image (N, C, H, W) of `shape` that lies in one piece."""
    n, c, h, w = shape
    if layout == torch.channels_last:
        return row.contiguous().view(n, h, w, c).permute(0, 3, 1, 2)
    return row.contiguous().view(n, c, h, w)
