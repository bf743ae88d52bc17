"""A Gaussian process on distances between architectures, and what it expects of new ones. NumPy only, no randomness."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

# Tried: lengths as multiples of the mean distance of those that are known, noises as shares of the process's own variance. Beyond them lie
# mere noise, and none at all, which ten points easily make likeliest, and which a search should not begin with.
LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
NOISES = (0.01, 0.03, 0.1, 0.3)


class Kernel(NamedTuple):
    """exp(-distance / length), on the diagonal plus `noise`; both times a variance that is estimated with the mean of 0."""

    length: float
    noise: float


def normal_scores(scores: Sequence[float]) -> np.ndarray:
    """(N,) -> (N,): the quantile of the standard normal distribution at each score's rank, equal scores at the mean of theirs. So a model
    takes scores in any unit, with failures far below and minus infinity among them."""
    values = np.asarray(scores, np.float64)
    order = np.sort(values)
    rank = (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2  # from 0.5 to N - 0.5
    inverse = NormalDist().inv_cdf
    return np.array([inverse(p) for p in rank / len(values)])


def fit(distances: np.ndarray, y: np.ndarray) -> Kernel:
    """That of the grid under which y (N,) at these distances (N, N) is likeliest, its variance at its best (Rasmussen & Williams 2006, Eq.
    2.30 and 5.8). The first of equals."""
    n, mean = len(y), distances.sum() / max(1, distances.size - len(y))
    best, found = -math.inf, Kernel(1.0, NOISES[-1])
    for multiple in LENGTHS:
        length = multiple * mean if mean > 0 else 1.0
        values, vectors = np.linalg.eigh(np.exp(-distances / length))
        projected = (vectors.T @ y) ** 2
        for noise in NOISES:
            spectrum = np.maximum(values, 0) + noise
            variance = max(float((projected / spectrum).sum()) / n, 1e-12)
            likelihood = -0.5 * (n * math.log(variance) + float(np.log(spectrum).sum()))
            if likelihood > best:
                best, found = likelihood, Kernel(length, noise)
    return found


def predict(kernel: Kernel, distances: np.ndarray, across: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (M,) of the noiseless value of M others, `across` (N, M) from those known."""
    n, m = across.shape
    k = np.exp(-distances / kernel.length) + kernel.noise * np.eye(n)
    between = np.exp(-across / kernel.length)
    solved = np.linalg.solve(k, np.concatenate([between, y[:, None]], 1))
    variance = max(float(y @ solved[:, m]) / n, 1e-12)
    left = 1 - (between * solved[:, :m]).sum(0)
    return between.T @ solved[:, m], np.sqrt(variance * np.maximum(left, 1e-12))


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Over `best`, of normally distributed values (Mockus 1978; Jones, Schonlau & Welch 1998, Eq. 15)."""
    z = (mean - best) / deviation
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    below = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in z])
    return deviation * (z * below + density)
