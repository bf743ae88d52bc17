"""The weights of a network, and lists of tensors like them, as few long tensors."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

ROW = 1024  # numbers whose squares are summed at a time; one long sum of millions in float32 is off by 3e-5 on a CPU


class Joined:
    """Lists of tensors of the shapes of `like` as lists of few: on a CPU one vector, for there each operation on each of a thousand small
    tensors costs a microsecond; elsewhere the lists themselves, which take few launches as they are. Without history.

    What is done with the numbers one by one rounds as it does for the tensors themselves; only where the processor multiplies and adds at
    once may the last few numbers of a tensor of odd size differ. A norm is summed in another order.
    """

    def __init__(self, like: Sequence[Tensor]):
        self._long = all(t.is_cpu for t in like) and len({t.dtype for t in like}) == 1
        if self._long:
            *starts, size = accumulate([t.numel() for t in like], initial=0)
            self._room = like[0].detach().new_zeros(-(-size // ROW) * ROW)  # zeros at its end stay zeros
            self._views = [self._room.as_strided(t.shape, _strides(t), start) for t, start in zip(like, starts)]

    @torch.no_grad()
    def of(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """They, for elementwise operations with others of these. Not to be written to: they may be `tensors` themselves."""
        if not self._long:
            return [t.detach() for t in tensors]
        torch._foreach_copy_(self._views, list(tensors))
        return [self._room.clone()]

    def copied(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """As `of`, of numbers that stay when `tensors` are written to, bit for bit."""
        found = self.of(tensors)
        return found if self._long else torch._foreach_mul(found, 1.0)

    @torch.no_grad()
    def put(self, values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
        """Writes what `of` or operations with it gave into tensors of the shapes of `like`."""
        if self._long:
            self._room.copy_(values[0])
        torch._foreach_copy_(list(into), self._views if self._long else list(values))

    def parts(self, values: Sequence[Tensor]) -> list[Tensor]:
        """The tensors again, of the shapes of `like`."""
        if not self._long:
            return list(values)
        return [values[0].as_strided(view.shape, view.stride(), view.storage_offset()) for view in self._views]

    def norm(self, values: Sequence[Tensor]) -> Tensor:
        """Of all as one vector."""
        rows = [torch.linalg.vector_norm(values[0].view(-1, ROW), dim=1)] if self._long else torch._foreach_norm(list(values))
        return torch.linalg.vector_norm(rows[0] if self._long else torch.stack(rows))


def _strides(t: Tensor) -> tuple[int, ...]:
    """Those of `t` where its numbers fill one piece of memory; else those of the order of its indices."""
    whole = t.is_contiguous() or t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last)
    return (t if whole else torch.empty(t.shape, device="meta")).stride()
