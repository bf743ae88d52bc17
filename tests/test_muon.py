"""Muon and Lion against their formulas in float64, and the Newton-Schulz iteration against a singular value decomposition."""

import pytest
import torch
from torch import nn

from supernet.optim.lion import Lion
from supernet.optim.muon import COEFFICIENTS, Muon, mixes_channels, orthogonalised

SHAPES = [(5, 5), (4, 9), (9, 4), (1, 7), (7, 1)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_iteration_keeps_the_singular_vectors_and_maps_the_singular_values_by_its_polynomial(shape):
    a, b, c = COEFFICIENTS
    matrices = random(3, *shape)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    s = s / (matrices.norm(dim=(1, 2)) + 1e-7)[:, None]
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalised(matrices), u @ torch.diag_embed(s) @ vh, rtol=0, atol=1e-10)


def test_singular_values_that_are_not_tiny_come_near_one():
    u, v = (torch.linalg.qr(random(20, 20, seed=n)).Q for n in range(2))
    matrix = u @ torch.diag(torch.linspace(0.02, 1, 20, dtype=torch.float64)) @ v.T
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.68 < values.min() and values.max() < 1.14
    torch.testing.assert_close(orthogonalised(matrix.float()).double(), orthogonalised(matrix), rtol=0, atol=1e-4)


def test_matrices_are_made_orthogonal_alike_alone_and_together():
    matrices = random(4, 6, 3)
    torch.testing.assert_close(orthogonalised(matrices), torch.stack([orthogonalised(m) for m in matrices]), rtol=0, atol=1e-12)


def weights():
    """A convolution that mixes channels, two of one shape, a depthwise one, a norm's factors, a classifier."""
    shapes = [(6, 3, 3, 3), (8, 4, 1, 1), (8, 4, 1, 1), (6, 1, 3, 3), (6,), (10, 8)]
    return [random(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes)]


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_takes_the_published_step_for_convolutions_and_adams_for_the_rest(nesterov):
    lr, momentum, decay, factor, (one, two), eps = 0.05, 0.9, 0.1, 0.2, (0.8, 0.9), 1e-6
    params, want = weights(), [w.detach().clone() for w in weights()]
    muon = Muon(params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay, other_factor=factor, betas=(one, two), eps=eps)
    v, m, s = ([torch.zeros_like(w) for w in want] for _ in range(3))
    for step in range(1, 4):
        for n, p in enumerate(params):
            g = random(*p.shape, seed=100 * step + n)
            p.grad = g.clone()
            if n < 3:
                v[n] = momentum * v[n] + g
                direction = g + momentum * v[n] if nesterov else v[n]
                rows, columns = len(g), g[0].numel()
                update = orthogonalised(direction.reshape(rows, columns)).reshape(g.shape)
                want[n] = (1 - lr * decay) * want[n] - lr * max(1, rows / columns) ** 0.5 * update
            else:
                m[n], s[n] = one * m[n] + (1 - one) * g, two * s[n] + (1 - two) * g * g
                adam = (m[n] / (1 - one**step)) / ((s[n] / (1 - two**step)).sqrt() + eps)
                want[n] = (1 - lr * factor * decay) * want[n] - lr * factor * adam
        muon.step()
    for p, w in zip(params, want):
        torch.testing.assert_close(p.detach(), w, rtol=0, atol=1e-10)


def test_lion_takes_the_published_step():
    lr, decay, (one, two) = 0.01, 0.3, (0.9, 0.99)
    w = random(4, 3).requires_grad_()
    want, m = w.detach().clone(), torch.zeros(4, 3, dtype=torch.float64)
    lion = Lion([w], lr=lr, betas=(one, two), weight_decay=decay)
    for step in range(5):
        g = random(4, 3, seed=10 + step)
        w.grad = g.clone()
        want = want - lr * ((one * m + (1 - one) * g).sign() + decay * want)
        m = two * m + (1 - two) * g
        lion.step()
    torch.testing.assert_close(w.detach(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Muon, Lion])
def test_an_optimizer_goes_on_from_its_state_and_leaves_weights_without_a_gradient(kind):
    def stepped(optimizer, params, seeds):
        for seed in seeds:
            for n, p in enumerate(params[:-1]):
                p.grad = random(*p.shape, seed=seed + n)
            optimizer.step()

    params, others = weights(), weights()
    last = params[-1].detach().clone()
    whole, first = kind(params, lr=0.1), kind(others, lr=0.1)
    stepped(whole, params, (10, 20, 30))
    stepped(first, others, (10, 20))
    again = kind(others, lr=0.1)
    again.load_state_dict(first.state_dict())
    stepped(again, others, (30,))
    assert all(torch.equal(p, q) for p, q in zip(params, others))
    assert torch.equal(params[-1], last)


def test_of_a_network_muon_takes_the_pointwise_convolutions():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.Linear(8, 10))
    assert [name for name, p in net.named_parameters() if mixes_channels(p)] == ["0.weight", "3.weight"]
