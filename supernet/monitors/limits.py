"""Any number of the record held against a limit."""

from collections.abc import Collection, Mapping

from supernet.bilevel import Bilevel
from supernet.errors import nearest
from supernet.monitors.base import Look, Monitor, Reaction, Retry, Signal
from supernet.ranges import Finite, Positive, Whole, ranged
from supernet.space import Space


@ranged
class Limits(Monitor):
    """From epoch `start_epoch` on, a value of the epoch's record that is above its limit in `above`, or below that in `below`, means
    trouble, and the epoch `back` before was healthy. Values are those that every epoch has (skip_share, parameter_free_share,
    alpha_entropy/KIND, alpha_gap/KIND, train_..., val_...) and those of monitors listed before. stop, retry, retry_until: what that brings
    about (`Reaction`)."""

    def __init__(self, space: Space, *, above: Mapping[str, Finite] | None = None, below: Mapping[str, Finite] | None = None,
                 back: Whole = 1, start_epoch: Whole = 0, stop: bool = False, retry: Retry | None = None, retry_until: Positive = 0.03):
        self.above, self.below = dict(above or {}), dict(below or {})
        if not self.above and not self.below:
            raise ValueError("monitor.limits needs a limit: pass monitor.limits.above={skip_share:0.5}, or below")
        if retry is not None and back < 1:
            raise ValueError(f"monitor.limits.retry goes back by monitor.limits.back epochs, which must be at least 1, got {back}")
        self.back, self.start_epoch = back, start_epoch
        self.reaction, self.keeps = Reaction("limits", stop, retry, retry_until), 0 if retry is None else back

    def check(self, search: Bilevel, known: Collection[str]) -> None:
        unknown = sorted({*self.above, *self.below} - set(known))
        if unknown:
            raise ValueError(f"monitor.limits knows of no value {unknown[0]!r}; this search records {nearest(unknown[0], known)}")
        self.reaction.check(search)

    def after_epoch(self, look: Look) -> Signal:
        broken = [f"{name} is {look.values[name]:.4g}, {side} {limit:g}"
                  for side, sign, limits in (("above", 1, self.above), ("below", -1, self.below))
                  for name, limit in limits.items() if name in look.values and sign * (look.values[name] - limit) > 0]
        why = "; ".join(broken) if broken and look.epoch >= self.start_epoch else None
        return self.reaction(look, {}, why, min(self.back, look.epoch))
