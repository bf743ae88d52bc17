"""A run that is killed, stopped or damaged at any moment and gone on with ends, bit for bit, as an unbroken one."""

import fcntl
import random
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from tests.helpers import ROOT, At, Ended, Process, contents, only_error, run, run_unforked, start, until
from tests.runs import assert_same, finished, folders, go_on, outcome

SEARCH = ("split.max_train=40", "split.max_val=16", "space.nodes=1", "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "layers=3",
          "channels=2", "batch_size=8", "epochs=3")  # 5 steps an epoch
FINAL = ("genotype=genotype.json", "split.max_train=40", "layers=3", "channels=4", "batch_size=8", "epochs=3", "drop_path_prob=0.5")
EVERY_STEP, EVERY_EPOCH = "checkpoint_every_s=0", "checkpoint_every_s=60"

# ---- runs that were not disturbed


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> RunFolder:
    """A search as a user starts it."""
    where = tmp_path_factory.mktemp("unbroken")
    ended = run_unforked("train_search", *SEARCH, EVERY_EPOCH, cwd=where)
    assert ended.code == 0, ended.err
    return finished(where)


@pytest.fixture(scope="module")
def wanted(unbroken) -> dict:
    found = outcome(unbroken)
    assert {"alphas", "genotypes", "checkpoint: net", "checkpoint: relaxation", "checkpoint: w_optimizer", "checkpoint: alpha_optimizer",
            "checkpoint: generators", "checkpoint: train", "checkpoint: alpha_batches"} <= found.keys() and len(found["metrics"]) == 3
    return found


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> tuple[RunFolder, float]:
    """The same search, with a checkpoint at every step, and its seconds of processor time."""
    where = tmp_path_factory.mktemp("again")
    ended = run("train_search", *SEARCH, EVERY_STEP, "resume=auto", cwd=where, report=False)
    assert ended.code == 0 and "nothing to resume under runs: starting anew" in ended.err, ended.err
    return finished(where), ended.cpu_s


@pytest.fixture(scope="module")
def final_unbroken(unbroken, tmp_path_factory) -> tuple[RunFolder, float]:
    """A training of the cell that was found, and its seconds of processor time."""
    where = tmp_path_factory.mktemp("final")
    shutil.copy(unbroken.genotype, where)
    ended = run("train_final", *FINAL, EVERY_EPOCH, cwd=where, report=False)
    assert ended.code == 0, ended.err
    return finished(where), ended.cpu_s


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(wanted, again, tmp_path):
    assert_same(outcome(again[0]), wanted)
    assert run("train_search", *SEARCH, "seed=1", cwd=tmp_path, report=False).code == 0
    other = outcome(finished(tmp_path))
    for key in ("metrics", "alphas", "split", "checkpoint: net", "checkpoint: relaxation", "checkpoint: generators"):
        assert other[key] != wanted[key], key


def test_cells_that_are_computed_again_give_the_same_bits(tmp_path):
    found = []
    for again in ("false", "true"):
        where = tmp_path / again
        where.mkdir()
        assert run("train_search", *SEARCH, f"checkpoint_cells={again}", cwd=where, report=False).code == 0
        found.append(outcome(finished(where)))
    assert_same(*found)


# ---- kill -9


def is_killed(process: Process, cpu_s: float) -> bool:
    """Kills it after so much processor time; False if it ends before."""
    until(lambda: process.has_ended() or process.cpu_s() >= cpu_s, "the moment to kill")
    return not process.has_ended() and process.send(signal.SIGKILL).code == -signal.SIGKILL


def kill_and_go_on(script: str, options: tuple[str, ...], delays: list[float], where: Path, every: list[str]) -> int:
    """A run killed after each of `delays` seconds of processor time, each time gone on with, and then left to end. How often it was."""
    for killed, (delay, saving) in enumerate(zip(delays, every, strict=True)):
        if not is_killed(start(script, *options, saving, "resume=auto", cwd=where, report=False), delay):
            return killed
    go_on(script, *options, every[-1], where=where)
    return len(delays)


