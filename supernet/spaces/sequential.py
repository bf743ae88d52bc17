"""The plain chain of general texts: `features`, then `head`, a layer in each place, or nothing.

No layer shares weights with another architecture's, so that there is no supernet: each architecture is trained alone.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from supernet.errors import UsageError
from supernet.genotype import Edge, Genotype, short
from supernet.ranges import Range, Side, ranged
from supernet.space import Candidates, CellSpec, Space

if TYPE_CHECKING:
    from ops.traits import OpTraits

MAX_LAYERS = 100  # of a part
ACTIVATIONS = ("relu", "relu6", "sigmoid", "tanh", "hard_swish", "swish", "gelu")
POOLINGS = ("max_pool", "avg_pool")
PRIMES = (2, 3, 5, 7)
LEAST_SIDE = 2  # pixels: a pool that would leave less does nothing
NOTHING = "nothing"
Places = Annotated[int, Range(1, MAX_LAYERS)]
Percent = Annotated[int, Range(1, 99)]


@ranged
def make(*, features: Sequence[Places] = (3, 7), head: Sequence[Places] = (1, 3),
         kernels: Sequence[Annotated[int, Range(1, 99)]] = (3, 5), filters: Sequence[Annotated[int, Range(1, 65_536)]] = (8, 16, 32),
         activations: Sequence[str] = ("relu", "tanh"), poolings: Sequence[str] = POOLINGS,
         pools: Sequence[Annotated[int, Range(2, 7)]] = (2, 3), units: Sequence[Annotated[int, Range(1, 65_536)]] = (32, 64, 128),
         dropouts: Sequence[Percent] = (10, 30, 50), side: Annotated[int, Range(LEAST_SIDE, 65_536)] = 28) -> Space:
    """One layer a place: in `features` a convolution (each of `kernels`, `filters` and `activations`), a pool (each of `poolings` and
    `pools`) or dropout of channels; in `head` a fully connected layer of so many `units`, with ReLU, or dropout. A classifier follows.

    features, head: [fewest, most] layers of each; places after the fewest may hold nothing. kernels: odd sides. pools: sides of windows,
    primes, so that the same windows are never made up of others. dropouts: percent; none for no such layer. side: pixels of the smaller
    side of the images, of which the space has to know how many pools they stand: one that would leave less than 2x2 does nothing. Larger
    images are read as well.
    """
    for name, bounds in (("features", features), ("head", head)):
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"space.{name} must be [fewest, most] layers, got {short(list(bounds))}")
    rules: dict[str, tuple[Sequence[Any], Callable[[Any], bool], str]] = {
        "kernels": (kernels, lambda k: k % 2 == 1, "odd"), "filters": (filters, lambda n: True, "at least 1"),
        "pools": (pools, lambda p: p in PRIMES, "primes, 2 to 7"), "units": (units, lambda n: True, "at least 1"),
        "activations": (activations, lambda a: a in ACTIVATIONS, f"of {', '.join(ACTIVATIONS)}"),
        "poolings": (poolings, lambda p: p in POOLINGS, f"of {', '.join(POOLINGS)}")}
    for name, (values, holds, rule) in rules.items():
        if not values or len(set(values)) != len(values) or not all(map(holds, values)):
            raise ValueError(f"space.{name} must be distinct, {rule}, at least one, got {short(list(values))}")
    if len(set(dropouts)) != len(dropouts):
        raise ValueError(f"space.dropouts must be distinct, got {short(list(dropouts))}")
    dropped = [f"dropout_{percent}" for percent in dropouts]
    layers = {
        "features": [f"conv_{k}x{k}_{n}_{a}" for k in kernels for n in filters for a in activations]
                    + [f"{how}_{p}x{p}" for how in poolings for p in pools] + dropped,
        "head": [f"fc_{n}" for n in units] + dropped}
    cells = {kind: _part(layers[kind], *bounds) for kind, bounds in (("features", features), ("head", head))}
    arguments = {name: list(values) for name, values in (
        ("features", features), ("head", head), ("kernels", kernels), ("filters", filters), ("activations", activations),
        ("poolings", poolings), ("pools", pools), ("units", units), ("dropouts", dropouts))} | {"side": side}
    return Space("sequential", arguments, cells, build, canonicalise, costs, auxiliary_head=False, describe=describe,
                 sizes={"layers": features[1] + head[1], "channels": max(filters)}, rules={"side": side})


def _part(layers: Sequence[str], fewest: int, most: int) -> CellSpec:
    edges = [(n, n + 1, [*layers, *([NOTHING] if n >= fewest else [])]) for n in range(most)]
    return CellSpec.listed(num_inputs=1, edges=edges, keep=None, outputs=(most,))


def describe(op: str) -> "OpTraits | None":
    from supernet.networks.sequential import describe  # imports torch

    return describe(op)


def canonicalise(space: Space, genotype: Genotype) -> Genotype:
    """What computes the same is the same. Pools that would leave less than 2x2 are nothing, and what is nothing stands last. Dropout of
    channels may stand before a pool or behind it: here behind. Pools of one way that follow each other, and dropouts that do, are ordered
    by their size. Where the fewest layers are not reached, the largest pool fills up, which does nothing there."""
    layers = effective(space, genotype)
    filler = {"features": f"{space.arguments['poolings'][0]}_{{0}}x{{0}}".format(max(space.arguments["pools"])), "head": NOTHING}
    cells = {}
    for kind, ops in zip(("features", "head"), layers, strict=True):
        fewest, most = space.arguments[kind]
        filled = [*ops, *[filler[kind]] * (fewest - len(ops)), *[NOTHING] * (most - max(fewest, len(ops)))]
        cells[kind] = [Edge(n + 1, n, op) for n, op in enumerate(filled)]
    return space.genotype(cells)


def effective(space: Space, genotype: Genotype) -> tuple[list[str], list[str]]:
    """The layers of `features` and of `head` that do anything, in canonical order."""
    side, alive = space.arguments["side"], []
    for op in _ops(genotype, "features"):
        if (size := _pool(op)) is not None:
            if side // size < LEAST_SIDE:
                continue
            side //= size
        alive.append(op)
    return list(_ordered(alive)), list(_ordered(_ops(genotype, "head")))


def _ops(genotype: Genotype, kind: str) -> list[str]:
    return [edge.op for edge in genotype[kind] if edge.op != NOTHING]


def _pool(op: str) -> int | None:
    """The side of a pool's windows."""
    how, _, window = op.rpartition("_")
    return int(window.partition("x")[0]) if how in POOLINGS else None


