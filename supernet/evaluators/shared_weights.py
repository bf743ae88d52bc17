"""Architectures evaluated with the weights of a trained supernet (Bender et al. 2018; SPOS, Guo et al. 2020, Sec. 3.3)."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from ops.op import BatchNorm
from supernet.evaluators.base import Offer, SearchEvaluator, metrics_of
from supernet.genotype import Genotype
from supernet.networks.stacked import batch_norms
from supernet.processes.group import ALONE, Group
from supernet.ranges import Count, Share, ranged
from supernet.space import Space
from supernet.tasks.base import Batch, Task
from supernet.training.evaluate import evaluate
from supernet.trials import Evaluation
from supernet.weights import EdgeWeights, one_hot

Statistics = Literal["recalibrated", "batch", "running"]
Found = TypeVar("Found")


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
        self._prepare = modes[statistics]

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        (found,) = self.stream([genotype])
        return found

    def stream(self, genotypes: Iterable[Genotype]) -> Iterator[dict[str, float]]:
        """The metrics of one architecture after the other, equal to those of single calls. The supernet is as it was found once the stream
        has ended or is closed, and is to be left alone until then: it is looked after once, not for each architecture."""
        p = next(self.net.parameters())
        weights = (one_hot(self.space, genotype, dtype=p.dtype, device=p.device) for genotype in genotypes)
        return self.each(weights, lambda w: evaluate(self.net, self.task, self.batches, lambda: w, self.generator, group=self.group))

    def each(self, weights: Iterable[EdgeWeights], read: Callable[[EdgeWeights], Found]) -> Iterator[Found]:
        """What `read` finds in the network, prepared for these weights, one after the other: any weights, not those of a genotype alone."""
        with as_found(self.net, self.norms, self.generator) as start:
            self.net.eval()
            for w in weights:
                self.generator.set_state(start)
                with torch.no_grad():
                    self._prepare(w)
                    found = read(w)
                yield found

    def _recalibrate(self, weights: EdgeWeights) -> None:
        """The mean of the batches' statistics, with equal weights. Only norms are in training mode: dropout would widen what they see."""
        means, variances = [n.running_mean for n in self.norms], [n.running_var for n in self.norms]
        if not self.norms:
            return
        torch._foreach_zero_([*means, *variances])
        for n, batch in enumerate(self.calibration):
            self._set(training=True, momentum=1 / (n + 1))
            with self.group.counting(batch):
                self.task(self.net, batch, weights, generator=self.group.own(self.generator))
        self._set(training=False)
        zero = torch.cat(variances) == 0  # of ops that did not run, and of channels without any variance: those become 1
        torch._foreach_add_(variances, list(zero.to(variances[0].dtype).split([len(v) for v in variances])))

    def _by_batch(self, weights: EdgeWeights) -> None:
        self._set(by_batch=True)

    def _set(self, **values: float | bool) -> None:
        """Plain attributes of the norms, hundreds of them, without all that `Module.__setattr__` looks up first."""
        for norm in self.norms:
            vars(norm).update(values)


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

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        whole = len(self.val)
        size = min(whole, max(1, round(fidelity * whole)))
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
        batches = _First(self.val, size, self.offer.working)
        if size not in self._by_size:
            offer = self.offer
            self._by_size[size] = SharedWeights(self.net, offer.space, offer.task, batches, offer.generator("evaluation"),
                                                statistics=self.statistics, calibration=self._calibration)
        shared = self._by_size[size]
        shared.batches = batches
        return Evaluation(shared(genotype), images=batches.seen_in_a_pass() + self._calibration_images)


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
