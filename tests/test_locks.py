"""Locks on a folder that several machines share. A machine is played by a process that believes to be at another place; what it knows of
the others is then what it would read on a shared folder."""

import contextlib
import errno
import fcntl
import json
import os
import random
import runpy
import shutil
import signal
import sys
import time
import warnings

import pytest

from supernet.runs import locks
from supernet.runs.claim import claim
from supernet.runs.folder import RunFolder, RunFolderError
from supernet.runs.journal import Journal, JournalError
from supernet.runs.locks import FOLDER, Lock, LockError, Place
from tests.helpers import ROOT, contents, until
from tests.runs import folders

BEAT_S, PATIENCE_S = 0.05, 0.6


def lock(where, *, beat_s=BEAT_S, patience_s=PATIENCE_S):
    return Lock(where / FOLDER, "run", beat_s=beat_s, patience_s=patience_s)


@contextlib.contextmanager
def on(host):
    """Within, this process is on that machine."""
    place = locks.here
    locks.here = lambda: Place(host, f"boot of {host}", "pid:[1]")
    try:
        yield
    finally:
        locks.here = place


class Holder:
    """A process on a machine that takes the lock, waits until it is told to write, and then looks whether it may."""

    def __init__(self, where, host=None, **how):
        (self._held, held), (write, self._write), (self._wrote, wrote) = os.pipe(), os.pipe(), os.pipe()
        if (pid := os.fork()) == 0:
            code = 9
            try:
                with on(host) if host else contextlib.nullcontext():
                    mine = lock(where, **how)
                    with mine.held(wait=True):
                        os.write(held, b"h")
                        os.read(write, 1)
                        mine.check()
                        (where / "written").write_text(str(os.getpid()))
                code = 0
            except LockError as error:
                os.write(wrote, str(error).encode())
                code = 4
            finally:
                os._exit(code)
        self.pid = pid
        os.close(wrote)
        assert os.read(self._held, 1) == b"h"

    def send(self, number):
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            os.waitpid(self.pid, 0)
        return self

    def goes_on(self):
        """Its exit code, and what it said, once it has tried to write."""
        os.write(self._write, b"w")
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, os.read(self._wrote, 10_000).decode()


def taken(where, **how):
    """Seconds until this process has the lock; it gives it back."""
    began = time.monotonic()
    with lock(where, **how).held(wait=False):
        return time.monotonic() - began


def test_one_has_it_and_it_is_free_afterwards(tmp_path):
    ours = lock(tmp_path)
    assert not ours.is_held() and not (tmp_path / FOLDER).exists(), "a look makes nothing"
    with ours.held(wait=False):
        assert ours.is_held() and lock(tmp_path).is_held()
        with pytest.raises(LockError, match=f"^process {os.getpid()} has it$"), lock(tmp_path).held(wait=False):
            pass
        ours.check()
    assert not ours.is_held()
    (left,) = (tmp_path / FOLDER).iterdir()
    assert json.loads(left.read_text()) == {"format": "supernet.lock/1", "state": "free"}, "nothing is left of who had it, or where"
    ours.check()


def test_an_owner_that_was_killed_here_is_known_at_once(tmp_path):
    Holder(tmp_path).send(signal.SIGKILL)
    assert not lock(tmp_path).is_held() and taken(tmp_path, patience_s=1000) < 5


def test_an_owner_that_was_killed_and_that_nobody_has_waited_for_is_known_at_once(tmp_path):
    holder = Holder(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    until(lambda: locks._stat(holder.pid)[0] == "Z", "its end")
    assert not lock(tmp_path).is_held() and taken(tmp_path, patience_s=1000) < 5
    os.waitpid(holder.pid, 0)


def test_a_process_that_has_the_id_of_a_dead_owner_is_not_taken_for_it(tmp_path):
    with lock(tmp_path).held(wait=False):
        (path,) = (tmp_path / FOLDER).iterdir()
        says = json.loads(path.read_text())
        assert lock(tmp_path).is_held()
        path.write_text(json.dumps(says | {"started": says["started"] - 1}))
        assert not lock(tmp_path).is_held()


def test_an_owner_of_another_machine_that_was_killed_is_taken_over_after_patience(tmp_path):
    Holder(tmp_path, "a").send(signal.SIGKILL)
    heard = []
    ours = lock(tmp_path)
    assert ours.is_held(), "it may live"
    began = time.monotonic()
    with ours.held(wait=False, told=heard.append):
        assert time.monotonic() - began >= PATIENCE_S - 0.1
    assert len(heard) == 1 and "on host a had this; waiting until it is sure" in heard[0]


def test_an_owner_of_another_machine_that_lives_keeps_it(tmp_path):
    holder = Holder(tmp_path, "a")
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(LockError, match=rf"process {holder.pid} on host a has it"), lock(tmp_path, patience_s=30).held(wait=False):
            pass
        assert time.monotonic() - began < 20, "a sign of life is enough"
    assert lock(tmp_path, patience_s=30).is_surely_held()
    assert holder.goes_on() == (0, "") and not lock(tmp_path).is_held()


def test_whoever_looks_again_and_again_need_not_wait(tmp_path):
    Holder(tmp_path, "a").send(signal.SIGKILL)
    ours = lock(tmp_path)
    assert ours.is_held()
    until(lambda: not lock(tmp_path).is_held(), "its patience")
    assert taken(tmp_path) < PATIENCE_S


def test_an_owner_of_another_machine_that_stood_still_learns_of_it_before_it_writes(tmp_path):
    holder = Holder(tmp_path, "a").send(signal.SIGSTOP)
    with lock(tmp_path).held(wait=True):
        holder.send(signal.SIGCONT)
        code, said = holder.goes_on()
        assert code == 4 and f"process {os.getpid()} " in said and "has taken its place" in said
        assert not (tmp_path / "written").exists()
        assert lock(tmp_path).is_held(), "its going away changes nothing"
    assert not lock(tmp_path).is_held()


def test_an_owner_that_stands_still_here_keeps_it(tmp_path):
    holder = Holder(tmp_path).send(signal.SIGSTOP)
    time.sleep(2 * PATIENCE_S)
    with pytest.raises(LockError), lock(tmp_path).held(wait=False):
        pass
    holder.send(signal.SIGCONT)
    assert holder.goes_on() == (0, "")


@pytest.mark.parametrize("years", [-30, 30])
def test_times_of_files_decide_nothing(tmp_path, years):
    def set_times():
        for path in (tmp_path / FOLDER).iterdir():
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (time.time() + years * 3e7,) * 2)

    living = Holder(tmp_path, "a")
    set_times()
    assert lock(tmp_path, patience_s=30).is_surely_held()
    living.send(signal.SIGKILL)
    set_times()
    assert taken(tmp_path) >= PATIENCE_S / 2


