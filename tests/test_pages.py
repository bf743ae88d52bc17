"""`python -m supernet.report`: pages of runs, of many runs and of tables."""

import base64
import importlib.util
import io
import json
import os
import random
import re
import shutil
import zipfile

import numpy as np
import pytest

from supernet.commands import report
from supernet.genotype import Edge, Genotype
from supernet.report.fleet import as_data, row
from supernet.report.frames import cell_frames, frame
from supernet.report.html import run_page
from supernet.report.run_files import RunFiles
from supernet.report.sections.weights import kept
from supernet.runs.folder import RunFolder
from supernet.spaces import darts_rnn, nasbench201, nasbench_macro, toy
from supernet.tables.files import write_table
from supernet.tables.table import Columns
from tests import pages
from tests.drawings import EVIL, write_run
from tests.helpers import ROOT
from tests.runs import planted_run


@pytest.fixture
def runs(tmp_path):
    """Three searches, of which one goes on no more, and the training of what one found."""
    for seed, accuracy in enumerate((90.0, 92.0)):
        planted_run(tmp_path / f"runs/s{seed}", job=f"s{seed}", seed=seed, accuracy=accuracy, genotype=seed, validation=accuracy)
        planted_run(tmp_path / f"runs/f{seed}", job=f"f{seed}", script="train_final", accuracy=accuracy + 5, genotype=seed, epochs=7 + seed)
        config = tmp_path / f"runs/f{seed}/config.yaml"
        config.write_text(config.read_text() + f"genotype: runs/s{seed}/genotype.json\n")
    planted_run(tmp_path / "runs/killed", job="k", status="running", genotype=3)
    (tmp_path / "runs/killed/summary.json").unlink()
    return tmp_path / "runs"


def made(path) -> pages.Page:
    page = pages.read(path.read_text())
    pages.assert_safe(page)
    return page


def error(capsys, *arguments):
    assert report.main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_the_page_of_a_folder_has_a_row_for_every_run_and_leads_to_their_pages(runs, capsys):
    assert report.main([str(runs)]) == 0
    assert capsys.readouterr().out.split()[1] == str(runs / "report.html")  # first what was asked for
    page = made(runs / "report.html")
    data = page.data["runs"]["runs"]
    names = [column["name"] for column in data["columns"]]
    rows = [dict(zip(names, one["cells"], strict=True)) for one in data["rows"]]
    assert {r["run"]: (r["kind"], r["state"]) for r in rows} == {
        "f0": ("final", "finished"), "f1": ("final", "finished"), "killed": ("search", "stopped"), "s0": ("search", "finished"),
        "s1": ("search", "finished")}
    assert {r["run"]: r["val accuracy"] for r in rows if r["kind"] == "search"} == {"s0": 90, "s1": 92, "killed": None}
    for one in data["rows"]:
        assert one["link"] == f"{one['cells'][0]}/report.html"
        made(runs / one["link"])
    assert data["cells"].keys() == {one["digest"] for one in data["rows"]}


def test_options_that_all_runs_share_are_left_out_and_others_are_whole(runs):
    data = as_data([row(runs / name) for name in ("s0", "s1", "f1")], lambda r: None, lambda r: r.path.name)
    s0, s1, f1 = (one["options"] for one in data["rows"])
    assert s0["seed"] == "0" and s1["seed"] == "1" and f1["epochs"] == "8"
    everything = dict(row(runs / "s0").options)
    assert everything.keys() > s0.keys()
    shared = everything.keys() - s0.keys()
    assert all(row(runs / "f1").options[key] == everything[key] for key in shared)


def test_searches_stand_against_what_retraining_them_reached(runs):
    report.main([str(runs)])
    (panel,) = made(runs / "report.html").data["scatter"]["scatter"]
    assert sorted(point[:2] for point in panel["points"]) == [[90, 95], [92, 97]]


def test_a_ranking_below_the_folder_is_drawn_and_a_broken_one_passed_over(runs):
    (runs / "rank").mkdir()
    (runs / "rank" / "rank.csv").write_text(f"arch,truth,{EVIL}\na,1.0,0.5\nb,2.0,\nc,nan,inf\n")
    (runs / "broken").mkdir()
    (runs / "broken" / "rank.csv").write_text("arch,truth,x\na,one,two\n")
    report.main([str(runs)])
    page = made(runs / "report.html")
    panel = page.data["scatter"]["scatter"][-1]
    assert panel["title"] == f"rank: {EVIL}" and panel["points"] == [[0.5, 1, "a"], [None, None, "c"]]
    assert EVIL not in page.html


