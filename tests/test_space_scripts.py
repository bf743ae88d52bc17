"""Every space through both scripts: one epoch of search, selection, retraining, drawing."""

import pytest

from tests.helpers import run

SPACES = ["darts", "nasbench201", "s1", "s2", "s3", "s4", "listed", "toy", "nasbench_macro", "layerwise"]
CHAINS = ["nasbench_macro", "layerwise"]  # which have their own number of layers

CASES = [*((space, "softmax") for space in SPACES), ("darts", "uniform"), ("nasbench_macro", "uniform")]


@pytest.mark.parametrize("space, relaxation", CASES)
def test_a_search_and_its_retraining(space, relaxation, tmp_path):
    sizes = [*(["layers=3"] if space not in CHAINS else []), "channels=4", "epochs=1", "split.max_train=64"]
    done = run("train_search", f"space={space}", f"relaxation={relaxation}", "split.max_val=64", *sizes, cwd=tmp_path, report=False)
    assert done.code == 0, done.err
    (search,) = tmp_path.glob("runs/*_search_*")
    assert (search / "cell.svg").stat().st_size > 1000 and (search / "cell.png").exists()
    done = run("train_final", *sizes, cwd=tmp_path, report=False)
    assert done.code == 0 and "test accuracy" in done.out, done.err
