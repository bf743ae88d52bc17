"""A table run again: what is run, from what, what is never run twice, and what is made of it. Most tests run no job: a runner plants the
folders that jobs would leave behind."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from supernet.app.published import read_table
from supernet.commands.drawn import affordable
from supernet.commands.reproduction import Reproduction
from supernet.errors import UsageError
from supernet.evaluators.tabular import Tabular
from supernet.report.referee import lines
from supernet.spaces import toy
from supernet.sweeps.jobs import Training, configs, jobs, trainings
from supernet.sweeps.running import Done
from supernet.sweeps.states import State, Watch
from supernet.tables.files import read_table as read_lookup
from supernet.tables.files import write_table
from supernet.tables.table import Columns
from tests.helpers import python
from tests.runs import planted_run

SPACE = toy.make()
CELLS = list(SPACE.enumerate())
SMALL = ["dataset=digits", "layers=3", "channels=4", "epochs=1", "split.max_train=64", "threads=1"]
TABLE = {
    "title": "Tiny", "space": "toy", "pick": "best validation accuracy",
    "columns": {"error": {"title": "Test error (%)", "value": "test_accuracy", "error": True, "margin": 1.0}},
    "scales": {"cpu": {"about": "Seconds.", "comparable": False, "baseline": "random cells", "seeds": 3, "retrainings": 3,
                       "retrainings_of_others": 2, "search": ["space=toy", "profile=smoke", "epochs=1"],
                       "selection": [*SMALL, "split.val_portion=0.5"], "final": SMALL}},
    "rows": {"random cells": {"random": {"cells": 2}},
             "DARTS": {"experiment": "darts_first_order_cifar10", "published": [
                 {"over": "retrainings", "n": 10, "best_of": 3, "source": "a paper", "error": [5.0, 0.1]},
                 {"over": "searches", "n": 3, "source": "another", "error": [50.0, 0.1]}]}}}


@pytest.fixture
def plan(tmp_path):
    """A function that makes the plan anew, as each start of the command does."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TABLE, sort_keys=False))

    def make(**how):
        return Reproduction(read_table(str(tmp_path / "tiny.yaml"), "cpu"), tmp_path / "out", space=lambda name: SPACE, **how)

    with configs():
        yield make


