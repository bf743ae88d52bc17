"""Several networks asked together: the mean of their class probabilities (Lakshminarayanan et al. 2017), and how good that is."""

from collections.abc import Sequence

import numpy as np
import torch

from supernet.tasks.classes import class_counts, class_metrics

SMALLEST = 1e-12  # a probability of the true class counts as at least so much: float16 and float32 round small ones to 0


def ensembled(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over the networks of (N, K) each, float64."""
    return np.mean([p.astype(np.float64) for p in probabilities], axis=0)


def metrics(probabilities: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Of probabilities (N, K) and labels (N,): `accuracy` and what `tasks.classes` counts, in percent, `loss`, the mean negative log
    likelihood in nats, and `brier`, the mean squared distance from the one-hot label, 0 to 2 (Brier 1950)."""
    p = probabilities.astype(np.float64)
    of_true = p[np.arange(len(true)), true]
    sums = class_counts(torch.from_numpy(np.log(np.maximum(p, SMALLEST))), torch.from_numpy(true))
    return {"accuracy": float(100 * np.mean(p.argmax(1) == true)), "loss": float(-np.log(np.maximum(of_true, SMALLEST)).mean()),
            "brier": float((np.square(p).sum(1) - 2 * of_true + 1).mean()),
            **class_metrics({name: value.numpy() for name, value in sums.items()})}


def disagreement(predicted: Sequence[np.ndarray]) -> float:
    """The share of items, in percent, on which two networks differ, the mean over all pairs. predicted: labels (N,) of two or more."""
    pairs = [np.mean(one != other) for n, one in enumerate(predicted) for other in predicted[:n]]
    return float(100 * np.mean(pairs))
