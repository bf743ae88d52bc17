"""Architectures evaluated with the weights of a trained supernet (Bender et al. 2018; SPOS, Guo et al. 2020, Sec. 3.3)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from ops.op import BatchNorm
from supernet.genotype import Genotype
from supernet.network import batch_norms
from supernet.space import Space
from supernet.task import Batch, Task
from supernet.train import evaluate
from supernet.weights import EdgeWeights, one_hot

Statistics = Literal["recalibrated", "batch", "running"]


class SharedWeights:
    """The task's metrics of one architecture in the supernet; only its ops run, no network is built, and the supernet is left as found.

    batches: what is evaluated on, in order. statistics, of the batch norms: `recalibrated`, the mean over `calibration` batches
    run with this architecture (SPOS); `batch`, those of each evaluated batch; `running`, as the supernet's training left them,
    averaged over all architectures, with which accuracies mean little.
    """

    def __init__(self, net: nn.Module, space: Space, task: Task, batches: Iterable[Batch], generator: torch.Generator, *,
                 statistics: Statistics = "recalibrated", calibration: Sequence[Batch] = ()):
        modes: dict[str, Callable[[EdgeWeights], None]] = {"recalibrated": self._recalibrate, "batch": self._by_batch,
                                                           "running": lambda weights: None}
        if statistics not in modes:
            raise ValueError(f"statistics must be {', '.join(modes)}, got {statistics!r}")
        if statistics == "recalibrated" and not len(calibration):
            raise ValueError("recalibrated statistics need calibration batches, got none")
        self.net, self.space, self.task, self.batches, self.generator = net, space, task, batches, generator
        self.calibration, self.norms = calibration, [n for n in batch_norms(net) if n.running_mean is not None]
        self._prepare = modes[statistics]

    @torch.no_grad()
    def __call__(self, genotype: Genotype) -> dict[str, float]:
        p = next(self.net.parameters())
        weights = one_hot(self.space, genotype, dtype=p.dtype, device=p.device)
        with as_found(self.net, self.norms, self.generator):
            self._prepare(weights)
            return evaluate(self.net, self.task, self.batches, lambda: weights, self.generator)

    def _recalibrate(self, weights: EdgeWeights) -> None:
        """The mean of the batches' statistics, with equal weights. Only norms are in training mode: dropout would widen what they see."""
        self.net.eval()
        for norm in self.norms:
            norm.train(), norm.running_mean.zero_(), norm.running_var.zero_()
        for n, batch in enumerate(self.calibration):
            for norm in self.norms:
                norm.momentum = 1 / (n + 1)
            self.task(self.net, batch, weights, generator=self.generator)
        for norm in self.norms:  # of ops that did not run
            norm.running_var.masked_fill_(norm.running_var == 0, 1.0)

    def _by_batch(self, weights: EdgeWeights) -> None:
        for norm in self.norms:
            norm.by_batch = True


@contextmanager
def as_found(net: nn.Module, norms: Sequence[BatchNorm], generator: torch.Generator) -> Iterator[None]:
    """Afterwards mode, statistics and generator are what they were before, bit for bit."""
    training, state = net.training, generator.get_state()
    kept = [(norm.running_mean.clone(), norm.running_var.clone(), norm.momentum) for norm in norms]
    try:
        yield
    finally:
        net.train(training)
        generator.set_state(state)
        for norm, (mean, var, momentum) in zip(norms, kept):
            norm.running_mean.copy_(mean), norm.running_var.copy_(var)
            norm.momentum, norm.by_batch = momentum, False
