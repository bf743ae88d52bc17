import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from supernet.commands import diff
from supernet.formats import VERSION
from supernet.report.html import run_page
from supernet.runs import environment
from supernet.runs.architectures import named
from supernet.runs.checkpoint import save
from supernet.runs.device import resolve_device
from supernet.runs.environment import describe
from supernet.runs.folder import RunFolder, RunFolderError, check_in_run, config_hash, differences, earlier_runs, write_json
from supernet.runs.interrupt import Interrupt
from supernet.runs.journal import to_json
from supernet.runs.listing import row
from supernet.runs.results import Finished, LeftOut, read
from supernet.sweeps.states import summary_values
from tests.runs import planted_run

# ---- folders


def test_the_name_says_when_and_what(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b", "darts=v2, seed 3/é")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_darts-v2--seed-3--", folder.path.name)
    assert folder.path.is_dir()
    assert len(RunFolder.create(tmp_path, "x" * 1000).path.name) < 255


def test_all_paths_lie_in_the_folder_and_differ(tmp_path):
    paths = [value for value in vars(RunFolder(tmp_path)).values() if isinstance(value, Path) and value != tmp_path]
    assert len(paths) == len(set(paths)) and {path.parent for path in paths} == {tmp_path}


CREATE = """
import os, sys
from pathlib import Path
from supernet.runs.folder import RunFolder
os.fork(), os.fork()
names = [RunFolder.create(Path(sys.argv[1]), "same").path.name for _ in range(10)]
os.write(1, "".join(name + "\\n" for name in names).encode())   # one write, so that the four do not mix
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""


def test_many_processes_that_start_in_one_second_get_a_folder_each(tmp_path):
    done = subprocess.run([sys.executable, "-c", CREATE, str(tmp_path)], check=True, capture_output=True, text=True)
    printed = done.stdout.split()
    assert len(set(printed)) == 40 and len(list(tmp_path.iterdir())) == 40
    assert any(name.endswith("_same_2") for name in printed)


def test_an_output_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "under", Path("/proc/supernet")):
        with pytest.raises(RunFolderError, match="cannot make a run folder here") as error:
            RunFolder.create(output, "x")
        assert "\n" not in str(error.value)


# ---- run.json


def test_status_goes_from_running_to_finished_and_a_resumed_run_keeps_its_start(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.status() is None
    folder.start(script="train_search", command="python train_search.py seed=1", config_hash="h")
    first = folder.status()
    assert first == {"format": "supernet.run/2", "script": "train_search", "status": "running", "command": "python train_search.py seed=1",
                     "written_by": VERSION, "config_hash": "h", "started": first["started"], "updated": first["updated"],
                     "pid": os.getpid(), "files": {},
                     "sha256": first["sha256"]}
    folder.set_status("stopped")
    folder.start(script="train_search", command="again", config_hash="h")
    folder.set_status("finished")
    last = folder.status()
    assert (last["status"], last["command"], last["started"]) == ("finished", "again", first["started"])
    assert last["updated"] > first["updated"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_write_json_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, {"acc": math.nan, "loss": 0.1})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"acc": None, "loss": 0.1}

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunFolderError, match="summary.json: cannot write .No space left"):
        write_json(path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"] and path.read_text() != "{}\n"


def test_to_json_keeps_every_digit():
    assert json.loads(to_json([0.1 + 0.2, 2**60, -math.inf])) == [0.1 + 0.2, 2**60, None]


# ---- lock

HOLD = """
import sys, time
from pathlib import Path
from supernet.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_the_lock_ends_with_its_process_however_that_ends(tmp_path):
    folder = RunFolder(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"
    assert folder.is_locked()
    with pytest.raises(RunFolderError, match="another process is working on this run"), folder.lock():
        pass
    holder.kill()
    holder.communicate()
    assert not folder.is_locked()
    with folder.lock():
        assert folder.is_locked()
    assert not folder.is_locked()


def test_a_folder_without_a_lock_is_not_locked(tmp_path):
    assert not RunFolder(tmp_path).is_locked()
    with pytest.raises(RunFolderError, match="cannot lock"), RunFolder(tmp_path / "missing").lock():
        pass


def test_those_who_only_ask_keep_nobody_out(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.lock():
        pass
    done = threading.Event()

    def ask():
        while not done.is_set():
            folder.is_locked()

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(10):
            with folder.lock():
                pass
    finally:
        done.set()
        for thread in asking:
            thread.join()


# ---- earlier runs


def made(output, *, stem="run", script="train_search", config="h", status="stopped", checkpoint=True):
    folder = RunFolder.create(output, stem)
    folder.start(script=script, command="", config_hash=config)
    folder.set_status(status)
    if checkpoint:
        save(folder.checkpoints, {"run": {"script": script, "status": "stopped", "config_hash": config}}, name="step_1")
    return folder


def found(output):
    return [[folder.path.name for folder in kind] for kind in earlier_runs(output, "train_search", "h")[:3]]


def test_earlier_runs_of_the_same_options_are_told_apart(tmp_path):
    assert found(tmp_path / "missing") == [[], [], []]
    for other in ({"script": "train_final"}, {"config": "other"}, {"checkpoint": False}):
        made(tmp_path, **other)
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "run.json").write_text("[1, 2")
    (tmp_path / "notes.txt").write_text("")
    assert found(tmp_path) == [[], [], []]

    older, newer = made(tmp_path, status="failed", stem="z"), made(tmp_path, status="running", stem="a")
    assert found(tmp_path) == [[], [], [newer.path.name, older.path.name]]
    with newer.lock():
        assert found(tmp_path) == [[newer.path.name], [], [older.path.name]]
    newer.set_status("finished")
    assert found(tmp_path) == [[], [newer.path.name], [older.path.name]]


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_a_run_whose_run_json_is_damaged_is_known_by_its_checkpoint(tmp_path, damage):
    folder = made(tmp_path)
    if damage is None:
        folder.run_json.write_bytes(folder.run_json.read_bytes().replace(b'"h"', b'"i"'))
    else:
        folder.run_json.write_bytes(damage)
    assert found(tmp_path) == [[], [], [folder.path.name]]


def test_a_final_file_that_changed_is_one_line(tmp_path):
    folder = RunFolder(tmp_path)
    folder.start(script="train_search", command="", config_hash="h")
    folder.write(folder.config, b"seed: 1\n")
    folder.verify(folder.config)
    assert folder.options() == {"seed": 1}
    folder.start(script="train_search", command="again", config_hash="h")  # gone on with: digests stay
    folder.config.write_bytes(b"seed: 3\n")
    with pytest.raises(RunFolderError, match="config.yaml: is not what was written .sha256 differs.") as error:
        folder.options()
    assert "\n" not in str(error.value)


def test_a_finished_runs_files_are_sealed_and_one_that_changes_is_known(tmp_path):
    folder = RunFolder(planted_run(tmp_path / "run", job="a", status="running"))
    folder.metrics.write_text('{"epoch": 0}\n')
    folder.set_status("finished")
    assert set(folder.status()["files"]) == {"config.yaml", "environment.json", "metrics.jsonl", "genotype.json", "summary.json"}
    assert folder.changed() == []
    for path in (folder.environment, folder.metrics, folder.genotype, folder.summary):
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1, *whole[1:]]))
        assert folder.changed() == [path.name] and folder.changed(("config.yaml",)) == []
        with pytest.raises(RunFolderError, match=f"{path.name}: is not what was written .sha256 differs"):
            check_in_run(path)
        folder.check_unchanged("config.yaml")
        path.write_bytes(whole)
    folder.summary.unlink()
    assert folder.changed() == []  # one that is gone is the business of whoever needs it
    folder.run_json.write_text("{")
    assert folder.changed() == []
    check_in_run(tmp_path / "elsewhere.json")


