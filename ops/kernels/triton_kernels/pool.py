"""Max pooling that remembers the winner of a window in one byte (PyTorch: eight), with a backward that gathers: without atomics,
the same input gives the same bits."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ops.kernels.triton_kernels.layout import accumulator, first, last, tile


@triton.jit
def _forward_kernel(x, y, winners, H, W, HO, WO, C, pixels,
                    SIZE: tl.constexpr, STRIDE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    left, top, n = p % WO * STRIDE, p // WO % HO * STRIDE, p // (WO * HO)
    best = tl.full((BLOCK_P, BLOCK_C), float("-inf"), ACC)
    winner = tl.zeros((BLOCK_P, BLOCK_C), tl.int32)
    found = winner > 0
    for i in tl.static_range(SIZE):
        for j in tl.static_range(SIZE):
            row, col = top + (i - SIZE // 2), left + (j - SIZE // 2)
            inside = ((p < pixels) & (row >= 0) & (row < H) & (col >= 0) & (col < W))[:, None] & (c < C)[None, :]
            at = ((n * H + row) * W + col)[:, None] * C + c[None, :]
            v = tl.load(x + at, mask=inside, other=0.0).to(ACC)
            take = inside & ((v > best) | (v != v) | ~found)  # a window of -inf has a winner too
            best = tl.where(take, v, best)
            winner = tl.where(take, i * SIZE + j, winner)
            found = found | inside
    at = p[:, None] * C + c[None, :]
    inside = (p < pixels)[:, None] & (c < C)[None, :]
    tl.store(y + at, best, mask=inside)
    if winners is not None:
        tl.store(winners + at, winner.to(tl.uint8), mask=inside)


@triton.jit
def _backward_kernel(g, winners, out, H, W, HO, WO, C, pixels,
                     SIZE: tl.constexpr, STRIDE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    col, row, n = p % W, p // W % H, p // (W * H)
    acc = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for i in tl.static_range(SIZE):
        for j in tl.static_range(SIZE):
            down, right = row - (i - SIZE // 2), col - (j - SIZE // 2)
            inside = (p < pixels) & (down >= 0) & (right >= 0) & (down % STRIDE == 0) & (right % STRIDE == 0)
            down, right = down // STRIDE, right // STRIDE
            inside = (inside & (down < HO) & (right < WO))[:, None] & (c < C)[None, :]
            at = ((n * HO + down) * WO + right)[:, None] * C + c[None, :]
            won = tl.load(winners + at, mask=inside, other=0).to(tl.int32) == i * SIZE + j
            acc += tl.load(g + at, mask=inside & won, other=0.0).to(ACC)
    tl.store(out + p[:, None] * C + c[None, :], acc, mask=(p < pixels)[:, None] & (c < C)[None, :])


class MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, size: int, stride: int) -> Tensor:
        x = last(x)
        n, height, width, channels = x.shape
        # As PyTorch counts: a window more only where it starts within the input.
        y = x.new_empty((n, *((side + 2 * (size // 2) - size) // stride + 1 for side in (height, width)), channels))
        winners = torch.empty_like(y, dtype=torch.uint8) if ctx.needs_input_grad[0] else None
        pixels = y.numel() // channels
        block_p, block_c = tile(channels, 512)
        _forward_kernel[(triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))](
            x, y, winners, height, width, *y.shape[1:3], channels, pixels,
            SIZE=size, STRIDE=stride, BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(x.dtype))
        ctx.save_for_backward(winners)
        ctx.shape, ctx.size, ctx.stride = x.shape, size, stride
        return first(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor, None, None]:
        winners, g = ctx.saved_tensors[0], last(g)
        out = g.new_empty(ctx.shape)
        _, height, width, channels = ctx.shape
        pixels = out.numel() // channels
        block_p, block_c = tile(channels, 512)
        _backward_kernel[(triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))](
            g, winners, out, height, width, *winners.shape[1:3], channels, pixels,
            SIZE=ctx.size, STRIDE=ctx.stride, BLOCK_P=block_p, BLOCK_C=block_c, ACC=accumulator(g.dtype))
        return first(out), None, None
