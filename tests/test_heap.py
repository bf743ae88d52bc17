"""The heap of a process that trains on a CPU: on huge pages where the system has them, and left alone where it has not."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from ops import heap

GROWN = """
import ctypes
from pathlib import Path
from ops import heap
heap.follow()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
blocks = [libc.malloc(2**24) for _ in range({blocks})]
heap.follow()
areas, own = {{}}, None
for line in Path("/proc/self/smaps").read_text().splitlines():
    first = line.split()[0]
    if "-" in first and not first.endswith(":"):
        own = tuple(int(end, 16) for end in first.split("-"))
    elif first == "VmFlags:":
        areas[own] = line.split()[1:]
for block in blocks:  # in its middle: the first may begin in what the heap had free before
    flags = [flags for (begin, end), flags in areas.items() if begin <= block + 2**23 < end]
    print("hg" in flags[0])
"""


def available():
    if not Path("/proc/self/smaps").is_file() or heap.heap() is None:
        pytest.skip("no huge pages for a heap here")


@pytest.mark.parametrize("blocks", [4, 80])  # within the first piece, and more than that
def test_blocks_that_a_step_uses_are_on_huge_pages(blocks):
    available()
    done = subprocess.run([sys.executable, "-c", GROWN.format(blocks=blocks)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * blocks


@pytest.mark.parametrize("allowed", ["always madvise [never]\n", None])
def test_a_system_without_huge_pages_is_left_alone(allowed, tmp_path, monkeypatch):
    setting = tmp_path / "enabled"
    if allowed is not None:
        setting.write_text(allowed)
    monkeypatch.setattr(heap, "ALLOWED", setting)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the C library was called"))
    monkeypatch.setattr(heap, "heap", heap.heap.__wrapped__)
    heap.follow()


def test_another_c_library_is_left_alone(tmp_path, monkeypatch):
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    monkeypatch.setattr(heap, "ALLOWED", setting)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # it has neither sbrk nor mallopt
    assert heap.heap.__wrapped__() is None
