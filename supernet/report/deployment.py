"""The front of a supernet: accuracy against what sub-networks cost, with those that were deployed; a table, a picture, a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supernet.files import write_whole
from supernet.report import figure as figures
from supernet.report import page
from supernet.report.curves import SERIES_COLOURS
from supernet.report.formats import comma_separated, markdown
from supernet.report.progress import staircase
from supernet.runs.journal import to_json
from supernet.searchers.fronts import front

SCALES = {"parameters": (1e-6, "parameters (M)"), "multiply_adds": (1e-6, "multiply-adds (M)"), "peak_memory": (1e-6, "peak memory (MB)"),
          "latency_ms": (1.0, "latency (ms)")}


@dataclass(frozen=True)
class Front:
    """stem: of the files' names. quantity: of the x axis. cloud: (cost, validation score) of all that was evaluated with shared weights.
    chosen: the results of the deployed networks, in order of their limits, as in results.json. score: what the y axis is; better: 1 where
    more of it is, else -1."""

    title: str
    stem: str
    quantity: str
    cloud: Sequence[tuple[float, float]]
    chosen: Sequence[Mapping[str, Any]]
    score: str
    better: int
    about: Mapping[str, Any]

    @property
    def scale(self) -> tuple[float, str]:
        return SCALES.get(self.quantity, (1.0, self.quantity))


def chart(shown: Front) -> Figure:
    """Grey: all that was evaluated; the line leads over those that no other beats; filled: deployed, by validation and by the test. Make
    and save it within `figure.house_style()`."""
    factor, label = shown.scale
    figure = Figure(figsize=(5.4, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    points = np.array(shown.cloud, np.float64).reshape(-1, 2)
    axes.plot(points[:, 0] * factor, points[:, 1], "o", markersize=2.5, color="#bbbbbb", markeredgewidth=0, label="evaluated", zorder=1)
    best = points[front(np.column_stack([-points[:, 0], shown.better * points[:, 1]]))] if len(points) else points
    corners = staircase([(-x, shown.better * y) for x, y in best])
    if corners:
        axes.plot([-x * factor for x, _ in corners], [shown.better * y for _, y in corners], color="#999999", linewidth=0.9, zorder=2)
    for n, (part, name) in enumerate((("validation", "deployed, validation"), ("test", "deployed, test"))):
        rows = [(r["costs"][shown.quantity] * factor, r[part][shown.score]) for r in shown.chosen if r.get(part)]
        if rows:
            axes.plot(*zip(*rows), "os"[n], markersize=5, color=SERIES_COLOURS[n], label=name, zorder=3 + n)
    axes.set_xlabel(label)
    axes.set_ylabel({"accuracy": "accuracy (%)"}.get(shown.score, shown.score))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(True, color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def head(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["network", "limits", "validation, %", "test, %", *_costs(results)]


def rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row a network: what was asked, its scores, what it takes."""
    found = []
    for r in results:
        limits = ", ".join(f"{name} {limit:,.6g}" for name, limit in r["asked"]["limits"].items()) or "none"
        scores = [f"{r[part]['accuracy']:.2f}" if r.get(part) else "" for part in ("validation", "test")]
        found.append([r["name"], limits, *scores, *(f"{r['costs'][name]:,.6g}" for name in _costs(results))])
    return found


def _costs(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in dict.fromkeys(name for r in results for name in r["costs"]) if all(name in r["costs"] for r in results)]


def text(results: Sequence[Mapping[str, Any]]) -> str:
    return markdown(head(results), rows(results))


NOTE = ("Validation: with the weights of the supernet and statistics of the norms of its own, on images by which the networks were chosen. "
        "Test: read once for each network that was kept, and nothing was chosen by it.")


def write(output: Path, shown: Front) -> list[Path]:
    """STEM.json, .csv, .md, .png and .html. Raises OSError."""
    stem = shown.stem
    with figures.house_style():
        drawn = chart(shown)
        figures.save(drawn, output / f"{stem}.png", 150)
        svg = figures.with_ids(figures.svg(drawn), "f")
    title = shown.title
    picture = page.figure(svg, f"{shown.score} against {shown.quantity}", wide=True)
    how = ("Grey: architectures that were evaluated with shared weights; the line leads over those that no other beats. The others were "
           "made networks of their own.")
    html = page.page(title, [
        page.header(title, NOTE), page.section("Front", picture + page.paragraph(how, soft=True)),
        page.section("Deployed", page.table(rows(shown.chosen), head=head(shown.chosen))),
        page.section("Made from", page.table([(key, str(value)) for key, value in shown.about.items()]))])
    cloud = sorted(map(tuple, shown.cloud))
    texts = {"json": to_json({"format": "supernet.front/1", **shown.about, "quantity": shown.quantity, "deployed": list(shown.chosen),
                              "evaluated": [list(point) for point in cloud]}, indent=1) + "\n",
             "csv": comma_separated([shown.quantity, shown.score], cloud), "md": f"# {title}\n\n{text(shown.chosen)}\n\n{NOTE}\n",
             "html": html}
    for suffix, content in texts.items():
        write_whole(output / f"{stem}.{suffix}", content.encode())
    return [output / f"{stem}.{suffix}" for suffix in ("html", "png", "md", "csv", "json")]
