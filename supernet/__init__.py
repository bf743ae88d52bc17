"""Differentiable one-shot neural architecture search. As a library (docs/library.md):

`supernet.use(threads=1)` chooses how this process computes, `supernet.space("darts", nodes=3)` makes a search space, `supernet.load(RUN)`
gives back the network of a run. None of them needs Hydra, and PyTorch is imported when the first of them that computes is asked for.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from supernet import space

if TYPE_CHECKING:
    from supernet.runs.device import use
    from supernet.runs.loading import Loaded, load

__all__ = ["Loaded", "load", "space", "use"]

_WHERE = {"load": "supernet.runs.loading", "Loaded": "supernet.runs.loading", "use": "supernet.runs.device"}


class _SpaceByName(ModuleType):
    """The module `supernet.space`, which can be called too: the name stands for both, and the module is the older."""

    def __call__(self, name: str, /, **arguments: Any) -> space.Space:
        """The space `name`, a file of `conf/space/`: see `supernet.spaces.named.named_space`."""
        from supernet.spaces.named import named_space

        return named_space(name, **arguments)


space.__class__ = _SpaceByName


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'supernet' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
