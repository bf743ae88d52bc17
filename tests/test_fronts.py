import numpy as np
import pytest

from supernet.errors import UsageError
from supernet.searchers.fronts import crowding, front, hypervolume, igd_plus, ranks


def test_without_moocore_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "moocore", None)
    with pytest.raises(UsageError, match=r"need moocore .*pip install \"supernet\[search\]\""):
        hypervolume(np.zeros((1, 2)), (0, 0))


def test_measures_of_a_front_are_what_one_counts_by_hand():
    pytest.importorskip("moocore", reason="moocore is not installed (extra `search`)")
    points = np.array([[3.0, 1.0], [1.0, 2.0], [1.0, 1.0], [-5.0, 9.0]])
    assert hypervolume(points, (0, 0)) == 3 * 1 + 1 * 1
    assert hypervolume(np.array([[2.0, 3, 4], [1, 4, 4]]), (0, 0, 0)) == 24 + 16 - 12
    # of (4, 1) a score of 1 is missing, nothing of (0, 2), and (1, 4) lacks 2 from (1, 2); the last has the second score but not the first
    assert igd_plus(points[:3], np.array([[4.0, 1.0], [0.0, 2.0], [1.0, 4.0]])) == (1 + 0 + 2) / 3


@pytest.mark.parametrize("scores", [2, 3])
def test_ranks_and_crowding_are_those_of_pymoo(scores):
    sorting = pytest.importorskip("pymoo.util.nds.non_dominated_sorting", reason="pymoo is not installed")
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

    points = np.random.default_rng(scores).random((200, scores))
    fronts = sorting.NonDominatedSorting().do(-points)
    assert [sorted(own.tolist()) for own in fronts] == [np.flatnonzero(ranks(points) == r).tolist() for r in range(len(fronts))]
    assert sorted(fronts[0].tolist()) == np.flatnonzero(front(points)).tolist()
    for own in (own for own in fronts if len(own) > 2):  # theirs is the mean over scores, ours the sum (the paper's)
        assert crowding(points[own]) == pytest.approx(calc_crowding_distance(-points[own]) * scores)
