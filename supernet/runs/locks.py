"""Locks of a folder that several machines may share: of many processes one has it, however the others end, and wherever they are.

`flock` does not do for that. A Linux client of NFS makes whole-file byte locks of it (since 2.6.12), which the server drops with a lease
that has run out; a mount with `nolock` or `local_lock=flock` grants it to every machine at once, silently, and so may other shared file
systems. What is relied upon here is that of many who make a file of one name, by link(2) or O_EXCL, one succeeds.

A lock is a row of files, `<name>.00000001`, `<name>.00000002`, ... The newest is the one that counts. It says whose it is (host, boot,
process, when that began), a number that its owner raises every `beat_s` seconds, and at the end that the lock is free. Whoever finds
it free, or its owner dead, makes the next file; then all that are older go. The newest is never taken away: a slow one which has seen an
earlier file can still make the next of that, but finds that it is not the newest. So no moment at which a process is killed or stands
still lets two in.

An owner is known to be dead at once where its process would have to be visible here. Of another machine's it is known once its number has
stood still for `patience_s` by the clock of the one who looks; no times of files, and no two clocks, are compared. An owner that was alive
all that time and comes back (a laptop that slept, a machine that swapped, SIGSTOP) has lost its lock, and learns of it from `check`, which
whoever writes asks before. It costs nothing as long as the owner's last sign of life is so fresh that nobody can have lost patience. What
remains open is a pause of that length between a `check` and the write behind it.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from supernet.errors import Mendable
from supernet.files import read_bytes

FORMAT = "supernet.lock/1"
FOLDER = ".locks"  # where the locks of a folder lie
BEAT_S = 10.0
PATIENCE_S = 120.0  # above the 60 s for which a client of NFS may believe in what it knows of a folder
MAX_BYTES = 20_000
POLL_S = (0.005, 0.2)  # between two looks, at first and at most
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP}  # what file systems without link(2) say
Standing = Literal["free", "held", "unsure"]


class LockError(Mendable, RuntimeError):
    """Another process has the lock, or has taken it over. The message is one line."""


class Place(NamedTuple):
    """Where a process id means something: a machine from one start to the next, and there a namespace of processes. boot is empty where
    the system does not tell."""

    host: str
    boot: str
    pids: str


class Sight(NamedTuple):
    """The newest file of a lock: its number, its bytes, and what they say; {} where that cannot be read."""

    number: int
    data: bytes
    says: dict[str, Any]


_seen: dict[str, tuple[bytes, float]] = {}  # by lock, what was seen last and since when, so that whoever looks again need not wait


def nobody(text: str) -> None:
    """Is told what a process waits for."""


class Lock:
    """The lock `name` of a folder. Nothing is made or read until asked for. folder: where its files lie, a `FOLDER`."""

    def __init__(self, folder: Path, name: str, *, beat_s: float = BEAT_S, patience_s: float = PATIENCE_S) -> None:
        self.folder, self.name, self.beat_s, self.patience_s = folder, name, beat_s, patience_s
        self._own: _Own | None = None

    @contextlib.contextmanager
    def held(self, *, wait: bool, told: Callable[[str], None] = nobody) -> Iterator[None]:
        """Within, this process has it. wait: for as long as another one has it, which dies or lets go of it at some time; else only until
        it is sure that another one lives. told: hears once what is waited for.

        Raises LockError: another process has it. Raises OSError: nothing can be written there.
        """
        number, content = self._take(wait, told)
        self._own = own = _Own(self._path(number), content, self.beat_s, lambda: self._newest_number() == number)
        try:
            yield
        finally:
            self._own = None
            own.release()

    def check(self) -> None:
        """Raises LockError: this process had the lock through this object, and another one has taken it over meanwhile. Says nothing where
        it never had it."""
        if self._own is not None and not self._own.lives(self.patience_s / 2):
            raise LockError(f"this process stood still for more than {self.patience_s:.0f} s, and {self.holder()} has taken its place")

    def is_held(self) -> bool:
        """Whether a process has it, also when it is this one. Never waits: of another machine's, which may have died, this says yes until
        this process has seen it stand still for `patience_s`."""
        return self._standing(self._newest()) != "free"

    def is_surely_held(self, told: Callable[[str], None] = nobody) -> bool:
        """The same, after a wait where there is doubt: a few seconds where its owner lives, `patience_s` where it does not."""
        return next(standing for standing, _ in self._watched(told) if standing != "unsure") == "held"

    def holder(self) -> str:
        """Who had it last, in words: `process 17`, `process 17 on host n3`."""
        sight = self._newest()
        says = {} if sight is None else sight.says
        where = "" if says.get("host") in (None, here().host) else f" on host {str(says['host'])[:60]}"
        return f"process {says.get('pid', 'unknown')}"[:60] + where

    # ---- looking

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.name}.{number:08d}"

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        pattern = re.compile(rf"{re.escape(self.name)}\.(\d{{8,12}})")
        return [int(found[1]) for name in names if (found := pattern.fullmatch(name))]

    def _newest_number(self) -> int:
        """0 where there is none."""
        return max(self._numbers(), default=0)

    def _newest(self) -> Sight | None:
        """None where nobody has ever had it."""
        while number := self._newest_number():
            try:
                data = read_bytes(self._path(number), MAX_BYTES)
            except FileNotFoundError:  # it is not the newest any more
                continue
            except OSError as error:
                if error.errno == errno.ESTALE:  # the same on NFS
                    continue
                raise
            try:
                says = json.loads(data)
            except (ValueError, RecursionError):
                says = {}
            return Sight(number, data, says if type(says) is dict else {})
        return None

    def _standing(self, sight: Sight | None, changed: bool = False) -> Standing:
        """changed: since the look began, which is a sign of life."""
        if sight is None or sight.says.get("state") == "free":
            return "free"
        now, key = time.monotonic(), f"{os.path.abspath(self.folder)}/{self.name}"
        data, since = _seen.get(key, (b"", now))
        if data != sight.data:
            since = now
        _seen[key] = sight.data, since
        if (sure := _known(sight.says, self.folder)) is not None:
            return "held" if sure else "free"
        if now - since >= self.patience_s:
            return "free"
        return "held" if changed else "unsure"

    def _watched(self, told: Callable[[str], None]) -> Iterator[tuple[Standing, Sight | None]]:
        """How it stands, again and again."""
        pause, said, first, began = POLL_S[0], False, self._newest(), time.monotonic()
        sight = first
        while True:
            standing = self._standing(sight, sight != first)
            yield standing, sight
            if standing == "unsure" and not said and time.monotonic() - began > min(1.0, self.patience_s / 4):
                said = True
                told(f"{self.folder.parent}: {self.holder()} had this; waiting until it is sure whether that lives, at most "
                     f"{self.patience_s:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, POLL_S[1], self.beat_s)
            sight = self._newest()

    # ---- taking

    def _take(self, wait: bool, told: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        for standing, sight in self._watched(told):
            if standing == "held" and not wait:
                raise LockError(f"{self.holder()} has it")
            if standing == "free" and (made := self._make(1 if sight is None else sight.number + 1)) is not None:
                return made
        raise AssertionError("it is watched for ever")

    def _make(self, number: int) -> tuple[int, dict[str, Any]] | None:
        """Makes the file of that number. None: another process was faster."""
        self.folder.mkdir(exist_ok=True)
        place, token = here(), secrets.token_hex(8)
        content = {"format": FORMAT, "token": token, "state": "held", "beats": f"{0:012d}", **place._asdict(), "pid": os.getpid(),
                   "started": _stat(os.getpid())[1], "folder": os.path.realpath(self.folder), "inode": os.stat(self.folder).st_ino}
        path, part = self._path(number), self.folder / f".{self.name}.{token}.part"
        data = _packed(content)
        try:
            _write_new(part, data)
            if not _linked(part, path, data):
                return None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        numbers = self._numbers()
        if max(numbers, default=0) != number:  # what was seen before had long been dealt with
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        for older in numbers:
            if older < number:
                with contextlib.suppress(OSError):
                    self._path(older).unlink()
        return number, content


class _Own:
    """A lock that this process has: a thread gives signs of life until it is released. is_newest: whether its file still counts."""

    def __init__(self, path: Path, content: dict[str, Any], beat_s: float, is_newest: Callable[[], bool]) -> None:
        self.path, self.content, self.beat_s, self._is_newest = path, content, beat_s, is_newest
        self.lost = False
        self._pid = os.getpid()
        self._confirmed = _clock()  # when the last sign of life that is there began to be given
        self._beats, self._mutex, self._end = 0, threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lock", daemon=True)
        self._thread.start()

    def lives(self, fresh_s: float) -> bool:
        """Whether it is still this process's. Looks only where the last sign of life is older than `fresh_s`, and not in a process that was
        forked from the owner, which gives none."""
        if not self.lost and os.getpid() == self._pid and _clock() - self._confirmed > fresh_s:
            self._beat("held")
        return not self.lost

    def release(self) -> None:
        self._end.set()
        if os.getpid() == self._pid:  # not in a process that was forked from the owner, and ends
            self._thread.join()
            if not self.lost:
                self._beat("free")

    def _beat_on(self) -> None:
        while not self._end.wait(self.beat_s) and not self.lost:
            self._beat("held")

    def _beat(self, state: str) -> None:
        """One that cannot be written (a server that is away, a full disk) proves nothing: only what others have done does."""
        with self._mutex:
            began, self._beats = _clock(), self._beats + 1
            data = _packed(self.content | {"state": state, "beats": f"{self._beats:012d}"})
            if state == "free":  # nothing is left of where a run was made
                data = _packed({"format": FORMAT, "state": state}).ljust(len(data))
            try:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)  # by its name: on NFS this asks the server
                try:
                    os.pwrite(descriptor, data, 0)
                finally:
                    os.close(descriptor)  # which is when NFS sends it
                if self._is_newest():
                    self._confirmed = began
                else:
                    self.lost = True
            except OSError as error:
                self.lost = self.lost or error.errno in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)


# ---- what a lock's file says


def _packed(content: dict[str, Any]) -> bytes:
    """Always as long as before, so that it is written over in one go."""
    return json.dumps(content).encode() + b"\n"


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _linked(part: Path, path: Path, data: bytes) -> bool:
    """Gives the file `part` its name, unless that is taken. Where links cannot be made, a file of that name is."""
    try:
        os.link(part, path)
    except FileExistsError:
        return os.stat(part).st_nlink == 2  # on NFS the answer may be lost, and the second request meets what the first has made
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            _write_new(path, data)
        except FileExistsError:
            return False
    return True


def _known(says: dict[str, Any], folder: Path) -> bool | None:
    """Whether the owner lives, where that is certain from here; None where it is not."""
    place = here()
    if place.boot == "" or Place(*(says.get(field) for field in Place._fields)) != place or type(says.get("pid")) is not int:
        return None
    if says["pid"] < 1:
        return False
    with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
        if says.get("folder") != os.path.realpath(folder) and says.get("inode") != os.stat(folder).st_ino:
            return False  # a copy of a folder in which a process is at work
    return _is_alive(says["pid"], says.get("started"))


def here() -> Place:
    """Of this process."""
    boot, pids = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = os.readlink("/proc/self/ns/pid")
    return Place(os.uname().nodename, boot, pids)


def _is_alive(pid: int, started: Any) -> bool:
    """Whether a process of this place lives that began then. One that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's, which may be hidden in /proc
        pass
    state, since = _stat(pid)
    return state == "" or (state not in "ZX" and since == started)


def _stat(pid: int) -> tuple[str, int]:
    """The state of a process, and when it began, in ticks since the machine did; ("", 0) where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0


def _clock() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
