"""Weights, gradients and momenta of SGD in one buffer each: clipping and the step are then a few operations on long vectors, where a
supernet has more than a thousand small tensors."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.sgd import sgd

ALIGNED = 16  # numbers: a view begins where an allocation could (64 bytes in float32), so that kernels choose for it as they do without
ROW = 1024  # numbers whose squares are summed at a time; one long sum of millions in float32 is off by 3e-5 on a CPU


class _Run(NamedTuple):
    """Neighbours in the buffers, `first` to `last` among the parameters, of one group, which take the same step. moved: they have a
    momentum."""

    group: int
    moved: bool
    first: int
    last: int


class FlatDescent:
    """The step of a `torch.optim.SGD` (momentum, dampening, Nesterov, weight decay, groups), over buffers that it makes its parameters
    views of. As a `descent.Descent`, for that optimizer.

    Parameters without a gradient (ops that were not drawn, or are frozen) are left out as PyTorch leaves them out: neither weight decay nor
    momentum moves them, and the first gradient of one becomes its momentum. The optimizer stays what holds the momenta, by parameter, so
    that what a checkpoint says of it is the same; momenta that were loaded are taken into the buffer when their weights move next.

    The arithmetic of each number is that of `optimizer.step()`. Clipping adds the squares in another order, which rounds differently.
    Backward passes make the gradients where they like and they are copied, together: adding each to a view of its own would be an
    operation for each. Hooks of `optimizer.step` are not called.

    Raises ValueError (`check_flat`).
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        check_flat(optimizer)
        self.optimizer = optimizer
        self._lay_out()

    def _lay_out(self) -> None:
        groups = self.optimizer.param_groups
        self.params: list[Tensor] = [p for group in groups for p in group["params"]]
        self._group = [n for n, group in enumerate(groups) for _ in group["params"]]
        rooms = [-(-p.numel() // ALIGNED) * ALIGNED for p in self.params]
        *self._start, size = accumulate(rooms, initial=0)
        like = self.params[0].detach()
        self.w, self.gradient, self.momentum = (like.new_zeros(-(-size // ROW) * ROW) for _ in range(3))
        self._strides = [_kept(p).stride() for p in self.params]
        w, self._gradients, self._momenta = (
            [buffer.as_strided(p.shape, stride, at) for p, stride, at in zip(self.params, self._strides, self._start)]
            for buffer in (self.w, self.gradient, self.momentum))
        self._otherwise: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        with torch.no_grad():
            torch._foreach_copy_(w, self.params)
            for p, view in zip(self.params, w):
                p.data = view
        self._addresses = [p.data_ptr() for p in self.params]

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, w: Sequence[Tensor], clip_norm: float | None) -> None:
        assert optimizer is self.optimizer
        if any(p.data_ptr() != address for p, address in zip(self.params, self._addresses)):
            self._lay_out()  # a module was moved or cast
        held = [i for i, p in enumerate(self.params) if p.grad is not None]
        if not held:
            return
        self._gather(held)
        if clip_norm is not None:
            norm = torch.linalg.vector_norm(torch.linalg.vector_norm(self.gradient.view(-1, ROW), dim=1))
            self.gradient.mul_(torch.clamp(clip_norm / (norm + 1e-6), max=1.0))  # as `clip_grad_norm_`
        for n, group in enumerate(optimizer.param_groups):
            if group["momentum"] != 0:
                self._adopt(i for i in held if self._group[i] == n)
        runs = list(self._runs(held))
        for n, moved in sorted({(run.group, run.moved) for run in runs}):
            self._step(optimizer.param_groups[n], [run for run in runs if (run.group, run.moved) == (n, moved)], moved)
        torch.autograd.graph.increment_version([self.params[i] for i in held])  # a view that was set as data does not count what happens

    def _gather(self, held: Sequence[int]) -> None:
        """The gradients, into the buffer; zeros where there are none."""
        grads = [self.params[i].grad for i in held]
        self.gradient.zero_()
        torch._foreach_copy_([self._room_for(i, g) for i, g in zip(held, grads)], grads)
        for i in held:
            self.params[i].grad = self._gradients[i]

    def _room_for(self, i: int, g: Tensor) -> Tensor:
        """Where the i-th gradient goes, with strides equal to its own where these say the same, for else a list is copied one by one: the
        stride of a dimension of size 1 may be anything."""
        stride = g.stride()
        if stride == self._strides[i] or any(n > 1 and a != b for n, a, b in zip(g.shape, stride, self._strides[i])):
            return self._gradients[i]
        if (i, stride) not in self._otherwise:
            self._otherwise[i, stride] = self.gradient.as_strided(g.shape, stride, self._start[i])
        return self._otherwise[i, stride]

    def _adopt(self, indices: Iterator[int]) -> None:
        """Momenta that are not in the buffer are copied into it."""
        states = [(i, self.optimizer.state.get(self.params[i], {})) for i in indices]
        loaded = [(i, state) for i, state in states if state.get("momentum_buffer") is not None
                  and state["momentum_buffer"] is not self._momenta[i]]
        if loaded:
            torch._foreach_copy_([self._momenta[i] for i, _ in loaded], [state["momentum_buffer"] for _, state in loaded])
            for i, state in loaded:
                state["momentum_buffer"] = self._momenta[i]

    def _runs(self, held: Sequence[int]) -> Iterator[_Run]:
        run: _Run | None = None
        for i in held:
            moved = self.optimizer.state.get(self.params[i], {}).get("momentum_buffer") is not None
            if run is not None and (run.group, run.moved, run.last + 1) == (self._group[i], moved, i):
                run = run._replace(last=i)
                continue
            if run is not None:
                yield run
            run = _Run(self._group[i], moved, i, i)
        if run is not None:
            yield run

    def _step(self, group: dict[str, Any], runs: Sequence[_Run], moved: bool) -> None:
        spans = [slice(self._start[run.first], self._start[run.last] + self.params[run.last].numel()) for run in runs]
        w, grads, room = ([buffer[span] for span in spans] for buffer in (self.w, self.gradient, self.momentum))
        momenta: list[Tensor | None] = [] if group["momentum"] == 0 else list(room) if moved else [None] * len(runs)
        sgd(w, grads, momenta, foreach=group["foreach"], fused=group["fused"], **{name: group[name] for name in _OPTIONS})
        if momenta and not moved:  # the first ones are new tensors
            torch._foreach_copy_(room, momenta)
            for i in (i for run in runs for i in range(run.first, run.last + 1)):
                self.optimizer.state[self.params[i]]["momentum_buffer"] = self._momenta[i]


_OPTIONS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")


def check_flat(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError for what `FlatDescent` cannot do: another optimizer than SGD, parameters of more than one kind or device."""
    if type(optimizer) is not torch.optim.SGD:
        raise ValueError(f"flat_weights=true needs w_optimizer=sgd or plain_sgd, got {type(optimizer).__name__}")
    kinds = {(p.dtype, p.device) for group in optimizer.param_groups for p in group["params"]}
    if len(kinds) > 1:
        found = " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"flat_weights=true needs all weights in one type on one device, got {found}")



def _kept(p: Tensor) -> Tensor:
    """`p` itself where its numbers fill one piece of memory, row by row or channels last; else a copy that does."""
    return p if p.is_contiguous() or p.is_contiguous(memory_format=torch.channels_last) else p.detach().contiguous()
