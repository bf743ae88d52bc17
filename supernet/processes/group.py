"""Processes that take the steps of one training together, each with its part of every batch: a `Group`, and `ALONE`, the group of one.

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
Batch = tuple[Any, ...]  # inputs, targets, and what a data set adds


class Cut(NamedTuple):
    """The part of a batch's items that is one process's. begin: where in the batch; own: how many of them count, 0 where a batch has fewer
    items than there are processes and its first one stands in, so that all take the same operations; total: items of the whole batch."""

    items: Tensor
    begin: int
    own: int
    total: int


class Slice(tuple):
    """One process's part of a batch, (inputs, targets, ...), of the items that `cut` says. each: targets of an item."""

    cut: Cut
    each: int

    @property
    def own(self) -> int:
        return self.cut.own

    @property
    def total(self) -> int:
        return self.cut.total


class Group:
    """What a process does with the others of its group; here, what that comes to where there are none: everything is as it is.
    `supernet.processes.together.Together` is the group of several, whose meaning the docstrings give.

    rank: of this process, from 0, of `size`; leads: it is the first, which alone writes and speaks.
    """

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    # ---- batches

    def cut(self, items: Tensor) -> Cut:
        """This process's part of a batch's items, rows of `items`: neighbours, as many as those of the others, or one more or less."""
        return Cut(items, 0, len(items), len(items))

    def least(self, items: int) -> int:
        """Items of the smallest part of a batch of so many."""
        return items

    def batch(self, batch: Batch, cut: Cut) -> Batch:
        """`batch`, (inputs, targets, ...) of that part alone, as what losses of it are weighed by."""
        return batch

    def items(self, batch: Batch) -> int:
        """Targets of the whole batch, of which `batch` may be a part."""
        return batch[1].numel()

    def part(self, rows: Tensor, batch: Batch) -> Tensor:
        """Of rows, one for each item of a whole batch, those of this process's part of it, which `batch` is."""
        return rows

    def whole(self, rows: Tensor, batch: Batch) -> Tensor:
        """The other way round: those of the whole batch, from the processes' own. No gradients flow."""
        return rows

    def counting(self, batch: Batch) -> AbstractContextManager[Any]:
        """Around a network's forward pass: statistics that are shared leave out what only stands in."""
        return _NOTHING

    def weighed(self, loss: Tensor, stats: Stats, batch: Batch) -> tuple[Tensor, Stats]:
        """A part's mean loss, times its share of the batch and the number of processes, so that the mean over these is the whole batch's
        mean; and its sums, zeros where it only stands in. `stats` has a `weight` where the loss is a weighted mean. A batch that was not
        cut is taken to be the same one everywhere."""
        return loss, stats

    # ---- randomness

    def own(self, generator: torch.Generator | None, position: int | None = None) -> torch.Generator | None:
        """What this process draws from where others are to draw otherwise, made from a source that is the same in all and stays so.
        position: of what is drawn, among all that is drawn while the source stands still; without one the source moves on. None stays
        None."""
        return generator

    # ---- tensors

    def mean(self, tensors: Tensors) -> Tensors:
        """Over the processes, of each. No gradients flow."""
        return tensors

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """The same in place."""

    def settle(self, stats: Stats, batch: Batch, statistics: Callable[[], Sequence[Tensor]] = tuple) -> Stats:
        """After a step of the weights: the sums `stats` of the whole batch; running `statistics` become their mean over the processes,
        each by its share of the batch, in place."""
        return stats

    def sum_(self, tensor: Tensor) -> None:
        """Over the processes, in place."""

    def gathered(self, x: Tensor) -> Tensor:
        """(P, ...) from each process's x, zeros from one whose batch only stands in; differentiable any number of times."""
        return x[None]

    @property
    def shares(self) -> bool:
        """Whether `gathered` may be called: of several processes, not within `apart`."""
        return False

    def apart(self) -> AbstractContextManager[Any]:
        """Within, this process does what the others may not do: everything here is as in the group of one, batches are whole, and no
        process is waited for."""
        return _NOTHING

    def shared(self, x: Tensor) -> Tensor:
        """x, the same everywhere, as what all processes' losses depend on: its gradient is the mean of theirs."""
        return x

    def loss(self, own: Tensor) -> Tensor:
        """The mean of the processes' losses; the gradient of each flows to its own, and meets the others' at `shared`."""
        return own

    # ---- what is decided together

    def largest(self, *numbers: float) -> tuple[float, ...]:
        """Of each number, over the processes."""
        return numbers

    def texts(self, own: str) -> list[str]:
        """Each process's, in their order."""
        return [own]

    def first(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, plain JSON data, for all; only there is it made. What it raises ends all."""
        return make()

    def hand_out(self, make: Callable[[], bytes]) -> None:
        """The first process gives bytes to those that `take` them meanwhile."""

    def wait(self) -> None:
        """Until all have come here."""

    def check_same(self, digests: Callable[[], Mapping[str, str]]) -> None:
        """Raises `Drifted` where not all processes have the same. digests: by what is told apart."""

    # ---- what people read

    def line(self) -> str | None:
        """What a run says of its processes; None where there is nothing to say."""
        return None

    @property
    def each(self) -> str:
        """Behind what is of one process: ` for each of 2 processes`."""
        return ""

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of all that was summed up over the processes until now, and in how many messages."""
        return 0, 0


_NOTHING = nullcontext()
ALONE = Group()


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

