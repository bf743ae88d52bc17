"""Separable convolutions: a depthwise kernel that normalises and rectifies as it loads, and a batched matrix product.

Neither norm(x), relu(norm(x)) nor the depthwise output is kept: the backward computes the last again where the pointwise weights need it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops.kernels.plain import Norm
from ops.kernels.triton_kernels import depthwise
from ops.kernels.triton_kernels.depthwise import Members, Vectors
from ops.kernels.triton_kernels.layout import first, last, stacked

MAX_SPLITS = 16


class Separable(torch.autograd.Function):
    """M separable convolutions. tensors: G inputs (G is 1 or M), M depthwise weights, M pointwise weights, then per input the norm's mean,
    rstd, weight and bias (G each, or none at all). Returns M outputs, views of one buffer."""

    @staticmethod
    def forward(ctx, members: Members, groups: int, by_batch: bool, dtype: torch.dtype, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        count = members.count
        x = stacked([last(t) for t in tensors[:groups]])
        w = torch.cat([t.reshape(-1) for t in tensors[groups : groups + count]]) if count > 1 else tensors[groups].reshape(-1)
        pointwise = stacked([t.flatten(1) for t in tensors[groups + count : groups + 2 * count]])
        rest = [tensors[k : k + groups] for k in range(groups + 2 * count, len(tensors), groups)]
        norm = Vectors(*(None if t[0] is None else stacked([v.contiguous() for v in t]) for t in rest)) if rest else None
        y = depthwise.forward(x, w, members, norm, dtype)
        out = torch.bmm(y.view(count, -1, y.shape[-1]), pointwise.to(dtype).transpose(1, 2)).view(*y.shape[:-1], -1)
        ctx.members, ctx.groups, ctx.by_batch, ctx.dtype, ctx.normalises = members, groups, by_batch, dtype, norm is not None
        ctx.affine = [len(rest) > 2 and rest[k][0] is not None for k in (2, 3)] if rest else [False, False]
        ctx.shapes = [t.shape for t in tensors[groups : groups + 2 * count]]
        ctx.save_for_backward(x, w, pointwise, *(norm or ()))
        return tuple(first(part) for part in out.unbind(0))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, w, pointwise, *vectors = ctx.saved_tensors
        members, groups, count = ctx.members, ctx.groups, ctx.members.count
        norm = Vectors(*vectors) if ctx.normalises else None
        need = ctx.needs_input_grad[4:]
        need_x, need_depthwise = any(need[:groups]), any(need[groups : groups + count])
        need_pointwise, need_affine = any(need[groups + count : groups + 2 * count]), any(need[groups + 2 * count :])
        g = stacked([last(t) for t in gradients]).to(ctx.dtype)
        rows = g.view(count, -1, g.shape[-1])
        of_x = of_w = of_pointwise = sums = None
        if need_pointwise:
            of_pointwise = _product(rows, depthwise.forward(x, w, members, norm, ctx.dtype), splits=_splits(g.shape[1]))
        if need_x or need_depthwise or need_affine:
            h = torch.bmm(rows, pointwise.to(ctx.dtype)).view(*g.shape[:-1], -1)
            if need_depthwise:
                of_w = depthwise.weight_gradient(h, x, members, norm)
            if need_x or need_affine:
                of_x, sums = depthwise.input_gradient(h, x, w, members, norm, ctx.by_batch, need_affine)
        of_depthwise, of_weight, of_bias = [None] * count, [None] * groups, [None] * groups
        if of_w is not None:
            sizes = [shape.numel() for shape in ctx.shapes[:count]]
            of_depthwise = [t.view(shape).to(w.dtype) for t, shape in zip(of_w.split(sizes), ctx.shapes)]
        if need_affine:
            if ctx.affine[0]:
                of_weight = list((sums[:, 1] * norm.rstd).to(norm.weight.dtype).unbind(0))
            if ctx.affine[1]:
                of_bias = list(sums[:, 0].to(norm.bias.dtype).unbind(0))
        of_pointwise = [None] * count if of_pointwise is None else [
            t.view(shape).to(pointwise.dtype) for t, shape in zip(of_pointwise.unbind(0), ctx.shapes[count:])]
        of_inputs = [None] * groups if not need_x else [first(t) for t in of_x.unbind(0)]
        of_norms = [None] * (2 * groups) + of_weight + of_bias if ctx.normalises else []
        return (None, None, None, None, *of_inputs, *of_depthwise, *of_pointwise, *of_norms)


def _splits(batch: int) -> int:
    """Into how many parts a sum over `batch` images is split, so that a batch of small products fills a GPU."""
    return max(s for s in range(1, MAX_SPLITS + 1) if batch % s == 0)


def _product(g: Tensor, y: Tensor, splits: int) -> Tensor:
    """g (M, P, C'), y (M, N, H, W, C) -> (M, C', C), the sum over pixels of the outer products."""
    count, pixels, outputs = g.shape
    rows, columns = g.view(count * splits, -1, outputs), y.view(count * splits, pixels // splits, y.shape[-1])
    product = torch.bmm(rows.transpose(1, 2), columns)
    return product if splits == 1 else product.view(count, splits, *product.shape[1:]).sum(1)


def separable_of(xs: Sequence[Tensor], depthwises: Sequence[Tensor], pointwises: Sequence[Tensor], stride: int, dilations: Sequence[int],
                 norms: Sequence[Norm | None]) -> list[Tensor]:
    shared = all(x is xs[0] for x in xs) and all(norm is norms[0] for norm in norms)
    xs, norms = (xs[:1], norms[:1]) if shared else (xs, norms)
    members = Members.of([w.shape[-1] for w in depthwises], dilations, stride)
    device = xs[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else xs[0].dtype
    vectors = [vector for column in zip(*(norm[:2] + norm[3:] for norm in norms)) for vector in column] if norms[0] is not None else []
    by_batch = norms[0] is not None and norms[0].by_batch
    return list(Separable.apply(members, len(xs), by_batch, dtype, *xs, *depthwises, *pointwises, *vectors))
