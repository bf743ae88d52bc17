"""The dominant eigenvalue of the Hessian of the validation loss with respect to alpha, and what RobustDARTS does when it rises (Zela et al.
2020, Sec. 4 and 5)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ops.kernels import differentiable_twice
from supernet.bilevel import Bilevel, rewound
from supernet.hypergradients.base import grad
from supernet.monitors.base import Look, Monitor, Reaction, Retry, Signal
from supernet.ranges import Count, Positive, Whole, ranged
from supernet.space import Space
from supernet.tasks.base import Batch


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


@ranged
class Eigenvalue(Monitor):
    """Computes it every `every` epochs on the first validation batch, by `iterations` of Lanczos' method on exact products.

    In trouble is a search where the mean of the last `window` values is more than `factor` times the mean of the `window` that ended
    `delta` values before, and the epoch in the middle of that earlier window, the last healthy one, is `start_epoch` or later [official
    code, EVLocalAvg: every 2 epochs, window 5, delta 4, 1.3, 10, so 12 epochs back and not before epoch 22; the paper's 0.75 = 1 / 1.3].
    stop, retry, retry_until: what that brings about (`Reaction`), a return to that epoch or a warning.
    """

    gives = ("alpha_eigenvalue",)

    def __init__(self, space: Space, *, every: Count = 2, iterations: Count = 10, window: Count = 5, delta: Count = 4,
                 factor: Positive = 1.3, start_epoch: Whole = 10, stop: bool = False, retry: Retry | None = None,
                 retry_until: Positive = 0.03):
        self.every, self.iterations, self.spacing = every, iterations, every
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
        self.values.append(dominant_eigenvalue(look.search, next(iter(look.val)), self.iterations))
        ratio, why = rise(self.values, self.window, self.delta), None
        if ratio is not None and look.epoch - self.reach >= max(0, self.start_epoch) and ratio > self.factor:
            why = f"the dominant eigenvalue's mean rose by a factor of {ratio:.2f}, more than {self.factor:g}"
        return self.reaction(look, {"alpha_eigenvalue": self.values[-1]}, why, self.reach)

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
