"""The benchmark of recipes, with every part at the smallest size that says something."""

import json

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from benchmarks import recipes
from benchmarks.recipes import main
from supernet.spaces import nasbench201
from supernet.tables.files import write_table
from supernet.tables.table import Columns

DIGITS = ["dataset=digits", "channels=4", "batch_size=32", "split.max_train=64"]


@pytest.fixture(autouse=True)
def hydra():
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def test_recipes_are_compared_at_equal_time_and_what_was_done_is_not_done_again(tmp_path, capsys):
    words = ["--parts", "equal_time", "--seeds", "2", "--budget", "0.01", "--out", str(tmp_path / "r.json"), "--set", "protocol=digits",
             "layers=2", *DIGITS]
    assert main(words) == 0
    first = (tmp_path / "r.json").read_text()
    said = [line for line in capsys.readouterr().out.splitlines() if "n=2" in line]
    assert [line.split()[0] for line in said] == ["darts", "modern", "fast"]
    assert main(words) == 0 and (tmp_path / "r.json").read_text() == first
    found = json.loads(first)["found"]
    assert all(0 <= found[f"modern, seed {seed}"]["test_accuracy"] <= 100 for seed in (0, 1))
    with pytest.raises(SystemExit):
        main([*words, "batch_size=16"])
    assert "other settings" in capsys.readouterr().err


def test_the_rank_correlation_of_a_proxy_is_told_with_an_interval(tmp_path, capsys):
    space = nasbench201.make()
    rows = [space.text(g) for g in space.enumerate()]
    write_table(tmp_path / "t.csv.gz", space, rows, {"test_cifar10": np.arange(float(len(rows)))},
                {"cifar10": Columns(validation="test_cifar10", test="test_cifar10")})
    words = ["--parts", "proxy", "--table", str(tmp_path / "t.csv.gz"), "--cells", "3", "--out", str(tmp_path / "r.json"),
             "--set", *DIGITS, "epochs=1"]
    assert main(words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "Kendall tau" in line]
    assert len(lines) == 2 and all("over 3 cells" in line for line in lines)


def test_the_same_command_goes_on_wherever_the_images_lie(tmp_path, monkeypatch):
    """Where they lie is no setting, and once was told as one in the file alone."""
    done = []
    monkeypatch.setattr(recipes, "equal_time", lambda kept, sizes, seeds, budget: [kept.once("it", lambda: done.append(sizes) or 1)] and [])
    for root in ("one", "one", "other"):
        assert main(["--parts", "equal_time", "--root", root, "--out", str(tmp_path / "r.json")]) == 0
    assert len(done) == 1 and done[0]["dataset.root"] == "one" and '"one"' not in (tmp_path / "r.json").read_text()


@pytest.mark.slow
def test_photographs_go_on_to_the_same_bits_and_are_counted_by_the_second(tmp_path, capsys):
    assert main(["--parts", "photographs", "--per-class", "20", "--out", str(tmp_path / "r.json"), "--set", "layers=1", "channels=2",
                 "batch_size=16", "dataset.image_size=64", "dataset.augment.crop=56", "--real", "batch_size=2", "layers=3",
                 "channels=4"]) == 0
    said = capsys.readouterr().out
    assert said.count("the same bits") == 2 and "OTHER BITS" not in said and "time of the run: " in said
    for kind in ("files", "tar files"):
        assert f"images a second from {kind}: " in said and "with 2 workers" in said.split(f"from {kind}: ")[1].splitlines()[0]
