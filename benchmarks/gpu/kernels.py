"""Every fused operation against `ops.kernels.plain` in float64, on the same inputs: outputs and all gradients.

float32 with TF32 off must come within 1e-5 of the largest entry forward and 1e-4 backward; bf16 (autocast) within 2e-2 and 3e-2, or within
three times what plain PyTorch's own bf16 is off by. Outputs and gradients are looked at for what was never written: they are computed
twice, the second time into memory that held NaN, and must be the same bits.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import compiling
from benchmarks.gpu.checks import Bench, Check, Failed, Report, Skipped, Values
from ops.kernels import Norm, plain
from supernet.runs.device import prepare

EPS = 1e-5
LIMITS = {"float32": (1e-5, 1e-4), "bf16": (2e-2, 3e-2)}  # forward, backward, of the largest entry
PLAIN_BF16 = 3.0  # or so many times what plain PyTorch is off by
FAR = 1000.0
KINDS = ((3, 1), (3, 1), (5, 1), (5, 1), (3, 2), (5, 2))  # size and dilation of a node's separable convolutions, dilated last


@dataclass(frozen=True)
class Case:
    """`run(module, *leaves)` gives a tensor or several; leaves are standard normal draws of these shapes, the first laid out as `layout`
    says."""

    name: str
    run: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    layout: str = "channels_last"  # contiguous, sliced: channels of a larger tensor, transposed


def run(bench: Bench, report: Report) -> None:
    if importlib.util.find_spec("triton") is None:
        raise Skipped("Triton is not installed")
    fused = importlib.import_module("ops.kernels.triton_kernels")
    if bench.device.type == "cuda":
        prepare(bench.device, threads=None, deterministic=False, tf32=False)
        helpers = compiling.start(bench.device)
    else:
        interpreted(fused)
        helpers = []
    try:
        report.each(checks(bench, fused))
    finally:
        compiling.end(helpers)


def interpreted(fused: ModuleType) -> None:
    """Raises Skipped: this Triton's interpreter cannot loop with this numpy (3.6 with 2.5, where an array of one number is no number)."""
    try:
        fused.moments(torch.ones(1, 1, 2, 2))
    except Exception as error:
        if "only 0-dimensional arrays" not in str(error):
            raise
        versions = metadata.version("triton"), metadata.version("numpy")
        raise Skipped("the interpreter of Triton {} does not work with numpy {}".format(*versions)) from error


def checks(bench: Bench, fused: ModuleType) -> Iterator[Check]:
    chosen = cases(bench.toy)
    for precision in ("float32", "bf16"):
        for case in chosen:
            yield Check(f"{case.name}, {precision}", lambda case=case, precision=precision: against_plain(bench, fused, case, precision))
    yield Check("moments far from zero", lambda: moments_far_from_zero(bench, fused))
    yield Check("max_pool, ties and what is not finite", lambda: ties(bench, fused))
    yield Check("a tensor of more than 2^31 bytes", lambda: large(bench, fused))


# ---- the cases


def cases(toy: bool) -> list[Case]:
    """In order of worth: what a DARTS supernet runs, then what is odd."""
    if toy:
        return [*separables([(3, 1, 1, 3, 4, 5, 3)], ["by_batch"]), mixed(5, 2), pool(3, 2, 3, 5, 4), moments(3, 2),
                *several(3, [1], KINDS[1:3])]
    usual = [(3, 1, 1, 16, 16, 32, 32), (5, 1, 1, 16, 16, 32, 32), (3, 1, 2, 16, 16, 32, 32), (5, 1, 2, 16, 16, 32, 32),
             (3, 2, 1, 32, 32, 31, 33), (5, 2, 2, 32, 32, 31, 33)]
    odd = [(3, 1, 1, 1, 1, 7, 5), (3, 2, 1, 3, 5, 7, 6), (5, 2, 1, 17, 9, 9, 8), (3, 1, 2, 33, 33, 5, 11), (5, 1, 2, 64, 48, 6, 6),
           (3, 1, 1, 129, 129, 9, 7), (5, 2, 2, 127, 3, 7, 7), (7, 1, 1, 36, 36, 16, 16)]
    return [*separables(usual[:2], ["none", "by_batch"]), *several(16, [1, 2]), mixed(16, 14), pool(3, 1, 16, 32, 32), moments(16, 4),
            *separables(usual[2:], ["by_batch"]), pool(3, 2, 32, 31, 33), mixed(129, 3), mixed(1, 2), mixed(36, 19),
            *separables(odd, ["by_batch"]), *separables(odd[:3], ["affine", "constant"]), *several(33, [2]), pool(5, 2, 129, 7, 5),
            moments(129, 3), *laid_out()]


