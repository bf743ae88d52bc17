"""Steps of the weights that choose what they train among several draws (AttentiveNAS, Wang et al. 2021)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from torch import nn

from supernet.passes import Sandwich, Step, work_of
from supernet.ranges import Count, Positive, Share, ranged
from supernet.relaxations.policy import genotype_of
from supernet.space import Space
from supernet.tasks.base import Result
from supernet.weights import EdgeWeights

Front = Literal["best", "worst"]


@ranged
class Attentive:
    """The sandwich (`passes.Sandwich`), where each drawn architecture is the best or the worst of a few that cost the same, so that the
    weights attend to the best front of loss against cost or to the worst one (BestUp and WorstUp by training loss: Wang et al. 2021;
    official code, train_attentive_nas.py).

    train: of which end, by the training loss of the step's batch. candidates: how many are compared [official config
    bestup3, num_trials]. pool: draws for each choice; the first one's multiply-adds are the aim, and it is compared with those of the
    others that come nearest. So the aim follows the distribution of the draws, as published (pi(tau) of uniform draws), and whatever the
    relaxation draws by, alphas too. draws, distillation, temperature: the sandwich's.

    Official code: the aim is drawn from a table of multiply-adds counted before, candidates decision by decision from what this table
    holds near the aim, at most 100 times each; the losses of candidates move the running statistics, which here stay. Its predictor of
    accuracy, trained beforehand, is not built.
    """

    choose = True  # among architectures: mixtures have no multiply-adds to compare

    def __init__(self, space: Space, net: nn.Module, *, train: Front = "best", candidates: Count = 3, pool: Count = 20, draws: Count = 2,
                 distillation: Share = 1.0, temperature: Positive = 1.0):
        if train not in ("best", "worst"):
            raise ValueError(f"passes.train must be best or worst, got {train!r}")
        if pool < candidates:
            raise ValueError(f"passes.pool must be at least the {candidates} candidates (passes.candidates), got {pool}")
        self.space, self.train, self.candidates, self.pool = space, train, candidates, pool
        self.sandwich = Sandwich(space, net, draws=draws, distillation=distillation, temperature=temperature)
        self.cost = work_of(space, net)

    def __call__(self, step: Step) -> Iterator[Result]:
        return self.sandwich(replace(step, draw=self.chosen(step, step.draw), another=lambda: self.chosen(step, step.another())))

    def chosen(self, step: Step, draw: EdgeWeights) -> EdgeWeights:
        """`draw` or one of those drawn after it. Of equal losses the first."""
        draws = [draw, *(step.another() for _ in range(self.pool - 1))]
        costs = [self.cost(genotype_of(self.space, weights)) for weights in draws]
        near = sorted(range(self.pool), key=lambda n: (abs(costs[n] - costs[0]), n))[: self.candidates]
        losses = {n: step.loss(draws[n]).item() for n in near}
        return draws[(min if self.train == "best" else max)(near, key=losses.__getitem__)]
