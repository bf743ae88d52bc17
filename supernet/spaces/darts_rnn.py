"""The recurrent cell space of DARTS (Liu et al. 2019, Sec. 2.1 and 3.1.2)."""

from typing import TYPE_CHECKING, Annotated, Any

from supernet.genotype import Edge
from supernet.ranges import Range, ranged
from supernet.space import Candidates, CellSpec, Space

if TYPE_CHECKING:
    from ops.traits import OpTraits

OPS = ("none", "tanh", "relu", "sigmoid", "identity")
MAX_NODES = 32


@ranged
def make(*, nodes: Annotated[int, Range(1, MAX_NODES)] = 8) -> Space:
    """Cells of `nodes` computed nodes; each keeps one predecessor and an activation, and the output is the mean of all of them. Node 0
    is computed from the input and the last state."""
    spec = CellSpec.full(num_inputs=1, num_nodes=nodes, ops=OPS, outputs=range(1, 1 + nodes), keep=(1, 1), unselectable=("none",))
    return Space("darts_rnn", {"nodes": nodes}, {"recurrent": spec}, build, costs=costs, sizes={"layers": 1}, auxiliary_head=False,
                 describe=describe)


def describe(op: str) -> "OpTraits | None":
    """All ops but `none` are activations, `identity` too: an edge with it multiplies by its node's matrix, and is no skip connection."""
    from ops import describe as of_ops
    from ops.traits import OpTraits

    return OpTraits("activation") if op != "none" else of_ops(op)


def costs(space: Space, quantity: str, *, layers: int, channels: int, vocabulary: int) -> Any:
    """A constant: all edges into a node share its matrix, and activations have no parameters. Multiply-adds are of one item."""
    import numpy as np
    import torch

    from supernet.costs.additive import Additive
    from supernet.costs.base import FINAL
    from supernet.networks.measure import multiply_adds_of, parameters

    spec = space.cells["recurrent"]
    first = space.genotype({"recurrent": [Edge(node, node - 1, "identity") for node in spec.nodes]})
    with torch.random.fork_rng(devices=[]):
        net = space.network(space.candidates(first), norm=FINAL, layers=layers, channels=channels, vocabulary=vocabulary, batch_norm=False)
    count, unit = ((parameters(net), "parameters") if quantity == "parameters" else
                   (multiply_adds_of(net, torch.zeros(1, 1, dtype=torch.long)), "multiply-adds an item"))
    return Additive(space, quantity, unit, count, {"recurrent": np.zeros((len(spec.edges), len(spec.ops)))})


def build(space: Space, candidates: Candidates, *, layers: int, **sizes: Any) -> Any:
    """The language model; `sizes` are those of `supernet.networks.recurrent.RecurrentLanguageModel`."""
    from supernet.networks.recurrent import RecurrentLanguageModel

    if layers != 1:
        raise ValueError(f"layers must be 1 in a recurrent space, got {layers}")
    return RecurrentLanguageModel("recurrent", space.cells["recurrent"], candidates["recurrent"], **sizes)
