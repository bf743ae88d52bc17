"""Runs the two scripts as processes of their own, and reads what they leave behind.

Importing torch costs seconds, so `start` forks from one server that has imported everything but this project. What follows the
imports is as in `python train_search.py ...`: a process with its own signals, modules of ours, and exit code.
"""

import atexit
import contextlib
import errno
import gc
import hashlib
import importlib
import itertools
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ("torch", "torch._dynamo", "hydra", "hydra._internal.instantiate._instantiate2", "matplotlib.figure",
             "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "numpy", "PIL.Image")
ALWAYS = ("threads=1", "wandb.mode=disabled")


class Ended(NamedTuple):
    """How a process ended: its exit code, or minus the signal that killed it, what it printed, and its processor time."""

    code: int
    out: str
    err: str
    cpu_s: float


class At(NamedTuple):
    """The process sends itself a signal right before its n-th change of a file whose path contains `name`.

    A change: a file is opened for writing, renamed (the new name counts), removed or cut, or a folder is made. With `signal`
    None there is no room on the disk from then on: no file can be opened for writing and no folder made (ENOSPC).
    """

    n: int
    name: str = ""
    signal: int | None = signal.SIGKILL


@dataclass(frozen=True)
class Process:
    """A script at work. It stays known to the system until `wait`, so that a signal never meets somebody else's process."""

    pid: int
    printed: Path

    def has_ended(self) -> bool:
        return _server().ask({"poll": self.pid}) is not None

    def wait(self, timeout_s: float = 120) -> Ended:
        until(self.has_ended, "the end of the process", timeout_s)
        code, cpu_s = _server().ask({"poll": self.pid})
        return Ended(code, self.printed.with_suffix(".out").read_text(), self.err(), cpu_s)

    def err(self) -> str:
        """What it has printed on stderr so far."""
        return self.printed.with_suffix(".err").read_text()

    def send(self, number: int) -> Ended:
        """Sends the signal and waits for the end."""
        os.kill(self.pid, number)
        return self.wait()

    def is_stopped(self) -> bool:
        return self._stat()[0] == "T"

    def cpu_s(self) -> float:
        """Processor time so far. Unlike the clock it does not depend on what else the machine has to do."""
        return sum(map(int, self._stat()[11:13])) / os.sysconf("SC_CLK_TCK")

    def _stat(self) -> list[str]:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()


def start(script: str, *options: str, cwd: Path, env: Mapping[str, str] | None = None, at: At | None = None,
          max_file_bytes: int | None = None, report: bool = True) -> Process:
    """`python <script>.py <options>` in the folder `cwd`, forked.

    max_file_bytes: a file cannot grow larger (EFBIG): a full disk that is met while a file is written.
    report: whether report.html is made; its drawings take longer than a tiny search.
    """
    return _start({"script": str(ROOT / f"{script}.py"), "options": [*ALWAYS, *options], "cwd": str(cwd), "env": dict(env or {}), "at": at,
                   "max_file_bytes": max_file_bytes, "report": report})


def _start(job: dict[str, Any]) -> Process:
    printed = _server().folder / str(next(_COUNT))
    printed.with_suffix(".err").touch()
    return Process(_server().ask({"at": None, "max_file_bytes": None, "report": True, **job, "printed": str(printed)}), printed)


def run(script: str, *options: str, **how: Any) -> Ended:
    """`start`, to its end."""
    return start(script, *options, **how).wait()


def python(*words: str, cwd: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """`python <words>`, a script or `-m module` with its options, forked, to its end; as `subprocess.run` tells it. That saves the two
    seconds which an import of PyTorch takes."""
    kind, (what, *options) = ("module", words[1:]) if words[0] == "-m" else ("script", words)
    ended = _start({kind: what, "options": options, "cwd": str(cwd), "env": {}}).wait(timeout_s)
    return subprocess.CompletedProcess(words, ended.code, ended.out, ended.err)


def run_unforked(script: str, *options: str, cwd: Path) -> Ended:
    """The same, started as a user does."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *ALWAYS, *options]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    return Ended(done.returncode, done.stdout, done.stderr, float("nan"))


def until(holds: Callable[[], Any], what: str, timeout_s: float = 60) -> None:
    """Waits until `holds()`; fails after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(0.002)


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file and folder under `folder` but those of locks, by path; of a huge file only its size and time count."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if ".locks" not in path.relative_to(folder).parts):
        seen = path.stat()
        data = f"{seen.st_size} {seen.st_mtime_ns}".encode() if seen.st_size > 10**7 else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def only_error(ended: Ended, code: int = 2) -> str:
    """The one line, without `error: `, that is all a process printed on stderr before it ended with that exit code."""
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.code == code and len(lines) == 1 and lines[0].startswith("error: "), f"exit code {ended.code}, stderr:\n{ended.err}"
    assert len(lines[0]) < 400, f"{len(lines[0])} characters: {lines[0]}"
    return lines[0].removeprefix("error: ")


# ---- the server

_COUNT = itertools.count()
_SERVERS: list["_Server"] = []


class _Server:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        # An own session: a signal to pytest's terminal reaches no script. One thread: a process with more cannot be forked safely.
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                                         start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
        atexit.register(self.close)

    def ask(self, job: dict[str, Any]) -> Any:
        self._process.stdin.write(json.dumps(job) + "\n")
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()
        subprocess.run(["rm", "-r", str(self.folder)], check=True)


def _server() -> _Server:
    if not _SERVERS:
        _SERVERS.append(_Server())
    return _SERVERS[0]


def _serve() -> None:
    """A job a line on stdin, an answer a line on stdout: the id of a new process; or an exit code and seconds, null while it runs."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect(), gc.freeze()  # nothing imported here is looked at again by the collectors of the forked processes
    ended: dict[int, tuple[int, float] | None] = {}
    for line in sys.stdin:
        job = json.loads(line)
        if "poll" in job:
            pid = job["poll"]
            if ended[pid] is None and (seen := os.wait4(pid, os.WNOHANG))[0]:
                ended[pid] = os.waitstatus_to_exitcode(seen[1]), seen[2].ru_utime + seen[2].ru_stime
            answer = ended[pid]
        else:
            answer = os.fork()
            if answer == 0:
                _become(job)
            ended[answer] = None
        print(json.dumps(answer), flush=True)
    for pid in (pid for pid, how in ended.items() if how is None):
        os.kill(pid, signal.SIGKILL)


def _become(job: dict[str, Any]) -> None:
    """Turns this process into `python script options`, or `python -m module options`. Never returns."""
    with open(os.devnull) as nothing, open(job["printed"] + ".out", "wb") as out, open(job["printed"] + ".err", "wb") as err:
        for file, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so do their children
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    sys.argv = [job.get("script", job.get("module")), *job["options"]]
    sys.path[0] = str(Path(job["script"]).parent) if "script" in job else job["cwd"]
    if job["max_file_bytes"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["max_file_bytes"],) * 2)
    if job["at"]:
        _signal_at(At(*job["at"]))
    if not job["report"]:
        sys.modules["supernet.report.html"] = types.SimpleNamespace(write_report=lambda run: None)
    code = 0
    try:
        if "script" in job:
            runpy.run_path(job["script"], run_name="__main__")
        else:
            runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def _signal_at(at: At) -> None:
    left = at.n  # changes, until it happens

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        grows = event == "os.mkdir" or event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax"
        if not (grows or event in ("os.rename", "os.remove", "os.truncate")) or isinstance(arguments[0], int):
            return
        path = os.fspath(arguments[event == "os.rename"])
        if left and at.name in path and path != os.devnull:
            left -= 1
            if not left and at.signal is not None:
                os.kill(os.getpid(), at.signal)
        if not left and at.signal is None and grows:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    sys.addaudithook(look)


if __name__ == "__main__":
    _serve()