def norm_of(x: Tensor, how: str, affine: Sequence[Tensor] = ()) -> Norm | None:
    """Of the moments of `x`; as constants, of others."""
    if how == "none":
        return None
    mean, variance = plain.moments(x)
    constant = "constant" in how
    return Norm(mean + 0.3 if constant else mean, (variance + EPS).rsqrt(), not constant, *affine)


def separables(sizes: Sequence[tuple[int, ...]], norms: Sequence[str], layout: str = "channels_last") -> list[Case]:
    """size, stride, dilation, channels, outputs, height, width."""
    found = []
    for k, stride, dilation, c, out, h, w in sizes:
        for how in norms:
            def function(m: Any, x: Tensor, d: Tensor, p: Tensor, *affine: Tensor, stride: int = stride, dilation: int = dilation,
                         how: str = how) -> Tensor:
                return m.separable(x, d, p, stride=stride, dilation=dilation, norm=norm_of(x, how, affine))

            shapes = [(4, c, h, w), (c, 1, k, k), (out, c, 1, 1), *([(c,), (c,)] if how == "affine" else [])]
            name = f"separable {k}x{k} stride {stride} dilation {dilation}, {c} to {out} channels of {h}x{w}, norm {how}, {layout}"
            found.append(Case(name, function, shapes, layout))
    return found


def several(channels: int, strides: Sequence[int], kinds: Sequence[tuple[int, int]] = KINDS) -> list[Case]:
    """Some at once that read one tensor, then those of dilation 1 once more, one tensor each: the two halves of a node's separable
    convolutions."""
    count, again = len(kinds), sum(dilation == 1 for _, dilation in kinds)

    def function(m: Any, x: Tensor, *weights: Tensor, stride: int) -> list[Tensor]:
        d, p = weights[:count], weights[count:]
        ys = m.separable_many([x] * count, d, p, stride=stride, dilations=[n for _, n in kinds], norms=[None] * count)
        return ys[again:] + m.separable_many(ys[:again], d[:again], p[:again], dilations=[1] * again,
                                             norms=[norm_of(y, "by_batch") for y in ys[:again]])

    shapes = [(4, channels, 12, 9), *((channels, 1, k, k) for k, _ in kinds), *((channels, channels, 1, 1) for _ in kinds)]
    return [Case(f"separable_many of {channels} channels, stride {stride}",
                 lambda m, *tensors, stride=stride: function(m, *tensors, stride=stride), shapes) for stride in strides]


def mixed(channels: int, parts: int) -> Case:
    hows = ["by_batch", "affine", "none", "constant", "by_batch"]

    def function(m: Any, *tensors: Tensor) -> Tensor:
        xs, affine, alpha = tensors[:parts], tensors[parts : parts + 2], tensors[-1]
        norms = [norm_of(x, hows[i % 5], affine if hows[i % 5] == "affine" else ()) for i, x in enumerate(xs)]
        return m.mix(list(xs), norms, [None if i % 3 == 2 else alpha[i] for i in range(parts)])

    return Case(f"mix of {parts} parts of {channels} channels", function,
                [*[(4, channels, 9, 7)] * parts, (channels,), (channels,), (parts,)])


def pool(size: int, stride: int, channels: int, height: int, width: int) -> Case:
    return Case(f"max_pool {size}x{size} stride {stride}, {channels} channels of {height}x{width}",
                lambda m, x: m.max_pool(x, size, stride), [(4, channels, height, width)])


def moments(channels: int, tensors: int) -> Case:
    def function(m: Any, *xs: Tensor) -> list[Tensor]:
        return [*m.moments(xs[0]), *m.moments_many(list(xs))]

    return Case(f"moments of {tensors} tensors of {channels} channels", function, [(4, channels, 11, 13)] * tensors)


def laid_out() -> list[Case]:
    """Inputs that are not as the kernels read them."""
    size = [(3, 1, 1, 20, 12, 9, 10)]
    return [case for layout in ("contiguous", "sliced", "transposed") for case in separables(size, ["by_batch"], layout)]


# ---- the checks


def leaves_of(case: Case, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator).to(device) for shape in case.shapes]
    return [lay_out(t, case.layout if i == 0 else "channels_last").requires_grad_() for i, t in enumerate(made)]


def lay_out(t: Tensor, layout: str) -> Tensor:
    if t.dim() != 4 or layout == "contiguous":
        return t.contiguous()
    if layout == "sliced":
        return torch.cat([t + 1, t], 1).contiguous(memory_format=torch.channels_last)[:, t.shape[1]:]
    if layout == "transposed":
        return t.transpose(2, 3).contiguous(memory_format=torch.channels_last).transpose(2, 3)
    return t.contiguous(memory_format=torch.channels_last)