def test_only_pages_that_are_older_than_their_run_are_written_again(runs, capsys):
    report.main([str(runs)])
    capsys.readouterr()
    report.main([str(runs)])
    assert capsys.readouterr().out == f"written   {runs / 'report.html'}\n"
    page = runs / "s1" / "report.html"
    os.utime(page, ns=(0, 0))
    report.main([str(runs)])
    assert capsys.readouterr().out.splitlines() == [f"written   {runs / 'report.html'}", f"written   {page}"]


def test_runs_that_are_named_are_rebuilt_and_compared(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report.main(["runs/s0", "runs/s1"]) == 0
    data = made(tmp_path / "report.html").data["runs"]["runs"]
    assert [one["link"] for one in data["rows"]] == ["runs/s0/report.html", "runs/s1/report.html"]
    elsewhere = tmp_path / "elsewhere.html"
    assert report.main([str(runs / "s0"), "--output", str(elsewhere)]) == 0
    assert elsewhere.read_text() == run_page(runs / "s0")


def test_a_strangers_runs_reach_the_page_as_text_alone(tmp_path):
    run = tmp_path / "runs" / "<b>&'\""
    run.mkdir(parents=True)
    write_run(run, text=EVIL)
    report.main([str(tmp_path / "runs"), "--title", EVIL])
    page = made(tmp_path / "runs" / "report.html")
    assert EVIL in page.text and EVIL not in page.html
    assert page.data["runs"]["runs"]["rows"][0]["cells"][0] == "<b>&'\""
    assert page.data["runs"]["runs"]["rows"][0]["link"] == "%3Cb%3E%26%27%22/report.html"


@pytest.mark.parametrize("junk", ["", "{", "[1]", "null", '{"rows": 3, "cells": []}', "\udcff", "a: &a [*a]"])
def test_a_folder_of_broken_runs_is_still_a_page(tmp_path, junk):
    for name in ("config.yaml", "environment.json", "genotype.json", "genotypes.jsonl", "metrics.jsonl", "run.json", "summary.json"):
        (tmp_path / "runs" / "r").mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / "r" / name).write_text(junk, errors="surrogateescape")
    assert report.main([str(tmp_path / "runs")]) == 0
    assert len(made(tmp_path / "runs" / "report.html").data["runs"]["runs"]["rows"]) == 1


def test_three_hundred_runs_are_a_page_of_a_few_megabytes(tmp_path):
    run = planted_run(tmp_path / "run", job="j")
    records = [{"epoch": e, **{f"number_{n}": random.random() for n in range(12)}} for e in range(200)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    one = row(run)
    data = as_data([one] * 300, lambda r: None, lambda r: r.path.name)
    html = report.runs_page("x", [one] * 300, named=lambda r: r.path.name, link=lambda r: None)
    assert len(data["rows"]) == 300 and 1_000_000 < len(html) < 8_000_000
    assert all(len(curve[0]) >= 10 for curve in data["rows"][0]["curves"].values())


def test_wrong_arguments_are_one_line(runs, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("hello\n")
    (tmp_path / "empty").mkdir()
    assert "there is no such run" in error(capsys, tmp_path / "nowhere")
    assert "expected the folder of a run, or one that holds some" in error(capsys, tmp_path / "empty")
    assert "not a table as docs/tables.md describes them" in error(capsys, tmp_path / "t.csv")
    assert "a table is shown alone" in error(capsys, tmp_path / "t.csv", runs)
    assert "--port must be 0 to 65535" in error(capsys, runs, "--port", 70000)
    assert "--output is of a page that is written" in error(capsys, runs, "--serve", "--output", "x.html")
    assert "cannot write there" in error(capsys, runs, "--output", tmp_path / "no" / "x.html")
    assert "there is no space 'nonsense'" in error(capsys, tmp_path / "t.csv", "--space", "nonsense")


@pytest.fixture
def table(tmp_path):
    space = toy.make()
    texts = [space.text(g) for g in space.enumerate()]
    rng = np.random.default_rng(0)
    columns = {"val": rng.random(len(texts)) * 100, "test": rng.random(len(texts)) * 100, "params_m": np.arange(len(texts)) + 1.0,
               "same": np.ones(len(texts))}
    columns["test"][5] = np.nan
    write_table(tmp_path / "toy.csv.gz", space, texts, columns, {EVIL: Columns("val", "test")})
    return tmp_path / "toy.csv.gz", texts, columns


def test_the_page_of_a_table_has_its_distribution_its_columns_and_its_best_cells(table, monkeypatch):
    path, texts, columns = table
    monkeypatch.chdir(path.parent)
    assert report.main([str(path)]) == 0
    page = made(path.parent / "toy.html")
    test = columns["test"]
    (bars,) = page.data["distribution"]["bars"]
    assert sum(bars["counts"]) == len(texts) - 1 and EVIL in page.text and EVIL not in page.html
    best = int(np.nanargmax(test))
    first = page.section("best0").split("<tr>")[2]
    assert f"<td>{test[best]:.2f}</td>" in first and texts[best].replace("&", "&amp;") in first
    data = page.data["scatter"]["table"]
    assert data["names"] == ["test", "val", "params_m"]  # the column of one value says nothing
    assert (data["x"], data["y"], data["texts"]) == ("params_m", "test", texts)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(data["columns"][0]), "<f4"), test.astype("f4"))


