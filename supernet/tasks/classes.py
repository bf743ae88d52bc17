"""What is counted class by class in an evaluation, and what is made of it: precision, recall, F1, calibration.

All shares are in percent, as `accuracy` is. Where one is undefined, because nothing was predicted of a class or a class has no items, it is
0, as scikit-learn's with zero_division=0; means are over all classes that the network tells apart, as scikit-learn's with all of them as
`labels`. Only `balanced_accuracy` is over the classes that have items, as scikit-learn's.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

BINS = 15  # of equal width, as Guo et al. 2017
# What `class_metrics` gives, and each in words.
CLASS_METRICS: Mapping[str, str] = {
    "top5_accuracy": "top-5 accuracy", "balanced_accuracy": "balanced accuracy",
    "precision_macro": "precision, macro", "recall_macro": "recall, macro", "f1_macro": "F1, macro",
    "precision_weighted": "precision, weighted", "recall_weighted": "recall, weighted", "f1_weighted": "F1, weighted",
    "expected_calibration_error": "expected calibration error"}


@torch.no_grad()
def class_counts(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Sums of a batch from logits (N, K), of single precision at least, and targets (N,), on their device, which does not wait:

    `confusion` int64 (K, K), items by true class (rows) and predicted class; `top5`, items whose class is among the five likeliest;
    `calibration` float64 (BINS, 3), for those whose confidence c, the probability of the predicted class, is in ((b - 1) / BINS, b / BINS]:
    how many, how many of them correct, the sum of c. Sums of half a million single-precision c are exact in double precision, so that
    their order does not count.
    """
    classes = logits.shape[-1]
    confidence = logits.softmax(-1).amax(-1).double()
    predicted = logits.argmax(-1)  # of equal ones the same as `tasks.base.counted` takes
    correct = predicted == targets
    # index_add_ and not bincount, which reads the largest value from the device.
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=logits.device)
    confusion.index_add_(0, targets * classes + predicted, torch.ones_like(targets))
    likeliest = logits.topk(min(5, classes), sorted=False).indices
    bins = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    rows = torch.stack([torch.ones_like(confidence), correct.double(), confidence], dim=1)
    calibration = torch.zeros(BINS, 3, dtype=torch.float64, device=logits.device).index_add_(0, bins, rows)
    return {"confusion": confusion.view(classes, classes), "top5": ((likeliest == targets[:, None]).any(-1) | correct).sum(),
            "calibration": calibration}


def class_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`CLASS_METRICS` from the sums of `class_counts` over all batches."""
    confusion = sums["confusion"]
    count, support = confusion.sum(), confusion.sum(1)
    found = {"top5_accuracy": 100 * float(sums["top5"]) / count}
    table = per_class(confusion)
    found["balanced_accuracy"] = float(table["recall"][support > 0].mean())
    for average, weight in (("macro", None), ("weighted", support)):
        found |= {f"{name}_{average}": float(np.average(table[name], weights=weight)) for name in ("precision", "recall", "f1")}
    found["expected_calibration_error"] = calibration_error(sums["calibration"])
    return {name: float(found[name]) for name in CLASS_METRICS}


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """`precision`, `recall`, `f1` in percent and `support`, the number of items, each (K,), from a confusion matrix (K, K)."""
    hits, support, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    return {"precision": _share(hits, predicted), "recall": _share(hits, support), "f1": _share(2 * hits, predicted + support),
            "support": support}


def calibration_error(calibration: np.ndarray) -> float:
    """The mean over all items of |accuracy - confidence| of their bin, in percent (Guo et al. 2017, eq. 3); `calibration` is (BINS, 3)."""
    count, correct, confidence = calibration.T
    return float(100 * np.abs(correct - confidence).sum() / count.sum())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return 100 * np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
