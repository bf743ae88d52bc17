"""Every search of every method as a dot, with the interval of the mean and what was published."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.figure import Figure

from supernet.report import figure as figures
from supernet.report.curves import SERIES_COLOURS
from supernet.report.names import plain
from supernet.report.referee import Line

MAX_NAME = 48  # characters; longer names of methods are cut
OURS, THEIRS = SERIES_COLOURS[0], "#b4530a"


def strips(lines: Sequence[Line], baselines: Collection[str] = ()) -> Figure:
    """lines: of one column, in their order from above; a method that has several is drawn once, with all that was published. Make and save
    it within `figure.house_style()`."""
    names = list(dict.fromkeys(line.row.name for line in lines))
    figure = Figure(figsize=(7.5, 0.9 + 0.34 * len(names)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for line in lines:
        y = names.index(line.row.name)
        if line is next(other for other in lines if other.row is line.row):
            means = [float(np.mean(s.results[line.column.key])) for s in line.row.searches if s.results.get(line.column.key)]
            axes.scatter(means, [y] * len(means), s=14, color=OURS, alpha=0.45, linewidths=0)
            axes.plot(line.interval, [y, y], color=OURS, linewidth=1.6)
            axes.plot([line.spread.mean], [y], marker="|", markersize=11, color=OURS, markeredgewidth=2)
            if line.row.name in baselines and len(baselines) == 1:
                axes.axvline(line.spread.mean, color="#8c8c8c", linewidth=0.8, linestyle="--", zorder=0)
        if line.published is not None:
            deviation = line.published.deviation
            axes.errorbar([line.published.mean], [y + 0.22], xerr=None if np.isnan(deviation) else [deviation],
                          fmt="D", markersize=4, color=THEIRS, elinewidth=1, capsize=2)
    axes.set_yticks(range(len(names)), [plain(name, MAX_NAME) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(lines[0].column.title, parse_math=False)
    axes.grid(True, axis="x", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.plot([], [], "o", markersize=4, color=OURS, alpha=0.6, label="a search")
    axes.plot([], [], marker="|", markersize=9, color=OURS, markeredgewidth=2, linewidth=1.6, label="mean, interval")
    if any(line.published for line in lines):
        axes.plot([], [], "D", markersize=4, color=THEIRS, label="published ± its deviation", linewidth=0)
    if len(baselines) == 1:
        axes.plot([], [], "--", color="#8c8c8c", linewidth=0.8, label=f"mean of {plain(*baselines)}")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=7)
    return figure


def strips_svg(lines: Sequence[Line], baselines: Collection[str] = ()) -> str:
    """The same as one <svg> element."""
    with figures.house_style():
        return figures.svg(strips(lines, baselines))
