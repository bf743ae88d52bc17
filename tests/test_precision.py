"""bf16 around the network's forward pass: what stays in float32, and how near its numbers come."""

import pytest
import torch

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.networks.stacked import batch_norms
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.softmax import Softmax
from supernet.runs.device import precision, prepare
from supernet.spaces import darts, nasbench201
from supernet.tasks.classification import Classification

CPU = torch.device("cpu")


def search(space, amp, relaxation=Softmax, hypergradient=first_order, **network):
    torch.manual_seed(0)
    net = space.network(space.candidates(), layers=3, channels=8, num_classes=4, norm=Normalisation(False, True), **network).train()
    net = net.to(memory_format=torch.channels_last)
    alphas = relaxation(space, torch.Generator().manual_seed(0))
    sgd, adam = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9), torch.optim.Adam(alphas.parameters(), lr=1e-3)
    return Bilevel(net, alphas, hypergradient, Classification(), sgd, adam, {"alpha": torch.Generator(), "net": torch.Generator()},
                   clip_norm=5.0, context=precision(amp, CPU))


def batch(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 3, 16, 16, generator=g).to(memory_format=torch.channels_last)
    return x, torch.randint(4, (8,), generator=g)


SPACES = {"darts": (darts.make(nodes=2), {}), "nasbench201": (nasbench201.make(), {}),
          "pc-darts": (darts.make(nodes=2), {"partial": 2, "relaxation": lambda s, g: EdgeNormalised(Softmax(s, g), s, g)}),
          "checkpointed": (darts.make(nodes=2), {"checkpoint_cells": True})}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("hypergradient", [first_order, finite_difference])
def test_alphas_weights_and_statistics_stay_in_float32_and_near_float32(name, hypergradient):
    """bf16 has 8 bits of mantissa: losses are right to about 1 %, alpha gradients in direction."""
    space, options = SPACES[name]
    plain, mixed = (search(space, amp, hypergradient=hypergradient, **options) for amp in ("none", "bf16"))
    seen = set()
    mixed.net.stem.register_forward_hook(lambda module, inputs, out: seen.add((out[0] if type(out) is tuple else out).dtype))
    losses = {}
    for s in (plain, mixed):
        losses[id(s)] = []
        s.guard = lambda what, value, b, s=s: losses[id(s)].append(value.detach())
        s.step(batch(0), batch(1))
    assert seen == {torch.bfloat16}
    norm, loss = losses[id(mixed)]
    assert loss.dtype == torch.float32 and torch.isfinite(torch.stack(losses[id(mixed)])).all()
    torch.testing.assert_close(loss, losses[id(plain)][1], rtol=0.02, atol=0)
    for s in (plain, mixed):
        moved = [*s.net.parameters(), *s.net.buffers(), *s.relaxation.parameters()]
        moved += [p.grad for p in (*s.w, *s.alpha) if p.grad is not None]
        assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in moved)
    for a, b in zip(batch_norms(plain.net), batch_norms(mixed.net)):
        torch.testing.assert_close(b.running_var, a.running_var, rtol=0.05, atol=1e-3)
    if hypergradient is first_order:
        ours, theirs = (torch.cat([p.grad.flatten() for p in s.alpha]) for s in (mixed, plain))
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.9


def test_none_is_no_context_and_numbers_of_both_settings_differ():
    plain, mixed = (search(SPACES["darts"][0], amp) for amp in ("none", "bf16"))
    weights = plain.relaxation.mean()
    with torch.no_grad():
        a, b = plain.net(batch(0)[0], weights), mixed.net(batch(0)[0], weights)
        assert torch.equal(a, b)  # outside the context both are the same network
        with mixed.context():
            b = mixed.net(batch(0)[0], weights)
    assert not torch.equal(a, b.float())


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_one_switch_that_torch_can_read_back(tf32, monkeypatch):
    """Both ways to set and to read it exist side by side in torch, which refuses to read a mixture."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    try:
        prepare(torch.device("cuda"), threads=None, deterministic=False, tf32=tf32)
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
        assert torch.backends.cudnn.allow_tf32 is tf32 and torch.backends.cuda.matmul.allow_tf32 is tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1], benchmark
