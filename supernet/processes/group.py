"""Processes that take the steps of one training together, each with its part of every batch: `Group`, and `ALONE`, the group of one.

Two things are kept. What a checkpoint holds is the same in all of them, bit for bit, at every moment: weights, alphas, optimizers,
statistics, where the batches stand, all sources of randomness. And every process calls the same methods of its group in the same order;
whatever a decision is made of is agreed upon first.

Losses are weighed so that the mean over the processes of whatever is linear in them, gradients and products with second derivatives, is
that of the whole batch (`weighed`). What is not linear is computed from numbers that were averaged before.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Stats = dict[str, Tensor]


class Cut(NamedTuple):
    """The part of a batch's items that is one process's. begin: where in the batch; own: how many of them count, 0 where a batch has fewer
    items than there are processes and its first one stands in, so that all take the same operations; total: items of the whole batch."""

    items: Tensor
    begin: int
    own: int
    total: int


class Slice(tuple):
    """One process's part of a batch, (inputs, targets); `own` and `total` as of its `Cut`."""

    own: int
    total: int


class Group:
    """An interface. rank: of this process, from 0, of `size`; leads: it is the first, which alone writes and speaks."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        return self.rank == 0

    # ---- batches

    def cut(self, items: Tensor) -> Cut:
        """This process's part of a batch's items: neighbours, as many as those of the others, or one more or less."""
        raise NotImplementedError

    def least(self, items: int) -> int:
        """Items of the smallest part of a batch of so many."""
        raise NotImplementedError

    def batch(self, inputs: Tensor, targets: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
        """That part as a batch."""
        raise NotImplementedError

    def items(self, batch: Any) -> int:
        """Targets of the whole batch, of which `batch` may be a part."""
        raise NotImplementedError

    def counting(self, batch: Any) -> AbstractContextManager[Any]:
        """Around a network's forward pass: statistics that are shared leave out what only stands in."""
        raise NotImplementedError

    def weighed(self, loss: Tensor, stats: Stats, batch: Any) -> tuple[Tensor, Stats]:
        """A part's mean loss, times its share of the batch and the number of processes, so that the mean over these is the whole batch's
        mean; and its sums, zeros where it only stands in. `stats` has a `weight` where the loss is a weighted mean. A batch that was not
        cut is taken to be the same one everywhere."""
        raise NotImplementedError

    # ---- randomness

    def own(self, generator: torch.Generator | None, position: int | None = None) -> torch.Generator | None:
        """What this process draws from where others are to draw otherwise, made from a source that is the same in all and stays so.
        position: of what is drawn, among all that is drawn while the source stands still; without one the source moves on. None stays
        None."""
        raise NotImplementedError

    # ---- tensors

    def mean(self, tensors: Tensors) -> Tensors:
        """Over the processes, of each. No gradients flow."""
        raise NotImplementedError

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """The same in place."""
        raise NotImplementedError

    def settle(self, stats: Stats, batch: Any, statistics: Callable[[], Sequence[Tensor]] = tuple) -> Stats:
        """After a step of the weights: the sums `stats` of the whole batch; running `statistics` become their mean over the processes,
        each by its share of the batch, in place."""
        raise NotImplementedError

    def sum_(self, tensor: Tensor) -> None:
        """Over the processes, in place."""
        raise NotImplementedError

    def gathered(self, x: Tensor) -> Tensor:
        """(P, ...) from each process's x, zeros from one whose batch only stands in; differentiable any number of times."""
        raise NotImplementedError

    @property
    def shares(self) -> bool:
        """Whether `gathered` may be called: not within `apart`, where this process may compute what the others do not."""
        raise NotImplementedError

    def apart(self) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def shared(self, x: Tensor) -> Tensor:
        """x, the same everywhere, as what all processes' losses depend on: its gradient is the mean of theirs."""
        raise NotImplementedError

    def loss(self, own: Tensor) -> Tensor:
        """The mean of the processes' losses; the gradient of each flows to its own, and meets the others' at `shared`."""
        raise NotImplementedError

    # ---- what is decided together

    def largest(self, *numbers: float) -> tuple[float, ...]:
        """Of each number, over the processes."""
        raise NotImplementedError

    def texts(self, own: str) -> list[str]:
        """Each process's, in their order."""
        raise NotImplementedError

    def first(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, plain JSON data, for all; only there is it made. What it raises ends all."""
        raise NotImplementedError

    def hand_out(self, make: Callable[[], bytes]) -> None:
        """The first process gives bytes to those that `take` them meanwhile."""
        raise NotImplementedError

    def wait(self) -> None:
        """Until all have come here."""
        raise NotImplementedError

    def check_same(self, digests: Callable[[], Mapping[str, str]]) -> None:
        """Raises `Drifted` where not all processes have the same. digests: by what is told apart."""
        raise NotImplementedError

    # ---- what people read

    def line(self) -> str | None:
        """What a run says of its processes; None where there is nothing to say."""
        raise NotImplementedError

    @property
    def each(self) -> str:
        """Behind what is of one process: ` for each of 2 processes`."""
        raise NotImplementedError

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of all that was summed up over the processes until now, and in how many messages."""
        raise NotImplementedError


class Alone(Group):
    """The group of one: everything is as it is."""

    rank, size, shares, each, traffic = 0, 1, False, "", (0, 0)

    def cut(self, items: Tensor) -> Cut:
        return Cut(items, 0, len(items), len(items))

    def least(self, items: int) -> int:
        return items

    def batch(self, inputs: Tensor, targets: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
        return inputs, targets

    def items(self, batch: Any) -> int:
        return batch[1].numel()

    def counting(self, batch: Any) -> AbstractContextManager[Any]:
        return _NOTHING

    def weighed(self, loss: Tensor, stats: Stats, batch: Any) -> tuple[Tensor, Stats]:
        return loss, stats

    def own(self, generator: torch.Generator | None, position: int | None = None) -> torch.Generator | None:
        return generator

    def mean(self, tensors: Tensors) -> Tensors:
        return tensors

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        pass

    def settle(self, stats: Stats, batch: Any, statistics: Callable[[], Sequence[Tensor]] = tuple) -> Stats:
        return stats

    def sum_(self, tensor: Tensor) -> None:
        pass

    def apart(self) -> AbstractContextManager[Any]:
        return _NOTHING

    def shared(self, x: Tensor) -> Tensor:
        return x

    def loss(self, own: Tensor) -> Tensor:
        return own

    def largest(self, *numbers: float) -> tuple[float, ...]:
        return numbers

    def texts(self, own: str) -> list[str]:
        return [own]

    def first(self, make: Callable[[], Any]) -> Any:
        return make()

    def hand_out(self, make: Callable[[], bytes]) -> None:
        pass

    def wait(self) -> None:
        pass

    def check_same(self, digests: Callable[[], Mapping[str, str]]) -> None:
        pass

    def line(self) -> str | None:
        return None


_NOTHING = nullcontext()
ALONE = Alone()


def digest(value: Any) -> str:
    """Of nested plain data and tensors, every bit of which counts."""
    found = hashlib.blake2b(digest_size=16)
    _feed(value, found.update)
    return found.hexdigest()


def _feed(value: Any, update: Callable[[bytes], Any]) -> None:
    if torch.is_tensor(value):
        update(f"{value.dtype} {tuple(value.shape)}".encode())
        update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, part in value.items():
            update(f"{key!r}:".encode())
            _feed(part, update)
    elif isinstance(value, list | tuple):
        update(f"{len(value)} of".encode())
        for part in value:
            _feed(part, update)
    else:
        update(f"{value!r};".encode())


def seed_of(generator: torch.Generator, *what: int) -> int:
    """A number that depends on where a generator stands and on `what`. Nothing is drawn, and a GPU is not waited for."""
    state = generator.get_state().numpy().tobytes()
    found = hashlib.blake2b(state + json.dumps(what).encode(), digest_size=7)
    return int.from_bytes(found.digest(), "little")

