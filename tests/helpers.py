"""Runs the two scripts as processes of their own, and reads what they leave behind.

Importing torch costs seconds, so `start` forks from one server that has imported everything but this project. What comes
after the imports is as in `python train_search.py ...`: an own process, own signals, own modules of ours.
"""

import contextlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ("torch", "torch._dynamo", "hydra", "hydra._internal.instantiate._instantiate2", "matplotlib.figure",
             "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "numpy", "PIL.Image")
ALWAYS = ("threads=1", "wandb.mode=disabled")


class Ended(NamedTuple):
    """How a process ended: its exit code, or minus the signal that killed it, and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class Process:
    """A script at work. It stays known (a zombie) until `wait`, so that a signal never meets somebody else's process."""

    pid: int
    out: Path
    err: Path

    def poll(self) -> int | None:
        return _server().ask({"poll": self.pid})

    def wait(self, timeout_s: float = 120) -> Ended:
        until(lambda: self.poll() is not None, "the end of the process", timeout_s)
        return Ended(self.poll(), self.out.read_text(), self.err.read_text())

    def kill(self, number: int = signal.SIGKILL) -> Ended:
        """Sends the signal and waits for the end."""
        os.kill(self.pid, number)
        return self.wait()


def start(script: str, *options: str, cwd: Path, env: dict[str, str] | None = None, die_at: int | None = None,
          die_at_name: str = "", max_file_bytes: int | None = None) -> Process:
    """`python <script>.py <options>` in the folder `cwd`, forked.

    die_at: the process kills itself (SIGKILL) right before its n-th change of a file: a file opened for writing, renamed, removed or
    cut. Only files count whose path ends in `die_at_name`.
    max_file_bytes: larger files cannot be written (EFBIG), which stands for a full disk.
    """
    n = time.monotonic_ns()
    out, err = cwd / f".out.{n}", cwd / f".err.{n}"
    job = {"script": str(ROOT / f"{script}.py"), "options": [*ALWAYS, *options], "cwd": str(cwd), "out": str(out), "err": str(err),
           "env": env or {}, "die_at": die_at, "die_at_name": die_at_name, "max_file_bytes": max_file_bytes}
    return Process(_server().ask(job), out, err)


def run(script: str, *options: str, **how: Any) -> Ended:
    return start(script, *options, **how).wait()


def run_unforked(script: str, *options: str, cwd: Path, env: dict[str, str] | None = None) -> Ended:
    """The same, as a user starts it."""
    done = subprocess.run([sys.executable, str(ROOT / f"{script}.py"), *ALWAYS, *options], cwd=cwd, capture_output=True, text=True, timeout=120,
                          env=os.environ | (env or {}))
    return Ended(done.returncode, done.stdout, done.stderr)


def until(holds: Callable[[], Any], what: str, timeout_s: float = 60) -> None:
    """Waits until `holds()`; fails after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(0.002)


# ---- the server


class _Server:
    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                                         cwd=ROOT, start_new_session=True)

    def ask(self, job: dict[str, Any]) -> Any:
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


_servers: list[_Server] = []


def _server() -> _Server:
    if not _servers:
        _servers.append(_Server())
    return _servers[0]


def _serve() -> None:
    """One job a line on stdin, one answer a line on stdout: the process id of a new process, or an exit code (null: it runs)."""
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    ended: dict[int, int] = {}
    for line in sys.stdin:
        job = json.loads(line)
        if "poll" not in job:
            answer = os.fork()
            if answer == 0:
                _work(job)
        else:
            pid = job["poll"]
            if pid not in ended and (seen := os.waitpid(pid, os.WNOHANG)) != (0, 0):
                ended[pid] = os.waitstatus_to_exitcode(seen[1])
            answer = ended.get(pid)
        print(json.dumps(answer), flush=True)


def _work(job: dict[str, Any]) -> None:
    """In the new process: becomes `python script options`. Never returns."""
    with open(os.devnull) as nothing, open(job["out"], "wb") as out, open(job["err"], "wb") as err:
        for file, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    sys.argv = [job["script"], *job["options"]]
    sys.path[0] = str(Path(job["script"]).parent)
    if job["max_file_bytes"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["max_file_bytes"],) * 2)
    if job["die_at"]:
        _die_at(job["die_at"], job["die_at_name"])
    code = 0
    try:
        runpy.run_path(job["script"], run_name="__main__")
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


def _die_at(count: int, name: str) -> None:
    changes = 0

    def look(event: str, arguments: Sequence[Any]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
        if not (writes or event in ("os.rename", "os.remove", "os.truncate", "os.mkdir")):
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, (str, os.PathLike)) and str(path).endswith(name) and not str(path).startswith("/dev/"):
            changes += 1
            if changes == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


if __name__ == "__main__":
    _serve()
