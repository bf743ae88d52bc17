"""Stopping at the first sign of collapse: too many skip connections (DARTS+, Liang et al. 2019, Sec. 3.2)."""

from supernet.monitors.base import Look, Monitor, Signal
from supernet.space import Space


class SkipCount(Monitor):
    """Where a cell of kind `kind` (null: any) of the epoch's genotype holds `most` skip connections or more, warns, or ends the search
    with the genotype of the epoch before (`stop`; criterion 1 of DARTS+: two in the normal cell)."""

    def __init__(self, space: Space, *, most: int = 2, kind: str | None = None, stop: bool = False, start_epoch: int = 0):
        if most < 1 or (kind is not None and kind not in space.cells):
            raise ValueError(f"monitor.skips needs most >= 1 and a kind of {sorted(space.cells)} or null, got {most} and {kind!r}")
        self.most, self.kinds, self.stop, self.start_epoch = most, sorted(space.cells) if kind is None else [kind], stop, start_epoch

    def after_epoch(self, look: Look) -> Signal:
        counts = {kind: sum(edge.op == "skip_connect" for edge in look.genotype[kind]) for kind in self.kinds}
        values = {f"skips/{kind}": float(n) for kind, n in counts.items()}
        worst = max(counts, key=counts.__getitem__)
        if counts[worst] < self.most or look.epoch < self.start_epoch:
            return Signal(values)
        why = f"the {worst} cell holds {counts[worst]} skip connections"
        return Signal(values, stop=why, back=min(1, look.epoch)) if self.stop else Signal(values, warning=why)
