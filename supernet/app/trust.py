"""Options that come from a file instead of a command line: they may name only what the project's own configs name."""

import functools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from supernet.app.options import CONF
from supernet.app.own_folder import own_conf
from supernet.errors import UsageError
from supernet.genotype import short


def check_targets(options: Any, origin: Path, trusted: Collection[str] = ()) -> None:
    """Holds every function that is named in the options of somebody's run against those that `conf/` names, the project's and the one where
    the user stands, and `trusted`, which he has named himself: a target is code that will run. Raises UsageError with the first other
    one."""
    for key, target in targets(options):
        if target not in trusted and not any(target in named(folder) for folder in (CONF, own_conf()) if folder is not None):
            raise UsageError(f"{origin}: {key or 'the file'} names {short(target)}, which no config of this project names, and which would "
                             f"run here; if it is yours, say so: trust=[{target}] (export, predict and explain take --trust {target})")


# Functions that take the name of one of the user's own as an option, and call it.
CALLS = {"supernet.spaces.from_model.make": "model"}


def targets(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every `_target_` in plain data, with the key that holds it, and what else names a function to be called."""
    if type(node) is dict and (option := CALLS.get(str(node.get("_target_")))) in node and node[option] not in (None, "???"):
        yield f"{key}.{option}".lstrip("."), str(node[option])
    children = node.items() if type(node) is dict else enumerate(node) if type(node) is list else ()
    for name, child in children:
        if name == "_target_":
            yield key, str(child)
        yield from targets(child, f"{key}.{name}".lstrip("."))


@functools.cache
def named(folder: Path) -> frozenset[str]:
    """The targets in the configs of a folder."""
    return frozenset(target for path in folder.rglob("*.yaml") for _, target in targets(yaml.safe_load(path.read_text(encoding="utf-8"))))
