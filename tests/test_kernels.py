"""Native kernels against the plain path, operation by operation, and whole steps against the reference."""

import os
import platform
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import counting
from ops import kernels
from ops.conv import dil_conv, sep_conv
from ops.kernels import build, differentiable_twice, native, on_plain_path, plain
from ops.kernels.plain import Norm
from ops.kernels.terms import Flow, Settled, Source, Stage, Term
from ops.op import BatchNorm, Normalisation, Op, SeparableOp
from ops.simple import Skip
from supernet.bilevel import Bilevel
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.implicit import conjugate_gradient, neumann
from supernet.hypergradients.unrolled import unrolled
from supernet.monitors.eigenvalue import dominant_eigenvalue
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts, nasbench201
from supernet.tasks.classification import Classification
from supernet.weights import EdgeWeights, Weights
from tests import backends, reference
from tests.builders import FINAL, SEARCH, random_weights
from tests.builders import build as build_net

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def backend():
    with backends.using("native"):
        yield


def image(*shape, seed=0, dtype=torch.float64):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def norm_for(channels, affine, by_batch, x):
    """A norm of `x`, and what of it has gradients."""
    mean, variance = plain.moments(x)
    if not by_batch:
        mean, variance = mean + 0.1, variance * 1.3
    draw = lambda seed: torch.randn(channels, generator=torch.Generator().manual_seed(seed), dtype=x.dtype).requires_grad_()
    own = [draw(1), draw(2)] if affine else []
    return Norm(mean, (variance + 1e-5).rsqrt(), by_batch, *own), own


def agree(call, inputs, forward=1e-9, backward=1e-9, exact=None):
    """`call(module, inputs)` on both paths, and its gradients. exact: converts the inputs for the plain path."""
    outs, grads = [], []
    for module in (native, plain):
        own = [t if t is None else t.detach().to(exact or t.dtype) if module is plain else t.detach() for t in inputs]
        own = [t if t is None else t.clone(memory_format=torch.preserve_format).requires_grad_() for t in own]
        out = call(module, own)
        seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(out.dtype)
        used = [t for t in own if t is not None]
        outs.append(out.detach()), grads.append(torch.autograd.grad(out, used, seed))
    reference.close(outs[0].double(), outs[1].double(), forward)
    for a, b in zip(*grads, strict=True):
        reference.close(a.double(), b.double(), backward)


SEPARABLE = [(c, out, k, s, d) for c, out in ((1, 1), (3, 8), (8, 8), (16, 16), (36, 36), (64, 16)) for k in (3, 5, 7)
             for s in (1, 2) for d in (1, 2) if c <= 16 or k == 3]


