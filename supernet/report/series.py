"""Lines of what a run recorded, as data for a chart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supernet.report.curves import thinned
from supernet.report.names import plain
from supernet.report.run_files import RunFiles

MAX_POINTS = 1500  # of a line


@dataclass(frozen=True)
class Chart:
    """lines: by name, the key of a record."""

    title: str
    unit: str
    lines: Mapping[str, str]


def chart(run: RunFiles, wanted: Chart) -> dict[str, Any] | None:
    """Its lines (x: epochs done; a value that was not finite is a gap), at most MAX_POINTS points each; None where none was recorded."""
    lines = []
    for name, key in wanted.lines.items():
        x, y = run.series(key)
        if any(value is not None for value in y):
            keep = thinned(len(x), MAX_POINTS)
            lines.append({"name": plain(name), "x": [x[i] for i in keep], "y": [y[i] for i in keep]})
    return {"title": wanted.title, "unit": wanted.unit, "lines": lines} if lines else None
