"""Checkpoints that are written while the training goes on: what moves is copied, and a thread does the rest."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supernet.runs import checkpoint


class Writer:
    """Writes the checkpoints of one folder, one at a time. keep: as of `checkpoint.save`. background: in a thread. first: what must be done
    before a checkpoint may be there, by the same thread: what it tells of is synced, the lock is looked at.

    What goes wrong in the thread is raised by whatever comes next of `save` and `wait`, so that no training goes on for longer than to its
    next checkpoint without one. Older generations are deleted by the thread too, once the new one is on the disk: a kill at any moment
    leaves `keep` that are whole.
    """

    def __init__(self, folder: Path, *, keep: int, background: bool, first: Callable[[], None] = lambda: None) -> None:
        self.folder, self.keep, self.background, self.first = folder, keep, background, first
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: Mapping[str, Any], name: str) -> None:
        """Waits for the one before. In the background, `state` may change as soon as this returns. Raises as `checkpoint.save` and `first`,
        also for the one before."""
        self.wait()
        checkpoint.check(state, name=name, keep=self.keep)
        if not self.background:
            self.first()
            checkpoint.write(self.folder, state, name=name, keep=self.keep)
            return
        copy = Copy(state)
        self._thread = threading.Thread(target=self._write, args=(copy, name), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until the last one is written. Raises what went wrong with it, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, copy: "Copy", name: str) -> None:
        try:
            self.first()
            checkpoint.write(self.folder, copy.ready(), name=name, keep=self.keep)
        except BaseException as error:  # it belongs to the one who waits
            self._error = error


class Copy:
    """A copy on the host of nested plain values and tensors. What lies on a GPU is copied behind the work that it has to do, into pinned
    memory, and nobody waits until `ready`. Tensors that are one, or views of the same entries, stay one."""

    def __init__(self, value: Any) -> None:
        self._known: dict[Any, Tensor] = {}
        self._devices: set[torch.device] = set()
        with torch.no_grad():
            self._value = self._of(value)
        self._known.clear()
        self._events = [torch.cuda.current_stream(device).record_event() for device in self._devices]

    def ready(self) -> Any:
        """The copy, once the GPUs have given it."""
        for event in self._events:
            event.synchronize()
        return self._value

    def _of(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            return type(value)((key, self._of(child)) for key, child in value.items())
        if isinstance(value, list | tuple):
            return type(value)(self._of(child) for child in value)
        return value  # what cannot change

    def _tensor(self, value: Tensor) -> Tensor:
        key = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype, type(value), value.requires_grad)
        if value.numel() and key in self._known:
            return self._known[key]
        if value.is_cuda:
            self._devices.add(value.device)
            made = torch.empty_like(value, device="cpu", pin_memory=True, requires_grad=False).copy_(value, non_blocking=True)
        else:
            made = value.detach().to("cpu", copy=True)
        made = nn.Parameter(made, value.requires_grad) if type(value) is nn.Parameter else made.requires_grad_(value.requires_grad)
        self._known[key] = made
        return made
