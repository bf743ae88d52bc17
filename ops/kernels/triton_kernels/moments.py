"""Mean and variance per channel in two launches: Welford's running update in every lane, then Chan's merge (Chan, Golub & LeVeque 1983).

Values count from the first one of their channel, and no large sums are subtracted: a mean far from 0 costs no digits. The order of the
sums depends on the shape alone.
"""

import triton
import triton.language as tl
from torch import Tensor

from ops.kernels.triton_kernels.layout import accumulator, statistics_dtype, tile

MAX_PARTS = 128


@triton.jit
def _part_kernel(x, means, squares, pixels, per_part, C, size,
                 BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    part, member = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    x += tl.cast(member, tl.int64) * size
    shift = tl.load(x + c, mask=c < C, other=0.0).to(ACC)[None, :]
    start = part * per_part
    end = tl.minimum(start + per_part, pixels)
    mean = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    square = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    seen = tl.zeros((BLOCK_P, 1), ACC)
    for p0 in range(start, end, BLOCK_P):
        p = p0 + tl.arange(0, BLOCK_P)
        inside = (p < end)[:, None]
        v = tl.load(x + p[:, None] * C + c[None, :], mask=inside & (c < C)[None, :], other=0.0).to(ACC) - shift
        seen += tl.where(inside, 1.0, 0.0).to(ACC)
        away = tl.where(inside, v - mean, 0.0)
        mean += away / tl.maximum(seen, 1.0)
        square += tl.where(inside, away * (v - mean), 0.0)
    count = (end - start).to(ACC)
    whole = tl.sum(mean * seen, axis=0) / count
    away = mean - whole[None, :]
    square = tl.sum(square + seen * away * away, axis=0)
    at = (member * tl.num_programs(0) + part) * C + c
    tl.store(means + at, whole, mask=c < C)
    tl.store(squares + at, square, mask=c < C)


@triton.jit
def _merge_kernel(x, means, squares, mean, variance, pixels, per_part, parts, C, size,
                  BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    member = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.arange(0, BLOCK_B)
    inside = (b < parts)[:, None] & (c < C)[None, :]
    at = (member * parts + b[:, None]) * C + c[None, :]
    m = tl.load(means + at, mask=inside, other=0.0)
    s = tl.load(squares + at, mask=inside, other=0.0)
    count = tl.minimum(tl.maximum(pixels - b * per_part, 0), per_part).to(ACC)[:, None]
    total = pixels.to(ACC)
    whole = tl.sum(m * count, axis=0) / total
    away = m - whole[None, :]
    shift = tl.load(x + tl.cast(member, tl.int64) * size + c, mask=c < C, other=0.0).to(ACC)
    tl.store(mean + member * C + c, whole + shift, mask=c < C)
    tl.store(variance + member * C + c, tl.sum(s + count * away * away, axis=0) / total, mask=c < C)


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: dense (M, N, H, W, C). Mean and biased variance, (M, C) each, float32 at least."""
    members, channels = x.shape[0], x.shape[-1]
    pixels = x[0].numel() // channels
    block_p, block_c = tile(channels, 1024)
    parts = min(triton.cdiv(pixels, block_p), MAX_PARTS)
    per_part = triton.cdiv(triton.cdiv(pixels, parts), block_p) * block_p
    parts = triton.cdiv(pixels, per_part)
    columns = triton.cdiv(channels, block_c)
    partial = x.new_empty((2, members, parts, channels), dtype=statistics_dtype(x.dtype))
    out = partial.new_empty((2, members, channels))
    _part_kernel[(parts, columns, members)](x, partial[0], partial[1], pixels, per_part, channels, x[0].numel(),
                                            BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(x.dtype))
    block_c = min(block_c, 16)  # of all parts at once
    _merge_kernel[(triton.cdiv(channels, block_c), members)](
        x, partial[0], partial[1], out[0], out[1], pixels, per_part, parts, channels, x[0].numel(),
        BLOCK_B=triton.next_power_of_2(parts), BLOCK_C=block_c, ACC=accumulator(x.dtype))
    return out[0], out[1]
