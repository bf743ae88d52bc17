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
CLASS_METRICS = ("top5_accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "precision_weighted",
                 "recall_weighted", "f1_weighted", "expected_calibration_error")


@torch.no_grad()
def class_counts(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Sums of a batch from logits (N, K), of single precision at least, and targets (N,), on their device, which does not wait:

    `classes` int64 (3, K), of each class the items predicted rightly, those that there are, those predicted; `top5`, items whose class is
    among the five likeliest; `calibration` float64 (BINS, 3), of the items whose confidence c, the probability of the predicted class, is
    in ((b - 1) / BINS, b / BINS]: how many, how many of them right, the sum of c. Sums of half a million single-precision c are exact in
    double precision, so that their order does not count.
    """
    confidence = logits.softmax(-1).amax(-1).double()
    predicted = logits.argmax(-1)  # of equal ones the same as `tasks.base.counted` takes
    right = predicted == targets
    classes = torch.zeros(3, logits.shape[-1], dtype=torch.int64, device=logits.device)
    ones = torch.ones_like(targets)
    for row, (index, counted) in zip(classes, ((targets, right.long()), (targets, ones), (predicted, ones))):
        row.index_add_(0, index, counted)  # bincount reads the largest index from the device
    likeliest = logits.topk(min(5, logits.shape[-1]), sorted=False).indices
    bins = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    rows = torch.stack([torch.ones_like(confidence), right.double(), confidence], dim=1)
    calibration = torch.zeros(BINS, 3, dtype=torch.float64, device=logits.device).index_add_(0, bins, rows)
    return {"classes": classes, "top5": ((likeliest == targets[:, None]).any(-1) | right).sum(), "calibration": calibration}


def class_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`CLASS_METRICS` from the sums of `class_counts` over all batches."""
    table = per_class(sums["classes"])
    support = table["support"]
    found = {"top5_accuracy": 100 * float(sums["top5"]) / support.sum(), "balanced_accuracy": table["recall"][support > 0].mean()}
    for average, weights in (("macro", None), ("weighted", support)):
        found |= {f"{name}_{average}": np.average(table[name], weights=weights) for name in ("precision", "recall", "f1")}
    found["expected_calibration_error"] = calibration_error(sums["calibration"])
    return {name: float(found[name]) for name in CLASS_METRICS}


def per_class(classes: np.ndarray) -> dict[str, np.ndarray]:
    """`precision`, `recall`, `f1` in percent and `support`, the number of items, each (K,), from the counts `classes` (3, K)."""
    right, support, predicted = classes
    return {"precision": _share(right, predicted), "recall": _share(right, support), "f1": _share(2 * right, predicted + support),
            "support": support}


def calibration_error(calibration: np.ndarray) -> float:
    """The mean over all items of |accuracy - confidence| of their bin, in percent (Guo et al. 2017, eq. 3); `calibration` is (BINS, 3)."""
    count, right, confidence = calibration.T
    return float(100 * np.abs(right - confidence).sum() / count.sum())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return 100 * np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
