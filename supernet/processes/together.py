"""A group of several processes, over `torch.distributed`: gloo between CPUs and for what is said, NCCL between GPUs. Only this
module and `joined` import that."""

import contextlib
import datetime
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # now: imported within a group, its functions' defaults hold that, and its threads outlive `leave`
from torch import Tensor

from supernet.errors import Elsewhere, LeftAlone, Mendable
from supernet.processes.group import Batch, Cut, Group, Slice, Stats, Tensors, seed_of

PATIENCE_S = 1800.0  # for a process that has not ended and does not come: the first one may draw a report meanwhile
HEARD_S = 3.0  # for the first process to say what this one would say


class ProcessLost(Mendable, RuntimeError):
    """Another process of the group has ended, so that this one cannot go on. The message is one line."""


class Drifted(Mendable, RuntimeError):
    """What must be the same in all processes is not. The message is one line."""


class Told(Mendable, RuntimeError):
    """The first process has said why all of them end."""


ENDINGS: Mapping[str, type[Exception]] = {"Elsewhere": Elsewhere, "LeftAlone": LeftAlone, "Told": Told}
EXIT_CODES: Mapping[type[BaseException], int] = {LeftAlone: 0, Elsewhere: 75}  # of the others, as of the first; else 2


def with_others(method: Callable[..., Any]) -> Callable[..., Any]:
    """What a process does with the others; within `apart` it does what it would do alone."""
    alone = getattr(Group, method.__name__)

    @functools.wraps(method)
    def chosen(self: "Together", *args: Any, **how: Any) -> Any:
        return (alone if self._apart else method)(self, *args, **how)

    return chosen


