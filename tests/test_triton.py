"""The Triton kernels against the plain path: in Triton's interpreter on a CPU (see `tests/__init__.py`), compiled on a GPU."""

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ops import kernels
from ops.kernels import Norm, plain
from ops.op import BatchNorm, Normalisation
from supernet.networks.cell import Cell
from supernet.spaces import darts
from supernet.weights import Weights

pytest.importorskip("triton", reason="the kernels need Triton (pip install .[triton])")
from ops.kernels import triton_kernels as fused  # noqa: E402
from ops.kernels.triton_kernels import batch_statistics, depthwise, layout, pool, sums, weighted_sum  # noqa: E402

pytestmark = pytest.mark.cuda
ROOT = Path(__file__).resolve().parents[1]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORWARD, BACKWARD = {torch.float32: 1e-5, torch.float64: 1e-12}, {torch.float32: 1e-4, torch.float64: 1e-11}
EPS = 1e-5


def make(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()


def near(got: Tensor, want: Tensor, tolerance: float) -> None:
    """Within `tolerance` of the largest entry of `want`."""
    assert got.shape == want.shape
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=tolerance * want.abs().max().item())


def as_double(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().double().requires_grad_(t.requires_grad) for t in tensors]


def compare(function, leaves: list[Tensor], wanted: list[bool] | None = None) -> None:
    """`function(kernels, *leaves)`, a tensor or several, and its gradients on the fused path, against the plain one in float64."""
    doubles, dtype = as_double(leaves), leaves[0].dtype
    got, want = function(fused, *leaves), function(plain, *doubles)
    got, want = ([y] if isinstance(y, Tensor) else y for y in (got, want))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype and a.is_contiguous(memory_format=torch.channels_last)
        near(a, b, FORWARD[dtype])
    out = [make(*y.shape, seed=100 + i, dtype=dtype).detach() for i, y in enumerate(want)]
    chosen = [i for i in range(len(leaves)) if wanted is None or wanted[i]]
    for a, b in zip(torch.autograd.grad(got, [leaves[i] for i in chosen], out),
                    torch.autograd.grad(want, [doubles[i] for i in chosen], [g.double() for g in out]), strict=True):
        near(a, b, BACKWARD[dtype])


def norm_of(x: Tensor, by_batch: bool, weight: Tensor | None = None, bias: Tensor | None = None) -> Norm:
    """With the moments of x, or, where they are constants, with others."""
    mean, variance = plain.moments(x)
    return Norm(mean if by_batch else mean + 0.3, (variance + EPS).rsqrt(), by_batch, weight, bias)


# ---- moments


@pytest.mark.parametrize("shape", [(2, 6, 7, 5), (1, 1, 3, 3), (3, 70, 5, 5), (2, 16, 12, 12)])
def test_moments_are_exact_also_far_from_zero(shape):
    x = make(*shape).detach() + 1000 * torch.arange(1, shape[1] + 1, device=DEVICE).view(1, -1, 1, 1)
    mean, variance = fused.moments(x)
    want_mean, want_variance = plain.moments(x.double())
    near(mean, want_mean, 1e-6)
    torch.testing.assert_close(variance.double(), want_variance, rtol=1e-4, atol=0)


def test_moments_of_several_tensors_and_of_half_precision():
    xs = [make(2, 6, 7, 5, seed=i).detach() for i in range(3)]
    for got, want in zip(fused.moments_many(xs), plain.moments_many([x.double() for x in xs])):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-6)
    half = xs[0].bfloat16()
    mean, variance = fused.moments(half)
    assert mean.dtype == variance.dtype == torch.float32
    torch.testing.assert_close(mean.double(), plain.moments(half.double())[0], rtol=0, atol=1e-6)


# ---- separable convolutions

CONVOLUTIONS = [  # size, stride, dilation, channels, outputs, height, width
    (3, 1, 1, 6, 6, 7, 5), (3, 2, 1, 5, 8, 7, 5), (3, 1, 2, 3, 4, 4, 9), (3, 2, 2, 7, 3, 5, 5),
    (5, 1, 1, 6, 2, 6, 3), (5, 2, 1, 4, 4, 7, 6), (5, 1, 2, 16, 16, 3, 3), (5, 2, 2, 6, 6, 5, 4),
]