def test_a_mount_on_which_flock_always_succeeds_lets_one_in(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path)
    with folder.lock(), pytest.raises(RunFolderError, match="another process is working on this run"), other.lock():
        pass


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_links_will_do(tmp_path, monkeypatch, number):
    def link(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    with lock(tmp_path).held(wait=False), pytest.raises(LockError), lock(tmp_path).held(wait=False):
        pass
    assert taken(tmp_path) < 5


def test_a_link_whose_answer_was_lost_was_made(tmp_path, monkeypatch):
    real = os.link

    def link(*arguments):
        real(*arguments)
        raise FileExistsError  # what the second request of an NFS client meets

    monkeypatch.setattr(os, "link", link)
    assert taken(tmp_path) < 5


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"state": 1}', b"\xff" * 100])
def test_what_cannot_be_read_is_waited_for_and_taken_over(tmp_path, content):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "run.00000001").write_bytes(content)
    assert lock(tmp_path).is_held() and taken(tmp_path) < 10


def test_a_slow_taker_that_saw_what_others_have_long_dealt_with_gets_nothing(tmp_path):
    """It links the next number of a file that is gone by then."""
    for _ in range(2):
        taken(tmp_path)
    slow, ours = lock(tmp_path), lock(tmp_path)
    with ours.held(wait=False):
        assert slow._make(2) is None
        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["run.00000003"]
        ours._own.lives(-1)
        ours.check()


def test_a_copy_of_a_folder_in_which_a_process_is_at_work_is_free(tmp_path):
    (tmp_path / "one").mkdir()
    with lock(tmp_path / "one").held(wait=False):
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        assert lock(tmp_path / "one").is_held() and not lock(tmp_path / "two").is_held()