class Together(Group):
    """Processes that have found each other through `store`, where each also says why it ends."""

    def __init__(self, rank: int, size: int, store: dist.Store, *, backend: str = "gloo", patience_s: float = PATIENCE_S):
        self.rank, self.size, self.store, self.backend = rank, size, store, backend
        self._bytes = self._messages = 0
        self._counts, self._apart = True, False
        self._generators: dict[torch.device, torch.Generator] = {}
        with self._lost():
            dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size,
                                    timeout=datetime.timedelta(seconds=patience_s))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Together":
        return self  # what is connected is not copied with a network that knows it

    def leave(self) -> None:
        dist.destroy_process_group()

    # ---- batches

    @with_others
    def cut(self, items: Tensor) -> Cut:
        base, rest = divmod(len(items), self.size)
        begin = self.rank * base + min(self.rank, rest)
        own = base + (self.rank < rest)
        return Cut(items[begin: begin + own], begin, own, len(items)) if own else Cut(items[:1], 0, 0, len(items))

    @with_others
    def least(self, items: int) -> int:
        return max(1, items // self.size)

    @with_others
    def batch(self, batch: Batch, cut: Cut) -> Slice:
        made = Slice(batch)
        made.cut, made.each = cut, batch[1].numel() // len(cut.items)
        return made

    def items(self, batch: Batch) -> int:
        return batch.total * batch.each if type(batch) is Slice else batch[1].numel()

    def part(self, rows: Tensor, batch: Batch) -> Tensor:
        if type(batch) is not Slice:
            return rows
        _, begin, own, _ = batch.cut
        return rows[begin: begin + own] if own else rows[:1]

    @with_others
    def whole(self, rows: Tensor, batch: Batch) -> Tensor:
        if type(batch) is not Slice:
            return rows
        _, begin, own, total = batch.cut
        every = rows.new_zeros(total, *rows.shape[1:])
        every[begin: begin + own] = rows[:own].detach()
        return self._all_reduce(every)

    @contextmanager
    def counting(self, batch: Batch) -> Iterator[None]:
        before, self._counts = self._counts, type(batch) is not Slice or batch.own > 0
        try:
            yield
        finally:
            self._counts = before

    @with_others
    def weighed(self, loss: Tensor, stats: Stats, batch: Batch) -> tuple[Tensor, Stats]:
        if type(batch) is not Slice:
            return loss, stats
        if "weight" in stats:
            weight = stats["weight"] * (batch.own > 0)
            whole = weight.clone()
            self.sum_(whole)
            loss = loss * (self.size * weight / whole)
            stats = stats | {"loss": stats["loss"] * (weight / whole * batch.total / max(1, batch.own))}  # of whole batches as of parts
        elif (share := self._share(batch)) != 1:
            loss = loss * share
        return loss, stats if batch.own else {name: torch.zeros_like(value) for name, value in stats.items()}

    def _share(self, batch: Batch) -> float:
        return self.size * batch.own / batch.total if type(batch) is Slice else 1.0

    # ---- randomness

    @with_others
    def own(self, generator: torch.Generator | None, position: int | None = None) -> torch.Generator | None:
        if generator is None:
            return None
        seed = seed_of(generator, self.rank, *(() if position is None else (position,)))
        if position is None:
            torch.empty(1, device=generator.device).uniform_(generator=generator)
        made = self._generators.setdefault(generator.device, torch.Generator(generator.device))
        return made.manual_seed(seed)

    # ---- tensors

    def _all_reduce(self, tensor: Tensor) -> Tensor:
        self._bytes += tensor.numel() * tensor.element_size()
        self._messages += 1
        with self._lost():
            dist.all_reduce(tensor)
        return tensor

    @with_others
    def mean(self, tensors: Tensors) -> Tensors:
        found: list[Tensor] = [t.detach() for t in tensors]
        for dtype in dict.fromkeys(t.dtype for t in found):  # one message for all of a type
            chosen = [n for n, t in enumerate(found) if t.dtype == dtype]
            flat = self._all_reduce(torch.cat([found[n].reshape(-1) for n in chosen])).div_(self.size)
            for n, part in zip(chosen, flat.split([found[n].numel() for n in chosen])):
                found[n] = part.view(found[n].shape)
        return tuple(found)

    @with_others
    def mean_(self, tensors: Sequence[Tensor]) -> None:
        if tensors:
            with torch.no_grad():
                torch._foreach_copy_(list(tensors), list(self.mean(tuple(tensors))))

    @with_others
    def settle(self, stats: Stats, batch: Batch, statistics: Callable[[], Sequence[Tensor]] = tuple) -> Stats:
        if running := list(statistics()):
            with torch.no_grad():
                torch._foreach_mul_(running, self._share(batch))
                self.mean_(running)
        flat = torch.stack([value.double() for value in stats.values()])
        self.sum_(flat)
        return {name: total.to(stats[name].dtype) for name, total in zip(stats, flat.unbind())}

    @with_others
    def sum_(self, tensor: Tensor) -> None:
        self._all_reduce(tensor)

    def gathered(self, x: Tensor) -> Tensor:
        own = x * float(self._counts)  # the same graph in all, so that their backward passes meet
        rows = [own if n == self.rank else torch.zeros_like(x) for n in range(self.size)]
        return _Sum.apply(torch.stack(rows), self)

    @property
    def shares(self) -> bool:
        return not self._apart

    @contextmanager
    def apart(self) -> Iterator[None]:
        before, self._apart = self._apart, True
        try:
            yield
        finally:
            self._apart = before

    @with_others
    def shared(self, x: Tensor) -> Tensor:
        return _Shared.apply(x, self)

    @with_others
    def loss(self, own: Tensor) -> Tensor:
        return _Mean.apply(own, self)

    # ---- what is decided together

    @with_others
    def largest(self, *numbers: float) -> tuple[float, ...]:
        found = torch.tensor(numbers, dtype=torch.float64)
        with self._lost():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(found.tolist())

    @with_others
    def texts(self, own: str) -> list[str]:
        return [self._bytes_of(rank, own.encode()).decode() for rank in range(self.size)]

    def _bytes_of(self, rank: int, own: bytes) -> bytes:
        """What process `rank` has as its own."""
        with self._lost():
            size = torch.tensor([len(own)])
            dist.broadcast(size, rank)
            data = torch.frombuffer(bytearray(own), dtype=torch.uint8) if rank == self.rank and own else torch.empty(int(size),
                                                                                                                    dtype=torch.uint8)
            if len(data):
                dist.broadcast(data, rank)
        return data.numpy().tobytes()

    @with_others
    def first(self, make: Callable[[], Any]) -> Any:
        if self.leads:
            try:
                made = make()
            except (LeftAlone, Mendable) as error:
                ending = type(error).__name__ if type(error).__name__ in ENDINGS else "Told"
                self._bytes_of(0, json.dumps([ending, str(error)]).encode())
                raise
            self._bytes_of(0, json.dumps([None, made]).encode())
            return made
        ending, value = json.loads(self._bytes_of(0, b""))
        if ending is not None:
            raise ENDINGS[ending](value)
        return value

    @with_others
    def hand_out(self, make: Callable[[], bytes]) -> None:
        self._bytes_of(0, make())

    def take(self) -> bytes:
        """What the first process hands out."""
        return self._bytes_of(0, b"")

    @with_others
    def wait(self) -> None:
        self.largest(0.0)

    @with_others
    def check_same(self, digests: Callable[[], Mapping[str, str]]) -> None:
        every = [json.loads(text) for text in self.texts(json.dumps(dict(digests())))]
        for name, own in every[0].items():
            others = [rank for rank, theirs in enumerate(every) if theirs.get(name) != own]
            if others:
                raise Drifted(f"{name!r} is not the same in all {self.size} processes: process {others[0]} differs from process 0, so that "
                              "what they would go on with is no one search; the last checkpoint is from before")

    # ---- what people read

    def line(self) -> str | None:
        return f"{self.size} processes ({self.backend}), each with its part of every batch; the first one writes"

    @property
    def each(self) -> str:
        return f" for each of {self.size} processes"

    @property
    def traffic(self) -> tuple[int, int]:
        return self._bytes, self._messages

    # ---- how it ends

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            said = [(rank, text) for rank in range(self.size) if rank != self.rank and (text := self._said(rank))]
            why = f"process {said[0][0]} of {self.size} has ended: {said[0][1]}" if said else (
                f"another of the {self.size} processes has ended without a word, or cannot be reached "
                f"({' '.join(str(error).split())[:120]})")
            raise ProcessLost(f"{why}; so this one ends too, and the last checkpoint stays") from error

    def _said(self, rank: int) -> str | None:
        with contextlib.suppress(Exception):  # the store may have ended with a process
            if self.store.check([f"said/{rank}"]):
                return self.store.get(f"said/{rank}").decode()
        return None

    def ended(self, kind: type[BaseException], error: BaseException) -> int | None:
        """Before this process ends with an error: keeps what it says for the others. Returns an exit code where nothing is left to say:
        of the processes behind the first one, whose errors are printed here unless the first one has the same to say."""
        mendable = issubclass(kind, Mendable | LeftAlone)
        text = " ".join((str(error) if mendable else f"{kind.__name__}: {error}").split())[:500]
        with contextlib.suppress(Exception):
            self.store.set(f"said/{self.rank}", text)
        if self.leads or not mendable:
            return None
        end, theirs = time.monotonic() + HEARD_S, None
        while not issubclass(kind, Told | LeftAlone | Elsewhere) and time.monotonic() < end and not (theirs := self._said(0)):
            time.sleep(0.02)
        if not issubclass(kind, Told | LeftAlone | Elsewhere) and theirs != text and not (theirs and issubclass(kind, ProcessLost)):
            print(f"process {self.rank} of {self.size}: error: {text}", file=sys.stderr)
        return EXIT_CODES.get(kind, 2)


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose derivative is the sum of theirs; so differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Together) -> Tensor:
        ctx.group = group
        return group._all_reduce(x.clone())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(slope, ctx.group), None


class _Shared(torch.autograd.Function):
    """The identity; its derivative is the mean over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Together) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(slope, ctx.group) / ctx.group.size, None


class _Mean(torch.autograd.Function):
    """The mean over the processes; its derivative is the identity, since each of them asks for the same one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Together) -> Tensor:
        return group._all_reduce(x.clone()) / group.size

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None
