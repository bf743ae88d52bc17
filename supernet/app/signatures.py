"""Options held against the class or function that they are for, before it is called: whose they are, what it takes, what was given."""

import inspect
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from supernet.errors import UsageError, did_you_mean
from supernet.ranges import expected

# By group: what is handed, in this order, to what a node of it describes, beside its options. Where nothing is, the object is made from the
# options alone. docs/extending.md says what must come back.
HANDED: dict[str, tuple[str, ...]] = {
    "space": (), "relaxation": ("space", "generator"), "wrapper": ("relaxation", "space", "generator"), "hypergradient": ("problem",),
    "penalty": ("space", "cost"), "w_penalty": ("space",), "passes": ("space", "net"), "monitor": ("space",),
    "select": ("space", "weights"), "final_select": (),
    "proxy": ("net", "batch", "task"), "op": ("channels", "stride", "norm"), "table": ("space",), "cost": ("space",), "task": (),
    "searcher": ("space",), "evaluator": ("offer",), "objective": (),
}
LISTS = ("wrapper", "penalty", "w_penalty", "monitor", "proxy")  # groups of which several may be chosen, each under its own name
SIZES = ("cost",)  # groups whose objects are also handed the sizes of the data, by name


def check_nested(cfg: DictConfig) -> None:
    """Raises UsageError: in a group of which several may be chosen one does not stand under a name of its own."""
    for group in LISTS:
        chosen = cfg.get(group) or {}
        if "_target_" in chosen:
            raise UsageError(f"{group}: the yaml of {chosen['_target_']} is flat, and {group}=[a,b] may choose several: put its lines, "
                             f"indented, under a name, as those of the package in conf/{group}")
        for name, node in chosen.items():
            if not OmegaConf.is_dict(node) or "_target_" not in node:
                raise UsageError(f"{group}.{name} must be a node with a _target_, got {seen(node)}")


def check_options(node: Any) -> None:
    """Holds the options of all parts within a node against the signatures of their classes or functions, without making anything: which
    there are, and what each may be (`supernet.ranges`). Raises UsageError."""
    if OmegaConf.is_list(node):
        for item in node:
            check_options(item)
    if not OmegaConf.is_dict(node) or node._is_none():
        return
    for value in node.values():
        check_options(value)
    if "_target_" in node:
        _check_part(node)


def _check_part(node: DictConfig) -> None:
    made = _located(node)
    parameters, ranges = _parameters(made), _ranges_of(made)
    taken = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    swallows = not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in OmegaConf.to_container(node, resolve=True).items():
        if str(key).startswith("_"):
            continue
        if key not in taken and not swallows:
            raise UsageError(f"{node._get_full_key(key)}: {node._target_} has no such option, it takes {_listed(taken)}"
                             f"{did_you_mean(str(key), taken)}")
        wrong = expected(ranges.get(key, parameters[key].annotation), value) if key in taken else None
        if wrong:
            raise UsageError(f"{node._get_full_key(key)} must be {wrong}, got {shown(value)}")


def check_handed(node: DictConfig) -> None:
    """Holds a node of a group against `HANDED`: what its class or function lacks, and what it does not take. Raises UsageError."""
    key, target = where(node), node._target_
    group, _, name = key.partition(".")
    if group not in HANDED or bool(name) != (group in LISTS):
        return
    parameters, handed, partial = _parameters(_located(node)), HANDED[group], bool(node.get("_partial_"))
    options = [str(name) for name in node if not str(name).startswith("_")]
    if partial and not handed:
        raise UsageError(f"{key}: {target} is made from its options alone: leave _partial_ out of its yaml")
    wrong = _misfit(parameters, handed if partial else (), options, some=group in SIZES)
    if wrong:
        call = f"{target}({', '.join([*(handed if partial else ()), *(f'{option}=...' for option in options)])})"
        hint = "" if partial or not handed else f"; {' and '.join(handed)} are handed in where its yaml says _partial_: true"
        raise UsageError(f"{key}: {call} cannot be called: {wrong}{hint}")


def _misfit(parameters: Mapping[str, inspect.Parameter], handed: Sequence[str], options: Iterable[str], *, some: bool) -> str:
    """Why a call does not fit, or nothing. some: further values are given by name."""
    if not parameters:
        return ""
    signature = inspect.Signature(list(parameters.values()))
    try:
        (signature.bind_partial if some else signature.bind)(*handed, **dict.fromkeys(options))
    except TypeError as error:
        return str(error)
    return ""


def where(node: Any) -> str:
    """The full name of a node of options."""
    return (node._get_full_key("") if OmegaConf.is_config(node) else "") or "an option"


def seen(node: Any) -> str:
    return f"the names {_listed(map(str, node))}" if OmegaConf.is_dict(node) and not node._is_none() else repr(node)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _located(node: DictConfig) -> Any:
    """The class or function that a node names. Raises UsageError: it is not there, or its module cannot be imported."""
    target, absent = str(node._target_), object()
    parts, said = target.split("."), f"{where(node)}._target_={node._target_}"
    for n in range(len(parts) - 1, 0, -1):  # a class may hold what is named
        module = ".".join(parts[:n])
        try:
            found = import_module(module)
        except Exception as error:  # whatever goes wrong in a module of the user's is the user's to mend
            if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
                continue
            if os.environ.get("SUPERNET_TRACEBACK"):
                raise
            raise UsageError(f"{said}: importing {module} fails with {type(error).__name__}: {' '.join(str(error).split())}") from error
        for name in parts[n:]:
            holder, found = found, getattr(found, name, absent)
            if found is absent:
                raise UsageError(f"{said}: {'.'.join(parts[:n])} ({getattr(sys.modules[module], '__file__', 'built in')}) has no "
                                 f"{'.'.join(parts[n:])}{did_you_mean(name, dir(holder))}")
        return found
    raise UsageError(f"{said}: there is no module {parts[0] if len(parts) > 1 else target!r}, neither installed nor in {os.getcwd()}, the "
                     "folder that you start from")


def shown(value: Any) -> str:
    """What a message shows of an option's value."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _ranges_of(made: Any) -> Mapping[str, Any]:
    """Those of its numbers that we know where it says none itself."""
    if not getattr(made, "__module__", "").startswith("torch."):
        return {}
    from supernet.optim.optimizers import TORCH_RANGES

    return TORCH_RANGES.get(made, {})


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    """Those of a function or class; none where Python cannot say."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
