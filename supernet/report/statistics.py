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
    return float(_taus(a, b, np.ones((1, len(a)), np.float32))[0])


def kendall_interval(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, *, level: float = 0.95, resamples: int = 1000) -> Interval:
    """Percentile bootstrap over the pairs (a_i, b_i) (Efron 1979). Resampled lists hold equal pairs, which tau-b allows for. NaN where
    one list is constant."""
    counts = np.stack([np.bincount(rng.integers(len(a), size=len(a)), minlength=len(a)) for _ in range(resamples)])
    found = _taus(a, b, counts.astype(np.float32))
    found = found[~np.isnan(found)]  # lists that happened to be constant
    if not len(found):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _taus(a: np.ndarray, b: np.ndarray, counts: np.ndarray, *, block: int = 512) -> np.ndarray:
    """tau-b of lists that hold the pair (a_i, b_i) counts[r, i] times: (R, N) -> (R,). Sums over pairs are quadratic forms in the
    counts, so that all lists share the comparisons; single precision is exact, all products being integers below 2^24."""
    sums = np.zeros((3, len(counts)))
    for start in range(0, len(a), block):
        rows = slice(start, start + block)
        x, y = _signs(a, rows), _signs(b, rows)
        for total, pairs in zip(sums, (x * y, abs(x), abs(y))):
            total += (counts[:, rows] * (counts @ pairs.T)).sum(1, dtype=np.float64)
    norm = np.sqrt(sums[1] * sums[2])
    return np.divide(sums[0], norm, out=np.full(len(counts), np.nan), where=norm > 0)


def _signs(values: np.ndarray, rows: slice) -> np.ndarray:
    """The signs of values[i] - values[j], i of `rows`, without the difference: infinities may be compared, not subtracted."""
    return (values[rows, None] > values).astype(np.float32) - (values[rows, None] < values)


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
