"""Spaces by name: those that `conf/space/*.yaml` describe, made without Hydra."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from supernet.errors import UsageError, did_you_mean
from supernet.genotype import short
from supernet.space import Space

# Configs that stand for a function of the user's own, which no name leads to: what he passes to name it.
OWN = {"custom": "space=custom space._target_=your_module.make", "from_model": "space=from_model space.model=your_module.make"}
FOLDER = Path(__file__).resolve().parent.parent / "conf" / "space"


def names() -> list[str]:
    """Of all spaces that can be made; those in OWN are none."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in OWN)


def named_space(name: str, /, **arguments: Any) -> Space:
    """The space that `space=name space.key=value ...` chooses in the scripts: `named_space("darts", nodes=3)`. Arguments that are not given
    have the values of the yaml. Raises UsageError: there is no such space, or it takes no such argument; ValueError: a wrong value."""
    node = _node(name)
    make = _function(node.pop("_target_"))
    taken = list(inspect.signature(make).parameters)
    for key in arguments:
        if key not in taken:
            what = f"it takes {', '.join(taken)}" if taken else "it takes none"
            raise UsageError(f"space {name} has no argument {key!r}{did_you_mean(key, taken)} ({what})")
    return _made(make, name, node | arguments)


def space_again(name: str, arguments: dict[str, Any]) -> Space:
    """The space that a genotype or a file of weights names. What they hold is data: the function comes from our own yaml, and is called
    with exactly these arguments. Raises UsageError: there is none of that name, or it is not made of these."""
    if name not in names():
        raise UsageError(f"space {short(name)} has no config here (there are {', '.join(names())}): pass space=, the Space itself")
    try:
        return _made(_function(_node(name)["_target_"]), name, arguments)
    except ValueError as error:
        raise UsageError(f"the arguments do not make a {name} space: {error}") from error


def _node(name: str) -> dict[str, Any]:
    if type(name) is not str or name not in names():
        hint = did_you_mean(name, names()) if type(name) is str else ""
        raise UsageError(f"there is no space {short(name)}{hint} (there are {', '.join(names())}; a space of your own is made by calling "
                         "its function)")
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def _function(target: str) -> Any:
    module, _, function = target.rpartition(".")
    return getattr(import_module(module), function)


def _made(make: Any, name: str, arguments: dict[str, Any]) -> Space:
    try:
        return make(**arguments)
    except TypeError as error:
        raise UsageError(f"space {name}: the arguments do not fit ({error})") from error