def test_a_forked_process_of_the_owner_neither_gives_it_away_nor_says_that_it_was_lost(tmp_path):
    ours = lock(tmp_path)
    with ours.held(wait=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 says that the owner has a thread
        if (pid := os.fork()) == 0:
            try:
                time.sleep(2 * PATIENCE_S)
                ours.check()
                ours._own.release()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert ours.is_held()


def test_a_lock_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot lock this run folder"), RunFolder(tmp_path).lock():
        pass


# ---- many at once


def at_once(where, count, hosts, *, first=None):
    """So many processes that take the lock as soon as it can be had, hold it for a moment and give it back: how often more than one was
    within, and how many were in all."""
    begin, go = os.pipe()
    children = []
    for n in range(count):
        if (pid := os.fork()) == 0:
            code = 9
            try:
                with on(f"host {n % hosts}") if hosts else contextlib.nullcontext():
                    os.read(begin, 1)
                    with lock(where).held(wait=True):
                        os.close(os.open(where / "within", os.O_CREAT | os.O_EXCL))  # fails where another one is within
                        time.sleep(random.Random(n).uniform(0, 0.01))
                        (where / "within").unlink()
                        (where / f"was {n}").touch()
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    os.write(go, b"g" * count)
    if first:
        first()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    return sum(code != 0 for code in codes), len(list(where.glob("was *")))


MANY = pytest.mark.parametrize("count, hosts", [(6, 3), *(pytest.param(20, hosts, marks=pytest.mark.slow) for hosts in (0, 4))])


@MANY
def test_of_many_that_start_at_once_one_is_within_at_a_time(tmp_path, count, hosts):
    assert at_once(tmp_path, count, hosts) == (0, count)


@MANY
def test_of_many_that_wait_for_a_dead_owner_one_takes_over(tmp_path, count, hosts):
    holder = Holder(tmp_path, "dead" if hosts else None)
    assert at_once(tmp_path, count, hosts, first=lambda: holder.send(signal.SIGKILL)) == (0, count)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_and_paused_at_any_moment_no_two_write(tmp_path, seed):
    """Processes of four machines take it again and again, and append to a file what they have, which they looked for right before. They are
    killed, and stopped for longer than patience. A line may come late only if its process stood still between its look and its write, which
    is made seldom here by writing at once; such lines are counted apart."""
    rng, children, end = random.Random(seed), {}, time.monotonic() + 20

    def begin():
        if (pid := os.fork()) == 0:
            try:
                with on(f"host {rng.random()}"):
                    while True:
                        mine = lock(tmp_path, beat_s=0.02, patience_s=0.3)
                        with contextlib.suppress(LockError), mine.held(wait=True):
                            for _ in range(5):
                                time.sleep(0.005)
                                mine.check()
                                with open(tmp_path / "log", "ab", buffering=0) as file:
                                    file.write(f"{mine._own.path.name}\n".encode())
            finally:
                os._exit(0)
        children[pid] = None

    for _ in range(6):
        begin()
    stopped = 0
    while time.monotonic() < end:
        time.sleep(rng.uniform(0, 0.2))
        pid = rng.choice(list(children))
        if rng.random() < 0.5:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            del children[pid]
            begin()
        else:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.3, 0.6))
            os.kill(pid, signal.SIGCONT)
            stopped += 1
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    numbers = [int(line.rpartition(".")[2]) for line in (tmp_path / "log").read_text().splitlines()]
    late = sum(after < before for before, after in zip(numbers, numbers[1:]))
    assert len(set(numbers)) > 20 and stopped > 10
    assert late <= 1, numbers


# ---- who uses them


def test_a_run_that_was_taken_over_writes_nothing_more(tmp_path):
    folder = RunFolder(tmp_path)
    folder._lock = lock(tmp_path)
    with on("a"), folder.lock():
        folder.start(script="train_search", command="", config_hash="h")
        before = folder.run_json.read_bytes()
        own = folder._lock._own
        own._end.set(), own._thread.join()  # it stands still
        with on("b"), lock(tmp_path).held(wait=True):
            for write in (lambda: folder.set_status("finished"), lambda: folder.write(folder.config, b""), folder.check_lock):
                with pytest.raises(RunFolderError, match="stood still .* has taken its place; that one goes on with this run"):
                    write()
        assert folder.run_json.read_bytes() == before and not folder.config.exists()


@pytest.mark.slow
def test_a_search_that_stood_still_and_was_taken_over_ends_with_a_line_and_touches_nothing(tmp_path, monkeypatch, capfd):
    """The script itself, in a forked process that believes to be on another machine; everybody is impatient."""
    monkeypatch.setattr(Lock.__init__, "__kwdefaults__", {"beat_s": BEAT_S, "patience_s": PATIENCE_S})
    options = ("space=toy", "layers=3", "channels=2", "split.max_train=40", "split.max_val=40", "batch_size=8", "epochs=5000",
               "dataset=digits", "threads=1", "wandb.mode=disabled", "checkpoint_every_s=0", "device=cpu")
    if (pid := os.fork()) == 0:
        code = 9
        try:
            os.chdir(tmp_path)
            sys.argv = [str(ROOT / "train_search.py"), *options]
            with on("a"):
                runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            os._exit(code)
    until(lambda: len(list(tmp_path.glob("runs/[!.]*/checkpoints/*.pt"))) == 2, "checkpoints")
    os.kill(pid, signal.SIGSTOP)
    (folder,) = folders(tmp_path)

    def seen():
        return {path: data for path, data in contents(folder.path).items() if not path.startswith(FOLDER)}

    with on("b"), folder.lock():
        before = seen()
        os.kill(pid, signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        assert seen() == before
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "stood still" in line and "here nothing more is written" in line


def test_a_process_of_an_earlier_version_keeps_its_run(tmp_path):
    folder = RunFolder(tmp_path)
    with open(tmp_path / ".lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert folder.is_locked()
        with pytest.raises(RunFolderError, match="of an earlier version of the project, is working on this run"), folder.lock():
            pass
    assert not folder.is_locked()
    with folder.lock():
        pass


def test_a_journal_is_held_by_one_process(tmp_path):
    one, other = Journal(tmp_path / "j.jsonl"), Journal(tmp_path / "j.jsonl")
    with one.held():
        one.append({"a": 1})
        with pytest.raises(JournalError, match=f"another process is working on this .process {os.getpid()}"), other.held():
            pass
    with other.held():
        other.append({"a": 2})
    assert Journal.read(tmp_path / "j.jsonl") == [{"a": 1}, {"a": 2}]


def test_claims_of_two_jobs_do_not_wait_for_each_other(tmp_path):
    with claim(tmp_path, "a"), claim(tmp_path, "b"):
        pass
