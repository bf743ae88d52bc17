"""What must hold when a reader meets an input: it is refused by a documented error of one line, or accepted, and then what is written back
reads as the same value; in bounded time and memory; nothing is written, and nothing that the input names is run."""

import contextlib
import os
import resource
import signal
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supernet.errors import MOST, Mendable

CPU_S = 20.0  # of one input, of processor time, which does not depend on what else the machine has to do
MEMORY = 1024 * 2**20  # bytes that one input may take beyond what the process has
LONGEST = MOST + 20  # characters of a message, with the word before it
CANARY = "tests.fuzzing.canary"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.chown", "os.utime",
           "shutil.rmtree", "shutil.move", "shutil.copyfile"}
RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect",
        "socket.getaddrinfo", "urllib.Request", "webbrowser.open", "pickle.find_class", "cpython.run_file"}


class Finding(AssertionError):
    """An input for which it does not hold. `key`: of all inputs that show the same fault."""

    def __init__(self, what: str, key: str = "") -> None:
        super().__init__(what)
        self.key = key or what


class TooLong(BaseException):
    """Nothing that a reader catches."""


@dataclass(frozen=True)
class Target:
    """A reader. of: the kind of input (`mutations.KINDS`). seeds: small valid inputs, made by the project. lay: puts an input where it is
    read, and returns what `read` is given. read: calls the reader, and returns what it accepted. check: holds what was accepted against
    itself, written and read again. raises: the documented errors. writes: whether the reader may write, below the folder of the input."""

    name: str
    of: str
    seeds: Callable[[], list[bytes]]
    lay: Callable[[Path, bytes], Any]
    read: Callable[[Any], Any]
    check: Callable[[Any, Path], None] = lambda value, folder: None
    raises: tuple[type[Exception], ...] = (Mendable,)
    writes: bool = False


@dataclass
class _Watch:
    """Of what the process does while a reader is at work."""

    on: bool = False
    installed: bool = False
    below: str | None = None
    seen: list[str] = field(default_factory=list)


_watch = _Watch()


def _audited(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watch.on:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & WRITING and not isinstance(path, int):
            _changes(f"opens {os.fsdecode(path)} for writing", os.fsdecode(path))
    elif event in CHANGES:
        _changes(f"{event} {arguments[0]}", str(arguments[0]))
    elif event in RUNS or event == "import" and arguments[0] == CANARY:
        _watch.seen.append(f"{event} {str(arguments)[:100]}")


def _changes(what: str, path: str) -> None:
    of_libraries = ("__pycache__", "/.cache/", "/torchinductor")  # modules, fonts: the first time only
    harmless = path == os.devnull or any(part in path for part in of_libraries)
    if not harmless and not (_watch.below is not None and os.path.abspath(path).startswith(_watch.below)):
        _watch.seen.append(what)


@contextlib.contextmanager
def watched(below: Path | None) -> Iterator[None]:
    """Within, every change of a file that is not below the folder, every process and every connection is a finding."""
    if not _watch.installed:
        sys.addaudithook(_audited)
        _watch.installed = True
    _watch.seen, _watch.below, _watch.on = [], None if below is None else str(below.absolute()), True
    try:
        yield
    finally:
        _watch.on = False
    if _watch.seen:
        raise Finding(f"the reader {_watch.seen[0]}", f"side effect: {_watch.seen[0].split()[0]}")


@contextlib.contextmanager
def bounded(cpu_s: float, memory: int = MEMORY) -> Iterator[None]:
    """Within, more processor time raises TooLong, and more memory MemoryError."""
    def late(number: int, frame: Any) -> None:
        raise TooLong

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, late)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak > memory // 1024:
        raise Finding(f"it takes more than {memory // 2**20} MiB", "memory")


def held(target: Target, data: bytes, folder: Path) -> bool:
    """Whether the input was accepted. folder: an empty one. Raises Finding."""
    laid = target.lay(folder, data)
    try:
        with bounded(CPU_S), watched(folder if target.writes else None):
            value = target.read(laid)
    except target.raises as error:
        check_message(error)
        return False
    except Finding:
        raise
    except TooLong as error:
        raise Finding(f"it takes more than {CPU_S:g} s of processor time", f"time: {_place(error)}") from error
    except (Exception, SystemExit) as error:
        raise Finding(f"{type(error).__name__}: {str(error)[:200]}", f"{type(error).__name__}: {_place(error)}") from error
    try:
        with bounded(CPU_S):
            target.check(value, folder)
    except (Exception, TooLong) as error:
        raise Finding(f"accepted, and then {type(error).__name__}: {str(error)[:200]}",
                      f"check {type(error).__name__}: {_place(error)}") from error
    return True


def check_message(error: BaseException | str) -> None:
    """Raises Finding: a message that is no line that a terminal can show."""
    text = str(error)
    if not text.strip():
        raise Finding(f"{type(error).__name__} without a message", f"no message: {_place(error)}")
    odd = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), None)
    if odd is not None:
        raise Finding(f"the message holds {odd!r}: {text[:200]!r}", f"message: {_place(error)}")
    if len(text) > LONGEST:
        raise Finding(f"the message has {len(text):,} characters: {text[:100]!r}", f"long message: {_place(error)}")


def _place(error: BaseException | str) -> str:
    """The innermost line of ours that an error went through."""
    if isinstance(error, str):
        return "told"
    root = str(Path(__file__).resolve().parents[2])
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(root) and "/tests/" not in f.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].name}" if own else "nowhere"
