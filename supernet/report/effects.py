"""What single changes do to an architecture: an edge taken out, an op replaced, any other step to a neighbour; by a table of architectures
that were trained alone, or by what a trained network answers on the same items before and after. Plain values."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from supernet.genotype import Edge, Genotype
from supernet.report.names import edge_labels, op_label
from supernet.report.statistics import paired_shares
from supernet.space import Space
from supernet.tables.table import Table

LEVEL = 0.95     # of every interval
MOST_ALIKE = 10**6  # architectures of a space in which those of the same function are looked for


@dataclass(frozen=True)
class Place:
    """An edge that an architecture keeps: the n-th of one kind of cell, and what it is called."""

    kind: str
    n: int
    source: int
    destination: int
    op: str
    label: str

    @property
    def edge(self) -> Edge:
        return Edge(self.destination, self.source, self.op)


@dataclass(frozen=True)
class Effect:
    """What a change does. accuracy: afterwards, percent. difference: less that of the architecture itself, points. Of items that were
    counted: standard_error and the 95 % interval (low, high) of that difference, in points, and `surely`, whether an interval that holds
    for all measured changes at once (Bonferroni) leaves out 0; None where the difference is no estimate from items. same_function:
    whether the changed architecture computes the same function by the rule of its space."""

    accuracy: float
    difference: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    surely: bool | None = None
    same_function: bool = False


@dataclass(frozen=True)
class Carried:
    """What one kept edge carries: the effect of taking it out, None where that is no architecture that could be asked for; and of each
    other op in its place, by op."""

    place: Place
    without: Effect | None
    instead: Mapping[str, Effect]


@dataclass(frozen=True)
class Step:
    """An architecture one change away: the change in words, its text, and its effect."""

    change: str
    text: str
    effect: Effect


@dataclass(frozen=True)
class View:
    """All effects by one judge. by: `shared weights`, `own weights` or `table`. on: what it says things about, sentences. accuracy: of the
    architecture itself, percent. carried: in the order of `places`. steps: best first, all that could be judged. unjudged: neighbours that
    the judge knows nothing of."""

    by: str
    on: tuple[str, ...]
    accuracy: float
    carried: tuple[Carried, ...]
    steps: tuple[Step, ...]
    unjudged: int = 0


def places(space: Space, genotype: Genotype) -> list[Place]:
    """Every kept edge, in the genotype's order."""
    found = []
    for kind, edges in genotype.cells:
        spec = space.cells[kind]
        labels = edge_labels(spec.edges, spec.num_inputs, kind)
        found += [Place(kind, n, edge.source, edge.destination, edge.op, labels[e])
                  for n, (edge, (e, _)) in enumerate(zip(edges, spec.rows(edges)))]
    return found


def taken_out(space: Space, genotype: Genotype, place: Place) -> Genotype | None:
    """The architecture without an edge: where its node need not keep it, or where the op `none` may stand on it. None where the space has
    none such."""
    kept = list(genotype[place.kind])
    edge = kept.pop(place.n)
    spec = space.cells[place.kind]
    low, _ = spec.keep[edge.destination - spec.num_inputs]
    if sum(e.destination == edge.destination for e in kept) < low:
        if edge.op == "none" or "none" not in spec.choices(edge.destination)[edge.source][1]:
            return None
        kept.append(edge._replace(op="none"))
    return space.genotype({**dict(genotype.cells), place.kind: kept})


def in_place(space: Space, genotype: Genotype, place: Place) -> dict[str, Genotype]:
    """The architectures with each other op on one edge, by op."""
    kept = list(genotype[place.kind])
    edge = kept.pop(place.n)
    held = () if space.cells[place.kind].ops_per_edge == 1 else kept  # no edge holds one op twice
    others = {op: edge._replace(op=op) for op in space.cells[place.kind].choices(edge.destination)[edge.source][1] if op != edge.op}
    return {op: space.genotype({**dict(genotype.cells), place.kind: [*kept, other]}) for op, other in others.items() if other not in held}


def change_text(space: Space, before: Genotype, after: Genotype) -> str:
    """What differs between an architecture and a neighbour, in words."""
    said = []
    for kind, edges in after.cells:
        spec = space.cells[kind]
        labels = dict(zip(spec.edges, edge_labels(spec.edges, spec.num_inputs, kind)))
        gone, new = (list((Counter(a) - Counter(b)).elements()) for a, b in ((before[kind], edges), (edges, before[kind])))
        named = "" if len(space.cells) == 1 else f"{kind} cell, "

        def text(edge: Edge, labels: Mapping[tuple[int, int], str] = labels) -> str:
            return f"{op_label(edge.op)} on {labels[edge.source, edge.destination]}"

        for old, now in zip(gone, new):
            same = (old.source, old.destination) == (now.source, now.destination)
            said.append(f"{named}{text(now)} in place of {op_label(old.op) if same else text(old)}")
        said += [f"{named}without {text(old)}" for old in gone[len(new):]] + [f"{named}{text(now)} added" for now in new[len(gone):]]
    return "; ".join(said)


def by_table(space: Space, genotype: Genotype, table: Table, column: str, on: Sequence[str]) -> View:
    """What a column of a table (percent, higher is better) says. Raises TableError: it does not have the architecture itself."""
    own = table.value(genotype, column)
    alike = space.canonical(genotype) if space.count() <= MOST_ALIKE else None

    def effect(other: Genotype | None) -> Effect | None:
        if other is None or space.text(other) not in known:
            return None
        value = known[space.text(other)]
        return None if np.isnan(value) else Effect(value, value - own, same_function=alike is not None and space.canonical(other) == alike)

    known = dict(zip(table.texts, table.column(column).tolist()))
    return _view("table", space, genotype, on, own, effect, lambda place: effect(taken_out(space, genotype, place)))


def by_answers(by: str, space: Space, genotype: Genotype, on: Sequence[str], own: np.ndarray, others: Mapping[Genotype, np.ndarray],
               without: Mapping[tuple[str, int], np.ndarray]) -> View:
    """What a network's answers say: `own`, bool (N,), whether each of N items is right; `others` the same of changed architectures,
    `without` with an edge, (kind, n), taken out. What is in neither is not judged."""
    tests = max(1, len(others) + len(without))

    def paired(answers: np.ndarray | None) -> Effect | None:
        if answers is None:
            return None
        counts = int((answers & ~own).sum()), int((own & ~answers).sum()), len(own)
        found, wide = paired_shares(*counts, level=LEVEL), paired_shares(*counts, level=1 - (1 - LEVEL) / tests)
        return Effect(100 * float(answers.mean()), *(100 * value for value in found), surely=wide.low > 0 or wide.high < 0)

    return _view(by, space, genotype, on, 100 * float(own.mean()), lambda other: paired(others.get(other)),
                 lambda place: paired(without.get((place.kind, place.n))))


def _view(by: str, space: Space, genotype: Genotype, on: Sequence[str], accuracy: float, effect: Callable[[Genotype], Effect | None],
          without: Callable[[Place], Effect | None]) -> View:
    carried = []
    for place in places(space, genotype):
        effects = {op: effect(other) for op, other in in_place(space, genotype, place).items()}
        carried.append(Carried(place, None if place.op == "none" else without(place),
                               {op: found for op, found in effects.items() if found is not None}))
    around = [(other, effect(other)) for other in space.neighbours(genotype)]
    steps = [Step(change_text(space, genotype, other), space.text(other), found) for other, found in around if found is not None]
    steps.sort(key=lambda step: -step.effect.difference)  # stable: equals in the space's order
    return View(by, tuple(on), accuracy, tuple(carried), tuple(steps), len(around) - len(steps))