@pytest.mark.parametrize("channels, out, size, stride, dilation", SEPARABLE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_separable(channels, out, size, stride, dilation, dtype):
    x = image(2, channels, 9, 6, dtype=dtype)
    depthwise, pointwise = image(channels, 1, size, size, seed=1, dtype=dtype), image(out, channels, 1, 1, seed=2, dtype=dtype)
    options = {"stride": stride, "dilation": dilation}
    single = dtype == torch.float32
    agree(lambda module, t: module.separable(*t, **options), [x, depthwise, pointwise], *((1e-5, 1e-4) if single else ()),
          exact=torch.float64 if single else None)


@pytest.mark.parametrize("size, stride, dilation", [(3, 1, 1), (5, 1, 2), (3, 2, 1), (5, 2, 2), (3, 3, 1), (7, 3, 2)])
@pytest.mark.parametrize("sides", [(9, 31), (16, 24), (5, 1), (1, 40)])
def test_separable_of_long_and_short_rows(size, stride, dilation, sides):
    x, depthwise, pointwise = image(2, 20, *sides), image(20, 1, size, size, seed=1), image(36, 20, 1, 1, seed=2)
    agree(lambda module, t: module.separable(*t, stride=stride, dilation=dilation), [x, depthwise, pointwise])


@pytest.mark.parametrize("channels", [3, 16])
def test_max_pooling_of_what_is_not_finite(channels):
    x = image(2, channels, 7, 9)
    x[0, :, 2, 3], x[1, :, 4, :] = float("nan"), -float("inf")
    x[1, :, 5:, :] = -float("inf")  # a window of nothing else
    agree(lambda module, t: module.max_pool(t[0], 3, 2).nan_to_num(nan=7.0, neginf=-9.0), [x])


def dense(module, x, weight, norm, dilation=1):
    if module is native:
        return native.mix_terms([(Term(Flow(x), (Stage(None, weight, 1, dilation, norm and Settled(norm)),)), None, None)])
    return F.conv2d(F.relu(x if norm is None else plain.normalised(x, norm)), weight, None, 1, dilation * (weight.shape[-1] // 2), dilation)


@pytest.mark.parametrize("channels, out", [(1, 1), (3, 8), (8, 8), (16, 16), (20, 36), (32, 32), (64, 16)])
@pytest.mark.parametrize("size, dilation", [(3, 1), (5, 1), (3, 2), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dense_convolutions(channels, out, size, dilation, dtype):
    single = dtype == torch.float32
    weight = image(out, channels, size, size, seed=2, dtype=dtype)
    agree(lambda module, t: dense(module, *t, None, dilation), [image(2, channels, 9, 13, dtype=dtype), weight],
          *((1e-5, 1e-4) if single else ()), exact=torch.float64 if single else None)


TILED = [(1, 1), (1, 9), (6, 1), (2, 2), (3, 3), (4, 4), (5, 6), (8, 8), (9, 12), (4, 17), (7, 18), (16, 15)]


@pytest.mark.parametrize("channels, out", [(3, 5), (4, 8), (16, 16), (20, 36)])
@pytest.mark.parametrize("height, width", TILED)
def test_dense_convolutions_of_images_that_tiles_of_outputs_fill_or_do_not(height, width, channels, out):
    """Convolutions of 3x3 are computed by tiles of 2x2 or 2x4 outputs; here of one image, alone and beside one that reads farther."""
    for dtype in (torch.float64, torch.float32):
        bounds = (1e-5, 1e-4) if dtype == torch.float32 else ()
        draw = lambda size, seed: image(out, channels, size, size, seed=seed, dtype=dtype)
        x = image(1, channels, height, width, dtype=dtype)
        agree(lambda module, t: dense(module, *t, None), [x, draw(3, 2)], *bounds, exact=torch.float64)

    def both(module, t):
        if module is native:
            stages = Stage(None, t[1]), Stage(None, t[2], 1, 2)
            return native.mix_terms([(Term(Flow(t[0]), (stage,)), None, None) for stage in stages])
        return dense(module, *t[:2], None) + dense(module, t[0], t[2], None, 2)

    agree(both, [x.double(), draw(3, 2).double(), draw(5, 3).double()])


def test_a_dense_convolution_of_so_many_channels_that_the_gradients_of_its_weights_are_summed_the_direct_way():
    draw = lambda seed: image(416, 416, 3, 3, seed=seed)
    agree(lambda module, t: dense(module, *t, None), [image(1, 416, 5, 4), draw(1)])


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("channels", [8, 16, 32])
def test_tiles_of_outputs_lose_little_of_single_precision(channels, size):
    """The error against float64 is one to two times that of oneDNN's convolutions, median over seeds; elsewhere theirs may be less."""
    ratios = []
    for seed in range(5):
        x, weight = image(8, channels, size, size, seed=seed), image(channels, channels, 3, 3, seed=seed + 5)
        results = []
        for module, dtype in ((plain, torch.float64), (native, torch.float32), (plain, torch.float32)):
            own = [t.to(dtype).requires_grad_() for t in (x, weight)]
            out = dense(module, *own, None)
            results.append([out, *torch.autograd.grad(out, own, image(8, channels, size, size, seed=seed + 10, dtype=dtype))])
        errors = [[(a.detach().double() - b.detach()).norm().item() for a, b in zip(single, results[0])] for single in results[1:]]
        ratios.append([ours / theirs for ours, theirs in zip(*errors)])
    assert all(sorted(of)[2] < 2.5 for of in zip(*ratios)), ratios


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_only_outputs_close_by(wrong):
    x, weight = image(2, 16, 12, 16), image(16, 16, 3, 3, seed=1)
    x[0, 3, 0, 0] = wrong
    out, clean = dense(native, x, weight, None), dense(plain, x, weight, None)
    assert not out[0, :, :2, :2].isfinite().any()
    for part in (lambda t: t[1], lambda t: t[0, :, 2:], lambda t: t[0, :, :, 4:]):
        reference.close(part(out), part(clean), 1e-9)


@pytest.mark.parametrize("height, width", [(5, 7), (9, 14)])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("by_batch", [False, True])
def test_a_dense_convolution_of_a_normalised_input_by_a_weight_in_either_layout_and_two_threads(by_batch, affine, height, width):
    x, before = image(3, 20, height, width), torch.get_num_threads()
    norm, own = norm_for(20, affine, by_batch, x)
    for layout in (torch.contiguous_format, torch.channels_last):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            try:
                agree(lambda module, t: dense(module, *t[:2], norm._replace(**dict(zip(("weight", "bias"), t[2:])))),
                      [x, image(12, 20, 3, 3, seed=1).contiguous(memory_format=layout), *own])
            finally:
                torch.set_num_threads(before)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("by_batch", [False, True])
@pytest.mark.parametrize("channels", [3, 16])
def test_separable_of_a_normalised_input(channels, by_batch, affine):
    x = image(3, channels, 5, 7)
    norm, own = norm_for(channels, affine, by_batch, x)
    agree(lambda module, t: module.separable(*t[:3], norm=norm._replace(**dict(zip(("weight", "bias"), t[3:])))),
          [x, image(channels, 1, 3, 3, seed=1), image(channels, channels, 1, 1, seed=2), *own])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("channels", [1, 3, 16, 36])
@pytest.mark.parametrize("number", [1, 2, 7])
def test_mix(number, channels, dtype):
    parts = [image(3, channels, 4, 5, seed=n, dtype=dtype) * (n + 1) + n for n in range(number)]
    kinds = [None, (False, True), (True, True), (True, False), (False, False)]
    norms = [kinds[n % 5] and norm_for(channels, *kinds[n % 5], parts[n]) for n in range(number)]
    scales = [None if n % 3 == 2 else torch.tensor(0.3 + n, dtype=dtype) for n in range(number)]
    own = [t for norm in norms if norm for t in norm[1]]

    def call(module, tensors):
        rest = iter(tensors[2 * number:])
        made = [norm and Norm(*(t.to(tensors[0].dtype) for t in norm[0][:2]), norm[0].by_batch, *(next(rest) for _ in norm[1]))
                for norm in norms]
        if tensors[0].dtype == torch.float64 and dtype == torch.float32:  # the exact moments of the same numbers
            made = [m and (m._replace(**dict(zip(("mean", "rstd"), exact(p)))) if m.by_batch else m) for m, p in zip(made, tensors)]
        return module.mix(tensors[:number], made, tensors[number: 2 * number])

    def exact(part):
        mean, variance = plain.moments(part)
        return mean, (variance + 1e-5).rsqrt()

    single = dtype == torch.float32
    agree(call, [*parts, *scales, *own], *((1e-5, 1e-4) if single else ()), exact=torch.float64 if single else None)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2), (5, 1), (7, 2), (3, 5), (1, 3)])
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 36])
def test_pools(op, size, stride, channels):
    x = image(2, channels, 7, 10)
    agree(lambda module, t: getattr(module, op)(t[0], size, stride), [x])
    agree(lambda module, t: getattr(module, op)(t[0], size, stride), [x.round()])  # many equal entries: the first wins
    agree(lambda module, t: getattr(module, op)(t[0], size, stride), [x.float()], 1e-6, 1e-6, torch.float64)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_moments_keep_their_precision(offset):
    x = image(5, 19, 13, 7) + offset
    for a, b in zip(native.moments(x.float()), plain.moments(x.float().double())):
        reference.close(a.double(), b, 1e-5)
    for a, b in zip(native.moments(x), plain.moments(x)):
        reference.close(a, b, 1e-9)


