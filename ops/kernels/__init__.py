"""Fused operations that candidate ops and cells are made of, and who computes them.

`plain` says what each computes, in PyTorch, and always works. Other backends compute the same with less time and memory: `native` on a CPU
(C++, built once where a compiler is there), `triton_kernels` on a GPU. Their backwards cannot be differentiated again, so whatever needs
that (exact second order, implicit gradients, Lanczos) runs within `differentiable_twice()`, on the plain path; and so does, within
`on_plain_path()`, what looks at single modules or operations (hooks, counts of multiply-adds). `packed` and `packed.merged` ask for few
launches with PyTorch alone; theirs can be differentiated again.

A backend has the functions of `plain`, and `Sum`: a node's sum of ops, which it may compute whole (`terms`); `node_sums`: those of a cell,
which it may compute together; and it says whether its gradients can be differentiated `TWICE`.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from ops.kernels import native, plain
from ops.kernels.build import BuildError
from ops.kernels.plain import Norm

__all__ = ["BACKENDS", "Backend", "Norm", "differentiable_twice", "kernels_for", "on_plain_path", "path_of_now", "plain", "use"]

BACKENDS = ("auto", "plain", "native", "packed", "merged")
PACKED = {"packed": ("ops.kernels.packed", "backend plain PyTorch, ops packed into few calls"),
          "merged": ("ops.kernels.packed.merged", "backend plain PyTorch, ops packed into few calls, separable convolutions as dense ones")}
_fused: ModuleType | None = None  # of the process: autograd calls ops in threads of its own
_plain: ContextVar[bool] = ContextVar("plain", default=False)  # of a thread, for as long as a context lasts


class Backend(NamedTuple):
    """Who computes: `plain`, `native`, `triton`, `packed` or `merged`; and a line that says so, and why where that is not what could be
    expected."""

    name: str
    line: str


def use(backend: str, *, device: str = "cpu", hindrance: str | None = None) -> Backend:
    """Chooses who computes from now on, in all threads. `auto`: the fastest that is proved here; `native`: fused kernels, or an error where
    there are none; `packed`, `merged`: PyTorch in few calls (`packed`). device: the type of device that computes. hindrance: the option
    with which native kernels do not work, if there is one. Raises ValueError."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    global _fused
    _fused = None
    if backend == "plain":
        return Backend("plain", "backend plain PyTorch")
    if backend in PACKED:
        module, line = PACKED[backend]
        _fused = importlib.import_module(module)  # when first asked for: it needs `ops`, which needs this
        return Backend(backend, line)
    try:
        if hindrance is not None:
            raise BuildError(f"with {hindrance} nothing else works")
        if backend == "auto" and device == "cuda":
            raise BuildError("backend=native computes with Triton kernels, which have not been run on a GPU yet")
        module, chosen = _fused_for(device)
    except BuildError as error:
        if backend == "native":
            raise ValueError(f"backend=native: there are no native kernels ({error}); backend=plain needs none") from error
        return Backend("plain", f"backend plain PyTorch ({error})")
    _fused = module
    return chosen


def _fused_for(device: str) -> tuple[ModuleType, Backend]:
    """Raises BuildError."""
    if device == "cpu":
        native.available()
        return native, Backend("native", "backend native kernels for the CPU")
    if device != "cuda":
        raise BuildError(f"none for device={device}")
    if importlib.util.find_spec("triton") is None:
        raise BuildError("Triton is not installed")
    # Imported when first needed: PyTorch for a CPU brings no Triton.
    return importlib.import_module("ops.kernels.triton_kernels"), Backend("triton", "backend Triton kernels for the GPU")


def on_plain_path() -> AbstractContextManager[None]:
    """Within, everything is computed by calling modules and PyTorch's operations one by one: hooks, dispatch modes and autograd see all."""
    return _on_path(True)


def path_of_now() -> Callable[[], AbstractContextManager[None]]:
    """Contexts within which everything is computed on the path, plain or not, on which it is now."""
    return partial(_on_path, _plain.get())


@contextmanager
def _on_path(plain: bool) -> Iterator[None]:
    token = _plain.set(plain)
    try:
        yield
    finally:
        _plain.reset(token)


def differentiable_twice() -> AbstractContextManager[None]:
    """Within, everything is computed by a backend whose gradients can be differentiated again: the one in use, or else the plain path."""
    return _on_path(_plain.get() or _fused is None or not _fused.TWICE)


def kernels_for(x: Tensor) -> ModuleType:
    """The module that computes on tensors like `x`: `plain`, or one with the same functions."""
    fused = _fused
    return plain if fused is None or _plain.get() or not fused.computes(x) else fused
