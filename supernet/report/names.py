"""How ops, nodes and edges are written and coloured in every figure. No matplotlib, and PyTorch only where an op's colour is asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ops.traits import Family

MAX_LABEL = 28  # characters; longer op names are cut

FAMILY_COLOURS: "dict[Family, str]" = {"conv": "#1f5fa8", "dilated": "#7a3fa0", "pool": "#b4530a", "skip": "#2e7d4f", "none": "#9a9a9a",
                                     "activation": "#1f5fa8", "other": "#a3224a"}
# Of ops that `ops` does not know (a genotype from elsewhere, a choice of a chain) the first word found in the name decides the family; all
# else is taken for a convolution.
GUESSES: "tuple[tuple[str, Family], ...]" = (("none", "none"), ("zero", "none"), ("flatten", "none"), ("skip", "skip"),
                                           ("identity", "skip"), ("nothing", "skip"), ("pool", "pool"), ("noise", "other"),
                                           ("dropout", "other"), ("dil", "dilated"))

FOLLOWING = ("features", "head")  # kinds that are parts of one chain: what the first gives is flattened, and the second begins with it

NODE_FILLS = {"input": "#dfe9f5", "computed": "#f4f4f4", "output": "#e3f1e3"}
NOTHING = "\u2013"  # how a table shows a choice that does nothing

# Eight colours told apart by colour-blind readers too (Okabe & Ito 2008, yellow darkened), then more for longer lists.
OP_COLOURS = ("#8c8c8c", "#e69f00", "#56b4e9", "#000000", "#0072b2", "#009e73", "#d55e00", "#cc79a7",
              "#6a3d9a", "#b2a429", "#7f4f24", "#3a86a8", "#c1121f", "#588157", "#9d4edd", "#ff7f7f")


def plain(text: str, most: int = MAX_LABEL) -> str:
    """One line of printable ASCII, cut to `most` characters: every font has its glyphs, and no control character reaches an SVG."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def op_label(op: str) -> str:
    """`sep_conv_3x3` as figures write it: `sep conv 3x3`."""
    short = {"skip_connect": "skip"}.get(op, op)
    return plain(short.replace("_", " "))


def choice_label(op: str, kind: str) -> str:
    """A choice in the row of its decision, where the name need not be repeated: `kernel_5` is `5`, `no_pool` a dash."""
    return NOTHING if op.startswith("no_") else op_label(op.removeprefix(f"{kind}_"))


def op_family(op: str) -> "Family":
    """A key of FAMILY_COLOURS: what the op says of itself, else a guess by its name."""
    from ops import describe

    known = describe(op)
    return known.family if known is not None else next((family for word, family in GUESSES if word in op.lower()), "conv")


def op_colours(ops: Sequence[str]) -> dict[str, str]:
    """A colour for each op, by its place in the list of candidates."""
    return {op: OP_COLOURS[i % len(OP_COLOURS)] for i, op in enumerate(ops)}


def node_name(node: int, num_inputs: int) -> str:
    """Inputs are `c_{k-2}`, `c_{k-1}` (the cells before); computed nodes count from 0."""
    return str(node - num_inputs) if node >= num_inputs else f"c_{{k-{num_inputs - node}}}"


@dataclass(frozen=True)
class Naming:
    """What the nodes of one kind of cell are called in a drawing, in mathtext.

    fed: what input node 0 is computed from, nearest last. joins: how the output is made of several nodes. note: follows the kind in
    the title.
    """

    output: str = "c_{k}"
    fed: tuple[str, ...] = ()
    note: str = ""
    joins: str = "concatenation"

    def name(self, node: int, num_inputs: int) -> str:
        if node < 0:
            return self.fed[node]
        return str(node) if self.fed else node_name(node, num_inputs)


NAMINGS = {  # Naming() for all other kinds
    "recurrent": Naming("h_t", ("x_t", "h_{t-1}"), ": h_t is the mean of the nodes that lead to it", "mean"),
}


def edge_labels(edges: Sequence[tuple[int, int]], num_inputs: int | None = None, kind: str = "") -> list[str]:
    """Names of the rows of an (E, O) table from its (source, destination) pairs: `c_{k-2} → 0`, `0 → 1`; of a chain `layer 1`, ...

    `num_inputs` is the smallest destination unless given. Nodes are called as those of cells of this kind.
    """
    if list(edges) == [(n, n + 1) for n in range(len(edges))]:
        return [f"layer {n + 1}" for n in range(len(edges))]
    first = min((d for _, d in edges), default=0) if num_inputs is None else num_inputs
    naming = NAMINGS.get(kind, Naming())
    return [f"{naming.name(s, first)} → {naming.name(d, first)}" for s, d in edges]


LOW = dict(zip("0123456789+-=kth", "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u208a\u208b\u208c\u2096\u209c\u2095"))
_LOW = re.compile(r"_(?:\{([^{}]*)\}|(\w))")


def lowered(text: str) -> str:
    """Mathtext of node names as plain text: `c_{k-2} → 0` with low letters of Unicode; what Unicode has no low letters for stays."""
    def low(match: re.Match) -> str:
        inner = match[1] if match[1] is not None else match[2]
        return "".join(LOW[c] for c in inner) if all(c in LOW for c in inner) else match[0]
    return _LOW.sub(low, text)
