"""Lists of jobs and sweeps: nothing is done twice, nothing is lost, and what failed is said."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from supernet.commands.sweep import take_file
from supernet.errors import UsageError
from supernet.launchers.base import NOT_STARTED, Outcome, ask
from supernet.launchers.local import Local
from supernet.runs.folder import RunFolder
from supernet.sweeps.jobs import jobs
from supernet.sweeps.plan import planned, points, retrainings, selected
from supernet.sweeps.running import Lines, Stopping, run_jobs
from supernet.sweeps.states import Watch, summary_values
from supernet.sweeps.table import Table, duration, headline, table
from tests.helpers import ROOT, At, python, start, until
from tests.runs import assert_same, outcome

SEARCH = {"layers": 3, "channels": 2, "space.nodes": 1, "batch_size": 8, "split.max_train": 16, "split.max_val": 8, "epochs": 1,
          "threads": 1, "wandb.mode": "disabled"}
FINAL = {"layers": 3, "channels": 2, "batch_size": 8, "split.max_train": 16, "epochs": 1}
DIVERGES = {"w_optimizer.lr": 1e20, "clip_norm": None}


class Forked:
    """A launcher for tests: scripts fork from the tests' server, so that one takes half a second. at: what meets each one, in turn."""

    def __init__(self, *at, then=lambda task: None):
        self.at, self.begun, self.then = list(at), [], then

    def ended(self, work, tasks, stopping):
        for task in tasks:
            yield None
            if stopping():
                yield task, Outcome(NOT_STARTED)
                continue
            self.begun.append(task.name)
            process = start(Path(task.command[1]).stem, *task.command[2:], cwd=Path(task.cwd), report=False,
                            at=self.at.pop(0) if self.at else None)
            self.then(process)
            ended = process.wait()
            lines = [line.removeprefix("error: ") for line in ended.err.splitlines() if line.startswith("error: ")]
            yield task, Outcome(ended.code, lines[0] if lines else "")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kinds(done):
    return [state.kind for state in done.states]


# ---- points, names


def test_points_are_all_combinations_with_names_that_say_them():
    assert points({}) == [("", {})]
    found = points({"relaxation": ["softmax", "gumbel"], "alpha_optimizer.lr": [3e-4, 0.1]})
    assert [name for name, _ in found] == ["relaxation-softmax_lr-0.0003", "relaxation-softmax_lr-0.1", "relaxation-gumbel_lr-0.0003",
                                          "relaxation-gumbel_lr-0.1"]
    assert found[1][1] == {"relaxation": "softmax", "alpha_optimizer.lr": 0.1}
    several = points({"method": {"gdas": {"experiment": "gdas_cifar10"}, "pc": {"experiment": "pc_darts_cifar10", "alpha_begin": 5}}})
    assert several == [("gdas", {"experiment": "gdas_cifar10"}), ("pc", {"experiment": "pc_darts_cifar10", "alpha_begin": 5})]
    assert points({"wrapper": [[], ["a", "b"]], "x": [None, True]})[2][0] == "wrapper-a+b_x-null"


@pytest.mark.parametrize("axes, told", [({"seed": 3}, "axes.seed must be a list"), ({"x": []}, "axes.x must be a list"),
                                        ({"x": [1, 1]}, "two points are called 'x-1'"), ({"x": {"a": 3}}, "axes.x must be")])
def test_axes_that_are_none_are_one_line(axes, told):
    with pytest.raises(UsageError, match=told):
        points(axes)


@pytest.mark.parametrize("own", ["seed", "output", "name", "resume"])
def test_options_that_the_sweep_gives_are_refused(own):
    with pytest.raises(UsageError, match=f"{own} is given to each job by the sweep itself"):
        planned("train_search", {own: 1}, {}, [0])


