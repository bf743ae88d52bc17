"""How sure a search is of what it selects, as its summary says."""

from collections.abc import Mapping
from typing import Any

from supernet.report import page
from supernet.report.document import Drawn
from supernet.report.names import lowered, op_label
from supernet.report.run_files import RunFiles


def shown(run: RunFiles) -> Drawn | None:
    """None for runs of older versions, and for those in which nothing learned."""
    found = run.values.get("sureness")
    if type(found) is not dict:
        return None
    epochs = f"{found['window_epochs']:g} epoch{'s' if found['window_epochs'] != 1 else ''}"
    html = [page.paragraph(
        "By the weights, each edge has its strongest op, each node its strongest edges. Ahead by: the weight of what was chosen less that "
        f"of its nearest rival. Moved by: the largest less the smallest value of that lead in the last {epochs}. A choice is unsure where "
        "a rival is behind by no more than its lead moved.", soft=True)]
    decisions = sorted(found["decisions"], key=lambda d: (not d["kept"], d["kind"], not d["would_flip"]))
    for kept, title in ((True, "What the architecture is made of"), (False, "Edges that no node keeps")):
        rows = [(f"{d['kind']}, {lowered(d['where'])}", "unsure" if d["would_flip"] else "sure",
                 f"{_choice(d, 'first')} before {_choice(d, 'second')}", f"{d['gap']:.4f}", f"{d['spread']:.4f}",
                 f"{d['since']:.2f}" if d["since"] else "the start")
                for d in decisions if d["kept"] == kept]
        if rows:
            html += [page.heading(title), page.table(
                rows, head=("choice", "", "what was chosen", "ahead by", "moved by", "chosen since epoch"), tall=True, prose=3)]
    return Drawn("\n".join(html))


def _choice(decision: Mapping[str, Any], which: str) -> str:
    return op_label(decision[which]) if decision["what"] == "op" else f"edge {lowered(decision[which])}"
