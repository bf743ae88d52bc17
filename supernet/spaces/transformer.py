"""What the spaces of transformers share: the decisions, what layers that do not run decide, and the networks' plan (AutoFormer, Chen et al.
2021, Sec. 3.3: embedding dimension, and by layer heads and the ratio of the perceptron, and depth)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from supernet.genotype import Genotype, short
from supernet.ranges import Channels, Range
from supernet.space import Candidates, CellSpec, Space
from supernet.spaces.chains import costs

Heads = Annotated[int, Range(1, 1024)]
Ratio = Annotated[float, Range(0, 64, above=True)]
Depth = Annotated[int, Range(1, 256)]


def transformers(name: str, *, embeddings: Sequence[Channels], heads: Sequence[Heads], ratios: Sequence[Ratio], depths: Sequence[Depth],
                 build: Callable[..., Any], rules: Mapping[str, Any]) -> Space:
    """The space whose decisions these are; `rules` are its other arguments, which every network has. Raises ValueError."""
    options = {"embeddings": list(embeddings), "heads": list(heads), "ratios": [float(r) for r in ratios], "depths": list(depths)}
    for key, values in options.items():
        if not values or len(set(values)) != len(values):
            raise ValueError(f"space.{key} must be distinct numbers, at least one, got {short(values)}")
    layers = max(depths)
    choices = {"embedding": [[f"embedding_{d}" for d in embeddings]], "heads": [[f"heads_{h}" for h in heads]] * layers,
               "mlp_ratio": [[f"mlp_ratio_{r:g}" for r in ratios]] * layers, "depth": [[f"depth_{n}" for n in depths]]}
    if len(set(choices["mlp_ratio"][0])) != len(ratios):
        raise ValueError(f"space.ratios must differ in their first six digits, got {short(options['ratios'])}")
    cells = {kind: CellSpec.listed(num_inputs=1, edges=[(n, n + 1, row) for n, row in enumerate(rows)], keep=None, outputs=(len(rows),))
             for kind, rows in choices.items()}
    return Space(name, {**options, **rules}, cells, build, canonicalise, costs, sizes={"layers": layers, "channels": max(embeddings)},
                 auxiliary_head=False, rules=rules)


def canonicalise(space: Space, genotype: Genotype) -> Genotype:
    """What a layer behind the last one would have computed is the first choice of each decision: nothing of it is in the network."""
    (deepest,) = (int(e.op.removeprefix("depth_")) for e in genotype["depth"])
    cells = {kind: [e._replace(op=space.cells[kind].ops[0]) if kind in ("heads", "mlp_ratio") and e.destination > deepest else e
                    for e in edges] for kind, edges in genotype.cells}
    return space.genotype(cells)


def planned(space: Space, candidates: Candidates, layers: int, channels: int) -> tuple[Any, Any]:
    """The choices that a network holds, and its plan. Raises ValueError: the sizes are not those of the space."""
    from supernet.networks.chain import Choices
    from supernet.networks.transformer import TransformerPlan

    for name, size in (("layers", layers), ("channels", channels)):
        if size != space.sizes[name]:
            raise ValueError(f"{name} must be {space.sizes[name]} in this space, got {size}")
    choices = Choices(space.cells, candidates)
    return choices, TransformerPlan.of(choices, space.arguments["head_channels"])
