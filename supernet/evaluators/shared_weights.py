"""Architectures evaluated with the weights of a trained supernet (Bender et al. 2018; SPOS, Guo et al. 2020, Sec. 3.3)."""

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from ops.op import BatchNorm
from supernet.evaluators.ahead import Ahead, Asked, Found
from supernet.evaluators.base import Offer, SearchEvaluator, metrics_of
from supernet.evaluators.prefixes import Along, Place, places
from supernet.genotype import Genotype
from supernet.networks.stacked import batch_norms
from supernet.networks.steps import Step, steps_of
from supernet.processes.group import ALONE, Group, digest
from supernet.ranges import Count, Share, ranged
from supernet.space import Space
from supernet.tasks.base import Batch, State, Task
from supernet.training.evaluate import add, evaluate, whole
from supernet.training.records import Sums
from supernet.trials import Evaluation
from supernet.weights import EdgeWeights, one_hot

Statistics = Literal["recalibrated", "batch", "running"]
Read = TypeVar("Read")
Metrics = dict[str, float]
AT_ONCE = 32  # architectures of a group: more share more, and are done later
WAITING = 256  # trials that are asked for together at most: then all of them have their turn


class SharedWeights:
    """The task's metrics of one architecture in the supernet; only its ops run, no network is built, and the supernet is left as found.

    batches: what is evaluated on, in order. statistics, of the batch norms: `recalibrated`, the mean over `calibration` batches
    run with this architecture (SPOS); `batch`, those of each evaluated batch; `running`, as the supernet's training left them,
    averaged over all architectures, with which accuracies mean little. group: the processes that have a part of each batch, and
    statistics of their parts.
    """

    def __init__(self, net: nn.Module, space: Space, task: Task, batches: Iterable[Batch], generator: torch.Generator, *,
                 statistics: Statistics = "recalibrated", calibration: Sequence[Batch] = (), group: Group = ALONE):
        modes: dict[str, Callable[[EdgeWeights], None]] = {"recalibrated": self._recalibrate, "batch": self._by_batch,
                                                           "running": lambda weights: None}
        if statistics not in modes:
            raise ValueError(f"statistics must be {', '.join(modes)}, got {statistics!r}")
        if statistics == "recalibrated" and not len(calibration):
            raise ValueError("recalibrated statistics need calibration batches, got none")
        self.net, self.space, self.task, self.batches, self.generator = net, space, task, batches, generator
        self.calibration, self.norms = calibration, [n for n in batch_norms(net) if n.running_mean is not None]
        self.group = group
        self.statistics, self._prepare = statistics, modes[statistics]
        self._along: dict[Statistics, Callable[..., Along]] = {"recalibrated": self._along_recalibrated, "batch": self._along_by_batch,
                                                               "running": self._along_running}
        self._of_module: dict[nn.Module, list[torch.Tensor]] = {}

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        (found,) = self.stream([genotype])
        return found

    def stream(self, genotypes: Iterable[Genotype]) -> Iterator[dict[str, float]]:
        """The metrics of one architecture after the other, equal to those of single calls. The supernet is as it was found once the stream
        has ended or is closed, and is to be left alone until then: it is looked after once, not for each architecture."""
        p = next(self.net.parameters())
        weights = (one_hot(self.space, genotype, dtype=p.dtype, device=p.device) for genotype in genotypes)
        return self.each(weights, lambda w: evaluate(self.net, self.task, self.batches, lambda: w, self.generator, group=self.group))

    def each(self, weights: Iterable[EdgeWeights], read: Callable[[EdgeWeights], Read]) -> Iterator[Read]:
        """What `read` finds in the network, prepared for these weights, one after the other: any weights, not those of a genotype alone."""
        with as_found(self.net, self.norms, self.generator) as start:
            self.net.eval()
            for w in weights:
                self.generator.set_state(start)
                with torch.no_grad():
                    self._prepare(w)
                    found = read(w)
                yield found

    def population(self, genotypes: Sequence[Genotype], *, working: Callable[[], None] = lambda: None
                   ) -> Iterator[list[tuple[int, Metrics]]]:
        """The metrics of many architectures, each with its number among them, in groups as they are done.

        In chains they are those of single calls, bit for bit, and what architectures begin with alike is computed once: a group, neighbours
        in the tree of their steps, sees a batch one after the other, and what it gave is kept no longer than that; so batches are read once
        a group, too, and the supernet is as it was found whenever a group is given. Other networks are a `stream`, and each architecture is
        a group: stacked cells have little in common before they part, and keeping statistics by place costs as much. working: called
        before each forward pass of a chain."""
        p = next(self.net.parameters())
        weights = [one_hot(self.space, genotype, dtype=p.dtype, device=p.device) for genotype in genotypes]
        steps = [steps_of(self.net, w) for w in weights]
        if any(own is None for own in steps):
            yield from ([one] for one in enumerate(self.stream(genotypes)))
            return
        paths = places([step.choice for step in own] for own in steps)
        ways = sorted(map(_Way, range(len(paths)), weights, steps, paths), key=lambda way: way.path)
        for begin in range(0, len(ways), AT_ONCE):
            group = ways[begin:begin + AT_ONCE]
            with as_found(self.net, self.norms, self.generator):
                self.net.eval()
                found = self._together(group, working)
            yield [(way.number, self.task.evaluated(sums)) for way, sums in zip(group, found)]

    @torch.no_grad()
    def _together(self, ways: "Sequence[_Way]", working: Callable[[], None]) -> list[dict[str, np.ndarray]]:
        """The sums of the evaluation of each. ways: sorted by their paths."""
        found: list[tuple[Sums, State]] = [(Sums(), None) for _ in ways]
        along = self._along[self.statistics](ways, working)
        for batch in self.batches:
            for n, way in enumerate(ways):
                working()
                sums, state = found[n]
                along.follow(way.steps, way.path)
                found[n] = sums, add(sums, along, self.task, batch, way.weights, self.generator, self.group, state)
            along.forget()
        return [whole(sums, self.group) for sums, _ in found]

    def _along_recalibrated(self, ways: "Sequence[_Way]", working: Callable[[], None]) -> Along:
        """As `_recalibrate`, step by step: a norm's statistics depend on the steps before it alone, and are kept by place."""
        kept: dict[Place, list[torch.Tensor]] = {}

        def calibrated(step: Step, place: Place, reached: Any, generator: torch.Generator | None) -> Any:
            live = self._running(step.module)
            copy(live, kept[place] if place in kept else [torch.zeros_like(value) for value in live])
            reached = step.run(reached, generator)
            kept[place] = [value.clone() for value in live]
            return reached

        along = Along(calibrated)
        for n, batch in enumerate(self.calibration):
            _set(self.norms, training=True, momentum=1 / (n + 1))
            for way in ways:
                working()
                along.follow(way.steps, way.path)
                with self.group.counting(batch):
                    self.task(along, batch, way.weights, generator=self.group.own(self.generator))
            along.forget()
        _set(self.norms, training=False)
        for values in kept.values():
            ones_for_zeros(values[len(values) // 2:])

        def evaluated(step: Step, place: Place, reached: Any, generator: torch.Generator | None) -> Any:
            copy(self._running(step.module), kept[place])
            return step.run(reached, generator)

        return Along(evaluated)

    def _running(self, module: nn.Module) -> list[torch.Tensor]:
        """The running averages of its norms, all means before all variances."""
        if module not in self._of_module:
            norms = [norm for norm in batch_norms(module) if norm.running_mean is not None]
            self._of_module[module] = [*(norm.running_mean for norm in norms), *(norm.running_var for norm in norms)]
        return self._of_module[module]

    def _along_by_batch(self, ways: "Sequence[_Way]", working: Callable[[], None]) -> Along:
        _set(self.norms, by_batch=True)
        return self._along_running(ways, working)

    def _along_running(self, ways: "Sequence[_Way]", working: Callable[[], None]) -> Along:
        return Along(lambda step, place, reached, generator: step.run(reached, generator))

    def _recalibrate(self, weights: EdgeWeights) -> None:
        recalibrate(self.net, self.norms, self.task, self.calibration, weights, self.generator, self.group)

    def _by_batch(self, weights: EdgeWeights) -> None:
        _set(self.norms, by_batch=True)


def recalibrate(net: nn.Module, norms: Sequence[BatchNorm], task: Task, batches: Iterable[Batch], weights: EdgeWeights | None,
                generator: torch.Generator, group: Group = ALONE) -> None:
    """Gives the norms of a network in evaluation mode the mean of the batches' statistics, with equal weights. Only norms are in training
    mode meanwhile: dropout would widen what they see. To be called without gradients."""
    means, variances = [n.running_mean for n in norms], [n.running_var for n in norms]
    if not norms:
        return
    momenta = [n.momentum for n in norms]
    torch._foreach_zero_([*means, *variances])
    for n, batch in enumerate(batches):
        _set(norms, training=True, momentum=1 / (n + 1))
        with group.counting(batch):
            task(net, batch, weights, generator=group.own(generator))
    for norm, momentum in zip(norms, momenta):
        _set([norm], training=False, momentum=momentum)
    ones_for_zeros(variances)  # of ops that did not run, and of channels without any variance


def _set(norms: Iterable[BatchNorm], **values: float | bool) -> None:
    """Plain attributes of the norms, hundreds of them, without all that `Module.__setattr__` looks up first."""
    for norm in norms:
        vars(norm).update(values)


class _Way(NamedTuple):
    """An architecture of a population, and its way through the tree of all steps."""

    number: int
    weights: EdgeWeights
    steps: Sequence[Step]
    path: tuple[Place, ...]


def copy(into: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    """Of a module without norms there are none."""
    if into:
        torch._foreach_copy_(into, values)


def ones_for_zeros(variances: list[torch.Tensor]) -> None:
    """In place, of one type."""
    if variances:
        zero = torch.cat(variances) == 0
        torch._foreach_add_(variances, list(zero.to(variances[0].dtype).split([len(v) for v in variances])))


@contextmanager
def as_found(net: nn.Module, norms: Sequence[BatchNorm], generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Afterwards every module's mode, statistics and generator are what they were before, bit for bit. Gives the generator's state."""
    modes, state = [(module, module.training) for module in net.modules()], generator.get_state()
    statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var)]
    kept, settings = [s.clone() for s in statistics], [(norm.momentum, norm.by_batch) for norm in norms]
    try:
        yield state
    finally:
        for module, training in modes:
            module.training = training
        generator.set_state(state)
        if kept:
            with torch.no_grad():
                torch._foreach_copy_(statistics, kept)
        for norm, (momentum, by_batch) in zip(norms, settings):
            norm.momentum, norm.by_batch = momentum, by_batch


@ranged
class OverSupernet(SearchEvaluator):
    """The same for the trials of a search (`searcher=...`): each architecture on the validation part, or on its first batches where the
    searcher asks for a share of it (`fidelity`; `searcher=successive_halving` so screens many architectures on few batches).

    calibration_batches: of the training part, drawn once, the same for every architecture. With `screen_batches` each architecture is
    first evaluated on so many batches, and wholly only where it is promising: where its accuracy there is among the best `screen_share` of
    `screen_of` random architectures. What is not promising keeps what the first batches gave.
    """

    shortens = True

    def __init__(self, offer: Offer, *, statistics: Statistics = "recalibrated", calibration_batches: Count = 10,
                 screen_batches: Count | None = None, screen_share: Share = 0.5, screen_of: Count = 20):
        self.offer, self.statistics, self.calibration_batches = offer, statistics, calibration_batches
        self.screen_batches, self.screen_share, self.screen_of = screen_batches, screen_share, screen_of
        self.val = offer.loaders.val_eval
        offer.net  # noqa: B018  (both asked for now: what they lack is said before any work)
        self.gives = metrics_of(offer.task)
        self._by_size: dict[int, SharedWeights] = {}
        if screen_batches is not None:
            images = sum(items(batch) for batch in itertools.islice(self.val, screen_batches))
            self.val.restart()
            self.images_before = screen_of * (images + self._calibration_images)

    @property
    def net(self) -> nn.Module:
        """As it stands: each stage of a search has its own."""
        return self.offer.net

    @cached_property
    def together(self) -> bool:
        """Chains share what they begin with."""
        any_one = one_hot(self.offer.space, self.offer.space.sample(random.Random(0)))
        return steps_of(self.net, any_one) is not None

    def population(self, asked: Sequence[Asked]) -> Iterator[Found]:
        if not self.together:  # a checkpoint may be written while this waits, and a stream has not looked after the supernet then
            yield from super().population(asked)
            return
        for begin in range(0, len(asked), WAITING):
            yield from self._in_turn(asked[begin:begin + WAITING])

    def _in_turn(self, asked: Sequence[Asked]) -> Iterator[Found]:
        ahead = Ahead(self.offer.folder, digest([self.net.state_dict(), self.statistics, self.calibration_batches, self.screen_batches,
                                                 self.screen_share, self.screen_of]), self.offer.space)
        done = ahead.known()
        news = self._as_done([one for one in dict.fromkeys(asked) if one not in done])
        turns = 0
        try:
            for one in asked:
                while one not in done:
                    for key, found in next(news):
                        done[key] = found
                        ahead.add(key, found)
                turns += 1
                yield done[one]
        finally:  # who asks may leave with the last one
            if turns == len(asked):
                ahead.clear()

    def _as_done(self, asked: Sequence[Asked]) -> Iterator[list[tuple[Asked, Found]]]:
        """What the evaluator finds of each, in groups, with equal parts of the seconds that a group took."""
        since = time.perf_counter()
        for size in dict.fromkeys(self._size(fidelity) for _, fidelity in asked):
            own = [one for one in asked if self._size(one[1]) == size]
            for group in self._screened([genotype for genotype, _ in own], size):
                now = time.perf_counter()
                yield [(own[n], (found, (now - since) / len(group))) for n, found in group]
                since = time.perf_counter()

    def _screened(self, genotypes: Sequence[Genotype], size: int) -> Iterator[list[tuple[int, Evaluation]]]:
        """As a call does with each, with its number among them."""
        if self.screen_batches is None or size <= self.screen_batches:
            yield from self._evaluated_together(genotypes, size)
            return
        least, promising = self._promising, []
        for group in self._evaluated_together(genotypes, self.screen_batches):
            promising += [one for one in group if one[1].metrics["accuracy"] >= least]
            if enough := [one for one in group if not one[1].metrics["accuracy"] >= least]:
                yield enough
        for group in self._evaluated_together([genotypes[n] for n, _ in promising], size):
            yield [(promising[k][0], wholly._replace(images=wholly.images + promising[k][1].images)) for k, wholly in group]

    def _size(self, fidelity: float) -> int:
        """Batches."""
        return min(len(self.val), max(1, round(fidelity * len(self.val))))

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        size = self._size(fidelity)
        if self.screen_batches is None or size <= self.screen_batches:
            return self._evaluated(genotype, size)
        found = self._evaluated(genotype, self.screen_batches)
        if not found.metrics["accuracy"] >= self._promising:
            return found
        wholly = self._evaluated(genotype, size)
        return wholly._replace(images=wholly.images + found.images)

    @cached_property
    def _calibration(self) -> list[Batch]:
        """Drawn from a stream of its own, so that it is the same before and after a resume, and in every process."""
        if self.statistics != "recalibrated":
            return []
        train = self.offer.loaders.train
        return list(itertools.islice(train.apart(None, self.offer.generator("calibration")), self.calibration_batches))

    @property
    def _calibration_images(self) -> int:
        return sum(map(items, self._calibration))

    @cached_property
    def _promising(self) -> float:
        """The accuracy on the screening batches from which on an architecture is promising."""
        rng = random.Random(f"{self.offer.seed}/screen")
        space = self.offer.space
        found = sorted((self._evaluated(space.sample(rng), self.screen_batches).metrics["accuracy"] for _ in range(self.screen_of)),
                       reverse=True)
        return found[max(1, round(self.screen_share * len(found))) - 1]

    def _evaluated(self, genotype: Genotype, size: int) -> Evaluation:
        shared, batches = self._of_size(size)
        return Evaluation(shared(genotype), images=batches.seen_in_a_pass() + self._calibration_images)

    def _evaluated_together(self, genotypes: Sequence[Genotype], size: int) -> Iterator[list[tuple[int, Evaluation]]]:
        shared, batches = self._of_size(size)
        for group in shared.population(genotypes, working=self.offer.working):
            yield [(n, Evaluation(metrics, images=batches.seen_in_a_pass() + self._calibration_images)) for n, metrics in group]

    def _of_size(self, size: int) -> "tuple[SharedWeights, _First]":
        batches = _First(self.val, size, self.offer.working)
        if size not in self._by_size:
            offer = self.offer
            self._by_size[size] = SharedWeights(self.net, offer.space, offer.task, batches, offer.generator("evaluation"),
                                                statistics=self.statistics, calibration=self._calibration)
        shared = self._by_size[size]
        shared.batches = batches
        return shared, batches


class _First:
    """The first batches of a part, from its beginning at every walk. working: called before each batch."""

    def __init__(self, loader: Any, size: int, working: Callable[[], None]):
        self.loader, self.size, self.working, self._seen = loader, size, working, 0

    def __iter__(self) -> Iterator[Batch]:
        self.loader.restart()
        self._seen = 0
        for batch in itertools.islice(self.loader, self.size):
            self.working()
            self._seen += items(batch)
            yield batch
        self.loader.restart()

    def seen_in_a_pass(self) -> int:
        return self._seen


def items(batch: Batch) -> int:
    """Images, or characters, of a batch."""
    return batch[1].numel()
