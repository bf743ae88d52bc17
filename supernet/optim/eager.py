"""PyTorch's optimizers without `torch.compile`, whose import takes a second of processor time, as much as all else that a short search
waits for before its first step.

Two wrappers import it: one around `add_param_group`, `zero_grad`, `state_dict` and `load_state_dict` keeps the compiler out of them, the
other, around `step`, ends the compiler's graph there. Where nothing is compiled neither does anything, and what they wrap is called.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

_GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
# where the wrappers are made, and what they are called there [torch 2.11 to 2.13]
_GUARD, _STEP = ("_disable_dynamo", "inner"), ("_use_grad_for_differentiable", "_use_grad")
_KNOWN = "__dynamo_disable"  # of what the first wraps: what it found to call instead


def without_compiler() -> None:
    """From now on, in this process. For programs that compile no optimizer, and not for a library's users, whose they are. Nothing changes
    where the compiler was imported before, and a wrapper that is not one of those stays."""
    if "torch._dynamo" in sys.modules:
        return
    for name in _GUARDED:
        method = getattr(Optimizer, name)
        if _made_by(_GUARD, method):
            vars(method.__wrapped__)[_KNOWN] = method.__wrapped__
    for made in vars(torch.optim).values():
        if isinstance(made, type) and issubclass(made, Optimizer) and _made_by(_STEP, vars(made).get("step")):
            made.step = _step(made.step.__wrapped__)  # type: ignore[method-assign]


def _made_by(where: tuple[str, str], function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_qualname == f"{where[0]}.<locals>.{where[1]}"


def _step(step: Callable[..., Any]) -> Callable[..., Any]:
    """As PyTorch wraps it, without the import: gradients flow through a step where the optimizer was asked for that."""
    @functools.wraps(step)
    def stepped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return stepped
