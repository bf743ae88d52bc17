"""The MobileNetV3 space of Once-for-all (Cai et al. 2020, Sec. 4.1): kernels 3, 5, 7, expansions 3, 4, 6, 2 to 4 layers in each of 5
stages, and the side of the image. Skeleton, activations and squeeze-and-excitation are those of MobileNetV3-Large (Howard et al. 2019)."""

from collections.abc import Sequence
from typing import Annotated, Any

from supernet.genotype import Genotype, short
from supernet.ranges import Channels, Range, ranged
from supernet.space import Candidates, CellSpec, Space
from supernet.spaces.chains import check_layers, costs

# Channels at 16 in the stem, stride, activation, squeeze-and-excitation (Howard et al. 2019, Table 1).
STAGES = ((24, 2, "relu", False), (40, 2, "relu", True), (80, 2, "hard_swish", False), (112, 1, "hard_swish", True),
          (160, 2, "hard_swish", True))
STEM, HEAD, MIX = 16, 960, 1280
Odd = Annotated[int, Range(1, 31)]
Expansion = Annotated[int, Range(1, 64)]
Layers = Annotated[int, Range(1, 20)]
Side = Annotated[int, Range(8, 2048)]
Stride = Annotated[int, Range(1, 2)]


@ranged
def make(*, kernels: Sequence[Odd] = (3, 5, 7), expansions: Sequence[Expansion] = (3, 4, 6), depths: Sequence[Layers] = (2, 3, 4),
         sides: Sequence[Side] = (), strides: Sequence[Stride] = (2, 2, 2, 1, 2), stem_stride: Stride = 2,
         transforms: bool = True) -> Space:
    """Kernel and expansion are decided layer by layer, depth stage by stage, the side once.

    sides: of the image, in pixels (published: 128 to 224 in steps of 4); with none, or one that is the data's, images stay as they are.
    strides: of the five stages, all 2 or 1, so that small images stay large enough. transforms: smaller kernels are learned maps of the
    centre of larger ones, as published. Published networks have channels=16 in the stem.
    """
    for name, values in (("kernels", kernels), ("expansions", expansions), ("depths", depths), ("sides", sides or (0,))):
        if not values or len(set(values)) != len(values):
            raise ValueError(f"space.{name} must be distinct whole numbers, got {short(list(values))}")
    if any(k % 2 == 0 for k in kernels):
        raise ValueError(f"space.kernels must be odd, got {short(list(kernels))}")
    if len(strides) != len(STAGES):
        raise ValueError(f"space.strides must be {len(STAGES)} numbers, one a stage, got {short(list(strides))}")
    layers = len(STAGES) * max(depths)
    choices = {"kernel": [[f"kernel_{k}" for k in kernels]] * layers, "expansion": [[f"expansion_{e}" for e in expansions]] * layers,
               "depth": [[f"depth_{n}" for n in depths]] * len(STAGES)}
    if sides:
        choices["side"] = [[f"side_{n}" for n in sides]]
    cells = {kind: CellSpec.listed(num_inputs=1, edges=[(n, n + 1, row) for n, row in enumerate(rows)], keep=None, outputs=(len(rows),))
             for kind, rows in choices.items()}
    arguments = {"kernels": list(kernels), "expansions": list(expansions), "depths": list(depths), "sides": list(sides),
                 "strides": list(strides), "stem_stride": stem_stride, "transforms": transforms}
    return Space("ofa_mobilenet", arguments, cells, build, canonicalise, costs, sizes={"layers": layers}, auxiliary_head=False,
                 rules={"strides": list(strides), "stem_stride": stem_stride})


def canonicalise(space: Space, genotype: Genotype) -> Genotype:
    """What a layer behind a stage's last would have computed is the first choice of each decision: nothing of it is in the network."""
    deepest = max(space.arguments["depths"])
    depth = [int(e.op.removeprefix("depth_")) for e in genotype["depth"]]
    left_out = {stage * deepest + n + 1 for stage, runs in enumerate(depth) for n in range(runs, deepest)}
    cells = {kind: [e._replace(op=space.cells[kind].ops[0]) if kind in ("kernel", "expansion") and e.destination in left_out else e
                    for e in edges] for kind, edges in genotype.cells}
    return space.genotype(cells)


@ranged
def build(space: Space, candidates: Candidates, *, layers: int, channels: Channels, norm: Any, num_classes: int, in_channels: int = 3,
          image_size: tuple[int, int] = (32, 32)) -> Any:
    """All widths times channels / 16. Raises ValueError: `layers` is not the space's."""
    from supernet.networks.chain import Choices
    from supernet.networks.elastic import ElasticNetwork, Squeeze, StagePlan, divisible, number

    check_layers(space, layers)
    deepest, kernels = max(space.arguments["depths"]), space.arguments["kernels"]
    choices = Choices(space.cells, candidates)

    def wide(width: int) -> int:
        return divisible(width * channels / STEM)

    fixed = {"kernel": ("kernel_3",), "expansion": ("expansion_1",), "squeeze": ("no_se",)}
    plans = [StagePlan(channels, 1, "relu", [fixed], [{}], {"depth_1": 1}, None, (3,))]  # the first block decides nothing
    for stage, (width, _, activation, squeezes) in enumerate(STAGES):
        edges = [dict.fromkeys(("kernel", "expansion"), stage * deepest + n) for n in range(deepest)]
        blocks = [{kind: tuple(choices.of[kind][e]) for kind, e in own.items()} | {"squeeze": ("se" if squeezes else "no_se",)}
                  for own in edges]
        depths = {name: number(name) for name in choices.of["depth"][stage]}
        plans.append(StagePlan(wide(width), space.arguments["strides"][stage], activation, blocks, edges, depths, stage, kernels))
    sides = {name: number(name) for name in choices.of["side"][0]} if "side" in space.cells else {}
    return ElasticNetwork(choices, plans, in_channels=in_channels, stem=channels, stem_stride=space.arguments["stem_stride"],
                          activation="hard_swish", head=wide(HEAD), mix=wide(MIX), squeeze=Squeeze("hidden", 0.25, "relu", "hard_sigmoid"),
                          transforms=space.arguments["transforms"], sides=sides, num_classes=num_classes, norm=norm)