def test_a_first_row_unlike_the_others_costs_no_precision():
    x = image(2, 16, 32, 32) + 100
    x[:, :, 0] = 0
    for a, b in zip(native.moments(x.float()), plain.moments(x.float().double())):
        reference.close(a.double(), b, 1e-5)


def test_tensors_that_are_parts_of_others_and_other_layouts():
    whole = image(2, 24, 6, 6)
    weights = image(8, 1, 3, 3, seed=1), image(8, 8, 1, 1, seed=2)
    for x in (whole[:, :8], whole[:, 8:16], whole.contiguous()[:, 3:11], whole[:, :8, 1:, ::2], whole[:1, :8].expand(3, -1, -1, -1)):
        for call in (lambda m, x: m.separable(x, *weights), lambda m, x: m.mix([x, x], [None, None], [None, None]),
                     lambda m, x: m.max_pool(x, 3, 2), lambda m, x: m.avg_pool(x, 3, 1)):
            results = []
            for module in (native, plain):
                leaf = x.detach().requires_grad_()
                out = call(module, leaf)
                seed = image(*out.shape, seed=3).contiguous()  # a gradient in another layout than the output
                results.append((out, *torch.autograd.grad(out, leaf, seed)))
            for a, b in zip(*results):
                reference.close(a, b, 1e-12)


def test_gradcheck():
    x = image(2, 3, 4, 5).requires_grad_()
    depthwise, pointwise = image(3, 1, 3, 3, seed=1).requires_grad_(), image(4, 3, 1, 1, seed=2).requires_grad_()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    norms = [BatchNorm(c, affine=True).double() for c in (3, 4)]

    def whole(x, depthwise, pointwise, scale, *affine):
        stages = (Stage(depthwise, pointwise[:3]), Stage(None, pointwise, norm=norms[0]))
        short = (Stage(depthwise, pointwise),)
        return native.mix_terms([(Term(Flow(x), stages, norms[1]), scale, None), (Term(Flow(x), short), None, None)])

    affine = [p for norm in norms for p in norm.parameters()]
    assert torch.autograd.gradcheck(whole, (x, depthwise, pointwise, scale, *affine))


def test_saved_tensors_may_be_moved():
    """As activation checkpointing and offloading do; here into other memory and another layout, the first copies overwritten."""

    def pack(t):
        moved = t.detach().contiguous().clone()
        return moved, t.requires_grad

    net = build_net(darts.make(nodes=2), layers=3, norm=FINAL).to(memory_format=torch.channels_last)
    x, grads = image(4, 3, 8, 8), []
    for moves in (False, True):
        with torch.autograd.graph.saved_tensors_hooks(pack if moves else lambda t: (t, None), lambda packed: packed[0]):
            out = net(x)
        filler = [torch.full((4, 4, 8, 8), float("nan"), dtype=torch.float64) for _ in range(300)]  # what was freed is used again
        grads.append(torch.autograd.grad(out.square().sum(), list(net.parameters())))
        del filler
    for a, b in zip(*grads, strict=True):
        reference.close(a, b, 1e-12)


def test_a_second_derivative_is_refused_and_not_wrong():
    x = image(2, 3, 4, 4).requires_grad_()
    (g,) = torch.autograd.grad(native.separable(x, image(3, 1, 3, 3), image(3, 3, 1, 1)).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_the_value_of_a_single_separable_convolution_is_not_kept():
    """It is computed again on the way back; of two in a row both outputs are kept."""
    x, kept = image(4, 16, 8, 8).requires_grad_(), {}
    for make in (dil_conv, sep_conv):
        op = make(3, 16, 1, SEARCH).double().to(memory_format=torch.channels_last)
        kept[make] = counting.saved_bytes(lambda op=op: op(x).sum().backward(), counting.addresses([x, *op.parameters()])) / x.nbytes
    assert kept[dil_conv] < 0.1 and 2 <= kept[sep_conv] < 2.1


@pytest.mark.parametrize("order", ["skip first", "skip last"])
def test_gradients_that_others_hold_too_are_not_written_to(order):
    """Of a sum of convolutions and a skip connection that stands alone, from one node: autograd hands the same tensor to all that is added,
    and the caller keeps those that he gives."""
    x, weight, other = image(4, 16, 8, 8), image(4, 16, 8, 8, seed=1), image(4, 16, 8, 8, seed=2)
    convolution, found = conv(), []
    for module in (native, plain):
        leaf, z = (t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, other))
        source, totals = Source(leaf * 1), {}
        for op in (Skip(), convolution) if order == "skip first" else (convolution, Skip()):
            own = module.Sum()
            own.add(op, source)
            totals[type(op)] = own.total()
        skip, convolved = totals[Skip], totals[type(convolution)]
        added = torch.autograd.grad((convolved * weight).sum() + ((skip + z * 1) * weight).sum(), [leaf, z], retain_graph=True)
        given = [torch.ones_like(skip) for _ in range(2)]
        found.append([*added, *torch.autograd.grad([convolved, skip], [leaf], given)])
        assert all(torch.equal(g, torch.ones_like(g)) for g in given)
    for a, b in zip(*found):
        reference.close(a, b, 1e-9)


