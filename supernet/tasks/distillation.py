"""Knowledge distillation: a network learns from the labels and from another network's probabilities."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.ranges import Positive, Share, ranged

Teacher = Callable[[Tensor], Tensor]  # a batch of images, or of a text, as the network that learns reads it, to logits (B, K)


@ranged
class Distillation:
    """(1 - weight) times the loss of the labels plus weight times T^2 KL(p_teacher || p), both softened by the temperature T: logits / T
    (Hinton et al. 2015, Sec. 2; T^2 keeps the size of the gradient). The teacher sees the very images that the network sees, mixed ones
    too; nothing flows back into it."""

    def __init__(self, teacher: Teacher, *, temperature: Positive = 4.0, weight: Share = 0.9):
        self.teacher, self.temperature, self.weight = teacher, temperature, weight

    def __call__(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = self.teacher(images)
        return (1 - self.weight) * loss + self.weight * softened_divergence(logits, theirs, self.temperature)


def softened_divergence(logits: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(theirs / T) || softmax(logits / T)), the mean over the items, of logits (B, K)."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    ours, target = ((x.to(kind) / temperature).log_softmax(-1) for x in (logits, theirs))
    return temperature**2 * F.kl_div(ours, target, reduction="batchmean", log_target=True)
