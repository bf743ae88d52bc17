"""How ops, nodes and edges are written and coloured in every figure. No matplotlib."""

from collections.abc import Sequence

MAX_LABEL = 28  # characters; longer op names are cut

# The first word found in an op's name decides its family; all else is a convolution.
FAMILY_WORDS = (("none", "none"), ("zero", "none"), ("skip", "skip"), ("identity", "skip"), ("pool", "pool"), ("noise", "other"),
                ("dil", "dilated"))
FAMILY_COLOURS = {"conv": "#1f5fa8", "dilated": "#7a3fa0", "pool": "#b4530a", "skip": "#2e7d4f", "none": "#9a9a9a",
                  "other": "#a3224a"}

# Eight colours told apart by colour-blind readers too (Okabe & Ito 2008, yellow darkened), then more for longer lists.
OP_COLOURS = ("#8c8c8c", "#e69f00", "#56b4e9", "#000000", "#0072b2", "#009e73", "#d55e00", "#cc79a7",
              "#6a3d9a", "#b2a429", "#7f4f24", "#3a86a8", "#c1121f", "#588157", "#9d4edd", "#ff7f7f")


def plain(text: str) -> str:
    """One line of printable ASCII, cut to MAX_LABEL: every font has its glyphs, and no control character reaches an SVG."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in text)
    return shown if len(shown) <= MAX_LABEL else shown[: MAX_LABEL - 3] + "..."


def op_label(op: str) -> str:
    """`sep_conv_3x3` as figures write it: `sep conv 3x3`."""
    short = {"skip_connect": "skip"}.get(op, op)
    return plain(short.replace("_", " "))


def op_family(op: str) -> str:
    """A key of FAMILY_COLOURS."""
    return next((family for word, family in FAMILY_WORDS if word in op.lower()), "conv")


def op_colours(ops: Sequence[str]) -> dict[str, str]:
    """A colour for each op, by its place in the list of candidates."""
    return {op: OP_COLOURS[i % len(OP_COLOURS)] for i, op in enumerate(ops)}


def node_name(node: int, num_inputs: int) -> str:
    """Inputs are `c_{k-2}`, `c_{k-1}` (the cells before); computed nodes count from 0."""
    return str(node - num_inputs) if node >= num_inputs else f"c_{{k-{num_inputs - node}}}"


def edge_names(edges: Sequence[tuple[int, int]], num_inputs: int | None = None) -> list[str]:
    """Names of the rows of an (E, O) table from its (source, destination) pairs: `c_{k-2} → 0`, `0 → 1`.

    `num_inputs` is the smallest destination unless given.
    """
    first = min((d for _, d in edges), default=0) if num_inputs is None else num_inputs
    return [f"{node_name(s, first)} → {node_name(d, first)}" for s, d in edges]
