"""Estimates of architectures against the truth."""

import numpy as np
from matplotlib.figure import Figure

from supernet.report import figure as figures
from supernet.report.names import plain


def scatter(estimate: np.ndarray, truth: np.ndarray, *, x_label: str, y_label: str, title: str) -> Figure:
    """One point an architecture; pairs that are not finite are left out. Make and save it within `figure.house_style()`."""
    finite = np.isfinite(estimate) & np.isfinite(truth)
    figure = Figure(figsize=(4.4, 3.4), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.scatter(estimate[finite], truth[finite], s=12, color="#1f5fa8", alpha=0.6, linewidths=0)
    axes.set_xlabel(plain(x_label)), axes.set_ylabel(plain(y_label))
    axes.set_title(title, size=9, color="#222222", parse_math=False)
    axes.grid(True, color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def scatter_svg(estimate: np.ndarray, truth: np.ndarray, **labels: str) -> str:
    with figures.house_style():
        return figures.svg(scatter(estimate, truth, **labels))