def test_values_of_a_file_reach_the_options_as_they_are(here):
    axes = {"wrapper": [["edge_normalised"]], "network": [{"partial": 2}], "cost": ["parameters"], "split.max_val": [None],
            "dataset.root": ["a folder, with=signs"]}
    (job,) = planned("train_search", {"dataset": "cifar10", "channels": 4}, axes, [3])
    assert job.options == ("dataset=cifar10", "channels=4", "wrapper=[edge_normalised]", "network={partial:2}", "cost=parameters",
                           "split.max_val=null", 'dataset.root="a folder, with=signs"')
    assert job.seed == 3 and job.epochs == 50


# ---- a list of jobs is run


def test_jobs_are_run_once_a_failed_one_is_listed_and_run_again_alone(here):
    wanted = [*planned("train_search", SEARCH, {}, [0]),
              *jobs("train_search", [*planned("train_search", SEARCH | DIVERGES, {}, [0])[0].options], "diverges", [0])]
    said = []
    first = Forked()
    done = run_jobs([*wanted, wanted[0]], here / "runs", first, shown=Lines(said.append))
    assert kinds(done) == ["finished", "failed"] and done.code == 2 and len(first.begun) == 2
    assert "is nan in epoch 0" in done.states[1].error and any(line.startswith("failed    diverges seed 0") for line in said)
    values = summary_values(done.states[0].folder)
    assert values["val_accuracy"] == pytest.approx(done.states[0].best)

    said.clear()
    second = Forked()
    again = run_jobs(wanted, here / "runs", second, shown=Lines(said.append))
    assert kinds(again) == kinds(done) and second.begun == []
    assert sum(line.startswith("skipped   ") for line in said) == 1 and sum("(retry=failed runs it again)" in line for line in said) == 1

    third = Forked()  # it fails again, or works: nothing else is touched
    waiting = planned("train_search", SEARCH, {}, [9])
    retried = run_jobs([*wanted, *waiting], here / "runs", third, retry="failed")
    assert third.begun == ["diverges seed 0"] and kinds(retried) == ["finished", "failed", "waiting"]


def test_a_job_that_failed_and_then_worked_is_finished(here):
    (job,) = planned("train_search", SEARCH, {}, [0])
    Path("runs").mkdir()
    Watch(Path("runs")).ledger.add(job, "failed", "no room")
    assert Watch(Path("runs")).look([job])[0].error == "no room"
    done = run_jobs([job], Path("runs"), Forked(), retry="failed")
    assert kinds(done) == ["finished"] and done.states[0].error == "" and done.code == 0


def test_more_failures_than_allowed_stop_the_others(here):
    wanted = planned("train_search", SEARCH, {"step": {"a": DIVERGES, "b": {}, "c": {"epochs": 2}}}, [0])
    done = run_jobs(wanted, here / "runs", Forked(), max_failures=0)
    assert kinds(done) == ["failed", "waiting", "waiting"] and "max_failures=0" in done.given_up and done.code == 2


def test_killed_jobs_go_on_to_the_bits_of_unbroken_ones(here):
    wanted = planned("train_search", SEARCH | {"epochs": 2, "checkpoint_every_s": 0}, {}, [0])
    assert kinds(run_jobs(wanted, here / "unbroken", Forked())) == ["finished"]
    killed = run_jobs(wanted, here / "killed", Forked(At(1, "epoch_00001_step")))
    assert kinds(killed) == ["stopped"] and killed.code == 2
    done = run_jobs(wanted, here / "killed", Forked())
    assert kinds(done) == ["finished"]
    for one, other in zip(done.states, Watch(here / "unbroken").look(wanted), strict=True):
        assert_same(outcome(one.folder), outcome(other.folder))


def test_ctrl_c_stops_what_is_at_work_and_begins_no_other(here):
    wanted = planned("train_search", SEARCH | {"epochs": 50, "checkpoint_every_s": 0}, {}, [0, 1])

    def interrupted(process):
        until(lambda: list(here.glob("runs/*/checkpoints/*.pt")), "a checkpoint")
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(process.pid, signal.SIGINT)  # as `work` does on seeing the file

    before = signal.getsignal(signal.SIGINT)
    done = run_jobs(wanted, here / "runs", Forked(then=interrupted))
    assert kinds(done) == ["stopped", "waiting"] and (done.signal, done.code) == (signal.SIGINT, 130)
    assert done.states[0].folder.status()["status"] == "stopped" and signal.getsignal(signal.SIGINT) is before
    assert not list(here.glob("runs/logs/stop-*"))


