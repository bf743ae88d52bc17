"""Checkpoints that a thread writes while the training goes on."""

import os
import signal
import threading
from collections import OrderedDict

import pytest
import torch
from torch import nn

from supernet.runs import checkpoint
from supernet.runs.checkpoint import CheckpointError
from supernet.runs.checkpoint_writer import Copy, Writer
from tests.helpers import At, only_error, run, start, until
from tests.runs import assert_same, exactly, finished, folders, go_on, outcome

SEARCH = ("space=toy", "layers=3", "channels=2", "split.max_train=40", "split.max_val=40", "batch_size=8", "epochs=2", "dataset=digits")
IN_BACKGROUND = ("background_checkpoints=true", "checkpoint_every_s=0")


def steps(folder):
    return [path.name.split(".")[0] for path in checkpoint.all_files(folder)]


@pytest.fixture
def writer(tmp_path):
    return Writer(tmp_path, keep=2, background=True)


@pytest.fixture
def gate(monkeypatch):
    """The thread waits here before it writes, until it is opened."""
    gate, write = threading.Event(), checkpoint.write

    def later(*arguments, **how):
        gate.wait()
        return write(*arguments, **how)

    monkeypatch.setattr(checkpoint, "write", later)
    yield gate
    gate.set()


def test_what_is_written_is_of_the_moment_at_which_it_was_asked_for(writer, gate, tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    listed = [1]
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "listed": listed, "parameter": net[0].weight}
    gate.set()
    path = checkpoint.save(tmp_path / "at once", state, name="a")
    gate.clear()
    writer.save(state, "a")
    net(torch.randn(4, 2)).square().sum().backward()
    optimizer.step(), listed.append(2)
    assert steps(tmp_path) == []
    gate.set()
    writer.wait()
    found, wanted = checkpoint.load(tmp_path).state, checkpoint.load_file(path)
    assert exactly(found) == exactly(wanted) and found["listed"] == [1] and type(found["parameter"]) is nn.Parameter


def test_the_containers_stay_what_they_are_and_what_was_one_stays_one():
    buffer = torch.arange(10.0)
    whole = Copy({"a": OrderedDict(x=buffer), "b": (buffer, [buffer[2:4]]), "c": buffer.t(), "none": None, "empty": torch.empty(0)}).ready()
    assert type(whole["a"]) is OrderedDict and type(whole["b"]) is tuple and type(whole["b"][1]) is list and whole["none"] is None
    assert whole["a"]["x"] is whole["b"][0] and whole["a"]["x"].data_ptr() != buffer.data_ptr()
    assert whole["b"][1][0].tolist() == [2, 3] and whole["b"][1][0].untyped_storage().nbytes() == 8, "of a view its own entries alone"
    strided = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert Copy(strided).ready().stride() == strided.stride()


def test_one_is_in_flight_at_a_time_and_two_whole_ones_are_there_at_every_moment(writer, tmp_path, monkeypatch):
    seen, real = [], os.replace

    def replace(source, target):
        seen.append(("before", steps(tmp_path)))
        real(source, target)
        seen.append(("after", steps(tmp_path)))

    monkeypatch.setattr(os, "replace", replace)
    for n in range(5):
        writer.save({"w": torch.full((1000,), float(n))}, f"step_{n}")
        assert sum(thread.name == "checkpoint" for thread in threading.enumerate()) <= 1
    writer.wait()
    assert steps(tmp_path) == ["step_3", "step_4"]
    assert [found for when, found in seen if when == "before"][2:] == [["step_0", "step_1"], ["step_1", "step_2"], ["step_2", "step_3"]]
    assert [len(found) for when, found in seen if when == "after"] == [1, 2, 3, 3, 3], "the older one goes when the newer is there"


@pytest.mark.parametrize("ends", ["save", "wait"])
def test_what_goes_wrong_in_the_thread_is_raised_by_what_comes_next_and_once(writer, tmp_path, monkeypatch, ends):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    writer.save({"step": 0}, "step_0")
    writer.wait()
    monkeypatch.setattr(os, "fsync", full)
    writer.save({"step": 1}, "step_1")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint .No space left on device.; earlier ones are kept"):
        writer.wait() if ends == "wait" else writer.save({"step": 2}, "step_2")
    monkeypatch.undo()
    writer.wait()
    writer.save({"step": 3}, "step_3")
    writer.wait()
    assert steps(tmp_path) == ["step_0", "step_3"]


