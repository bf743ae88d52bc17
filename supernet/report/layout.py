"""Where the nodes, labels and curves of a cell go. Lengths are inches, y grows downwards, no matplotlib.

A layered layout (Sugiyama et al. 1981): a node's layer is its longest-path depth, and between two layers of nodes stands one of
labels, where each label is an item that takes room like a node. A long edge passes through every layer it crosses, so a curve
bends only between layers and can meet no node and no foreign label.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean

NODE_WIDTH, NODE_HEIGHT = 0.5, 0.3
LABEL_HEIGHT = 0.17
WIRE_HEIGHT = 0.02  # what a long edge takes of a layer it only passes
SPACING = 0.11      # between neighbours in a layer
PORT_STEP = 0.085   # between the ends of two curves at one side of a node
ATTEMPTS = 32       # starting orders tried
SWEEPS = 10

Point = tuple[float, float]
Order = list[list[int]]  # per layer, its items from top to bottom


@dataclass(frozen=True)
class Wire:
    """An edge to lay out; `label_width` is 0 where it has no label."""

    source: int
    destination: int
    label_width: float = 0.0


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """`labels` (None: no label) and `curves` follow the wires.

    A curve is a cubic Bezier path: its start, then two controls and an end for each piece.
    """

    width: float
    height: float
    nodes: dict[int, Box]
    labels: tuple[Box | None, ...]
    curves: tuple[tuple[Point, ...], ...]


def lay_out(wires: Sequence[Wire]) -> Layout:
    """The layout of a directed graph whose edges run from lower to higher node numbers."""
    layers = _Layers(wires)
    rng = random.Random(0)
    best: tuple[float, Order] | None = None
    for attempt in range(ATTEMPTS):
        start = layers.columns()
        if attempt:
            for column in start:
                rng.shuffle(column)
        order, crossings = _untangle(layers, start)
        y = _heights(layers, order, sweeps=16)
        bends = sum(abs(y[a] - y[b]) for route in layers.routes for a, b in pairwise(route))
        cost = crossings + 0.4 * bends
        if best is None or cost < best[0]:
            best = (cost, order)
    assert best is not None
    order = best[1]
    if order[0][0] != min(order[0]):  # upside down is as good a layout: the first input belongs at the top
        order = [column[::-1] for column in order]
    return _place(layers, order, _heights(layers, order, sweeps=150))


def _nodes(wires: Sequence[Wire]) -> list[int]:
    return sorted({w.source for w in wires} | {w.destination for w in wires})


class _Layers:
    """Items (nodes, labels, passing wires) in layers, and the segments that join items of neighbouring layers."""

    def __init__(self, wires: Sequence[Wire]) -> None:
        nodes, depth = _nodes(wires), _depths(wires)
        label_layer = _label_layers(wires, depth)
        used = sorted({2 * d for d in depth.values()} | {layer for layer in label_layer if layer is not None})
        self.layer: list[int] = []  # item -> index of its layer
        self.width: list[float] = []
        self.height: list[float] = []
        self.item = {node: self._add(used.index(2 * depth[node]), NODE_WIDTH, NODE_HEIGHT) for node in nodes}
        self.num_nodes = len(nodes)
        self.label: list[int | None] = []   # wire -> its label's item
        self.routes: list[list[int]] = []   # wire -> its items, source to destination
        for wire, own in zip(wires, label_layer):
            between = [c for c in used if 2 * depth[wire.source] < c < 2 * depth[wire.destination]]
            sizes = {c: (wire.label_width, LABEL_HEIGHT) if c == own else (0.0, WIRE_HEIGHT) for c in between}
            passed = {c: self._add(used.index(c), *size) for c, size in sizes.items()}
            self.label.append(None if own is None else passed[own])
            self.routes.append([self.item[wire.source], *passed.values(), self.item[wire.destination]])
        self.before: list[list[int]] = [[] for _ in self.layer]
        self.after: list[list[int]] = [[] for _ in self.layer]
        for route in self.routes:
            for a, b in pairwise(route):
                self.after[a].append(b)
                self.before[b].append(a)
        for item in range(self.num_nodes):
            degree = max(len(self.before[item]), len(self.after[item]))
            self.height[item] = max(NODE_HEIGHT, 0.16 + PORT_STEP * (degree - 1))

    def _add(self, layer: int, width: float, height: float) -> int:
        self.layer.append(layer)
        self.width.append(width)
        self.height.append(height)
        return len(self.layer) - 1

    def columns(self) -> Order:
        columns: Order = [[] for _ in range(max(self.layer) + 1)]
        for item, layer in enumerate(self.layer):
            columns[layer].append(item)
        return columns


def _depths(wires: Sequence[Wire]) -> dict[int, int]:
    depth = dict.fromkeys(_nodes(wires), 0)
    for wire in sorted(wires, key=lambda w: w.destination):  # a node's incoming wires all come before its outgoing ones
        depth[wire.destination] = max(depth[wire.destination], depth[wire.source] + 1)
    return depth


def _label_layers(wires: Sequence[Wire], depth: dict[int, int]) -> list[int | None]:
    """The odd layer of each label: the emptiest it can stand in, nearest the destination; those with least choice go first."""
    load: dict[int, int] = {}
    chosen: list[int | None] = [None] * len(wires)
    spans = [range(2 * depth[w.destination] - 1, 2 * depth[w.source], -2) for w in wires]
    for i in sorted(range(len(wires)), key=lambda i: len(spans[i])):
        if wires[i].label_width:
            layer = min(spans[i], key=lambda c: load.get(c, 0))
            load[layer] = load.get(layer, 0) + 1
            chosen[i] = layer
    return chosen


def _untangle(layers: _Layers, order: Order) -> tuple[Order, int]:
    """The order with fewest crossings, seen while layers are sorted by their neighbours' mean place and neighbours swapped."""
    best, fewest = [list(column) for column in order], _crossings(layers, order)
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        steps = range(1, len(order)) if forwards else range(len(order) - 2, -1, -1)
        for c in steps:
            place = {item: i for i, item in enumerate(order[c - 1 if forwards else c + 1])}
            near = layers.before if forwards else layers.after
            keys = {item: fmean([place[n] for n in near[item]] or [i]) for i, item in enumerate(order[c])}
            order[c].sort(key=keys.__getitem__)
        _swap_neighbours(layers, order)
        crossings = _crossings(layers, order)
        if crossings < fewest:
            best, fewest = [list(column) for column in order], crossings
    return best, fewest


