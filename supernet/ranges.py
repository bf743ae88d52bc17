"""What numbers a part takes, written where it takes them: `temperature: Positive` in the signature of its constructor.

An annotation is all that an option's range needs. `ranged` holds every call against those of the signature, so that code which uses the
library is told what was wrong; the scripts read the same annotations before anything is made (`app.checks`), and name the option. NaN and
the infinities are in no range.
"""

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

LARGEST = 1e30  # of a number: the product of two such, 1e60, is infinite in single precision, so that more is a slip of the hand
MANY = 10**9  # of things that are counted: what fits into 32 bits


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included unless `above` (low is not) or `below` (high is not)."""

    low: float = -LARGEST
    high: float = LARGEST
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """False for NaN, which is in no order."""
        return bool((self.low < value if self.above else self.low <= value) and (value < self.high if self.below else value <= self.high))

    def rule(self, value: float | None = None) -> str:
        """In words that follow `must be`. Bounds that only a slip of the hand passes are told to whom has passed them, `value`."""
        if self.low == self.high:
            return f"{self.low:,}"
        told = self.high not in (LARGEST, MANY) or (value is not None and value > self.high)
        high = f"{'below' if self.below else 'at most'} {self.high:,}" if told else ""
        told = self.low != -LARGEST or (value is not None and value < self.low)
        low = f"{'above' if self.above else 'at least'} {self.low:,}" if told else ""
        if low == "above 0" and not high:
            return "positive"
        return " and ".join(part for part in (low, high) if part) or "finite"


Finite = Annotated[float, Range()]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, below=True)]  # a probability of dropping, a decay, a momentum: 1 would leave nothing
Portion = Annotated[float, Range(0, 1, above=True, below=True)]
Whole = Annotated[int, Range(0, MANY)]
Count = Annotated[int, Range(1, MANY)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
# What is allocated or built one by one: more would take all memory, or hours, before anything could say so.
Layers = Annotated[int, Range(1, 10_000)]
Channels = Annotated[int, Range(1, 65_536)]
Side = Annotated[int, Range(1, 65_536)]  # of an image, in pixels

_PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}


def expected(annotation: Any, value: Any) -> str | None:
    """What a plain value (of a config or a file: number, text, list, mapping, None) would have to be to fit `annotation`, in words that
    follow `must be`. None where it fits, and where the annotation says nothing of plain values."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return None if _is(annotation, value) else _PLAIN[annotation]
    if origin is Annotated:
        return _in_ranges(inner[0], [mark for mark in inner[1:] if type(mark) is Range], value)
    if origin is Literal:
        return None if value in inner and type(value) in map(type, inner) else _either([str(choice) for choice in inner])
    if origin in (Union, types.UnionType):
        wrong = [expected(one, value) for one in inner]
        return None if None in wrong else ", or ".join(sorted(wrong, key="null".__eq__))
    if origin in (list, tuple, Sequence) and _says(annotation):
        if not isinstance(value, list | tuple):
            return "a list"
        each = inner if origin is tuple and Ellipsis not in inner else [inner[0]] * len(value)
        if len(each) != len(value):
            return f"a list of {len(each)}"
        return next((f"a list of which each is {wrong}" for one, v in zip(each, value) if (wrong := expected(one, v))), None)
    if origin in (dict, Mapping) and _says(annotation):
        if not isinstance(value, Mapping):
            return "{name: value}"
        return next((f"{{name: value}} where each value is {wrong}" for v in value.values() if (wrong := expected(inner[1], v))), None)
    return None


def _is(kind: type, value: Any) -> bool:
    if kind in (int, float):  # NumPy's numbers too; a bool is an int to isinstance
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return type(value) is kind


def _in_ranges(kind: Any, ranges: Sequence[Range], value: Any) -> str | None:
    if wrong := expected(kind, value):
        return f"{wrong}, {' and '.join(r.rule() for r in ranges)}"
    return next((r.rule(value) for r in ranges if not r.holds(value)), None)


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _says(annotation: Any) -> bool:
    """Whether an annotation says anything of plain values, itself or within."""
    return annotation in _PLAIN or get_origin(annotation) in (Annotated, Literal) or any(map(_says, get_args(annotation)))


def has_range(annotation: Any) -> bool:
    """Whether an annotation holds a `Range`, itself or within."""
    if get_origin(annotation) is Annotated:
        return any(type(mark) is Range for mark in get_args(annotation)[1:])
    return any(map(has_range, get_args(annotation)))


def is_open(annotation: Any) -> bool:
    """Whether an annotation takes numbers, itself or within, that no `Range` bounds."""
    if get_origin(annotation) is Annotated:
        return False
    return annotation in (int, float) or any(map(is_open, get_args(annotation)))


Made = TypeVar("Made", bound=Callable[..., Any])


def ranged(made: Made) -> Made:
    """A function, or a class, that holds the numbers of every call against the ranges of its signature. Raises ValueError."""
    if inspect.isclass(made):
        made.__init__ = _holding(made.__init__)
        return made
    return _holding(made)


def _holding(call: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(call)
    ranges = {name: p.annotation for name, p in signature.parameters.items() if has_range(p.annotation)}

    @functools.wraps(call)
    def held(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            return call(*args, **kwargs)  # says it better
        for name in ranges.keys() & given.keys():
            if wrong := expected(ranges[name], given[name]):
                raise ValueError(f"{name} must be {wrong}, got {given[name]}")
        return call(*args, **kwargs)

    return held
