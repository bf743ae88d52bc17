"""Language modelling as a task: the next character or word, sequences that go on from batch to batch."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.data.text import TextBatch
from supernet.ranges import Count, NonNegative, ranged
from supernet.tasks.base import Result, State, Task, counted, single
from supernet.tasks.distillation import Distillation, Teacher
from supernet.weights import EdgeWeights

HEADLINES = {"character": "bits_per_character", "word": "perplexity"}


@ranged
class LanguageModel(Task):
    """Cross-entropy of the next item. In training `activation` times the mean square of the outputs after dropout and `temporal` times
    that of their change from one time to the next are added (AR and TAR, Merity et al. 2018, Sec. 4.6; DARTS: 0 and 1e-3); reported
    losses are without them. They also stand in the loss of the architecture parameters, where the official code leaves them out.

    item: `character` or `word`, which decides the headline. bptt: the length at which the learning rate counts fully; shorter
    sequences take a smaller step (Merity et al. 2018, Sec. 4.1).

    distillation: what a training batch learns of a teacher beside (`tasks.distillation`), whose logits are (T * B, vocabulary), time by
    time.
    """

    streams = True

    def __init__(self, *, item: str, bptt: Count, activation: NonNegative = 0.0, temporal: NonNegative = 0.0,
                 distillation: Distillation | None = None):
        if item not in HEADLINES:
            raise ValueError(f"task.item must be {' or '.join(HEADLINES)}, got {item!r}")
        self.item, self.bptt, self.activation, self.temporal = item, bptt, activation, temporal
        self.distillation = distillation

    def __call__(self, net: nn.Module, batch: TextBatch, weights: EdgeWeights | None = None, *, state: State = None,
                 generator: torch.Generator | None = None) -> Result:
        inputs, targets, fresh = batch
        out = net(inputs, weights, state=None if fresh else state, generator=generator)
        loss = reported = F.cross_entropy(single(out.logits).flatten(0, 1), targets.flatten())
        if net.training and self.distillation is not None:
            loss = self.distillation(loss, out.logits.flatten(0, 1), inputs)
        if net.training and self.activation:
            loss = loss + self.activation * out.dropped.square().mean()
        if net.training and self.temporal and len(out.raw) > 1:
            loss = loss + self.temporal * out.raw.diff(dim=0).square().mean()
        return Result(loss, counted(reported, out.logits, targets), out.state)

    def for_classes(self, counts: Sequence[int], device: torch.device) -> "LanguageModel":
        return self

    def taught_by(self, teacher: Teacher, temperature: float, weight: float) -> "LanguageModel":
        """The same, learning of a teacher too."""
        made = copy.copy(self)
        made.distillation = Distillation(teacher, temperature=temperature, weight=weight)
        return made

    def teaching(self, output: Any) -> Tensor:
        """What others learn of a network by what it put out: logits (T * B, vocabulary), detached."""
        return output.logits.detach().flatten(0, 1)

    def network_options(self) -> dict[str, Any]:
        return {}

    def metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        loss = means["loss"]
        return dict(means) | {"perplexity": math.exp(min(loss, 700.0)), f"bits_per_{self.item}": loss / math.log(2)}

    def rows(self, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        names = [HEADLINES[self.item], *(name for name in ("perplexity", f"bits_per_{self.item}") if name != HEADLINES[self.item])]
        return [(name.replace("_", " "), f"{metrics[name]:.3f}") for name in names]

    def lr_factor(self, batch: TextBatch) -> float:
        return len(batch[0]) / self.bptt
