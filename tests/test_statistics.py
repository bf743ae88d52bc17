import itertools
import math

import numpy as np
import pytest

from supernet.report import statistics
from supernet.report.statistics import (
    MANY_RUNS,
    Sample,
    _taus,
    best_of,
    difference_interval,
    kendall,
    kendall_interval,
    mean_interval,
    pairs_needed,
    permutation,
    precision_at,
    ranks,
    sample,
    share_interval,
    sign_flip,
    spearman,
    spread,
    t_cdf,
    t_quantile,
    verdict,
)


def slow_kendall(a, b):
    concordant = discordant = tied_a = tied_b = 0
    for i in range(len(a)):
        for j in range(i):
            x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
            concordant, discordant = concordant + (x * y > 0), discordant + (x * y < 0)
            tied_a, tied_b = tied_a + (x == 0), tied_b + (y == 0)
    pairs = len(a) * (len(a) - 1) / 2
    return (concordant - discordant) / np.sqrt((pairs - tied_a) * (pairs - tied_b))


@pytest.mark.parametrize("seed", range(5))
def test_kendall_counts_pairs(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(6, size=25).astype(float), rng.normal(size=25).round(1)
    assert kendall(a, b) == pytest.approx(slow_kendall(a, b), abs=1e-12)


def test_the_interval_is_that_of_lists_which_are_drawn_one_by_one():
    rng = np.random.default_rng(3)
    a, b = rng.integers(9, size=40).astype(float), rng.normal(size=40).round(1)
    drawn, state = [], np.random.default_rng(7)
    for _ in range(30):
        i = state.integers(40, size=40)
        drawn.append(slow_kendall(a[i], b[i]))
    assert kendall_interval(a, b, np.random.default_rng(7), resamples=30) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-12)


def test_long_lists_are_compared_in_blocks():
    rng = np.random.default_rng(0)
    a, b = rng.integers(50, size=1100).astype(float), rng.normal(size=1100)
    counts = rng.integers(3, size=(2, 1100)).astype(np.float32)
    assert _taus(a, b, counts, block=1100) == pytest.approx(_taus(a, b, counts, block=100), abs=1e-12)
    repeated = np.repeat(np.arange(1100), counts[0].astype(int))
    assert kendall(a[repeated], b[repeated]) == pytest.approx(_taus(a, b, counts)[0], abs=1e-12)


def test_known_values():
    assert ranks(np.array([3.0, 1, 3, 2])).tolist() == [3.5, 1, 3.5, 2]
    a = np.array([1.0, 2, 3, 4, 5])
    assert spearman(a, a**3) == pytest.approx(1) and kendall(a, -a) == -1
    # 1 - 6 * (1 + 1 + 4 + 4 + 4) / (5 * 24)
    assert spearman(a, np.array([2.0, 1, 5, 2 + 0.0, 3])) == pytest.approx(np.corrcoef([1, 2, 3, 4, 5], [2.5, 1, 5, 2.5, 4])[0, 1])
    assert np.isnan(kendall(a, np.ones(5))) and np.isnan(spearman(a, np.ones(5)))
    assert np.isnan(kendall_interval(a, np.ones(5), np.random.default_rng(0), resamples=10)).all()
    # printed in SciPy's documentation of kendalltau and spearmanr
    assert kendall(np.array([12.0, 2, 1, 12, 2]), np.array([1.0, 4, 7, 1, 0])) == pytest.approx(-0.47140452079103173, abs=1e-12)
    assert spearman(a, np.array([5.0, 6, 7, 8, 7])) == pytest.approx(0.8207826816681233, abs=1e-12)
    assert kendall(np.array([-np.inf, 1, np.inf]), np.array([1.0, 2, 3])) == 1


def test_precision_at_the_top():
    truth = np.arange(20.0)
    assert precision_at(truth, truth, 10) == 100 and precision_at(-truth, truth, 50) == 0
    assert precision_at(np.where(truth == 19, -1, truth), truth, 10) == 50


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says():
    rng, held, tau = np.random.default_rng(0), 0, 2 / np.pi * np.arcsin(0.6)  # of a bivariate normal with correlation 0.6
    for _ in range(60):
        x = rng.normal(size=60)
        y = 0.6 * x + 0.8 * rng.normal(size=60)
        low, high = kendall_interval(x, y, rng, resamples=150)
        held += low <= tau <= high
    assert 49 <= held <= 60


def test_students_quantiles_are_those_of_printed_tables():
    for p, df, printed in ((0.975, 1, 12.706), (0.95, 2, 2.920), (0.975, 4, 2.776), (0.995, 10, 3.169), (0.9, 30, 1.310)):
        assert t_quantile(p, df) == pytest.approx(printed, abs=5e-4) and t_quantile(1 - p, df) == pytest.approx(-printed, abs=5e-4)
    assert t_cdf(1, 1) == pytest.approx(0.75, abs=1e-14)  # Cauchy: 1 / 2 + atan(t) / pi
    assert t_cdf(-2, 2) == pytest.approx(0.5 - 2 / (2 * math.sqrt(6)), abs=1e-14)
    t = np.linspace(0, 3, 200_001)  # the density, summed
    density = math.gamma(2.25) / math.sqrt(3.5 * math.pi) / math.gamma(1.75) * (1 + t**2 / 3.5) ** -2.25
    assert t_cdf(3, 3.5) == pytest.approx(0.5 + np.trapezoid(density, t), abs=1e-9)