@pytest.mark.parametrize("case, norm", [*itertools.product(CONVOLUTIONS, ["none", "by_batch"]),
                                        *itertools.product(CONVOLUTIONS[1:4], ["constant", "affine", "affine_constant"])], ids=str)
def test_separable(case, norm):
    size, stride, dilation, channels, outputs, height, width = case
    x, w = make(2, channels, height, width), make(channels, 1, size, size, seed=1)
    leaves = [x, w, make(outputs, channels, 1, 1, seed=2)]
    if "affine" in norm:
        leaves += [make(channels, seed=3), make(channels, seed=4)]

    def run(module, x, w, p, *affine):
        how = None if norm == "none" else norm_of(x, "constant" not in norm, *affine)
        return module.separable(x, w, p, stride=stride, dilation=dilation, norm=how)

    compare(run, leaves)


def test_separable_of_more_channels_than_a_tile():
    compare(lambda m, x, w, p: m.separable(x, w, p, norm=norm_of(x, True)),
            [make(1, 70, 4, 3), make(70, 1, 3, 3, seed=1), make(3, 70, 1, 1, seed=2)])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("norm", [True, False])
def test_separable_in_float64_is_exact(norm, stride):
    double = torch.float64
    leaves = [make(2, 6, 7, 5, dtype=double), make(6, 1, 5, 5, seed=1, dtype=double), make(4, 6, 1, 1, seed=2, dtype=double)]
    compare(lambda m, x, w, p: m.separable(x, w, p, stride=stride, dilation=2, norm=norm_of(x, True) if norm else None), leaves)


KINDS = [(3, 1), (3, 1), (5, 1), (3, 2)]  # size, dilation


def many_leaves(inputs: int, channels: int = 3) -> list[Tensor]:
    return [*(make(2, channels, 5, 3, seed=20 + i) for i in range(inputs)),
            *(make(channels, 1, k, k, seed=i) for i, (k, _) in enumerate(KINDS)),
            *(make(4, channels, 1, 1, seed=10 + i) for i in range(len(KINDS)))]


@pytest.mark.parametrize("shared, stride, normed", [(True, 1, False), (True, 2, True), (False, 1, True), (False, 2, False)])
def test_many_separable_convolutions_at_once(shared, stride, normed):
    """They read one tensor, or one each."""
    count = len(KINDS)

    def run(module, *tensors):
        xs, weights = tensors[: -2 * count], tensors[-2 * count:]
        norms = [norm_of(x, True) if normed else None for x in xs]
        if shared:
            xs, norms = xs * count, norms * count
        return module.separable_many(xs, weights[:count], weights[count:], stride=stride, dilations=[d for _, d in KINDS], norms=norms)

    compare(run, many_leaves(1 if shared else count))


@pytest.fixture
def launches(monkeypatch) -> Counter:
    """Counts the launches of the depthwise kernels, by name."""
    counter: Counter = Counter()

    class Counted:
        def __init__(self, name: str, kernel):
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid):
            counter[self.name] += 1
            return self.kernel[grid]

    for name in ("_forward_kernel", "_input_gradient_kernel", "_weight_gradient_kernel", "_through_statistics_kernel"):
        monkeypatch.setattr(depthwise, name, Counted(name, getattr(depthwise, name)))
    return counter


def test_many_take_as_many_launches_as_one_and_their_outputs_are_not_copied(launches, monkeypatch):
    count, x, stacks = 3, make(1, 4, 3, 3), []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda tensors, *args: stacks.append(tensors[0].shape) or stack(tensors, *args))
    weights = [[make(4, 1, 3, 3, seed=i) for i in range(count)], [make(4, 4, 1, 1, seed=i) for i in range(count)]]
    ys = fused.separable_many([x] * count, *weights, dilations=[1] * count, norms=[None] * count)
    mean, variance = fused.moments_many(ys)
    rstd = (variance + EPS).rsqrt()
    zs = fused.separable_many(ys, *weights, dilations=[1] * count, norms=[Norm(mean[m], rstd[m]) for m in range(count)])
    torch.autograd.grad(zs, [x, *itertools.chain(*weights)], [z.detach() for z in zs])
    assert set(stacks) == {torch.Size((4, 4))}  # pointwise weights alone: neither outputs, nor moments, nor gradients
    assert launches == {"_forward_kernel": 4, "_input_gradient_kernel": 2, "_weight_gradient_kernel": 2, "_through_statistics_kernel": 1}


