"""Depthwise convolutions that normalise and rectify as they load, and their gradients; several of them in one launch.

`Members` says which: member m has its own weights and output; sizes and dilations may differ. Inputs are (G, N, H, W, C), all dense:
G = 1 (every member reads the same) or G = M. Weights lie one after the other, member m's as (C, k, k).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ops.kernels.triton_kernels.layout import accumulator, statistics_dtype, tile

MAX_PARTS = 128


class Members(NamedTuple):
    """kinds: runs of members alike, each (kernel size, dilation, first member, end, weights per channel before it)."""

    kinds: tuple[tuple[int, int, int, int, int], ...]
    count: int
    stride: int

    @classmethod
    def of(cls, sizes: Sequence[int], dilations: Sequence[int], stride: int) -> "Members":
        kinds: list[tuple[int, int, int, int, int]] = []
        taps = 0
        for m, (size, dilation) in enumerate(zip(sizes, dilations, strict=True)):
            if kinds and kinds[-1][:2] == (size, dilation):
                kinds[-1] = (*kinds[-1][:3], m + 1, kinds[-1][4])
            else:
                kinds.append((size, dilation, m, m + 1, taps))
            taps += size * size
        return cls(tuple(kinds), len(sizes), stride)

    @property
    def taps(self) -> int:
        """Weights per channel, of all members."""
        size, _, first, end, before = self.kinds[-1]
        return before + (end - first) * size * size


class Vectors(NamedTuple):
    """The normalisation of the inputs: (G, C) each; weight and bias may be None."""

    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None


@triton.jit
def _normalisation(mean, rstd, weight, bias, at, mask, ACC: tl.constexpr):
    """mean, rstd * weight and bias of some channels. Without a normalisation the result is not used."""
    m = tl.zeros(at.shape, ACC)
    s = m + 1.0
    b = m
    if mean is not None:
        m = tl.load(mean + at, mask=mask, other=0.0).to(ACC)
        s = tl.load(rstd + at, mask=mask, other=0.0).to(ACC)
        if weight is not None:
            s = s * tl.load(weight + at, mask=mask, other=0.0).to(ACC)
        if bias is not None:
            b = tl.load(bias + at, mask=mask, other=0.0).to(ACC)
    return m, s, b


@triton.jit
def _convolved(x, taps, mean, m, s, b, n, top, left, c, real, column, H, W, C, K: tl.constexpr, D: tl.constexpr,
               BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """A tile of the depthwise convolution of relu(norm(x)), centred at rows `top` and columns `left`."""
    acc = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for i in range(K):  # a loop: unrolled whole, 25 taps spill registers
        for j in tl.static_range(K):
            row, col = top + (i - K // 2) * D, left + (j - K // 2) * D
            inside = (real & (row >= 0) & (row < H) & (col >= 0) & (col < W))[:, None] & column[None, :]
            v = tl.load(x + ((n * H + row) * W + col)[:, None] * C + c[None, :], mask=inside, other=0.0).to(ACC)
            if mean is not None:
                v = (v - m[None, :]) * s[None, :] + b[None, :]
            v = tl.where(inside & ~(v < 0), v, 0.0)  # the padding is 0 after the normalisation; NaN stays
            acc += v * tl.load(taps + c * (K * K) + i * K + j, mask=column, other=0.0).to(ACC)[None, :]
    return acc


@triton.jit
def _forward_kernel(x, w, y, mean, rstd, weight, bias, H, W, HO, WO, C, pixels, x_size, y_size,
                    KINDS: tl.constexpr, STRIDE: tl.constexpr, SHARED: tl.constexpr,
                    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    member = tl.program_id(2)
    group = 0 if SHARED else member
    if not SHARED:
        x += tl.cast(member, tl.int64) * x_size
    column = c < C
    m, s, b = _normalisation(mean, rstd, weight, bias, group * C + c, column, ACC)
    left, top, n = p % WO * STRIDE, p // WO % HO * STRIDE, p // (WO * HO)
    acc = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for q in tl.static_range(len(KINDS)):
        if (member >= KINDS[q][2]) & (member < KINDS[q][3]):
            taps = w + KINDS[q][4] * C + (member - KINDS[q][2]) * (KINDS[q][0] * KINDS[q][0] * C)
            acc += _convolved(x, taps, mean, m, s, b, n, top, left, c, p < pixels, column, H, W, C, KINDS[q][0], KINDS[q][1],
                              BLOCK_P, BLOCK_C, ACC)
    y += tl.cast(member, tl.int64) * y_size
    tl.store(y + p[:, None] * C + c[None, :], acc, mask=(p < pixels)[:, None] & column[None, :])


@triton.jit
def _transposed(g, taps, n, row, col, c, real, column, HO, WO, C, K: tl.constexpr, D: tl.constexpr, STRIDE: tl.constexpr,
                BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """A tile of the transposed depthwise convolution of `g`: what each input pixel gets from the outputs that read it."""
    acc = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for i in range(K):  # a loop: unrolled whole, 25 taps spill registers
        for j in tl.static_range(K):
            down, right = row - (i - K // 2) * D, col - (j - K // 2) * D
            inside = real & (down >= 0) & (right >= 0) & (down % STRIDE == 0) & (right % STRIDE == 0)
            down, right = down // STRIDE, right // STRIDE
            inside = (inside & (down < HO) & (right < WO))[:, None] & column[None, :]
            v = tl.load(g + ((n * HO + down) * WO + right)[:, None] * C + c[None, :], mask=inside, other=0.0).to(ACC)
            acc += v * tl.load(taps + c * (K * K) + i * K + j, mask=column, other=0.0).to(ACC)[None, :]
    return acc


@triton.jit
def _input_gradient_kernel(g, x, w, out, sums, mean, rstd, weight, bias, H, W, HO, WO, C, pixels, x_size, g_size,
                           KINDS: tl.constexpr, STRIDE: tl.constexpr, SHARED: tl.constexpr, MEMBERS: tl.constexpr, SCALED: tl.constexpr,
                           BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """out: the gradient of the input; unless SCALED, of its normalised form. sums (blocks, G, 2, C) or None: of the latter, and of
    the latter times (x - mean)."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    group = tl.program_id(2)
    column = c < C
    m, s, b = _normalisation(mean, rstd, weight, bias, group * C + c, column, ACC)
    col, row, n = p % W, p // W % H, p // (W * H)
    acc = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    low = 0 if SHARED else group
    high = MEMBERS if SHARED else group + 1
    for q in tl.static_range(len(KINDS)):
        for member in range(tl.maximum(low, KINDS[q][2]), tl.minimum(high, KINDS[q][3])):
            taps = w + KINDS[q][4] * C + (member - KINDS[q][2]) * (KINDS[q][0] * KINDS[q][0] * C)
            acc += _transposed(g + tl.cast(member, tl.int64) * g_size, taps, n, row, col, c, p < pixels, column, HO, WO, C,
                               KINDS[q][0], KINDS[q][1], STRIDE, BLOCK_P, BLOCK_C, ACC)
    at = p[:, None] * C + c[None, :]
    inside = (p < pixels)[:, None] & column[None, :]
    shift = tl.cast(group, tl.int64) * x_size
    v = tl.load(x + shift + at, mask=inside, other=0.0).to(ACC) - m[None, :]
    z = v
    if mean is not None:
        z = v * s[None, :] + b[None, :]
    acc = tl.where(z <= 0, 0.0, acc)  # 0 outside, where all loads were masked
    if sums is not None:
        sums += ((tl.program_id(0) * tl.num_programs(2) + group) * 2) * C + c
        tl.store(sums, tl.sum(acc, axis=0), mask=column)
        tl.store(sums + C, tl.sum(acc * v, axis=0), mask=column)
    if SCALED:
        acc = acc * s[None, :]
    tl.store(out + shift + at, acc, mask=inside)


