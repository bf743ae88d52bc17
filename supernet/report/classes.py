"""What a test says class by class, in a page: a table, the confusion matrix, the commonest mistakes, the reliability diagram."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from supernet.report import figure as figures
from supernet.report import page

MAX_NUMBERED = 20   # classes: a larger matrix shows shades without numbers
MAX_DRAWN = 200     # classes: of a larger matrix only the commonest mistakes are told
MAX_MISTAKES = 20
LEVELS = 8          # shades
RIGHT, WRONG = "#1f5fa8", "#c05a00"
INK = "currentColor"  # of the page, light or dark
MAX_NAME = 18       # characters of a class's name beside a matrix


def class_table(classes: Mapping[str, Sequence[Any]]) -> str:
    """HTML of the columns name, support, precision, recall and f1 (in percent) of `summary.class_tables`."""
    rows = [(str(name), f"{support:,}", *(f"{value:.2f}" for value in shares)) for name, support, *shares in zip(
        *(classes[key] for key in ("name", "support", "precision", "recall", "f1")), strict=True)]
    return page.table(rows, head=("class", "items", "precision (%)", "recall (%)", "F1 (%)"), tall=True, numbers=True)


def mistakes_table(confusion: np.ndarray, names: Sequence[str]) -> str:
    """HTML of the largest entries of a confusion matrix (K, K) off its diagonal."""
    wrong = confusion - np.diag(np.diagonal(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_MISTAKES]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape)) if wrong[i, j]]
    rows = [(names[i], names[j], f"{wrong[i, j]:,}", f"{100 * wrong[i, j] / confusion[i].sum():.1f}") for i, j in pairs]
    if not rows:
        return page.paragraph("No item was taken for one of another class.")
    kinds, total = int((wrong > 0).sum()), int(wrong.sum())
    note = f"{'' if len(rows) == kinds else f'The {len(rows)} commonest of '}{kinds:,} kinds of mistakes, {total:,} in all."
    return page.paragraph(note, soft=True) + page.table(rows, head=("true", "taken for", "items", "of the true class (%)"), tall=True,
                                                        numbers=True)


def confusion_svg(confusion: np.ndarray, names: Sequence[str]) -> str:
    """A confusion matrix (K, K), true classes as rows, as one <svg> element. A shade is of the square root of the share of the row, so that
    rare mistakes are seen: blue where right, orange where wrong."""
    classes = len(confusion)
    numbered = classes <= MAX_NUMBERED
    cell = min(60, max(32, 400 // classes)) if numbered else max(5, 900 // classes)
    font, step = (11, 1) if numbered else (min(11, max(7, cell - 1)), -(-8 // cell))  # a name for each `step` classes
    shown = [_name(name) for name in names]
    room = int(0.62 * font * max(map(len, shown))) + 26  # for names, beside and above
    side = cell * classes
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{room + side + 40}" height="{room + side + 6}" '
           f'viewBox="0 0 {room + side + 40} {room + side + 6}" font-family="system-ui, sans-serif" font-size="{font}" fill="{INK}">',
           f'<rect x="{room}" y="{room}" width="{side}" height="{side}" fill="none" stroke="#c9ced4"/>']
    level = np.ceil(LEVELS * np.sqrt(confusion / np.maximum(1, confusion.sum(1, keepdims=True)))).astype(int)
    right = np.eye(classes, dtype=bool)
    for colour, of in ((RIGHT, right), (WRONG, ~right)):
        for shade in range(1, LEVELS + 1):
            cells = zip(*np.nonzero(of & (level == shade)))
            if path := "".join(f"M{room + j * cell} {room + i * cell}h{cell}v{cell}h-{cell}z" for i, j in cells):
                out.append(f'<path fill="{colour}" fill-opacity="{shade / LEVELS:g}" d="{path}"/>')
    if numbered:
        for i, j in zip(*np.nonzero(confusion)):
            ink = "#ffffff" if level[i, j] > 0.6 * LEVELS else INK
            out.append(f'<text x="{room + (j + 0.5) * cell:g}" y="{room + (i + 0.5) * cell + 4:g}" text-anchor="middle" fill="{ink}">'
                       f"{confusion[i, j]}</text>")
    for n in range(0, classes, step):
        at = room + (n + 0.5) * cell
        out.append(f'<text x="{room - 4}" y="{at + 0.35 * font:g}" text-anchor="end">{escape(shown[n])}</text>')
        out.append(f'<text transform="translate({at + 0.35 * font:g} {room - 4}) rotate(-90)">{escape(shown[n])}</text>')
    middle = room + side / 2
    out.append(f'<text x="{middle:g}" y="11" text-anchor="middle" font-size="11" fill="#5d6670">predicted</text>')
    out.append(f'<text transform="translate(11 {middle:g}) rotate(-90)" text-anchor="middle" font-size="11" fill="#5d6670">true</text>')
    return "".join([*out, "</svg>"])


def reliability_svg(bins: Sequence[Sequence[float]]) -> str:
    """The share that is right against confidence, and how many items have such a confidence, as one <svg> element, from the rows
    `calibration` of `summary.class_tables`."""
    width = 100 / 15
    ends, counts, right, confidence = np.asarray(bins, float).T
    centres = 100 * ends - width / 2
    with figures.house_style():
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.bar(centres, right, 0.92 * width, color=RIGHT, label="right")
        above.plot([0, 100], [0, 100], color="#6f6f6f", linestyle="--", linewidth=0.9, label="as sure as right")
        above.plot(confidence, right, "o", color=WRONG, markersize=3, label="mean confidence")
        above.set_ylabel("right (%)")
        above.set_ylim(0, 102)
        figure.legend(frameon=False, loc="outside upper center", ncols=3)
        below.bar(centres, 100 * counts / counts.sum(), 0.92 * width, color="#8a949e")
        below.set_ylabel("items (%)")
        below.set_xlabel("confidence (%)")
        below.set_xlim(0, 100)
        for axes in (above, below):
            axes.grid(True, color="#e3e3e3", linewidth=0.6)
            axes.set_axisbelow(True)
        return figures.svg(figure)


def _name(text: str) -> str:
    """A class's name beside a matrix: one line, cut."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= MAX_NAME else shown[: MAX_NAME - 1] + "…"
