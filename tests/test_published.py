import math
import re

import pytest
import yaml

from supernet.app.options import CONF
from supernet.app.published import read_table, tables
from supernet.errors import UsageError
from supernet.sweeps.jobs import configs, jobs

PRESETS = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
SCALES = ("paper", "cpu")


def everything():
    return [read_table(name, scale) for name in tables() for scale in SCALES]


def test_there_are_the_tables_that_are_promised_at_both_scales():
    assert set(tables()) >= {"darts_cifar10", "methods_cifar10", "s1_s4", "nasbench201"}
    for table in everything():
        assert table.rows and table.scale.about and table.scale.comparable == (table.scale.name == "paper")


def test_every_row_runs_a_preset_that_is_there_or_draws_at_random():
    for table in everything():
        for row in table.rows:
            assert (row.experiment in PRESETS) != (row.random is not None), f"{table.name}: {row.name}"


def test_every_published_result_says_what_it_is_over_and_where_it_is_from():
    for table in everything():
        for row in table.rows:
            for entry in (entry for found in row.published.values() for entry in found):
                assert entry.over in ("searches", "retrainings", "unknown") and len(entry.source) > 3
                assert 0 < entry.mean < 100 and (math.isnan(entry.deviation) or 0 <= entry.deviation < 10), f"{table.name}: {row.name}"
                assert entry.over != "unknown" or not (entry.n or entry.best_of)


def test_published_rows_are_the_known_ones():
    rows = {row.name: row for row in read_table("nasbench201", "paper").rows}
    assert [rows["DARTS, 1st order"].published[key][0].mean for key in ("cifar10", "cifar100", "imagenet16")] == [54.30, 15.61, 16.32]
    darts = {row.name: row for row in read_table("darts_cifar10", "cpu").rows}["DARTS, 2nd order"].published["error"][0]
    assert (darts.mean, darts.deviation, darts.over, darts.best_of) == (2.76, 0.09, "retrainings", 4)


def test_presets_and_tables_quote_the_same_numbers():
    """What a preset's head says was published stands in the table of its benchmark, in percent of error or of accuracy."""
    for row in read_table("nasbench201", "paper").rows:
        head = (CONF / f"experiment/{row.experiment}.yaml").read_text() if row.experiment else ""
        for quoted in re.findall(r"(?:Published|Reported): (\d\d\.\d\d)", head):
            assert float(quoted) in [entry.mean for entry in row.published["cifar10"]], row.name


@pytest.mark.parametrize("name", [name if name == "darts_cifar10" else pytest.param(name, marks=pytest.mark.slow) for name in tables()])
def test_rows_compose(name):
    with configs():
        for scale in SCALES:
            table = read_table(name, scale)
            for row in table.rows:
                if row.experiment:
                    jobs("train_search", [f"experiment={row.experiment}", *table.scale.search, *row.options], row.name, [0])
            for options in filter(None, (table.scale.selection, table.scale.final)):
                jobs("train_final", ["genotype=darts_v2", *options], "short", [0])  # any cell composes


def test_places_stand_for_words_in_braces_and_nothing_else_does(tmp_path):
    table = read_table("nasbench201", "cpu", {"root": "my data", "lookup": "t.csv"})
    assert table.scale.search[:2] == ['dataset.root="my data"', "table.path=t.csv"]
    path = own(tmp_path, lambda node: node["scales"]["cpu"].update(search=["dataset.root={where}"]))
    with pytest.raises(UsageError, match=r"dataset.root=\{where\}: in braces stand root or lookup"):
        read_table(path, "cpu")


def own(tmp_path, change):
    """A table in a file of its own, changed."""
    node = {"title": "Mine", "columns": {"error": {"title": "Error", "value": "test_accuracy", "error": True, "margin": 0.1}},
            "space": "toy", "scales": {"cpu": {"about": "Small.", "seeds": 2}},
            "rows": {"GDAS": {"experiment": "gdas_cifar10", "published": [{"over": "searches", "source": "a paper", "error": [3.0, 0.1]}]}}}
    change(node)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(node))
    return str(tmp_path / "mine.yaml")


def test_a_file_of_ones_own_is_a_table(tmp_path):
    table = read_table(own(tmp_path, lambda node: None), "cpu")
    assert (table.name, table.rows[0].published["error"][0].mean) == ("mine", 3.0)
    assert table.values[0].of({"test_accuracy": 97.0}) == 3.0 and math.isnan(table.values[0].of({}))


@pytest.mark.parametrize("change, said", [
    (lambda n: n.update(colums=1), "the file has no colums; there are columns, rows, scales, space, title, about, pick; did you mean"),
    (lambda n: n.pop("rows"), "the file needs rows"),
    (lambda n: n["columns"]["error"].update(margin=0), "columns.error.margin must be positive, got 0"),
    (lambda n: n["scales"]["cpu"].update(seeds=0), "scales.cpu.seeds must be a whole number of at least 1, got 0"),
    (lambda n: n["scales"]["cpu"].update(search="a=1"), "scales.cpu.search must be a list of options, key=value, got a=1"),
    (lambda n: n["rows"]["GDAS"].update(random={"cells": 2}), "rows.GDAS must have either an experiment or random"),
    (lambda n: n["rows"].update(R={"random": {"cells": 2}}), "rows.R.random.cells need scales.cpu.selection"),
    (lambda n: n["rows"]["GDAS"].update(baseline="R"), "the baseline of GDAS must be a row of scale cpu, got R"),
    (lambda n: n["rows"]["GDAS"]["published"][0].update(over="runs"), "must be searches, retrainings or unknown, got runs"),
    (lambda n: n["rows"]["GDAS"]["published"][0].update(error=[1, 2, 3]), "must be a mean, or [mean, standard deviation], got [1, 2, 3]"),
    (lambda n: n["rows"]["GDAS"]["published"][0].update(error="2.5"), "must be a number, got 2.5"),
])
def test_what_is_wrong_in_a_file_is_one_line(tmp_path, change, said):
    with pytest.raises(UsageError) as error:
        read_table(own(tmp_path, change), "cpu")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_table_or_scale_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="table must be one of .*, got nasbench20; did you mean nasbench201"):
        read_table("nasbench20", "cpu")
    with pytest.raises(UsageError, match="scale must be one of paper, cpu, got cp; did you mean cpu"):
        read_table("nasbench201", "cp")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="bad.yaml: it must hold options as YAML"):
        read_table(str(tmp_path / "bad.yaml"), "cpu")
