"""The cells of a genotype as a directed graph: one panel per kind of cell, each edge labelled with its op."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Curve
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D, Transform

from supernet.genotype import Edge, Genotype
from supernet.report import figure as figures
from supernet.report.layout import Layout, Wire, lay_out
from supernet.report.names import FAMILY_COLOURS, node_name, op_family, op_label, plain

MARGIN, TITLE = 0.15, 0.3  # inches
LABEL_SIZE = 8             # points
NODE_FILLS = {"input": "#dfe9f5", "computed": "#f4f4f4", "output": "#e3f1e3"}


def draw_cells(genotype: Genotype, path: Path, *, dpi: float = 150, outputs: Mapping[str, Sequence[int]] | None = None,
               num_inputs: Mapping[str, int] | None = None) -> None:
    """Writes the drawing to `path` (.svg or .png; ValueError for another ending).

    outputs: per kind, the nodes that are concatenated; of a kind not given, all computed nodes, or the last where there is one
    input (chains and NAS-Bench-201 cells). num_inputs: per kind; of a kind not given, its smallest destination.
    Nodes without edges are left out. Inputs are named c_{k-2}, c_{k-1}, computed nodes 0, 1, ..., the output c_{k}.
    """
    with figures.house_style():
        figures.save(_figure(genotype, outputs or {}, num_inputs or {}), path, dpi)


def cells_svg(genotype: Genotype, *, outputs: Mapping[str, Sequence[int]] | None = None,
              num_inputs: Mapping[str, int] | None = None) -> str:
    """The same drawing as one <svg> element."""
    with figures.house_style():
        return figures.svg(_figure(genotype, outputs or {}, num_inputs or {}))


def cell_layout(edges: Sequence[Edge], outputs: Sequence[int]) -> Layout:
    """The layout of one cell: first the wires of `edges`, in their order, then one from each of `outputs` to the output node,
    whose number is one above the largest."""
    last = max(e.destination for e in edges) + 1
    wires = [Wire(e.source, e.destination, _text_width(op_label(e.op))) for e in edges]
    return lay_out(wires + [Wire(node, last) for node in outputs])


def drawn_outputs(edges: Sequence[Edge], num_inputs: int, wanted: Sequence[int] | None) -> list[int]:
    """The concatenated nodes among those drawn: `wanted`, else the default that `draw_cells` states."""
    nodes = sorted({n for e in edges for n in (e.source, e.destination)})
    if wanted is not None:
        return [n for n in nodes if n in wanted]
    computed = [n for n in nodes if n >= num_inputs]
    return computed[-1:] if num_inputs == 1 else computed


def _figure(genotype: Genotype, outputs: Mapping[str, Sequence[int]], num_inputs: Mapping[str, int]) -> Figure:
    panels = []
    for kind, edges in genotype.cells:
        if edges:
            inputs = num_inputs.get(kind, min(e.destination for e in edges))
            chosen = drawn_outputs(edges, inputs, outputs.get(kind))
            panels.append((kind, edges, inputs, chosen, cell_layout(edges, chosen)))
    width = max((layout.width for *_, layout in panels), default=2.0) + 2 * MARGIN
    height = sum(layout.height + TITLE + 2 * MARGIN for *_, layout in panels) or TITLE + 2 * MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    if not panels:
        figure.text(0.5, 0.5, "no edges", ha="center", va="center")
    top = 0.0
    for kind, edges, inputs, chosen, layout in panels:
        # inches from the panel's upper left corner, y downwards
        at = Affine2D().scale(1, -1).translate(MARGIN, height - top - TITLE - MARGIN) + figure.dpi_scale_trans
        figure.text(0, -0.13, plain(kind), transform=at, ha="left", va="bottom", size=10, weight="bold", color="#222222",
                    parse_math=False)
        _draw_edges(figure, at, edges, chosen, layout)
        _draw_nodes(figure, at, inputs, bool(chosen), layout)
        top += layout.height + TITLE + 2 * MARGIN
    return figure


def _draw_edges(figure: Figure, at: Transform, edges: Sequence[Edge], outputs: Sequence[int], layout: Layout) -> None:
    styles = [(FAMILY_COLOURS[op_family(e.op)], ":" if op_family(e.op) == "none" else "-", 1.2) for e in edges]
    styles += [("#888888", "-", 0.8)] * len(outputs)
    for points, (colour, line, width) in zip(layout.curves, styles):
        curve = Curve(points, [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1))
        figure.add_artist(FancyArrowPatch(path=curve, transform=at, arrowstyle="-|>", mutation_scale=7,
                                          color=colour, linestyle=line, linewidth=width, shrinkA=0, shrinkB=0, zorder=1))
    for edge, box in zip(edges, layout.labels):
        figure.add_artist(Rectangle((box.x - box.width / 2, box.y - box.height / 2), box.width, box.height, transform=at,
                                    facecolor="white", edgecolor="none", zorder=2))
        figure.text(box.x, box.y, op_label(edge.op), transform=at, ha="center", va="center", size=LABEL_SIZE, zorder=3,
                    color=FAMILY_COLOURS[op_family(edge.op)], parse_math=False)


def _draw_nodes(figure: Figure, at: Transform, num_inputs: int, has_output: bool, layout: Layout) -> None:
    output = max(layout.nodes) if has_output else None
    for node, box in layout.nodes.items():
        role = "output" if node == output else "input" if node < num_inputs else "computed"
        name = "c_{k}" if node == output else node_name(node, num_inputs)
        figure.add_artist(FancyBboxPatch((box.x - box.width / 2, box.y - box.height / 2), box.width, box.height, transform=at,
                                         boxstyle="round,pad=0,rounding_size=0.07", facecolor=NODE_FILLS[role],
                                         edgecolor="#555555", linewidth=0.8, zorder=4))
        figure.text(box.x, box.y, name if role == "computed" else f"${name}$", transform=at, ha="center", va="center", size=9.5,
                    zorder=5)


def _text_width(text: str) -> float:
    """Inches, with room at both sides."""
    points, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=LABEL_SIZE), ismath=False)
    return points / 72 + 0.08
