"""A table of text as Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
       "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "†": r"$^\dagger$", "–": "--"}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of equal width, so that it is read as text too. A bar in a cell is escaped, a line break becomes a space."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[n]) for row in cells)) for n in range(len(head))]
    first, *others = ("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells)
    return "\n".join([first, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *others])


def latex(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, label: str, notes: Iterable[str] = ()) -> str:
    r"""A `table` environment; needs \usepackage{booktabs}. Notes stand below as a small paragraph each."""
    label = re.sub(r"[^A-Za-z0-9:_./-]", "-", label)  # a % in it would take the bracket away
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{tex(caption)}}}", rf"\label{{{label}}}",
             rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", " & ".join(map(tex, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(re.sub(r"(?<![\w.-])-(?=\d)", "$-$", tex(cell)) for cell in row) + r" \\" for row in rows]  # a minus, no hyphen
    lines += [r"\bottomrule", r"\end{tabular}", *(rf"\par\smallskip{{\footnotesize {tex(note)}}}" for note in notes), r"\end{table}"]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(lines) + "\n"


def tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in " ".join(text.split()))


def comma_separated(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers with all their digits; None and NaN are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(["" if value is None or value != value else value for value in row])
    return buffer.getvalue()
