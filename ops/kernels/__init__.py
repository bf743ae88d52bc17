"""Fused operations that candidate ops and cells are made of, and who computes them.

`plain` says what each computes, in PyTorch, and always works. Other backends compute the same with less time and memory: `native` on a CPU
(C++, built once where a compiler is there), `triton` on a GPU. Their backwards cannot be differentiated again, so whatever needs that
(exact second order, implicit gradients, Lanczos) runs within `differentiable_twice()`, on the plain path.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

from torch import Tensor

from ops.kernels import plain
from ops.kernels.plain import Norm

__all__ = ["BACKENDS", "Norm", "differentiable_twice", "kernels_for", "plain", "use"]

BACKENDS = ("auto", "plain", "native")
_chosen: ContextVar[str] = ContextVar("chosen", default="plain")
_twice: ContextVar[bool] = ContextVar("twice", default=False)


def use(backend: str) -> str:
    """Chooses who computes from now on; returns one line that says who. `auto`: the fastest that works here; `native`: the same, but an
    error where that is the plain path alone. Raises ValueError."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    _chosen.set(backend)
    return "plain PyTorch"


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Within, everything is computed on the plain path, whose gradients can be differentiated again."""
    token = _twice.set(True)
    try:
        yield
    finally:
        _twice.reset(token)


def kernels_for(x: Tensor) -> ModuleType:
    """The module that computes on tensors like `x`: `plain`, or one with the same functions."""
    return plain
