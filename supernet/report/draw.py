"""The cells of a genotype as a directed graph: one panel per kind of cell, each edge labelled with its op."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Curve
from matplotlib.transforms import Affine2D, Transform

from supernet.genotype import Edge, Genotype
from supernet.report import figure as figures
from supernet.report.draw_chain import LABEL_SIZE, ChainLayout, chain_layout, draw_chain, text_width, tint
from supernet.report.layout import Box, Layout, Wire, lay_out
from supernet.report.names import FAMILY_COLOURS, FOLLOWING, NAMINGS, NODE_FILLS, Naming, op_family, op_label, plain

MARGIN, TITLE = 0.15, 0.3  # inches


def draw_cells(genotype: Genotype, path: Path, *, dpi: float = 150, outputs: Mapping[str, Sequence[int]] | None = None,
               num_inputs: Mapping[str, int] | None = None) -> None:
    """Writes the drawing to `path` (.svg, .png or .pdf; ValueError for another ending).

    outputs: per kind, the nodes that are concatenated (a recurrent cell takes their mean); of a kind not given, all computed nodes, or
    the last one where there is one input and all else leads there. num_inputs: per kind; of a kind not given, its smallest destination.
    Nodes without edges are left out. Inputs are named c_{k-2}, c_{k-1}, computed nodes 0, 1, ..., the output c_{k}; a single output node
    is shown as such. Chains are drawn as rows of layers, several of one length in one table with a column a layer.
    """
    with figures.house_style():
        figures.save(assembled(_panels(genotype, outputs or {}, num_inputs or {})), path, dpi)


def cells_svg(genotype: Genotype, *, outputs: Mapping[str, Sequence[int]] | None = None,
              num_inputs: Mapping[str, int] | None = None) -> str:
    """The same drawing as one <svg> element."""
    with figures.house_style():
        return figures.svg(assembled(_panels(genotype, outputs or {}, num_inputs or {})))


def cell_layout(edges: Sequence[Edge], outputs: Sequence[int], num_fed: int = 0) -> Layout:
    """The layout of one cell: first the wires of `edges`, in their order, then one from each of `outputs` to the output node, whose
    number is one above the largest, then one to node 0 from each of `num_fed` nodes before it, numbered -1, -2, ..."""
    last = max(e.destination for e in edges) + 1
    wires = [Wire(e.source, e.destination, text_width(op_label(e.op))) for e in edges]
    return lay_out(wires + [Wire(node, last) for node in outputs] + [Wire(-1 - n, 0) for n in range(num_fed)])


def drawn_outputs(edges: Sequence[Edge], num_inputs: int, wanted: Sequence[int] | None) -> list[int]:
    """The output nodes among those drawn: `wanted`, else the default that `draw_cells` states."""
    nodes = sorted({n for e in edges for n in (e.source, e.destination)})
    if wanted is not None:
        return [n for n in nodes if n in wanted]
    ends = [n for n in nodes if n not in {e.source for e in edges}]
    return ends if num_inputs == 1 and len(ends) == 1 else [n for n in nodes if n >= num_inputs]


def is_chain(edges: Sequence[Edge], wanted: Sequence[int] | None) -> bool:
    """Whether the edges are one row of layers, the last of which is the output."""
    last = max((e.destination for e in edges), default=0)
    return bool(edges) and [(e.source, e.destination) for e in edges] == list(pairwise(range(last + 1))) and \
        (wanted is None or list(wanted) == [last])


def following(parts: Sequence[Sequence[str]]) -> list[str]:
    """The layers of a chain in two parts, without those that are nothing."""
    first, second = ([op for op in part if op != "nothing"] for part in parts)
    return [*first, "flatten", *second]


class Panel(NamedTuple):
    """One part of a figure; the title is printable. `draw(figure, at)`: `at` places inches from its upper left corner, y downwards."""

    title: str
    width: float
    height: float
    draw: Callable[[Figure, Transform], None]


class Stroke(NamedTuple):
    """How an edge is drawn: what is written on it, and how wide and how strong (0 to 1) its line is."""

    op: str
    width: float = 1.2
    strength: float = 1.0


def assembled(panels: Sequence[Panel], head: str = "") -> Figure:
    """The panels below each other; `head` is printable, and stands in the upper right corner."""
    width = max((panel.width for panel in panels), default=2.0) + 2 * MARGIN
    height = sum(panel.height + TITLE + 2 * MARGIN for panel in panels) or TITLE + 2 * MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    if not panels:
        figure.text(0.5, 0.5, "no edges", ha="center", va="center")
    if head:
        figure.text(1 - MARGIN / width, 1 - (MARGIN + 0.15) / height, head, ha="right", va="bottom", size=10, color="#555555",
                    parse_math=False)
    top = 0.0
    for panel in panels:
        at = Affine2D().scale(1, -1).translate(MARGIN, height - top - TITLE - MARGIN) + figure.dpi_scale_trans
        figure.text(0, -0.13, panel.title, transform=at, ha="left", va="bottom", size=10, weight="bold", color="#222222",
                    parse_math=False)
        panel.draw(figure, at)
        top += panel.height + TITLE + 2 * MARGIN
    return figure


def _panels(genotype: Genotype, outputs: Mapping[str, Sequence[int]], num_inputs: Mapping[str, int]) -> list[Panel]:
    """One for each kind of cell in the genotype's order; chains of one length share one, at the place of the first, and the parts of a
    chain are one."""
    if tuple(kind for kind, _ in genotype.cells) == FOLLOWING and all(is_chain(own, outputs.get(kind)) for kind, own in genotype.cells):
        layers = {"layers": following([[e.op for e in own] for _, own in genotype.cells])}
        return [chain_panel(layers, chain_layout(layers))]
    chains: dict[int, dict[str, list[str]]] = {}
    for kind, edges in genotype.cells:
        if is_chain(edges, outputs.get(kind)) and kind not in NAMINGS:  # a recurrent cell is none, whatever its edges
            chains.setdefault(len(edges), {})[kind] = [e.op for e in edges]
    panels = []
    for kind, edges in genotype.cells:
        chain = chains.get(len(edges), {})
        if kind in chain:
            if kind == next(iter(chain)):
                panels.append(chain_panel(chain, chain_layout(chain)))
        elif edges:
            inputs = num_inputs.get(kind, min(e.destination for e in edges))
            wanted = outputs.get(kind, range(inputs, max(e.destination for e in edges) + 1) if kind in NAMINGS else None)
            panels.append(cell_panel(kind, edges, inputs, drawn_outputs(edges, inputs, wanted))([Stroke(e.op) for e in edges]))
    return panels


def chain_panel(decisions: Mapping[str, Sequence[str]], layout: ChainLayout, among: Mapping[str, Sequence[str]] | None = None) -> Panel:
    title = plain(next(iter(decisions))) if len(decisions) == 1 else "layers"
    return Panel(title, layout.width, layout.height, partial(draw_chain, decisions=decisions, layout=layout, among=among))


def cell_panel(kind: str, edges: Sequence[Edge], num_inputs: int, outputs: Sequence[int]) -> Callable[[Sequence[Stroke]], Panel]:
    """A cell whose edges lie where the names of their ops have room, to be drawn with other strokes each time."""
    naming = NAMINGS.get(kind, Naming())
    last = max(e.destination for e in edges)
    joined = list(outputs) if len(outputs) > 1 else []  # one output node is the output itself
    layout = cell_layout(edges, joined, len(naming.fed))
    output = last + 1 if joined else outputs[0] if outputs else None

    def role(node: int) -> str:
        return "output" if node == output else "input" if node < (0 if naming.fed else num_inputs) else "computed"

    boxes = [(box, role(node), naming.output if node == output else naming.name(node, num_inputs)) for node, box in layout.nodes.items()]

    def draw(figure: Figure, at: Transform, strokes: Sequence[Stroke]) -> None:
        draw_edges(figure, at, strokes, layout)
        for box, fill, name in boxes:
            _draw_node(figure, at, box, fill, name)

    return lambda strokes: Panel(plain(kind) + naming.note, layout.width, layout.height, partial(draw, strokes=strokes))


def draw_edges(figure: Figure, at: Transform, strokes: Sequence[Stroke], layout: Layout) -> None:
    """The first wires of the layout, as `strokes` say, and the others, which lead to the output, in grey."""
    styles = [(tint(FAMILY_COLOURS[op_family(s.op)], s.strength), ":" if op_family(s.op) == "none" else "-", s.width) for s in strokes]
    styles += [("#888888", "-", 0.8)] * (len(layout.curves) - len(strokes))
    for points, (colour, line, width) in zip(layout.curves, styles):
        curve = Curve(points, [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1))
        figure.add_artist(FancyArrowPatch(path=curve, transform=at, arrowstyle="-|>", mutation_scale=7,
                                          color=colour, linestyle=line, linewidth=width, shrinkA=0, shrinkB=0, zorder=1))
    for stroke, box in zip(strokes, layout.labels):
        figure.add_artist(Rectangle((box.x - box.width / 2, box.y - box.height / 2), box.width, box.height, transform=at,
                                    facecolor="white", edgecolor="none", zorder=2))
        figure.text(box.x, box.y, op_label(stroke.op), transform=at, ha="center", va="center", size=LABEL_SIZE, zorder=3,
                    color=tint(FAMILY_COLOURS[op_family(stroke.op)], stroke.strength), parse_math=False)


def _draw_node(figure: Figure, at: Transform, box: Box, role: str, name: str) -> None:
    figure.add_artist(FancyBboxPatch((box.x - box.width / 2, box.y - box.height / 2), box.width, box.height, transform=at,
                                     boxstyle="round,pad=0,rounding_size=0.07", facecolor=NODE_FILLS[role],
                                     edgecolor="#555555", linewidth=0.8, zorder=4))
    figure.text(box.x, box.y, name if name.isdigit() else f"${name}$", transform=at, ha="center", va="center", size=9.5,
                zorder=5)
