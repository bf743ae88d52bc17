"""The bare page of a report: its style sheet, and small pieces of HTML.

Text given to these functions is escaped; arguments named `html` or `svg` are taken as they are. Boxes that may scroll take the
keyboard's focus (tabindex), so that they scroll without a mouse.
"""

from collections.abc import Iterable, Sequence
from html import escape

CSS = """
:root { --ink: #1c2024; --soft: #5d6670; --line: #d9dee3; --back: #f6f7f9; --card: #ffffff; --accent: #1f5fa8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #353c44; --back: #14171a; --card: #1d2125; --accent: #7fb2ec; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; color-scheme: light dark; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.1rem; margin: 36px 0 10px; }
h3 { font-size: .95rem; margin: 18px 0 8px; color: var(--soft); }
p { margin: 6px 0; }
.soft { color: var(--soft); }
.box { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
.figure { background: #ffffff; color: #1c2024; padding: 8px; text-align: center; }
.figure svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.grid { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.grid.small { grid-template-columns: repeat(auto-fill, minmax(min(47%, 190px), 1fr)); gap: 8px; }
.small .figure { padding: 2px; }
.grid > * { min-width: 0; }
.grid svg { width: 100%; }
figure { margin: 0; }
figcaption { font-size: .9rem; color: var(--soft); padding: 4px 2px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: 7px 12px; border-top: 1px solid var(--line); overflow-wrap: break-word; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; white-space: nowrap; }
td:nth-child(3) { min-width: 420px; }
td { font-variant-numeric: tabular-nums; }
.numbers td { min-width: 0; text-align: right; white-space: nowrap; }
.numbers th:not(:first-child) { text-align: right; }
pre { margin: 0; padding: 12px; font: .82rem/1.45 ui-monospace, monospace; overflow-wrap: normal; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
pre.tall, .box.tall { max-height: 480px; overflow: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0; padding: 0; list-style: none; font-size: .85rem; }
.legend i { display: inline-block; width: 14px; height: 10px; margin-right: 6px; border: 1px solid var(--line); }
@media (max-width: 480px) { th { white-space: normal; } .wide svg { max-width: none; min-width: 520px; } }
"""


def page(title: str, html: Iterable[str]) -> str:
    """A whole document that fetches nothing; the policy in its head forbids what a browser could still load or run."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{CSS}</style>
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


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), tall: bool = False, numbers: bool = False) -> str:
    """The first cell of each row is its heading. A tall table scrolls inside a box of limited height; one of numbers sets them at the
    right."""
    lines = ["<tr>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in head) + "</tr>"] if head else []
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    words = " ".join(["box", *(["tall"] if tall else []), *(["numbers"] if numbers else [])])
    return f'<div class="{words}" tabindex="0"><table>' + "\n".join(lines) + "</table></div>"


def preformatted(text: str, wrap: bool = False) -> str:
    return f'<div class="box" tabindex="0"><pre class="{"wrap" if wrap else "tall"}">{escape(text)}</pre></div>'


def figure(svg: str, alt: str, *, wide: bool = False, caption: str = "") -> str:
    """`svg` is an element made by us. A wide figure keeps a readable size on a phone and scrolls inside its box."""
    drawing = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    above = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure>{above}<div class="box figure{" wide" if wide else ""}">{drawing}</div></figure>'


def grid(html: Iterable[str], small: bool = False) -> str:
    return f'<div class="grid{" small" if small else ""}">' + "\n".join(html) + "</div>"


def legend(colours: Iterable[tuple[str, str]]) -> str:
    """(name, colour) pairs; colours are ours."""
    return '<ul class="legend">' + "".join(f'<li><i style="background:{c}"></i>{escape(n)}</li>' for n, c in colours) + "</ul>"