def _swap_neighbours(layers: _Layers, order: Order) -> None:
    place = {item: i for column in order for i, item in enumerate(column)}
    for column in order:
        for i in range(len(column) - 1):
            a, b = column[i], column[i + 1]
            gain = sum(_inversions([place[n] for n in near[a]], [place[n] for n in near[b]])
                       for near in (layers.before, layers.after))
            if gain > 0:
                column[i], column[i + 1] = b, a
                place[a], place[b] = i + 1, i


def _inversions(upper: list[int], lower: list[int]) -> int:
    """Crossings that a swap of two neighbours would save."""
    return sum((u > v) - (u < v) for u in upper for v in lower)


def _crossings(layers: _Layers, order: Order) -> int:
    place = {item: i for column in order for i, item in enumerate(column)}
    total = 0
    for column in order:
        ends = [place[n] for item in column for n in sorted(layers.after[item], key=place.__getitem__)]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1:])
    return total


def _ports(layers: _Layers, order: Order) -> dict[tuple[int, int], float]:
    """How far below the middle of item a the curve from or to its neighbour b ends; (a, b) -> inches. 0 but at nodes."""
    place = {item: i for column in order for i, item in enumerate(column)}
    ports = {}
    for near in (layers.before, layers.after):
        for a, neighbours in enumerate(near):
            for i, b in enumerate(sorted(neighbours, key=place.__getitem__)):
                ports[a, b] = (i - (len(neighbours) - 1) / 2) * PORT_STEP
    return ports


