"""When the genotype became another one, and what changed."""

from collections import Counter
from collections.abc import Sequence

from supernet.genotype import Edge, Genotype
from supernet.report import page
from supernet.report.document import Drawn, drawing
from supernet.report.names import edge_labels, lowered, op_label
from supernet.report.run_files import RunFiles

MAX_CHANGES = 100  # rows of the table


def shown(run: RunFiles) -> Drawn | None:
    if run.learned_nothing:
        return None
    rows, stretches, last = [], [], None
    for epoch, genotype in run.genotypes:
        if last is None or genotype != last:
            rows.append((str(epoch), genotype.digest, "first" if last is None else difference(last, genotype)))
            stretches.append([epoch, epoch, genotype.digest])
        stretches[-1][1] = epoch
        last = genotype
    note = f" The last {MAX_CHANGES} are shown." if len(rows) > MAX_CHANGES else ""
    changes = len(rows) - 1
    return Drawn(page.paragraph(f"The genotype changed {changes} time{'s' if changes != 1 else ''}.{note}", soft=True)
                 + drawing("timeline", label="stretches of epochs with one genotype")
                 + page.table(rows[-MAX_CHANGES:], head=("after epoch", "genotype", "change"), tall=True, prose=3),
                 {"timeline": stretches})


def difference(old: Genotype, new: Genotype) -> str:
    parts = []
    for kind, edges in new.cells:
        before = dict(old.cells).get(kind, ())
        first = min((e.destination for e in (*edges, *before)), default=0)
        gone = _edge_texts(kind, before, first, Counter(before) - Counter(edges))
        come = _edge_texts(kind, edges, first, Counter(edges) - Counter(before))
        if gone or come:
            parts.append(f"{kind}: " + ", ".join([f"\u2212 {text}" for text in gone] + [f"+ {text}" for text in come]))
    return "; ".join(parts)


def _edge_texts(kind: str, edges: Sequence[Edge], num_inputs: int, chosen: Counter[Edge]) -> list[str]:
    """Of all edges of a kind, those chosen: op and place."""
    pairs = [(e.source, e.destination) for e in edges]
    names = dict(zip(pairs, edge_labels(pairs, num_inputs, kind)))
    return [f"{op_label(e.op)} {lowered(names[e.source, e.destination])}" for e in chosen.elements()]
