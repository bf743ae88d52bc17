"""The dominant eigenvalue of the Hessian of the validation loss with respect to alpha, and what RobustDARTS does when it rises (Zela et al.
2020, Sec. 4 and 5)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ops.kernels import differentiable_twice
from supernet.bilevel import Bilevel
from supernet.hypergradients.base import grad
from supernet.monitors.base import Look, Monitor, Signal
from supernet.space import Space
from supernet.task import Batch


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """The eigenvalues, ascending, of the tridiagonal matrix of Lanczos' method with full reorthogonalisation: the outermost ones approach
    those of the symmetric operator `product`; all are exact after as many iterations as `start` (N,) has entries."""
    basis, diagonal, beside = [start / start.norm()], [], []
    for n in range(min(iterations, start.numel())):
        v = product(basis[-1])
        diagonal.append(torch.dot(v, basis[-1]))
        for _ in range(2):  # once is not enough in floating point
            for b in basis:
                v = v - torch.dot(v, b) * b
        norm = v.norm()
        if n + 1 == min(iterations, start.numel()) or norm <= 1e-10 * torch.stack(diagonal).abs().max():
            break
        beside.append(norm)
        basis.append(v / norm)
    matrix = torch.diag(torch.stack(diagonal))
    if beside:
        off = torch.stack(beside[: len(diagonal) - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    return torch.linalg.eigvalsh(matrix)


def alpha_curvature(search: Bilevel, batch: Batch) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The exact product of the Hessian of a batch's loss under the mean weights with a vector, and the flat alphas. Statistics are the
    batch's own and no penalties count; the network is left as found."""
    alphas = tuple(search.relaxation.tables().values())
    with differentiable_twice():
        slopes = grad(search.val_loss_under(batch, search.relaxation.mean()), alphas, create_graph=True)

    def product(v: Tensor) -> Tensor:
        parts = [part.view_as(a) for part, a in zip(v.split([a.numel() for a in alphas]), alphas)]
        along = sum((g * part).sum() for g, part in zip(slopes, parts))
        return torch.cat([h.flatten() for h in grad(along, alphas, retain_graph=True)])

    return product, torch.cat([a.detach().flatten() for a in alphas])


def dominant_eigenvalue(search: Bilevel, batch: Batch, iterations: int = 10) -> float:
    """The largest eigenvalue of `alpha_curvature`. Lanczos starts from a fixed vector, so that no randomness is drawn."""
    training = search.net.training
    search.net.train()
    try:
        product, alphas = alpha_curvature(search, batch)
        start = torch.randn(alphas.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(alphas)
        return lanczos(product, start, iterations)[-1].item()
    finally:
        search.net.train(training)


class Eigenvalue(Monitor):
    """Computes it every `every` epochs on the first validation batch, by `iterations` of Lanczos' method on exact products.

    stop: where the mean of the last `window` values is more than `factor` times the mean of the `window` that ended `delta` values
    before, the search ends with the genotype of the epoch in the middle of that earlier window, if it is `start_epoch` or later [official
    code, EVLocalAvg: every 2 epochs, window 5, delta 4, 1.3, 10, so 12 epochs back and not before epoch 22; the paper's 0.75 = 1 / 1.3].
    Otherwise that is a warning.
    """

    def __init__(self, space: Space, *, every: int = 2, iterations: int = 10, stop: bool = False, window: int = 5, delta: int = 4,
                 factor: float = 1.3, start_epoch: int = 10):
        for name, value in (("every", every), ("iterations", iterations), ("window", window), ("delta", delta)):
            if value < 1:
                raise ValueError(f"monitor.eigenvalue.{name} must be at least 1, got {value}")
        self.every, self.iterations, self.stop = every, iterations, stop
        self.window, self.delta, self.factor, self.start_epoch = window, delta, factor, start_epoch
        self.values: list[float] = []

    def after_epoch(self, look: Look) -> Signal:
        if look.epoch % self.every:
            return Signal()
        self.values.append(dominant_eigenvalue(look.search, next(iter(look.val)), self.iterations))
        value = {"alpha_eigenvalue": self.values[-1]}
        ratio, back = rise(self.values, self.window, self.delta), (self.delta + self.window // 2) * self.every
        if ratio is None or look.epoch - back < self.start_epoch or ratio <= self.factor:
            return Signal(value)
        why = f"the dominant eigenvalue's mean rose by a factor of {ratio:.2f}, more than {self.factor:g}"
        return Signal(value, stop=why, back=back) if self.stop else Signal(value, warning=why)

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.values = list(state["values"])


def rise(values: Sequence[float], window: int, delta: int) -> float | None:
    """The mean of the last `window` values over that of the `window` values which ended `delta` earlier; None while there are too few, or
    where the earlier mean is not positive."""
    if len(values) < window + delta:
        return None
    before = values[-window - delta: -delta]
    earlier = sum(before) / len(before)
    return sum(values[-window:]) / window / earlier if earlier > 0 else None
