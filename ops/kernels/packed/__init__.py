"""The fused operations of `ops.kernels` in few, large calls of PyTorch, for devices on which the number of launches counts.

All ops that leave a node are computed together, and those that leave a cell's inputs too: convolutions alike are one convolution in
groups, over the concatenated channels; batch norms are one over the concatenated channels; and all weighted sums to the nodes behind are
one matrix product. The parameters stay where they are and have the names they have: they are stacked once a cell, at use.

Nothing here but operations of PyTorch: any device, any layout, gradients that can be differentiated again. On a CPU it is slower than
`plain`, for copies and padding cost there more than they save. Never run on a GPU, so that its speed there is unmeasured.
"""

from functools import partial

import torch
from torch import Tensor

from ops.kernels.packed.convolutions import apart
from ops.kernels.packed.sums import Sums
from ops.kernels.plain import Norm, Sum, avg_pool, max_pool, mix, moments, moments_many, separable, separable_many

__all__ = ["TWICE", "Norm", "Sum", "avg_pool", "computes", "max_pool", "mix", "moments", "moments_many", "node_sums", "separable",
           "separable_many"]

TWICE = True
node_sums = partial(Sums, apart)


def computes(x: Tensor) -> bool:
    """Whether `x` is a tensor for these kernels."""
    return x.dim() == 4 and x.is_floating_point() and x.numel() > 0 and not torch.compiler.is_compiling()
