"""The score-function gradient of a sampling relaxation (REINFORCE, Williams 1992), as ENAS trains its controller (Pham et al. 2018,
Sec. 2.2)."""

import torch

from supernet.hypergradients.base import Problem, Tensors, grad
from supernet.ranges import Count, Finite, Fraction, ranged


@ranged
def reinforce(problem: Problem, *, samples: Count = 10, baseline_decay: Fraction = 0.99, entropy_weight: Finite = 1e-4) -> Tensors:
    """The gradient of minus the expected reward: the mean over `samples` draws of -(R - b) d log p / d alpha.

    R is the accuracy on the validation batch, in [0, 1], plus `entropy_weight` times the draw's entropy, as a number; b is the moving mean
    of rewards, updated before it is subtracted, and 0 at the start [official code, micro_controller.py]. Needs a relaxation whose draws
    have a log-probability (relaxation=controller).
    """
    losses = []
    for n in range(samples):
        found = (problem if n == 0 else problem.again()).score()
        reward = found.accuracy + entropy_weight * found.entropy
        baseline = problem.memory.get("baseline", torch.zeros_like(reward))
        baseline = baseline + (1 - baseline_decay) * (reward - baseline)
        problem.memory["baseline"] = baseline
        losses.append(-(reward - baseline) * found.log_prob)
    return problem.reduce(grad(torch.stack(losses).mean(), problem.alpha))
