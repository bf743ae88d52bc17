"""Stopping at the first sign of collapse: too many skip connections (DARTS+, Liang et al. 2019, Sec. 3.2)."""

from collections.abc import Collection

from supernet.bilevel import Bilevel
from supernet.monitors.base import Look, Monitor, Reaction, Retry, Signal
from supernet.ranges import Count, Positive, Whole, ranged
from supernet.space import Space


@ranged
class SkipCount(Monitor):
    """From epoch `start_epoch` on, a cell of kind `kind` (null: any) of the epoch's genotype that holds `most` skip connections or more
    means trouble, and the epoch before was healthy (criterion 1 of DARTS+: two in the normal cell, and the search ends). stop, retry,
    retry_until: what that brings about (`Reaction`)."""

    def __init__(self, space: Space, *, most: Count = 2, kind: str | None = None, start_epoch: Whole = 0, stop: bool = False,
                 retry: Retry | None = None, retry_until: Positive = 0.03):
        if kind is not None and kind not in space.cells:
            raise ValueError(f"monitor.skips.kind must be {' or '.join(sorted(space.cells))}, or null, got {kind!r}")
        self.most, self.kinds, self.start_epoch = most, sorted(space.cells) if kind is None else [kind], start_epoch
        self.reaction, self.keeps = Reaction("skips", stop, retry, retry_until), int(retry is not None)
        self.gives = [f"skips/{kind}" for kind in self.kinds]
        self.space = space

    def check(self, search: Bilevel, known: Collection[str]) -> None:
        self.reaction.check(search)

    def after_epoch(self, look: Look) -> Signal:
        counts = {kind: sum(self.space.op(edge.op).is_skip for edge in look.genotype[kind]) for kind in self.kinds}
        worst, why = max(counts, key=counts.__getitem__), None
        if counts[worst] >= self.most and look.epoch >= self.start_epoch:
            why = f"the {worst} cell holds {counts[worst]} skip connections"
        return self.reaction(look, {f"skips/{kind}": float(n) for kind, n in counts.items()}, why, min(1, look.epoch))
