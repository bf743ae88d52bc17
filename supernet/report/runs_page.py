"""The page of many runs: of a sweep, or of any folders."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from supernet.report import page
from supernet.report.document import Section, document, drawing, left_out
from supernet.report.fleet import Row, as_data
from supernet.report.scatters import of_rankings, of_searches
from supernet.report.verdicts import Tables


def runs_page(title: str, rows: Sequence[Row], *, folders: Sequence[Path] = (), tables: Tables | str = "",
              pages: Mapping[str, str] | None = None, link: Callable[[Row], str | None], named: Callable[[Row], str],
              live: bool = False) -> str:
    """tables: the referee's, or why there are none. folders: where rankings are looked for. pages: other pages beside, by name and
    address."""
    states = Counter(row.state for row in rows)
    said = f"{len(rows)} runs: " + ", ".join(f"{n} {state or 'of unknown state'}" for state, n in states.most_common())
    data = as_data(rows, link, named)
    note = ("Click a head to sort. The filter takes words, which must all be in a row, its options among them, and comparisons such as "
            "val_accuracy>90. Mark two runs to see how they differ.")
    place = drawing("runs", label="table of runs, their curves and differences")
    sections = [Section("runs", "Runs", page.paragraph(note, soft=True) + place, {"runs": data})]
    if isinstance(tables, Tables):
        sections += _referee(tables)
    elif tables:
        sections.append(left_out("referee", "Statistics", tables))
    if scatters := [*of_searches(rows), *of_rankings(folders)]:
        about = "A point an architecture: what the search saw of it, and what it reaches when it is trained alone."
        sections.append(Section("scatter", "Supernet against the truth", page.paragraph(about, soft=True)
                                + drawing("scatter", kind="scatters", label="estimates against the truth"), {"scatter": scatters}))
    if pages:
        sections.append(Section("pages", "Other pages here", page.links(pages)))
    return document(title, page.header(title, said), sections, live=live)


def _referee(tables: Tables) -> list[Section]:
    html = [page.paragraph(" ".join(tables.about), soft=True)]
    for column in tables.columns:
        head, rows = tables.table(column)
        html += [page.heading(column.title), f'<div class="plain">{page.table(rows, head=head)}</div>']
    html += [page.paragraph(note, soft=True) for note in tables.notes]
    return [Section("referee", "Statistics", "\n".join(html))]
