"""From a node of options to the object that it describes. What does not fit the constructor is said by the option's name."""

from typing import Any

from hydra import compose
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from supernet.app.options import choices
from supernet.app.own_ops import register_own_ops
from supernet.app.signatures import check_handed, check_options, seen, where
from supernet.data.base import Data
from supernet.errors import UsageError
from supernet.genotype import Genotype, short
from supernet.interfaces import check_interface
from supernet.objectives import Objective
from supernet.select.base import FinalSelection
from supernet.space import Space
from supernet.spaces.named import OWN
from supernet.tasks.base import Task

# What is made from options alone must be of its kind.
MADE = {"task": Task, "dataset.data": Data, "final_select": FinalSelection, "objective": Objective}


def build(node: Any) -> Any:
    """The object that a node of options describes, made from plain lists and dicts. Raises UsageError where the node cannot be that of an
    object, and says whose it is: a class that is not there, an option that it does not take, one that it lacks."""
    if not OmegaConf.is_dict(node) or "_target_" not in node:
        raise UsageError(f"{where(node)} must be a node with a _target_, got {seen(node)}")
    check_options(node)
    check_handed(node)
    made, key = instantiate(node, _convert_="all"), where(node)
    if key in MADE:
        check_interface(made, MADE[key], key)
    return made


def space_from(node: DictConfig) -> Space:
    register_own_ops(build)
    return as_space(build(node), node._target_)


def as_space(made: Any, target: str) -> Space:
    """`made` itself. Raises UsageError: the function that the user named, `target`, returned something else."""
    if type(made) is not Space:
        raise UsageError(f"{target} must return a supernet.space.Space, got {type(made).__name__}")
    return made


def space_of(genotype: Genotype) -> Space:
    """The space that a genotype names, from its config and the genotype's arguments. Raises UsageError."""
    register_own_ops(build)
    known = [name for name in choices("space") if name not in OWN]
    if genotype.space not in known:
        raise UsageError(f"the genotype is of space {genotype.space[:40]!r}, which has no config here (there are {', '.join(known)}): pass "
                         f"{OWN.get(genotype.space, OWN['custom'])}")
    target = compose(config_name="search", overrides=[f"space={genotype.space}"]).space._target_
    try:
        # Called, not instantiated: a genotype's arguments are data, and must not name code to run.
        return get_method(target)(**genotype.arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the genotype's arguments do not make a {short(genotype.space)} space: {error}") from error
