"""A search that begins with the largest architecture and opens the choices of smaller ones stage by stage, with one set of weights
(progressive shrinking: Once-for-all, Cai et al. 2020, Sec. 3.3)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from supernet.bilevel import Bilevel
from supernet.costs.base import Cost
from supernet.errors import UsageError, did_you_mean
from supernet.passes import extremes, ordered
from supernet.space import Candidates, Space
from supernet.training.stages import carry_optimizer, carry_weight_decay

ALL = "all"
Opens = Mapping[str, int | Literal["all"]]  # by kind of decision, how many choices there are: the largest ones


def opened(space: Space, cost: Cost, plan: Sequence[Opens]) -> list[Candidates]:
    """The candidates of each stage. A stage keeps what the one before has opened and opens what its entry says; kinds that no entry names
    are open from the beginning, the others begin with their largest choice. Choices are ordered by the cost of the architecture that is
    the largest but for that decision; of equals the first of the space counts as the largest.

    Raises UsageError: a kind that the space does not have, a stage that takes choices away or opens none, or a kind that is not whole at
    the end, so that the search would end in another space than it has.
    """
    named = list(dict.fromkeys(kind for entry in plan for kind in entry))
    for kind in named:
        if kind not in space.cells:
            raise UsageError(f"stage.open: space {space.name} has no decisions {kind!r}, it has {', '.join(sorted(space.cells))}"
                             f"{did_you_mean(kind, list(space.cells))}")
    most = {kind: max(map(sum, space.cells[kind].selectable)) for kind in named}
    now, counts = dict.fromkeys(named, 1), []
    for n, entry in enumerate(plan, 1):
        before = dict(now)
        now |= {kind: most[kind] if count == ALL else min(count, most[kind]) for kind, count in entry.items()}
        if n > 1 and (now == before or any(now[kind] < before[kind] for kind in named)):
            raise UsageError(f"stage.open: each stage must open something and close nothing, stage {n} goes from {before} to {now}")
        counts.append(dict(now))
    if left := [kind for kind in named if now[kind] < most[kind]]:
        raise UsageError(f"stage.open must open all choices of {left[0]!r} in the end ({left[0]}: all), got {now[left[0]]} of "
                         f"{most[left[0]]}")
    orders = ordered(space, cost, extremes(space, cost)[1], named)
    return [{kind: spec.present if kind not in named else
             tuple(tuple(o in orders[kind][e][: own[kind]] for o in range(len(spec.ops))) for e in range(len(spec.edges)))
             for kind, spec in space.cells.items()} for own in counts]


def go_on_wider(old: Bilevel, new: Bilevel) -> None:
    """The next stage has the weights and running statistics of the one before by name, as they are; what it alone has is as it was made (a
    map between kernels is the identity). Alphas, their optimizer, the hypergradient's and the task's memory go on, and the weight decay,
    which a monitor may have raised. The optimizer of the weights begins anew, as a run of its own [official code], and so do penalties: a
    multiplier that grew while there was nothing to choose means nothing later."""
    check_wider(new.net, old.net)
    new.net.load_state_dict(new.net.state_dict() | old.net.state_dict())
    new.relaxation.load_state_dict(old.relaxation.state_dict())
    new.relaxation.after_inherit()
    carry_weight_decay(old, new)
    if old.alpha_optimizer is not None and new.alpha_optimizer is not None:
        carry_optimizer(old.alpha_optimizer, dict(old.relaxation.named_parameters()), new.alpha_optimizer,
                        dict(new.relaxation.named_parameters()))
    new.memory.load_state_dict(old.memory.state_dict())
    new.streams.load_state_dict(old.streams.state_dict())


def go_on_sorted(old: Bilevel, new: Bilevel) -> None:
    """The same, after what is sliced was ordered by importance, so that the narrower choices which open now begin with what counts most.
    The largest architecture computes what it did (Cai et al. 2020, Sec. 3.3, "Elastic Width"); narrower ones that are open already do not,
    so that the first of several such stages is the one to sort in (the official code sorts again in the later ones, between the widths)."""
    with torch.no_grad():
        old.net.sort()
    go_on_wider(old, new)


def check_wider(net: nn.Module, old: nn.Module) -> None:
    """Raises ValueError: `net`, of a stage with more choices, does not hold what `old` holds."""
    have = net.state_dict()
    wrong = [name for name, value in old.state_dict().items() if name not in have or have[name].shape != value.shape]
    if wrong:
        raise ValueError(f"a stage of stage.open cannot go on with {len(wrong)} of the entries of the one before, the first {wrong[0]!r}: "
                         "choices of one decision must share their weights, or stand beside each other")


def check_sorts(net: nn.Module) -> None:
    """Raises UsageError: there is nothing to sort."""
    if not callable(getattr(net, "sort", None)):
        raise UsageError(f"stage.sort orders the channels of elastic networks, and {type(net).__name__} has none: pass stage.sort=null")
