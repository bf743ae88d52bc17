"""Chains of layers: one decision a layer as a row of boxes, several as a table with a column for each layer. Both wrap like text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Curve
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Transform

from supernet.report.layout import Box
from supernet.report.names import FAMILY_COLOURS, NODE_FILLS, NOTHING, OP_COLOURS, choice_label, op_family, op_label, plain

MAX_WIDTH = 8.0      # inches; a longer chain goes on in the next line
LABEL_SIZE = 8       # points
BOX_HEIGHT, ARROW = 0.3, 0.2
ROW_HEIGHT = 0.235   # of a table
BETWEEN_LINES = 0.3
NUMBER_HEIGHT = 0.16  # over a box
GREY = "#777777"
HUES = [colour for colour in OP_COLOURS if len({colour[1:3], colour[3:5], colour[5:]}) > 1]  # without the greys


@dataclass(frozen=True)
class ChainLayout:
    """Where all of it goes: inches from the upper left corner, y downwards.

    ends: input and output. layers: a box a layer, which holds its number where there is a table and its op otherwise. cells: in a table, by
    decision, a box a layer. names: the places of the names of the decisions, a row of them for each line.
    """

    width: float
    height: float
    ends: tuple[Box, Box]
    layers: tuple[Box, ...]
    cells: Mapping[str, tuple[Box, ...]]
    names: tuple[Mapping[str, Box], ...]


def chain_layout(decisions: Mapping[str, Sequence[str]], max_width: float = MAX_WIDTH) -> ChainLayout:
    """decisions: by kind, the op of each layer; all of one length, at least one layer."""
    (count,) = {len(ops) for ops in decisions.values()}
    is_table = len(decisions) > 1
    shown = [choice_label(op, kind) if is_table else op_label(op) for kind, ops in decisions.items() for op in ops]
    column = max(0.4, *(text_width(text) + (0.0 if is_table else 0.12) for text in shown))
    end = text_width("output") + 0.12
    named = max(text_width(plain(kind)) for kind in decisions) if is_table else 0.0
    left = max(0.0, named - end - ARROW)  # the input stands over the names
    pitch = column + (0.06 if is_table else ARROW)
    gap = pitch - column
    per_line = max(1, int((max_width - left - 2 * (end + ARROW)) // pitch))
    lines = -(-count // per_line)
    per_line = -(-count // lines)  # lines of equal length
    head = 0.0 if is_table else NUMBER_HEIGHT
    line_height = head + BOX_HEIGHT + (0.05 + ROW_HEIGHT * len(decisions) if is_table else 0)
    start = left + end + ARROW

    def top(line: int) -> float:
        return line * (line_height + BETWEEN_LINES)

    def place(n: int) -> tuple[float, float]:
        line, k = divmod(n, per_line)
        return start + k * pitch + column / 2, top(line) + head + BOX_HEIGHT / 2

    layers = tuple(Box(*place(n), column, BOX_HEIGHT) for n in range(count))
    row_top = BOX_HEIGHT / 2 + 0.05
    cells: dict[str, tuple[Box, ...]] = {}
    names: list[dict[str, Box]] = [{} for _ in range(lines)]
    for i, kind in enumerate(decisions) if is_table else ():
        down = row_top + (i + 0.5) * ROW_HEIGHT
        cells[kind] = tuple(Box(box.x, box.y + down, box.width + gap - 0.02, ROW_HEIGHT - 0.02) for box in layers)
        for line in range(lines):
            names[line][kind] = Box((start - ARROW / 2) / 2, top(line) + head + BOX_HEIGHT / 2 + down, start - ARROW / 2, ROW_HEIGHT)
    first, last = layers[0], layers[-1]
    ends = (Box(first.x - column / 2 - ARROW - end / 2, first.y, end, BOX_HEIGHT),
            Box(last.x + column / 2 + ARROW + end / 2, last.y, end, BOX_HEIGHT))
    width = max([start + per_line * pitch - gap + (0.12 if lines > 1 else 0.0), ends[1].x + end / 2])
    return ChainLayout(width, top(lines - 1) + line_height, ends, layers, cells, tuple(names))


def draw_chain(figure: Figure, at: Transform, decisions: Mapping[str, Sequence[str]], layout: ChainLayout,
               among: Mapping[str, Sequence[str]] | None = None) -> None:
    """`at` places inches from the panel's upper left corner, y downwards. among: the ops of each decision that share out the colours; those
    that are drawn unless given."""
    stops = [layout.ends[0], *layout.layers, layout.ends[1]]
    for a, b in zip(stops, stops[1:]):
        _arrow(figure, at, a, b)
    for name, box in zip(("input", "output"), layout.ends):
        _box(figure, at, box, NODE_FILLS[name], name)
    if layout.cells:
        for n, box in enumerate(layout.layers):
            skipped = any(op_family(ops[n]) == "skip" for ops in decisions.values())
            _box(figure, at, box, NODE_FILLS["computed"], str(n + 1), line="--" if skipped else "-", colour=GREY if skipped else "#222222")
        for kind, boxes in layout.cells.items():
            _row(figure, at, kind, decisions[kind], boxes, chain_fills(kind, (among or decisions)[kind]))
        for places in layout.names:
            for kind, box in places.items():
                figure.text(box.x + box.width / 2 - 0.06, box.y, plain(kind), transform=at, ha="right", va="center", size=LABEL_SIZE,
                            color="#222222", parse_math=False)
        return
    ((ops),) = decisions.values()
    for n, (op, box) in enumerate(zip(ops, layout.layers)):
        family = op_family(op)
        _box(figure, at, box, tint(FAMILY_COLOURS[family], 0.12), op_label(op), colour=FAMILY_COLOURS[family],
             line=":" if family == "none" else "--" if family == "skip" else "-")
        figure.text(box.x, box.y - box.height / 2 - 0.03, str(n + 1), transform=at, ha="center", va="bottom", size=6.5, color=GREY)


def _row(figure: Figure, at: Transform, kind: str, ops: Sequence[str], boxes: Sequence[Box],
         fills: Mapping[str, str | tuple[float, float, float]]) -> None:
    for op, box in zip(ops, boxes):
        text = choice_label(op, kind)
        figure.add_artist(Rectangle((box.x - box.width / 2, box.y - box.height / 2), box.width, box.height, transform=at,
                                    facecolor=fills[op], edgecolor="none", zorder=2))
        figure.text(box.x, box.y, text, transform=at, ha="center", va="center", size=LABEL_SIZE, zorder=3, parse_math=False,
                    color="#aaaaaa" if text == NOTHING else "#222222")


def chain_fills(kind: str, ops: Sequence[str]) -> dict[str, str | tuple[float, float, float]]:
    """A background for each choice of a decision: numbers the darker the larger, words a hue each if there are several, what does
    nothing none."""
    chosen = sorted(set(ops))
    labels = {op: choice_label(op, kind) for op in chosen}
    fills: dict[str, str | tuple[float, float, float]] = {op: "#fafafa" for op in chosen if labels[op] == NOTHING}
    rest = [op for op in chosen if op not in fills]
    if all(labels[op].isascii() and labels[op].isdigit() for op in rest):
        ranked = sorted({int(labels[op]) for op in rest})
        return fills | {op: tint(FAMILY_COLOURS["conv"], 0.05 + 0.32 * ranked.index(int(labels[op])) / max(1, len(ranked) - 1))
                        for op in rest}
    fills |= {op: tint(FAMILY_COLOURS["skip"], 0.2) for op in rest if op_family(op) == "skip"}
    rest = [op for op in rest if op not in fills]
    if len(rest) == 1:
        return fills | {rest[0]: "#f0f0f0"}
    return fills | {op: tint(HUES[i % len(HUES)], 0.25) for i, op in enumerate(rest)}


def text_width(text: str) -> float:
    """Inches, with room at both sides."""
    points, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=LABEL_SIZE), ismath=False)
    return points / 72 + 0.08


def tint(colour: str, strength: float) -> tuple[float, float, float]:
    """The colour on white."""
    r, g, b = to_rgb(colour)
    return 1 - strength * (1 - r), 1 - strength * (1 - g), 1 - strength * (1 - b)


def _box(figure: Figure, at: Transform, box: Box, fill: str | tuple[float, float, float], text: str, *, colour: str = "#222222",
         line: str = "-") -> None:
    figure.add_artist(FancyBboxPatch((box.x - box.width / 2, box.y - box.height / 2), box.width, box.height, transform=at,
                                     boxstyle="round,pad=0,rounding_size=0.07", facecolor=fill, edgecolor="#555555", linewidth=0.8,
                                     linestyle=line, zorder=4))
    figure.text(box.x, box.y, text, transform=at, ha="center", va="center", size=LABEL_SIZE, color=colour, zorder=5, parse_math=False)


def _arrow(figure: Figure, at: Transform, a: Box, b: Box) -> None:
    """From one box to the next: straight, or round the end of the line and in from the left."""
    start, end = (a.x + a.width / 2, a.y), (b.x - b.width / 2, b.y)
    points = [start, end]
    if b.y > a.y:
        turn = b.y - BOX_HEIGHT / 2 - NUMBER_HEIGHT - 0.08
        points = [start, (start[0] + 0.1, start[1]), (start[0] + 0.1, turn), (end[0] - 0.16, turn), (end[0] - 0.16, end[1]), end]
    figure.add_artist(FancyArrowPatch(path=Curve(points), transform=at, arrowstyle="-|>", mutation_scale=7, color="#888888",
                                      linewidth=0.8, joinstyle="round", shrinkA=0, shrinkB=0, zorder=1))
