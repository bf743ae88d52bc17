"""`python -m supernet.race`: on a small table of our own, and on NAS-Bench-201 where it is at hand."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest

from supernet.app.checks import validate
from supernet.commands.race import Step, prepared
from supernet.errors import Mendable
from supernet.report.anytime import Race
from supernet.runs.journal import Journal
from supernet.spaces import toy
from supernet.tables.files import read_table, write_table
from supernet.tables.table import Columns
from tests.helpers import python, until
from tests.searches import configs

ROOT = Path(__file__).parents[1]
SPACE = toy.make()
TEXTS = [SPACE.text(genotype) for genotype in SPACE.enumerate()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of the toy space: validation tells half the truth, and a training takes 1 to 28 seconds."""
    cwd, rng = tmp_path_factory.mktemp("race"), np.random.default_rng(0)
    test = rng.normal(80, 5, 27)
    columns = {"val": test + rng.normal(0, 3, 27), "test": test, "seconds": np.arange(1.0, 28), "latency": rng.uniform(1, 2, 27)}
    write_table(cwd / "toy.csv.gz", SPACE, TEXTS, columns, {"digits": Columns("val", "test", "seconds", 0.5)})
    return cwd


def race(*options, cwd, check=True):
    done = python("-m", "supernet.race", "space=toy", "table.path=toy.csv.gz", *options, cwd=cwd)
    assert not check or done.returncode == 0, done.stderr
    return done


def rows_of(folder):
    return list(csv.DictReader((folder / "race.csv").read_text().splitlines()))


