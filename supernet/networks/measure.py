"""Sizes and costs of a network before it is trained: parameters, multiply-adds, peak memory, time."""

import functools
import gc
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ops.kernels import on_plain_path


def parameters(net: nn.Module, *, without: str = "auxiliary_head") -> int:
    """Number of trainable entries, the auxiliary head left out as in the published counts."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith(without))


def multiply_adds(net: nn.Module, image: tuple[int, int, int]) -> int:
    """Multiply-adds of one image (C, H, W) in evaluation: convolutions and matrix products, as papers count."""
    p = next(net.parameters())
    return multiply_adds_of(net, torch.zeros(1, *image, device=p.device, dtype=p.dtype))


def multiply_adds_of(net: nn.Module, x: torch.Tensor) -> int:
    """The same for any input `x` of the network."""
    training = net.training
    try:
        with torch.no_grad(), on_plain_path(), counting() as counter:
            net.eval()(x, generator=torch.Generator(x.device))
    finally:
        net.train(training)
    return counter.get_total_flops() // 2


@contextmanager
def counting() -> Iterator[Any]:
    """Gives a counter whose `get_total_flops()` counts a product and a sum as two. Attention is computed product by product within, for
    what PyTorch does in one step is not counted."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import: it brings Triton

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def multiply_adds_an_item(net: nn.Module, example: torch.Tensor) -> int:
    """Of one image, or one item of a text. example: one input of the data set."""
    x, items = counted_on(net, example)
    return multiply_adds_of(net, x) // items


@functools.singledispatch
def counted_on(net: nn.Module, example: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The input on which a network is counted, and its items: the one example, unless a network costs more of an item among others."""
    return example, 1


class LiveBytes(TorchDispatchMode):
    """Within, follows the bytes of all tensor storages that are alive: `peak` is their highest sum.

    Storages that autograd keeps count until they are freed. Work space inside a kernel does not count.
    """

    def __init__(self, present: Iterable[torch.Tensor]):
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, weakref.ref] = {}
        for tensor in present:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._see, result)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def freed(_: weakref.ref) -> None:
            self.live -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def live_tensors(device: torch.device) -> Iterator[torch.Tensor]:
    """All tensors of this process that Python knows of on this kind of device: data, weights, gradients, optimizers' states. One by one, so
    that nobody keeps alive what a step would free. Those that torch.compile has left behind say that they are on the device, and hold no
    memory there (their sizes may be symbols): the storage tells."""
    for found in gc.get_objects():
        if (issubclass(type(found), torch.Tensor) and found.device.type == device.type and found.layout == torch.strided
                and found.untyped_storage().device.type == device.type):
            yield found


def peak_memory(step: Callable[[], object], device: torch.device, present: Iterable[torch.Tensor] = (), *, reserved: bool = False) -> int:
    """Bytes at the highest moment of `step`: on a GPU the allocator's maximum, on the CPU the bytes of live tensors, of which those
    in `present` are alive when it begins. reserved: on a GPU, what the allocator keeps for itself and for CUDA graphs counts too."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_reserved(device) if reserved else torch.cuda.max_memory_allocated(device)
    with LiveBytes(present) as mode:
        step()
    return mode.peak


def seconds_per_step(step: Callable[[], object], device: torch.device, *, steps: int = 3, budget_s: float = 20.0,
                     agreed: Callable[[float], float] = float) -> float:
    """Mean wall time of up to `steps` steps, fewer once `budget_s` is used up. The caller has warmed up. agreed(seconds): the same number
    for all who take the steps together."""
    _wait(device)
    start = time.perf_counter()
    done, seconds = 0, 0.0
    while done < steps and seconds <= budget_s:
        step()
        _wait(device)
        done, seconds = done + 1, agreed(time.perf_counter() - start)
    return seconds / done


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