def test_gradients_are_only_computed_where_they_are_asked_for():
    x, depthwise, pointwise = image(2, 16, 8, 8), image(16, 1, 3, 3).requires_grad_(), image(16, 16, 1, 1)
    whole = lambda *t: torch.autograd.grad(native.separable(*t).square().sum(), [v for v in t if v.requires_grad])
    (alone,) = whole(x, depthwise, pointwise)
    every = whole(x.clone().requires_grad_(), depthwise, pointwise.clone().requires_grad_())
    assert torch.equal(alone, every[1])


def test_what_is_not_for_the_kernels_goes_the_plain_way():
    x = image(2, 4, 3, 3)
    assert kernels.kernels_for(x) is native
    for other in (x.contiguous(), x.half(), x[:0], x[0]):
        assert kernels.kernels_for(other) is plain
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.kernels_for(x) is plain
    for context in (on_plain_path, differentiable_twice):
        with context():
            assert kernels.kernels_for(x) is plain
    assert kernels.kernels_for(x) is native
    kernels.use("plain")
    assert kernels.kernels_for(x) is plain


def test_other_threads_compute_by_the_same_backend():
    """A context that takes the plain path is the thread's own."""
    x = image(2, 4, 3, 3)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(kernels.kernels_for, x).result() is native
        with on_plain_path():
            assert pool.submit(kernels.kernels_for, x).result() is native
        kernels.use("plain")
        assert pool.submit(kernels.kernels_for, x).result() is plain


def test_one_value_a_channel_cannot_be_normalised():
    net = build_net(darts.make(nodes=1), layers=1).to(memory_format=torch.channels_last)
    for choice in ("plain", "native"):
        kernels.use(choice)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            net(image(1, 3, 1, 1))


class Gate(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


class Cut(nn.Module):
    def __init__(self, cut):
        super().__init__()
        self.forward = cut


def conv(channels=16, dtype=torch.float64, **norms):
    """A separable convolution with other norms than its own."""
    op = sep_conv(3, channels, 1, Normalisation(True, False)).to(dtype)
    for name, norm in norms.items():
        setattr(op.body if name == "norm1" else op, name, norm.to(dtype))
    return op


def with_running_mean(running_mean):
    norm = BatchNorm(16, affine=False)
    norm.running_mean = running_mean
    return conv(norm=norm)


WRONG = {
    "one pixel": ("have one shape", lambda: [conv(), Op(Gate())]),
    "other channels": ("have one shape", lambda: [conv(), Op(Cut(lambda x: x[:, :8]))]),
    "other size": ("have one shape", lambda: [Op(Cut(lambda x: x[:, :, 1:, 1:])), conv()]),
    "three dimensions": ("need a tensor|have one shape", lambda: [conv(), Op(Cut(lambda x: x[0]))]),
    "values of another type": ("one type|have one shape", lambda: [conv(), Op(Cut(lambda x: x[:, :, :1].float()))]),
    "weights of another type": ("one type", lambda: [conv(dtype=torch.float32)]),
    "weights of other channels": ("depthwise weight", lambda: [conv(8)]),
    "norm of other channels": ("norm of 16 channels", lambda: [conv(norm=BatchNorm(8, affine=True))]),
    "inner norm of other channels": ("norm of 16 channels", lambda: [conv(norm1=BatchNorm(64, affine=False))]),
    "running mean too short": ("norm of 16 channels", lambda: [with_running_mean(torch.zeros(4))]),
    "norm of a value": ("norm of 16 channels", lambda: [Op(norm=BatchNorm(8, affine=False).double())]),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", WRONG)
def test_ops_that_do_not_fit_are_refused(case, training):
    """By a line that says what was expected, where the library would read or write beside its tensors; PyTorch refuses them as well."""
    message, make = WRONG[case]
    source = image(4, 16, 8, 8)
    for module in (native, plain):
        own, read = module.Sum(), Source(source)
        with pytest.raises(ValueError if module is native else (ValueError, RuntimeError), match=message if module is native else None):
            for op in make():
                own.add(op.train(training), read)
            own.total()


@pytest.mark.parametrize("what", ["scale", "factor"])
def test_scales_and_factors_that_do_not_fit_are_refused(what):
    for wrong in (torch.ones(3).double(), torch.ones(4, 1, 1, 1)):
        with pytest.raises(ValueError, match="one number|one type|a factor must be"):
            own = native.Sum()
            own.add(conv(), Source(image(4, 16, 8, 8)), **{what: wrong})
            own.total()


def test_running_statistics_that_are_parts_of_others_are_refused_and_not_written_beside():
    op, buffer = conv(), torch.zeros(32, dtype=torch.float64)
    op.norm.running_mean = buffer[::2]
    with pytest.raises(ValueError, match="contiguous"):
        own = native.Sum()
        own.add(op, Source(image(4, 16, 8, 8)))
        own.total()
    assert buffer.abs().max() == 0


def test_weights_and_images_that_do_not_fit_are_refused_by_single_operations():
    x, depthwise, pointwise = image(2, 4, 6, 6), image(4, 1, 3, 3), image(8, 4, 1, 1)
    for wrong in ((depthwise[:3], pointwise), (depthwise[:, :, :2, :2], pointwise), (depthwise[..., :1], pointwise),
                  (depthwise, pointwise[:, :2])):
        with pytest.raises(ValueError, match="weight for 4 channels must be"):
            native.separable(x, *wrong)
    for call in (lambda t: native.max_pool(t, 3, 1), lambda t: native.avg_pool(t, 3, 1), native.moments):
        for wrong in (x.half(), x[0]):
            with pytest.raises(ValueError, match="native kernels need a tensor"):
                call(wrong)


# ---- whole networks


def steps(space, candidates, weights, backend, *, dtype=torch.float64, momentum_steps=3, channels=4, size=8, partial=1, norm=SEARCH,
          seed=0):
    """Losses, alphas' gradients and the weights after three steps of SGD with momentum; the running statistics."""
    kernels.use(backend)
    net = build_net(space, candidates, layers=3, channels=channels, norm=norm, seed=seed, partial=partial).to(dtype).to(
        memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=3e-4)
    found = []
    for step in range(momentum_steps):
        x, y = image(4, 3, size, size, seed=step, dtype=dtype), torch.arange(4) % 5
        for w in [] if weights is None else weights.values():
            w.ops.grad = None
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x, weights, generator=torch.Generator().manual_seed(step)), y)
        loss.backward()
        optimizer.step()
        found += [loss.detach(), *(w.ops.grad.clone() for w in ([] if weights is None else weights.values()))]
    return found + [p.detach() for p in net.parameters()] + [b for b in net.buffers()]


