"""The MnasNet-like space of Accel-NASBench (Ahmad et al. 2024): 7 blocks, each with its expansion, kernel, layers and squeeze-excitation.

Parameters and multiply-adds of all 5,138 networks that the benchmark trained on ImageNet are those of its table
(`tests/test_accel_mnasnet.py`), so the skeleton is known: that of EfficientNet-B0 (Tan and Le 2019), squeeze-and-excitation to a quarter of
a layer's input channels. The activation changes neither; swish, as in EfficientNet, is unconfirmed.
"""

from typing import Annotated, Any

from supernet.ranges import Channels, Range, ranged
from supernet.space import Candidates, CellSpec, Space
from supernet.spaces.chains import check_layers, costs

STAGES = ((16, 1), (24, 2), (40, 2), (80, 2), (112, 1), (192, 2), (320, 1))  # channels at 32 in the stem, stride
EXPANSIONS, KERNELS = (1, 4, 6), (3, 5)
DEEPEST = (3, 3, 3, 3, 3, 4, 3)  # layers; the paper says 1 to 3, a fifth of its networks have 4 in the sixth block
HEAD = 1280
Stride = Annotated[int, Range(1, 2)]


@ranged
def make(*, stem_stride: Stride = 2) -> Space:
    """36^6 * 48 networks. stem_stride: 2 as published, 1 for small images. The published networks have channels=32 in the stem, and read
    images of 224 pixels."""
    blocks = len(STAGES)
    choices = {"expansion": [[f"expansion_{e}" for e in EXPANSIONS]] * blocks, "kernel": [[f"kernel_{k}" for k in KERNELS]] * blocks,
               "depth": [[f"depth_{n + 1}" for n in range(deepest)] for deepest in DEEPEST], "squeeze": [["no_se", "se"]] * blocks}
    cells = {kind: CellSpec.listed(num_inputs=1, edges=[(n, n + 1, row) for n, row in enumerate(rows)], keep=None, outputs=(blocks,))
             for kind, rows in choices.items()}
    return Space("accel_mnasnet", {"stem_stride": stem_stride}, cells, build, costs=costs, sizes={"layers": len(STAGES)},
                 auxiliary_head=False)


@ranged
def build(space: Space, candidates: Candidates, *, layers: int, channels: Channels, norm: Any, num_classes: int, in_channels: int = 3,
          image_size: tuple[int, int] = (32, 32)) -> Any:
    """The published skeleton, all its widths times channels / 32. Raises ValueError: `layers` is not the 7 blocks."""
    from supernet.networks.chain import Choices
    from supernet.networks.elastic import ElasticNetwork, Squeeze, StagePlan, divisible, number

    check_layers(space, layers)
    choices = Choices(space.cells, candidates)
    plans = []
    for n, (width, stride) in enumerate(STAGES):
        depths = {name: number(name) for name in choices.of["depth"][n]}
        block = {kind: tuple(choices.of[kind][n]) for kind in ("expansion", "kernel", "squeeze")}
        rows = dict.fromkeys(block, n)  # all layers of a block decide together
        plans.append(StagePlan(divisible(width * channels / 32), stride, "swish", [block] * DEEPEST[n], [rows] * DEEPEST[n],
                               depths, n, KERNELS))
    return ElasticNetwork(choices, plans, in_channels=in_channels, stem=channels, stem_stride=space.arguments["stem_stride"],
                          activation="swish", head=HEAD, mix=None, squeeze=Squeeze("input", 0.25, "swish", "sigmoid"), transforms=False,
                          sides={}, num_classes=num_classes, norm=norm)
