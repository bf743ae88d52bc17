"""The ranking of a trained supernet and of proxies, as the command makes it; its parts one by one."""

import csv
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from torch import nn

from supernet.app.compose import search_parts
from supernet.commands.drawn import drawn, drawn_rows
from supernet.commands.rank import Ranking, estimate, line, loaded, proxies_of, search_of, shared_of, to_rank, write
from supernet.errors import UsageError
from supernet.evaluators import shared_weights
from supernet.evaluators.proxies import naswot
from supernet.evaluators.shared_weights import SharedWeights
from supernet.report.figure import house_style
from supernet.report.scatter import scatter
from supernet.report.statistics import kendall, precision_at, spearman
from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder, RunFolderError
from supernet.spaces import darts, toy
from supernet.tables.files import write_table
from supernet.tables.table import Columns, Table
from tests import helpers
from tests.searches import configs

SPACE = toy.make()
SEARCH = ["space=toy", "layers=3", "channels=2", "epochs=2", "split.max_train=64", "split.max_val=64", "keep_checkpoints=9", "name=toy"]
RANK = ["-m", "supernet.rank", "table.path=toy.csv", "threads=1", "calibration_batches=2", "resamples=50"]


def command(*options, cwd):
    return {"args": [sys.executable, *RANK, *options], "cwd": cwd, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "text": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A search, and a table in which an architecture's accuracy on digits is its number of convolutions, on another set the opposite."""
    cwd = tmp_path_factory.mktemp("rank")
    assert helpers.run("train_search", *SEARCH, cwd=cwd, report=False).code == 0
    genotypes = list(SPACE.enumerate())
    convolutions = np.array([sum("conv" in e.op for e in g["cell"]) for g in genotypes], float)
    write_table(cwd / "toy.csv", SPACE, [SPACE.text(g) for g in genotypes], {"good": convolutions, "bad": -convolutions},
                {"another": Columns("bad", "bad"), "digits": Columns("good", "good")})
    return cwd


@pytest.fixture(scope="module")
def run(folder):
    (found,) = folder.glob("runs/*_search_*")
    return found


def test_the_command(folder, run):
    done = helpers.python(*RANK, f"run={run}", "n=12", "by=[shared_weights,parameters,synflow]", "checkpoints=all", "proxy_batch=16",
                          cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "12 of 27 architectures of toy against good of toy.csv" in done.stdout  # the truth is that of the run's data set
    result = json.loads((run / "rank.json").read_text())
    with open(run / "rank.csv") as file:
        rows = list(csv.DictReader(file))
    assert len({row["arch"] for row in rows}) == 12
    truth = np.array([float(row["truth"]) for row in rows])
    assert truth.tolist() == [SPACE.text(SPACE.parse(row["arch"])).count("conv") for row in rows]
    assert [s["step"] for name, s in result["scores"].items() if name.startswith("shared_weights")] == [2, 4]
    for name, scores in result["scores"].items():
        estimates = np.array([float(row[name]) for row in rows])
        assert scores["kendall_tau"] == pytest.approx(kendall(estimates, truth)) and name in done.stdout
        assert scores["spearman"] == pytest.approx(spearman(estimates, truth))
        assert scores["precision_at_20"] == precision_at(estimates, truth, 20)
        assert scores["architectures"] == scores["evaluated"] == 12
    assert result["scores"]["parameters"]["kendall_tau"] == 1  # every convolution has as many
    assert (run / "scatter.png").stat().st_size > 1000 and "Along the run" in (run / "rank.html").read_text()

    # the same estimates, from the weights of each checkpoint
    options, paths = search_of(settings(run=str(run), max_val=1000))
    parts = search_parts(options)
    calibration = list(itertools.islice(parts.loaders.train, 2))
    evaluate = SharedWeights(parts.net, SPACE, parts.task, parts.loaders.val_eval, parts.generators["net"], calibration=calibration)
    assert len(paths) == 2
    for path in paths:
        parts.net.load_state_dict(checkpoint.load_file(path)["parts"]["net"])
        column = [float(row[f"shared_weights {path.name.split('.')[0]}"]) for row in rows]
        assert column == [evaluate(SPACE.parse(row["arch"]))["accuracy"] for row in rows] and len(set(column)) > 1


def test_an_interrupted_ranking_keeps_what_it_has(folder, tmp_path):
    output = tmp_path / "new" / "folder"
    how = command("options={space:toy,layers:24,channels:32}", "by=[parameters,jacob_cov]", "n=27", "truth=another", f"output={output}",
                  cwd=folder)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so would the process
    process = subprocess.Popen(**how, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    signal.signal(signal.SIGINT, before)
    for text in process.stdout:
        if text.startswith("parameters"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; what was there is written" in err, err
    with open(output / "rank.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 27 and all(float(row["parameters"]) > 0 for row in rows) and not rows[-1].get("jacob_cov")
    assert json.loads((output / "rank.json").read_text())["scores"]["parameters"]["kendall_tau"] == -1  # in this truth fewer are better


def test_what_cannot_be_written_is_one_line(folder, run):
    done = helpers.python(*RANK, f"run={run}", "n=5", "output=toy.csv", cwd=folder)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "output=toy.csv: cannot make" in done.stderr, done.stderr


def test_what_is_too_large_is_refused(run):
    with pytest.raises(UsageError, match="n must be at most the 27 architectures of space toy, got 28"):
        drawn(SPACE, 28, random.Random(0))
    options, _ = search_of(settings(run=str(run), max_val=None))
    with pytest.raises(UsageError, match="proxy_batch must be at most the 64 validation images, got 65"):
        proxies_of(OmegaConf.create({"proxy_batch": 65}), options, search_parts(options), {"naswot": naswot})


def settings(**changed):
    plain = {"run": None, "options": None, "by": ["shared_weights"], "checkpoints": "last", "device": "cpu", "threads": None, "max_val": 10,
             "trust": []}
    return OmegaConf.create(plain | changed)


def test_a_folder_that_is_no_search_is_named(run, tmp_path):
    other = RunFolder(tmp_path)
    with pytest.raises(UsageError, match="expected the folder of a search"):
        search_of(settings(run=str(tmp_path)))
    other.start(script="train_search", command="", config_hash="")
    other.config.write_text("{space: [")
    with pytest.raises(RunFolderError, match="cannot read the run's options"):
        search_of(settings(run=str(tmp_path)))
    other.config.write_text("- a\n- b\n")
    with pytest.raises(RunFolderError, match="expected the options of a run"):
        search_of(settings(run=str(tmp_path)))
    other.config.write_text("a: 1\n")
    with pytest.raises(UsageError, match="expected the options of a search"):
        search_of(settings(run=str(tmp_path)))
    other.config.write_text((run / "config.yaml").read_text())
    with pytest.raises(UsageError, match="that search has no checkpoint"):
        search_of(settings(run=str(tmp_path)))
    options, found = search_of(settings(run=str(tmp_path), by=["synflow"]))
    assert found == [] and options.split.max_val == 10 and options.table is None


def test_options_of_a_strangers_run_name_nothing_but_what_the_project_names(run, tmp_path):
    other = RunFolder(tmp_path)
    other.start(script="train_search", command="", config_hash="")
    text = (run / "config.yaml").read_text()
    other.config.write_text(text.replace("supernet.spaces.toy.make", "os.system", 1))
    assert other.config.read_text() != text
    with pytest.raises(UsageError, match="space names 'os.system', which no config of this project names") as error:
        search_of(settings(run=str(tmp_path), by=["synflow"]))
    assert "\n" not in str(error.value)
    search_of(settings(run=str(tmp_path), by=["synflow"], trust=["os.system"]))  # named by the user himself


def test_a_run_of_an_earlier_version_is_named():
    with pytest.raises(RunFolderError, match="an earlier version of the project wrote this run"):
        search_of(settings(run=str(Path(__file__).parent / "earlier_run")))


def saved(folder, step, value):
    net = nn.Linear(2, 1)
    nn.init.constant_(net.weight, value)
    checkpoint.save(folder, {"parts": {"net": net.state_dict(), "position": {"epoch": 0, "step": step}}}, name=f"step_{step:03}", keep=9)


def test_checkpoints_are_loaded_in_turn_and_damaged_ones_passed_over(tmp_path, capsys):
    for step in (10, 20, 30):
        saved(tmp_path, step, float(step))
    net, paths = nn.Linear(2, 1), checkpoint.all_files(tmp_path)
    assert [(name, step, net.weight[0, 0].item()) for name, step in loaded(net, paths, every=True)] == [
        ("step_010", 10, 10.0), ("step_020", 20, 20.0), ("step_030", 30, 30.0)]
    assert [step for _, step in loaded(net, paths, every=False)] == [30] and capsys.readouterr().err == ""
    data = bytearray(paths[-1].read_bytes())
    data[len(data) // 2] ^= 1
    paths[-1].write_bytes(data)
    assert [step for _, step in loaded(net, paths, every=False)] == [20] and net.weight[0, 0] == 20
    assert [step for _, step in loaded(net, paths, every=True)] == [10, 20]
    assert capsys.readouterr().err.count("is corrupt (sha256 differs); passed over") == 2
    with pytest.raises(UsageError, match="is not of the supernet that config.yaml describes"):
        next(loaded(nn.Linear(3, 1), paths, every=False))
    with pytest.raises(UsageError, match="no checkpoint is usable"):
        next(loaded(net, paths[-1:], every=True))


def test_drawn_architectures_are_different_and_of_one_seed():
    for n in (3, 20, 27):
        found = drawn(SPACE, n, random.Random(4))
        assert len(set(found)) == n and found == drawn(SPACE, n, random.Random(4)) != drawn(SPACE, n, random.Random(5))
    large = drawn(darts.make(), 30, random.Random(0))
    assert len(set(large)) == 30 and large[:10] == drawn(darts.make(), 10, random.Random(0))
    assert drawn(SPACE, 20, random.Random(4))[:3] == drawn(SPACE, 3, random.Random(4)), "a sample can grow"


def test_of_a_table_that_has_a_sample_the_architectures_are_drawn_among_its_rows():
    sample = drawn(SPACE, 9, random.Random(1))
    table = Table(SPACE, [SPACE.text(g) for g in sample], {"acc": np.arange(9.0)}, {"digits": Columns("acc", "acc")})
    parts = SimpleNamespace(space=SPACE, searched=SPACE)
    found = to_rank(parts, table, OmegaConf.create({}), 6, random.Random(0))
    assert len(set(found)) == 6 and set(found) <= set(sample)
    op = sample[0].cells[0][1][0].op
    without = to_rank(parts, table, OmegaConf.create({"exclude_ops": [op]}), 1, random.Random(0))
    assert all(e.op != op for e in without[0].cells[0][1])
    with pytest.raises(UsageError, match="n must be at most the 9 architectures that table has of space toy, got 10"):
        drawn_rows(table, 10, random.Random(0))


def test_scores_are_those_of_the_finite_pairs():
    truth = np.array([1.0, 2, 3, np.nan, 5, 6])
    ranking = Ranking("synflow", estimates=dict(enumerate([1.0, 3, 2, 4, -math.inf, 9])))
    scores = ranking.scores(truth, np.random.default_rng(0), 20)
    assert (scores["architectures"], scores["evaluated"]) == (4, 6)
    assert scores["kendall_tau"] == pytest.approx(4 / 6) and "Kendall tau 0.667" in line(ranking, scores)
    assert scores == ranking.scores(truth, np.random.default_rng(0), 20)
    few = Ranking("naswot", estimates=dict(enumerate([-math.inf, 1.0, 2.0])))
    scores = few.scores(truth, np.random.default_rng(0), 20)
    assert scores["architectures"] == 2 and math.isnan(scores["kendall_tau"]) and "Kendall tau nan" in line(few, scores)


def test_a_ranking_that_was_stopped_keeps_its_estimates(capsys, tmp_path):
    genotypes = drawn(SPACE, 6, random.Random(0))
    whole, cut = Ranking("shared_weights", "epoch_1", 10), Ranking("shared_weights", "epoch_2", 20)
    estimate(whole, lambda drawn, stop: ((n, -1.0 * n) for n in range(len(drawn))), genotypes, lambda: False)
    estimate(cut, lambda drawn, stop: ((n, float(n)) for n in (2, 0, 3, 1, 5, 4) if not stop()), genotypes, lambda: len(cut.estimates) == 4)
    assert cut.estimates == {n: n for n in range(4)} and "epoch_2: 4 architectures" in capsys.readouterr().err
    truth = np.arange(6.0)
    scored = [(r, r.scores(truth, np.random.default_rng(0), 20)) for r in (whole, cut)]
    assert [s["kendall_tau"] for _, s in scored] == [-1, 1]
    write(tmp_path, scored, [SPACE.text(g) for g in genotypes], truth, {"table": "x"}, "six")
    with open(tmp_path / "rank.csv") as file:
        assert [row["shared_weights epoch_2"] for row in csv.DictReader(file)] == ["0.0", "1.0", "2.0", "3.0", "", ""]
    assert json.loads((tmp_path / "rank.json").read_text())["scores"]["shared_weights epoch_1"]["step"] == 10


def test_what_a_ranking_of_chains_found_before_it_was_stopped_stands_beside_its_architectures(monkeypatch):
    monkeypatch.setattr(shared_weights, "AT_ONCE", 3)
    with configs():
        options = hydra.compose("search", overrides=["space=nasbench_macro", "channels=2", "split.max_train=32", "split.max_val=32",
                                                     "batch_size=16", "eval_batch_size=16", "threads=1"])
        parts = search_parts(options)
    cfg = settings(statistics="recalibrated", calibration_batches=1)
    genotypes = drawn(parts.searched, 7, random.Random(0))
    evaluate, found = shared_of(cfg, parts), {}
    for n, value in evaluate(genotypes, lambda: len(found) >= 3):
        found[n] = value
    assert len(found) == 3 and sorted(found) != [0, 1, 2], "neighbours in the tree, wherever they were asked for"
    single = dict(evaluate(genotypes, lambda: False))
    assert found == {n: single[n] for n in found} and len(single) == 7


def test_a_scatter_plot_has_every_finite_pair_and_an_axis_that_fits():
    flow, truth = np.array([1e3, 1e20, 1e50, -np.inf]), np.array([1.0, 2, 3, 4])
    with house_style():
        figure = scatter({"synflow": (flow, truth), "accuracy": (truth, truth), "none": (flow[3:], truth[3:]),
                          "zero": (flow * [1, 0, 1, 1], truth)}, y_label="truth")
        figure.canvas.draw()
    first, second, third, fourth = figure.axes
    assert [axes.get_xscale() for axes in (first, second, fourth)] == ["log", "linear", "symlog"]
    assert len(fourth.collections[0].get_offsets()) == 3
    assert len(first.collections[0].get_offsets()) == 3 and first.get_title() == "1 of 4 not finite"
    assert len(second.collections[0].get_offsets()) == 4 and len(third.collections[0].get_offsets()) == 0
