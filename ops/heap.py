"""The heap of this process, as training on a CPU uses it: kept from step to step, on huge pages.

A step allocates hundreds of megabytes and frees them. What is free at the heap's end glibc hands back to the system, which brings it again,
zeroed, at the next step; and where pages are of 4 KiB, looking up where they lie takes some percent of a step, more in a virtual machine.
On Linux with glibc only, where the system allows huge pages (`/sys/kernel/mm/transparent_hugepage/enabled` is not `never`); elsewhere
nothing happens. No number changes. What is not in use yet takes no memory, only addresses.
"""

import ctypes
import functools
from pathlib import Path

PAGE = 2**21  # bytes of a huge page
PIECE = 2**30  # bytes that the heap grows by: huge pages are asked for before they are first used, for they cost little only then
KEPT = 2**31 - 1  # bytes at the heap's end that stay with the process though they are free
BLOCK = 2**25  # bytes: larger blocks do not come from the heap; the most that glibc takes
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
MADV_HUGEPAGE = 14  # asm-generic/mman-common.h
ALLOWED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


class Heap:
    """From where it ends when this is made, it is on huge pages. Raises AttributeError where the C library is another one."""

    def __init__(self, libc: ctypes.CDLL):
        self._sbrk, self._madvise = libc.sbrk, libc.madvise
        self._sbrk.restype, self._sbrk.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
        self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
        self.huge_until = -(-self._end() // PAGE) * PAGE
        for option, value in ((M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, PIECE), (M_MMAP_THRESHOLD, BLOCK)):
            libc.mallopt(option, value)
        libc.free(libc.malloc(BLOCK - PAGE))  # it grows by a piece

    def follow(self) -> None:
        """Asks for huge pages where the heap has grown."""
        end = self._end() // PAGE * PAGE
        if end > self.huge_until:
            self._madvise(self.huge_until, end - self.huge_until, MADV_HUGEPAGE)
            self.huge_until = end

    def _end(self) -> int:
        return self._sbrk(0) or 0


@functools.cache
def heap() -> Heap | None:
    """None where there is no such heap, or no huge pages."""
    try:
        return None if "[never]" in ALLOWED.read_text() else Heap(ctypes.CDLL(None))
    except (OSError, AttributeError):  # another system or C library
        return None


def follow() -> None:
    """Before a step on a CPU; costs a microsecond where the heap has not grown."""
    found = heap()
    if found is not None:
        found.follow()
