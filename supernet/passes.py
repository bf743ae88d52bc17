"""Which architectures a step of the shared weights runs, and what each of them learns from."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from torch import Tensor, nn

from supernet.costs.additive import counted
from supernet.costs.base import Cost
from supernet.costs.chain import ChainCost
from supernet.errors import UsageError
from supernet.genotype import Edge, Genotype
from supernet.ranges import Count, Positive, Share, ranged
from supernet.space import Space
from supernet.tasks.base import Result, Task
from supernet.weights import EdgeWeights, one_hot


@dataclass(frozen=True)
class Step:
    """One step of the weights on a batch. draw: the edge weights drawn for it; another(): a further draw. run(weights, task): the training
    loss under these; running statistics follow it, and all passes of a step see the same noise of the network's and the task's own
    (dropout, mixing). loss(weights): the task's, a scalar in training mode under that noise too, without gradients and without a trace."""

    net: nn.Module
    task: Task
    draw: EdgeWeights
    another: Callable[[], EdgeWeights]
    run: Callable[[EdgeWeights, Task], Result]
    loss: Callable[[EdgeWeights], Tensor]


# Each result's gradient is taken before the next one is asked for; gradients add up, and what is reported is the first one's.
Passes = Callable[[Step], Iterator[Result]]


@ranged
class Sandwich:
    """The largest architecture learns from the labels; the smallest and the drawn ones learn from its probabilities on the same images
    (the sandwich rule and in-place distillation: Yu and Huang 2019, Sec. 3.1 and 3.3; BigNAS, Yu et al. 2020, Sec. 3.1).

    draws: architectures drawn for a step, by the relaxation. distillation: how much of what the others learn comes from the largest, the
    rest from the labels (published: all). temperature: softens both, as in `tasks.distillation`. The sum of the losses is descended on, as
    published; what an epoch reports of training is the largest's.
    """

    def __init__(self, space: Space, net: nn.Module, *, draws: Count = 2, distillation: Share = 1.0, temperature: Positive = 1.0):
        check_chain(space)
        self.draws, self.distillation, self.temperature = draws, distillation, temperature
        self.alone = space.count() == 1  # where all are the largest, there is nobody to learn from it
        cost = work_of(space, net)
        like = next(net.parameters())
        self.smallest, self.largest = (one_hot(space, genotype, dtype=like.dtype, device=like.device) for genotype in extremes(space, cost))

    def __call__(self, step: Step) -> Iterator[Result]:
        logits: list[Tensor] = []
        hook = step.net.register_forward_hook(lambda module, arguments, output: logits.append(step.task.teaching(output)))
        try:
            first = step.run(self.largest, step.task)
        finally:
            hook.remove()
        yield first
        if self.alone:
            return
        taught = step.task.taught_by(lambda images: logits[0], self.temperature, self.distillation)
        yield step.run(self.smallest, taught)
        for n in range(self.draws):
            yield step.run(step.draw if n == 0 else step.another(), taught)


def check_chain(space: Space) -> None:
    """Raises UsageError: decisions are no single rows."""
    if not all(spec.is_chain for spec in space.cells.values()):
        raise UsageError(f"the smallest and the largest architecture are those of chains of decisions, space {space.name} is none")


def work_of(space: Space, net: nn.Module) -> Cost:
    """Multiply-adds of an image in the architectures of `space`, as large as they are in `net`."""
    return counted(space, "multiply_adds", **{name: value for name, value in net.built.sizes.items() if name != "norm"})


def extremes(space: Space, cost: Cost) -> tuple[Genotype, Genotype]:
    """The architectures of least and of most cost. Raises UsageError: decisions are no single rows."""
    check_chain(space)
    return extreme(cost, space, 1), extreme(cost, space, -1)


@singledispatch
def extreme(cost: Cost, space: Space, sign: int) -> Genotype:
    """Of least (sign 1) or most cost (-1): what single changes lead to from the first choices. That is the extreme of all where each
    decision has a cheapest choice whatever the others are; a sum of tables knows it for sure."""
    chosen: dict[str, list[Edge]] = {
        kind: [Edge(d, s, next(op for op, may in zip(spec.ops, row) if may)) for (s, d), row in zip(spec.edges, spec.selectable)]
        for kind, spec in space.cells.items()}
    best, better = sign * cost(space.genotype(chosen)), True
    while better:
        better = False
        for kind, spec in space.cells.items():
            for e, row in enumerate(spec.selectable):
                for op in (op for op, may in zip(spec.ops, row) if may):
                    before = chosen[kind][e]
                    chosen[kind][e] = before._replace(op=op)
                    value = sign * cost(space.genotype(chosen))
                    if value < best:
                        best, better = value, True
                    else:
                        chosen[kind][e] = before
    return space.genotype(chosen)


@extreme.register
def _(cost: ChainCost, space: Space, sign: int) -> Genotype:
    return cost.extreme(sign) or extreme.dispatch(object)(cost, space, sign)


def ordered(space: Space, cost: Cost, largest: Genotype, kinds: Iterable[str] | None = None) -> dict[str, list[list[int]]]:
    """By kind and edge, the choices of a chain in the order of their cost in the architecture that is the largest but for that decision,
    the largest first, of equals as the space lists them. kinds: of which; None for all."""
    chosen = {kind: list(edges) for kind, edges in largest.cells}
    found: dict[str, list[list[int]]] = {}
    for kind in space.cells if kinds is None else kinds:
        spec, found[kind] = space.cells[kind], []
        for e, row in enumerate(spec.selectable):
            own, sizes = chosen[kind][e], {}
            for o in (o for o, may in enumerate(row) if may):
                chosen[kind][e] = own._replace(op=spec.ops[o])
                sizes[o] = cost(space.genotype(chosen))
            chosen[kind][e] = own
            found[kind].append(sorted(sizes, key=lambda o: (-sizes[o], o)))
    return found


def check_passes(passes: Any, task: Task, sampled: bool) -> None:
    """sampled: whether draws are architectures. Raises UsageError: the task has no probabilities to learn from, or draws are mixtures
    where passes say (`choose`) that they choose among architectures."""
    if passes is not None and not all(callable(getattr(task, name, None)) for name in ("taught_by", "teaching")):
        raise UsageError(f"passes need a task whose networks can learn of one another, {type(task).__name__} has none: pass passes=null")
    if getattr(passes, "choose", False) and not sampled:
        raise UsageError("passes choose among architectures here, and this relaxation draws mixtures of them: pass wrapper=[steered], "
                         "which draws by its weights, or relaxation=uniform")