class Runner:
    """Plants a finished run for each job that has none; fails after `most` of them."""

    def __init__(self, output, most=10**6, signal=None):
        self.output, self.most, self.signal, self.begun = output, most, signal, []

    def __call__(self, jobs):
        watch = Watch(self.output)
        for job in {job.digest: job for job in jobs}.values():
            if job.digest in watch.runs() or len(self.begun) >= self.most:
                continue
            self.begun.append((job.script, job.name, job.seed))
            self.plant(job)
        there = watch.runs()
        states = [State(job, "finished" if job.digest in there else "waiting", None) for job in jobs]
        return Done(states, self.signal if len(self.begun) >= self.most else None)

    def plant(self, job):
        """Searches find the cell of their seed; trainings reach what the number of their cell and their seed say."""
        where = self.output / f"{job.digest[:12]}"
        if job.script == "train_search":
            planted_run(where, job=job.digest, seed=job.seed, genotype=job.seed)
            return
        path = next(option.partition("=")[2] for option in job.options if option.startswith("genotype="))
        digest = json.loads(Path(path.strip('"')).read_text())["digest"]
        number = next(n for n, cell in enumerate(CELLS) if cell.digest == digest)
        planted_run(where, job=job.digest, seed=job.seed, script="train_final", genotype=number, validation=50.0 - number,
                    accuracy=95.0 - number + job.seed % 1000 / 10)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A table that has been run to its end: the plan, the runner, and what became of the jobs."""
    folder = tmp_path_factory.mktemp("ended")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TABLE, sort_keys=False))
    with configs():
        found = Reproduction(read_table(str(folder / "tiny.yaml"), "cpu"), folder / "out", space=lambda name: SPACE)
        runner = Runner(folder / "out")
        return found, runner, found.run(runner)


def test_searches_are_followed_by_short_trainings_and_retrainings_of_their_own_seeds(ended):
    _, runner, done = ended
    assert done.code == 0 and len(done.states) == len(runner.begun) == (6 + 3) + 3 + 2 * (3 + 2 + 2)
    finals = [(name, seed) for script, name, seed in runner.begun if "-search" in name]
    # the cell that did best in its short training is retrained three times, the others twice; a random search's first is its own pick
    assert sorted(finals) == sorted(
        (f"tiny-{row}-search{search}", 1000 * (search + 1) + n) for row in ("random-cells", "darts") for search in range(3)
        for n in range(3 if search == 0 else 2))


def test_rows_hold_searches_and_their_retrainings_apart(ended):
    found, _, _ = ended
    random_cells, darts = found.rows()
    assert [search.results["error"] for search in darts.searches] == [
        pytest.approx((5.0, 4.9, 4.8)), pytest.approx((6.0, 5.9)), pytest.approx((7.0, 6.9))]
    assert darts.selected is darts.searches[0] and [search.cost_s for search in darts.searches] == [10.0] * 3
    assert [search.cost_s for search in random_cells.searches] == [10.0] * 3, "two short trainings of 5 s, without their tests"
    retrained, over_searches = lines([darts], found.table.columns)
    assert retrained.picked.n == 3 and retrained.verdict.word == "agrees" and over_searches.verdict.word == "differs"


def test_a_random_search_takes_the_best_of_its_own_cells_by_validation(ended):
    found, _, _ = ended
    for trial in found.trials["random cells"]:
        cells = [job.name.rpartition("-")[2] for job in trial.short]
        numbers = [next(n for n, cell in enumerate(CELLS) if cell.digest == digest) for digest in cells]
        assert len(set(cells)) == 2 and trial.found == CELLS[min(numbers)]


def test_nothing_is_run_twice_wherever_it_was_stopped(plan, tmp_path):
    whole = Runner(tmp_path / "out")
    begun = []
    for most in (2, 11, 100):
        runner = Runner(tmp_path / "out", most, signal.SIGINT)
        done = plan().run(runner)
        begun += runner.begun
        assert done.signal == (signal.SIGINT if most < 100 else None)
    assert len(begun) == len(set(begun)) == 26
    assert plan().run(whole).code == 0 and whole.begun == []


def test_the_table_of_a_stopped_run_is_of_what_is_there(plan, tmp_path):
    found = plan()
    found.run(Runner(tmp_path / "out", 7, signal.SIGINT))
    rows = found.rows()
    assert len(rows[0].searches) == 2 and len(rows[1].searches) == 2, "jobs go seed by seed"
    assert not rows[1].searches[0].results["error"] and lines(rows, found.table.columns)[0].spread is None


@pytest.mark.slow
def test_fewer_or_more_seeds_take_what_is_there(plan, tmp_path):
    plan(seeds=2).run(Runner(tmp_path / "out"))
    stopped = plan(seeds=3)
    stopped.run(Runner(tmp_path / "out", 1, signal.SIGINT))
    assert [len(row.searches[0].results["error"]) for row in stopped.rows()] == [3, 2], "what was retrained before is in the table"
    more = Runner(tmp_path / "out")
    plan(seeds=3).run(more)
    assert {seed for script, name, seed in more.begun if script == "train_search"} == {2}


def test_trainings_of_many_cells_are_the_jobs_that_each_alone_would_be(tmp_path):
    for n in range(2):
        CELLS[n].save(tmp_path / f"{n}.json")
    with configs():
        alone = [jobs("train_final", [f"genotype={tmp_path}/{n}.json", *SMALL], "cell", [n])[0] for n in range(2)]
        assert trainings(SMALL, [Training(tmp_path / f"{n}.json", "cell", n) for n in range(2)], lambda genotype: SPACE) == alone


def test_wrong_options_are_told_before_any_job(plan):
    with pytest.raises(UsageError, match="tiny-random-cells-.*epochs=many"):
        plan(options=["epochs=many"]).first()


def lookup(path):
    seconds = [100.0 * (n % 4 + 1) for n in range(len(CELLS))]
    accuracy = [float(n % 50) for n in range(len(CELLS))]
    columns = {"val": accuracy, "test": [value + 40 for value in accuracy], "seconds": seconds}
    write_table(path, SPACE, [SPACE.text(cell) for cell in CELLS], columns, {"digits": Columns("val", "test", "seconds")})
    return read_lookup(path, SPACE)


def test_a_simulated_random_search_spends_what_it_has_and_no_more(tmp_path):
    table = lookup(tmp_path / "toy.csv")
    evaluate = Tabular(table, "digits")
    for seed in range(20):
        rng, spent, best = random.Random(seed), 0.0, None
        while True:  # the obvious way
            cell = SPACE.sample(rng)
            if spent + evaluate(cell).simulated_s > 1000:
                break
            spent += evaluate(cell).simulated_s
            best = cell if best is None or evaluate(cell).metrics["accuracy"] > evaluate(best).metrics["accuracy"] else best
        assert affordable(SPACE, evaluate, 1000, random.Random(seed)) == (best, spent)
    assert affordable(SPACE, evaluate, 1, random.Random(0)) == (SPACE.sample(random.Random(0)), 0.0)


def test_a_simulated_row_has_as_many_seeds_as_it_says_and_needs_no_job(tmp_path):
    columns = {"digits": {"title": "Digits", "value": "table/digits/test_accuracy", "margin": 1.0}}
    rows = {"random cells": {"random": {"seconds": 1000, "dataset": "digits"}, "seeds": 40}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TABLE | {"columns": columns, "rows": rows}, sort_keys=False))
    with configs():
        found = Reproduction(read_table(str(tmp_path / "tiny.yaml"), "cpu"), tmp_path / "out", space=lambda name: SPACE,
                             lookup=lookup(tmp_path / "toy.csv"))
        assert not [job for job in found.first() if job.script == "train_search"]
        (row,) = found.rows()
    assert len(row.searches) == 40 and all(0 < search.cost_s <= 1000 for search in row.searches)


REPRODUCE = [sys.executable, "-m", "supernet.reproduce"]


def command(*options, cwd, code=0):
    done = python("-m", "supernet.reproduce", *options, cwd=cwd, timeout_s=600)
    assert done.returncode == code, done.stderr
    return done


def test_wrong_words_are_one_line(tmp_path):
    for options, said in ((["table=nasbench20"], "did you mean nasbench201?"),
                          (["table=nasbench201", "scale=cpu", "lookup=none.csv"], "none.csv: cannot read the table")):
        error = command(*options, cwd=tmp_path, code=2).stderr
        assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_killed_twice_it_goes_on_and_repeats_nothing(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TABLE, sort_keys=False))
    options = ["table=tiny.yaml", "scale=cpu", "searches=2", "retrainings=2", "launcher.processes=1", "options={wandb.mode:disabled}"]
    output = tmp_path / "runs/tiny_cpu"

    def finished():
        there = [json.loads(path.read_text()) for path in output.glob("*/run.json")]
        return {run["job"]: run["updated"] for run in there if run["status"] == "finished"}

    before = {}
    for number in (2, 5):
        process = subprocess.Popen([*REPRODUCE, *options], cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
        while len(finished()) < number:
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before |= {job: when for job, when in finished().items() if job not in before}
    command(*options, cwd=tmp_path)
    after = finished()
    assert before.items() <= after.items(), "what was finished was touched again"
    assert len(after) == len(list(output.glob("*/run.json"))) == 16, "no job has two runs"
    rows = list(csv.DictReader((output / "table.csv").read_text().splitlines()))
    assert [(row["method"], row["searches"], row["retrainings"]) for row in rows] == [
        ("random cells", "2", "4"), ("DARTS", "2", "4"), ("DARTS", "2", "4")]
