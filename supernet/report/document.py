"""One page as one file: sections of HTML, the data that scripts draw, and the scripts themselves. It fetches nothing.

What runs comes from `assets/` alone: the policy in a page's head names the digest of each script, so that a browser refuses any other one,
also if text from a run's folder ever reached the page unescaped. Data stands in blocks of JSON that are never run.
"""

import base64
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from supernet.report.page import paragraph

ASSETS = Path(__file__).with_name("assets")
STYLES = ("uPlot.min.css", "page.css")
SCRIPTS = ("uPlot.iife.min.js", "draw.js", "charts.js", "cells.js", "weights.js", "scatter.js", "tables.js", "trained.js", "trials.js",
           "page.js")  # in the order in which they run
UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
DIGITS = 6  # significant ones, of numbers that are drawn


class Missing(Exception):
    """A section has nothing to show; the message says why, in one line."""


class Drawn(NamedTuple):
    """What a section shows: HTML, and the data of what scripts draw in it (`Section.data`)."""

    html: str
    data: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Section:
    """A part of a page. key: letters, its address within the page. html: trusted, made by functions that escape. data: what the scripts
    draw in it, plain values; an element with data-draw="KIND" data-from="NAME" is drawn from data[NAME] by the script's function KIND.
    folded: shown when its title is clicked."""

    key: str
    title: str
    html: str
    data: Mapping[str, Any] = field(default_factory=dict)
    folded: bool = False


def document(title: str, header: str, sections: Sequence[Section], *, live: bool = False) -> str:
    """The whole page. header: HTML. live: it is served, and asks its own address for newer data."""
    scripts = [asset(name) for name in SCRIPTS]
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    source = "'self'" if live else "'none'"
    policy = (f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; connect-src {source}; base-uri 'none'; "
              "form-action 'none'")
    links = "".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in sections)
    mark = ' data-live="1"' if live else ""
    return f"""<!doctype html>
<html lang="en"{mark}>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>
{chr(10).join(asset(name) for name in STYLES)}
</style>
</head>
<body>
<main>
{header}
<nav aria-label="sections">{links}</nav>
{chr(10).join(map(_section, sections))}
</main>
<!-- The charts are drawn by uPlot:
{asset("uPlot.LICENSE")}
-->
{chr(10).join(f'<script>{text}</script>' for text in scripts)}
</body>
</html>
"""


def _section(section: Section) -> str:
    data = f'\n<script type="application/json">{to_script(section.data)}</script>' if section.data else ""
    title = escape(section.title)
    body = f'<div class="body">\n{section.html}\n</div>'
    if section.folded:
        body = f"<details><summary><h2>{title}</h2></summary>\n{body}</details>"
    else:
        body = f"<h2>{title}</h2>\n{body}"
    return f'<section id="{section.key}">{body}{data}</section>'


def left_out(key: str, title: str, why: str) -> Section:
    """What stands in the place of a section that has nothing to show."""
    return Section(key, title, paragraph(f"Left out: {why}.", soft=True))


def drawing(name: str, *, kind: str = "", label: str = "") -> str:
    """The place of a drawing: the script's function `kind` (or `name`) draws data[name] there. label: what it shows, in words."""
    return f'<div data-draw="{escape(kind or name)}" data-from="{escape(name)}" role="group" aria-label="{escape(label)}"></div>'


def to_script(data: Any) -> str:
    """JSON that can stand in an HTML script element: nothing in it ends the element or begins a comment. NaN and infinities become null."""
    return json.dumps(finite(data), separators=(",", ":"), allow_nan=False, ensure_ascii=False).translate(UNSAFE)


def finite(data: Any) -> Any:
    """Plain values, floats with DIGITS significant digits, None for what is not finite."""
    if type(data) is float:
        return short_number(data)
    if isinstance(data, Mapping):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def short_number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


@functools.cache
def asset(name: str) -> str:
    text = (ASSETS / name).read_text(encoding="utf-8").strip("\n")
    assert "</script" not in text.lower() and "</style" not in text.lower(), name
    return text
