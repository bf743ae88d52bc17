"""Estimates of architectures against the truth."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supernet.report import figure as figures
from supernet.report.curves import SERIES_COLOURS
from supernet.report.names import plain

WIDE = 1e3  # estimates that span a larger factor stand on a logarithmic axis (synflow: tens of orders of magnitude)
Points = tuple[np.ndarray, np.ndarray]  # estimate (N,), truth (N,)


def scatter(panels: Mapping[str, Points], *, y_label: str) -> Figure:
    """A panel a way to estimate, one point an architecture; pairs that are not finite are left out, and counted in the title.

    Make and save it within `figure.house_style()`.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(0.6 + 3.4 * columns, 0.2 + 2.8 * rows), layout="constrained", facecolor="white")
    for n, (name, (estimate, truth)) in enumerate(panels.items()):
        finite = np.isfinite(estimate) & np.isfinite(truth)
        axes = figure.add_subplot(rows, columns, n + 1)
        axes.scatter(estimate[finite], truth[finite], s=12, color=SERIES_COLOURS[0], alpha=0.6, linewidths=0)
        _scale(axes, estimate[finite])
        axes.set_xlabel(plain(name), parse_math=False)
        axes.set_ylabel(y_label, parse_math=False)
        if not finite.all():
            axes.set_title(f"{(~finite).sum()} of {len(finite)} not finite", size=8, color="#444444")
        axes.grid(True, color="#e3e3e3", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def _scale(axes: Axes, estimates: np.ndarray) -> None:
    positive = estimates[estimates > 0]
    if len(positive) and estimates.min() >= 0 and positive.max() > WIDE * positive.min():
        # zero has a place of its own (synflow of a cell without a path)
        decade = 10 ** np.floor(np.log10(positive.min()))
        axes.set_xscale(**({"value": "log"} if len(positive) == len(estimates) else {"value": "symlog", "linthresh": decade}))
        axes.xaxis.get_major_locator().set_params(numticks=6)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))


def scatter_svg(panels: Mapping[str, Points], *, y_label: str) -> str:
    """The same as one <svg> element."""
    with figures.house_style():
        return figures.svg(scatter(panels, y_label=y_label))
