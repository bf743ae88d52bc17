"""Line charts, the weights of each edge over time, and heat maps of (E, O) tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from supernet.report import figure as figures
from supernet.report.names import op_colours, op_label, plain

SERIES_COLOURS = ("#1f5fa8", "#c05a00", "#2e7d4f", "#7a3fa0", "#c2418c", "#6f6f6f", "#0f8b8d")
MAX_POINTS = 600     # of a line in a chart
MAX_NUMBERS = 400    # a larger heat map shows colours without numbers

Line = tuple[Sequence[float], Sequence[float]]


def line_chart(lines: Mapping[str, Line], *, x_label: str, y_label: str) -> str:
    """SVG of lines `{name: (x, y)}`; NaN leaves a gap. At most MAX_POINTS points a line are kept.

    The legend stands only where there are several lines.
    """
    with figures.house_style():
        figure = Figure(figsize=(4.4, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for (name, (x, y)), colour in zip(lines.items(), SERIES_COLOURS * len(lines)):
            keep = thinned(len(x), MAX_POINTS)
            xs, ys = np.asarray(x, float)[keep], np.asarray(y, float)[keep]
            axes.plot(xs, ys, color=colour, marker="o" if len(xs) < 3 else None, markersize=3, label=plain(name))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # one: a single point has one whole number beside it
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _grid(axes)
        if len(lines) > 1:
            axes.legend(frameon=False)
        return figures.svg(figure)


def alpha_charts(epochs: np.ndarray, weights: np.ndarray, edges: Sequence[str], ops: Sequence[str], *,
                 max_points: int = 100) -> list[str]:
    """One small SVG for each edge: the weight of every op, `weights (T, E, O)`, against `epochs (T,)`.

    Colours are `names.op_colours(ops)`; the legend is the caller's, once. All charts share one scale, from 0 up unless weights
    are negative. At most `max_points` points a line are kept.
    """
    if weights.shape != (len(epochs), len(edges), len(ops)):
        raise ValueError(f"weights must be (T, E, O) = {(len(epochs), len(edges), len(ops))}, got {weights.shape}")
    keep = thinned(len(epochs), max_points)
    low, high = _limits(weights)
    charts = []
    with figures.house_style():
        for e, edge in enumerate(edges):
            figure = Figure(figsize=(2.3, 1.6), layout="constrained")
            axes = figure.add_subplot()
            for o, colour in enumerate(op_colours(ops).values()):
                axes.plot(epochs[keep], weights[keep, e, o], color=colour, linewidth=1.1)
            axes.set_ylim(low, high)
            axes.set_title(edge, size=8, color="#222222", parse_math=False)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.tick_params(labelsize=7)
            _grid(axes)
            charts.append(figures.svg(figure))
    return charts


def heat_map(weights: np.ndarray, edges: Sequence[str], ops: Sequence[str], path: Path | None = None, *,
             dpi: float = 150) -> np.ndarray:
    """The table `weights (E, O)` as an image, (H, W, 3) uint8 RGB; also written to `path` (.png or .svg) where one is given."""
    with figures.house_style():
        figure = _heat_figure(weights, edges, ops)
        if path is not None:
            figures.save(figure, path, dpi)
        return figures.pixels(figure, dpi)


def heat_map_svg(weights: np.ndarray, edges: Sequence[str], ops: Sequence[str]) -> str:
    """The same as one <svg> element."""
    with figures.house_style():
        return figures.svg(_heat_figure(weights, edges, ops))


def thinned(length: int, most: int) -> np.ndarray:
    """Indices of at most `most` entries of `length`, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))


def _heat_figure(weights: np.ndarray, edges: Sequence[str], ops: Sequence[str]) -> Figure:
    if weights.shape != (len(edges), len(ops)):
        raise ValueError(f"weights must be (E, O) = {(len(edges), len(ops))}, got {weights.shape}")
    figure = Figure(figsize=(1.4 + 0.5 * len(ops), 1.1 + 0.24 * len(edges)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    low, high = _limits(weights)
    mesh = axes.pcolormesh(weights, cmap="Blues", vmin=low, vmax=high, edgecolors="white", linewidth=0.8)
    axes.invert_yaxis()  # row 0 at the top
    axes.set_yticks(np.arange(len(edges)) + 0.5, edges, parse_math=False)
    axes.set_xticks(np.arange(len(ops)) + 0.5, [op_label(op) for op in ops], rotation=40, ha="left", rotation_mode="anchor",
                    parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if weights.size <= MAX_NUMBERS:
        for (e, o), value in np.ndenumerate(weights):
            axes.text(o + 0.5, e + 0.5, f"{value:.2f}", ha="center", va="center", size=7,
                      color="white" if value > low + 0.6 * (high - low) else "#333333")
    else:
        figure.colorbar(mesh, ax=axes, shrink=0.8)
    return figure


def _limits(weights: np.ndarray) -> tuple[float, float]:
    """A common scale: from 0 (or the least, if negative) to a little above the largest of the finite values."""
    finite = weights[np.isfinite(weights)]
    low, high = min(0.0, finite.min(initial=0.0)), finite.max(initial=0.0)
    return low, high + 0.05 * (high - low) if high > low else low + 1.0


def _grid(axes: Axes) -> None:
    axes.grid(True, color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