def pruned(space):
    """Every edge with some of its ops."""
    rng = random.Random(0)
    return {kind: tuple(tuple(rng.random() < 0.6 for _ in spec.ops) for _ in spec.edges) for kind, spec in space.cells.items()}


@pytest.mark.parametrize("case", ["softmax", "sampled", "partial", "pruned", "final", "dense"])
def test_three_steps_equal_the_plain_path(case):
    space = nasbench201.make() if case == "dense" else darts.make(nodes=3)
    candidates = pruned(space) if case == "pruned" else space.candidates(space.sample(random.Random(1)) if case == "final" else None)
    weights = None if case == "final" else random_weights(space, active=case == "sampled")
    results = [steps(space, candidates, weights, backend, partial=2 if case == "partial" else 1, norm=FINAL if case == "final" else SEARCH)
               for backend in ("native", "plain")]
    for a, b in zip(*results, strict=True):
        # a running mean may be 0 but for rounding
        assert (a - b).abs().max() <= 1e-9 * max(b.abs().max().item(), 1e-6)


@pytest.mark.parametrize("make", [darts.make, nasbench201.make])
def test_undrawn_ops_have_no_gradient_and_frozen_ones_keep_their_bits(make):
    """Draws as GDAS makes them, one op an edge, another set at every step, and ops that are frozen in the middle (OLES), under momentum and
    weight decay: what has no gradient must not move by a bit, and what the others do must not depend on it."""
    space, found = make(), {}
    for freezes in (False, True):
        net = build_net(space, layers=3, channels=4, norm=SEARCH, seed=0).to(torch.float32).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=3e-4)
        relaxation = GumbelHard(space, torch.Generator().manual_seed(1))
        generator, frozen, kept = torch.Generator().manual_seed(2), {}, {}
        for step in range(6):
            if step == 3 and freezes:
                for name, op in net.named_modules():
                    if type(op) is SeparableOp and "edges" in name and "0-" in name:
                        op.requires_grad_(False)
                        frozen |= {f"{name}.{own}": p for own, p in op.named_parameters()}
                kept = {name: p.detach().clone() for name, p in frozen.items()}
                assert kept
            weights = relaxation.weights(relaxation.noise(generator))
            before = {name: p.detach().clone() for name, p in net.named_parameters()}
            optimizer.zero_grad()
            loss = F.cross_entropy(net(image(4, 3, 8, 8, seed=step, dtype=torch.float32), weights), torch.arange(4) % 5)
            loss.backward()
            optimizer.step()
            still = {name for name, p in net.named_parameters() if p.grad is None}
            assert still and set(frozen) <= still
            assert all(torch.equal(before[name], p.detach()) for name, p in net.named_parameters() if name in still)
            found.setdefault(step, []).append((loss.detach(), still))
        assert all(torch.equal(kept[name], p.detach()) for name, p in frozen.items())
    for step in range(3):
        assert torch.equal(found[step][0][0], found[step][1][0]) and found[step][0][1] == found[step][1][1]
    assert torch.equal(found[3][0][0], found[3][1][0]) and found[3][0][1] < found[3][1][1]


@pytest.mark.parametrize("drop", ["path", "skips"])
def test_dropped_paths_and_skips_draw_the_same(drop):
    space = darts.make(nodes=2)
    results = []
    for backend in ("native", "plain"):
        kernels.use(backend)
        net = build_net(space, layers=3).to(memory_format=torch.channels_last)
        if drop == "path":
            net.drop_path_prob = 0.4
        for cell in net.cells:
            cell.mixed.skip_dropout = 0.4 if drop == "skips" else 0.0
        weights = random_weights(space)
        out = net(image(4, 3, 8, 8), weights, generator=torch.Generator().manual_seed(0))
        inputs = [w.ops for w in weights.values()] + list(net.parameters())
        results.append((out, *torch.autograd.grad(out.square().sum(), inputs, allow_unused=True, materialize_grads=True)))
    for a, b in zip(*results, strict=True):
        reference.close(a, b, 1e-9)


