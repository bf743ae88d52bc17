"""Rows of methods, ours beside what was published: what is said of each, and what may be said of it. No options and no folders here."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from supernet.report.statistics import (
    NOTHING,
    TOO_WIDE,
    Interval,
    Sample,
    Spread,
    Verdict,
    best_of,
    mean_interval,
    pairs_needed,
    sample,
    sign_flip,
    spread,
    verdict,
)

PAIRS = 5  # the fewest that are tested: of fewer the exact one-sided test cannot reach 0.05
Over = Literal["searches", "retrainings", "unknown"]


@dataclass(frozen=True)
class Column:
    """One quantity of a table. margin: a difference from the published mean that does not matter, in the quantity's unit; needed only where
    something was published."""

    key: str
    title: str
    margin: float = math.nan
    lower_is_better: bool = False

    @property
    def sign(self) -> int:
        return -1 if self.lower_is_better else 1


@dataclass(frozen=True)
class Published:
    """A published result. deviation: NaN, and n: 0, where it was not said. over: what the spread, and n, is over: independent searches;
    retrainings of one architecture, which was the best of `best_of` searches (0: of how many is not known); or nobody knows."""

    mean: float
    deviation: float
    n: int
    over: Over
    best_of: int
    source: str
    confirmed: bool = True  # False: quoted from memory


@dataclass(frozen=True)
class Search:
    """What one search led to: by column, the result of each retraining of its architecture (or the one that a table knows)."""

    seed: int
    results: Mapping[str, tuple[float, ...]]
    cost_s: float  # of the search, in seconds; NaN where it is not known
    commit: str | None = ""  # of the code, of several joined by spaces; "": not known; None: no run, looked up just now


@dataclass(frozen=True)
class Row:
    """A method. selected: of its searches the one that the paper's protocol picks, where there is one; `picked_by` says how."""

    name: str
    searches: Sequence[Search]
    published: Mapping[str, Sequence[Published]] = field(default_factory=dict)
    selected: Search | None = None
    picked_by: str = ""
    note: str = ""


@dataclass(frozen=True)
class Gain:
    """How much better than the baseline, seed by seed. p is NaN of fewer than PAIRS pairs; needed: see `statistics.pairs_needed`."""

    mean: float
    interval: Interval
    pairs: int
    p: float
    needed: int | None


@dataclass(frozen=True)
class Line:
    """All that is said of one row in one column, against one published result or none."""

    row: Row
    column: Column
    spread: Spread | None  # None: no run of ours has this result
    interval: Interval
    best: float  # of our searches, as chosen with the result itself in hand
    published: Published | None
    verdict: Verdict | None
    gain: Gain | None  # None: of the baseline, and where there is none
    cost_s: float  # mean over searches

    @property
    def picked(self) -> Sample | None:
        """The retrainings of the architecture that the paper's protocol picks."""
        chosen = None if self.row.selected is None else self.row.selected.results.get(self.column.key)
        return sample(chosen) if chosen else None


def lines(rows: Sequence[Row], columns: Sequence[Column], *, baselines: Mapping[str, str] | None = None, seed: int = 0,
          level: float = 0.95) -> list[Line]:
    """A line for each column, row and published result, by column. baselines: by row, that which its gain is over. seed: of the
    resampling, which is the same for every line, so that none depends on the others."""
    by_name, found = {row.name: row for row in rows}, []
    for column in columns:
        for row in rows:
            groups = [search.results[column.key] for search in row.searches if search.results.get(column.key)]
            over = spread(groups) if groups else None
            means = [float(np.mean(group)) for group in groups]
            interval = mean_interval(means, np.random.default_rng(seed), level=level) if groups else NOTHING
            best = column.sign * best_of([column.sign * value for value in means], len(means)) if means else math.nan
            base = by_name.get((baselines or {}).get(row.name, ""))
            gained = None if base is None or row is base else gain(row, base, column, seed=seed, level=level)
            costs = [search.cost_s for search in row.searches if not math.isnan(search.cost_s)]
            for published in row.published.get(column.key) or [None]:
                found.append(Line(row, column, over, interval, best, published, judged(row, column, over, published, level), gained,
                                  float(np.mean(costs)) if costs else math.nan))
    return found


