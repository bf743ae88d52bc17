import os
import random
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from supernet.runs.checkpoint import CheckpointError, has_checkpoint, load, load_file, save


def assert_same(a, b):
    """Bitwise, and of the same types."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b or a != a and b != b


def training_state():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    adam = torch.optim.Adam(net.parameters(), betas=(0.5, 0.999))
    for optimizer in (sgd, adam):
        net(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return {
        "net": net.state_dict(), "sgd": sgd.state_dict(), "adam": adam.state_dict(),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "python": random.Random(4).getstate(),
        "nested": [(1, 2.5, float("nan")), {"deep": [None, True, "text", OrderedDict(a=torch.tensor(7))]}],
        "half": torch.randn(3).bfloat16().float(), "empty": torch.empty(0), "epoch": 3, "big": 2**100,
    }


def names(folder):
    return sorted(path.name.split(".")[0] for path in folder.iterdir())


def test_a_state_comes_back_bitwise(tmp_path):
    state = training_state()
    path = save(tmp_path / "new" / "folder", state, name="epoch_0001_step_000010")
    loaded = load(tmp_path / "new" / "folder")
    assert loaded.path == path and loaded.skipped == []
    assert_same(loaded.state, state)
    assert_same(load_file(path), state)
    random.Random().setstate(loaded.state["python"])


def test_keeps_the_newest_two(tmp_path):
    for step in range(5):
        save(tmp_path, {"step": step}, name=f"step_{step:06}")
    assert names(tmp_path) == ["step_000003", "step_000004"]
    assert load(tmp_path).state == {"step": 4}


@pytest.mark.parametrize("keep", [1, 3])
def test_keeps_as_many_as_asked_for(tmp_path, keep):
    for step in range(5):
        save(tmp_path, {"step": step}, name=f"step_{step}", keep=keep)
    assert names(tmp_path) == [f"step_{step}" for step in range(5 - keep, 5)]


def test_after_going_back_to_an_earlier_checkpoint_the_abandoned_future_goes(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, {"step": step}, name=f"step_{step}", keep=3)
    save(tmp_path, {"step": 15}, name="step_15", keep=3)
    assert names(tmp_path) == ["step_10", "step_15"]
    save(tmp_path, {"step": 15, "again": True}, name="step_15", keep=3)
    assert names(tmp_path) == ["step_10", "step_15"]
    assert load(tmp_path).state["again"]


def test_every_flipped_bit_is_seen(tmp_path):
    path = save(tmp_path, training_state(), name="step_1")
    data = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        bit = rng.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"is corrupt \(sha256 differs\)$"):
            load_file(path)
    path.write_bytes(data)
    load_file(path)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_falls_back_past_a_truncated_file(tmp_path, length):
    save(tmp_path, {"step": 1}, name="step_1")
    newest = save(tmp_path, {"step": 2}, name="step_2")
    newest.write_bytes(newest.read_bytes()[:length])
    loaded = load(tmp_path)
    assert loaded.state == {"step": 1}
    assert loaded.skipped == [f"{newest} is corrupt (sha256 differs); falling back to step_1"]


def test_none_usable_says_what_was_seen(tmp_path):
    for step in (1, 2):
        save(tmp_path, {"step": step}, name=f"step_{step}").write_bytes(b"x")
    with pytest.raises(CheckpointError) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).count("is corrupt") == 2 and "no checkpoint is usable" in str(error.value)


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        assert not has_checkpoint(folder)
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            load(folder)


def test_leftovers_and_strangers_are_ignored_and_leftovers_cleaned(tmp_path):
    part = tmp_path / f"step_9.{'0' * 64}.pt.part"
    part.write_bytes(b"half")
    (tmp_path / "mine.pt").write_bytes(b"a file of the user")
    assert not has_checkpoint(tmp_path)
    save(tmp_path, {}, name="step_1")
    assert names(tmp_path) == ["mine", "step_1"]


def test_a_whole_file_that_is_no_checkpoint_is_refused(tmp_path):
    import hashlib
    import pickle

    data = pickle.dumps(os.system, protocol=2)
    path = tmp_path / f"step_1.{hashlib.sha256(data).hexdigest()}.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="cannot read it") as error:
        load_file(path)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="is named <name>.<sha256>.pt"):
        load_file(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="No such file"):
        load_file(tmp_path / f"gone.{'0' * 64}.pt")


@pytest.mark.parametrize(("state", "where"), [
    ({"a": {"b": [1, np.float64(2)]}}, "state['a']['b'][1] is a numpy.float64"),
    ({"a": np.zeros(2)}, "state['a'] is a numpy.ndarray"),
    ({"a": (1, {2})}, "state['a'][1] is a builtins.set"),
    ({"a": {np.int64(3): 1}}, "a key of state['a'] is a numpy.int64"),
    ({"a": b"bytes"}, "state['a'] is a builtins.bytes"),
    ({"dtype": torch.float32}, "state['dtype'] is a torch.dtype"),
    ({"net": nn.Linear(1, 1)}, "state['net'] is a torch.nn.modules.linear.Linear"),
])
def test_what_would_not_load_is_refused_by_its_key_path_before_anything_is_written(tmp_path, state, where):
    with pytest.raises(CheckpointError) as error:
        save(tmp_path, state, name="step_1")
    assert str(error.value).startswith(where)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path):
    for name in ("", "a/b", "a.b", "../x"):
        with pytest.raises(ValueError, match="name"):
            save(tmp_path, {}, name=name)
    with pytest.raises(ValueError, match="keep"):
        save(tmp_path, {}, name="a", keep=0)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_earlier_checkpoint_and_no_part(tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(28, "No space left on device")

    save(tmp_path, {"step": 1}, name="step_1", keep=1)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match="No space left on device") as error:
        save(tmp_path, {"step": 2}, name="step_2", keep=1)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    monkeypatch.undo()
    assert names(tmp_path) == ["step_1"]
    assert load(tmp_path).state == {"step": 1}


FILE_LIMIT = """
import resource, signal, sys
from pathlib import Path
import torch
from supernet.runs.checkpoint import CheckpointError, load, save
folder = Path(sys.argv[1])
save(folder, {"step": 1}, name="step_1")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(folder, {"w": torch.zeros(1_000_000)}, name="step_2")
except CheckpointError as error:
    print(error)
