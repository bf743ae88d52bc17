"""How well one list of numbers orders another: rank correlations and precision at the top. O(n^2) and plain."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    low: float
    high: float


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 for the smallest; equal values share the mean of theirs. (N,) -> (N,)"""
    smaller = (values[None] < values[:, None]).sum(1)
    return smaller + ((values[None] == values[:, None]).sum(1) + 1) / 2


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho: Pearson's correlation of the ranks; NaN where one list is constant."""
    return _correlation(ranks(a), ranks(b))


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b, (concordant - discordant) / sqrt(pairs not tied in a * pairs not tied in b); NaN where one list is constant."""
    upper = np.triu_indices(len(a), 1)
    first, second = np.sign(a[:, None] - a[None])[upper], np.sign(b[:, None] - b[None])[upper]
    norm = np.sqrt(float((first != 0).sum()) * float((second != 0).sum()))
    return float((first * second).sum() / norm) if norm else float("nan")


def kendall_interval(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, *, level: float = 0.95, resamples: int = 1000) -> Interval:
    """Percentile bootstrap over the pairs (a_i, b_i) (Efron 1979). Resampled lists hold equal pairs, which tau-b allows for."""
    draws = (rng.integers(len(a), size=len(a)) for _ in range(resamples))
    found = np.array([kendall(a[i], b[i]) for i in draws])
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def precision_at(estimate: np.ndarray, truth: np.ndarray, percent: float) -> float:
    """Of the `percent` of entries with the highest estimates, the share (percent) that is among as many with the highest truth. Chance
    reaches `percent`. Ties are broken by position."""
    n = max(1, round(len(truth) * percent / 100))
    return 100 * len(set(_top(estimate, n)) & set(_top(truth, n))) / n


def _top(values: np.ndarray, n: int) -> list[int]:
    return np.argsort(-values, kind="stable")[:n].tolist()


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm else float("nan")
