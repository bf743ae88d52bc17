"""Depthwise convolutions against `F.conv2d`: values, gradients, gradients of gradients."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.counting import kernels
from ops.depthwise import Depthwise, depthwise, every
from tests import reference

CASES = [(size, stride, dilation) for size in (1, 3, 5, 7) for stride in (1, 2, 3) for dilation in (1, 2, 3)]


def plain(x, weight, stride, dilation):
    return F.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation, x.shape[1])


def tensors(size, dtype=torch.float64, shape=(2, 3, 9, 7), channels_last=False):
    draw = torch.Generator().manual_seed(size)
    x = torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
    weight = torch.randn(shape[1], 1, size, size, generator=draw, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format).requires_grad_(), \
        weight.requires_grad_()


@pytest.mark.parametrize("size, stride, dilation", CASES)
def test_equals_a_convolution_to_its_second_derivative(size, stride, dilation):
    x, weight = tensors(size)
    found = []
    for compute in (depthwise, plain):
        y = compute(x, weight, stride, dilation)
        first = torch.autograd.grad(y.sin().sum(), (x, weight), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight))
        found.append((y, *first, *second))
    for mine, theirs in zip(*found, strict=True):
        reference.close(mine, theirs, 1e-9)


@pytest.mark.parametrize("size, stride, dilation", [(5, 1, 1), (3, 1, 2), (5, 1, 2), (5, 2, 2), (7, 1, 3)])
def test_numerical_derivatives_agree(size, stride, dilation):
    inputs = tensors(size, shape=(1, 2, 5, 4))
    assert torch.autograd.gradcheck(lambda x, w: depthwise(x, w, stride, dilation), inputs)
    assert torch.autograd.gradgradcheck(lambda x, w: depthwise(x, w, stride, dilation), inputs)


@pytest.mark.parametrize("size, stride, dilation", CASES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_float32_is_as_exact_as_a_convolution(size, stride, dilation, channels_last):
    exact = tensors(size, shape=(2, 16, 9, 8))
    errors = []
    for compute in (depthwise, plain):
        of = []
        for dtype in (torch.float64, torch.float32):
            inputs = [t.detach().to(dtype).requires_grad_() for t in exact]
            if channels_last:
                inputs[0] = inputs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            y = compute(*inputs, stride, dilation)
            of.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
        errors.append([((low.double() - high).abs().max() / high.abs().max()).item() for high, low in zip(*of, strict=True)])
    for mine, theirs in zip(*errors, strict=True):
        assert mine <= max(2 * theirs, 1e-6)


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_only_the_gradients_that_are_asked_are_computed(needs):
    x, weight = tensors(5)
    asked = [t.requires_grad_(need) for t, need in zip((x, weight), needs)]
    y = depthwise(x, weight, 1, 2)
    inputs = [t for t in asked if t.requires_grad]
    found = kernels(lambda: torch.autograd.grad(y.sum(), inputs))
    convolutions = {name: count for name, count in found.items() if "conv" in name and "backward" not in name}
    assert sum(convolutions.values()) == int(needs[0])  # with the turned kernel
    assert found["convolution_backward"] == 2 * needs[1]  # the weight's five columns are taken in two parts


def test_a_module_is_a_convolution_in_every_other_respect():
    torch.manual_seed(0)
    ours = Depthwise(4, 5, 2, 2)
    torch.manual_seed(0)
    theirs = torch.nn.Conv2d(4, 4, 5, 2, 4, 2, 4, bias=False)
    assert torch.equal(ours.weight, theirs.weight) and repr(ours)[len("Depthwise"):] == repr(theirs)[len("Conv2d"):]
    x = torch.randn(2, 4, 6, 6)
    reference.close(ours(x), theirs(x), 1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 2, 3, 9), (2, 4, 1, 1), (1, 3, 2, 5)])
@pytest.mark.parametrize("size, dilation", [(3, 2), (5, 1), (5, 2), (7, 1), (5, 3)])
def test_images_smaller_than_the_kernel_have_the_same_gradients(shape, size, dilation):
    inputs = tensors(size, shape=shape, channels_last=True)
    found = [torch.autograd.grad(compute(*inputs, 1, dilation).sin().sum(), inputs) for compute in (depthwise, plain)]
    for mine, theirs in zip(*found, strict=True):
        reference.close(mine, theirs, 1e-9)


@pytest.mark.parametrize("stride, first", [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
def test_a_gradient_of_every_other_pixel_lies_in_memory_as_the_image_does(stride, first):
    x, _ = tensors(3, shape=(2, 4, 7, 6), channels_last=True)
    assert torch.equal(every(x, stride, first), x[:, :, first::stride, first::stride])
    seen = []
    y = x * 1
    y.register_hook(seen.append)
    every(y, stride, first).square().sum().backward()
    expected = torch.zeros_like(x)
    expected[:, :, first::stride, first::stride] = 2 * x.detach()[:, :, first::stride, first::stride]
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and torch.equal(x.grad, expected)
    assert torch.autograd.gradgradcheck(lambda x: every(x, stride, first).sin(), (x,))
