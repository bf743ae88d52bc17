"""`benchmarks.check`: what is called slower, and what it is compared with. No step is taken here."""

import random
import subprocess

import numpy as np
import pytest

from benchmarks import check
from supernet.errors import UsageError
from supernet.report.statistics import median_interval


def rounds(factor, noise, seed=0, number=27):
    """CPU seconds of two sides on a machine whose speed wanders, which both meet, and noise of their own."""
    draw = random.Random(seed)
    speed = [draw.uniform(0.2, 0.5) for _ in range(number)]
    return [(s * draw.gauss(1, noise), factor * s * draw.gauss(1, noise)) for s in speed]


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_step_that_takes_15_percent_longer_is_slower_and_an_equal_one_is_not(noise):
    for seed in range(20):
        assert check.compared(rounds(1.15, noise, seed)).says(0.05) == "slower"
        assert check.compared(rounds(1.0, noise, seed)).says(0.05) in ("not slower", "unsure")
        assert check.compared(rounds(0.85, noise, seed)).says(0.05) == "faster"


def test_one_round_that_something_broke_into_decides_nothing():
    times = rounds(1.0, 0.01)
    times[3] = (times[3][0], 50 * times[3][1])
    assert check.compared(times).says(0.05) == "not slower"


def test_where_noise_hides_the_answer_it_says_unsure():
    assert check.compared(rounds(1.05, 0.2)).says(0.05) == "unsure"


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    draw = np.random.default_rng(0)
    held = [median_interval(draw.exponential(size=27), level=0.9) for _ in range(2000)]
    share = np.mean([low <= np.log(2) <= high for low, high in held])
    assert 0.9 <= share <= 0.96  # whole ranks: at least, and not much more
    assert all(np.isnan(median_interval(range(5), level=0.95)))
    assert median_interval(range(6), level=0.95) == (0, 5)


@pytest.fixture
def repository(tmp_path):
    """Of three commits: two on main, one on a branch that left it there, which is checked out."""

    def git(*words):
        who = ("-c", "user.name=n", "-c", "user.email=n@example.org")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    for name in ("first", "second", "third"):
        if name == "third":
            git("checkout", "-q", "-b", "branch")
        (tmp_path / "file").write_text(name)
        git("add", "file"), git("commit", "-q", "-m", name)
    return tmp_path, git


def named(commit, root):
    return check.git("log", "-1", "--format=%s", commit, root=root)


def test_a_branch_is_compared_with_where_it_left_main_and_main_with_the_commit_before(repository):
    root, git = repository
    assert named(check.base_commit(None, root), root) == "second"
    git("checkout", "-q", "main")
    assert named(check.base_commit(None, root), root) == "first"
    (root / "file").write_text("changed")
    assert named(check.base_commit(None, root), root) == "second"
    assert named(check.base_commit("branch", root), root) == "third"
    git("checkout", "-q", "-f", "main~1"), git("branch", "-f", "main", "HEAD")
    with pytest.raises(UsageError, match="first commit"):
        check.base_commit(None, root)


def test_what_is_no_commit_is_refused_in_one_line(repository, capsys):
    with pytest.raises(UsageError, match="must be a commit of this repository, got 'nonsense'"):
        check.base_commit("nonsense", repository[0])
    assert check.main(["nonsense"]) == 2
    assert capsys.readouterr().err == "error: the base must be a commit of this repository, got 'nonsense'\n"
    with pytest.raises(SystemExit):
        check.main(["--only", "darts:x"])


def test_the_base_has_a_folder_only_while_it_is_measured(repository):
    root, _ = repository
    with pytest.raises(KeyboardInterrupt), check.checked_out(check.base_commit(None, root), root) as tree:
        assert (tree / "file").read_text() == "second"
        raise KeyboardInterrupt
    assert not tree.exists()
    assert check.git("worktree", "list", root=root).count("\n") == 0


WORKER = """
import os, sys
if not os.path.exists("fast"):
    import nothing_of_that_name
print("ready", flush=True)
for _ in sys.stdin:
    print(float(open("fast").read()), flush=True)
"""


def test_both_trees_take_the_step_in_turns_and_one_that_cannot_is_named(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(check, "WORKER", tmp_path / "worker.py")
    trees = [tmp_path / name for name in ("base", "now")]
    for tree, seconds in zip(trees, ("0.5", "0.6")):
        tree.mkdir()
        (tree / "fast").write_text(seconds)
    assert check.measured(*trees, "darts:w", batch=2, starts=2, rounds=3) == [(0.5, 0.6)] * 6
    (trees[0] / "fast").unlink()
    with pytest.raises(UsageError, match=f"the step of {trees[0]} cannot be measured: ModuleNotFoundError"):
        check.measured(*trees, "darts:w", batch=2, starts=1, rounds=3)