def gain(row: Row, base: Row, column: Column, *, seed: int = 0, level: float = 0.95) -> Gain | None:
    """Over the seeds that both rows have; None where there is none."""
    by_seed = [{s.seed: float(np.mean(s.results[column.key])) for s in each.searches if s.results.get(column.key)} for each in (row, base)]
    pairs = [column.sign * (by_seed[0][n] - by_seed[1][n]) for n in sorted(by_seed[0].keys() & by_seed[1].keys())]
    if not pairs:
        return None
    p = sign_flip(pairs, np.random.default_rng(seed)) if len(pairs) >= PAIRS else math.nan
    return Gain(float(np.mean(pairs)), mean_interval(pairs, np.random.default_rng(seed), level=level), len(pairs), p,
                pairs_needed(pairs, level=level))


def judged(row: Row, column: Column, over: Spread | None, published: Published | None, level: float = 0.95) -> Verdict | None:
    """Like is compared with like: a mean over searches with ours; retrainings of the best of k searches with those of the one that the same
    protocol picks of as many of ours. Where nobody says what a published mean is over, it is taken to be over searches."""
    if published is None or over is None:
        return None
    theirs = Sample(published.mean, published.deviation, published.n)
    if published.over != "retrainings":
        return verdict(Sample(over.mean, over.over_searches, over.searches), theirs, margin=column.margin, level=level)
    difference = math.nan
    if row.selected is None or not row.selected.results.get(column.key):
        return Verdict("too few runs", difference, NOTHING, published.best_of or None,
                       "" if published.best_of else "published is the best of an unknown number of searches")
    if over.searches < published.best_of:
        return Verdict("too few runs", difference, NOTHING, published.best_of)
    return verdict(sample(row.selected.results[column.key]), theirs, margin=column.margin, level=level)


def usual_commit(rows: Sequence[Row]) -> str:
    """The commit of most searches; of equally many the one that comes first."""
    counts = Counter(search.commit for row in rows for search in row.searches if search.commit is not None)
    return counts.most_common(1)[0][0] if counts else ""


def marked(rows: Sequence[Row]) -> dict[str, str]:
    """Rows of which a search ran another commit than most of the table, by name, with a line that says so."""
    usual, found = usual_commit(rows), {}
    for row in rows:
        others = Counter(search.commit for search in row.searches if search.commit not in (usual, None))
        if others:
            told = ", ".join(f"{n} of {len(row.searches)} of commit {commit or 'unknown'}" for commit, n in sorted(others.items()))
            found[row.name] = f"{row.name}: {told}; most of the table is of {usual or 'an unknown commit'}"
    return found


# ---- in words


def number(value: float, digits: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def plus_minus(mean: float, deviation: float, digits: int = 2) -> str:
    return number(mean, digits) + (f" ± {deviation:.{digits}f}" if not math.isnan(deviation) else "")


def interval_text(interval: Interval, digits: int = 2) -> str:
    return "" if math.isnan(interval.low) else f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def over_text(published: Published) -> str:
    """What a published spread is over."""
    n = published.n or "?"
    if published.over == "searches":
        return f"{n} searches"
    if published.over == "retrainings":
        return f"{n} retrainings of the best of {published.best_of or '?'}"
    return "unknown"


def verdict_text(found: Verdict | None, digits: int = 2) -> str:
    """`agrees`, `differs by +1.20`, `too few runs: 12 needed`; nothing where there is nothing to compare."""
    if found is None:
        return ""
    if found.word == "differs":
        return f"differs by {found.difference:+.{digits}f}"
    if found.word == "agrees":
        return "agrees"
    return f"too few runs: {f'{found.needed} needed' if found.needed else 'no number decides' if found.why == TOO_WIDE else found.why}"


def p_text(p: float) -> str:
    return "" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def gain_text(found: Gain | None, digits: int = 2) -> str:
    return "" if found is None else f"{found.mean:+.{digits}f}" + (f" [{found.interval.low:+.{digits}f}, {found.interval.high:+.{digits}f}]"
                                                                    if not math.isnan(found.interval.low) else "")


def paired_text(found: Gain | None) -> str:
    """The p value, and where it is not below 0.05, how many pairs would tell."""
    if found is None:
        return ""
    needed = f"; {found.needed} pairs would tell" if found.needed and found.needed > found.pairs else ""
    if math.isnan(found.p):
        return f"{found.pairs} pairs, {PAIRS} needed"
    return p_text(found.p) + (needed if found.p > 0.05 else "")


def duration_text(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return "" if math.isnan(seconds) else f"{seconds:.1f} s"
