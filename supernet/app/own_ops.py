"""Ops of the user's own: `conf/op/NAME.yaml` in the working directory makes NAME an op like any other, wherever a space lists it.

A name stands in genotypes, so that it must mean one function: its options are in its yaml alone.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ops import OPS
from ops.op import Normalisation, Op
from supernet.app.own_folder import own_conf
from supernet.errors import UsageError


class OwnOp:
    """The factory of an op, made from its yaml when the first one is asked for, so that the modules of others are not imported."""

    def __init__(self, path: Path, build: Callable[[Any], Any]):
        self.path, self.build = path, build

    @functools.cached_property
    def factory(self) -> functools.partial[Op]:
        return self.build(OmegaConf.create({"op": OmegaConf.load(self.path)}).op)

    def __call__(self, channels: int, stride: int, norm: Normalisation) -> Op:
        return self.factory(channels, stride, norm)


def register_own_ops(build: Callable[[Any], Any]) -> None:
    """build: makes an object from a node of options. Raises UsageError: one has the name of the package's."""
    own = own_conf()
    for path in sorted((own / "op").glob("*.yaml")) if own else ():
        if not isinstance(OPS.get(path.stem), OwnOp | None):
            raise UsageError(f"conf/op/{path.name}: there is an op {path.stem} already, and genotypes name it: give yours another name")
        OPS[path.stem] = OwnOp(path, build)
