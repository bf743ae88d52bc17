"""What a step dispatches and what it keeps for its backward passes, counted: numbers that no busy machine changes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

QUIET = ("empty", "new_empty", "detach", "_record_function", "promote_types", "_unsafe_view")  # launch nothing, though they are no views


class Kernels(TorchDispatchMode):
    """Within, counts the calls that reach a backend and compute, `count` by name; views and allocations, which launch nothing, aside.

    A call for a list of tensors (`_foreach_`) counts once: on a GPU it is one launch or a few. Calls past the dispatcher, those of the
    native backend, are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if not (func.is_view or name.startswith(QUIET)):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def kernels(step: Callable[[], object]) -> Counter[str]:
    """The calls of one step, forward, backward and update, by name."""
    with Kernels() as mode:
        step()
    return mode.count


def saved_bytes(step: Callable[[], object], own: set[int]) -> int:
    """Bytes of the storages that autograd keeps for the backward passes of one step, each counted once. own: the addresses of those that
    live anyway, weights and batches."""
    seen: dict[int, int] = {}
    alive: list[Tensor] = []  # an address stands for one storage only as long as that lives

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(seen.values())


def addresses(tensors: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}
