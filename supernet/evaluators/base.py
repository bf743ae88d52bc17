"""What evaluates the trials of a search, and what a search offers it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from supernet.data.base import Data
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.relaxations.base import Relaxation
from supernet.space import Space
from supernet.tasks.base import Task
from supernet.training.final import FinalLoop
from supernet.trials import Evaluation


@dataclass(frozen=True)
class Known:
    """A number that is known of an architecture before any evaluation. least, most: what no architecture has less or more of, where that is
    known."""

    value: Callable[[Genotype], float]
    least: float | None = None
    most: float | None = None

    def __call__(self, genotype: Genotype) -> float:
        return self.value(genotype)


class SearchEvaluator:
    """An interface (`supernet.trials.Evaluator`), made by what the yaml of `conf/evaluator` names from an `Offer`, before anything is
    trained: what it asks for then is there, and can be refused, before any work.

    gives: the metrics of every evaluation. shortens: whether `fidelity` may be below 1; shortest: the least that it may be. costs: what it
    knows of an architecture before an evaluation, by the metric's name. images_before: what it sees before the first evaluation, of no
    architecture's own. together: whether many architectures cost less at once than one after the other (`population`). alone: why it is for
    one process and not for several that torchrun starts together; empty where each of them may evaluate some architectures. Equal calls
    give equal metrics, in this process and in another that was offered the same.
    """

    gives: frozenset[str] = frozenset()
    shortens = False
    shortest = 0.0
    costs: Mapping[str, Known] = {}
    images_before = 0
    together = False
    alone = ""

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        raise NotImplementedError

    def population(self, asked: Sequence[tuple[Genotype, float]]) -> Iterator[tuple[Evaluation, float]]:
        """What calls find of architectures with their fidelities, in their order, with the seconds that each took. It may be left at any
        moment; who asks for the rest again, in another process, is not to wait for all of it again."""
        for genotype, fidelity in asked:
            started = time.perf_counter()
            found = self(genotype, fidelity)
            yield found, time.perf_counter() - started


class Offer(Protocol):
    """What a search offers an evaluator. Each is made when it is first asked for, so that what nobody asks for costs nothing: a search of a
    table builds no network and reads no images.

    space: what is searched. whole: the space that it is of, where `exclude_ops` leaves ops out; `widened` makes an architecture one of it.
    loaders: those of a search. net: the supernet; its weights are those that it has when the first trial is evaluated. folder: of the run,
    for what is kept between evaluations; None where nothing is written (a rehearsal).
    """

    seed: int
    space: Space
    whole: Space
    folder: Path | None

    @property
    def device(self) -> torch.device: ...

    @property
    def data(self) -> Data: ...

    @property
    def loaders(self) -> Any: ...

    @property
    def task(self) -> Task: ...  # of the data's classes

    @property
    def net(self) -> nn.Module: ...

    @property
    def relaxation(self) -> Relaxation: ...

    @property
    def dataset(self) -> str: ...  # its name

    def widened(self, genotype: Genotype) -> Genotype: ...

    def generator(self, name: str) -> torch.Generator:
        """A source of randomness on the device, from the seed and its name alone."""

    def network(self, genotype: Genotype) -> nn.Module:
        """The network of one architecture alone, of the search's sizes, initialised from the seed."""

    def final(self, genotype: Genotype, *, seed: int, options: Mapping[str, Any]) -> FinalLoop:
        """What trains one architecture alone, as train_final.py does with these options (by their full names) on the search's data."""

    def working(self) -> None:
        """To be called now and then within an evaluation: ends it (by an exception) where the run was asked to stop."""


def metrics_of(task: Task) -> frozenset[str]:
    """The names of the metrics that an evaluation by this task gives."""
    return task.gives


def check_share(fidelity: float, shortest: float) -> None:
    """Raises UsageError: a training cannot be cut so short. shortest: one epoch of all."""
    if fidelity < shortest * (1 - 1e-9):
        raise UsageError(f"a share of {fidelity:.3g} of evaluator.epochs={round(1 / shortest)} is less than one epoch, and trainings are "
                         f"cut between epochs: pass evaluator.epochs={math.ceil(1 / fidelity - 1e-9)} or more, or fewer searcher.rungs")
