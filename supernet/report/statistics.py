"""What is said of several numbers, for all tables, pages and commands: means and spreads, intervals, paired tests, how many runs a verdict
needs; and how well one list of numbers orders another (rank correlations, precision at the top, O(n^2) and plain).

Runs are nested: a search finds an architecture, which is retrained several times. Its searches are what a method is judged by; retrainings
of one architecture say nothing of how the next search would end. So the two spreads are never mixed (`spread`).
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from supernet.ranges import Count, Portion, Positive, Whole, ranged

EXACT = 20  # differences of which all 2^n signs are tried
MOST_DEALS = 200_000  # ways to deal out two lists of which all are tried
MANY_RUNS = 10_000  # more are never asked for


class Interval(NamedTuple):
    low: float
    high: float


NOTHING = Interval(math.nan, math.nan)


# ---- means and spreads


class Sample(NamedTuple):
    """A mean of `n` runs and their standard deviation, which is NaN where it is not known."""

    mean: float
    deviation: float
    n: int


class Spread(NamedTuple):
    """What searches and their retrainings reached. A standard deviation that so few values do not have is NaN."""

    mean: float  # over searches, each with the mean of its retrainings
    searches: int
    over_searches: float  # standard deviation of these means: the next search, retrained as often
    between: float  # the part of it that better retrained architectures would keep: without what retraining adds
    retrainings: int  # in all
    over_retrainings: float  # standard deviation within a search's architecture, pooled over searches


def sample(values: Sequence[float]) -> Sample:
    """Mean and standard deviation (with n - 1) of values, at least one."""
    x = np.asarray(values, np.float64)
    return Sample(float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else math.nan, len(x))


def spread(groups: Sequence[Sequence[float]]) -> Spread:
    """groups: for each search the results of its retrainings, at least one each.

    One-way random effects: the variance of group means is between^2 + mean(1 / n_i) within^2, of which within^2 is the pooled variance
    (Searle, Casella, McCulloch 1992, Sec. 4.6, unweighted means). An estimate of between^2 below 0 is 0.
    """
    means = sample([float(np.mean(group)) for group in groups])
    sizes = np.array([len(group) for group in groups])
    left = int(sizes.sum()) - len(groups)
    within = sum(float(((np.asarray(group) - np.mean(group)) ** 2).sum()) for group in groups) / left if left else math.nan
    added = within * float((1 / sizes).mean()) if left else math.nan
    between = math.sqrt(max(0.0, means.deviation**2 - added)) if left and means.n > 1 else math.nan
    return Spread(means.mean, means.n, means.deviation, between, int(sizes.sum()), math.sqrt(within) if left else math.nan)


@ranged
def best_of(values: Sequence[float], k: Count) -> float:
    """The expected largest of `k` of these values, drawn without replacement: what the best of k searches reaches on average, without bias
    (the mean over all choices of k). NaN for fewer than k. Of a whole finite space see `supernet.tables.yardstick.expected_best_of`."""
    x = np.sort(np.asarray(values, np.float64))
    if len(x) < k:
        return math.nan
    share = np.array([math.comb(i, k - 1) for i in range(len(x))], np.float64) / math.comb(len(x), k)  # that the i-th is the largest
    return float((x * share).sum())


# ---- intervals


@ranged
def mean_interval(values: Sequence[float], rng: np.random.Generator, *, level: Portion = 0.95, resamples: Count = 10_000) -> Interval:
    """Of the mean: the expanded percentile bootstrap (Hesterberg 2015, "What teachers should know about the bootstrap", Sec. 5.3), the
    quantiles of which are those of Student's t, since plain ones are too narrow for few values. It never leaves the range of the values,
    so that of 5 it holds the truth in 94 % of cases at most. NaN for fewer than 2 values.

    Of nested results these are the means of the searches: whole searches are drawn anew (Davison and Hinkley 1997, Sec. 3.8).
    """
    x = np.asarray(values, np.float64)
    if len(x) < 2:
        return NOTHING
    tail = NormalDist().cdf(-math.sqrt(len(x) / (len(x) - 1)) * t_quantile((1 + level) / 2, len(x) - 1))
    means = x[rng.integers(len(x), size=(resamples, len(x)))].mean(1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


@ranged
def median_interval(values: Sequence[float], *, level: Portion = 0.95) -> Interval:
    """Of the median: two of the values themselves, the k-th from either end, where fewer than k of n values lie on one side of the true
    median with a chance of at most (1 - level) / 2 (Conover 1999, Sec. 3.2). It asks nothing of how they are distributed. NaN where even
    the outermost two are too close together, of fewer than 6 values at 95 %."""
    x, n = np.sort(np.asarray(values, np.float64)), len(values)
    tail, k = 0.5**n, 0
    while tail <= (1 - level) / 2:
        k += 1
        tail += math.comb(n, k) * 0.5**n
    return Interval(float(x[k - 1]), float(x[n - k])) if k else NOTHING


@ranged
def difference_interval(a: Sample, b: Sample, *, level: Portion = 0.95) -> Interval:
    """Of the difference of the true means, a - b (Welch 1947). Both have a deviation and n >= 1; one of a single run counts with its
    deviation, which somebody knew from elsewhere, and no degree of freedom of its own. NaN where a deviation is not known."""
    parts = [(s.deviation**2 / s.n, s.n - 1) for s in (a, b)]
    variance = parts[0][0] + parts[1][0]
    if math.isnan(variance):
        return NOTHING
    spent = sum(part**2 / df for part, df in parts if df)
    df = min(variance**2 / spent, 1e6) if spent else float(max(sum(df for _, df in parts), 1))
    half = t_quantile((1 + level) / 2, df) * math.sqrt(variance)
    return Interval(a.mean - b.mean - half, a.mean - b.mean + half)


@ranged
def share_interval(hits: Whole, n: Count, *, level: Portion = 0.95) -> Interval:
    """Of a share, of which `hits` of `n` independent trials were seen (Wilson 1927). Raises ValueError: more hits than trials."""
    if hits > n:
        raise ValueError(f"hits must be at most n, got {hits} of {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, wide = hits / n, z * z / n
    middle, half = share + wide / 2, z * math.sqrt(share * (1 - share) / n + wide / n / 4)
    return Interval(max(0.0, (middle - half) / (1 + wide)), min(1.0, (middle + half) / (1 + wide)))


class Paired(NamedTuple):
    """A difference of two shares of the same items, its standard error and interval, all as shares."""

    difference: float
    standard_error: float
    low: float
    high: float


@ranged
def paired_shares(gained: Whole, lost: Whole, n: Count, *, level: Portion = 0.95) -> Paired:
    """Of `n` items of which `gained` are right after a change and were not before, and `lost` were right before and are not after: how much
    more are right. The standard error is that of the mean of n differences of -1, 0 and 1. The interval adds half an item to each of the
    four kinds of pairs (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions"): it has a
    width also where no item changed."""
    if gained + lost > n:
        raise ValueError(f"of {n} items at most as many can change, got {gained} and {lost}")
    difference = (gained - lost) / n
    error = math.sqrt(((gained + lost) / n - difference**2) / (n - 1)) if n > 1 else math.nan
    gained_more, lost_more, more = gained + 0.5, lost + 0.5, n + 2
    middle = (gained_more - lost_more) / more
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(((gained_more + lost_more) / more - middle**2) / more)
    return Paired(difference, error, max(-1.0, middle - half), min(1.0, middle + half))


@functools.cache
def t_quantile(p: float, df: float) -> float:
    """The p-quantile of Student's t with df > 0 degrees of freedom, by bisection."""
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, df: float) -> float:
    """Student's distribution: 1 - I_x(df / 2, 1 / 2) / 2 for t >= 0, with x = df / (df + t^2) (Abramowitz and Stegun 26.7.1)."""
    upper = _incomplete_beta(df / (df + t * t), df / 2, 0.5) / 2
    return 1 - upper if t >= 0 else upper


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun 26.5.8; Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _incomplete_beta(1 - x, b, a)
    c, d = 1.0, 1 / _far_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        before = fraction
        for term in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            c, d = _far_from_zero(1 + term / c), 1 / _far_from_zero(1 + term * d)
            fraction *= c * d
        if abs(fraction / before - 1) < 1e-15:
            break
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * fraction / a