def test_a_cell_that_concatenates_joins_all_its_nodes_and_one_that_does_not_ends_in_its_last():
    rng = random.Random(0)
    (nb,) = cell_frames(nasbench201.make().sample(rng))
    assert (nb["outputs"], nb["inputs"], nb["nodes"]) == ([3], 1, ["c_{k-1}", "0", "1", "2"]) and not nb["chain"]
    (rnn,) = cell_frames(darts_rnn.make().sample(rng))
    assert rnn["fed"] == ["x_t", "h_{t-1}"] and rnn["outputs"] == list(range(1, 9)) and rnn["nodes"][:2] == ["0", "1"]
    assert cell_frames(nasbench_macro.make().sample(rng))[0]["chain"]
    known = frame("normal", [(0, 2), (1, 2), (2, 3)], outputs={"normal": [3, 99, "x"]})
    assert known["outputs"] == [3]
    assert frame("normal", [(0, 2), (1, 2), (2, 3)], outputs=5)["outputs"] == [2, 3]


def test_edges_that_join_the_same_nodes_are_kept_in_their_order():
    genotype = Genotype("s", "f", (("cell", (Edge(1, 0, "a"), Edge(1, 0, "b"))),))
    assert kept(genotype, "cell", [(0, 1), (0, 1), (0, 2)], ["a", "b"]) == [[0, 0], [1, 1]]


def test_a_copy_of_a_run_elsewhere_has_the_same_page(runs, tmp_path):
    shutil.copytree(runs / "s0", tmp_path / "s0")
    assert run_page(tmp_path / "s0") == run_page(runs / "s0")


def test_the_page_does_not_touch_the_run(runs):
    before = {path: path.read_bytes() for path in runs.glob("killed/*")}
    report.main([str(runs), "--output", str(runs.parent / "page.html")])
    after = {path: path.read_bytes() for path in runs.glob("killed/*") if path.name != "report.html"}
    assert after == before and not RunFolder(runs / "killed").is_locked()


def test_a_pipe_in_place_of_a_file_is_not_waited_for(runs):
    for name in (".lock", "alphas.npz", "metrics.jsonl", "config.yaml"):
        (runs / "killed" / name).unlink(missing_ok=True)
        os.mkfifo(runs / "killed" / name)
    assert not RunFolder(runs / "killed").is_locked()
    assert "it must be a regular file, and is a pipe" in run_page(runs / "killed")
    assert row(runs / "killed").state == "stopped"


def test_an_array_that_claims_to_be_endless_takes_no_memory(runs):
    """1,000 bytes whose header tells of 8 TB."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(runs / "killed/alphas.npz", "w") as packed:
        for name in ("epoch", "weights.a"):
            packed.writestr(f"{name}.npy", head.getvalue() + b"x" * 800)
    assert 'id="weights"' in run_page(runs / "killed")


def test_the_section_of_the_documentation_is_one(runs, tmp_path):
    text = (ROOT / "docs/pages.md").read_text()
    (tmp_path / "mine.py").write_text(re.search(r"```python\n(.*?)```", text, re.S)[1])
    loaded = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    assert module.shown(RunFiles(runs / "f0")) is None
    summary = json.loads((runs / "f0/summary.json").read_text())
    summary["values"]["class_accuracies"] = {"<b>": 99.5}
    (runs / "f0/summary.json").write_text(json.dumps(summary))
    assert '<th scope="row">&lt;b&gt;</th><td>99.50 %</td>' in module.shown(RunFiles(runs / "f0")).html