def test_statistics_are_tracked_once_held_still_and_by_batch():
    space = darts.make(nodes=2)
    x, found = image(4, 3, 8, 8), []
    for backend in ("native", "plain"):
        kernels.use(backend)
        net = build_net(space, layers=3).to(memory_format=torch.channels_last)
        norms = [m for m in net.modules() if type(m) is BatchNorm]
        net(x)
        once = [b.clone() for b in net.buffers()]
        for norm in norms:
            norm.updates = False
        net(x * 2)
        assert all(torch.equal(a, b) for a, b in zip(once, net.buffers()))
        net.eval()
        for norm in norms:
            norm.by_batch = True
        by_batch = net(x)
        assert all(torch.equal(a, b) for a, b in zip(once, net.buffers()))
        for norm in norms:
            norm.by_batch = False
        found.append([*once, by_batch, net(x)])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(b.abs().max().item(), 1e-6)


@pytest.mark.parametrize("made", ["darts", "nasbench201"])
def test_single_precision_is_as_exact_as_the_plain_path(made):
    """The whole network's error against float64 is at most twice that of the edge-by-edge reference, median over seeds."""
    space, ratios = darts.make(nodes=2) if made == "darts" else nasbench201.make(), []

    def obvious(net):
        if made == "darts":
            return reference.like(net, space.cells, space.candidates(), 16, 5)
        return reference.residual_like(net, space.cells["cell"], space.candidates()["cell"], 3, 16, 5)

    for seed in range(5):
        weights = {k: w.ops.detach() for k, w in random_weights(space, seed).items()}
        x, y = image(8, 3, 12, 12, seed=seed), torch.arange(8) % 5
        exact = build_net(space, channels=16, layers=3, seed=seed)
        ref = obvious(exact)
        nets = {"exact": (ref, torch.float64), "native": (build_net(space, channels=16, layers=3, seed=seed), torch.float32)}
        nets["plain"] = (obvious(exact), torch.float32)
        grads = {}
        for name, (net, dtype) in nets.items():
            net = net.to(dtype)
            if name == "native":
                net = net.to(memory_format=torch.channels_last)
            own = EdgeWeights({k: Weights(w.to(dtype).requires_grad_()) for k, w in weights.items()})
            batch = x.to(dtype)
            loss = F.cross_entropy(net(batch, own), y)
            grads[name] = torch.cat([g.double().flatten() for g in torch.autograd.grad(loss, [w.ops for w in own.values()])])
        error = {name: (grads[name] - grads["exact"]).norm().item() for name in ("native", "plain")}
        ratios.append(error["native"] / max(error["plain"], 1e-7 * grads["exact"].norm().item()))
    assert sorted(ratios)[2] < 2, ratios


def test_the_same_bits_again_and_with_two_threads_the_same_numbers():
    space, before = darts.make(nodes=2), torch.get_num_threads()
    weights = random_weights(space)
    single = EdgeWeights({k: Weights(w.ops.detach().float().requires_grad_()) for k, w in weights.items()})
    run = lambda: steps(space, None, single, "native", dtype=torch.float32, momentum_steps=1, size=10)
    try:
        results = []
        for threads in (1, 1, 2, 2):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1]))
    assert all(torch.equal(a, b) for a, b in zip(results[2], results[3]))
    for a, b in zip(results[0], results[2]):
        reference.close(a, b, 1e-4)


OTHER_PROCESSORS = """
import signal
import subprocess
import sys
import time
import torch
from ops import kernels
from ops.kernels import build, native, plain
build.TRIES = (tuple(sys.argv[1:]),)
kernels.use("native")
from ops.kernels.terms import Flow, Stage, Term
def dense(module, x, weight):
    if module is plain:
        return torch.nn.functional.conv2d(x.relu(), weight, None, 1, 1)
    return native.mix_terms([(Term(Flow(x), (Stage(None, weight),)), None, None)])
for channels in (1, 4, 5, 16, 20, 33):
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    inputs = draw(3, channels, 9, 11), draw(channels, 1, 5, 5), draw(channels, channels, 1, 1), draw(channels, channels, 3, 3)
    found = []
    for module, dtype in ((plain, torch.float64), (native, torch.float64), (native, torch.float32)):
        of = [t.detach().to(dtype).requires_grad_() for t in inputs]
        y = module.separable(*of[:3]) + dense(module, of[0], of[3])
        mean, variance = module.moments(y)
        y = module.mix([y, of[0]], [plain.Norm(mean, (variance + 1e-5).rsqrt()), None], [None, None]) + y
        pooled = module.max_pool(of[0], 3, 1) + module.avg_pool(of[0], 3, 1)
        found.append((y, pooled, *torch.autograd.grad(y.square().sum() + pooled.square().sum(), of)))
    for exact, same, low in zip(*found, strict=True):
        assert (same - exact).abs().max() <= 1e-9 * exact.abs().max(), (channels, same.shape)
        assert (low - exact).abs().max() <= 1e-4 * exact.abs().max(), (channels, same.shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the options are those of x86 processors")
@pytest.mark.parametrize("options", [("-march=native", "-mno-avx512f"), ("-march=native", "-mno-avx2"), ("-march=x86-64",)])
def test_processors_with_narrower_vectors_compute_the_same(options, tmp_path):
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESSORS, *options], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr


FEWER_THREADS = """
import torch
from ops import kernels
from ops.kernels import native, plain
kernels.use("native")
torch.set_num_threads(2)
draw = lambda *shape: torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
x, depthwise, pointwise = draw(5, 16, 8, 8), draw(16, 1, 3, 3), draw(16, 16, 1, 1)
found = []
for module in (native, plain):
    own = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, depthwise, pointwise)]
    parts = [module.separable(*own), module.max_pool(own[0], 3, 1), module.avg_pool(own[0], 3, 1)]
    mean, variance = module.moments(own[0])
    norms = [None, None, plain.Norm(mean, (variance + 1e-5).rsqrt())]
    out = module.mix([*parts[:2], own[0]], norms, [None] * 3) + parts[2]
    found.append([mean, variance, out, *torch.autograd.grad(out.square().sum(), own)])