@triton.jit
def _through_statistics_kernel(h, x, out, sums, mean, rstd, weight, C, pixels, size,
                               BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """Gradient of a batch normalisation's input from the gradient `h` of its output and the two sums (G, 2, C) over the batch."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    group = tl.program_id(2)
    column = c < C
    m, s, _ = _normalisation(mean, rstd, weight, None, group * C + c, column, ACC)
    r = tl.load(rstd + group * C + c, mask=column, other=0.0).to(ACC)
    count = pixels.to(ACC)
    of_h = tl.load(sums + group * 2 * C + c, mask=column, other=0.0) / count
    of_hx = tl.load(sums + group * 2 * C + C + c, mask=column, other=0.0) * r * r / count
    at = tl.cast(group, tl.int64) * size + p[:, None] * C + c[None, :]
    inside = (p < pixels)[:, None] & column[None, :]
    v = tl.load(x + at, mask=inside, other=0.0).to(ACC) - m[None, :]
    g = tl.load(h + at, mask=inside, other=0.0).to(ACC)
    tl.store(out + at, (g - of_h[None, :] - v * of_hx[None, :]) * s[None, :], mask=inside)


@triton.jit
def _correlated(g, x, out, mean, m, s, b, c, column, start, end, H, W, HO, WO, C, K: tl.constexpr, D: tl.constexpr, T: tl.constexpr,
                STRIDE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """Some pixels' share of a weight gradient. All taps at once (T: K * K rounded up to a power of two), so that `g` is read once."""
    t = tl.arange(0, T)
    down, right = (t // K - K // 2) * D, (t % K - K // 2) * D
    acc = tl.zeros((T, BLOCK_P, BLOCK_C), ACC)
    for p0 in range(start, end, BLOCK_P):
        p = p0 + tl.arange(0, BLOCK_P)
        d = tl.load(g + p[:, None] * C + c[None, :], mask=(p < end)[:, None] & column[None, :], other=0.0).to(ACC)
        row = (p // WO % HO * STRIDE)[None, :] + down[:, None]
        col = (p % WO * STRIDE)[None, :] + right[:, None]
        inside = (p < end)[None, :] & (t < K * K)[:, None] & (row >= 0) & (row < H) & (col >= 0) & (col < W)
        inside = inside[:, :, None] & column[None, None, :]
        at = (((p // (WO * HO))[None, :] * H + row) * W + col)[:, :, None] * C + c[None, None, :]
        v = tl.load(x + at, mask=inside, other=0.0).to(ACC)
        if mean is not None:
            v = (v - m[None, None, :]) * s[None, None, :] + b[None, None, :]
        acc += tl.where(inside & ~(v < 0), v, 0.0) * d[None, :, :]
    tl.store(out + c[None, :] * (K * K) + t[:, None], tl.sum(acc, axis=1), mask=(t < K * K)[:, None] & column[None, :])


@triton.jit
def _weight_gradient_kernel(g, x, partial, mean, rstd, weight, bias, H, W, HO, WO, C, pixels, per_part, x_size, g_size, taps_in_all,
                            KINDS: tl.constexpr, STRIDE: tl.constexpr, SHARED: tl.constexpr,
                            BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """partial: (parts, all weights)."""
    part, member = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    column = c < C
    group = 0 if SHARED else member
    if not SHARED:
        x += tl.cast(member, tl.int64) * x_size
    g += tl.cast(member, tl.int64) * g_size
    m, s, b = _normalisation(mean, rstd, weight, bias, group * C + c, column, ACC)
    start = part * per_part
    end = tl.minimum(start + per_part, pixels)
    for q in tl.static_range(len(KINDS)):
        if (member >= KINDS[q][2]) & (member < KINDS[q][3]):
            own = partial + part * (taps_in_all * C) + KINDS[q][4] * C + (member - KINDS[q][2]) * (KINDS[q][0] * KINDS[q][0] * C)
            _correlated(g, x, own, mean, m, s, b, c, column, start, end, H, W, HO, WO, C, KINDS[q][0], KINDS[q][1], KINDS[q][5], STRIDE,
                        BLOCK_P, BLOCK_C, ACC)


def output_shape(x: Tensor, members: Members) -> tuple[int, int, int, int, int]:
    _, n, height, width, channels = x.shape
    return members.count, n, -(-height // members.stride), -(-width // members.stride), channels


def forward(x: Tensor, w: Tensor, members: Members, norm: Vectors | None, dtype: torch.dtype) -> Tensor:
    """x (G, N, H, W, C), w of all members -> (M, N, H', W', C) of `dtype`: depthwise(relu(norm(x)))."""
    y = x.new_empty(output_shape(x, members), dtype=dtype)
    _, _, height, width, channels = x.shape
    pixels = y[0].numel() // channels
    block_p, block_c = tile(channels, 512)
    _forward_kernel[(triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c), members.count)](
        x, w, y, *(norm or (None,) * 4), height, width, *y.shape[2:4], channels, pixels, x[0].numel(), y[0].numel(),
        KINDS=members.kinds, STRIDE=members.stride, SHARED=x.shape[0] == 1,
        BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(x.dtype))
    return y


def input_gradient(g: Tensor, x: Tensor, w: Tensor, members: Members, norm: Vectors | None, by_batch: bool,
                   needs_sums: bool) -> tuple[Tensor, Tensor | None]:
    """Gradient of x, summed over the members that read it, from `g` of the output; and, where by_batch or needs_sums, the sums (G, 2, C) of
    the gradient of norm(x), and of it times (x - mean)."""
    groups, _, height, width, channels = x.shape
    pixels = x[0].numel() // channels
    block_p, block_c = tile(channels, 512)
    grid = (triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c), groups)
    out = torch.empty_like(x)
    partial = x.new_empty((grid[0], groups, 2, channels), dtype=statistics_dtype(x.dtype)) if norm and (by_batch or needs_sums) else None
    # Not rounded to half precision between its two passes.
    h = torch.empty_like(x, dtype=statistics_dtype(x.dtype)) if by_batch else out
    vectors = norm or Vectors(None, None, None, None)
    _input_gradient_kernel[grid](
        g, x, w, h, partial, *vectors, height, width, *g.shape[2:4], channels, pixels, x[0].numel(), g[0].numel(),
        KINDS=members.kinds, STRIDE=members.stride, SHARED=groups == 1, MEMBERS=members.count, SCALED=norm is not None and not by_batch,
        BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(x.dtype))
    sums = None if partial is None else partial.sum(0)
    if by_batch:
        out = h if h.dtype == out.dtype else out
        _through_statistics_kernel[grid](h, x, out, sums, vectors.mean, vectors.rstd, vectors.weight, channels, pixels, x[0].numel(),
                                         BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(x.dtype))
    return out, sums


def weight_gradient(g: Tensor, x: Tensor, members: Members, norm: Vectors | None) -> Tensor:
    """Gradient of all members' weights, (C * taps,), from `g` of the output."""
    _, _, height, width, channels = x.shape
    pixels = g[0].numel() // channels
    kinds = tuple((*kind, max(triton.next_power_of_2(kind[0] ** 2), 2)) for kind in members.kinds)
    block_p, block_c = tile(channels, 4096 // max(kind[-1] for kind in kinds))
    parts = min(triton.cdiv(pixels, 8 * block_p), MAX_PARTS)
    per_part = triton.cdiv(triton.cdiv(pixels, parts), block_p) * block_p
    parts = triton.cdiv(pixels, per_part)
    partial = x.new_empty((parts, members.taps * channels), dtype=statistics_dtype(x.dtype))
    _weight_gradient_kernel[(parts, triton.cdiv(channels, block_c), members.count)](
        g, x, partial, *(norm or (None,) * 4), height, width, *g.shape[2:4], channels, pixels, per_part,
        x[0].numel(), g[0].numel(), members.taps,
        KINDS=kinds, STRIDE=members.stride, SHARED=x.shape[0] == 1,
        BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(x.dtype))
    return partial.sum(0)
