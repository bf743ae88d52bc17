import csv
import json
import shutil
from html.parser import HTMLParser

import pytest
import yaml

from supernet.commands import compare
from supernet.runs.folder import RunFolder
from tests.runs import planted_run


@pytest.fixture
def runs(tmp_path):
    """Five seeds of two rows that differ in epochs."""
    for seed, (a, b) in enumerate(((90, 91), (91, 93), (92, 92.5), (90.5, 92), (89, 90))):
        planted_run(tmp_path / f"runs/short{seed}", job=f"short{seed}", seed=seed, accuracy=a, genotype=seed)
        planted_run(tmp_path / f"runs/long{seed}", job=f"long{seed}", seed=seed, accuracy=b, genotype=seed + 5, epochs=4)
    return tmp_path / "runs"


def table(capsys, *arguments):
    """What the command writes as CSV, a row by name."""
    output = arguments[0].parent / "table"
    assert compare.main([*map(str, arguments), "--output", str(output)]) == 0, capsys.readouterr().err
    rows = csv.DictReader((output / "table.csv").read_text().splitlines())
    return {row["method"]: row for row in rows}, (output / "table.md").read_text()


def error(capsys, *arguments):
    assert compare.main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_rows_are_named_by_what_they_do_not_share_and_hold_all_their_seeds(runs, capsys):
    rows, _ = table(capsys, runs)
    assert list(rows) == ["epochs=4", "epochs=2"] or list(rows) == ["epochs=2", "epochs=4"]
    assert float(rows["epochs=2"]["mean"]) == 90.5 and rows["epochs=2"]["searches"] == "5"
    assert float(rows["epochs=2"]["deviation_over_searches"]) == pytest.approx(1.118033989)
    assert rows["epochs=2"]["deviation_over_retrainings"] == "", "searches were not retrained"


def test_two_duplicates_of_one_run_do_not_change_a_mean(runs, capsys):
    before, _ = table(capsys, runs)
    shutil.copytree(runs / "short2", runs / "copy")
    planted_run(runs / "again", job="short2", seed=2, accuracy=92, genotype=2)  # the same job, run anew elsewhere
    after, text = table(capsys, runs)
    assert after == before
    assert "Duplicates, which count for nothing: 2" in text and "found another result" not in text


def test_a_copy_that_found_something_else_is_told_and_counts_for_nothing(runs, capsys):
    before, _ = table(capsys, runs)
    planted_run(runs / "again", job="short2", seed=2, accuracy=99, genotype=2)
    after, text = table(capsys, runs)
    assert after == before and "Of these 1 found another result than the run that counts (again and short2)" in text


def test_a_run_of_another_commit_is_marked(runs, capsys):
    planted_run(runs / "other", job="short5", seed=5, accuracy=90, commit="b" * 40)
    rows, text = table(capsys, runs)
    assert rows["epochs=2"]["other_commit"] == "True" and rows["epochs=4"]["other_commit"] == "False"
    assert f"† epochs=2: 1 of 6 of commit {'b' * 12}; most of the table is of {'a' * 12}" in text and "| epochs=2† " in text


def test_what_has_no_result_is_left_out_and_said(runs, capsys):
    planted_run(runs / "half", job="short5", seed=5, status="stopped")
    planted_run(runs / "bad", job="short6", seed=6)
    (runs / "bad/summary.json").write_text("{")
    rows, text = table(capsys, runs)
    assert rows["epochs=2"]["searches"] == "5"
    assert "Left out: 2 runs without a result" in text and "half: not finished" in text


def test_the_gain_is_tested_seed_by_seed(runs, capsys):
    rows, text = table(capsys, runs, "--baseline", "epochs=2")
    assert float(rows["epochs=4"]["gain"]) == pytest.approx(1.2) and float(rows["epochs=4"]["gain_p"]) == 1 / 32
    assert rows["epochs=2"]["gain"] == "" and "| 0.031 " in text
    shutil.rmtree(runs / "long4")
    rows, text = table(capsys, runs, "--baseline", "epochs=2")
    assert rows["epochs=4"]["gain_pairs"] == "4" and rows["epochs=4"]["gain_p"] == "" and "4 pairs, 5 needed" in text


def test_retrainings_are_nested_in_their_searches(runs, capsys):
    results = {"short0": (96.0, 98.0), "short1": (97.0, 97.0, 97.0), "long0": (95.0, 95.5)}
    for search, values in results.items():
        for seed, accuracy in enumerate(values):
            number = int(search[-1]) + 5 * search.startswith("long")
            planted_run(runs / f"final_{search}_{seed}", job=f"{search} {seed}", seed=seed, accuracy=accuracy, script="train_final",
                    genotype=number)
            options = yaml.safe_load((runs / f"final_{search}_{seed}/config.yaml").read_text())
            folder = RunFolder(runs / f"final_{search}_{seed}")
            folder.write(folder.config, yaml.safe_dump(options | {"genotype": f"runs/{search}/genotype.json"}).encode())
    rows, _ = table(capsys, runs)
    assert set(rows) == {"epochs=2", "epochs=4"}, "final trainings are told apart by the searches that found their cells"
    short = rows["epochs=2"]
    assert (short["searches"], short["retrainings"], float(short["mean"])) == ("2", "5", 97.0)
    assert float(short["deviation_over_searches"]) == 0 and float(short["deviation_over_retrainings"]) == pytest.approx((2 / 3) ** 0.5)
    assert rows["epochs=4"]["deviation_over_searches"] == "" and float(short["cost_s"]) == 10
    rows, _ = table(capsys, runs, "--of", "search")
    assert float(rows["epochs=2"]["mean"]) == 90.5