def test_of_a_run_that_goes_on_only_what_is_final_is_sealed(tmp_path):
    folder = RunFolder(planted_run(tmp_path / "run", job="a", status="running"))
    folder.set_status("stopped")
    assert set(folder.status()["files"]) == {"config.yaml"}
    folder.metrics.write_text('{"epoch": 1}\n')
    assert folder.changed() == []


def flipped(path):
    """With one bit of a digit changed, which makes another number of it."""
    data = path.read_bytes()
    at = next(n for n, byte in enumerate(data) if byte in b"0123456789")
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "genotype.json", "environment.json"])
def test_no_reader_takes_a_damaged_file_of_a_finished_run_for_another_result(tmp_path, capsys, name):
    for run in ("a", "b"):
        folder = RunFolder(planted_run(tmp_path / run, job=run, status="running", validation=82.5))
        write_json(folder.environment, {"git_commit": "2345" * 10, "git_dirty": False})
        folder.set_status("finished")
    flipped(tmp_path / "b" / name)
    told = f"{name}: is not what was written (sha256 differs)"
    assert diff.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2 and told in capsys.readouterr().err
    assert f"{name} is not what the run wrote" in run_page(tmp_path / "b")
    found = row(tmp_path / "b", "b")
    assert found.state == "finished" and (found.note == f"not what the run wrote: {name}") == (name != "environment.json")
    assert row(tmp_path / "a", "a").note == ""
    assert type(read(tmp_path / "a")) is Finished
    if name != "metrics.jsonl":
        assert read(tmp_path / "b") == LeftOut(tmp_path / "b", f"{name} is not what the run wrote (sha256 differs)")
    if name == "summary.json":
        with pytest.raises(RunFolderError, match="is not what was written"):
            summary_values(RunFolder(tmp_path / "b"))
    if name == "genotype.json":
        with pytest.raises(RunFolderError, match="is not what was written"):
            named(str(tmp_path / "b"))