def _far_from_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300


# ---- tests of pairs, and how many runs are needed


def sign_flip(differences: Sequence[float], rng: np.random.Generator, *, alternative: Literal["greater", "two-sided"] = "greater",
              resamples: int = 100_000) -> float:
    """The p value of paired differences: how often their mean is as large (greater), or as far from 0 (two-sided), when each sign is a
    coin's (Fisher 1935, Sec. 21; Pitman 1937). Exact up to EXACT differences, above with `resamples` drawn signs. It tests the mean that
    tables print, which Wilcoxon's signed ranks do not, and asks for no distribution but a symmetric one.

    The smallest it can be is 1 / 2^n (greater) or 2 / 2^n: with 5 pairs 0.031 and 0.063. NaN without differences.
    """
    d = np.asarray(differences, np.float64)
    if not len(d):
        return math.nan
    if len(d) <= EXACT:
        sums = np.zeros(1)
        for each in d:
            sums = np.concatenate([sums + each, sums - each])
        drawn, extra = sums, 0
    else:
        drawn, extra = np.concatenate([(rng.integers(2, size=(n, len(d))) * 2 - 1) @ d for n in _blocks(resamples)]), 1
    seen, slack = d.sum(), 1e-9 * abs(d).sum()  # sums that are equal but for rounding are equal
    hits = {"greater": drawn >= seen - slack, "two-sided": abs(drawn) >= abs(seen) - slack}[alternative]
    return float((hits.sum() + extra) / (len(drawn) + extra))  # the drawn sample holds the observed one