def test_a_race_killed_and_begun_again_is_the_unbroken_one(folder):
    options = ["seeds=120", "simulated_s=40", "searchers=[random,genetic]", "options={genetic:{population:5}}"]
    race(*options, "output=whole", "processes=2", cwd=folder)
    words = [sys.executable, "-m", "supernet.race", "space=toy", "table.path=toy.csv.gz", *options, "output=broken"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    journal = folder / "broken/seeds.jsonl"
    until(lambda: journal.read_bytes().count(b"\n") >= 100, "a hundred searches")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(), process.stdout.close()
    kept = len(journal.read_text().splitlines())
    assert 100 <= kept < 240
    done = race(*options, "output=broken", cwd=folder)
    left = int(done.stdout.split("seeds; ")[1].split()[0])
    assert abs(left - (240 - kept)) <= 1, "at most the line that was being written"
    for name in ("race.csv", "race.md", "race.tex"):
        assert (folder / "broken" / name).read_text() == (folder / "whole" / name).read_text()


def test_searches_of_other_options_are_others(folder):
    def key(*options):
        with configs():
            return prepared(hydra.compose("race", overrides=["space=toy", f"table.path={folder}/toy.csv.gz", *options]))[0].key(
                "random", "digits")

    changed = ["simulated_s=100"], ["patience=3"], ["repeats=free"], ["columns={latency_ms:latency}"], ["objective.at_least={accuracy:1}"]
    assert len({key(), *(key(*options) for options in changed)}) == 6
    assert key() == key("processes=2", "seeds=7", "level=0.9", "searchers=[genetic,random]")


def test_what_a_race_writes_is_what_its_searches_found(folder):
    race("seeds=12", "simulated_s=null", "trials=9", "searchers=[random,annealing]", "output=told", cwd=folder)
    table = read_table(folder / "toy.csv.gz", SPACE)
    steps: dict[str, list] = {}
    for entry in Journal.read(folder / "told/seeds.jsonl"):
        steps.setdefault(entry["searcher"], []).append(entry["steps"])
        assert entry["steps"][-1][0] == 9
        improving = [table.column("val")[row] for *_, row in entry["steps"][:-1]]
        assert improving == sorted(set(improving)) and entry["steps"][-1][-1] == entry["steps"][-2][-1]
    for row in rows_of(folder / "told"):
        test = np.array([table.column("test")[found[-1][-1]] for found in steps[row["searcher"]]])
        assert [float(row[key]) for key in ("test_mean", "test_deviation", "test_median")] == pytest.approx(
            [test.mean(), test.std(ddof=1), np.median(test)])
        assert float(row["regret"]) == pytest.approx(table.column("test").max() - test.mean()) and row["seeds"] == "12"
    told = json.loads((folder / "told/race.json").read_text())
    assert told["table"] == table.files and len(told["table"]["toy.csv.gz"]) == 64
    page = (folder / "told/race.html").read_text()
    assert "annealing" in page and "<svg" in page and "http-equiv" in page and (folder / "told/digits.png").stat().st_size > 10_000


def test_one_seed_has_a_mean_and_nothing_that_it_cannot_have(folder):
    done = race("seeds=1", "simulated_s=null", "trials=3", "searchers=[random]", "output=once", cwd=folder)
    for text in (done.stdout, *((folder / "once" / name).read_text() for name in ("race.md", "race.tex", "race.csv", "race.json"))):
        assert not re.search(r"\bnan\b", text, re.IGNORECASE), text


def test_a_limit_on_a_column_is_kept_by_all_that_is_evaluated(folder):
    race("seeds=5", "simulated_s=null", "trials=8", "searchers=[random,annealing]",
         "columns={latency_ms:latency}", "objective.at_most={latency_ms:1.4}", "output=limited", cwd=folder)
    table = read_table(folder / "toy.csv.gz", SPACE)
    found = [row for entry in Journal.read(folder / "limited/seeds.jsonl") for *_, row in entry["steps"]]
    assert found and max(table.column("latency")[found]) <= 1.4 < table.column("latency").max()


@pytest.mark.parametrize("options, said", [
    (["searchers=[randm]"], "did you mean random?"), (["searchers=[random,random]"], "each once"),
    (["datasets=[mnist]"], "knows the data sets digits, got 'mnist'"), (["table.path=null"], "needs a table of space toy: pass table.path"),
    (["simulated_s=null"], "expected at least one of trials"), (["simulated_s=0"], "simulated_s must be positive"),
    (["options={genetic:{population:3}}"], "options must be {searcher: {option: value}} of random, regularised_evolution, reinforce"),
    (["options={random:{population:3}}"], "has no such option"), (["objective.maximise=[f1]"], "there is no metric 'f1' here"),
    (["objective.minimise=[latency]", "columns={latency:latency}"], "compares one score, and the objective has 2"),
    (["columns={latency:watts}"], "has no column 'watts'"), (["columns=[latency]"], "columns must be {name: value, ...}"),
    (["searchers=[hyperband]"], "begins with short trainings, which Tabular cannot give"), (["seeds=0"], "seeds must be")])
def test_what_does_not_fit_is_told_in_one_line(folder, options, said):
    with pytest.raises(Mendable) as error, configs():
        cfg = hydra.compose("race", overrides=["space=toy", f"table.path={folder}/toy.csv.gz", *options])
        validate(cfg, "race")
        prepared(cfg)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_command_that_does_not_fit_leaves_nothing_behind(folder):
    done = race("columns={latency:watts}", "output=bad", cwd=folder, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not (folder / "bad").exists()


def test_curves_say_what_the_best_was_worth_at_each_moment():
    test = np.array([10.0, 20.0, 30.0, 5.0])
    steps = {"a": [[Step(1, 0, 2.0, 0), Step(3, 0, 6.0, 1), Step(5, 0, 10.0, 1)],
                   [Step(1, 0, 1.0, 3), Step(2, 0, 9.0, 2), Step(4, 0, 12.0, 2)]]}
    drawn = Race("x", "simulated_s", 10.0, test, test, steps)
    grid, curves = drawn.grid(), drawn.curves("a")
    for n, moment in enumerate(grid):
        assert curves[0][n] == (10 if moment < 6 else 20) and curves[1][n] == (5 if moment < 9 else 30)
    (result,) = drawn.results()
    assert (result.test.mean, result.regret, result.optimum, result.trials) == (25, 5, 0.5, 4.5)


def test_the_example_of_the_page_runs_as_it_stands(capsys):
    text = (ROOT / "docs/search_by_trials.md").read_text()
    exec(compile(text.split("```python\n")[1].split("```")[0], "docs/search_by_trials.md", "exec"), {})
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
