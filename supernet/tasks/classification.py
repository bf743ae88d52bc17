"""Classification of images."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.errors import UsageError
from supernet.ranges import Fraction, NonNegative, ranged
from supernet.tasks.base import Batch, Result, State, Task, counted, means, single
from supernet.tasks.classes import CLASS_METRICS, class_counts, class_metrics
from supernet.tasks.distillation import Distillation, Teacher
from supernet.tasks.mixing import Mixed, Mixing
from supernet.weights import EdgeWeights

SCORES = ("precision", "recall", "f1")
OTHERS = {"top-5 accuracy": "top5_accuracy", "balanced accuracy": "balanced_accuracy",
          "calibration error": "expected_calibration_error"}


@ranged
class Classification(Task):
    """Cross-entropy. With `auxiliary_weight` a training batch adds that much of the auxiliary head's loss; reported losses and
    accuracies are the main head's. `label_smoothing` and `class_weights` act in training only: the loss of an evaluation is the plain
    negative log likelihood.

    class_weights: a number for each class, at least 0, by which its images count; a batch's loss is the weighted mean. `balanced`: in
    inverse proportion to the images of a class that train, N / (K n_k) with N images of K classes, n_k of class k. mixing: of the images
    and labels of a training batch (`tasks.mixing`); its accuracy then counts the labels that were there before. distillation: what a
    training batch learns of a teacher beside (`tasks.distillation`).
    """

    streams = False

    def __init__(self, *, label_smoothing: Fraction = 0.0, auxiliary_weight: NonNegative = 0.0,
                 class_weights: Literal["balanced"] | Sequence[NonNegative] | None = None, mixing: Mixing | None = None,
                 distillation: Distillation | None = None):
        if class_weights is not None and class_weights != "balanced" and not any(class_weights):
            raise UsageError(f"task.class_weights must have a number above 0, one for each class, got {class_weights}")
        self.label_smoothing, self.auxiliary_weight, self.class_weights = label_smoothing, auxiliary_weight, class_weights
        self.mixing, self.distillation = mixing, distillation
        self._weight: Tensor | None = None  # (K,), float32

    def for_classes(self, counts: Sequence[int], device: torch.device) -> "Classification":
        """Raises UsageError: as many weights as classes are needed."""
        weights = balanced_weights(counts) if self.class_weights == "balanced" else self.class_weights
        made = Classification(label_smoothing=self.label_smoothing, auxiliary_weight=self.auxiliary_weight, class_weights=weights,
                              mixing=self.mixing, distillation=self.distillation)
        if weights is not None:
            if len(weights) != len(counts):
                raise UsageError(f"task.class_weights must be one number for each of the {len(counts)} classes, got {len(weights)}")
            made._weight = torch.tensor(weights, dtype=torch.float32, device=device)
        return made

    def taught_by(self, teacher: Teacher, temperature: float, weight: float) -> "Classification":
        """The same, bound to the same classes, learning of a teacher too."""
        made = copy.copy(self)
        made.distillation = Distillation(teacher, temperature=temperature, weight=weight)
        return made

    def teaching(self, output: Tensor) -> Tensor:
        """What others learn of a network by what it put out: logits (B, K), detached."""
        return output.detach()

    def _loss(self, logits: Tensor, targets: Tensor, training: bool) -> Tensor:
        logits = single(logits)
        if not training:
            return F.cross_entropy(logits, targets)
        weight = None if self._weight is None else self._weight.to(logits.dtype)
        return F.cross_entropy(logits, targets, weight=weight, label_smoothing=self.label_smoothing)

    def _training_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None) -> Tensor:
        if mixed is None:
            return self._loss(logits, targets, training=True)
        return mixed.loss(lambda labels: self._loss(logits, labels, training=True))

    def __call__(self, net: nn.Module, batch: Batch, weights: EdgeWeights | None = None, *, state: State = None,
                 generator: torch.Generator | None = None) -> Result:
        x, y = batch
        mixed = self.mixing(x, y, generator) if net.training and self.mixing is not None else None
        if mixed is not None:
            x = mixed.images
        if net.training and self.auxiliary_weight:
            logits, extra = net(x, weights, generator=generator, auxiliary=True)
            reported = self._training_loss(logits, y, mixed)
            loss = reported + self.auxiliary_weight * self._training_loss(extra, y, mixed)
        else:
            logits = net(x, weights, generator=generator)
            loss = reported = self._training_loss(logits, y, mixed) if net.training else self._loss(logits, y, training=False)
        if net.training and self.distillation is not None:
            loss = self.distillation(loss, logits, x)
        stats = counted(reported, logits, y) | ({} if net.training else class_counts(single(logits), y))
        if net.training and self._weight is not None:
            stats["weight"] = self._weight.to(logits.dtype)[y].sum()  # of the labels that mixing adds too, for they are the same ones
        return Result(loss, stats)

    def network_options(self) -> dict[str, Any]:
        return {"auxiliary": True} if self.auxiliary_weight else {}

    def metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        return dict(means)

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"loss", "accuracy", *CLASS_METRICS})

    def evaluated(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        return means(sums) | (class_metrics(sums) if sums else dict.fromkeys(CLASS_METRICS, float("nan")))

    def logits(self, output: Tensor) -> Tensor:
        return single(output)

    def rows(self, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        rows = [("accuracy", f"{metrics['accuracy']:.2f} %"), ("error", f"{100 - metrics['accuracy']:.2f} %")]
        if metrics.keys() >= set(CLASS_METRICS):  # not known of training
            rows += [(f"precision, recall, F1 ({average})", ", ".join(f"{metrics[f'{name}_{average}']:.2f}" for name in SCORES) + " %")
                     for average in ("macro", "weighted")]
            rows += [(name, f"{metrics[key]:.2f} %") for name, key in OTHERS.items()]
        return rows

    def lr_factor(self, batch: Batch) -> float:
        return 1.0


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """N / (K n_k) of the K classes that have images; 1 of the others, which no loss meets."""
    present = sum(count > 0 for count in counts)
    return [sum(counts) / (present * count) if count else 1.0 for count in counts]