def test_the_spreads_of_searches_and_of_retrainings_are_kept_apart():
    found = spread([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert (found.mean, found.searches, found.over_searches, found.retrainings) == (3.5, 3, 2.0, 6)
    assert found.over_retrainings == pytest.approx(math.sqrt(0.5)) and found.between == pytest.approx(math.sqrt(4 - 0.25))
    unequal = spread([[1.0, 2.0, 3.0], [7.0]])
    assert unequal.mean == 4.5, "a search that was retrained more often counts no more than another"
    assert unequal.over_retrainings == 1 and unequal.between == pytest.approx(math.sqrt(12.5 - (1 / 3 + 1) / 2))
    single = spread([[1.0], [2.0]])
    assert math.isnan(single.over_retrainings) and math.isnan(single.between) and single.over_searches == pytest.approx(math.sqrt(0.5))
    assert math.isnan(spread([[1.0, 2.0]]).over_searches)


def test_the_parts_of_the_spread_are_those_that_results_were_drawn_with():
    rng = np.random.default_rng(0)
    found = [spread([2 * rng.normal() + rng.normal(size=n) for n in (2, 3, 4, 2, 3)]) for _ in range(2000)]
    assert np.mean([s.between**2 for s in found]) == pytest.approx(4, abs=0.2)
    assert np.mean([s.over_retrainings**2 for s in found]) == pytest.approx(1, abs=0.05)


def test_the_best_of_k_is_the_mean_over_all_choices_of_k():
    x = np.random.default_rng(1).normal(size=7).round(1)
    for k in range(1, 8):
        assert best_of(x, k) == pytest.approx(np.mean([max(chosen) for chosen in itertools.combinations(x, k)]), abs=1e-12)
    assert math.isnan(best_of(x, 8))


@pytest.mark.parametrize("n, least", [(5, 0.88), (10, 0.92), (25, 0.93)])
def test_the_interval_of_a_mean_holds_the_truth_nearly_as_often_as_it_says(n, least):
    rng = np.random.default_rng(n)
    held = np.mean([low <= 0 <= high for low, high in (mean_interval(rng.normal(size=n), rng, resamples=600) for _ in range(1000))])
    assert least < held < 0.97
    assert all(map(math.isnan, mean_interval([1.0], rng)))
    x = rng.normal(size=n)
    assert mean_interval(x, np.random.default_rng(3)) == mean_interval(x, np.random.default_rng(3))


def test_the_interval_of_a_difference_is_welchs():
    # Welch's example as printed in many places: two samples of unlike spread and size
    a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5, 24.0]
    low, high = difference_interval(sample(a), sample(b))
    error = math.sqrt(np.var(a, ddof=1) / 15 + np.var(b, ddof=1) / 15)
    df = error**4 / ((np.var(a, ddof=1) / 15) ** 2 / 14 + (np.var(b, ddof=1) / 15) ** 2 / 14)
    assert (low + high) / 2 == pytest.approx(np.mean(a) - np.mean(b)) and (high - low) / 2 == pytest.approx(error * t_quantile(0.975, df))
    assert df == pytest.approx(27.8, abs=0.2)
    assert all(map(math.isnan, difference_interval(Sample(1, math.nan, 3), Sample(1, 1, 3))))


def test_the_interval_of_a_share_is_wilsons_and_stays_within_nothing_and_all():
    """Newcombe 1998, Table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert share_interval(hits, n) == pytest.approx((low, high), abs=5e-5)
        assert share_interval(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)
    assert share_interval(9, 10, level=0.5).low > share_interval(9, 10).low
    with pytest.raises(ValueError, match="hits must be at most n, got 3 of 2"):
        share_interval(3, 2)


def test_flipped_signs_are_counted():
    rng = np.random.default_rng(0)
    assert sign_flip([1, 2, 3, 4, 5], rng) == 1 / 32 and sign_flip([1, 2, 3, 4, 5], rng, alternative="two-sided") == 2 / 32
    assert sign_flip([0.0, 0.0], rng) == 1 and sign_flip([-1.0, -2.0], rng) == 1 and math.isnan(sign_flip([], rng))
    d = rng.normal(size=8) + 0.4
    flips = [np.dot(signs, d) for signs in itertools.product((1, -1), repeat=8)]
    assert sign_flip(d, rng) == np.mean([s >= d.sum() - 1e-9 for s in flips])
    with pytest.raises(KeyError):
        sign_flip(d, rng, alternative="less")


def test_of_many_pairs_signs_are_drawn_and_the_result_is_near_the_exact_one():
    d = np.random.default_rng(5).normal(size=20) + 0.35
    exact = sign_flip(d, np.random.default_rng(0))
    drawn = sign_flip([*d, 0.0], np.random.default_rng(0))  # a difference of 0 changes nothing but the count
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 100_000))


def test_the_test_of_pairs_errs_no_more_often_than_it_says():
    rng = np.random.default_rng(2)
    assert np.mean([sign_flip(rng.normal(size=6), rng) <= 0.05 for _ in range(2000)]) < 0.065


def test_as_many_pairs_as_are_asked_for_find_the_gain_about_four_times_in_five():
    rng = np.random.default_rng(4)
    planned = [0.3 - 1.0, 0.3, 0.3 + 1.0]  # mean 0.3, deviation 1
    n = pairs_needed(planned)
    t = t_quantile(0.95, n - 1)
    found = np.mean([s.mean > t * s.deviation / math.sqrt(n) for s in (sample(rng.normal(0.3, 1, size=n)) for _ in range(1500))])
    assert 0.76 < found < 0.85
    assert pairs_needed([-1.0, -2.0]) is None and pairs_needed([1.0]) is None and pairs_needed([1e-6, 1, -1]) is None
    assert pairs_needed([5.0, 5.01]) == 5, "with fewer the exact test cannot tell"


def test_a_verdict_agrees_differs_or_asks_for_runs():
    near, far, wide = Sample(93.6, 0.2, 5), Sample(80.0, 2.0, 5), Sample(92.7, 2.0, 5)
    published = Sample(93.61, 0.09, 3)
    assert verdict(near, published, margin=0.5).word == "agrees" and verdict(far, published, margin=0.5).word == "differs"
    few = verdict(wide, published, margin=0.5)
    assert few.word == "too few runs" and few.interval.low < -0.5 < few.interval.high
    assert verdict(wide._replace(n=few.needed), published, margin=0.5).word == "differs"
    assert verdict(wide._replace(n=few.needed - 1), published, margin=0.5).word == "too few runs"


def test_a_verdict_is_not_helped_by_what_was_not_published():
    ours = Sample(93.6, 0.2, 30)
    known, unknown = verdict(ours, Sample(93.6, 0.3, 100), margin=0.2), verdict(ours, Sample(93.6, 0.3, 0), margin=0.2)
    assert known.word == "agrees" and unknown.word == "too few runs" and unknown.needed is None and unknown.why
    bare = verdict(ours, Sample(93.6, math.nan, 0), margin=0.2)
    assert bare.interval.high == pytest.approx(verdict(ours, Sample(93.6, 0.2, 1), margin=0.2).interval.high)
    assert verdict(Sample(93.6, math.nan, 1), Sample(93.6, 0.3, 100), margin=0.2)[0::3] == ("too few runs", 12)
    assert verdict(Sample(93.6, math.nan, 1), Sample(93.6, math.nan, 0), margin=0.2).needed == 2
    assert verdict(Sample(10.0, 0.0, 3), Sample(10.0, 0.0, 3), margin=0.1).word == "agrees"
    assert verdict(Sample(0.0, 5.0, 2), Sample(0.0, 0.0, 3), margin=0.01).needed is None and MANY_RUNS == 10_000
    with pytest.raises(ValueError, match="margin must be positive, got 0"):
        verdict(ours, ours, margin=0)


def test_a_permutation_test_counts_the_deals_that_are_as_far_apart():
    """Of 5 and 10 values that do not overlap one deal in C(15, 5) is as good; by hand for 2 and 2."""
    rng = np.random.default_rng(0)
    assert permutation([5, 6, 7, 8, 9], range(-10, 0), rng) == pytest.approx(1 / 3003)
    assert permutation([5, 6, 7, 8, 9], range(-10, 0), rng, alternative="two-sided") == pytest.approx(1 / 3003)
    assert permutation([1, 4], [2, 3], rng) == pytest.approx(4 / 6)  # sums 5 (twice), 6 and 7 are as large
    assert permutation([3, 4], [1, 2], rng) == pytest.approx(1 / 6)
    assert permutation([3, 4], [1, 2], rng, alternative="two-sided") == pytest.approx(2 / 6)
    assert math.isnan(permutation([], [1.0], rng)) and math.isnan(permutation([1.0], [], rng))


def test_a_permutation_test_of_equal_values_finds_nothing():
    assert permutation([0.1] * 4, [0.1] * 3, np.random.default_rng(0)) == 1


def test_a_drawn_permutation_test_is_near_the_exact_one(monkeypatch):
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.8, 1, 6), rng.normal(0, 1, 8)
    exact = permutation(a, b, rng)
    monkeypatch.setattr(statistics, "MOST_DEALS", 0)
    assert permutation(a, b, np.random.default_rng(2), resamples=20_000) == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
