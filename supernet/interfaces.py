"""Objects held against the interface that they are to have, before they are used. No torch."""

import inspect
from collections.abc import Callable
from typing import Any

from supernet.errors import Mendable

_ABSENT = object()


class InterfaceError(Mendable, TypeError):
    """A part lacks what is asked of it, or gives back something else. The message is one line: whose, what was expected, what was seen."""


def check_interface(made: Any, interface: type, what: str) -> None:
    """Raises InterfaceError unless `made` has all that `interface`, a class or a protocol, has, and its functions take what they are called
    with. Values of properties are not asked for. what: the option that it was made from."""
    said = f"{what}: {_name(made)}"
    full = f"{interface.__module__}.{interface.__qualname__}"
    lacking = [name for name in _members(interface) if inspect.getattr_static(made, name, _ABSENT) is _ABSENT]
    if lacking:
        raise InterfaceError(f"{said} lacks {', '.join(lacking)} of {full}")
    for name, function in _members(interface).items():
        if inspect.isfunction(function) and not _takes(getattr(made, name), function):
            raise InterfaceError(f"{said}.{name} must take {_called(function)} as in {full}, got "
                                 f"{inspect.signature(getattr(made, name))}")


def _name(made: Any) -> str:
    return made.__qualname__ if inspect.isroutine(made) or inspect.isclass(made) else type(made).__qualname__


def _members(interface: type) -> dict[str, Any]:
    """What an interface asks for by name: functions, values, and None for those that are only annotated."""
    found: dict[str, Any] = {}
    for base in reversed(interface.__mro__):
        if base.__module__.startswith("supernet."):
            own = dict.fromkeys(getattr(base, "__annotations__", ())) | dict(vars(base))
            found |= {name: value for name, value in own.items() if not name.startswith("_") or name == "__call__"}
    return found


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())[1:]  # without self


def _takes(own: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """Whether `own`, bound, can be called as `function` of the interface is: with all that it names, in its order."""
    wanted = _parameters(function)
    try:
        inspect.signature(own).bind(*[p.name for p in wanted if p.kind is not p.KEYWORD_ONLY],
                                    **{p.name: None for p in wanted if p.kind is p.KEYWORD_ONLY})
    except TypeError:
        return False
    return True


def _called(function: Callable[..., Any]) -> str:
    return f"({', '.join(f'{p.name}=' if p.kind is p.KEYWORD_ONLY else p.name for p in _parameters(function))})"


def seen(found: Any) -> str:
    """What somebody gave back, in few words: its type, and the shape and type of its entries where it is a tensor or an array."""
    name, shape = type(found).__qualname__, getattr(found, "shape", None)
    return name if shape is None else f"{name} {tuple(shape)} of {found.dtype}".replace("torch.", "")