def test_a_job_that_another_process_is_at_work_on_is_waited_for(here):
    wanted = planned("train_search", SEARCH | {"epochs": 2}, {}, [0])
    other = start("train_search", *wanted[0].command(Path("runs"))[2:], cwd=here, report=False, at=At(1, "checkpoints/epoch_00001",
                                                                                                 signal.SIGSTOP))
    until(other.is_stopped, "the other process")
    seen = []

    def update(states):
        seen.append(states[0].kind)
        os.kill(other.pid, signal.SIGCONT)

    launcher, shown = Forked(), Lines(lambda text: None)
    shown.update = update
    done = run_jobs(wanted, here / "runs", launcher, shown=shown)
    assert kinds(done) == ["finished"] and launcher.begun == [] and seen[0] == "running"
    assert other.wait().code == 0


def test_a_job_that_can_go_on_elsewhere_only_is_listed_with_the_reason(here):
    wanted = planned("train_search", SEARCH | {"epochs": 2}, {}, [0])
    run_jobs(wanted, here / "runs", Forked(At(1, "epoch_00002")))
    (run,) = Watch(here / "runs").runs()[wanted[0].digest]
    run.start(script="train_search", command="", config_hash="other", identity={"job": wanted[0].digest, "here": {"backend": "cuda"}})
    done = run_jobs(wanted, here / "runs", Forked())
    assert kinds(done) == ["elsewhere"] and "backend 'cuda' there" in done.states[0].error and done.code == 2
    assert len(Watch(here / "runs").runs()) == 1