def test_only_what_is_asked_for_is_computed(launches):
    leaves = [make(2, 6, 7, 5), make(6, 1, 3, 3, seed=1), make(4, 6, 1, 1, seed=2)]
    names = ("_forward_kernel", "_input_gradient_kernel", "_weight_gradient_kernel")
    # Of x: no convolution again, no weight gradient. Of the depthwise weights: no input gradient. Of the pointwise: the convolution again.
    for asked, counts in ((0, (1, 1, 0)), (1, (1, 0, 1)), (2, (2, 0, 0))):
        launches.clear()
        tensors = [t.detach().requires_grad_(i == asked) for i, t in enumerate(leaves)]
        fused.separable(*tensors).sum().backward()
        assert tuple(launches[name] for name in names) == counts
        assert [t.grad is not None for t in tensors] == [i == asked for i in range(3)]


def test_neither_normalised_nor_depthwise_outputs_are_kept():
    kept: list[Tensor] = []
    x, w, p = make(2, 6, 7, 5), make(6, 1, 3, 3, seed=1), make(4, 6, 1, 1, seed=2)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fused.separable(x, w, p, norm=norm_of(x, True))
    large = [t for t in kept if t.numel() >= x.numel() // 2]
    assert [t.numel() for t in large] == [x.numel()]  # x itself


# ---- mixes


def norms_of(parts: list[Tensor], affine: list[Tensor], kinds: list[str]) -> list[Norm | None]:
    return [None if kind == "none" else norm_of(part, kind != "constant", *(affine if kind == "affine" else ()))
            for part, kind in zip(parts, kinds)]


@pytest.mark.parametrize("channels", [6, 16, 70])
def test_mix(channels):
    kinds = ["by_batch", "affine", "none", "constant", "none", "by_batch"]

    def run(module, *tensors):
        parts, affine, alpha = list(tensors[:6]), list(tensors[6:8]), tensors[8]
        return module.mix(parts, norms_of(parts, affine, kinds), [alpha[0], alpha[1], alpha[2], None, None, None])

    compare(run, [*(make(2, channels, 5, 3, seed=i) for i in range(6)), make(channels, seed=10), make(channels, seed=11), make(4, seed=12)])


def test_mix_in_float64_is_exact():
    double = torch.float64
    compare(lambda m, p, q, s: m.mix([p, q, p], [norm_of(p, True), None, None], [s[0], s[1], s[2]]),
            [make(2, 6, 5, 3, dtype=double), make(2, 6, 5, 3, seed=1, dtype=double), make(3, seed=2, dtype=double)])


@pytest.mark.parametrize("asked", range(4))
def test_mix_gives_single_gradients(asked):
    """Of a part, a scale, a weight or a bias alone."""
    def run(module, p, s, weight, bias):
        return module.mix([p, p.detach() + 1], [norm_of(p, True, weight, bias), None], [s[0], s[0]])

    wanted = [i == asked for i in range(4)]
    leaves = [make(2, 6, 5, 3), make(1, seed=1), make(6, seed=2), make(6, seed=3)]
    compare(run, [leaf.detach().requires_grad_(want) for leaf, want in zip(leaves, wanted)], wanted)


def test_mix_of_more_parts_than_one_launch_takes():
    count = 19
    compare(lambda m, *t: m.mix(t[:count], [norm_of(p, True) for p in t[:count]], list(t[count].unbind())),
            [*(make(1, 3, 3, 2, seed=i) for i in range(count)), make(count, seed=50)])


def test_mix_keeps_a_part_only_where_a_gradient_reads_it():
    parts, alpha = [make(2, 6, 5, 3, seed=i) for i in range(3)], make(3)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fused.mix(parts, [None, norm_of(parts[1], False), norm_of(parts[2], True)], list(alpha.detach()))
    assert sum(t.numel() == parts[0].numel() for t in kept) == 1


def test_mix_without_parts_is_refused():
    with pytest.raises(ValueError, match="at least one part"):
        fused.mix([], [], [])


# ---- pools


@pytest.mark.parametrize("size, stride, height, width", [(3, 1, 5, 7), (3, 2, 7, 4), (5, 2, 5, 5), (2, 2, 6, 5)])
def test_max_pool(size, stride, height, width):
    compare(lambda m, x: m.max_pool(x, size, stride), [make(2, 6, height, width)])


def test_max_pool_takes_the_first_of_equal_entries_and_passes_on_what_is_not_finite():
    x = make(1, 3, 4, 4).detach().round()
    x[0, 1] = float("-inf")
    x[0, 2, 1, 1] = float("nan")
    got, want = x.clone().requires_grad_(), x.clone().requires_grad_()
    for leaf, module in ((got, fused), (want, plain)):
        module.max_pool(leaf, 3, 1).sum().backward()
    torch.testing.assert_close(fused.max_pool(x, 3, 1), plain.max_pool(x, 3, 1), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(got.grad, want.grad, rtol=0, atol=0)


# ---- all of them


def whole(module, x: Tensor, w: Tensor, p: Tensor, s: Tensor) -> Tensor:
    y = module.separable(x, w, p)
    z = module.separable(y, w, p, norm=norm_of(y, True))
    return module.mix([z, module.max_pool(x, 3, 1), x], [norm_of(z, True), norm_of(x, False), None], list(s.unbind()))


def whole_leaves() -> list[Tensor]:
    return [make(2, 4, 5, 5), make(4, 1, 3, 3, seed=1), make(4, 4, 1, 1, seed=2), make(3, seed=3)]


def test_not_a_number_is_not_hidden():
    x, w, p, s = whole_leaves()
    y = fused.separable(torch.full_like(x, float("nan")), w, p)
    assert y.isnan().all()


def test_nothing_differentiates_twice():
    leaves = whole_leaves()
    for run in (lambda x, w, p, s: fused.separable(x, w, p), lambda x, w, p, s: fused.mix([x], [None], [s[0]]),
                lambda x, w, p, s: fused.max_pool(x, 3, 1)):
        (gradient,) = torch.autograd.grad(run(*leaves).pow(2).sum(), leaves[:1], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


def test_no_step_reads_a_value():
    """A CUDA graph can hold it: nothing is asked of the device, and no shape depends on a value."""
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
            return func(*args, **(kwargs or {}))

    leaves = whole_leaves()
    mean, rstd = torch.zeros(4, device=DEVICE), torch.ones(4, device=DEVICE)
    with Watch():
        x, w, p, s = leaves
        y = fused.separable(x, w, p, norm=Norm(mean, rstd))
        fused.moments(y)
        fused.mix([fused.max_pool(y, 3, 1), y], [Norm(mean, rstd), None], [s[0], s[1]]).sum().backward()


def test_autocast_computes_in_its_type_and_sums_in_float32():
    leaves = whole_leaves()
    with torch.autocast(DEVICE, torch.bfloat16):
        y = fused.separable(*leaves[:3], norm=norm_of(leaves[0], True))
    want = plain.separable(*leaves[:3], norm=norm_of(leaves[0], True))
    assert y.dtype == torch.bfloat16
    near(y, want, 2e-2)
    g = make(*want.shape, seed=9).detach()
    for a, b in zip(torch.autograd.grad(y, leaves[:3], g.bfloat16()), torch.autograd.grad(want, leaves[:3], g)):
        assert a.dtype == torch.float32
        near(a, b, 3e-2)
    mixed = fused.mix([y, y], [None, Norm(*(torch.ones(4, device=DEVICE) for _ in range(2)))], [leaves[3][0], None])
    assert mixed.dtype == torch.bfloat16
    assert torch.autograd.grad(mixed.sum(), leaves[3])[0].dtype == torch.float32


def test_channels_of_a_larger_tensor_are_read_in_place_or_copied():
    x, w, p, _ = whole_leaves()
    wide = torch.cat([x, x + 1], 1).detach().contiguous(memory_format=torch.channels_last)
    near(fused.separable(wide[:, 4:], w, p), plain.separable(wide[:, 4:].double(), w.double(), p.double()), 1e-5)


def test_tensors_of_one_buffer_are_stacked_without_a_copy():
    buffer = torch.arange(24.0, device=DEVICE).view(3, 2, 4)
    assert layout.stacked(list(buffer)).data_ptr() == buffer.data_ptr()
    for order in itertools.permutations(range(3)):
        torch.testing.assert_close(layout.stacked([buffer[m] for m in order]), buffer[list(order)], rtol=0, atol=0)


# ---- batch norms and cells


def batch_norms(**options) -> list[BatchNorm]:
    return [BatchNorm(6, affine=False, **options).to(DEVICE) for _ in range(3)]


@pytest.mark.parametrize("count", [1, 3])
def test_batch_norms_track_several_inputs_as_one_by_one(count):
    xs = [(3 + make(2, 6, 5, 3, seed=i)).detach() for i in range(3)]
    ours, theirs = batch_norms(), batch_norms()
    if count == 1:  # met three times, moved three times
        ours, theirs = ours[:1] * 3, theirs[:1] * 3
    ours[-1].updates = theirs[-1].updates = count == 1
    for x, norm, other in zip(xs, sums.normalised(xs, ours), theirs):
        near(plain.normalised(x, norm), other(x), 1e-5)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=1e-5, atol=1e-6)


def test_batch_norms_in_evaluation_and_of_one_value():
    xs, norms = [make(2, 6, 5, 3).detach()] * 3, [n.eval() for n in batch_norms()]
    assert all(norm.by_batch is False and norm.mean is n.running_mean for norm, n in zip(sums.normalised(xs, norms), norms))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        sums.normalised([x[:1, :, :1, :1] for x in xs], batch_norms())


@pytest.fixture
def unchosen():
    """Afterwards the plain path computes again."""
    yield
    kernels.use("plain")


@pytest.fixture
def everywhere(monkeypatch, unchosen):
    """Has a module compute, Triton's on a CPU too; None for the plain path."""
    monkeypatch.setattr(fused, "computes", lambda x: x.dim() == 4 and x.stride(1) == 1)
    return lambda module: monkeypatch.setattr(kernels, "_fused", module)


SEARCH, FINAL = Normalisation(affine=False, after_pools=True), Normalisation(affine=True, after_pools=False)
SMALL = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
SMALLER = ("max_pool_3x3", "skip_connect", "dil_conv_3x3")
CELLS = {  # kind, ops, norm, training, active, drop path, partial, size
    "normal": ("normal", ("avg_pool_3x3", "sep_conv_5x5", "dil_conv_3x3"), SEARCH, True, None, 0.0, 1, 4),
    "reduction": ("reduce", SMALL, SEARCH, True, None, 0.0, 1, 5),
    "sampled": ("normal", SMALL, SEARCH, True, ((False, False, False, True, False), (False, True, False, False, False)), 0.0, 1, 4),
    "evaluation": ("normal", SMALLER, SEARCH, False, None, 0.0, 1, 4),
    "final": ("normal", SMALL[2:4], FINAL, True, None, 0.3, 1, 4),
    "partial": ("reduce", SMALLER, SEARCH, True, None, 0.0, 2, 4),
}


@pytest.mark.parametrize("case", CELLS.values(), ids=CELLS)
def test_whole_cells(everywhere, case):
    kind, ops, norm, training, active, drop, partial, size = case
    spec = darts.make(nodes=1, ops=ops).cells[kind]
    torch.manual_seed(0)
    present = tuple((True,) * len(ops) for _ in spec.edges)
    cell = Cell(spec, present, 4, norm, partial=partial).to(DEVICE, torch.float64, memory_format=torch.channels_last).train(training)
    alpha = make(len(spec.edges), len(ops), seed=5, dtype=torch.float64)
    inputs = [make(2, 4, size, size, seed=i, dtype=torch.float64).detach().contiguous(memory_format=torch.channels_last).requires_grad_()
              for i in range(2)]
    before, results = {name: t.clone() for name, t in cell.state_dict().items()}, []
    for module in (fused, None):
        everywhere(module)
        cell.load_state_dict(before)
        out = cell(inputs, Weights(alpha).scales(), active, drop, torch.Generator(DEVICE).manual_seed(0))
        g = make(*out.shape, seed=7, dtype=torch.float64).detach()
        leaves = [*inputs, alpha, *cell.parameters()]
        gradients = torch.autograd.grad(out, leaves, g, allow_unused=True, materialize_grads=True)
        results.append((out, *gradients, *(t.double() for t in cell.buffers())))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * max(theirs.abs().max().item(), 1.0))


class Counted:
    """Stands for a kernel, and counts its launches."""

    def __init__(self, counter: Counter, name: str):
        self.counter, self.name = counter, name

    def __getitem__(self, grid):
        return lambda *args, **options: self.counter.update([self.name])


def test_launches_of_a_cell_grow_with_its_nodes_and_not_with_its_edges(everywhere, monkeypatch):
    """A guard of speed: 4 nodes have 14 edges and 56 separable convolutions, 104 with those applied twice."""
    counter: Counter = Counter()
    for module in (batch_statistics, depthwise, pool, weighted_sum):
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Counted(counter, module.__name__.split(".")[-1] + name))
    spec = darts.make(nodes=4).cells["normal"]
    cell = Cell(spec, tuple((True,) * len(spec.ops) for _ in spec.edges), 4, SEARCH).to(DEVICE, memory_format=torch.channels_last)
    inputs = [make(2, 4, 4, 4, seed=i).detach().contiguous(memory_format=torch.channels_last).requires_grad_() for i in range(2)]
    alpha = make(14, 8, seed=5)
    everywhere(fused)
    out = cell(inputs, Weights(alpha).scales(), None)
    sources = 5
    assert counter == {"depthwise_forward_kernel": 2 * sources, "pool_forward_kernel": sources, "weighted_sum_forward_kernel": 8,
                       # of both stages' outputs and the two pools'
                       "batch_statistics_part_kernel": 4 * sources, "batch_statistics_merge_kernel": 4 * sources}
    counter.clear()
    torch.autograd.grad(out.sum(), [*inputs, alpha, *cell.parameters()], allow_unused=True)
    assert sum(counter.values()) == 8 * sources + 3 * 8


