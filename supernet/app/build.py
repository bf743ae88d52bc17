"""From a node of options to the object that it describes. What does not fit the constructor is said by the option's name."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hydra import compose
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from supernet.app.options import choices
from supernet.errors import UsageError
from supernet.genotype import Genotype, short
from supernet.space import Space


def build(node: Any) -> Any:
    """The object that a node of options describes, made from plain lists and dicts. Raises UsageError: a number, a truth value or a text is
    none."""
    check_types(node)
    return instantiate(node, _convert_="all")


# By annotation of a constructor: what a value may be, and how that is said. bool is an int to isinstance.
_PLAIN = {int: ((int,), "a whole number"), float: ((int, float), "a number"), bool: ((bool,), "true or false"), str: ((str,), "a text")}
_TYPES = _PLAIN | {kind | None: ((*types, type(None)), f"{what} or null") for kind, (types, what) in _PLAIN.items()}


def check_types(node: Any) -> None:
    """Holds options against the annotations of the constructor that they are for, where these are plain types. Raises UsageError."""
    if not OmegaConf.is_dict(node) or "_target_" not in node:
        return
    parameters = _parameters(node._target_)
    for key, value in node.items():
        check_types(value)
        types, what = _TYPES.get(parameters[key].annotation, (None, "")) if key in parameters else (None, "")
        if types is not None and type(value) not in types:
            raise UsageError(f"{node._get_full_key(key)} must be {what}, got {value}")


def _parameters(target: str) -> Mapping[str, inspect.Parameter]:
    """Those of a function or class by its full name; none where it cannot be had, which `instantiate` will say better."""
    module, _, name = target.rpartition(".")
    try:
        return inspect.signature(getattr(import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}


def space_from(node: DictConfig) -> Space:
    return as_space(build(node), node._target_)


def as_space(made: Any, target: str) -> Space:
    """`made` itself. Raises UsageError: the function that the user named, `target`, returned something else."""
    if type(made) is not Space:
        raise UsageError(f"{target} must return a supernet.space.Space, got {type(made).__name__}")
    return made


def space_of(genotype: Genotype) -> Space:
    """The space that a genotype names, from its config and the genotype's arguments. Raises UsageError."""
    known = choices("space")
    if genotype.space not in known:
        raise UsageError(f"the genotype is of space {genotype.space[:40]!r}, which has no config here (there are {', '.join(known)}): pass "
                         "space=custom space._target_=your_module.make")
    target = compose(config_name="search", overrides=[f"space={genotype.space}"]).space._target_
    try:
        # Called, not instantiated: a genotype's arguments are data, and must not name code to run.
        return get_method(target)(**genotype.arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the genotype's arguments do not make a {short(genotype.space)} space: {error}") from error
