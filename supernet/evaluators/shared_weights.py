"""Architectures evaluated with the weights of a trained supernet (Bender et al. 2018; SPOS, Guo et al. 2020, Sec. 3.3)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from ops.op import BatchNorm
from supernet.genotype import Genotype
from supernet.networks.stacked import batch_norms
from supernet.processes.group import ALONE, Group
from supernet.space import Space
from supernet.tasks.base import Batch, Task
from supernet.training.evaluate import evaluate
from supernet.weights import EdgeWeights, one_hot

Statistics = Literal["recalibrated", "batch", "running"]


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
        with as_found(self.net, self.norms, self.generator) as start:
            self.net.eval()
            for genotype in genotypes:
                weights = one_hot(self.space, genotype, dtype=p.dtype, device=p.device)
                self.generator.set_state(start)
                with torch.no_grad():
                    self._prepare(weights)
                    found = evaluate(self.net, self.task, self.batches, lambda: weights, self.generator, group=self.group)
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