@ranged
def permutation(a: Sequence[float], b: Sequence[float], rng: np.random.Generator, *,
                alternative: Literal["greater", "two-sided"] = "greater", resamples: Count = 100_000) -> float:
    """The p value of two independent lists: how often the difference of their means is as large (greater), or as far from 0 (two-sided),
    when all values are dealt out anew (Fisher 1935; Pitman 1937). Exact where there are at most MOST_DEALS ways to deal, else with
    `resamples` drawn ones. The smallest it can be is 1 over the number of ways: with 5 and 10 values 1 / 3003. NaN where a list is empty.
    """
    x, n = np.asarray([*a, *b], np.float64), len(a)
    if not n or n == len(x):
        return math.nan
    seen, slack = x[:n].mean() - x[n:].mean(), 1e-9 * abs(x).sum()
    if math.comb(len(x), n) <= MOST_DEALS:
        sums = np.array([x[list(chosen)].sum() for chosen in itertools.combinations(range(len(x)), n)])
        extra = 0  # the deal that was seen is one of them
    else:
        sums, extra = np.array([rng.permutation(x)[:n].sum() for _ in range(resamples)]), 1
    dealt = sums / n - (x.sum() - sums) / (len(x) - n)
    hits = {"greater": dealt >= seen - slack, "two-sided": abs(dealt) >= abs(seen) - slack}[alternative]
    return float((hits.sum() + extra) / (len(dealt) + extra))


def _blocks(total: int, size: int = 1000) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


@ranged
def pairs_needed(differences: Sequence[float], *, level: Portion = 0.95, power: Portion = 0.8) -> int | None:
    """How many pairs a one-sided paired test needs to find a mean difference as large as the one seen with probability `power`: the least
    n >= ((t_level + t_power) deviation / mean)^2, and at which it can reach 1 - level at all. None where no gain is seen, the deviation is
    not known, or it is more than MANY_RUNS."""
    seen = sample(differences)
    if not seen.mean > 0 or math.isnan(seen.deviation):
        return None
    least = max(2, math.ceil(-math.log2(1 - level)))

    def enough(n: int) -> bool:
        return math.sqrt(n) * seen.mean >= (t_quantile(level, n - 1) + t_quantile(power, n - 1)) * seen.deviation

    return _first(enough, least)


Word = Literal["agrees", "differs", "too few runs"]


class Verdict(NamedTuple):
    """Whether two means are the same up to a margin. needed: runs of ours; None where they are enough, or where no number is (`why`)."""

    word: Word
    difference: float  # ours - theirs
    interval: Interval  # of the true difference
    needed: int | None = None
    why: str = ""


@ranged
def verdict(ours: Sample, theirs: Sample, *, margin: Positive, level: Portion = 0.95) -> Verdict:
    """Agrees where the whole interval of the difference lies within `margin` of 0 (an equivalence test: that nothing was found is no
    agreement); differs where all of it lies outside; else there are too few runs, and `needed` says how many of ours would decide, should
    means and deviations stay as they are.

    What was not published is not taken to be small. Of their n, 0 stands for an unknown one: with a deviation it is at least 2, and counts
    as 2; without one their mean counts as a single run with our deviation. Where we have one run, theirs tells how many are needed.
    """
    theirs = _at_least(theirs, ours.deviation)
    difference = ours.mean - theirs.mean
    if ours.n < 2:
        guess = Sample(ours.mean, theirs.deviation, 2)
        needed = _runs_needed(guess, theirs, margin, level) if theirs.deviation > 0 else 2
        return Verdict("too few runs", difference, NOTHING, needed, "" if needed else TOO_WIDE)
    interval = difference_interval(ours, theirs, level=level)
    if -margin <= interval.low and interval.high <= margin:
        return Verdict("agrees", difference, interval)
    if interval.low > margin or interval.high < -margin:
        return Verdict("differs", difference, interval)
    needed = _runs_needed(ours, theirs, margin, level)
    return Verdict("too few runs", difference, interval, needed, "" if needed else TOO_WIDE)


TOO_WIDE = "the published spread is too wide, or the difference too near the margin, for any number of runs"


def _at_least(theirs: Sample, deviation: float) -> Sample:
    if math.isnan(theirs.deviation):
        return theirs._replace(deviation=deviation, n=max(theirs.n, 1))
    return theirs if theirs.n else theirs._replace(n=2)


def _runs_needed(ours: Sample, theirs: Sample, margin: float, level: float) -> int | None:
    room = abs(abs(ours.mean - theirs.mean) - margin)  # from the border that the interval lies across

    def enough(n: int) -> bool:
        low, high = difference_interval(ours._replace(n=n), theirs, level=level)
        return (high - low) / 2 <= room

    return _first(enough, 2)


def _first(enough: Callable[[int], bool], least: int) -> int | None:
    """The smallest n >= least that is enough, up to MANY_RUNS; enough stays enough."""
    high = least
    while not enough(high):
        if high >= MANY_RUNS:
            return None
        high = min(2 * high, MANY_RUNS)
    low = least - 1 if high == least else max(least - 1, high // 2 - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# ---- orders


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
