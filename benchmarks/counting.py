"""What a step dispatches and what it keeps for its backward passes, counted: numbers that no busy machine changes."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

QUIET = ("empty", "new_empty", "detach", "_record_function", "promote_types", "_unsafe_view")  # launch nothing, though they are no views


class Kernels(TorchDispatchMode):
    """Within, counts the calls that reach a backend and compute, `count` by name; views and allocations, which launch nothing, aside.

    A call for a list of tensors (`_foreach_`) counts once there; `launched` has the launches that such calls take on a GPU at the least
    (`launches_of`). Calls past the dispatcher, those of the native backend, are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.launched: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if not (func.is_view or name.startswith(QUIET)):
            self.count[name] += 1
            self.launched[name] += launches_of(name, args)
        return func(*args, **(kwargs or {}))


def kernels(step: Callable[[], object]) -> Counter[str]:
    """The calls of one step, forward, backward and update, by name."""
    with Kernels() as mode:
        step()
    return mode.count


def launches(step: Callable[[], object]) -> Counter[str]:
    """As `kernels`, in launches of a GPU (`launches_of`)."""
    with Kernels() as mode:
        step()
    return mode.launched


# How much one launch for lists of tensors holds [PyTorch, aten/src/ATen/native/cuda/MultiTensorApply.cuh, the values for CUDA 12]: tensors
# by the number of lists, and pieces of 65,536 numbers. Builds for CUDA 13 hold more.
TENSORS, PIECES, PIECE = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}, 320, 65_536
CAT_INPUTS = 128  # [Shape.cu, CAT_ARRAY_BATCH_SIZE]
NORMS = 512  # whose pieces one launch adds up [ForeachReduceOp.cu, about; 400 in some versions]


def launches_of(name: str, args: Sequence[Any]) -> int:
    """The launches of one call on a GPU of today, at the least: 1, but for calls on lists, which are cut into pieces."""
    lists = [a for a in args if isinstance(a, list | tuple) and a and isinstance(a[0], Tensor)]
    if not lists:
        return 1
    n, numbers = len(lists[0]), [tensor.numel() for tensor in lists[0]]
    if name.startswith(("_foreach", "_fused")):
        results = not name.endswith("_") and name != "_foreach_norm"
        pieces = sum(-(-size // PIECE) for size in numbers)
        found = max(-(-n // TENSORS[min(5, len(lists) + results)]), -(-pieces // PIECES))
        return found + (1 + -(-n // NORMS) if name == "_foreach_norm" else 0)  # it begins with zeros and ends with sums
    return -(-n // CAT_INPUTS) if name in ("cat", "stack") else 1


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
