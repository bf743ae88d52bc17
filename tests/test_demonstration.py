"""The benchmark of the demonstration: what it keeps, how it goes on, and what it says of results that are all there."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from benchmarks import demonstration
from benchmarks.demonstration import Kept, compared, main
from tests.searches import composed

ROOT = Path(__file__).resolve().parents[1]
SURE = {"mean_gap": 0.5, "entropy": 0.5, "max_entropy": 0.69, "ops": 16, "ops_would_flip": 1, "edge_choices": 6,
        "edge_choices_would_flip": 3}


@pytest.fixture
def counted(monkeypatch):
    """Searches and trainings that compute nothing: a found cell is two points better. The list of those that were asked for."""
    asked = []

    def search(setting, seed):
        asked.append(("search", seed))
        return {"cell": f"found {seed}", "cpu_seconds": 10.0, "sureness": SURE}

    def training(setting, cell, seed):
        asked.append(("training", cell, seed))
        return {"test_accuracy": 95.0 + 2.0 * cell.startswith("found") + 0.01 * (seed % 7), "cpu_seconds": 7.0}

    monkeypatch.setattr(demonstration, "search", search)
    monkeypatch.setattr(demonstration, "training", training)
    return asked


def test_no_two_trainings_share_a_seed_and_the_difference_is_that_of_the_cells(counted, tmp_path):
    row = compared(Kept(tmp_path / "a.json"), "after", searches=5, cells=10, trainings=2)
    seeds = [job[-1] for job in counted if job[0] == "training"]
    assert len(seeds) == len(set(seeds)) == 30
    assert row["difference"] == pytest.approx(2.0, abs=0.1) and row["p_permutation_greater"] == pytest.approx(1 / 3003)
    assert row["pairs_won"] == 1 and row["medians"]["found"] == pytest.approx(np.median(row["accuracy"]["found"]))
    low, high = row["difference_interval_95"]
    assert 1.9 < low < row["difference"] < high < 2.1


def test_what_is_done_is_not_done_again(counted, tmp_path, capsys):
    out = tmp_path / "a.json"
    arguments = ["--settings", "after", "--searches", "2", "--cells", "3", "--out", str(out)]
    assert main(arguments) == 0
    first, done = json.loads(out.read_text()), len(counted)
    data = json.loads(out.read_text())
    del data["trials"]["after: found cell 1, seed 10"]
    data["rows"] = {"before": "another setting's"}
    out.write_text(json.dumps(data))
    assert main(arguments) == 0
    assert counted[done:] == [("training", "found 1", 10)]
    assert json.loads(out.read_text())["rows"] == {**first["rows"], "before": "another setting's"}
    assert "after: found 97.02 +- 0.02 % (n=2), random" in capsys.readouterr().out  # (97.00 + 97.01) / 2 and (97.03 + 97.04) / 2


def test_results_of_other_settings_are_refused_and_left_alone(counted, tmp_path, capsys):
    out = tmp_path / "a.json"
    out.write_text(json.dumps({"settings": {}, "retraining": {}, "rows": {}, "trials": {}}))
    with pytest.raises(SystemExit):
        main(["--out", str(out)])
    assert "holds trials of other settings" in capsys.readouterr().err and not counted
    assert json.loads(out.read_text())["trials"] == {}


@pytest.mark.parametrize("arguments", [["--searches", "1"], ["--cells", "0"], ["--trainings", "11"]])
def test_numbers_out_of_range_are_refused(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path / "a.json")])
    assert f"{arguments[0]} must be from" in capsys.readouterr().err


def test_make_search_does_what_was_measured():
    """The options of `make search` are those of the setting `after`."""
    line = next(row for row in (ROOT / "Makefile").read_text().splitlines() if row.startswith("DEMONSTRATION"))
    options = dict(word.split("=") for word in shlex.split(line.partition("=")[2]))
    after = demonstration.SETTINGS["after"]
    assert options["space"] == after["space"] and float(options["alpha_optimizer.lr"]) == after["alpha_optimizer.lr"] and len(options) == 2
    cfg = composed(*(f"{key}={value}" for key, value in options.items()))
    assert cfg.space._target_.endswith(".s4") and cfg.dataset.name == "digits"
