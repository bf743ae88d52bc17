"""The cells of a genotype as SVG that takes the colours of the page it stands in: the drawing of `draw`, with classes for colours."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from supernet.genotype import Edge, Genotype
from supernet.report.draw import cell_layout, drawn_outputs, following, is_chain
from supernet.report.draw_chain import ROW_HEIGHT, chain_fills, chain_layout
from supernet.report.layout import Box, Layout, Point
from supernet.report.names import FOLLOWING, NAMINGS, NOTHING, Naming, choice_label, op_family, op_label, plain

SCALE = 96  # CSS pixels an inch
MARGIN = 0.06
MINUS = "\u2212"


def cell_svgs(genotype: Genotype, *, outputs: Mapping[str, Sequence[int]] | None = None,
              num_inputs: Mapping[str, int] | None = None) -> list[tuple[str, str]]:
    """(title, <svg>) of each kind of cell, in the genotype's order; chains of one length share one, at the place of the first. outputs,
    num_inputs: as in `draw.draw_cells`."""
    outputs, num_inputs = outputs or {}, num_inputs or {}
    if tuple(kind for kind, _ in genotype.cells) == FOLLOWING and all(is_chain(own, outputs.get(kind)) for kind, own in genotype.cells):
        return [("layers", _chain({"layers": following([[e.op for e in own] for _, own in genotype.cells])}))]
    chains: dict[int, dict[str, list[str]]] = {}
    for kind, edges in genotype.cells:
        if is_chain(edges, outputs.get(kind)) and kind not in NAMINGS:
            chains.setdefault(len(edges), {})[kind] = [e.op for e in edges]
    found = []
    for kind, edges in genotype.cells:
        chain = chains.get(len(edges), {})
        if kind in chain:
            if kind == next(iter(chain)):
                found.append((plain(kind) if len(chain) == 1 else "layers", _chain(chain)))
        elif edges:
            inputs = num_inputs.get(kind, min(e.destination for e in edges))
            wanted = outputs.get(kind, range(inputs, max(e.destination for e in edges) + 1) if kind in NAMINGS else None)
            found.append((plain(kind) + NAMINGS.get(kind, Naming()).note, _cell(kind, edges, inputs, drawn_outputs(edges, inputs, wanted))))
    return found


def _cell(kind: str, edges: Sequence[Edge], num_inputs: int, outputs: Sequence[int]) -> str:
    naming = NAMINGS.get(kind, Naming())
    last = max(e.destination for e in edges)
    joined = list(outputs) if len(outputs) > 1 else []  # one output node is the output itself
    layout: Layout = cell_layout(edges, joined, len(naming.fed))
    output = last + 1 if joined else outputs[0] if outputs else None
    parts = []
    for n, points in enumerate(layout.curves):
        family = op_family(edges[n].op) if n < len(edges) else "wire"
        parts.append(_arrow(points, f"edge {family}"))
    for edge, box in zip(edges, layout.labels):
        if box is not None:
            parts += [f'<rect class="behind" {_place(box)}/>', _text(box, f"op {op_family(edge.op)}", escape(op_label(edge.op)))]
    for node, box in layout.nodes.items():
        role = "output" if node == output else "input" if node < (0 if naming.fed else num_inputs) else "computed"
        name = naming.output if node == output else naming.name(node, num_inputs)
        parts += [f'<rect class="node {role}" rx="6" {_place(box)}/>', _text(box, "name", subscripts(name))]
    return _svg(layout.width, layout.height, parts)


def _chain(decisions: Mapping[str, Sequence[str]]) -> str:
    layout = chain_layout(decisions)
    stops = [layout.ends[0], *layout.layers, layout.ends[1]]
    parts = [_arrow(_between(a, b), "edge wire") for a, b in pairwise(stops)]
    for name, box in zip(("input", "output"), layout.ends):
        parts += [f'<rect class="node {name}" rx="6" {_place(box)}/>', _text(box, "op", name)]
    if layout.cells:
        for n, box in enumerate(layout.layers):
            parts += [f'<rect class="node computed" rx="6" {_place(box)}/>', _text(box, "op", str(n + 1))]
        for kind, boxes in layout.cells.items():
            fills = chain_fills(kind, decisions[kind])
            for op, box in zip(decisions[kind], boxes):
                text = choice_label(op, kind)
                shade = "choice none" if text == NOTHING else "choice"
                parts += [f'<rect fill="{_hex(fills[op])}" {_place(box)}/>', _text(box, shade, escape(text))]
        for places in layout.names:
            for kind, box in places.items():
                x, y = box.x + box.width / 2 - 0.06, box.y
                parts.append(f'<text class="op" text-anchor="end" x="{_px(x)}" y="{_px(y)}" dy=".35em">{escape(plain(kind))}</text>')
    else:
        ((ops),) = decisions.values()
        for n, (op, box) in enumerate(zip(ops, layout.layers)):
            family = op_family(op)
            parts += [f'<rect class="layer {family}" rx="6" {_place(box)}/>', _text(box, f"op {family}", escape(op_label(op))),
                      f'<text class="number" text-anchor="middle" x="{_px(box.x)}" y="{_px(box.y - box.height / 2 - 0.04)}">{n + 1}</text>']
    return _svg(layout.width, layout.height + (ROW_HEIGHT / 4 if layout.cells else 0), parts)


def _between(a: Box, b: Box) -> tuple[Point, ...]:
    """Straight, or round the end of the line and in from the left, as a cubic path."""
    start, end = (a.x + a.width / 2, a.y), (b.x - b.width / 2, b.y)
    stops = [start, end]
    if b.y > a.y:
        turn = b.y - b.height / 2 - 0.24
        stops = [start, (start[0] + 0.1, start[1]), (start[0] + 0.1, turn), (end[0] - 0.16, turn), (end[0] - 0.16, end[1]), end]
    return (stops[0], *(point for p, q in pairwise(stops) for point in (p, q, q)))


def _arrow(points: Sequence[Point], classes: str) -> str:
    """A path of cubics with a head at its end, which lies where the last piece comes in."""
    (x, y), rest = points[0], points[1:]
    d = f"M{_px(x)} {_px(y)}" + "".join(
        "C" + " ".join(f"{_px(px)} {_px(py)}" for px, py in rest[i:i + 3]) for i in range(0, len(rest), 3))
    (ex, ey) = points[-1]
    head = f"M{_px(ex - 0.065)} {_px(ey - 0.035)}L{_px(ex)} {_px(ey)}L{_px(ex - 0.065)} {_px(ey + 0.035)}z"  # edges come in from the left
    return f'<path class="{classes}" d="{d}"/><path class="head {classes.partition(" ")[2]}" d="{head}"/>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    w, h = (_px(v + 2 * MARGIN) for v in (width, height))
    view = f"{_px(-MARGIN)} {_px(-MARGIN)} {w} {h}"
    return f'<svg class="cell" width="{w}" height="{h}" viewBox="{view}">{"".join(parts)}</svg>'


def _place(box: Box) -> str:
    return f'x="{_px(box.x - box.width / 2)}" y="{_px(box.y - box.height / 2)}" width="{_px(box.width)}" height="{_px(box.height)}"'


def _text(box: Box, classes: str, html: str) -> str:
    return f'<text class="{classes}" text-anchor="middle" x="{_px(box.x)}" y="{_px(box.y)}" dy=".35em">{html}</text>'


def subscripts(name: str) -> str:
    """Mathtext of node names (`c_{k-2}`, `x_t`) as spans of an SVG text."""
    base, mark, low = name.partition("_")
    if not mark:
        return escape(name)
    low = escape(low.strip("{}").replace("-", MINUS))
    return f'<tspan class="var">{escape(base)}</tspan><tspan class="sub" dy="3">{low}</tspan>'


def _px(inches: float) -> str:
    return f"{inches * SCALE:.1f}".removesuffix(".0")


def _hex(colour: str | tuple[float, float, float]) -> str:
    return colour if isinstance(colour, str) else "#" + "".join(f"{round(255 * part):02x}" for part in colour)
