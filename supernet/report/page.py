"""The bare page of a report: its style sheet, and small pieces of HTML.

Text given to these functions is escaped; arguments named `html` or `svg` are taken as they are. Boxes that may scroll take the
keyboard's focus (tabindex), so that they scroll without a mouse.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

CSS = Path(__file__).with_name("assets") / "page.css"


def page(title: str, html: Iterable[str]) -> str:
    """A whole document that fetches nothing; the policy in its head forbids what a browser could still load or run."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>
{CSS.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{chr(10).join(html)}
</main>
</body>
</html>
"""


def section(name: str, html: str) -> str:
    return f"<section><h2>{escape(name)}</h2>\n{html}\n</section>"


def header(title: str, line: str) -> str:
    return f"<header><h1>{escape(title)}</h1>\n{paragraph(line, soft=True)}</header>"


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, soft: bool = False) -> str:
    return f'<p class="soft">{escape(text)}</p>' if soft else f"<p>{escape(text)}</p>"


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), tall: bool = False, prose: int = 0, numbers: bool = False) -> str:
    """The first cell of each row is its heading. A tall table scrolls inside a box of limited height. prose: the column, from 1, that holds
    sentences. One of numbers sets them at the right."""
    lines = ["<tr>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in head) + "</tr>"] if head else []
    for first, *rest in rows:
        cells = "".join(('<td class="prose">' if n == prose else "<td>") + f"{escape(cell)}</td>" for n, cell in enumerate(rest, start=2))
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    words = " ".join(["box", *(["tall"] if tall else []), *(["numbers"] if numbers else [])])
    return f'<div class="{words}" tabindex="0"><table>' + "\n".join(lines) + "</table></div>"


def preformatted(text: str, wrap: bool = False) -> str:
    return f'<div class="box" tabindex="0"><pre class="{"wrap" if wrap else "tall"}">{escape(text)}</pre></div>'


def figure(svg: str, alt: str, *, wide: bool = False, caption: str = "", paper: bool = True) -> str:
    """`svg` is an element made by us. A wide figure keeps a readable size on a phone and scrolls inside its box. paper: it is drawn for a
    white background."""
    drawing = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    above = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    classes = " ".join(["box", "figure", *(["wide"] if wide else []), *(["paper"] if paper else [])])
    return f'<figure>{above}<div class="{classes}" tabindex="0">{drawing}</div></figure>'


def grid(html: Iterable[str], small: bool = False) -> str:
    return f'<div class="grid{" small" if small else ""}">' + "\n".join(html) + "</div>"


def legend(colours: Iterable[tuple[str, str]]) -> str:
    """(name, colour) pairs; colours are ours."""
    return '<ul class="legend">' + "".join(f'<li><i style="background:{c}"></i>{escape(n)}</li>' for n, c in colours) + "</ul>"


def links(pages: Mapping[str, str]) -> str:
    """Relative addresses by name."""
    return '<ul>' + "".join(f'<li><a href="{escape(address)}">{escape(name)}</a></li>' for name, address in pages.items()) + "</ul>"