def test_parts_are_named_by_their_choices_where_runs_kept_them(tmp_path, capsys):
    for n, name in enumerate(("softmax", "gumbel")):
        part = {"_target_": f"supernet.relaxations.{name}.Name", "init_scale": n}
        path = planted_run(tmp_path / f"runs/{name}", job=name, relaxation=part)
        folder = RunFolder(path)
        folder._write_status({**folder.status(), "choices": {"relaxation": name, "space": "toy"}})
    assert set(table(capsys, tmp_path / "runs")[0]) == {"relaxation=softmax", "relaxation=gumbel"}


def test_rows_are_named_as_their_command_lines_tell_them_apart(tmp_path, capsys):
    lines = ["experiment=gdas_toy", "epochs=2", "seed=0", "output=a"], ["experiment=dr_nas_toy", "epochs=2", "+x.root=b"]
    for n, words in enumerate(lines):
        path = planted_run(tmp_path / f"runs/{n}", job=str(n), alpha_begin=n, penalty={"a": {"weight": n}})
        folder = RunFolder(path)
        folder._write_status({**folder.status(), "overrides": words})
    assert set(table(capsys, tmp_path / "runs")[0]) == {"experiment=gdas_toy", "experiment=dr_nas_toy"}


def test_trainings_of_cells_that_no_given_search_found_are_a_row_each(tmp_path, capsys):
    for seed, name in enumerate(("darts_v2", "darts_v2", "runs/some_search/genotype.json")):
        planted_run(tmp_path / f"runs/{seed}", job=str(seed), seed=seed, script="train_final", genotype=seed // 2)
        folder = RunFolder(tmp_path / f"runs/{seed}")
        options = yaml.safe_load(folder.config.read_text()) | {"genotype": name}
        folder.write(folder.config, yaml.safe_dump(options).encode())
    rows = table(capsys, tmp_path / "runs")[0]
    assert {name: row["retrainings"] for name, row in rows.items()} == {"genotype=darts_v2": "2", "genotype=some_search": "1"}


def test_every_format_holds_the_table_and_the_page_fetches_nothing(runs, capsys):
    table(capsys, runs, "--baseline", "epochs=2", "--title", "A & B_1 <x>")
    output = runs.parent / "table"
    tex, html = (output / "table.tex").read_text(), (output / "table.html").read_text()
    assert r"A \& B\_1 $<$x$>$" in tex and tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    assert r"epochs=4 & 91.70 $\pm$ 1.20" in tex
    assert "A &amp; B_1 &lt;x&gt;" in html and "<script" not in html and "src=" not in html and "<svg" in html
    HTMLParser().feed(html)
    printed = capsys.readouterr().out
    assert "epochs=4" in printed and "written" in printed


def test_the_same_command_gives_the_same_files(runs, capsys):
    table(capsys, runs)
    before = {path.name: path.read_bytes() for path in (runs.parent / "table").iterdir()}
    table(capsys, runs)
    assert {path.name: path.read_bytes() for path in (runs.parent / "table").iterdir()} == before


def test_wrong_arguments_are_one_line(runs, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "expected the folder of a run, or one that holds some" in error(capsys, tmp_path / "empty")
    assert "no run has it; there are elapsed_s, val_accuracy; did you mean val_accuracy?" in error(capsys, runs, "--value", "val_acuracy")
    assert "there is no such row; there are" in error(capsys, runs, "--baseline", "epochs=3")
    assert "--level must be above 0 and below 1, got 95" in error(capsys, runs, "--level", "95")
    assert "--seed must be at least 0, got -4" in error(capsys, runs, "--seed", "-4")
    assert "no finished train_final run among 10 folders" in error(capsys, runs, "--of", "final")
    (tmp_path / "file").write_text("")
    assert "cannot write there" in error(capsys, runs, "--output", tmp_path / "file")


def test_a_folder_of_rubbish_stops_nothing(runs, capsys):
    for name, content in (("a", "{"), ("b", "[]"), ("c", json.dumps({"status": "finished"})), ("d", "\0\xff")):
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(content)
    rows, text = table(capsys, runs)
    assert len(rows) == 2 and "Left out: 4 runs" in text


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1" + "0" * 400])
def test_a_value_that_is_not_finite_is_named_and_leaves_the_mean_of_its_row_unknown(runs, capsys, value):
    (runs / "short0/summary.json").write_text(f'{{"values": {{"val_accuracy": {value}, "elapsed_s": 1.0}}}}')
    rows, text = table(capsys, runs, "--baseline", "epochs=2")
    assert "No finite val_accuracy, so that the mean of the row is not known: short0." in text
    assert rows["epochs=2"]["mean"] in ("", "nan") and float(rows["epochs=4"]["mean"]) == pytest.approx(91.7)


def test_a_damaged_summary_is_named_as_such(runs, capsys):
    (runs / "short0/summary.json").write_text("{")
    (runs / "short1/summary.json").write_text("[]")
    _, text = table(capsys, runs)
    assert "short0: summary.json cannot be read (Expecting" in text and "short1: summary.json holds no values" in text


def test_latex_has_minus_signs_and_no_comment_in_a_label(runs, capsys):
    for folder in runs.iterdir():
        summary = json.loads((folder / "summary.json").read_text())
        summary["values"]["left%"] = summary["values"]["val_accuracy"]
        (folder / "summary.json").write_text(json.dumps(summary))
    table(capsys, runs, "--value", "left%", "--baseline", "epochs=4")
    text = (runs.parent / "table/table.tex").read_text()
    assert r"\label{tab:left-}" in text and " & $-$1.20 [$-$" in text
    assert "epochs=4 took 1.0 times as long as" in text  # a range of two equal numbers is one
