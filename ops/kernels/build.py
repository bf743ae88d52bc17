"""Builds `native.cpp` with the machine's own compiler, once, and loads it.

The library has a C interface and knows nothing of torch, so it takes seconds to build and fits every version. It is kept in
`$XDG_CACHE_HOME/supernet`, or `~/.cache/supernet`, under a name that changes with the source, the compiler and the processor; where
that folder cannot be written, in a temporary one for this process.

The name ends with the SHA-256 of what the file holds. A file of other contents is never loaded: the loader maps a library without
looking, and a page that is missing kills the process at its first use. Of several processes that need a library one builds it, and the
others wait.
"""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
# What a compiler may not know, the most wanted first: the processor's own instructions, threads.
TRIES = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ("-mcpu=native",), ())
TIMEOUT_S = 900  # of one call of the compiler: it takes seconds, and hundreds where a busy machine leaves it little of a core
WAIT_S = 1800  # for the process that builds; the system frees its lock when it ends, however it ends
WORD_S = 2  # of waiting without a word


class BuildError(RuntimeError):
    """There is no library. The message, one line, says why."""


@functools.cache
def library(real: str) -> ctypes.CDLL:
    """The library for numbers of the C type `real`, `float` or `double`. Raises BuildError, at every call the same."""
    found = _library(real)
    if isinstance(found, str):
        raise BuildError(found)
    return found


@functools.cache
def _library(real: str) -> ctypes.CDLL | str:
    try:
        compiler = _compiler()
        stem = f"native-{real}-{_key(compiler)}"
        with _folder() as folder:
            found = _kept_library(folder, stem)
            if found is not None:
                with contextlib.suppress(OSError, AttributeError):  # whole, yet what it was linked with may be gone
                    return _checked(ctypes.CDLL(str(found)), real)
            with _alone(folder / f"{stem}.lock"):
                path = _kept_library(folder, stem)
                if path is None or path == found:
                    path = _build(compiler, real, folder, stem)
                return _checked(ctypes.CDLL(str(path)), real)
    except (BuildError, OSError, AttributeError, subprocess.SubprocessError) as error:
        return " ".join(str(error).split())[:300]


def _kept_library(folder: Path, stem: str) -> Path | None:
    """The file of that stem whose contents are those that its name says. What is damaged is removed."""
    for path in sorted(folder.glob(f"{stem}.*.so")):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            if path.name == _name(stem, path.read_bytes()):
                return path
            _say(f"{path}: the native kernels that were kept are damaged; they are built again")
            path.unlink()
    return None


def _name(stem: str, content: bytes) -> str:
    return f"{stem}.{hashlib.sha256(content).hexdigest()}.so"


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Within, no other process that builds the same is here. Says what it waits for. Raises BuildError after WAIT_S."""
    with open(lock, "a+") as file:
        began, said = time.monotonic(), False
        while not _take(file.fileno()):
            waited = time.monotonic() - began
            if waited > WAIT_S:
                raise BuildError(f"{lock}: another process has been building for {WAIT_S / 60:.0f} minutes")
            if waited > WORD_S and not said:
                said = True
                file.seek(0)
                _say(f"waiting for the native kernels, which another process builds (process id {file.read(20).strip() or 'unknown'})")
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: each builds its own, and leaves a whole file
        return True
    return True


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _compiler() -> tuple[str, ...]:
    """How the C++ compiler is called: as $CXX says, which may be several words (`ccache g++`), or the first that is there."""
    asked = os.environ.get("CXX", "").strip()
    try:
        wanted = [shlex.split(asked)] if asked else [["g++"], ["clang++"], ["c++"]]
    except ValueError:  # quotes that are not closed
        wanted = []
    for name, *words in wanted:
        if path := shutil.which(name):
            return path, *words
    raise BuildError(f"no C++ compiler is here ({asked or 'g++, clang++, c++'})")


def _key(compiler: Sequence[str]) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    parts = [SOURCE.read_text(), version, repr(FLAGS), repr(TRIES), platform.machine(), _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What the processor can do, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder to build in: one that stays, where there is a place for it."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(home) if home else Path.home() / ".cache") / "supernet"
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # there is no home
        writable = False
    if writable:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="supernet-") as temporary:  # what is loaded stays mapped after its file is gone
        yield Path(temporary)


def _build(compiler: Sequence[str], real: str, folder: Path, stem: str) -> Path:
    """Written beside, brought to the disk and renamed: what stands under the name is whole, also after a power cut."""
    handle, part = tempfile.mkstemp(prefix=f"{stem}.", suffix=".part", dir=folder)
    os.close(handle)
    try:
        for extra in TRIES:
            command = [*compiler, *FLAGS, *extra, f"-DREAL={real}", "-o", part, str(SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
            if done.returncode == 0:
                os.chmod(part, 0o755)
                path = folder / _name(stem, Path(part).read_bytes())
                _sync(part)
                os.replace(part, path)
                _sync(folder)
                return path
        why = done.stderr.strip().splitlines() or [str(done.returncode)]
        raise BuildError(f"{shlex.join(compiler)} failed: {why[-1]}")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked(found: ctypes.CDLL, real: str) -> ctypes.CDLL:
    if found.supernet_real_bytes() != {"float": 4, "double": 8}[real]:
        raise OSError("the library is of another type of numbers")
    return found