# ---- who computes


def test_triton_computes_on_a_gpu_alone(unchosen):
    def tensor(**changes):
        x = make(1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        usual = {"is_cuda": True, "dtype": torch.float32, "numel": x.numel, "dim": x.dim, "stride": x.stride}
        return SimpleNamespace(**usual | changes)

    assert fused.computes(tensor())
    for changes in ({"is_cuda": False}, {"dtype": torch.int64}, {"numel": lambda: 2**31}, {"stride": make(1, 3, 2, 2).stride}):
        assert not fused.computes(tensor(**changes))
    assert kernels.use("auto", device="cuda").name == "plain"  # until they have been proved on a GPU
    assert kernels.use("native", device="cuda").name == "triton"
    assert kernels.kernels_for(tensor()) is fused and kernels.kernels_for(tensor(dtype=torch.int64)) is plain
    with kernels.differentiable_twice():
        assert kernels.kernels_for(tensor()) is plain
    assert kernels.use("auto", device="xpu").name == "plain"
    assert kernels.use("auto", device="cuda", hindrance="compile=true").name == "plain"
    with pytest.raises(ValueError, match="backend=native"):
        kernels.use("native", device="xpu")
    assert kernels.kernels_for(tensor()) is plain


def test_triton_is_not_imported_without_need():
    code = "import sys, ops, supernet, ops.kernels; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-m", "tests.compiled"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) > 30
