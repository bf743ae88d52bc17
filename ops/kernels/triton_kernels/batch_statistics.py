"""Mean and variance per channel in two launches: Welford's running update in every lane, then Chan's merge (Chan, Golub & LeVeque 1983).

Values count from the first one of their channel, and no large sums are subtracted: a mean far from 0 costs no digits. The order of the
sums depends on the shape alone.
"""

from collections.abc import Sequence

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


@triton.jit(do_not_specialize_on_alignment=["running_means", "running_variances"])
def _merge_kernel(x, means, squares, mean, variance, rstd, running_means, running_variances, pixels, per_part, parts, C, size,
                  MEMBERS: tl.constexpr, EPS: tl.constexpr, MOMENTUM: tl.constexpr,
                  BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """variance, rstd: one of them may be None. running_*: of each member, None where they are not tracked."""
    member = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.arange(0, BLOCK_B)
    column = c < C
    inside = (b < parts)[:, None] & column[None, :]
    at = (member * parts + b[:, None]) * C + c[None, :]
    m = tl.load(means + at, mask=inside, other=0.0)
    s = tl.load(squares + at, mask=inside, other=0.0)
    count = tl.minimum(tl.maximum(pixels - b * per_part, 0), per_part).to(ACC)[:, None]
    total = pixels.to(ACC)
    whole = tl.sum(m * count, axis=0) / total
    away = m - whole[None, :]
    square = tl.sum(s + count * away * away, axis=0)
    whole += tl.load(x + tl.cast(member, tl.int64) * size + c, mask=column, other=0.0).to(ACC)
    tl.store(mean + member * C + c, whole, mask=column)
    if variance is not None:
        tl.store(variance + member * C + c, square / total, mask=column)
    if rstd is not None:
        tl.store(rstd + member * C + c, 1.0 / tl.sqrt(square / total + EPS), mask=column)
    for i in tl.static_range(MEMBERS):
        if running_means[i] is not None:
            if member == i:
                old = tl.load(running_means[i] + c, mask=column, other=0.0).to(ACC)
                tl.store(running_means[i] + c, old + MOMENTUM * (whole - old), mask=column)
                old = tl.load(running_variances[i] + c, mask=column, other=0.0).to(ACC)
                tl.store(running_variances[i] + c, old + MOMENTUM * (square / (total - 1.0) - old), mask=column)


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: dense (M, N, H, W, C). Mean and biased variance, (M, C) each, float32 at least."""
    out = x.new_empty((2, x.shape[0], x.shape[-1]), dtype=statistics_dtype(x.dtype))
    _measure(x, out[0], out[1], None, [], 0.0, 0.0)
    return out[0], out[1]


def statistics_of(x: Tensor, running: Sequence[tuple[Tensor, Tensor] | None], eps: float, momentum: float) -> tuple[Tensor, Tensor]:
    """As `moments_of`, but 1 / sqrt(variance + eps) in place of the variance. Moves each member's running mean and (unbiased) variance,
    where there are some, towards these, by `momentum`."""
    out = x.new_empty((2, x.shape[0], x.shape[-1]), dtype=statistics_dtype(x.dtype))
    _measure(x, out[0], None, out[1], running, eps, momentum)
    return out[0], out[1]


def _measure(x: Tensor, mean: Tensor, variance: Tensor | None, rstd: Tensor | None, running: Sequence[tuple[Tensor, Tensor] | None],
             eps: float, momentum: float) -> None:
    members, channels = x.shape[0], x.shape[-1]
    pixels = x[0].numel() // channels
    block_p, block_c = tile(channels, 1024)
    parts = min(triton.cdiv(pixels, block_p), MAX_PARTS)
    per_part = triton.cdiv(triton.cdiv(pixels, parts), block_p) * block_p
    parts = triton.cdiv(pixels, per_part)
    partial = x.new_empty((2, members, parts, channels), dtype=mean.dtype)
    _part_kernel[(parts, triton.cdiv(channels, block_c), members)](
        x, partial[0], partial[1], pixels, per_part, channels, x[0].numel(), BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(x.dtype))
    block_c = min(block_c, 16)  # of all parts at once
    tracked = any(pair is not None for pair in running)
    columns = [tuple(pair and pair[k] for pair in running) if tracked else None for k in (0, 1)]
    _merge_kernel[(triton.cdiv(channels, block_c), members)](
        x, partial[0], partial[1], mean, variance, rstd, *columns, pixels, per_part, parts, channels, x[0].numel(),
        MEMBERS=members if tracked else 0, EPS=eps, MOMENTUM=momentum,
        BLOCK_B=triton.next_power_of_2(parts), BLOCK_C=block_c, ACC=accumulator(x.dtype))
