"""The dominant eigenvalue of the Hessian of the validation loss with respect to alpha, and what RobustDARTS does when it rises (Zela et al.
2020, Sec. 4 and 5)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.kernels import differentiable_twice
from supernet.bilevel import Bilevel, rewound
from supernet.hypergradients.base import grad
from supernet.monitors.base import Look, Monitor, Reaction, Retry, Signal
from supernet.ranges import Count, Positive, Whole, ranged
from supernet.space import Space
from supernet.tasks.base import Batch


class Ritz(NamedTuple):
    """values: ascending, of the operator's eigenvalues the outermost first approximations. residual: |A v - theta v| of the largest one,
    theta, and its unit vector v: an eigenvalue of the operator is no further from theta. iterations: how many there were."""

    values: Tensor
    residual: Tensor
    iterations: int


class Dominant(NamedTuple):
    """The largest eigenvalue. off: how far from one it may be at most; iterations: how many there were."""

    value: float
    off: float
    iterations: int


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int, tolerance: float = 0.0) -> Ritz:
    """The eigenvalues of the tridiagonal matrix of Lanczos' method with full reorthogonalisation: the outermost ones approach those of the
    symmetric operator `product`; all are exact after as many iterations as `start` (N,) has entries.

    Ends after `iterations`, or once the residual of the largest is at most `tolerance` times its size. The error of a value is about the
    square of its residual over the distance to the next one (Parlett 1998, The symmetric eigenvalue problem, Sec. 11.7).
    """
    basis, diagonal, beside = [start / start.norm()], [], []
    most = min(iterations, start.numel())
    for n in range(most):
        v = product(basis[-1])
        diagonal.append(torch.dot(v, basis[-1]))
        for _ in range(2):  # once is not enough in floating point
            for b in basis:
                v = v - torch.dot(v, b) * b
        norm = v.norm()
        values, vectors = torch.linalg.eigh(tridiagonal(diagonal, beside))
        residual = norm * vectors[-1, -1].abs()
        if n + 1 == most or norm <= 1e-10 * torch.stack(diagonal).abs().max() or residual <= tolerance * values[-1].abs():
            return Ritz(values, residual, n + 1)
        beside.append(norm)
        basis.append(v / norm)
    raise ValueError(f"Lanczos' method needs at least 1 iteration, got {iterations}")


def tridiagonal(diagonal: Sequence[Tensor], beside: Sequence[Tensor]) -> Tensor:
    """The symmetric matrix of these scalars."""
    matrix = torch.diag(torch.stack(list(diagonal)))
    if beside:
        off = torch.stack(list(beside))
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    return matrix


def alpha_curvature(search: Bilevel, batch: Batch) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The exact product of the Hessian of a batch's loss with a vector, and the flat alphas. The loss is that under the weights of an
    evaluation; statistics are the batch's own and no penalties count. The search is left as found."""
    alphas = tuple(search.relaxation.tables().values())
    with rewound(search.generators["alpha"]) as generator:
        weights = search.relaxation.evaluated(generator)
    with differentiable_twice():
        slopes = grad(search.val_loss_under(batch, weights), alphas, create_graph=True)

    def product(v: Tensor) -> Tensor:
        parts = [part.view_as(a) for part, a in zip(v.split([a.numel() for a in alphas]), alphas)]
        along = sum((g * part).sum() for g, part in zip(slopes, parts))
        return torch.cat([h.flatten() for h in search.group.mean(grad(along, alphas, retain_graph=True))])

    return product, torch.cat([a.detach().flatten() for a in alphas])


def dominant_eigenvalue(search: Bilevel, batch: Batch, iterations: int = 50, tolerance: float = 1e-3) -> Dominant:
    """The largest eigenvalue of `alpha_curvature`, by at most so many iterations, fewer where it has converged to `tolerance` (`lanczos`).
    Lanczos starts from a fixed vector, so that no randomness is drawn."""
    training = search.net.training
    search.net.train()
    try:
        product, alphas = alpha_curvature(search, batch)
        start = torch.randn(alphas.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(alphas)
        found = lanczos(product, start, iterations, tolerance)
        return Dominant(found.values[-1].item(), found.residual.item(), found.iterations)
    finally:
        search.net.train(training)


@ranged
class Eigenvalue(Monitor):
    """Computes it every `every` epochs by Lanczos' method on exact products, at most `iterations` of it, and says where that has not
    converged to `tolerance`, relative to the value (`alpha_eigenvalue_off` in the record is the bound). It is computed on one batch that is
    drawn as alpha's are, of `batch_size` or as many, since it depends on the batch's own statistics. [Official code, train_search.py: the
    batch of the epoch's last alpha step, 64 augmented images.]

    In trouble is a search where the mean of the last `window` values is more than `factor` times the mean of the `window` that ended
    `delta` values before, and the epoch in the middle of that earlier window, the last healthy one, is `start_epoch` or later [official
    code, EVLocalAvg: every 2 epochs, window 5, delta 4, 1.3, 10, so 12 epochs back and not before epoch 22; the paper's 0.75 = 1 / 1.3].
    stop, retry, retry_until: what that brings about (`Reaction`), a return to that epoch or a warning.
    """

    gives = ("alpha_eigenvalue", "alpha_eigenvalue_off")

    def __init__(self, space: Space, *, every: Count = 2, iterations: Count = 50, tolerance: Positive = 1e-3,
                 batch_size: Count | None = None, window: Count = 5, delta: Count = 4, factor: Positive = 1.3, start_epoch: Whole = 10,
                 stop: bool = False, retry: Retry | None = None, retry_until: Positive = 0.03):
        self.every, self.iterations, self.tolerance, self.spacing = every, iterations, tolerance, every
        self.batch_size = batch_size
        self.window, self.delta, self.factor, self.start_epoch = window, delta, factor, start_epoch
        self.reaction = Reaction("eigenvalue", stop, retry, retry_until)
        self.reach = every * (window // 2 + delta)
        self.keeps = 0 if retry is None else self.reach
        self.values: list[float] = []

    def check(self, search: Bilevel, known: Collection[str]) -> None:
        search.relaxation.tables()
        self.reaction.check(search)

    def after_epoch(self, look: Look) -> Signal:
        if look.epoch % self.every:
            return Signal()
        found = dominant_eigenvalue(look.search, next(iter(look.drawn(self.batch_size))), self.iterations, self.tolerance)
        self.values.append(found.value)
        ratio, why = rise(self.values, self.window, self.delta), None
        if ratio is not None and look.epoch - self.reach >= max(0, self.start_epoch) and ratio > self.factor:
            why = f"the dominant eigenvalue's mean rose by a factor of {ratio:.2f}, more than {self.factor:g}"
        signal = self.reaction(look, {"alpha_eigenvalue": found.value, "alpha_eigenvalue_off": found.off}, why, self.reach)
        if found.off <= self.tolerance * abs(found.value):
            return signal
        unsure = (f"after {found.iterations} iterations the dominant eigenvalue, {found.value:.3g}, may be {found.off:.1g} off: pass "
                  f"monitor.eigenvalue.iterations={2 * found.iterations}")
        return replace(signal, warning=unsure if signal.warning is None else f"{signal.warning}; {unsure}")

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
