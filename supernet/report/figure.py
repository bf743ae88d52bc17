"""Figures without pyplot: one style whatever the user's settings, and output that is the same at every run."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "mathtext.fontset": "dejavusans",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "axes.edgecolor": "#666666", "xtick.color": "#444444", "ytick.color": "#444444", "axes.labelcolor": "#333333",
    "svg.fonttype": "none",      # text stays text: smaller, and it can be searched
    "svg.hashsalt": "supernet",  # the same ids at every run
    "pdf.fonttype": 42,          # text in a PDF can be searched, and journals take it
}
FORMATS = (".png", ".svg", ".pdf")


@contextmanager
def house_style() -> Iterator[None]:
    """Our settings inside, the user's again outside. Figures are made and saved inside."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # leaves the backend alone
        matplotlib.rcParams.update(STYLE)
        yield


def save(figure: Figure, path: Path, dpi: float) -> None:
    """Writes .svg, .png or .pdf, by the name; ValueError for another."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a figure's file name must end in one of {', '.join(FORMATS)}, got {path.name!r}")
    if path.suffix == ".svg":
        path.write_text('<?xml version="1.0" encoding="utf-8"?>\n' + svg(figure), encoding="utf-8")
    elif path.suffix == ".pdf":
        figure.savefig(path, format="pdf", metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))
    else:
        figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})


def svg(figure: Figure) -> str:
    """The figure as one <svg> element, without prolog, date or metadata."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg"):]


def with_ids(text: str, prefix: str) -> str:
    """The SVG with `prefix` before every id and every use of one, so that several can stand in one page."""
    text = re.sub(r'(\sid=")', rf"\g<1>{prefix}-", text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)


def pixels(figure: Figure, dpi: float) -> np.ndarray:
    """The figure as (H, W, 3) uint8, RGB."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
