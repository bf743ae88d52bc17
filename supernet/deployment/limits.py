"""What a deployed network may take: quantities, and limits of them that hold to the last digit."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from supernet.costs.additive import Additive
from supernet.costs.chain import ChainCost, Term
from supernet.costs.exact import Row
from supernet.errors import UsageError, did_you_mean
from supernet.genotype import Edge, Genotype, short
from supernet.passes import extremes
from supernet.ranges import LARGEST
from supernet.space import Space

SWEEP = "sweep"
TRIES = 5  # random starts of a descent to an architecture within all limits


@dataclass
class Quantity:
    """of: what an architecture takes, the value that a limit holds for. plan: what a search goes by, a sum of tables; the quantity itself
    where it is `counted`, else a model of it that is made from values of `of`, which takes time. error: the model's, as a share of the
    value (median over architectures that it was not made from); 0 where there is none."""

    name: str
    unit: str
    of: Callable[[Genotype], float]
    plan: ChainCost
    counted: bool
    error: float = 0.0


@dataclass(frozen=True)
class Bound:
    quantity: Quantity
    limit: float

    def excess(self, genotype: Genotype) -> float:
        """By the plan: how far above the limit, as a share of it; negative below."""
        return self.quantity.plan(genotype) / self.limit - 1

    def holds(self, genotype: Genotype) -> bool:
        """By the quantity itself."""
        return self.quantity.of(genotype) <= self.limit


def chain_cost(cost: ChainCost | Additive) -> ChainCost:
    """A sum over edges as one over terms."""
    if type(cost) is ChainCost:
        return cost
    import torch

    terms = [Term((), torch.tensor(cost.constant, dtype=torch.float64))]
    terms += [Term(((kind, e),), torch.from_numpy(row.copy())) for kind, table in cost.tables.items() for e, row in enumerate(table)]
    made = ChainCost(cost.space, terms, cost.name)
    made.unit = cost.unit
    return made


def read_limits(given: object, known: Sequence[str]) -> tuple[dict[str, float], str | None]:
    """What `limits=` says: the limits by name, and the quantity whose limits are swept over, None for none. Raises UsageError."""
    how = f"limits must be {{{known[0]}:NUMBER, ...}} of {', '.join(known)}, or {SWEEP}"
    if given == SWEEP:
        return {}, known[0]
    if not isinstance(given, Mapping) or not given:
        raise UsageError(f"{how}, got {short(given)}")
    found, swept = {}, []
    for name, limit in given.items():
        if name not in known:
            raise UsageError(f"{how}, got {short(name)}{did_you_mean(str(name), known)}")
        if limit == SWEEP:
            swept.append(name)
        elif type(limit) not in (int, float) or not 0 < limit <= LARGEST:
            raise UsageError(f"limits.{name} must be positive and finite, or {SWEEP}, got {short(limit)}")
        else:
            found[name] = float(limit)
    if len(swept) > 1:
        raise UsageError(f"one quantity is swept over, got {' and '.join(swept)}")
    return found, swept[0] if swept else None


def spread(low: float, high: float, points: int) -> list[float]:
    """So many limits up to `high`, each by the same factor above the one before it, `low` being the one before the first."""
    return [high if n == points else low * (high / low) ** (n / points) for n in range(1, points + 1)]


def name_of(limits: Mapping[str, float]) -> str:
    """Of a folder: letters, digits and points. `all` where there is no limit."""
    return "_".join(f"{name}_{limit:.6g}".replace("+", "") for name, limit in limits.items()) or "all"


# ---- architectures within limits


def worst(bounds: Iterable[Bound], genotype: Genotype) -> float:
    """The largest excess; minus infinity where there are no bounds."""
    return max((bound.excess(genotype) for bound in bounds), default=-math.inf)


Chosen = dict[Row, int]  # by decision, the column of its choice


def chosen_by(space: Space, genotype: Genotype) -> Chosen:
    return {(kind, e): o for kind, spec in space.cells.items() for e, o in spec.rows(genotype[kind])}


def genotype_of(space: Space, chosen: Chosen) -> Genotype:
    """The inverse of `chosen_by`."""
    return space.genotype({kind: [Edge(d, s, spec.ops[chosen[kind, e]]) for e, (s, d) in enumerate(spec.edges)]
                           for kind, spec in space.cells.items()})


def planned(cost: ChainCost, chosen: Chosen) -> float:
    """As `cost(genotype)`, to the bit, without looking at whether it is one: a search asks some thousand times."""
    return sum(term.table.numpy()[tuple(chosen[row] for row in term.rows)].item() for term in cost.terms)


def within(space: Space, bounds: Sequence[Bound]) -> Genotype | None:
    """An architecture within all bounds, by their plans, or None where none was found: from the least of each quantity, and from random
    ones, by single changes that take away most of what is too much. The same at every call."""
    rng = random.Random(0)
    starts = [extremes(space, bound.quantity.plan)[0] for bound in bounds] + [space.sample(rng) for _ in range(TRIES)]
    for genotype in starts:
        chosen = chosen_by(space, genotype)
        here = _too_much(bounds, chosen)
        while here > 0:
            there, place, o = min((_too_much(bounds, chosen | {place: o}), place, o) for place, o in _changes(space, chosen))
            if there >= here:
                break
            here, chosen[place] = there, o
        if here <= 0:
            return space.canonical(genotype_of(space, chosen))
    return None


def _changes(space: Space, chosen: Chosen) -> Iterator[tuple[Row, int]]:
    for kind, spec in space.cells.items():
        for e, row in enumerate(spec.selectable):
            yield from (((kind, e), o) for o, may in enumerate(row) if may and o != chosen[kind, e])


def _too_much(bounds: Iterable[Bound], chosen: Chosen) -> float:
    return sum(max(0.0, planned(bound.quantity.plan, chosen) / bound.limit - 1) for bound in bounds)


def repaired(space: Space, genotype: Genotype, bounds: Sequence[Bound], anchor: Genotype, rng: random.Random) -> Genotype:
    """The genotype with so many decisions, in random order, as `anchor` makes them, that it is within the bounds, as the anchor is."""
    chosen, least = chosen_by(space, genotype), chosen_by(space, anchor)
    places = list(chosen)
    rng.shuffle(places)
    for place in places:
        if _too_much(bounds, chosen) <= 0:
            break
        chosen[place] = least[place]
    return genotype_of(space, chosen)


def none_within(space: Space, bounds: Sequence[Bound]) -> str:
    said = ", ".join(f"{bound.quantity.name} {bound.limit:,.6g}" for bound in bounds)
    return f"found no architecture of {space.name} within all of {said}, though each can be kept alone: raise one of them"
