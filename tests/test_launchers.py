"""Where tasks run: whatever the launcher, each is run once, with its share of the machine, and ends when it is asked to."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hydra import compose

from supernet.app.build import build
from supernet.app.checks import validate
from supernet.errors import UsageError
from supernet.launchers.base import NOT_STARTED, Outcome, Task, ask, at_work, cores, pass_on, said, share, work
from supernet.launchers.local import Local
from tests.groups import choices
from tests.helpers import until
from tests.searches import configs

OPTIONS = {"local": ["launcher.processes=2"], "joblib": ["launcher.n_jobs=2"], "slurm": ["launcher.cluster=local"],
           "ray": ["launcher.num_cpus=1"]}
NEEDS = {"joblib": "joblib", "slurm": "submitit", "ray": "ray"}


@pytest.fixture(autouse=True)
def heard():
    """A shell's background jobs ignore Ctrl-C, and so do their children; a sweep does not (`supernet.sweeps.running.Stopping`)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def made(name, *options):
    """The launcher of a config, or skip."""
    needed = NEEDS.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"launcher={name} needs the package {needed}")
    with configs():
        cfg = compose("sweep", overrides=[f"launcher={name}", *OPTIONS[name], *options])
        validate(cfg, "sweep")
        return build(cfg.launcher)


def task(folder, name, script, **environment):
    return Task(name, ("sh", "-c", script), str(folder), str(folder / f"{name}.log"), str(folder / "stop"), tuple(environment.items()))


def run(launcher, tasks, stopping=lambda: False):
    return {found[0].name: found[1] for found in launcher.ended(work, tasks, stopping) if found is not None}


def test_every_launcher_of_the_configs_is_tested():
    assert set(OPTIONS) == set(choices("launcher"))


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"local"}))
def test_a_launcher_without_its_library_is_one_line(name, monkeypatch):
    monkeypatch.setitem(sys.modules, NEEDS[name], None)
    with configs(), pytest.raises(Exception) as error:
        build(compose("sweep", overrides=[f"launcher={name}"]).launcher)
    assert type(error.value.__cause__) is UsageError and f"needs the package {NEEDS[name]}" in str(error.value.__cause__)


EACH = [pytest.param(name, marks=[pytest.mark.slow] if name == "ray" else []) for name in sorted(OPTIONS)]  # Ray takes 10 s to begin


@pytest.mark.parametrize("name", EACH)
def test_each_task_is_run_once_and_told_with_its_outcome(name, tmp_path):
    tasks = [task(tmp_path, f"t{n}", f"echo begun >> begun{n}; echo error: number {n} >&2; echo more; exit {n}") for n in range(3)]
    found = run(made(name), tasks)
    assert found == {"t0": Outcome(0), "t1": Outcome(1, "number 1"), "t2": Outcome(2, "number 2")}
    assert [(tmp_path / f"begun{n}").read_text() for n in range(3)] == ["begun\n"] * 3
    assert (tmp_path / "t1.log").read_text() == "error: number 1\nmore\n"


@pytest.mark.parametrize("name", EACH)
def test_what_is_at_work_ends_as_by_ctrl_c_and_what_is_not_never_begins(name, tmp_path):
    saving = "trap 'echo saved > saved$N; exit 130' INT; echo begun > begun$N; while true; do sleep 0.05; done"
    tasks = [task(tmp_path, f"t{n}", saving, N=str(n)) for n in range(2 if name == "slurm" else 4)]
    launcher, asked = made(name), []

    def stopping():
        if not asked and len(list(tmp_path.glob("begun*"))) >= 2:
            asked.append(ask(tmp_path / "stop"))
        return bool(asked)

    stopping_now = threading.Event()
    watching = threading.Thread(target=lambda: until(lambda: stopping() or stopping_now.is_set(), "two tasks", 100))
    watching.start()
    found = run(launcher, tasks, stopping)
    stopping_now.set(), watching.join()
    begun = {path.name.removeprefix("begun") for path in tmp_path.glob("begun*")}
    assert len(begun) >= 2 and {path.name.removeprefix("saved") for path in tmp_path.glob("saved*")} == begun
    for one in tasks:
        assert found[one.name].code == (130 if one.name[1:] in begun else NOT_STARTED) and found[one.name].stopped


