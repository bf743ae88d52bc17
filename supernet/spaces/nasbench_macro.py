"""NAS-Bench-Macro (Su et al. 2021, "Prioritized Architecture Sampling with Monto-Carlo Tree Search", Sec. 4): 8 layers of 3 choices."""

from typing import Any

from supernet.genotype import Genotype
from supernet.ranges import Channels, ranged
from supernet.space import Candidates, CellSpec, Space
from supernet.spaces.chains import check_layers, costs

OPS = ("identity", "ir_3x3_e3", "ir_5x5_e6")  # the digits 0, 1 and 2 of the benchmark's architecture strings
STAGES = (2, 3, 3)  # layers in each; the first of a stage halves the image and doubles the channels
HEAD = 1280  # channels of the last convolution


def make() -> Space:
    """6,561 chains. The published networks have channels=32 in the stem."""
    layers = sum(STAGES)
    spec = CellSpec.listed(num_inputs=1, edges=[(n, n + 1, OPS) for n in range(layers)], keep=None, outputs=(layers,))
    return Space("nasbench_macro", {}, {"layers": spec}, build, canonicalise, costs, sizes={"layers": layers}, auxiliary_head=False)


def canonicalise(space: Space, genotype: Genotype) -> Genotype:
    """Identities behind the first layer of a stage are nothing, so that it does not matter where they stand: here last. The 6,561 chains
    are 3,969 networks, and the published table has exactly as many different rows."""
    ops, sorted_ops, start = [e.op for e in genotype["layers"]], [], 0
    for stage in STAGES:
        behind = ops[start + 1 : start + stage]
        sorted_ops += [ops[start], *sorted(behind, key=lambda op: op == "identity")]  # stable: the others keep their order
        start += stage
    return space.genotype({"layers": [e._replace(op=op) for e, op in zip(genotype["layers"], sorted_ops)]})


@ranged
def build(space: Space, candidates: Candidates, *, layers: int, channels: Channels, norm: Any, num_classes: int, in_channels: int = 3,
          image_size: tuple[int, int] = (32, 32)) -> Any:
    """The published skeleton with `channels` in the stem. Raises ValueError: `layers` is not the benchmark's 8."""
    from ops.mobile import LAYERS
    from supernet.networks.chain import ChainNetwork, Choices, MixedLayer

    check_layers(space, layers)
    shapes, width = [], channels
    for stage in STAGES:
        for n in range(stage):
            shapes.append((width, 2 * width, 2, norm) if n == 0 else (width, width, 1, norm))
            width = shapes[-1][1]
    choices = Choices(space.cells, candidates)
    made = [MixedLayer({name: LAYERS[name](*shape) for name in held}) for held, shape in zip(choices.of["layers"], shapes)]
    return ChainNetwork(choices, made, [{"layers": n} for n in range(layers)], in_channels=in_channels, stem=channels, last=width,
                        head=HEAD, num_classes=num_classes)