def _ordered(ops: Sequence[str]) -> Iterator[str]:
    """Between two layers that learn: the pools, then the dropouts."""
    for learns, run in groupby(ops, lambda op: _pool(op) is None and not op.startswith("dropout_")):
        if learns:
            yield from run
        else:
            between = list(run)
            pools = [op for op in between if _pool(op) is not None]
            for _, alike in groupby(pools, lambda op: op.rpartition("_")[0]):
                yield from sorted(alike, key=_pool)
            yield from sorted(op for op in between if _pool(op) is None)


def costs(space: Space, quantity: str, *, layers: int, channels: int, **sizes: Any) -> Any:
    """Parameters or multiply-adds, layer by layer. layers, channels: the space's own."""
    from supernet.costs.sequential import SequentialCost

    def held(genotype: Genotype) -> tuple[list[str], list[str]]:
        space.validate(genotype)
        return effective(space, genotype)

    return SequentialCost(quantity, held, **sizes)


@ranged
def build(space: Space, candidates: Candidates, *, layers: int, channels: int, norm: Any, num_classes: int, in_channels: int = 3,
          image_size: tuple[Side, Side] = (32, 32)) -> Any:
    """The network of one architecture, in its canonical form. Raises UsageError: `candidates` are of several, images are smaller than the
    space's; ValueError: `layers` or `channels` are not the space's."""
    from supernet.networks.sequential import SequentialNetwork

    if {"layers": layers, "channels": channels} != space.sizes:
        raise ValueError(f"layers and channels must be {space.sizes['layers']} and {space.sizes['channels']} in this space, got {layers} "
                         f"and {channels}")
    if (most := max(sum(row) for table in candidates.values() for row in table)) > 1:
        raise UsageError(f"space sequential shares no weights between architectures, so that there is no supernet: expected one layer in "
                         f"each place, got {most}; pass a searcher and evaluator=from_scratch")
    if min(image_size) < space.arguments["side"]:
        raise UsageError(f"space.side must be at most the smaller side of the images, {min(image_size)}, got {space.arguments['side']}: "
                         f"pass space.side={min(image_size)}")
    genotype = space.genotype({kind: [Edge(d, s, op) for (s, d), row in zip(spec.edges, candidates[kind])
                                      for op, held in zip(spec.ops, row) if held] for kind, spec in space.cells.items()})
    features, head = effective(space, genotype)
    return SequentialNetwork(features, head, norm=norm, in_channels=in_channels, image_size=image_size, num_classes=num_classes)