# ---- retrainings


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Two points of two seeds; the second seed of each is a copy of the first."""
    where = tmp_path_factory.mktemp("searched")
    before = Path.cwd()
    os.chdir(where)
    try:
        done = run_jobs(planned("train_search", SEARCH | {"dataset": "digits"}, {"relaxation": ["softmax", "gumbel"]}, [0]),
                        where / "runs", Forked())
        yield [replace(state, job=replace(state.job, seed=seed)) for state in done.states for seed in (0, 1)]
    finally:
        os.chdir(before)


def test_the_best_of_each_point_or_all_are_retrained(searched):
    def valued(state, value):
        folder = RunFolder(state.folder.path.parent / f"{state.job.title}.values")
        folder.path.mkdir(exist_ok=True)
        folder.summary.write_text(json.dumps({"values": {"val_accuracy": value, "text": "x"}}))
        return replace(state, folder=folder)

    rated = [valued(state, value) for state, value in zip(searched, (50, 60, 80, 70), strict=True)]
    assert selected(rated, by="val_accuracy", best=None, order="largest") == (rated, [])
    assert selected(rated, by="val_accuracy", best=1, order="largest")[0] == [rated[1], rated[2]]
    assert selected(rated, by="val_accuracy", best=1, order="smallest")[0] == [rated[0], rated[3]]
    failed = [rated[0], replace(rated[1], kind="failed"), *rated[2:]]
    kept, lines = selected(failed, by="val_accuracy", best=1, order="largest")
    assert kept == [rated[2]] and lines == ["relaxation-softmax: 1 of 2 searches are not finished, so that the best are not known"]
    kept, lines = selected(failed, by="val_accuracy", best=None, order="largest")
    assert kept == [rated[0], *rated[2:]] and lines == ["relaxation-softmax: 1 of 2 searches are not finished, and not retrained"]
    with pytest.raises(UsageError, match="has no such number, it has val_accuracy"):
        selected(rated, by="text", best=1, order="largest")


def test_what_was_found_is_retrained_with_the_data_of_its_search_and_equal_cells_once(searched):
    wanted = retrainings(searched[:2], FINAL, {}, [0, 1])
    assert {job.script for job in wanted} == {"train_final"} and len(wanted) == 4
    assert len({job.digest for job in wanted}) == 2, "both have found one cell, so that each seed trains it once"
    assert {"dataset=digits", "threads=1", "wandb.mode=disabled", "epochs=1"} < set(wanted[0].options)
    assert wanted[0].name == "relaxation-softmax_of-seed0"
    output = searched[0].folder.path.parent
    done = run_jobs(wanted[:1], output, Forked())
    assert kinds(done) == ["finished"] and "test_accuracy" in summary_values(done.states[0].folder)
    other = retrainings(searched[:1], FINAL | {"threads": 2}, {"drop_path_prob": [0.0, 0.1]}, [0])
    assert [job.name for job in other] == [f"relaxation-softmax_of-seed0_drop_path_prob-{prob}" for prob in (0.0, 0.1)]
    assert "threads=2" in other[0].options and "threads=1" not in other[0].options


# ---- what is shown


def test_a_table_says_how_each_job_stands_and_when_all_may_be_done(searched):
    running = replace(searched[1], kind="running", epoch=2, elapsed_s=60.0, job=replace(searched[1].job, epochs=10))
    states = [searched[0], running, replace(searched[2], kind="failed", error="no room"), replace(searched[3], kind="waiting", epoch=0)]
    assert headline(states).startswith("4 jobs: 1 finished, 1 running, 1 waiting, 1 failed; about ")
    lines = table(states)
    assert "2/10" in lines[1] and lines[1].endswith("04:00") and lines[2].endswith("no room") and "running" in lines[1]
    assert duration(3723) == "1:02:03" and headline([replace(states[3])]) == "1 jobs: 1 waiting"


def test_a_live_table_redraws_itself_and_keeps_within_the_terminal(searched, monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((40, 6)))
    stream = StringIO()
    stream.fileno = lambda: 1
    live = Table(stream)
    many = [replace(searched[0], job=replace(searched[0].job, seed=n)) for n in range(20)]
    many[17] = replace(many[17], kind="failed", error="x" * 100)
    live.update(many)
    first = stream.getvalue()
    assert first.count("\n") == 5 and "failed" in first and max(map(len, first.splitlines())) < 40 and "17 more" in first
    live.update(many)
    assert "\x1b[5A\x1b[J" in stream.getvalue()


# ---- the page


def shown(language):
    """A piece of docs/sweeps.md."""
    text = (ROOT / "docs/sweeps.md").read_text()
    if language == "python":
        return text.split("```python\n")[1].split("```")[0]
    return textwrap.dedent("\n".join(line for line in text.partition("    # relaxations.yaml")[2].split("## ")[0].splitlines()[1:]
                                     if line.startswith("    ")))


def test_the_file_that_the_page_shows_is_a_sweep(here):
    (here / "relaxations.yaml").write_text(shown("yaml"))
    content = OmegaConf.to_container(OmegaConf.load("relaxations.yaml"))
    wanted = planned("train_search", content["fixed"], content["axes"], content["seeds"])
    assert len(wanted) == 12 and wanted[0].name == "relaxation-softmax_lr-0.0003" and wanted[0].epochs == 6
    assert take_file(["relaxations.yaml"]) == ["sweep_file=given", "launcher=local"]


@pytest.mark.slow
def test_the_code_that_the_page_shows_runs(here):
    (here / "page.py").write_text(shown("python"))
    done = subprocess.run([sys.executable, "page.py"], capture_output=True, text=True, timeout=550,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"})
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr


# ---- the command


def sweep(*arguments, cwd):
    return python("-m", "supernet.sweep", *arguments, cwd=cwd)


def test_what_a_file_holds_comes_before_the_command_line(tmp_path):
    (tmp_path / "s.yaml").write_text("launcher: {name: slurm, partition: gpu}\nseeds: [1]\n")
    for typed in (["seeds=[2]", "--cfg", "job"], ["--cfg", "job", "seeds=[2]"]):
        words = take_file([str(tmp_path / "s.yaml"), *typed])
        assert words == ["--cfg", "job", "sweep_file=given", "launcher=slurm", "seeds=[2]"]
    assert take_file([str(tmp_path / "s.yaml"), "launcher=ray"]) == ["sweep_file=given", "launcher=ray"]
    assert take_file(["--help"]) == ["--help"]
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UsageError, match="as a sweep, .* .it must hold options as YAML"):
        take_file([str(tmp_path / "list.yaml")])
    with pytest.raises(UsageError, match="No such file"):
        take_file([str(tmp_path / "none.yaml")])


@pytest.mark.parametrize("content, told", [
    ("fixd: {dataset: digits}", "there is no fixd in a sweep, there are script, name, fixed, .*; did you mean fixed?"),
    ("seeds: 3", "seeds must be a list of whole numbers, got 3"),
    ("fixed: [dataset=digits]", r"fixed must be \{option: value, ...\}, got \['dataset=digits'\]"),
    ("retrain: {axes: [1]}", r"retrain.axes must be \{option: \[values\], ...\}, got \[1\]"),
])
def test_what_a_file_should_not_hold_is_named(tmp_path, content, told):
    (tmp_path / "s.yaml").write_text(content)
    with pytest.raises(UsageError, match=f"s.yaml: {told}"):
        take_file([str(tmp_path / "s.yaml")])


@pytest.mark.slow
def test_a_sweep_from_its_file_to_its_retrainings(tmp_path):
    content = {"fixed": SEARCH, "axes": {"relaxation": ["softmax", "gumbel"]}, "select": {"best": 1},
               "retrain": {"fixed": FINAL}, "launcher": "local"}
    (tmp_path / "mine.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(content)))
    listed = sweep("mine.yaml", "dry_run=true", "seeds=[0,1]", cwd=tmp_path)
    assert listed.returncode == 0 and "4 jobs: 4 waiting, in runs/mine" in listed.stdout and not (tmp_path / "runs").exists(), listed.stderr
    done = sweep("mine.yaml", "launcher.processes=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = list(tmp_path.glob("runs/mine/*/summary.json"))
    assert len(runs) == 4 and "4 jobs: 4 finished, in runs/mine" in done.stdout and (tmp_path / "runs/mine/sweep.yaml").exists()


@pytest.mark.parametrize("arguments, told", [
    ((), "expected a file: python -m supernet.sweep FILE.yaml"),
    (("s.yaml", "axis=1"), "there is no option 'axis'; did you mean axes?"),
    (("s.yaml", "name=../../x"), "name must be a folder's name within runs, got '../../x'"),
    (("s.yaml", "retry=all"), "retry must be none or failed, got all"),
    (("s.yaml", "fixed.sed=1"), "run: there is no option 'sed'; did you mean seed?"),
])
def test_a_wrong_sweep_is_one_line_and_makes_nothing(tmp_path, arguments, told):
    (tmp_path / "s.yaml").write_text("seeds: [0]\n")
    done = sweep(*arguments, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and told in line, line
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.slow
def test_ctrl_c_of_a_sweep_lets_its_jobs_save_and_prints_the_command_that_goes_on(tmp_path):
    content = {"fixed": SEARCH | {"epochs": 200, "checkpoint_every_s": 0}, "seeds": [0, 1, 2]}
    (tmp_path / "s.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(content)))
    command = [sys.executable, "-m", "supernet.sweep", "s.yaml", "launcher.processes=2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})
    until(lambda: len(list(tmp_path.glob("runs/s/*/metrics.jsonl"))) == 2, "two jobs at work", 200)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130 and "-m supernet.sweep s.yaml launcher.processes=2" in out, err
    status = [RunFolder(path.parent).status()["status"] for path in tmp_path.glob("runs/s/*/run.json")]
    assert status == ["stopped", "stopped"]


def test_a_stop_is_seen_by_whoever_looks_at_the_file(tmp_path):
    with Stopping(tmp_path / "logs" / "stop") as stopping:
        assert not stopping() and not stopping.path.exists()
        signal.raise_signal(signal.SIGTERM)
        first = stopping.path.stat().st_mtime_ns
        ask(stopping.path)
        assert stopping() and stopping.signal == signal.SIGTERM and stopping.path.stat().st_mtime_ns > first
    assert not stopping.path.exists() and Local().processes is None
