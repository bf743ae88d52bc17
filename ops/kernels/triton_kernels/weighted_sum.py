"""A weighted sum of normalised tensors in one launch for each `MAX_PARTS` of them, and its gradients in three.

`out = sum over i of scale_i * ((p_i - mean_i) * rstd_i * weight_i + bias_i)`. With g the gradient of `out`, n pixels and the sums
S = sum g and S_i = sum g * (p_i - mean_i) over the pixels, per channel:
    p_i:     scale_i * rstd_i * weight_i * (g - S / n - (p_i - mean_i) * rstd_i^2 * S_i / n)    (only g in the bracket unless by_batch)
    scale_i: sum over channels of rstd_i * weight_i * S_i + bias_i * S
    weight_i: scale_i * rstd_i * S_i        bias_i: scale_i * S
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ops.kernels.plain import Norm
from ops.kernels.triton_kernels.layout import accumulator, first, last, statistics_dtype, tile

MAX_PARTS = 16
# Vectors and scalars are views into tables at any offset: a kernel is not compiled anew for each pattern of alignments.
_jit = triton.jit(do_not_specialize_on_alignment=["means", "rstds", "weights", "biases", "scales", "of_scales", "of_weights", "of_biases"])


@_jit
def _forward_kernel(parts, means, rstds, weights, biases, scales, previous, out, C, pixels,
                    COUNT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = p[:, None] * C + c[None, :]
    column = c < C
    inside = (p < pixels)[:, None] & column[None, :]
    acc = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    if previous is not None:
        acc += tl.load(previous + at, mask=inside, other=0.0).to(ACC)
    for i in tl.static_range(COUNT):
        v = tl.load(parts[i] + at, mask=inside, other=0.0).to(ACC)
        if means[i] is not None:
            factor = tl.load(rstds[i] + c, mask=column, other=0.0).to(ACC)
            if weights[i] is not None:
                factor = factor * tl.load(weights[i] + c, mask=column, other=0.0).to(ACC)
            v = (v - tl.load(means[i] + c, mask=column, other=0.0).to(ACC)[None, :]) * factor[None, :]
            if biases[i] is not None:
                v += tl.load(biases[i] + c, mask=column, other=0.0).to(ACC)[None, :]
        if scales[i] is not None:
            v = v * tl.load(scales[i]).to(ACC)
        acc += v
    tl.store(out + at, acc, mask=inside)


@_jit
def _partial_sums_kernel(g, parts, means, partial, C, pixels,
                         COUNT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """partial (blocks, parts + 1, C): each block's sum of g * (p_i - mean_i), and last of g."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = p[:, None] * C + c[None, :]
    column = c < C
    inside = (p < pixels)[:, None] & column[None, :]
    d = tl.load(g + at, mask=inside, other=0.0).to(ACC)
    row = partial + tl.program_id(0) * ((COUNT + 1) * C) + c
    for i in tl.static_range(COUNT):
        if parts[i] is not None:
            v = tl.load(parts[i] + at, mask=inside, other=0.0).to(ACC)
            if means[i] is not None:
                v = v - tl.load(means[i] + c, mask=column, other=0.0).to(ACC)[None, :]
            tl.store(row + i * C, tl.sum(d * v, axis=0), mask=column)
    tl.store(row + COUNT * C, tl.sum(d, axis=0), mask=column)


@triton.jit
def _merged(partial, row, rows, blocks, c, C, BLOCK_B: tl.constexpr, ACC: tl.constexpr):
    """Sum of one row (C,) of `partial` over the blocks."""
    acc = tl.zeros((BLOCK_B, c.shape[0]), ACC)
    for b0 in range(0, blocks, BLOCK_B):
        b = b0 + tl.arange(0, BLOCK_B)
        at = (b[:, None] * rows + row) * C + c[None, :]
        acc += tl.load(partial + at, mask=(b < blocks)[:, None] & (c < C)[None, :], other=0.0)
    return tl.sum(acc, axis=0)


