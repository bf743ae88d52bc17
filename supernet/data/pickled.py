"""Reading the pickles in which CIFAR's "python version" is published, as data: a pickle is a program, and this runs another one.

The file's opcodes are listed by the standard library and interpreted here, those that build numbers, texts, tuples, lists, dicts and arrays
of bytes and no others. No class is looked up and no object of a library is handed a state, so that there is nothing to call, to crash or to
hash without end.
"""

import io
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from supernet.data.base import DataError
from supernet.genotype import short

MAX_BYTES = 2**28  # the largest published file has 155 MB


class _Global(NamedTuple):
    """What a pickle names instead of holding it."""

    name: str


class _Mark:
    """Where a tuple, a list or a dict begins on the stack."""


class _Array:
    """A uint8 array that the pickle has yet to say the shape and the bytes of."""

    value: np.ndarray | None = None


class _Type:
    """numpy.dtype("u1"), whatever the pickle says of it beside."""


def _array(*arguments: Any) -> _Array:
    return _Array()


def _uint8(*arguments: Any) -> _Type:
    code = arguments[0] if arguments else None
    if type(code) not in (str, bytes) or code not in ("u1", b"u1"):
        # only a text is shown: to print tuples of tuples may take for ever
        raise ValueError(f"arrays must be uint8 (u1), got {short(code) if type(code) in (str, bytes) else type(code).__name__}")
    return _Type()


def _latin1(text: Any = None, encoding: Any = None) -> bytes:
    """Bytes, as Python 3 writes them into a protocol that Python 2 reads."""
    if type(text) is not str:
        raise ValueError(f"_codecs.encode takes a text, got {type(text).__name__}")
    return text.encode("latin1")


_NDARRAY = _Global("numpy.ndarray")  # stands for the class where it is handed to `_array`
_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.dtype": _uint8,
    "_codecs.encode": _latin1,
}
_KEYS = (str, bytes, int)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINFLOAT")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
            name = opcode.name
            if name in _VALUES:
                self.stack.append(argument)
            elif name in ("SHORT_BINSTRING", "BINSTRING"):
                self.stack.append(argument.encode("latin1"))  # a text of Python 2 is bytes
            elif name in ("BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif name == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name == "STOP":
                return self._pop(object)
            elif name not in ("PROTO", "FRAME"):
                self._build(name, argument)
        raise ValueError("it has no end")

    def _build(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "MARK":
            stack.append(_Mark())
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "APPEND":
            item = self._pop(object)
            self._top(list).append(item)
        elif name == "APPENDS":
            items = self._since_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [self._pop(object), self._pop(object)][::-1]
            if len(items) % 2 or any(type(key) not in _KEYS for key in items[::2]):
                raise ValueError("the keys of a dict must be texts or numbers")
            self._top(dict).update(zip(items[::2], items[1::2]))
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in _TUPLES:
            stack.append(tuple([self._pop(object) for _ in range(_TUPLES[name])][::-1]))
        elif name == "GLOBAL":
            stack.append(_named(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = self._pop(str), self._pop(str)
            stack.append(_named(f"{module}.{attribute}"))
        elif name == "REDUCE":
            arguments, called = self._pop(tuple), self._pop(_Global)
            if called.name not in _CALLS:
                raise ValueError(f"{called.name} is not to be called")
            stack.append(_CALLS[called.name](*arguments))
        elif name == "BUILD":
            self._give_state(self._pop(object))
        else:
            raise ValueError(f"it has an opcode {name}, which a data set has no use for")

    def _give_state(self, state: Any) -> None:
        target = self._top(object)
        if type(target) is _Type:
            return  # its state is what a uint8 has anyway
        if type(target) is not _Array or type(state) is not tuple or len(state) != 5:
            raise ValueError(f"{type(target).__name__.strip('_').lower()} is given a state that is none of an array")
        _, shape, kind, by_column, data = state
        if not (type(shape) is tuple and all(type(n) is int and n >= 0 for n in shape) and type(kind) is _Type and type(data) is bytes):
            raise ValueError("an array must have a shape, the type uint8, and bytes")
        if len(shape) > 8 or sum(shape) > MAX_BYTES or int(np.prod(shape, dtype=object)) != len(data):
            raise ValueError(f"an array of shape {short(shape)} has {len(data)} bytes")
        target.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_column is True else "C")

    def _pop(self, kind: type) -> Any:
        value = self._top(kind)
        self.stack.pop()
        return value

    def _top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is _Mark or (kind is not object and type(self.stack[-1]) is not kind):
            seen = type(self.stack[-1]).__name__ if self.stack else "nothing"
            raise ValueError(f"a {kind.__name__.strip('_').lower()} was expected, got {seen.strip('_').lower()}")
        return self.stack[-1]

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if type(item) is _Mark:
                return items[::-1]
            items.append(item)
        raise ValueError("a mark is missing")


def _named(name: str) -> _Global:
    if name not in _CALLS and name != _NDARRAY.name:
        raise ValueError(f"it names {short(name)}, which a data set has no use for")
    return _Global(name)


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dict in the file at `path`; strings of Python 2 are bytes, arrays are uint8. `DataError` when damaged or when it names other
    things. What the dict holds may be anything of the kinds above: look at types before use."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"at most {MAX_BYTES:,} bytes were expected")
        content = _Machine().run(path.read_bytes())
    except Exception as error:  # a damaged pickle raises almost anything
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path} must be an undamaged pickle of plain data, got {said}") from error
    if type(content) is not dict:
        raise DataError(f"{path} must be an undamaged pickle of plain data, a dict, got {type(content).__name__.strip('_').lower()}")
    return {key: value.value if type(value) is _Array else value for key, value in content.items()}
