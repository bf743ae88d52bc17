"""Files of PyTorch from others: what they hold is bounded before any of it is made.

`torch.load(weights_only=True)` runs no code, but trusts a file's size: a few hundred bytes of tuples within tuples, each holding the one
before it twice, take it longer than anybody waits (their hash, or their text in a message), and as many of lists whoever walks through
them.
"""

import io
import pickletools
import zipfile
from typing import Any, BinaryIO

import torch

from supernet.files import DAMAGED

MAX_DEPTH = 50       # of containers within each other; a checkpoint has 10
MAX_VALUES = 10**7   # as many as there are when each is counted where it stands; a checkpoint has 10**5


def load_plain(file: BinaryIO, size: int) -> Any:
    """What `torch.save` wrote into a file of so many bytes, on the CPU. Raises ValueError: it is more than plain values and tensors, or the
    file is none, or damaged; and whatever else torch makes of a damaged one."""
    check(file, size)
    file.seek(0)
    found = torch.load(file, weights_only=True, map_location="cpu")
    _check_values(found)
    return found


def check(file: BinaryIO, size: int) -> None:
    """Looks at the program that a file is read by. Raises ValueError."""
    try:
        with zipfile.ZipFile(file) as packed:
            entries = packed.infolist()
            if sum(entry.file_size for entry in entries) > size:
                raise ValueError("it unpacks to more than it has")  # torch packs nothing
            programs = [packed.read(entry) for entry in entries if entry.filename.endswith("data.pkl")]
    except DAMAGED as error:
        raise ValueError(f"it must be an undamaged zip file ({error})") from error
    if len(programs) != 1:
        raise ValueError(f"it must hold one data.pkl, got {len(programs)}")
    _check_tuples(programs[0])


def _check_tuples(program: bytes) -> None:
    """Raises ValueError: its tuples, each counted wherever it stands, hold too much. What is no tuple counts as one here, and later for
    what it is: only tuples are hashed, or told as arguments, while a file is read."""
    stack: list[int | None] = []  # of each value its size; None: a mark
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(io.BytesIO(program)):
        name = opcode.name
        if name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = _top(stack)
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo.get(argument, 1))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            stack[-n:] = [_sum(stack[-n:])]
        elif name in ("TUPLE", "LIST", "DICT"):
            size = _sum(_since_mark(stack))
            stack.append(size if name == "TUPLE" else 1)
        elif name in ("APPENDS", "SETITEMS"):
            _since_mark(stack)
        elif name == "APPEND":
            del stack[-1:]
        elif name == "SETITEM":
            del stack[-2:]
        elif name == "REDUCE":
            stack[-2:] = [1]
        elif name in ("BUILD", "POP"):
            del stack[-1:]
        elif name == "MARK":
            stack.append(None)
        elif name == "BINPERSID":
            stack[-1:] = [1]
        elif name not in ("PROTO", "FRAME", "STOP"):
            stack.append(1)


def _top(stack: list[int | None]) -> int:
    return (stack[-1] or 1) if stack else 1


def _since_mark(stack: list[int | None]) -> list[int | None]:
    found = []
    while stack and (size := stack.pop()) is not None:
        found.append(size)
    return found


def _sum(sizes: list[int | None]) -> int:
    size = 1 + sum(one or 1 for one in sizes)
    if size > MAX_VALUES:
        raise ValueError(f"its tuples hold more than {MAX_VALUES:,} values")
    return size


def _check_values(found: Any) -> None:
    """Raises ValueError: what was read lies too deep, holds itself, or unfolds to too much."""
    sizes: dict[int, int] = {}  # of containers that were walked through; they live as long as `found`
    open_ones: set[int] = set()

    def size_of(value: Any, depth: int) -> int:
        if not isinstance(value, dict | list | tuple) or isinstance(value, torch.Size):
            return 1
        key = id(value)
        if key in sizes:
            return sizes[key]
        if key in open_ones or depth > MAX_DEPTH:
            raise ValueError(f"its values lie more than {MAX_DEPTH} deep" if key not in open_ones else "a value holds itself")
        open_ones.add(key)
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        sizes[key] = size = 1 + sum(size_of(child, depth + 1) for child in inner)
        open_ones.remove(key)
        if size > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        return size

    size_of(found, 0)
