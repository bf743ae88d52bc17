"""A step of the weights: in one call where that does the same, and else as PyTorch's optimizer takes it."""

import copy

import pytest
import torch
from torch import nn

from supernet.optim import descent

SIZES = [(16, 1, 3, 3), (5, 7, 3, 3), (3, 1, 1, 1), (4, 6), (11,)]
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}


def weights(dtype=torch.float64, memory_format=torch.channels_last):
    g = torch.Generator().manual_seed(0)
    tensors = [torch.randn(size, generator=g, dtype=dtype) for size in SIZES]
    return [nn.Parameter(t.contiguous(memory_format=memory_format) if t.dim() == 4 else t) for t in tensors]


def give_gradients(ps, seed, of=lambda number: True):
    g = torch.Generator().manual_seed(seed)
    for number, p in enumerate(ps):
        gradient = torch.empty_like(p).copy_(torch.randn(p.shape, generator=g, dtype=p.dtype))
        p.grad = gradient if of(number) else None


def both(**sgd):
    """Weights with the optimizer that `descend` may take in one call, and with one that says how."""
    mine, theirs = weights(), weights()
    return (mine, torch.optim.SGD(mine, **{**SGD, **sgd})), (theirs, torch.optim.SGD(theirs, **{**SGD, **sgd}, foreach=False))


def assert_close(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)


def calls_of(monkeypatch):
    """How many tensors each call of the fused step had."""
    found, fused = [], torch._fused_sgd_
    monkeypatch.setattr(torch, "_fused_sgd_", lambda ps, *others, **options: (found.append(len(ps)), fused(ps, *others, **options))[1])
    return found


@pytest.mark.parametrize("sgd", [{}, {"nesterov": True}, {"dampening": 0.3}, {"momentum": 0.0}, {"weight_decay": 0.0}])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_steps_in_one_call_are_those_over_a_list(sgd, clip_norm, monkeypatch):
    calls = calls_of(monkeypatch)
    (mine, one), (theirs, each) = both(**sgd)
    for seed in range(5):
        for ps, optimizer in ((mine, one), (theirs, each)):
            give_gradients(ps, seed)
            descent.descend(optimizer, ps, clip_norm)
    assert calls == [len(SIZES)] * 5
    assert_close(mine, theirs)
    assert_close([p.grad for p in mine], [p.grad for p in theirs])
    assert one.param_groups[0]["fused"] is None and each.param_groups[0]["foreach"] is False


def test_weights_whose_first_step_comes_later_keep_their_first_gradient_as_momentum(monkeypatch):
    calls = calls_of(monkeypatch)
    (mine, one), (theirs, each) = both()
    for seed in range(4):
        for ps, optimizer in ((mine, one), (theirs, each)):
            give_gradients(ps, seed, of=lambda number: number != 1 or seed >= 2)
            descent.descend(optimizer, ps, None)
    # the third step has first and later ones, and is PyTorch's own
    assert calls == [len(SIZES) - 1] * 2 + [len(SIZES)]
    assert_close(mine, theirs)
    assert_close([one.state[p]["momentum_buffer"] for p in mine], [each.state[p]["momentum_buffer"] for p in theirs])


def test_a_momentum_that_lies_otherwise_in_memory_is_not_taken_for_one_that_lies_alike(monkeypatch):
    (mine, one), (theirs, each) = both()
    for ps, optimizer in ((mine, one), (theirs, each)):
        give_gradients(ps, 0)
        descent.descend(optimizer, ps, None)
    calls = calls_of(monkeypatch)
    for optimizer in (one, each):  # as a checkpoint of a run without channels_last brings it
        state = copy.deepcopy(optimizer.state_dict())
        for own in state["state"].values():
            own["momentum_buffer"] = own["momentum_buffer"].contiguous()
        optimizer.load_state_dict(state)
    for ps, optimizer in ((mine, one), (theirs, each)):
        give_gradients(ps, 1)
        descent.descend(optimizer, ps, None)
    assert not calls
    assert_close(mine, theirs)


@pytest.mark.parametrize("make", [lambda ps: torch.optim.SGD(ps, **SGD, foreach=True), lambda ps: torch.optim.Adam(ps)])
def test_what_says_how_it_steps_or_is_another_optimizer_is_left_alone(make, monkeypatch):
    calls = calls_of(monkeypatch)
    ps, alone = weights(), weights()
    for tensors, step in ((ps, None), (alone, torch.optim.Optimizer)):
        optimizer = make(tensors)
        give_gradients(tensors, 0)
        descent.descend(optimizer, tensors, None) if step is None else optimizer.step()
    assert not calls
    assert all(torch.equal(a, b) for a, b in zip(ps, alone, strict=True))
