"""A process for each trial: forked from one that has imported PyTorch and nothing of ours, so that what is tested is imported anew and a
trial costs no start. On the disk nothing changes: a changed module is compiled from its tree by a finder of modules."""

import ast
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """answer: what the function gave, None where the process did not come so far. signal: that ended it, or 0. cpu_s: processor time."""

    answer: Any
    signal: int
    cpu_s: float


def in_child(function: Callable[[], Any], printed: Path, cpu_s: float, wall_s: float = 900.0) -> Ended:
    """`function()`, whose answer is plain JSON data, in a forked process with a session of its own; what it prints goes to `printed`. It
    ends after `cpu_s` of processor time (SIGXCPU), or after `wall_s`, and what it has started with it (SIGKILL)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with open(os.devnull) as nothing, open(printed, "wb") as out:
            for file, number in ((nothing, 0), (out, 1), (out, 2)):
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # whoever has replaced them
        soft = int(time.process_time() + cpu_s) + 1  # the time of a process is not that of its parent
        resource.setrlimit(resource.RLIMIT_CPU, (soft, soft + 10))
        try:
            answer = json.dumps(function())
            with os.fdopen(write, "w") as pipe:
                pipe.write(answer)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    os.close(write)
    os.set_blocking(read, False)
    parts, end = [], time.monotonic() + wall_s
    try:
        while not (seen := os.wait4(pid, os.WNOHANG))[0]:
            parts.append(_read(read))
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)  # its group, which it may not have made yet, ends below
            time.sleep(0.02)
        parts.append(_read(read))
    finally:  # an interrupt too ends it, and what it has left behind
        os.close(read)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    said, code = b"".join(parts), os.waitstatus_to_exitcode(seen[1])
    return Ended(json.loads(said) if said else None, max(0, -code), seen[2].ru_utime + seen[2].ru_stime)


def _read(pipe: int) -> bytes:
    found = b""
    with suppress(BlockingIOError):
        while part := os.read(pipe, 1 << 16):
            found += part
    return found


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, tree: ast.Module):
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname: str) -> Any:
        return compile(self.tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, trees: Mapping[str, ast.Module]):
        self.trees = trees

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname not in self.trees:
            return None
        file = str(file_of(fullname))
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, file, self.trees[fullname]))


def file_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def replace_modules(trees: Mapping[str, ast.Module]) -> None:
    """What is imported from now on under these names comes from the trees."""
    there = sorted(set(trees) & set(sys.modules))
    assert not there, f"{there} were imported before they could be changed"
    sys.meta_path.insert(0, _Finder(trees))


class _Selected:
    """A plugin of pytest: of what was collected only these tests, in this order; and which of them failed first, or fell while they were
    collected."""

    def __init__(self, tests: Sequence[str]):
        self.order = {name: n for n, name in enumerate(tests)}
        self.failed, self.ran = "", 0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid])
        self.ran = len(items)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed = self.failed or f"{report.nodeid} (import)"


def first_failure(batches: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Runs tests, by file, up to the first that fails, and says which it is; "" where all pass."""
    import pytest

    for file, tests in batches:
        chosen = _Selected(tests)
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--tb=line", file], plugins=[chosen])
        if chosen.failed or code not in (0, 5):
            return chosen.failed or f"{file} (pytest ended with {int(code)})"
        if chosen.ran != len(tests):
            raise RuntimeError(f"{file}: {len(tests)} tests were chosen, and {chosen.ran} found")
    return ""
