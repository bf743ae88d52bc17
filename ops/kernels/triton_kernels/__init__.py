"""The fused operations of `ops.kernels` on a GPU, in Triton: the functions of `plain`, with the same results and gradients.

Tensors are laid out channels last. Half precision is summed in float32, and under autocast the convolutions compute in its type. Nothing
waits for the device, no shape depends on values, and no sum depends on the order in which threads finish: a step can be captured as a CUDA
graph, and the same input gives the same bits. Backwards cannot be differentiated again. Tested against `plain` in Triton's interpreter, and
compiled for an H100; never run on a GPU, so that its speed there is unmeasured.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops.kernels.plain import Norm, avg_pool
from ops.kernels.triton_kernels.batch_statistics import moments_of
from ops.kernels.triton_kernels.layout import last, stacked
from ops.kernels.triton_kernels.pool import MaxPool
from ops.kernels.triton_kernels.separable_convolution import separable_of
from ops.kernels.triton_kernels.sums import Sum, node_sums
from ops.kernels.triton_kernels.weighted_sum import mix_of

__all__ = ["Norm", "Sum", "avg_pool", "computes", "max_pool", "mix", "moments", "moments_many", "node_sums", "separable",
           "separable_many"]

TWICE = False  # their gradients cannot be differentiated again
REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def computes(x: Tensor) -> bool:
    """Whether `x` is a tensor for these kernels. Offsets within one are 32 bits wide."""
    return (x.is_cuda and x.dim() == 4 and x.dtype in REAL and x.stride(1) == 1 and 0 < x.numel() < 2**31
            and not torch.compiler.is_compiling())


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of `x` (N, C, H, W) over all but the channels, without history; float32 for half precision."""
    with torch.cuda.device_of(x):
        mean, variance = moments_of(last(x.detach())[None])
    return mean[0], variance[0]


def moments_many(xs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`moments` of M tensors of one shape, (M, C) each."""
    with torch.cuda.device_of(xs[0]):
        return moments_of(stacked([last(x.detach()) for x in xs]))


def separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, *, stride: int = 1, dilation: int = 1, norm: Norm | None = None) -> Tensor:
    """`pointwise(depthwise(relu(norm(x))))`: (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
    with torch.cuda.device_of(x):
        return separable_of([x], [depthwise], [pointwise], stride, [dilation], [norm])[0]


def separable_many(xs: Sequence[Tensor], depthwises: Sequence[Tensor], pointwises: Sequence[Tensor], *, stride: int = 1,
                   dilations: Sequence[int], norms: Sequence[Norm | None]) -> list[Tensor]:
    """M of them in a constant number of launches. Sizes and dilations may differ, shapes not; all have a norm of one kind, or none.

    Where all `xs` are one tensor and all `norms` one, it is read without being stacked, and its gradient is summed as it is computed. The
    outputs lie in one buffer: as `xs` of the next call, in the same order, they are not copied.
    """
    with torch.cuda.device_of(xs[0]):
        return separable_of(xs, depthwises, pointwises, stride, dilations, norms)


def mix(parts: Sequence[Tensor], norms: Sequence[Norm | None], scales: Sequence[Tensor | None]) -> Tensor:
    """`sum over i of scales[i] * norms[i](parts[i])`; parts of mixed precision give the wider."""
    if not parts:
        raise ValueError("a mix needs at least one part")
    with torch.cuda.device_of(parts[0]):
        return mix_of(parts, norms, scales)


def max_pool(x: Tensor, size: int, stride: int) -> Tensor:
    """Padded by size // 2 without a value; the first of equal entries wins."""
    with torch.cuda.device_of(x):
        return MaxPool.apply(x, size, stride)
