"""REINFORCE (Williams 1992) on the decisions of a space: a policy that learns which architectures score well (Zoph & Le 2017; with one row
of logits a decision, as NAS-Bench-201's authors use it, Dong & Yang 2020, Sec. 5)."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from supernet.genotype import Genotype
from supernet.ranges import Fraction, NonNegative, Positive, ranged
from supernet.searchers.base import Searcher
from supernet.searchers.decisions import Decision, Key, check_decidable, decided, decisions
from supernet.space import Space
from supernet.trials import History, Proposal, Trial

Reward = Literal["metric", "sigmoid", "improvement"]


class Policy(Protocol):
    """What architectures are drawn from. All that moves in it is what `learn` taught it since it was made, or since `forget`."""

    def forget(self) -> None: ...

    def draw(self, rng: random.Random) -> Genotype: ...

    def learn(self, genotype: Genotype, advantage: float, entropy: float, lr: float) -> None:
        """One step of Adam upwards along advantage * log p(genotype) + entropy * H, H that of the decisions that lead to it."""


@ranged
class Reinforce(Searcher):
    """Each trial is drawn from the policy, which then goes one step of Adam along (reward - baseline) times the gradient of the log
    probability, plus `entropy` times that of the decisions' entropy. baseline: the moving average of rewards with decay
    `baseline_decay`, as if it had begun with their mean (no bias towards 0), this trial's reward included, as in the official code
    (reinforce.py), where a score is in percent; what it is in makes no difference to Adam.

    reward: the score itself (`metric`); its `sigmoid` around the first score; or its `improvement` over the best before, 0 where there
    is none. A decision is the op of an edge, and where a node keeps some of its edges, how many, and each of them in order of their
    sources, given those before. Scores are divided by `scale` first: 100 makes shares of percents. policy: as a function of the space,
    another one than a row of logits for each decision, such as the recurrent controller (`relaxations.policy`). The policy is all that was
    learned, and follows from the history; trials handed on by another searcher teach it as its own do.
    """

    def __init__(self, space: Space, *, lr: Positive = 0.01, baseline_decay: Fraction = 0.9, entropy: NonNegative = 0.0,
                 reward: Reward = "metric", scale: Positive = 100.0, policy: Callable[[Space], Policy] | None = None):
        check_decidable(space, "reinforce")
        self.space, self.lr, self.baseline_decay, self.entropy, self.reward, self.scale = space, lr, baseline_decay, entropy, reward, scale
        self._policy: Policy = Rows(space) if policy is None else policy(space)
        self._known = _Known()

    def ask(self, history: History, rng: random.Random) -> Proposal:
        self._learn_from(history)
        return Proposal(self._policy.draw(rng), change="policy")

    def _learn_from(self, history: History) -> None:
        """What the trials of the history teach; goes on from what was known, where that was of the same trials."""
        known = self._known
        if known.size > len(history) or (known.size and history.trials[known.size - 1] is not known.last):
            known = self._known = _Known()
            self._policy.forget()
        for trial in history.trials[known.size:]:
            if trial.refused is None and math.isfinite(trial.scores[0]):
                self._policy.learn(trial.genotype, self._advantage(known, trial.scores[0] / self.scale), self.entropy, self.lr)
            known.size, known.last = known.size + 1, trial

    def _advantage(self, known: "_Known", score: float) -> float:
        if known.weight == 0:
            known.first = known.best = score
        reward = {"metric": score, "sigmoid": 1 / (1 + math.exp(min(700.0, known.first - score))),
                  "improvement": max(0.0, score - known.best)}[self.reward]
        known.best = max(known.best, score)
        known.total = self.baseline_decay * known.total + (1 - self.baseline_decay) * reward
        known.weight = self.baseline_decay * known.weight + (1 - self.baseline_decay)
        return reward - known.total / known.weight


@dataclass
class _Known:
    """The rewards so far, and which trials they are of."""

    total: float = 0.0  # of the moving average of rewards
    weight: float = 0.0
    first: float = 0.0
    best: float = 0.0
    size: int = 0
    last: Trial | None = None


class Rows:
    """Rows of logits by key, 0 at first, with the moments of Adam (Kingma & Ba 2015; beta 0.9, 0.999)."""

    def __init__(self, space: Space):
        self.space = space
        self.forget()

    def forget(self) -> None:
        self.logits: dict[Key, np.ndarray] = {}
        self.moments: dict[Key, tuple[np.ndarray, np.ndarray, int]] = {}

    def draw(self, rng: random.Random) -> Genotype:
        def chosen(key: Key, size: int, allowed: tuple[int, ...]) -> int:
            return rng.choices(allowed, self.probabilities(key, size, allowed))[0]

        return decided(self.space, chosen)

    def learn(self, genotype: Genotype, advantage: float, entropy: float, lr: float) -> None:
        gradients: dict[Key, np.ndarray] = {}
        for decision in decisions(self.space, genotype):
            row = gradients.setdefault(decision.key, np.zeros(decision.size))
            row += self.gradient(decision, advantage, entropy)
        self.step(gradients, lr)

    def probabilities(self, key: Key, size: int, allowed: tuple[int, ...]) -> list[float]:
        row = self.logits.get(key)
        row = np.zeros(len(allowed)) if row is None else row[list(allowed)]
        p = np.exp(row - row.max())
        return (p / p.sum()).tolist()

    def gradient(self, decision: Decision, advantage: float, entropy: float) -> np.ndarray:
        """Of advantage * log p(taken) + entropy * H(p) for the row's logits (O,): advantage * (onehot - p) - entropy * p * (log p + H)."""
        p = np.array(self.probabilities(decision.key, decision.size, decision.allowed))
        onehot = np.array([float(place == decision.taken) for place in decision.allowed])
        log_p = np.log(np.maximum(p, 1e-300))
        own = advantage * (onehot - p) - entropy * p * (log_p - (p * log_p).sum())
        found = np.zeros(decision.size)
        found[list(decision.allowed)] = own
        return found

    def step(self, gradients: dict[Key, np.ndarray], lr: float) -> None:
        """Upwards."""
        for key, g in gradients.items():
            m, v, t = self.moments.get(key, (np.zeros(len(g)), np.zeros(len(g)), 0))
            m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, t + 1
            self.moments[key] = m, v, t
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            self.logits[key] = self.logits.get(key, np.zeros(len(g))) + lr * step