@_jit
def _vector_gradients_kernel(partial, sums, read, means, rstds, weights, biases, scales, of_scales, of_weights, of_biases, blocks, C,
                             COUNT: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """Program i merges the sums of part i, and gives those gradients of its scale, weight and bias that are wanted; the last one merges
    the sums of g."""
    c = tl.arange(0, BLOCK_C)
    column = c < C
    total = _merged(partial, COUNT, COUNT + 1, blocks, c, C, BLOCK_B, ACC)
    if tl.program_id(0) == COUNT:
        tl.store(sums + COUNT * C + c, total, mask=column)
    for i in tl.static_range(COUNT):
        if read[i] is not None:
            if tl.program_id(0) == i:
                own = _merged(partial, i, COUNT + 1, blocks, c, C, BLOCK_B, ACC)
                tl.store(sums + i * C + c, own, mask=column)
                of_scale = own
                scale = 1.0
                if scales[i] is not None:
                    scale = tl.load(scales[i]).to(ACC)
                if means[i] is not None:
                    of_weight = own * tl.load(rstds[i] + c, mask=column, other=0.0).to(ACC)
                    of_scale = of_weight
                    if weights[i] is not None:
                        of_scale = of_scale * tl.load(weights[i] + c, mask=column, other=0.0).to(ACC)
                    if biases[i] is not None:
                        of_scale += total * tl.load(biases[i] + c, mask=column, other=0.0).to(ACC)
                    if of_weights[i] is not None:
                        tl.store(of_weights[i] + c, of_weight * scale, mask=column)
                    if of_biases[i] is not None:
                        tl.store(of_biases[i] + c, total * scale, mask=column)
                if of_scales[i] is not None:
                    tl.store(of_scales[i], tl.sum(of_scale, axis=0))


@_jit
def _part_gradients_kernel(g, sums, parts, means, rstds, weights, scales, outs, C, pixels,
                           COUNT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """parts[i] is None where its gradient does not depend on it."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = p[:, None] * C + c[None, :]
    column = c < C
    inside = (p < pixels)[:, None] & column[None, :]
    d = tl.load(g + at, mask=inside, other=0.0).to(ACC)
    for i in tl.static_range(COUNT):
        if outs[i] is not None:
            v = d
            if means[i] is not None:
                r = tl.load(rstds[i] + c, mask=column, other=0.0).to(ACC)
                if parts[i] is not None:
                    of_g = tl.load(sums + COUNT * C + c, mask=column, other=0.0) / pixels.to(ACC)
                    of_gp = tl.load(sums + i * C + c, mask=column, other=0.0) * r * r / pixels.to(ACC)
                    away = tl.load(parts[i] + at, mask=inside, other=0.0).to(ACC)
                    away = away - tl.load(means[i] + c, mask=column, other=0.0).to(ACC)[None, :]
                    v = v - of_g[None, :] - away * of_gp[None, :]
                if weights[i] is not None:
                    r = r * tl.load(weights[i] + c, mask=column, other=0.0).to(ACC)
                v = v * r[None, :]
            if scales[i] is not None:
                v = v * tl.load(scales[i]).to(ACC)
            tl.store(outs[i] + at, v, mask=inside)


class Mix(torch.autograd.Function):
    """parts, means, rstds, weights, biases, scales: K each, one after the other; what a part lacks is None. by_batch: K booleans."""

    @staticmethod
    def forward(ctx, by_batch: tuple[bool, ...], *tensors: Tensor | None) -> Tensor:
        count = len(by_batch)
        columns = [tensors[k * count : (k + 1) * count] for k in range(6)]
        parts = tuple(last(p) for p in columns[0])
        vectors = [tuple(None if t is None else t.contiguous() for t in column) for column in columns[1:]]
        dtype = parts[0].dtype
        for part in parts[1:]:
            dtype = torch.promote_types(dtype, part.dtype)
        out, channels = torch.empty_like(parts[0], dtype=dtype), parts[0].shape[-1]
        pixels, previous = out.numel() // channels, None
        block_p, block_c = tile(channels, 1024)
        grid = (triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))
        for at in range(0, count, MAX_PARTS):
            some = slice(at, at + MAX_PARTS)
            _forward_kernel[grid](parts[some], *(v[some] for v in vectors), previous, out, channels, pixels,
                                  COUNT=len(parts[some]), BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(dtype))
            previous = out
        need = [ctx.needs_input_grad[1 + k * count : 1 + (k + 1) * count] for k in range(6)]
        ctx.by_batch = by_batch
        # Whether a part is read by a backward: by its own gradient, or by those of its scale and weight.
        ctx.reads = tuple(need[5][i] or need[3][i] or (need[0][i] and by_batch[i]) for i in range(count))
        ctx.shapes = [(tuple(p.shape), p.dtype) for p in parts]
        ctx.save_for_backward(*(p if read else None for p, read in zip(parts, ctx.reads)), *(t for v in vectors for t in v))
        return first(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.by_batch)
        held = ctx.saved_tensors  # once: where a cell is computed again, each look would compute it
        saved = [held[k * count : (k + 1) * count] for k in range(6)]
        need = [ctx.needs_input_grad[1 + k * count : 1 + (k + 1) * count] for k in range(6)]
        g, grads = last(g), [[], [], [], []]  # of parts, weights, biases, scales
        for at in range(0, count, MAX_PARTS):
            some = slice(at, at + MAX_PARTS)
            gradients = _gradients(g, ctx.by_batch[some], ctx.shapes[some], *(s[some] for s in saved),
                                   *(need[k][some] for k in (0, 3, 4, 5)))
            for all_, new in zip(grads, gradients):
                all_.extend(new)
        nothing = (None,) * count
        return (None, *(p if p is None else first(p) for p in grads[0]), *nothing, *nothing, *grads[1], *grads[2], *grads[3])


def mix_of(parts: Sequence[Tensor], norms: Sequence[Norm | None], scales: Sequence[Tensor | None]) -> Tensor:
    by_batch = tuple(norm is not None and norm.by_batch for norm in norms)
    columns = [[None if norm is None else norm[k] for norm in norms] for k in (0, 1, 3, 4)]
    return Mix.apply(by_batch, *parts, *(vector for column in columns for vector in column), *scales)


def _gradients(g: Tensor, by_batch: Sequence[bool], shapes: Sequence[tuple], parts: tuple, means: tuple, rstds: tuple, weights: tuple,
               biases: tuple, scales: tuple, need_part: Sequence[bool], need_weight: Sequence[bool], need_bias: Sequence[bool],
               need_scale: Sequence[bool]) -> tuple[list, list, list, list]:
    """The gradients of some parts, and of their weights, biases and scales; None where not needed."""
    count, channels = len(parts), g.shape[-1]
    pixels, acc = g.numel() // channels, accumulator(g.dtype)
    through = [need_part[i] and by_batch[i] for i in range(count)]
    of_weights = tuple(torch.empty_like(weights[i]) if need_weight[i] else None for i in range(count))
    of_biases = tuple(torch.empty_like(biases[i]) if need_bias[i] else None for i in range(count))
    of_scales = tuple(torch.empty_like(scales[i]) if need_scale[i] else None for i in range(count))
    sums = None
    if any(through) or any(need_weight) or any(need_bias) or any(need_scale):
        block_p, block_c = tile(channels, 2048)
        blocks = triton.cdiv(pixels, block_p)
        partial = g.new_empty((blocks, count + 1, channels), dtype=statistics_dtype(g.dtype))
        sums = partial.new_empty((count + 1, channels))
        # 1 in place of a part that is read, for the second kernel, which does not touch the parts.
        read = tuple(part if through[i] or need_weight[i] or need_scale[i] else None for i, part in enumerate(parts))
        wanted = tuple(None if part is None and not need_bias[i] else 1 for i, part in enumerate(read))
        _partial_sums_kernel[(blocks, triton.cdiv(channels, block_c))](g, read, means, partial, channels, pixels,
                                                                       COUNT=count, BLOCK_P=block_p, BLOCK_C=block_c, ACC=acc)
        block = triton.next_power_of_2(channels)
        _vector_gradients_kernel[(count + 1,)](partial, sums, wanted, means, rstds, weights, biases, scales,
                                               of_scales, of_weights, of_biases, blocks, channels,
                                               COUNT=count, BLOCK_B=max(4096 // block, 1), BLOCK_C=block, ACC=acc)
    # A part that is neither scaled nor normalised has g itself for a gradient.
    plain = [need_part[i] and means[i] is None and scales[i] is None and shapes[i][1] == g.dtype for i in range(count)]
    outs = tuple(g.new_empty(shapes[i][0], dtype=shapes[i][1]) if need_part[i] and not plain[i] else None for i in range(count))
    if any(out is not None for out in outs):
        block_p, block_c = tile(channels, 1024)
        _part_gradients_kernel[(triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))](
            g, sums, tuple(part if t else None for part, t in zip(parts, through)), means, rstds, weights, scales, outs,
            channels, pixels,
            COUNT=count, BLOCK_P=block_p, BLOCK_C=block_c, ACC=acc)
    return [g if plain[i] else outs[i] for i in range(count)], list(of_weights), list(of_biases), list(of_scales)
