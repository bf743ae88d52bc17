"""A space small enough to train every one of its architectures: NAS-Bench-201 with three nodes and three ops."""

from supernet.space import Space
from supernet.spaces.nasbench201 import complete_cells

OPS = ("none", "skip_connect", "nor_conv_3x3")


def make() -> Space:
    """27 cells: an op on each of the edges 0 -> 1, 0 -> 2 and 1 -> 2; node 2 is the output."""
    return complete_cells("toy", {}, nodes=3, ops=OPS)