def test_differences_are_by_full_names():
    there, here = {"seed": 1, "space": {"name": "darts", "ops": ["a"]}, "output": "x"}, {"seed": 1, "space": {"name": "s1"}, "output": "y"}
    assert differences(there, here, {"output"}) == [("space.name", "darts", "s1"), ("space.ops", ["a"], "nothing")]
    assert differences(there, there) == []


def test_config_hash_depends_on_values_not_on_order_or_ignored_keys():
    config = {"seed": 1, "space": {"name": "darts", "layers": 8}, "output": "runs"}
    assert config_hash(config, {"output"}) == config_hash({"space": {"layers": 8, "name": "darts"}, "seed": 1}, {"output"})
    assert config_hash(config, {"output"}) != config_hash(config | {"seed": 2}, {"output"})
    assert config_hash({"a": {"output": 1}}, {"output"}) != config_hash({"a": {"output": 2}}, {"output"})
    assert re.fullmatch("[0-9a-f]{64}", config_hash(config))


# ---- environment


def test_the_environment_is_json_and_names_no_person_machine_or_folder():
    description = describe(torch.device("cpu"))
    text = json.dumps(description)
    assert description["torch"] == torch.__version__ and description["threads"] == torch.get_num_threads()
    assert os.uname().nodename not in text and str(Path.cwd()) not in text and str(Path.home()) not in text


def git(*arguments):
    author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *author, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_the_code_and_says_whether_it_was_changed(tmp_path, monkeypatch):
    file = tmp_path / "environment.py"
    file.write_text("")
    monkeypatch.setattr(environment, "__file__", str(file))

    def seen():
        description = describe(torch.device("cpu"))
        return description["git_commit"], description["git_dirty"]

    assert seen() == (None, None)
    git("-C", str(tmp_path), "init")
    assert seen() == (None, None)          # somebody's repository, not this code's
    git("-C", str(tmp_path), "add", file.name)
    git("-C", str(tmp_path), "commit", "-m", "x")
    commit, dirty = seen()
    assert re.fullmatch("[0-9a-f]{40}", commit) and dirty is False
    file.write_text("changed")
    assert seen() == (commit, True)
    monkeypatch.setenv("PATH", "")
    assert seen() == (None, None)


def test_devices(monkeypatch):
    assert resolve_device("cpu") == torch.device("cpu")
    for text in ("gpu", "cuda:", "cuda:-1", "", "CPU", "cpu:0"):
        with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N"):
            resolve_device(text)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="device=cuda is not available") as error:
        resolve_device("cuda")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto").type == "cuda"
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="sees 2 GPUs"):
        resolve_device("cuda:2")


# ---- interrupt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129),
                                              (signal.SIGUSR2, 140)])
def test_the_first_signal_only_sets_a_flag_and_handlers_are_put_back(number, code):
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
    found = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored, as nohup does
    before = [signal.getsignal(handled_one) for handled_one in handled]
    with Interrupt() as interrupt:
        assert (interrupt.signal, interrupt.exit_code) == (None, 0)
        signal.raise_signal(number)
        assert (interrupt.signal, interrupt.exit_code) == (number, code)
    assert [signal.getsignal(handled_one) for handled_one in handled] == before
    signal.signal(signal.SIGHUP, found)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_after_a_signal_stops_at_once(first):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.signal == first
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_launchers_handlers_are_called_and_kept():
    seen = []
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    owned = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in numbers}
    try:
        theirs = signal.getsignal(signal.SIGTERM)
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGTERM)
            assert interrupt.signal == signal.SIGTERM
        with Interrupt() as interrupt:  # which queues the job anew and ends the process: after the state is saved
            signal.raise_signal(signal.SIGUSR2)
            assert interrupt.signal == signal.SIGUSR2 and seen == [signal.SIGTERM]
        assert seen == [signal.SIGTERM, signal.SIGUSR2] and signal.getsignal(signal.SIGTERM) is theirs
    finally:
        for number, handler in owned.items():
            signal.signal(number, handler)


def test_blocks_may_stand_in_one_another():
    with Interrupt() as outer:
        with Interrupt() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert (outer.signal, inner.signal) == (signal.SIGTERM, signal.SIGTERM)


def test_a_hangup_that_is_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.signal is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with Interrupt() as interrupt:
            seen.append((interrupt.signal, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
