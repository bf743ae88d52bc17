"""What architectures of a chain begin with alike is computed once: a tree of all their steps, walked from the stem to every end.

Who walks it keeps what the steps on the way to where it stands have given, for one batch: about what a training step keeps of a network.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supernet.networks.steps import Step
from supernet.weights import EdgeWeights

Place = int  # in the tree, from 0


def places(choices: Iterable[Iterable[Hashable]]) -> list[tuple[Place, ...]]:
    """Of each architecture, where in the tree its steps stand, by their choices: steps stand in one place where all before them and they
    themselves are chosen alike. Places are numbered as they are met, so that architectures sorted by theirs are a walk of the tree, which
    begins with the first."""
    known: dict[tuple[Place | None, Hashable], Place] = {}
    found = []
    for own in choices:
        at: Place | None = None
        path = []
        for choice in own:
            at = known.setdefault((at, choice), len(known))
            path.append(at)
        found.append(tuple(path))
    return found


def common(first: Sequence[Place], second: Sequence[Place]) -> int:
    """How many places they begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))


class Along(nn.Module):
    """Stands for a chain in a task's calls: `follow` says what its next calls compute. What the last call's steps gave is kept, and the
    next one of the same input goes on from where the two part, so that it gives what the network would, bit for bit.

    run: computes a step, (step, place, reached, generator) -> reached.
    """

    def __init__(self, run: Callable[[Step, Place, Any, torch.Generator | None], Any]):
        super().__init__()
        self.eval()
        self._run, self._x = run, None
        self._path: tuple[Place, ...] = ()
        self._steps: Sequence[Step] = ()
        self._reached: list[tuple[Place, Any]] = []  # of the last call

    def follow(self, steps: Sequence[Step], path: tuple[Place, ...]) -> None:
        self._steps, self._path = steps, path

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """weights: not used, `follow` has said what they are."""
        if x is not self._x:
            self._x, self._reached = x, []
        del self._reached[common([place for place, _ in self._reached], self._path):]
        for n in range(len(self._reached), len(self._path)):
            before = self._reached[-1][1] if n else x
            self._reached.append((self._path[n], self._run(self._steps[n], self._path[n], before, generator)))
        return self._reached[-1][1]

    def forget(self) -> None:
        """Keeps nothing of the last call."""
        self._x, self._reached = None, []
