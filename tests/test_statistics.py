import numpy as np
import pytest

from supernet.report.statistics import _taus, kendall, kendall_interval, precision_at, ranks, spearman


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
