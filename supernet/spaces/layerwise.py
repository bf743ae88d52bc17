"""A chain whose layers decide kernel, expansion, width, activation, dropout, pooling and depth, each on its own.

The layer-wise space of MnasNet (Tan et al. 2019), FBNetV2 (Wan et al. 2020) and Once-for-all (Cai et al. 2020) in one: a decision has its
own table of weights, one row a layer. Nothing published has exactly these choices; the defaults are ours.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from supernet.genotype import Genotype, short
from supernet.ranges import Channels, Range, ranged
from supernet.space import Candidates, CellSpec, Space
from supernet.spaces.chains import check_layers, costs

MAX_LAYERS = 100
Length = Annotated[int, Range(1, 1000)]
Percent = Annotated[int, Range(0, 100)]
NO_POOL = "no_pool"  # the one choice of `pooling` in layers that keep the image's size; its weight is not read
OF_THE_BLOCK = ("activation", "dropout", "expansion", "kernel")  # decisions that matter only where a layer runs


@ranged
def make(*, stages: Sequence[Sequence[Length]] = ((1, 2), (2, 2), (4, 2)), kernels: Sequence[Length] = (3, 5, 7),
         expansions: Sequence[Length] = (1, 3, 6), widths: Sequence[Percent] = (50, 75, 100),
         activations: Sequence[str] = ("relu", "sigmoid", "hard_swish"),
         dropouts: Sequence[Percent] = (0, 20), poolings: Sequence[str] = ("max_pool", "avg_pool"), skippable: bool = True) -> Space:
    """One row of choices a layer.

    stages: [channels as a multiple of the stem's, layers] of each; all but the first begin by halving the image. kernels: odd sides.
    expansions: hidden channels as a multiple of a layer's input at full width. widths, dropouts: percent. poolings: how an image is
    halved. skippable: whether layers that keep their shape may be skipped, so that depth is searched.
    """
    if not stages or not all(isinstance(s, list | tuple) and len(s) == 2 and all(type(v) is int and v >= 1 for v in s) for s in stages):
        raise ValueError(f"space.stages must list [channel multiple, layers] of each stage, both at least 1, got {short(stages)}")
    if sum(n for _, n in stages) > MAX_LAYERS:
        raise ValueError(f"space.stages may hold at most {MAX_LAYERS} layers, got {sum(n for _, n in stages)}")
    rules = {"kernels": (kernels, lambda k: k % 2 == 1 and k > 0, "odd"), "expansions": (expansions, lambda e: e >= 1, "at least 1"),
             "widths": (widths, lambda w: 1 <= w <= 100, "percent, 1 to 100"),
             "dropouts": (dropouts, lambda d: 0 <= d < 100, "percent, 0 to 99")}
    for name, (values, holds, rule) in rules.items():
        if not values or len(set(values)) != len(values) or not all(type(v) is int and holds(v) for v in values):
            raise ValueError(f"space.{name} must be distinct whole numbers, {rule}, got {short(list(values))}")
    from_names = {"activations": (activations, ("relu", "relu6", "sigmoid", "tanh", "hard_swish", "swish", "gelu")),
                  "poolings": (poolings, ("max_pool", "avg_pool"))}
    for name, (values, known) in from_names.items():
        if not values or len(set(values)) != len(values) or not set(values) <= set(known):
            raise ValueError(f"space.{name} must be distinct, of {', '.join(known)}, got {short(list(values))}")
    choices = {
        "kernel": [f"kernel_{k}" for k in kernels], "expansion": [f"expansion_{e}" for e in expansions],
        "width": [f"width_{w}" for w in widths], "activation": list(activations), "dropout": [f"dropout_{d}" for d in dropouts],
    }
    layers = sum(n for _, n in stages)
    cells = {kind: _decision([names] * layers) for kind, names in choices.items()}
    begins = [layer > 0 and n == 0 for layer, n in enumerate(n for _, length in stages for n in range(length))]
    may_skip = [skippable and _keeps_shape(stages, layer) for layer in range(layers)]
    cells["depth"] = _decision([["run", "skip"] if skip else ["run"] for skip in may_skip])
    if any(begins):
        cells["pooling"] = _decision([list(poolings) if begin else [NO_POOL] for begin in begins])
    arguments = {"stages": [list(s) for s in stages], "kernels": list(kernels), "expansions": list(expansions), "widths": list(widths),
                 "activations": list(activations), "dropouts": list(dropouts), "poolings": list(poolings), "skippable": skippable}
    return Space("layerwise", arguments, cells, build, canonicalise, costs, sizes={"layers": layers}, auxiliary_head=False)


def canonicalise(space: Space, genotype: Genotype) -> Genotype:
    """What a skipped layer would have computed is the first choice of each decision: nothing of it is in the network. Its width stays,
    for the mask acts on what passes."""
    skipped = {e.destination for e in genotype["depth"] if e.op == "skip"}
    cells = {kind: [e._replace(op=space.cells[kind].ops[0]) if kind in OF_THE_BLOCK and e.destination in skipped else e for e in edges]
             for kind, edges in genotype.cells}
    return space.genotype(cells)


def _decision(choices: Sequence[Sequence[str]]) -> CellSpec:
    """One decision a layer: a chain whose edge n holds the choices of layer n."""
    return CellSpec.listed(num_inputs=1, edges=[(n, n + 1, own) for n, own in enumerate(choices)], keep=None, outputs=(len(choices),))


def _keeps_shape(stages: Sequence[Sequence[int]], layer: int) -> bool:
    """Whether a layer reads as many channels, at full width, as it gives, of an image of the same size."""
    multiples = [(multiple, n) for multiple, length in stages for n in range(length)]
    before = 1 if layer == 0 else multiples[layer - 1][0]
    multiple, place = multiples[layer]
    return multiple == before and (place > 0 or layer == 0)


@ranged
def build(space: Space, candidates: Candidates, *, layers: int, channels: Channels, norm: Any, num_classes: int, in_channels: int = 3,
          image_size: tuple[int, int] = (32, 32), head: Channels = 256) -> Any:
    """The chain with `channels` in the stem; a layer is as wide as the largest width that `candidates` hold. head: channels of the last
    convolution. Raises ValueError: `layers` is not the space's."""
    from supernet.networks.chain import ChainNetwork, Choices, FactorisedLayer

    stages = space.arguments["stages"]
    check_layers(space, layers)
    choices = Choices(space.cells, candidates)
    made, edges_of = [], []
    full, built = channels, channels  # of the input at full width, and as built here
    multiples = [multiple for multiple, length in stages for _ in range(length)]
    begins = [n == 0 for _, length in stages for n in range(length)]
    for layer, (multiple, begin) in enumerate(zip(multiples, begins)):
        edges = {kind: layer for kind in space.cells if kind != "pooling"}
        if begin and layer > 0:
            edges["pooling"] = layer
        own = {kind: tuple(choices.of[kind][e]) for kind, e in edges.items()}
        made.append(FactorisedLayer(
            own, channels_in=built, full_width=multiple * channels,
            residual=_keeps_shape(stages, layer), norm=norm,
            expansions={name: full * int(name.removeprefix("expansion_")) for name in own["expansion"]},
            widths={name: channels_at(multiple * channels, name) for name in own["width"]}))
        edges_of.append(edges)
        full, built = multiple * channels, made[-1].channels_out
    return ChainNetwork(choices, made, edges_of, in_channels=in_channels, stem=channels, last=built, head=head, num_classes=num_classes)


def channels_at(full: int, width: str) -> int:
    """Channels of a layer that has `full` at width_100: rounded, at least one."""
    return max(1, round(full * int(width.removeprefix("width_")) / 100))
