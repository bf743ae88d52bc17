"""What `python -m supernet.explain` found: what each edge carries, the best neighbours, and where the seeds agree."""

from collections.abc import Mapping, Sequence
from typing import Any

from supernet.genotype import Genotype
from supernet.report import page
from supernet.report.document import Drawn, Missing
from supernet.report.explanation import FILE, JUDGES, read
from supernet.report.names import lowered, op_label
from supernet.report.run_files import RunFiles, is_number
from supernet.report.sections.cells import MAX_DRAWN_EDGES
from supernet.report.svg_cells import cell_svgs

THIN, THICK = 1.0, 8.0  # pixels
MAX_STEPS = 10
TALL = 20  # rows


def shown(run: RunFiles) -> Drawn | None:
    """None where nobody has asked for one."""
    if not (run.path / FILE).exists():
        return None
    data = read(run.path / FILE)
    genotype = run.genotype
    if genotype is None or data["digest"] != genotype.digest:
        raise Missing(f"{FILE} explains another architecture than this run's (python -m supernet.explain {run.path.name})")
    told = dict(data["told"])
    html = []
    for view in data["views"]:
        title = JUDGES[view["by"]]
        html += [page.heading(title), *(page.paragraph(text, soft=True) for text in view["on"]), *_figures(run, genotype, view["carried"]),
                 _edges(view["carried"], len(genotype.cells) > 1)]
        html += [page.paragraph(text) for text in view["summed"]]
        if view["steps"]:
            html.append(page.heading(f"{title}: the best neighbours"))
            html.append(_steps(view["steps"][:MAX_STEPS]))
    if data["agreement"] is not None:
        html += [page.heading("Agreement over runs"), *(page.paragraph(text) for text in told["Agreement over runs"])]
    # margins have a section of their own
    html += [page.paragraph(f"{title}: {why}.", soft=True) for title, why in data["left_out"].items()]
    return Drawn("\n".join(html))


def _figures(run: RunFiles, genotype: Genotype, carried: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells, each edge as thick as what is lost without it."""
    losses = {(one["place"]["kind"], one["place"]["n"]): -one["without"]["difference"] for one in carried if one["without"] is not None}
    most = max((loss for loss in losses.values() if is_number(loss)), default=0.0)
    if not losses:
        return []
    if most <= 0:
        return [page.paragraph("Nothing is lost without any one edge.")]
    if sum(len(edges) for _, edges in genotype.cells) > MAX_DRAWN_EDGES:
        return []
    widths = {kind: [THIN + (THICK - THIN) * max(0.0, losses.get((kind, n), 0.0)) / most for n in range(len(edges))]
              for kind, edges in genotype.cells}
    notes = run.quietly("genotype.json")
    drawn = [page.figure(svg, f"{title} cell, edges as thick as what they carry", wide=True, caption=title, paper=False)
             for title, svg in cell_svgs(genotype, outputs=notes.get("outputs") or genotype.arguments.get("concat") or {},
                                         num_inputs=notes.get("num_inputs"), widths=widths)]
    note = f"An edge is as thick as what is lost without it: the thickest {most:.2f} points, the thinnest nothing, or less than nothing."
    return [*drawn, page.paragraph(note, soft=True)]


def _edges(carried: Sequence[Mapping[str, Any]], several: bool) -> str:
    ordered = sorted(carried, key=lambda one: 1e9 if one["without"] is None else one["without"]["difference"])
    measured = any(one["without"] is not None and one["without"]["low"] is not None for one in carried)
    rows = []
    for one in ordered:
        place, without = one["place"], one["without"]
        name = lowered(f"{place['kind']}, {place['label']}" if several else place["label"])
        others = {op: effect for op, effect in one["instead"].items() if op != "none" or without is None}
        best = max(others.items(), key=lambda item: item[1]["difference"], default=None)
        rows.append((f"{name}: {op_label(place['op'])}", *_numbers(without, measured), *(
            ("", "") if best is None else (op_label(best[0]), f"{best[1]['difference']:+.2f}"))))
    head = ("edge", "without it (points)", *(["95 % interval"] if measured else []), "best op in its place", "with that (points)")
    return page.table(rows, head=head, tall=len(rows) > TALL)


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    measured = any(step["effect"]["low"] is not None for step in steps)
    rows = [(lowered(step["change"]) + (" (computes the same function)" if step["effect"]["same_function"] else ""),
             f"{step['effect']['accuracy']:.2f}", *_numbers(step["effect"], measured)) for step in steps]
    return page.table(rows, head=("change", "accuracy (%)", "difference (points)", *(["95 % interval"] if measured else [])))


def _numbers(effect: Mapping[str, Any] | None, measured: bool) -> tuple[str, ...]:
    if effect is None:
        return ("", "") if measured else ("",)
    interval = () if not measured else ("",) if effect["low"] is None else (f"{effect['low']:+.2f} to {effect['high']:+.2f}",)
    return (f"{effect['difference']:+.2f}", *interval)
