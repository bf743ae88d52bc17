"""The score-function gradient of a sampling relaxation (REINFORCE, Williams 1992), as ENAS trains its controller (Pham et al. 2018,
Sec. 2.2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from supernet.hypergradients.base import Problem, Tensors, grad
from supernet.ranges import Count, Finite, Fraction, ranged


@ranged
def reinforce(problem: Problem, *, samples: Count = 10, baseline_decay: Fraction = 0.99, entropy_weight: Finite = 1e-4,
              baseline_update: str = "draw", differentiate_entropy: bool = False) -> Tensors:
    """The gradient of minus the expected reward: the mean over `samples` draws of -(R - b) d log p / d alpha.

    R is the accuracy on the validation batch, in [0, 1], plus `entropy_weight` times the draw's entropy; b is a moving mean of rewards.
    By default it is that of melodyguan/enas, micro_controller.py: updated with each draw before it is subtracted, 0 at the start, and the
    entropy is a number. `baseline_update` epoch is that of AutoDL-Projects (ENAS on NAS-Bench-201): each draw's b lies a step from what
    the last draw of the epoch before left behind, and is the draw's own accuracy in the first epoch. `differentiate_entropy`: R, and b
    with it, depend on alpha through the entropy [the same].

    Needs a relaxation whose draws have a log-probability (relaxation=controller).
    """
    if baseline_update not in _BASELINES:
        raise ValueError(f"hypergradient.baseline_update must be {' or '.join(_BASELINES)}, got {baseline_update!r}")
    baseline_of, losses = _BASELINES[baseline_update], []
    for n in range(samples):
        found = (problem if n == 0 else problem.again()).score()
        reward = found.accuracy + entropy_weight * (found.entropy if differentiate_entropy else found.entropy.detach())
        baseline = baseline_of(problem, found.accuracy, reward, 1 - baseline_decay)
        problem.memory["baseline"] = baseline.detach()
        losses.append(-(reward - baseline) * found.log_prob)
    return problem.reduce(grad(torch.stack(losses).mean(), problem.alpha))


def _by_draw(problem: Problem, accuracy: Tensor, reward: Tensor, step: float) -> Tensor:
    before = problem.memory.get("baseline", torch.zeros_like(reward))
    return before + step * (reward - before)


def _by_epoch(problem: Problem, accuracy: Tensor, reward: Tensor, step: float) -> Tensor:
    """`problem.progress` tells epochs apart."""
    memory, now = problem.memory, torch.tensor(problem.progress, dtype=torch.float64)
    if "progress" in memory and memory["progress"] != now:
        memory["baseline before the epoch"] = memory["baseline"]
    memory["progress"] = now
    before = memory.get("baseline before the epoch")
    return accuracy if before is None else before + step * (reward - before)


_BASELINES: dict[str, Callable[[Problem, Tensor, Tensor, float], Tensor]] = {"draw": _by_draw, "epoch": _by_epoch}