print(max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*found)))
"""


@pytest.mark.parametrize("limit", [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}])
def test_nothing_is_left_out_where_fewer_threads_are_granted_than_asked_for(limit):
    done = subprocess.run([sys.executable, "-c", FEWER_THREADS], cwd=ROOT, env=os.environ | limit | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-9


SECOND_ORDER = {"first_order": first_order, "finite_difference": finite_difference, "unrolled": unrolled, "neumann": neumann,
                "conjugate_gradient": conjugate_gradient}


def search(space, hypergradient=first_order):
    net = build_net(space, layers=3).to(memory_format=torch.channels_last)
    relaxation = Softmax(space, torch.Generator().manual_seed(0)).double()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    return Bilevel(net, relaxation, hypergradient, Classification(), sgd, torch.optim.Adam(relaxation.parameters(), lr=1e-3),
                   {"alpha": torch.Generator(), "net": torch.Generator()}, clip_norm=5.0)


def batches(number):
    return [(image(4, 3, 8, 8, seed=n), (torch.arange(4) + n) % 5) for n in range(number)]


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_hypergradients_lose_no_term(name):
    """What differentiates twice leaves the kernels by itself; after a weight step, so that momentum takes part."""
    found = []
    for backend in ("native", "plain"):
        kernels.use(backend)
        own = search(darts.make(nodes=2))
        first, second, third = batches(3)
        own.w_step(first)
        found.append(SECOND_ORDER[name](own.problem(second, third)))
    for a, b in zip(*found, strict=True):
        assert b.abs().max() > 0
        reference.close(a, b, 1e-6 if name == "finite_difference" else 1e-9)


def test_the_second_order_term_is_there():
    """The exact second order differs from the first, under the native backend."""
    own, (first, second) = search(darts.make(nodes=2)), batches(2)
    a, b = (torch.cat([g.flatten() for g in SECOND_ORDER[name](own.problem(first, second))]) for name in ("first_order", "unrolled"))
    assert (a - b).norm() > 1e-3 * a.norm()


def test_the_eigenvalue_monitor_loses_no_term():
    values = []
    for backend in ("native", "plain"):
        kernels.use(backend)
        values.append(dominant_eigenvalue(search(darts.make(nodes=2)), batches(1)[0], iterations=4).value)
    assert values[1] != 0 and values[0] == pytest.approx(values[1], rel=1e-9)


# ---- cost, without a clock


class Counted(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def cost(backend, needs):
    """Kernels dispatched by a forward and backward pass, and bytes that it saves for the backward in units of one image tensor."""
    kernels.use(backend)
    space = darts.make(nodes=2)
    net = build_net(space, layers=3, channels=16).float().to(memory_format=torch.channels_last)
    net.requires_grad_(needs == "w")
    weights = EdgeWeights({k: Weights(w.ops.detach().float().requires_grad_(needs == "alpha")) for k, w in random_weights(space).items()})
    x = image(4, 3, 16, 16, dtype=torch.float32)
    saved: dict[int, int] = {}

    def keep(t):
        saved[t.untyped_storage()._cdata] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = net(x, weights)
    held = sum(saved.values())
    with Counted() as counted:
        net(x, weights)
        out.square().sum().backward()
    return counted.number, held / (4 * 16 * 16 * 16 * 4)


@pytest.mark.parametrize("needs, kernels_at_most, images_at_most", [("w", 1850, 120), ("alpha", 1300, 108)])
def test_a_step_stays_cheap(needs, kernels_at_most, images_at_most):
    own, other = cost("native", needs), cost("plain", needs)
    assert own[0] <= kernels_at_most and own[1] <= images_at_most, own
    assert own[0] < other[0] and own[1] < 0.8 * other[1], (own, other)


# ---- building


@pytest.mark.slow  # it compiles, twice
def test_several_processes_build_at_once(tmp_path):
    code = "from ops import kernels; import torch; print(kernels.use('native').name)"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with ThreadPoolExecutor(2) as pool:
        run = lambda _: subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        done = list(pool.map(run, range(2)))
    assert [d.stdout.strip() for d in done] == ["native", "native"], done
    assert sorted(kept.suffix for kept in (tmp_path / "supernet").iterdir()) == [".lock", ".so"]


def test_without_a_compiler_the_plain_path_computes_and_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.library.cache_clear(), build._library.cache_clear()
    try:
        chosen = kernels.use("auto")
        assert chosen.name == "plain" and "no C++ compiler is here (no-such-compiler)" in chosen.line
        assert kernels.kernels_for(image(2, 4, 3, 3)) is plain
        with pytest.raises(ValueError, match="backend=native: there are no native kernels"):
            kernels.use("native")
    finally:
        build.library.cache_clear(), build._library.cache_clear()
        monkeypatch.undo()


def test_a_folder_that_cannot_be_written_breaks_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with build._folder() as folder:
        assert folder.is_dir() and tmp_path not in folder.parents


def test_a_compiler_may_be_called_by_several_words(monkeypatch):
    found = build._compiler()
    monkeypatch.setenv("CXX", f"env {found[0]}")
    called = build._compiler()
    assert called[1:] == (found[0],) and Path(called[0]).name == "env" and len(build._key(called)) == 16
    for nothing in ("no-such-compiler", "'g++"):
        monkeypatch.setenv("CXX", nothing)
        with pytest.raises(build.BuildError, match="no C\\+\\+ compiler is here"):
            build._compiler()


# As a command: a compiler that gives the library that it is told once the file `go` is there, and counts how often it was called.
COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo one of its own kind && exit
echo built >> "{calls}"
until [ -e "{go}" ]; do sleep 0.05; done
while [ "$1" != -o ]; do shift; done
cp "{library}" "$2"
"""