def _heights(layers: _Layers, order: Order, sweeps: int) -> list[float]:
    """y of each item: as straight as the order and the spacing allow, one layer at a time.

    First least squares; then reweighted towards least absolute differences, which prefers one bend to many small ones.
    """
    ports = _ports(layers, order)
    y = [0.0] * len(layers.layer)
    gaps = [[(layers.height[a] + layers.height[b]) / 2 + SPACING for a, b in pairwise(column)] for column in order]
    for column, gap in zip(order, gaps):
        for item, v in zip(column, accumulate(gap, initial=-sum(gap) / 2)):
            y[item] = v
    for sweep in range(sweeps):
        for c in range(len(order)) if sweep % 2 == 0 else range(len(order) - 1, -1, -1):
            wanted, weights = [], []
            for a in order[c]:
                pulls = [y[b] + ports[b, a] - ports[a, b] for b in layers.before[a] + layers.after[a]]
                stiff = [_stiffness(layers, a, b) / (1.0 if sweep < 16 else abs(v - y[a]) + 0.02)
                         for v, b in zip(pulls, layers.before[a] + layers.after[a])]
                weight = sum(stiff)
                wanted.append(sum(v * w for v, w in zip(pulls, stiff)) / weight)
                weights.append(weight)
            for item, v in zip(order[c], _spread(wanted, weights, gaps[c])):
                y[item] = v
    return y


def _stiffness(layers: _Layers, a: int, b: int) -> float:
    """Pieces of one long edge line up before edges between nodes do (the 1 : 2 : 8 of Gansner et al. 1993)."""
    return (8.0, 2.0, 1.0)[(a < layers.num_nodes) + (b < layers.num_nodes)]


def _spread(wanted: list[float], weights: list[float], gaps: list[float]) -> list[float]:
    """The places nearest `wanted`, in weighted squares, that lie at least `gaps` apart (pool adjacent violators)."""
    offsets = list(accumulate(gaps, initial=0.0))
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight, offset in zip(wanted, weights, offsets):
        block = (value - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, mass, members = blocks.pop()
            total = mass + block[1]
            block = ((mean * mass + block[0] * block[1]) / total, total, members + block[2])
        blocks.append(block)
    flat = [mean for mean, _, members in blocks for _ in range(members)]
    return [v + offset for v, offset in zip(flat, offsets)]


def _place(layers: _Layers, order: Order, y: list[float]) -> Layout:
    top = min(y[i] - layers.height[i] / 2 for i in range(len(y)))
    y = [v - top for v in y]
    ports = _ports(layers, order)
    widths = [max(layers.width[i] for i in column) for column in order]
    left = [0.0]
    for c in range(len(order) - 1):  # a steep curve gets more room to turn in
        climb = max((abs(y[a] + ports[a, b] - y[b] - ports[b, a]) for a in order[c] for b in layers.after[a]), default=0.0)
        left.append(left[-1] + widths[c] + min(0.8, 0.26 + 0.22 * climb))
    x = [left[layer] + widths[layer] / 2 for layer in layers.layer]

    def box(item: int) -> Box:
        return Box(x[item], y[item], layers.width[item], layers.height[item])

    def curve(route: list[int]) -> tuple[Point, ...]:
        points: list[Point] = []
        for a, b in pairwise(route):
            column_a, column_b = layers.layer[a], layers.layer[b]
            start = (left[column_a] + widths[column_a], y[a] + ports[a, b])
            end = (left[column_b], y[b] + ports[b, a])
            middle = (start[0] + end[0]) / 2
            points += [points[-1], start, start] if points else [start]  # straight through the layer just crossed
            points += [(middle, start[1]), (middle, end[1]), end]
        return tuple(points)

    height = max(y[i] + layers.height[i] / 2 for i in range(len(y)))
    return Layout(left[-1] + widths[-1], height,
                  nodes={node: box(item) for node, item in layers.item.items()},
                  labels=tuple(None if item is None else box(item) for item in layers.label),
                  curves=tuple(curve(route) for route in layers.routes))