assert load(folder).state == {"step": 1}
"""


def test_a_write_that_stops_in_the_middle(tmp_path):
    done = run_python(FILE_LIMIT, tmp_path)
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0 and "File too large" in out and out.count("\n") == 1
    assert names(tmp_path) == ["step_1"]


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save(tmp_path / "file", {}, name="step_1")


KILL_AGAIN_AND_AGAIN = """
import os, random, signal, sys, time
from itertools import count
from pathlib import Path
import torch
from supernet.runs.checkpoint import has_checkpoint, load, save

torch.set_num_threads(1)   # a thread pool does not live on in a fork

def save_for_ever(folder, report):
    start = load(folder).state["step"] + 1 if has_checkpoint(folder) else 0
    for step in count(start):
        save(folder, {"step": step, "w": torch.full((200_000,), float(step))}, name=f"step_{step:08}")
        os.write(report, f"{step} ".encode())

folder, rng, last = Path(sys.argv[1]), random.Random(0), -1
for _ in range(10):   # forked, since importing torch ten times is slow
    read, write = os.pipe()
    if not (child := os.fork()):
        save_for_ever(folder, write)
    os.close(write)
    seen = os.read(read, 1000)
    time.sleep(rng.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 1000):
        seen += more
    os.close(read)
    loaded = load(folder)
    assert loaded.skipped == [] and (loaded.state["w"] == loaded.state["step"]).all()
    assert loaded.state["step"] >= int(seen.split()[-1]) > last, (loaded.state["step"], seen)
    last = loaded.state["step"]
print("leftovers", len(list(folder.glob("*.part"))))
"""


def test_killed_at_any_moment_the_last_finished_save_loads(tmp_path):
    process = run_python(KILL_AGAIN_AND_AGAIN, tmp_path)
    assert "leftovers" in process.communicate(timeout=60)[0]


def run_python(code, folder):
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