# `build.py` alone, without torch, so that many processes start at once.
BUILDS = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("build", sys.argv[1])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
build.WORD_S = 0.5
print(build.library("float").supernet_real_bytes())
"""


@pytest.fixture
def builds(tmp_path):
    """Starts a process that loads the library of numbers of type float from a cache of its own."""
    compiler, calls, go = tmp_path / "compiler", tmp_path / "calls", tmp_path / "go"
    calls.touch()
    go.touch()
    compiler.write_text(COMPILER.format(calls=calls, library=build.library("float")._name, go=go))
    compiler.chmod(0o755)

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", BUILDS, build.__file__], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                start_new_session=True, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "CXX": str(compiler)})

    def start_building() -> subprocess.Popen:
        """A process whose compiler is at work until `go` is there."""
        go.unlink()
        process = start()
        while calls.stat().st_size == 0:
            time.sleep(0.02)
        return process

    start.building, start.go = start_building, go.touch
    start.calls = lambda: len(calls.read_text().split())
    start.kept = lambda: sorted((tmp_path / "supernet").glob("*.so"))
    return start


def test_of_several_processes_one_builds_and_the_others_wait_for_it(builds):
    first = builds.building()
    others = [builds() for _ in range(5)]
    for process in others:
        assert process.stderr.readline() == f"waiting for the native kernels, which another process builds (process id {first.pid})\n"
    builds.go()
    assert [process.communicate(timeout=60) for process in (first, *others)] == [("4\n", "")] * 6
    assert builds.calls() == 1


def test_a_build_that_is_killed_leaves_nothing_that_others_wait_for(builds):
    killed = builds.building()
    os.killpg(killed.pid, signal.SIGKILL)  # with the compiler that it has called
    killed.communicate()
    builds.go()
    assert builds().communicate(timeout=60) == ("4\n", "") and builds.calls() == 2


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:4096], lambda c: c[: len(c) // 2], lambda c: c[:-1], flipped,
                                    lambda c: c + b"0", lambda c: b"not a library"],
                         ids=["empty", "a page", "half", "a byte less", "a bit flipped", "a byte more", "text"])
def test_a_damaged_library_is_never_loaded_but_built_again(builds, damage):
    builds().communicate(timeout=60)
    (kept,) = builds.kept()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    process = builds()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), builds.calls()) == (0, "4", 2), err
    assert err == f"{kept}: the native kernels that were kept are damaged; they are built again\n"
    assert kept.read_bytes() == whole and builds.kept() == [kept]
    assert builds().communicate(timeout=60) == ("4\n", "") and builds.calls() == 2


@pytest.mark.parametrize("option", ["device=cuda", "channels_last=false"])
def test_what_hinders_is_named(option):
    assert option in kernels.use("auto", hindrance=option).line
    with pytest.raises(ValueError, match=option):
        kernels.use("native", hindrance=option)
    with pytest.raises(ValueError, match="backend must be one of auto, plain, native, packed, merged, got 'cuda'"):
        kernels.use("cuda")


@pytest.mark.parametrize("read", [lambda total: torch.cat([total, total.detach()], 1), lambda total: total.mean((2, 3))])
def test_a_nodes_plain_sum_hands_on_a_gradient_that_lies_in_memory_as_it_does(read):
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    for order in (torch.channels_last, torch.contiguous_format):
        y, arrived = (x * 1).contiguous(memory_format=order), []
        y.register_hook(arrived.append)
        sums = plain.node_sums(y, list, None)
        sums[0].add_tensor(y)
        found, = torch.autograd.grad(read(sums.take(0)).square().sum(), x)
        assert arrived[0].is_contiguous(memory_format=order)
        torch.testing.assert_close(found, torch.autograd.grad(read(x).square().sum(), x)[0], rtol=0, atol=1e-12)

    def of(x):
        sums = plain.node_sums(x, list, None)
        sums[0].add_tensor(x)
        return read(sums.take(0)).sin()

    assert torch.autograd.gradgradcheck(of, (x,))


def test_a_plain_sum_changes_nothing_that_it_was_given_nor_what_it_gave():
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 4, 4, generator=draw) for _ in range(4)]
    kept, total = [part.clone() for part in parts], plain.Sum()
    for part in parts[:3]:
        total.add_tensor(part, torch.tensor(0.5) if part is parts[1] else None)
    first = total.total()
    seen = first.clone()
    total.add_tensor(parts[3])
    assert all(map(torch.equal, parts, kept)) and torch.equal(first, seen)
    torch.testing.assert_close(total.total(), kept[0] + 0.5 * kept[1] + kept[2] + kept[3])


def test_a_plain_sum_is_as_precise_as_its_most_precise_part():
    total = plain.Sum()
    for value, dtype in ((1.0, torch.bfloat16), (1.0, torch.bfloat16), (1e-3, torch.float32)):
        total.add_tensor(torch.full((1, 1, 1, 1), value, dtype=dtype))
    assert total.total().dtype is torch.float32 and total.total().item() == pytest.approx(2.001)
