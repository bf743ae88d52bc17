"""Builds `native.cpp` with the machine's own compiler, once, and loads it.

The library has a C interface and knows nothing of torch, so it takes seconds to build and fits every version. It is kept in
`$XDG_CACHE_HOME/supernet`, or `~/.cache/supernet`, under a name that changes with the source, the compiler and the processor; where
that folder cannot be written, in a temporary one for this process.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
# What a compiler may not know, the most wanted first: the processor's own instructions, threads.
TRIES = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ("-mcpu=native",), ())
TIMEOUT_S = 300


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
        name = f"native-{real}-{_key(compiler)}.so"
        with _folder() as (folder, kept):
            path = folder / name
            if not path.exists():
                _build(compiler, real, path)
            return _load(path, real, rebuild=(lambda: _build(compiler, real, path)) if kept else None)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        return " ".join(str(error).split())[:300]


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
def _folder() -> Iterator[tuple[Path, bool]]:
    """A folder to build in, and whether it stays."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(home) if home else Path.home() / ".cache") / "supernet"
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # there is no home
        writable = False
    if writable:
        yield folder, True
        return
    with tempfile.TemporaryDirectory(prefix="supernet-") as temporary:  # what is loaded stays mapped after its file is gone
        yield Path(temporary), False


def _build(compiler: Sequence[str], real: str, path: Path) -> None:
    """Written beside and renamed: of several processes that build at once each leaves a whole file."""
    handle, part = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        for extra in TRIES:
            command = [*compiler, *FLAGS, *extra, f"-DREAL={real}", "-o", part, str(SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
            if done.returncode == 0:
                os.chmod(part, 0o755)
                os.replace(part, path)
                return
        why = done.stderr.strip().splitlines() or [str(done.returncode)]
        raise BuildError(f"{shlex.join(compiler)} failed: {why[-1]}")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _load(path: Path, real: str, rebuild) -> ctypes.CDLL:
    try:
        return _checked(ctypes.CDLL(str(path)), real)
    except (OSError, AttributeError):
        if rebuild is None:
            raise
        rebuild()  # a damaged file
        return _checked(ctypes.CDLL(str(path)), real)


def _checked(found: ctypes.CDLL, real: str) -> ctypes.CDLL:
    if found.supernet_real_bytes() != {"float": 4, "double": 8}[real]:
        raise OSError("the library is of another type of numbers")
    return found
