"""The table of methods: every method has its equation tests, its planted task and its row, and nothing missing looks like success."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import methods
from supernet.runs.environment import describe
from tests.planted import METHODS as PLANTED

HERE = Path(__file__).resolve().parent


def marked():
    """By method, the tests that are marked as its equation's, read from the files of this folder."""
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.equation":
                    for method in map(ast.literal_eval, mark.args):
                        found.setdefault(method, []).append(f"{path.name}::{node.name}")
    return found


@pytest.mark.parametrize("method", methods.presets())
def test_every_method_has_equation_tests_a_planted_task_and_a_row(method):
    assert marked().get(method), f"mark a test of what {method} computes: @pytest.mark.equation({method!r})"
    assert method in PLANTED
    lines = (methods.ROOT / "docs/methods_table.md").read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith(f"| {method} |")]
    assert len(rows) == 1 and len(rows[0]) == len(methods.COLUMNS), "python -m benchmarks.methods makes the table"


def test_every_method_is_described():
    text = (methods.ROOT / "docs/methods.md").read_text()
    missing = [name for names in methods.presets().values() for name in names if f"`{name}`" not in text]
    assert not missing


def test_marks_and_planted_tasks_name_methods_that_exist():
    known = methods.presets()
    assert set(marked()) <= set(known) and set(PLANTED) == set(known)


def test_published_numbers_are_read_from_the_presets_comments():
    assert methods.published("dr_nas_nasbench201") == "94.36 / 73.51 / 46.34 %, +- 0.00 over 4 runs"
    assert methods.published("darts_second_order_cifar10").startswith("2.76 +- 0.09 % test error, 3.3M parameters")
    assert methods.published("spos_nasbench201") == ""
    for names in methods.presets().values():
        for name in names:
            assert len(methods.published(name)) < 150


REPORT = """\
import pytest

@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.equation("gdas", "snas")
def test_equation(n):
    assert n < {n}

@pytest.mark.slow
def test_seeds(record_property):
    record_property("planted_seeds", "gdas")
    record_property("solved", "3 of 5")
    assert {n} > 9

@pytest.mark.skip(reason="no data")
@pytest.mark.equation("darts_es")
def test_skipped():
    pass

@pytest.mark.xfail(strict=True, reason="known")
def test_known(record_property):
    record_property("planted_seeds", "enas")
    record_property("solved", "2 of 5")
    assert False

def test_smoke(record_property):
    record_property("smoke", "gdas_cifar10")
"""


@pytest.fixture
def report(tmp_path):
    """A junit file of a suite as pytest writes it, with this folder's conftest.py."""
    def made(n):
        folder = tmp_path / "tests"
        folder.mkdir(exist_ok=True)
        (folder / "conftest.py").write_text((HERE / "conftest.py").read_text())
        (folder / "test_made.py").write_text(REPORT.format(n=n))
        path = tmp_path / f"{n}.xml"
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", str(methods.ROOT / "setup.cfg"), f"--rootdir={folder}", "-m",
                        "slow or not slow", "-p", "no:cacheprovider", f"--junitxml={path}", str(folder)], cwd=methods.ROOT, check=False,
                       capture_output=True)
        return path

    return made


def cells(text, method):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {method} |")]
    return dict(zip(methods.COLUMNS, (cell.strip() for cell in line.strip("|").split(" | "))))


def test_the_table_tells_what_failed_what_is_missing_and_what_passed(report, tmp_path, capsys):
    paths = {"--results": tmp_path / "kept.json", "--searches": tmp_path / "searches.json", "--out": tmp_path / "table.md"}
    options = [str(part) for pair in paths.items() for part in pair]
    methods.main([*options, str(report(2))])
    text = paths["--out"].read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    gdas, snas, fair = cells(text, "gdas"), cells(text, "snas"), cells(text, "fair_darts")
    assert gdas["equation tests"].startswith("**FAILED**: 1 of 2 passed") and snas["equation tests"] == gdas["equation tests"]
    assert gdas["five seeds"] == "**FAILED**: 3 of 5" and gdas["planted task"] == "not run"
    assert gdas["smoke run"].startswith("passed, ") and gdas["smoke run"].endswith("; not run: gdas_nasbench201")
    assert [fair[column] for column in ("equation tests", "planted task", "five seeds", "smoke run")] == ["not run"] * 4
    assert fair["ours"] == "not measured"
    assert cells(text, "darts_es")["equation tests"].startswith("0 of 1, 1 skipped")
    assert cells(text, "enas")["five seeds"] == "2 of 5 (expected: known)"
    assert cells(text, "reinmax")["presets"] == "none" and cells(text, "reinmax")["smoke run"] == "no preset"
    assert "2.93 % test error" in gdas["published"]

    row = {"method": "gdas", "runs": 3, "minutes": 2.0, "published": "93.61", "cifar10_mean": 90.125, "cifar10_std": 1.5}
    row |= {f"{dataset}_{what}": 50.0 for dataset in ("cifar100", "imagenet16") for what in ("mean", "std")}
    found = {"rows": [row], "random_search": {"10": 92.5}, "random_cell": 87.0, "best": 94.4, "environment": describe(torch.device("cpu")),
             "schedule": {"layers": 5, "threads": 1, "own": {"gdas": {"epochs": 3}}}}
    paths["--searches"].write_text(json.dumps(found))
    methods.main([*options, str(report(10))])  # the newest result of a test counts
    gdas = cells(paths["--out"].read_text(), "gdas")
    assert gdas["equation tests"].startswith("2 of 2, ") and gdas["five seeds"] == "3 of 5"
    assert gdas["ours"] == "NAS-Bench-201, reduced schedule: 90.12 +- 1.50 % over 3 searches"
    again = paths["--out"].read_text()
    assert "| `gdas` | 90.12 ± 1.50 | 50.00 ± 50.00 | 50.00 ± 50.00 | 2.0 | 93.61 |" in again and "gdas with `epochs=3`" in again
    methods.main(options)  # from what was kept
    assert paths["--out"].read_text() == again
    methods.main([*options, "--fresh"])
    assert cells(paths["--out"].read_text(), "gdas")["equation tests"] == "not run"


def test_a_mark_with_an_unknown_method_and_a_missing_file_are_told(tmp_path, capsys):
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (folder / "test_made.py").write_text("import pytest\n\n@pytest.mark.equation('gads')\ndef test_made():\n    pass\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", str(methods.ROOT / "setup.cfg"), f"--rootdir={folder}", "-p",
                           "no:cacheprovider", str(folder)], cwd=methods.ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "there is no method 'gads'" in done.stdout + done.stderr
    with pytest.raises(SystemExit):
        methods.main([str(tmp_path / "none.xml")])
    assert "there is no file" in capsys.readouterr().err
