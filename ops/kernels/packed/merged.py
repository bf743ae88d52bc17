"""As `ops.kernels.packed`, but a depthwise convolution and the pointwise one that follows it are one dense convolution, with the product of
their kernels. That is half of the convolutions and no copy of a node's state for each op that reads it, for ten to twenty times the
multiply-adds: a bargain at most where matrix units compute them (bfloat16, TF32)."""

from functools import partial

from ops.kernels.packed import TWICE, Norm, Sum, avg_pool, computes, max_pool, mix, moments, moments_many, separable, separable_many
from ops.kernels.packed.convolutions import merged
from ops.kernels.packed.sums import Sums

__all__ = ["TWICE", "Norm", "Sum", "avg_pool", "computes", "max_pool", "mix", "moments", "moments_many", "node_sums", "separable",
           "separable_many"]

node_sums = partial(Sums, merged)
