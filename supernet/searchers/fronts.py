"""Several scores at once, all higher is better: who dominates whom, and how crowded a front is."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from supernet.errors import UsageError


def dominated_by(points: np.ndarray) -> np.ndarray:
    """(N, M) -> (N, N): whether point j is at least as good as i in every score and better in one."""
    at_least = (points[None] >= points[:, None]).all(-1)
    return at_least & (points[None] > points[:, None]).any(-1)


def front(points: np.ndarray) -> np.ndarray:
    """Which of the points (N, M) none dominates: (N,) of truth values; equal points are all of the front.

    By falling scores, a point comes after all that dominate it, and one that is dominated is so by a member of the front: N times the
    front's size, and not N times N, is compared.
    """
    points = np.asarray(points, np.float64)
    kept, members = np.zeros(len(points), bool), np.empty_like(points)
    size = 0
    for i in np.lexsort(-points.T[::-1]):
        before = members[:size]
        if not ((before >= points[i]).all(-1) & (before > points[i]).any(-1)).any():
            kept[i], members[size] = True, points[i]
            size += 1
    return kept


def ranks(points: np.ndarray) -> np.ndarray:
    """(N, M) -> (N,): 0 for the front, 1 for the front of the others, and so on (Deb et al. 2002, Sec. III-A)."""
    points = np.asarray(points, np.float64)
    dominated, found = dominated_by(points), np.full(len(points), -1)
    rank = 0
    while (left := found < 0).any():
        found[left & ~dominated[:, left].any(1)] = rank
        rank += 1
    return found


def crowding(points: np.ndarray) -> np.ndarray:
    """(N, M) -> (N,): for each score the distance between a point's two neighbours, as a share of the range, summed; infinite at the ends
    of each score (Deb et al. 2002, Sec. III-B). The points are of one front. Scores without a range, or infinite, tell nothing apart."""
    points = np.asarray(points, np.float64)
    found = np.zeros(len(points))
    for score in points.T:
        order = np.argsort(score, kind="stable")
        low, high = score[order[[0, -1]]]
        found[order[[0, -1]]] = np.inf
        if low < high and np.isfinite([low, high]).all():
            width = high - low
            found[order[1:-1]] += (score[order[2:]] - score[order[:-2]]) / width
    return found


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """The volume that the points (N, M) dominate, above `reference` (M,) in every score. Raises UsageError: moocore is missing."""
    return float(moocore().hypervolume(np.asarray(points, np.float64), ref=np.asarray(reference, np.float64), maximise=True))


def igd_plus(points: np.ndarray, true_front: np.ndarray) -> float:
    """The mean distance from each point of the true front (K, M) to what the points (N, M) dominate (Ishibuchi et al. 2015). Raises
    UsageError: moocore is missing."""
    return float(moocore().igd_plus(np.asarray(points, np.float64), ref=np.asarray(true_front, np.float64), maximise=True))


def moocore() -> ModuleType:
    try:
        import moocore
    except ImportError as error:
        raise UsageError(f"the measures of a front need moocore ({error}): pip install \"supernet[search]\"") from error
    return moocore
