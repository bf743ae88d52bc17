"""`write_tables`: lines of a table of methods as Markdown, LaTeX, CSV and a page that opens offline."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from supernet.files import write_whole
from supernet.report import formats, page
from supernet.report.figure import with_ids
from supernet.report.referee import (
    PAIRS,
    Column,
    Line,
    Row,
    duration_text,
    gain_text,
    interval_text,
    marked,
    number,
    over_text,
    paired_text,
    plus_minus,
    usual_commit,
    verdict_text,
)

MARK, UNCONFIRMED = "†", "*"
CSV_HEAD = ("column", "method", "published_mean", "published_deviation", "published_n", "published_over", "published_best_of",
            "published_source", "published_confirmed", "searches", "mean", "deviation_over_searches", "deviation_between_searches",
            "retrainings", "deviation_over_retrainings", "interval_low", "interval_high", "best_of_n", "picked_mean", "picked_deviation",
            "picked_n", "gain", "gain_low", "gain_high", "gain_pairs", "gain_p", "gain_pairs_needed", "cost_s", "verdict", "difference",
            "difference_low", "difference_high", "runs_needed", "margin", "other_commit")


class Tables:
    """All that is written of one table. about: sentences before it; level: of the intervals; baselines: by row, that which its gain is
    over; setups: by row, what is said after its verdict where
    ours is not the published setup."""

    def __init__(self, title: str, rows: Sequence[Row], columns: Sequence[Column], lines: Sequence[Line], *, about: Sequence[str] = (),
                 notes: Sequence[str] = (), baselines: Mapping[str, str] | None = None, level: float = 0.95,
                 setups: Mapping[str, str] | None = None):
        self.title, self.rows, self.columns, self.lines, self.about = title, rows, columns, lines, list(about)
        self.baselines, self.level, self.setups = dict(baselines or {}), level, dict(setups or {})
        self.marks = marked(rows)
        self.notes = [*self._legend(), *(f"{MARK} {line}." for line in self.marks.values()),
                      *(f"{row.name}: {row.note}." for row in rows if row.note), *notes]

    # -- cells

    def _cells(self, line: Line, digits: int = 2) -> dict[str, str]:
        over, theirs, row = line.spread, line.published, line.row
        best = "" if over is None or over.searches < 2 else f"{number(line.best, digits)} (of {over.searches})"
        picked = line.picked
        return {
            "method": row.name + (MARK if row.name in self.marks else ""),
            "published": "" if theirs is None else plus_minus(theirs.mean, theirs.deviation, digits)
            + ("" if theirs.confirmed else UNCONFIRMED),
            "over": "" if theirs is None else over_text(theirs),
            "ours": "" if over is None else plus_minus(over.mean, over.over_searches, digits),
            "n": "" if over is None else str(over.searches),
            "SD retrained": "" if over is None else number(over.over_retrainings, digits),
            f"{100 * self.level:.0f} % interval": interval_text(line.interval, digits),
            "best": best,
            "picked": "" if picked is None else f"{plus_minus(picked.mean, picked.deviation, digits)} ({picked.n})",
            "gain": gain_text(line.gain, digits),
            "p": paired_text(line.gain),
            "cost": duration_text(line.cost_s),
            "verdict": verdict_text(line.verdict, digits)
            + (f" ({self.setups[row.name]})" if line.verdict and row.name in self.setups else ""),
        }

    def table(self, column: Column) -> tuple[list[str], list[list[str]]]:
        """Head and rows of one column's lines; what is empty in all of them is left out."""
        cells = [self._cells(line) for line in self.lines if line.column.key == column.key]
        head = [name for name in cells[0] if name == "method" or any(row[name] for row in cells)] if cells else ["method"]
        return head, [[row[name] for name in head] for row in cells]

    # -- words

    def _legend(self) -> list[str]:
        level = f"{100 * self.level:.0f} %"
        found = [f"ours: mean ± standard deviation (n - 1) over n independent searches; {level} interval: of that mean, by the expanded "
                 "percentile bootstrap over searches."]
        if any(line.spread and not math.isnan(line.spread.over_retrainings) for line in self.lines):
            found.append("SD retrained: standard deviation over retrainings of one architecture, pooled over searches; it counts for "
                         "no search.")
        found.append("best: the best of all n searches, picked with these very results in hand. It is not what a search reaches, and is "
                     "compared with nothing.")
        if any(line.picked for line in self.lines):
            how = sorted({row.picked_by for row in self.rows if row.picked_by})
            found.append(f"picked: the retrainings of the one architecture that the protocol picks{f' ({how[0]})' if how else ''}, and how "
                         "many they are.")
        if any(line.gain for line in self.lines):
            over = sorted(set(self.baselines.values()))
            named = over[0] if len(over) == 1 else "the random cells of its space"
            costs = {line.row.name: line.cost_s for line in self.lines}
            times = [costs[self.baselines[line.row.name]] / line.cost_s for line in self.lines if line.gain and line.cost_s > 0]
            times = [ratio for ratio in times if not math.isnan(ratio)]
            if times:
                took = " to ".join(dict.fromkeys(f"{ratio:.1f}" for ratio in (min(times), max(times))))
                found.append(f"cost: of a search, mean, as measured; {named} took {took} times as long as the searches that it is "
                             "compared with.")
            found.append(f"gain: over {named}, seed by seed, positive where the method is better; p: exact one-sided test of flipped "
                         f"signs, of {PAIRS} pairs or more (with n pairs it is at least 1 / 2^n).")
        if any(line.published for line in self.lines):
            margins = ", ".join(f"{column.margin:g} ({column.title})" for column in self.columns)
            found.append(f"verdict: agrees where the whole {level} interval of the difference from the published mean (Welch) lies within "
                         f"the margin, {margins}; differs where all of it lies outside; else there are too few runs. Retrainings of a best "
                         "search are compared with ours of the search that the same protocol picks, never with the mean over searches.")
        if any(line.published and not line.published.confirmed for line in self.lines):
            found.append(f"{UNCONFIRMED} quoted from memory, not confirmed.")
        return found

    def _sources(self) -> list[str]:
        seen: dict[str, list[str]] = {}
        for line in self.lines:
            if line.published is not None and line.row.name not in seen.setdefault(line.published.source, []):
                seen[line.published.source].append(line.row.name)
        return [f"{source}: {', '.join(names)}" for source, names in seen.items()]

    # -- documents

    def markdown(self) -> str:
        parts = [f"# {self.title}", *self.about]
        for column in self.columns:
            parts += [f"## {column.title}", formats.markdown(*self.table(column))]
        parts.append("\n".join(f"- {note}" for note in self._ended(self.notes)))
        if sources := self._sources():
            parts.append("Published numbers:\n\n" + "\n".join(f"- {source}" for source in sources))
        return "\n\n".join(parts) + "\n"

    def _ended(self, notes: Sequence[str]) -> list[str]:
        return [*notes, f"Code: commit {usual_commit(self.rows) or 'unknown'}."]

    def latex(self) -> str:
        tables = []
        for n, column in enumerate(self.columns):
            head, rows = self.table(column)
            last = n == len(self.columns) - 1
            tables.append(formats.latex(head, rows, caption=f"{self.title}: {column.title}.", label=f"tab:{column.key.replace('/', '-')}",
                                        notes=self._ended(self.notes) if last else ()))
        return "\n".join(tables)

    def csv(self) -> str:
        return formats.comma_separated(CSV_HEAD, map(self._record, self.lines))

    def _record(self, line: Line) -> list[object]:
        theirs, over, picked, gain, said = line.published, line.spread, line.picked, line.gain, line.verdict
        return [
            line.column.title, line.row.name, *((theirs.mean, theirs.deviation, theirs.n or None, theirs.over, theirs.best_of or None,
                                                 theirs.source, theirs.confirmed) if theirs else [None] * 7),
            *((over.searches, over.mean, over.over_searches, over.between, over.retrainings, over.over_retrainings)
              if over else [None] * 6),
            *line.interval, line.best, *((picked.mean, picked.deviation, picked.n) if picked else [None] * 3),
            *((gain.mean, *gain.interval, gain.pairs, gain.p, gain.needed) if gain else [None] * 6), line.cost_s,
            *((said.word, said.difference, *said.interval, said.needed) if said else [None] * 5), line.column.margin,
            line.row.name in self.marks]

    def page(self) -> str:
        from supernet.report.strips import strips_svg  # Matplotlib waits until there is something to draw

        html = [page.header(self.title, " ".join(self.about))]
        for n, column in enumerate(self.columns):
            head, rows = self.table(column)
            own = [line for line in self.lines if line.column.key == column.key and line.spread is not None]
            drawn = ""
            if own:
                svg = with_ids(strips_svg(own, set(self.baselines.values())), f"c{n}")
                drawn = page.figure(svg, f"{column.title} by method", wide=True)
            html.append(page.section(column.title, drawn + f'<div class="plain">{page.table(rows, head=head)}</div>'))
        html.append(page.section("How to read it", "".join(map(page.paragraph, self._ended(self.notes)))))
        if sources := self._sources():
            html.append(page.section("Sources of the published numbers", "".join(map(page.paragraph, sources))))
        return page.page(self.title, html)


def write_tables(output: Path, tables: Tables) -> list[Path]:
    """table.md, table.tex, table.csv and table.html. Raises OSError."""
    written = []
    for suffix, make in (("md", tables.markdown), ("tex", tables.latex), ("csv", tables.csv), ("html", tables.page)):
        path = output / f"table.{suffix}"
        write_whole(path, make().encode("utf-8", errors="replace"))
        written.append(path)
    return written


def summary(tables: Tables) -> str:
    """What a terminal shows: the tables of all columns, and the notes that are of these runs."""
    parts = [f"{column.title}\n{formats.markdown(*tables.table(column))}" for column in tables.columns]
    found = tables.notes[len(tables._legend()):]
    return "\n\n".join([*parts, *(["\n".join(found)] if found else [])])


