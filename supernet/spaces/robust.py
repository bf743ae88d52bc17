"""The restricted spaces S1 to S4 of RobustDARTS (Zela et al. 2020, Sec. 3 and App. G; official code, src/spaces.py), on which DARTS
fails: DARTS cells whose edges have few candidates."""

from collections.abc import Mapping, Sequence

from supernet.space import CellSpec, Space
from supernet.spaces import darts

EDGES = tuple((s, d) for d in range(2, 6) for s in range(d))
PAIRS = {
    "skip/dil3": ("skip_connect", "dil_conv_3x3"), "skip/dil5": ("skip_connect", "dil_conv_5x5"),
    "skip/sep3": ("skip_connect", "sep_conv_3x3"), "max/skip": ("max_pool_3x3", "skip_connect"),
    "dil3/dil5": ("dil_conv_3x3", "dil_conv_5x5"), "max/avg": ("max_pool_3x3", "avg_pool_3x3"),
    "max/dil3": ("max_pool_3x3", "dil_conv_3x3"), "max/sep3": ("max_pool_3x3", "sep_conv_3x3"),
}
# S1: the two strongest ops of each edge in a search on the full space; a line holds the edges into one node
S1 = {
    "normal": "skip/dil3 skip/dil5 "
              "skip/dil5 skip/sep3 skip/dil3 "
              "max/skip skip/sep3 skip/sep3 skip/dil3 "
              "skip/sep3 max/skip skip/dil3 dil3/dil5 dil3/dil5",
    "reduce": "max/avg max/dil3 "
              "max/avg max/avg skip/dil5 "
              "max/avg max/sep3 skip/dil3 skip/dil5 "
              "max/avg max/avg skip/dil5 skip/dil5 skip/dil5",
}
EVERYWHERE = {"s2": ("skip_connect", "sep_conv_3x3"), "s3": ("none", "skip_connect", "sep_conv_3x3"), "s4": ("noise", "sep_conv_3x3")}


def s1() -> Space:
    """Two candidates an edge, others on each."""
    return _space("s1", {kind: [PAIRS[pair] for pair in pairs.split()] for kind, pairs in S1.items()})


def s2() -> Space:
    """Skip connection or separable convolution on every edge."""
    return _everywhere("s2")


def s3() -> Space:
    """S2 with `none`, which takes part in the softmax and is never selected."""
    return _everywhere("s3")


def s4() -> Space:
    """Separable convolution or noise: an op that can only do harm, and may be selected."""
    return _everywhere("s4")


def _everywhere(name: str) -> Space:
    return _space(name, {kind: [EVERYWHERE[name]] * len(EDGES) for kind in ("normal", "reduce")})


def _space(name: str, candidates: Mapping[str, Sequence[Sequence[str]]]) -> Space:
    cells = {
        kind: CellSpec.listed(num_inputs=2, edges=[(s, d, ops) for (s, d), ops in zip(EDGES, candidates[kind], strict=True)],
                              keep=(2, 2), outputs=(2, 3, 4, 5), unselectable=("none",), stride=stride)
        for kind, stride in (("normal", 1), ("reduce", 2))
    }
    return Space(name, {}, cells, darts.build)