def test_a_search_killed_three_times_ends_as_an_unbroken_one(wanted, again, tmp_path):
    rng = random.Random(0)
    delays = [rng.uniform(*share) * again[1] for share in ((0.0, 0.4), (0.45, 0.6), (0.45, 0.6))]  # in the start-up, then in the training
    assert kill_and_go_on("train_search", SEARCH, delays, tmp_path, [EVERY_STEP, EVERY_EPOCH, EVERY_STEP]) >= 2
    assert_same(outcome(finished(tmp_path)), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("n", range(17))
def test_a_search_killed_at_any_time_ends_as_an_unbroken_one(wanted, again, tmp_path, n):
    rng = random.Random(n)
    delays = [(n + rng.random()) / 17 * again[1], rng.random() * again[1]]
    kill_and_go_on("train_search", SEARCH, delays, tmp_path, rng.choices([EVERY_STEP, EVERY_EPOCH], k=2))
    assert_same(outcome(finished(tmp_path)), wanted)


def test_a_training_killed_twice_ends_as_an_unbroken_one(final_unbroken, tmp_path):
    folder, cpu_s = final_unbroken
    shutil.copy(folder.genotype, tmp_path)
    assert kill_and_go_on("train_final", FINAL, [0.3 * cpu_s, 0.6 * cpu_s], tmp_path, [EVERY_EPOCH, EVERY_STEP]) == 2
    assert_same(outcome(finished(tmp_path)), outcome(folder))
    assert "weights" in outcome(folder)


# Random times rarely meet the microseconds between two changes of a file, so here the run kills itself there.
def test_a_search_killed_between_changes_of_files_ends_as_an_unbroken_one(wanted, tmp_path):
    for every, at in [
        (EVERY_STEP, At(1, "/run.json")),  # before anything is recorded
        (EVERY_STEP, At(8, ".pt.")),  # before a checkpoint is written, in the second epoch
        (EVERY_EPOCH, At(1, "genotype.json")),  # before the second epoch is recorded
        (EVERY_EPOCH, At(1, "checkpoints/epoch_00002")),  # after it is recorded, before its checkpoint
        (EVERY_EPOCH, At(1, "alphas.npz")),  # after the last epoch
    ]:
        ended = run("train_search", *SEARCH, every, "resume=auto", cwd=tmp_path, report=False, at=at)
        assert ended.code == -signal.SIGKILL, f"{at}: {ended.err}"
    assert "at epoch 3, step 15" in go_on("train_search", *SEARCH, where=tmp_path).err
    assert_same(outcome(finished(tmp_path)), wanted)


# What else moves in a search: each of these has a state of its own.
STATEFUL = {
    "controller and its baseline": ("relaxation=controller", "hypergradient=reinforce", "hypergradient.samples=2",
                                    "hypergradient.baseline_update=epoch", "hypergradient.differentiate_entropy=true"),
    "draws, edge weights, an adversary, a multiplier and a monitor": (
        "relaxation=dirichlet", "wrapper=[edge_normalised,adversarial]", "penalty=[beta_decay,cost_limit]", "cost=parameters",
        "penalty.cost_limit.limit=2e4", "monitor=[eigenvalue]", "monitor.eigenvalue.every=1", "monitor.eigenvalue.iterations=3"),
    "greedy decisions, frozen ops, aligned layers and drop path": (
        "wrapper=[greedy]", "wrapper.greedy.warm_up=0", "wrapper.greedy.every=1", "wrapper.greedy.criterion=2", "monitor=[op_freezing]",
        "monitor.op_freezing.count=2", "monitor.op_freezing.threshold=0.75", "w_penalty=[layer_alignment]", "drop_path_prob=0.3",
        "layers=4"),
    "more regularisation, twice": ("monitor=[limits,op_freezing]", "monitor.limits.above={train_loss:0}", "monitor.limits.start_epoch=1",
                                   "monitor.limits.retry=10", "monitor.op_freezing.count=3", "monitor.op_freezing.threshold=0.75"),
    "an early end": ("monitor=[skips,limits]", "monitor.limits.above={train_loss:0}", "monitor.limits.start_epoch=1",
                     "monitor.limits.stop=true"),
    "binary gates, an auxiliary skip and partial channels": (
        "relaxation=binary_gates", "wrapper=[auxiliary_skip]", "network={auxiliary_skip:true,partial:2}", "channels=4", "alpha_every=2"),
}


SELDOM = ("controller and its baseline", "binary gates, an auxiliary skip and partial channels")


@pytest.mark.parametrize("options", [pytest.param(options, id=name, marks=[pytest.mark.slow] if name in SELDOM else [])
                                     for name, options in STATEFUL.items()])
def test_whatever_moves_a_killed_search_ends_as_an_unbroken_one(options, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    unbroken.mkdir(), killed.mkdir()
    assert run("train_search", *SEARCH, *options, EVERY_EPOCH, cwd=unbroken, report=False).code == 0
    for every, at in [(EVERY_STEP, At(1, "_step_00000008.")), (EVERY_EPOCH, At(1, "_step_00000010."))]:
        ended = run("train_search", *SEARCH, *options, every, "resume=auto", cwd=killed, report=False, at=at)
        assert ended.code == -signal.SIGKILL, f"{at}: {ended.err}"
    go_on("train_search", *SEARCH, *options, where=killed)
    seen, wanted = outcome(finished(killed)), outcome(finished(unbroken))
    assert_same(seen, wanted)
    if "monitor.limits.retry=10" in options:
        assert [r["epoch"] for r in wanted["metrics"]] == [0, 1, 1, 1, 2] and wanted["checkpoint: history"]["states"]
        assert [round(r["weight_decay"], 5) for r in wanted["metrics"]] == [3e-4, 3e-4, 3e-3, 3e-2, 3e-2]
    if "monitor.limits.stop=true" in options:
        assert len(wanted["metrics"]) == 2 and wanted["checkpoint: verdict"]["epoch"] == 0
    if "wrapper=[greedy]" in options:
        rows = wanted["checkpoint: relaxation"]["_extra_state"]["rows"]
        assert any(row >= 0 for kind in rows.values() for row in kind) and wanted["checkpoint: monitor_op_freezing"]["frozen"]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(5))
def test_a_search_killed_at_every_fifth_change_of_a_file_ends_as_an_unbroken_one(wanted, tmp_path, first):
    for n in range(first + 1, 1000, 5):
        where = tmp_path / str(n)
        where.mkdir()
        if run("train_search", *SEARCH, EVERY_STEP, cwd=where, at=At(n, "runs"), report=False).code == 0:
            break
        ended = go_on("train_search", *SEARCH, EVERY_STEP, where=where)
        assert_same(outcome(finished(where)), wanted)
        assert "Traceback" not in ended.err
    assert n > 60, "the signal came too seldom to mean anything"


def test_a_search_that_met_a_full_disk_is_gone_on_with(wanted, tmp_path):
    ended = run("train_search", *SEARCH, EVERY_STEP, cwd=tmp_path, report=False, at=At(1, "checkpoints/epoch_00002", None))
    assert ended.code == 2 and "No space left on device" in ended.err.splitlines()[-1], ended.err
    go_on("train_search", *SEARCH, where=tmp_path)
    assert_same(outcome(finished(tmp_path)), wanted)


def test_a_search_killed_while_its_report_is_written_is_gone_on_with(unbroken, wanted, tmp_path):
    assert run("train_search", *SEARCH, cwd=tmp_path, at=At(1, "report.html")).code == -signal.SIGKILL
    ended = run("train_search", *SEARCH, "resume=auto", cwd=tmp_path)
    assert ended.code == 0 and "resuming" in ended.err, ended.err
    (folder,) = folders(tmp_path)
    assert folder.report.exists() and {path.name for path in folder.path.iterdir()} == {path.name for path in unbroken.path.iterdir()}
    assert_same(outcome(folder), wanted)


# ---- asked to stop


def stop(number: int, *options: str, after: str, where: Path) -> Ended:
    """Starts a search, sends it the signal as soon as there is a file `after`, and waits for it to stop."""
    process = start("train_search", *SEARCH, EVERY_STEP, *options, cwd=where, report=False)
    until(lambda: list(where.glob(f"runs/*/{after}")), after)
    return process.send(number)


def test_ctrl_c_and_then_sigterm_stop_a_search_that_ends_as_an_unbroken_one(wanted, tmp_path):
    ended = stop(signal.SIGINT, after="checkpoints/epoch_00001*.pt", where=tmp_path)
    (folder,) = folders(tmp_path)
    assert ended.code == 130 and folder.status()["status"] == "stopped" and "Traceback" not in ended.err, ended.err
    told, command = ended.err.splitlines()[-2:]
    assert told.startswith("stopped at epoch ") and "resume=auto" in command
    python, script, *options = shlex.split(command)  # as it would be pasted into a shell
    assert Path(tmp_path, python).samefile(sys.executable) and Path(tmp_path, script).samefile(ROOT / "train_search.py")

    process = start("train_search", *options, cwd=tmp_path, report=False)
    until(lambda: "resuming" in process.err(), "the run going on")
    ended = process.send(signal.SIGTERM)
    assert ended.code == 143 and folder.status()["status"] == "stopped" and "resume=auto" in ended.err, ended.err

    go_on("train_search", *SEARCH, where=tmp_path)
    assert_same(outcome(finished(tmp_path)), wanted)


def test_ctrl_c_in_the_selection_at_the_end_stops_a_search_that_ends_as_an_unbroken_one(tmp_path):
    """What the selection has done is not kept: it begins again, from what the last epoch left."""
    options = (*SEARCH, "epochs=1", "final_select=perturbation", "final_select.finetune_epochs=15")
    process = start("train_search", *options, EVERY_EPOCH, cwd=tmp_path, report=False)
    until(lambda: "decision 1 of 2" in process.err(), "the first decision")
    ended = process.send(signal.SIGINT)
    assert ended.code == 130 and "stopped at epoch 1, step 5; saved." in ended.err and "Traceback" not in ended.err, ended.err
    go_on("train_search", *options, where=tmp_path)
    unbroken = tmp_path / "unbroken"
    unbroken.mkdir()
    assert run("train_search", *options, EVERY_EPOCH, cwd=unbroken, report=False).code == 0
    assert_same(outcome(finished(tmp_path)), outcome(finished(unbroken)))


def test_ctrl_c_before_the_run_has_begun_is_one_line(tmp_path):
    ended = run("train_search", *SEARCH, cwd=tmp_path, at=At(1, "runs", signal.SIGINT))
    assert ended.code == 130 and len(ended.err.splitlines()) == 1, ended.err


# ---- checkpoints that were damaged


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """The folder of a search that was killed in its second epoch, with the checkpoints of two steps."""
    where = tmp_path_factory.mktemp("killed")
    assert run("train_search", *SEARCH, EVERY_STEP, cwd=where, at=At(9, ".pt."), report=False).code == -signal.SIGKILL
    return where


@pytest.fixture
def broken_off(killed, tmp_path) -> RunFolder:
    """A copy of that run, in the test's own folder."""
    shutil.copytree(killed / "runs", tmp_path / "runs")
    (folder,) = folders(tmp_path)
    assert len(checkpoints(folder)) == 2
    return folder


def checkpoints(folder: RunFolder) -> list[Path]:
    """The newest first."""
    return sorted(folder.checkpoints.glob("*.pt"), reverse=True)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, pytest.param(empty, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_passed_over_with_a_line_that_says_so(broken_off, wanted, tmp_path, damage):
    newest, previous = checkpoints(broken_off)
    damage(newest)
    ended = run("train_search", *SEARCH, f"resume=runs/{broken_off.path.name}", cwd=tmp_path, report=False)
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if "corrupt" in line]
    assert newest.name.split(".")[0] in line and f"falling back to {previous.name.split('.')[0]}" in line
    assert f"at epoch 1, step {int(previous.name.split('.')[0][-8:])}" in ended.err
    assert_same(outcome(finished(tmp_path)), wanted)


def test_when_no_checkpoint_is_whole_one_line_says_so_and_nothing_is_touched(broken_off, tmp_path):
    newest, previous = checkpoints(broken_off)
    flip_a_bit(newest), truncate(previous)
    before = contents(tmp_path)
    line = only_error(run("train_search", *SEARCH, "resume=auto", cwd=tmp_path))
    assert "no checkpoint is usable" in line and "corrupt" in line
    assert contents(tmp_path) == before


def test_records_that_are_shorter_than_the_checkpoint_says_are_one_line(broken_off, tmp_path):
    truncate(broken_off.metrics)
    line = only_error(run("train_search", *SEARCH, "resume=auto", cwd=tmp_path))
    assert "metrics.jsonl" in line


# ---- what cannot be gone on with


def test_a_finished_run_cannot_be_gone_on_with(again):
    where = again[0].path.parents[1]
    before = contents(where)
    line = only_error(run("train_search", *SEARCH, f"resume={again[0].path}", cwd=where))
    assert "finished" in line and str(again[0].path) in line
    assert contents(where) == before


@pytest.mark.parametrize("other", ["seed=1", "space.ops=[none,skip_connect,max_pool_3x3,sep_conv_3x3]"])
def test_a_run_of_other_options_cannot_be_gone_on_with(broken_off, tmp_path, other):
    before = contents(tmp_path)
    line = only_error(run("train_search", *SEARCH, other, f"resume=runs/{broken_off.path.name}", cwd=tmp_path))
    key, _, value = other.partition("=")
    assert "other options" in line and f"{key} " in line and "here" in line
    assert contents(tmp_path) == before


def test_a_search_cannot_be_gone_on_with_by_a_training(broken_off, unbroken, tmp_path):
    shutil.copy(unbroken.genotype, tmp_path)
    before = contents(tmp_path)
    line = only_error(run("train_final", *FINAL, f"resume=runs/{broken_off.path.name}", cwd=tmp_path))
    assert "train_search" in line
    assert contents(tmp_path) == before


def test_two_processes_cannot_work_on_one_run(wanted, tmp_path):
    # The first stands still after an epoch is recorded and before its checkpoint: the second must not cut that record off.
    first = start("train_search", *SEARCH, EVERY_STEP, cwd=tmp_path, report=False, at=At(1, "checkpoints/epoch_00002", signal.SIGSTOP))
    until(first.is_stopped, "the first process")
    (folder,) = folders(tmp_path)
    before = contents(tmp_path)
    line = only_error(run("train_search", *SEARCH, f"resume=runs/{folder.path.name}", cwd=tmp_path))
    assert "another process" in line and str(first.pid) in line
    assert contents(tmp_path) == before
    assert first.send(signal.SIGCONT).code == 0
    assert_same(outcome(finished(tmp_path)), wanted)


def test_resume_auto_names_a_run_that_is_at_work_and_starts_no_second_one(broken_off, tmp_path):
    with open(broken_off.path / ".lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = contents(tmp_path)
        line = only_error(run("train_search", *SEARCH, "resume=auto", cwd=tmp_path), 75)
        assert f"{broken_off.path.relative_to(tmp_path)}: another process" in line and str(broken_off.status()["pid"]) in line
        assert contents(tmp_path) == before


def test_resume_auto_leaves_a_finished_run_alone(again):
    where = again[0].path.parents[1]
    before = contents(where)
    ended = run("train_search", *SEARCH, EVERY_EPOCH, "resume=auto", cwd=where)
    told = f"{again[0].path.relative_to(where)} is finished and has the same options: left alone (resume=never runs it again)"
    assert ended.code == 0 and ended.err.splitlines() == [told]
    assert contents(where) == before


# ---- records, options and status that were damaged


def test_a_digit_of_the_records_that_changed_is_said_before_the_first_step(broken_off, tmp_path):
    text = broken_off.metrics.read_text()
    broken_off.metrics.write_text(text.replace('"train_loss": 2', '"train_loss": 3', 1))
    assert broken_off.metrics.read_text() != text
    line = only_error(run("train_search", *SEARCH, "resume=auto", cwd=tmp_path))
    assert "metrics.jsonl" in line and "sha256 differs" in line


@pytest.mark.parametrize("damage", [flip_a_bit, empty, Path.unlink])
def test_options_and_status_that_are_damaged_are_restored_from_the_checkpoint(broken_off, unbroken, wanted, tmp_path, damage):
    options = broken_off.config.read_text()
    damage(broken_off.config), damage(broken_off.run_json)
    ended = run("train_search", *SEARCH, "resume=auto", cwd=tmp_path)
    assert ended.code == 0 and "config.yaml was damaged or gone: restored from the checkpoint" in ended.err, ended.err
    assert_same(outcome(finished(tmp_path)), wanted)
    assert broken_off.config.read_text() == options
    assert broken_off.status().keys() == unbroken.status().keys()


def test_a_checkpoint_of_another_run_is_refused(broken_off, tmp_path):
    ended = run("train_search", *SEARCH, "seed=1", "epochs=1", "output=other", cwd=tmp_path, report=False)
    assert ended.code == 0, ended.err
    for path in checkpoints(broken_off):
        path.unlink()
    for path in tmp_path.glob("other/*/checkpoints/*.pt"):
        shutil.copy(path, broken_off.checkpoints)
    line = only_error(run("train_search", *SEARCH, "resume=auto", cwd=tmp_path))
    assert "is of a run with other options" in line


# ---- longer


def test_a_finished_search_goes_on_for_more_epochs_in_a_folder_of_its_own(unbroken, wanted, tmp_path):
    shutil.copytree(unbroken.path, tmp_path / "first")
    before = contents(tmp_path / "first")
    line = only_error(run("train_search", *SEARCH, "extend=first", cwd=tmp_path))
    assert "pass epochs above the 3 of that run, got 3" in line
    line = only_error(run("train_search", *SEARCH, "extend=first", "epochs=5", "seed=1", cwd=tmp_path))
    assert "only epochs may differ, and seed 0 there, 1 here" in line
    at = At(2, "checkpoints/epoch_00004")
    assert run("train_search", *SEARCH, "extend=first", "epochs=5", EVERY_STEP, cwd=tmp_path, report=False, at=at).code == -signal.SIGKILL
    ended = run("train_search", *SEARCH, "extend=first", "epochs=5", "resume=auto", cwd=tmp_path)
    assert ended.code == 0 and "resuming" in ended.err, ended.err
    folder = finished(tmp_path)
    records = Journal.read(folder.metrics)
    assert [record["epoch"] for record in records] == [0, 1, 2, 3, 4]
    assert [record["train_loss"] for record in records[:3]] == [record["train_loss"] for record in wanted["metrics"]]
    assert records[3]["lr"] > records[2]["lr"]  # of a cosine over five epochs
    assert contents(tmp_path / "first") == before

    unkilled = tmp_path / "unkilled"
    unkilled.mkdir()
    ended = run("train_search", *SEARCH, "extend=../first", "epochs=5", cwd=unkilled)
    assert f"learning rate {records[2]['lr']:.4g} in its last epoch, {records[3]['lr']:.4g} in the next one" in ended.err
    assert_same(outcome(finished(unkilled)), outcome(folder))


# ---- what an earlier version wrote


def test_a_run_of_an_earlier_version_is_one_line(tmp_path):
    shutil.copytree(ROOT / "tests" / "earlier_run", tmp_path / "old")
    line = only_error(run("train_search", *SEARCH, "resume=old", cwd=tmp_path))
    assert "an earlier version of the project wrote this run" in line and "commit 1c57be2" in line
