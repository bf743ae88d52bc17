"""A search in stages: after each every edge loses its weakest candidates, and the network of those that are left, deeper or wider, is
searched on (P-DARTS, Chen et al. 2019, Sec. 3.2; DrNAS, Chen et al. 2021, Sec. 3.3). Or stages say themselves which candidates they have
(`training.shrinking`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from supernet.bilevel import Bilevel
from supernet.genotype import Genotype
from supernet.interfaces import InterfaceError, seen
from supernet.networks.measure import parameters
from supernet.networks.stacked import inherit_widened, widened
from supernet.space import Candidates, CellSpec, Mask, Space
from supernet.training.records import Recorder, Stateful
from supernet.training.search import SearchLoop, fit_supernet
from supernet.weights import EdgeWeights, check_shapes


def narrowed(space: Space, candidates: Candidates) -> Space:
    """The space of those architectures that `candidates` allows: other ops are neither present nor selectable. Whatever is made for it (a
    network, a relaxation, a penalty, a selection) leaves them out, so that a softmax is one over the ops that are left.

    Its genotypes are not of `space`; `widen_genotype` makes them so. Raises ValueError: an op that an edge does not have, an edge that had
    a selectable op and has none left, or two edges between the same nodes.
    """
    cells = {}
    for kind, spec in space.cells.items():
        kept = candidates[kind]
        if len(set(spec.edges)) < len(spec.edges):
            raise ValueError(f"stages need cells without parallel edges, and {kind!r} of space {space.name} has some")
        selectable = _both(kept, spec.selectable)
        for e, edge in enumerate(spec.edges):
            if any(k and not p for k, p in zip(kept[e], spec.present[e])):
                raise ValueError(f"edge {edge} of {kind!r} cannot keep an op that it does not have")
            if any(spec.selectable[e]) and not any(selectable[e]):
                raise ValueError(f"edge {edge} of {kind!r} must keep an op that a genotype may hold")
        cells[kind] = replace(spec, present=kept, selectable=selectable)
    return replace(space, cells=cells)


def widen_genotype(space: Space, genotype: Genotype) -> Genotype:
    """A genotype of a narrowed space as one of `space`. Raises InterfaceError for anything else, which a selection may return."""
    if not isinstance(genotype, Genotype):
        raise InterfaceError(f"a selection must return a Genotype, which space.genotype(cells) makes, got {seen(genotype)}")
    return space.genotype(dict(genotype.cells))


def strongest(space: Space, mean: EdgeWeights, keep: int) -> Candidates:
    """The `keep` candidates of each edge with the largest mean weight, all of an edge that has no more; of equals the last ones, since
    P-DARTS' official code drops the first (train_search.py, get_min_k). `none` counts among them, as there; where only such unselectable
    ops would stay, the weakest of them gives way to the strongest selectable one. Raises ValueError for `keep` below 1."""
    if keep < 1:
        raise ValueError(f"each edge must keep at least 1 candidate, got {keep}")
    check_shapes(space, mean)
    return {kind: tuple(_strongest_of_edge(spec, e, row, keep) for e, row in enumerate(_table(mean[kind].ops)))
            for kind, spec in space.cells.items()}


def _table(ops: Tensor) -> list[list[float]]:
    """(E, O) from that, or from (L, E, O) as the mean over layers."""
    table = ops.detach().double()
    return (table.mean(0) if table.dim() == 3 else table).tolist()


def _strongest_of_edge(spec: CellSpec, e: int, row: Sequence[float], keep: int) -> tuple[bool, ...]:
    order = sorted((o for o, present in enumerate(spec.present[e]) if present), key=lambda o: (row[o], o), reverse=True)
    kept, allowed = order[:keep], [o for o in order if spec.selectable[e][o]]
    if allowed and not set(kept) & set(allowed):
        kept = [*kept[:-1], allowed[0]]
    return tuple(o in kept for o in range(len(spec.ops)))


def _both(a: Mask, b: Mask) -> Mask:
    return tuple(tuple(x and y for x, y in zip(*rows)) for rows in zip(a, b))


def start_anew(old: Bilevel, new: Bilevel) -> None:
    """The next stage takes nothing over (P-DARTS, official code)."""


def carry_over(old: Bilevel, new: Bilevel) -> None:
    """The next stage goes on from the one before (DrNAS): weights and running statistics by name (`inherit_widened`), alphas, the state of
    both optimizers, that of the penalties, of the hypergradient and of the task, and the weight decay, which a monitor may have raised.
    Momenta are widened as their weights are [official code]. Monitors start anew.

    Raises ValueError where the new network has entries that the old one lacks.
    """
    inherit_widened(new.net, old.net)
    new.relaxation.load_state_dict(old.relaxation.state_dict())
    new.relaxation.after_inherit()
    carry_optimizer(old.w_optimizer, dict(old.net.named_parameters()), new.w_optimizer, dict(new.net.named_parameters()))
    carry_weight_decay(old, new)
    if old.alpha_optimizer is not None and new.alpha_optimizer is not None:
        carry_optimizer(old.alpha_optimizer, dict(old.relaxation.named_parameters()), new.alpha_optimizer,
                        dict(new.relaxation.named_parameters()))
    for before, after in zip(old.penalties, new.penalties, strict=True):
        after.load_state_dict(before.state_dict())
    new.memory.load_state_dict(old.memory.state_dict())
    new.streams.load_state_dict(old.streams.state_dict())


def carry_weight_decay(old: Bilevel, new: Bilevel) -> None:
    for before, after in zip(old.w_optimizer.param_groups, new.w_optimizer.param_groups, strict=True):
        if "weight_decay" in before:
            after["weight_decay"] = before["weight_decay"]


def carry_optimizer(old: torch.optim.Optimizer, old_parameters: Mapping[str, Tensor], new: torch.optim.Optimizer,
                    new_parameters: Mapping[str, Tensor]) -> None:
    """The state of each parameter by its name, momenta `widened` as their weights are."""
    for name, p in new_parameters.items():
        before = old_parameters[name]
        for key, value in old.state.get(before, {}).items():
            if torch.is_tensor(value):
                value = torch.empty_like(p).copy_(widened(value, p.shape)) if value.shape == before.shape else value.clone()
            new.state[p][key] = value


@dataclass(frozen=True)
class Stage:
    """epochs: at least 1. keep: candidates that an edge keeps at its end; None in the last stage, after which one is selected. candidates:
    those that it has, where they do not depend on the search; then the stage before keeps None. hand_over: what it takes from the stage
    before, where that is not what all take."""

    epochs: int
    keep: int | None = None
    candidates: Candidates | None = None
    hand_over: Callable[[Bilevel, Bilevel], None] | None = None


Make = Callable[[int, Space, SearchLoop | None], SearchLoop]


class Stages:
    """A search in one stage or several. `loop` is the current one. candidates: those of the first stage, where not all of the space's.

    make(index, space, before): the loop of a stage on the narrowed `space`; where there is a loop `before`, it goes on with that one's
    position, records, data and generators. hand_over: what a stage takes from the one before, `carry_over` or `start_anew`.
    """

    def __init__(self, space: Space, plan: Sequence[Stage], make: Make, hand_over: Callable[[Bilevel, Bilevel], None] = start_anew,
                 candidates: Candidates | None = None):
        if not plan or plan[-1].keep is not None or any((stage.keep is None) == (after.candidates is None)
                                                        for stage, after in zip(plan, plan[1:])):
            raise ValueError(f"each stage but the last must say how many candidates are kept, got {list(plan)}")
        self.space, self.plan, self.make, self.hand_over = space, list(plan), make, hand_over
        self.index, self.candidates = 0, space.candidates() if candidates is None else candidates
        self.loop = make(0, space if candidates is None else narrowed(space, candidates), None)

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.plan)

    @property
    def is_last(self) -> bool:
        return self.index == len(self.plan) - 1

    def advance(self) -> None:
        """Goes to the next stage, with the candidates that it names, or without the weakest ones."""
        before, after = self.loop, self.plan[self.index + 1]
        candidates = after.candidates
        if candidates is None:
            candidates = strongest(before.space, before.search.relaxation.mean().detach(), self.plan[self.index].keep)
        self._enter(self.index + 1, candidates)
        (after.hand_over or self.hand_over)(before.search, self.loop.search)

    def _enter(self, index: int, candidates: Candidates) -> None:
        self.loop = self.make(index, narrowed(self.space, candidates), self.loop)
        self.index, self.candidates = index, candidates

    def describe(self) -> str:
        """One line."""
        masks = [row for mask in self.candidates.values() for row in mask]
        most = max(sum(row) for row in masks)
        return (f"stage {self.index + 1} of {len(self.plan)}: {self.plan[self.index].epochs} epochs, at most {most} candidates an edge, "
                f"{self.loop.space.count():.3g} architectures, {parameters(self.loop.search.net) / 1e6:.3f} M parameters")

    def stateful(self) -> "StatefulOfStage":
        """All that moves, by the name it has in a checkpoint."""
        return StatefulOfStage(self)

    def state_dict(self) -> dict[str, Any]:
        return {"index": self.index, "candidates": {kind: [list(row) for row in mask] for kind, mask in self.candidates.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Builds the loop of the stage that is told; what that loop's own parts held is to be loaded next."""
        candidates = {kind: tuple(map(tuple, rows)) for kind, rows in state["candidates"].items()}
        if (state["index"], candidates) != (self.index, dict(self.candidates)):
            self._enter(state["index"], candidates)


class StatefulOfStage(Mapping[str, Stateful]):
    """What moves in the current stage, after `stage`, which says which stage that is: once it is loaded, the others are those of the loop
    that it has built."""

    def __init__(self, stages: Stages):
        self.stages = stages

    def __getitem__(self, name: str) -> Stateful:
        return self.stages if name == "stage" else self.stages.loop.stateful()[name]

    def __iter__(self) -> Iterator[str]:
        yield "stage"
        yield from self.stages.loop.stateful()

    def __len__(self) -> int:
        return 1 + len(self.stages.loop.stateful())


def fit_stages(stages: Stages, recorder: Recorder) -> None:
    """Trains from where the search stands to the end of its last stage, or until a monitor ends it.

    Nothing is saved between the last epoch of a stage and the first step of the next; the way from the one to the other draws only from
    saved generators, so that a run which is gone on with takes it again, to the same bits.
    """
    while True:
        fit_supernet(stages.loop, stages.plan[stages.index].epochs, recorder)
        if stages.is_last or stages.loop.verdict.stopped is not None:
            return
        stages.advance()
        recorder.line(stages.describe())