def computed(module: Any, case: Case, leaves: Sequence[Tensor], autocast: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of the leaves, of fixed gradients of the outputs; none where a function has no history."""
    device = leaves[0].device
    with torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext():
        out = case.run(module, *leaves)
    out = [out] if isinstance(out, Tensor) else list(out)
    if not out[0].requires_grad:
        return out, []
    generator = torch.Generator().manual_seed(1)
    g = [torch.randn(y.shape, generator=generator).to(device, y.dtype) for y in out]
    return out, list(torch.autograd.grad(out, leaves, g, allow_unused=True, materialize_grads=True))


def worst(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """The largest difference, each tensor's as a share of its largest entry; NaN where anything is not finite."""
    if len(got) != len(want) or any(a.shape != b.shape for a, b in zip(got, want)):
        raise Failed(f"shapes must be {[tuple(t.shape) for t in want]}, got {[tuple(t.shape) for t in got]}")
    found = [(a.double() - b).abs().max() / b.abs().max().clamp_min(1e-30) for a, b in zip(got, want)]
    return torch.stack(found).max().item() if found else 0.0


def against_plain(bench: Bench, fused: ModuleType, case: Case, precision: str) -> Values:
    leaves, autocast = leaves_of(case, bench.device), precision == "bf16"
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    want = computed(plain, case, doubles, False)
    got = computed(fused, case, leaves, autocast)
    poison(leaves[0])
    again = computed(fused, case, leaves, autocast)
    off = [worst(a, b) for a, b in zip(got, want)]
    values = {"forward": off[0], "backward": off[1]}
    limits = list(LIMITS[precision])
    if autocast:
        own = [worst(a, b) for a, b in zip(computed(plain, case, leaves, True), want)]
        values |= {"plain forward": own[0], "plain backward": own[1]}
        limits = [max(limit, PLAIN_BF16 * x) for limit, x in zip(limits, own)]
    for name, value, limit in zip(("forward", "backward"), off, limits):
        if not value <= limit:  # NaN too
            raise Failed(f"{name} is off by {value:.3g} of the largest entry, more than {limit:.3g}", values)
    if not all(torch.equal(a, b) for x, y in zip(got, again) for a, b in zip(x, y, strict=True)):
        raise Failed("the same input gave other bits the second time: a race, or entries that were never written", values)
    return values


def poison(like: Tensor) -> None:
    """Leaves NaN in the memory that the allocator hands out next."""
    if like.is_cuda:
        for size in (like.numel(), 4 * like.numel(), 2**16):
            for _ in range(4):
                torch.full((size,), float("nan"), device=like.device)


def moments_far_from_zero(bench: Bench, fused: ModuleType) -> Values:
    """E[x^2] - E[x]^2 would fail here."""
    channels = 5 if bench.toy else 70
    x = torch.randn(4, channels, 8, 9, generator=torch.Generator().manual_seed(0)).to(bench.device) + FAR
    _, variance = fused.moments(x)
    _, want = plain.moments(x.double())
    off = ((variance.double() - want).abs() / want).max().item()
    if not off <= 1e-4:
        raise Failed(f"the variance is off by {off:.3g} of itself at a mean of {FAR:g}")
    return {"variance": off}


def ties(bench: Bench, fused: ModuleType) -> Values:
    """The first of equal entries gets the gradient; NaN and infinities are passed on."""
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)).round().to(bench.device)
    x[0, 1], x[0, 2, 1, 1] = float("-inf"), float("nan")
    results = []
    for module in (fused, plain):
        leaf = x.clone().requires_grad_()
        y = module.max_pool(leaf, 3, 1)
        y.sum().backward()
        results.append((y.detach(), leaf.grad))
    for got, want in zip(*results):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    return {}


def large(bench: Bench, fused: ModuleType) -> Values:
    """Offsets near the end of what 32 bits count. On a stand-in and on a small card a smaller tensor."""
    batch = 4
    if bench.device.type == "cuda" and torch.cuda.mem_get_info(bench.device)[0] > 40 * 2**30:
        batch = 2**31 // (16 * 128 * 128) - 1  # the most images whose entries a signed 32-bit number counts
    side = 4 if bench.toy else 128
    x = torch.ones(1, 16, side, side, device=bench.device).to(memory_format=torch.channels_last).expand(batch, -1, -1, -1)
    x = x.contiguous(memory_format=torch.channels_last)
    x[-1] = 3.0
    y = fused.mix([x], [None], [torch.full((), 2.0, device=bench.device)])
    seen = (y[0].unique().tolist(), y[-1].unique().tolist())
    if seen != ([2.0], [6.0]):
        raise Failed(f"the first and the last image must hold 2 and 6, got {str(seen)[:80]}")
    return {"entries": x.numel()}