def test_local_tasks_share_the_cores_and_are_no_more_at_a_time_than_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    together = "echo $OMP_NUM_THREADS > threads$N; mkdir at$N; ls -d at* | wc -l > seen$N; sleep 0.2; rmdir at$N"
    run(Local(processes=2), [task(tmp_path, f"t{n}", together, N=str(n)) for n in range(5)])
    assert {(tmp_path / f"threads{n}").read_text().strip() for n in range(5)} == {str(max(1, cores() // 2))}
    assert all(int((tmp_path / f"seen{n}").read_text()) <= 2 for n in range(5))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # whoever says so himself is not overruled
    assert share(4) == ()


def test_local_tasks_have_a_gpu_each_by_the_names_that_this_process_knows_them_by(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    run(Local(), [task(tmp_path, f"t{n}", "echo $CUDA_VISIBLE_DEVICES > gpu$N; sleep 0.5", N=str(n)) for n in range(2)])
    assert {(tmp_path / f"gpu{n}").read_text().strip() for n in range(2)} == {"4", "6"}


def test_a_second_request_reaches_a_task_that_did_not_end_at_the_first(tmp_path):
    counting = "n=0; trap 'n=$((n+1)); echo $n > asked; [ $n -ge 2 ] && exit 130' INT; echo > begun; while true; do sleep 0.02; done"
    thread = threading.Thread(target=lambda: found.append(work(task(tmp_path, "t", counting))))
    found = []
    thread.start()
    until((tmp_path / "begun").exists, "the task")
    ask(tmp_path / "stop")
    until(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text() == "1\n", "the first request")
    ask(tmp_path / "stop")
    thread.join(30)
    assert found == [Outcome(130, "ended with exit code 130")]


def test_a_signal_that_a_worker_gets_is_passed_on_and_the_ends_are_waited_for(tmp_path):
    found = []
    saving = "trap 'sleep 0.2; echo > saved; exit 140' USR2; echo > begun; while true; do sleep 0.02; done"
    thread = threading.Thread(target=lambda: found.append(work(task(tmp_path, "t", saving))))
    thread.start()
    until(lambda: at_work and (tmp_path / "begun").exists(), "the task")
    pass_on(signal.SIGUSR2)
    assert (tmp_path / "saved").exists()
    thread.join(30)
    assert found[0].code == 140 and found[0].stopped


def test_why_a_command_failed_is_its_first_error_or_the_end_of_its_traceback(tmp_path):
    log = tmp_path / "log"
    log.write_text("old\nerror: of before\n")
    begin = log.stat().st_size
    with open(log, "a") as file:
        file.write("line\nTraceback (most recent call last):\n  File x\nValueError: no\n")
    assert said(log, begin) == "ValueError: no" and said(log) == "of before"


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="launcher=slurm needs the package submitit")
def test_a_task_that_slurm_takes_the_machine_from_is_queued_anew_and_goes_on(tmp_path):
    """submitit's own local queue sends the signal that SLURM sends."""
    once = "trap 'echo > saved; exit 140' USR2; [ -e saved ] && exit 0; echo > begun; while true; do sleep 0.05; done"
    launcher, sent = made("slurm"), []
    folder = tmp_path / "slurm"

    def preempt():
        until((tmp_path / "begun").exists, "the task", 100)
        listed = subprocess.run(["pgrep", "-f", f"submitit.core._submit {folder}"], capture_output=True, text=True).stdout.split()
        for pid in map(int, listed):
            sent.append(pid)
            os.kill(pid, signal.SIGUSR2)

    thread = threading.Thread(target=preempt)
    thread.start()
    found = run(launcher, [task(tmp_path, "t", once)])
    thread.join()
    assert sent and (tmp_path / "saved").exists() and found == {"t": Outcome(0)}


def test_a_task_without_anything_to_do_ends(tmp_path):
    assert run(Local(), []) == {}
    begun = time.monotonic()
    assert run(Local(processes=1), [task(tmp_path, "t", "true")]) == {"t": Outcome(0)} and time.monotonic() - begun < 60
    assert Path(tmp_path / "t.log").read_text() == ""
