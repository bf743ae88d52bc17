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
from supernet.ranges import expected
from supernet.space import Space


def build(node: Any) -> Any:
    """The object that a node of options describes, made from plain lists and dicts. Raises UsageError: a number, a truth value or a text is
    none, and options alone say not what they are of."""
    if not OmegaConf.is_dict(node) or "_target_" not in node:
        key = node._get_full_key(None) if OmegaConf.is_config(node) else ""
        raise UsageError(f"{key or 'a part'} must be the options of a part, its _target_ among them, got {shown(node)}")
    check_options(node)
    return instantiate(node, _convert_="all")


def check_options(node: Any) -> None:
    """Holds the options of all parts within a node against the signatures of their constructors, without making anything: what each may be
    (`supernet.ranges`), and which there are. Raises UsageError."""
    if OmegaConf.is_list(node):
        for item in node:
            check_options(item)
    if not OmegaConf.is_dict(node):
        return
    for value in node.values():
        check_options(value)
    if "_target_" in node:
        parameters, ranges = _parameters(node._target_)
        if parameters is not None:
            _check_part(node, parameters, ranges)


def _check_part(node: DictConfig, parameters: Mapping[str, inspect.Parameter], ranges: Mapping[str, Any]) -> None:
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for key, value in OmegaConf.to_container(node, resolve=True).items():
        if key.startswith("_"):
            continue  # Hydra's own: _target_, _partial_, _convert_
        if key not in parameters:
            if not takes_any:
                own = ", ".join(name for name in parameters if name in node) or "none"
                raise UsageError(f"there is no option {node._get_full_key(key)!r} with {node._target_}, which here has {own}")
            continue
        wrong = expected(ranges.get(key, parameters[key].annotation), value)
        if wrong:
            raise UsageError(f"{node._get_full_key(key)} must be {wrong}, got {shown(value)}")


def _parameters(target: str) -> tuple[Mapping[str, inspect.Parameter] | None, Mapping[str, Any]]:
    """Those of a function or class by its full name, and the ranges that we know of its numbers where it says none itself. None where it
    cannot be had, which `instantiate` will say better."""
    module, _, name = target.rpartition(".")
    try:
        made = getattr(import_module(module), name)
        parameters = inspect.signature(made).parameters
    except Exception:  # a module of the user's own may raise anything
        return None, {}
    if module.partition(".")[0] != "torch":
        return parameters, {}
    from supernet.optim.optimizers import TORCH_RANGES

    return parameters, TORCH_RANGES.get(made, {})


def shown(value: Any) -> str:
    """What a message shows of an option's value."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