def test_what_must_come_first_comes_first_and_what_it_raises_is_raised(tmp_path):
    def first():
        assert steps(tmp_path) == []
        raise CheckpointError("the lock is lost")

    for background in (True, False):
        writer = Writer(tmp_path, keep=2, background=background, first=first)
        with pytest.raises(CheckpointError, match="the lock is lost"):
            writer.save({}, "a")
            writer.wait()
        assert steps(tmp_path) == []


def test_what_would_not_load_is_refused_before_the_thread(writer):
    with pytest.raises(CheckpointError, match="is a builtins.set"):
        writer.save({"a": {1}}, "a")


# ---- runs


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    where = tmp_path_factory.mktemp("unbroken")
    assert run("train_search", *SEARCH, cwd=where, report=False).code == 0
    return outcome(finished(where))


def test_a_search_killed_while_its_thread_writes_ends_as_an_unbroken_one(wanted, tmp_path):
    for at in (At(4, ".pt."), At(3, ".pt")):  # while the second of them is written, and before it has its name
        ended = run("train_search", *SEARCH, *IN_BACKGROUND, "resume=auto", cwd=tmp_path, report=False, at=at)
        assert ended.code == -signal.SIGKILL, ended.err
    go_on("train_search", *SEARCH, *IN_BACKGROUND, where=tmp_path)
    assert_same(outcome(finished(tmp_path)), wanted)


@pytest.mark.slow
def test_a_search_killed_at_every_change_that_its_thread_makes_ends_as_an_unbroken_one(wanted, tmp_path):
    for n in range(1, 1000):
        where = tmp_path / str(n)
        where.mkdir()
        if run("train_search", *SEARCH, *IN_BACKGROUND, cwd=where, at=At(n, "checkpoints"), report=False).code == 0:
            break
        ended = go_on("train_search", *SEARCH, *IN_BACKGROUND, where=where)
        assert_same(outcome(finished(where)), wanted)
        assert "Traceback" not in ended.err
    assert n > 20, "the signal came too seldom to mean anything"


def test_ctrl_c_ends_a_search_once_its_checkpoint_is_written(tmp_path):
    process = start("train_search", *SEARCH, "background_checkpoints=true", "epochs=500", cwd=tmp_path, report=False)
    until(lambda: "epoch 1/500" in process.err().replace("  ", ""), "an epoch")
    ended = process.send(signal.SIGINT)
    assert ended.code == 130 and "; saved. Go on with:" in ended.err, ended.err
    (folder,) = folders(tmp_path)
    newest = steps(folder.checkpoints)[-1]
    assert f"stopped at epoch {int(newest[6:11])}, step {int(newest[-8:])}; saved" in ended.err


def test_a_disk_that_is_full_under_the_thread_ends_the_search_with_a_line(wanted, tmp_path):
    ended = run("train_search", *SEARCH, *IN_BACKGROUND, cwd=tmp_path, report=False, at=At(1, "checkpoints/epoch_00001", None))
    assert ended.code == 2 and "No space left on device" in ended.err.splitlines()[-1] and "Traceback" not in ended.err, ended.err
    go_on("train_search", *SEARCH, where=tmp_path)
    assert_same(outcome(finished(tmp_path)), wanted)


def test_a_last_checkpoint_that_cannot_be_written_is_no_finished_run(tmp_path):
    line = run("train_search", *SEARCH, "background_checkpoints=true", cwd=tmp_path, report=False,
               at=At(1, "checkpoints/epoch_00002", None))
    assert line.code == 2 and "cannot write the checkpoint" in line.err.splitlines()[-1], line.err
    (folder,) = folders(tmp_path)
    assert folder.status()["status"] != "finished" and not folder.summary.exists()


def test_the_option_is_true_false_or_left_open(tmp_path):
    assert "background_checkpoints" in only_error(run("train_search", *SEARCH, "background_checkpoints=sometimes", cwd=tmp_path))
