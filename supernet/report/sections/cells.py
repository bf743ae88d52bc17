"""The cells of what a run found or trains."""

from supernet.report import page
from supernet.report.document import Drawn, Missing
from supernet.report.names import lowered
from supernet.report.run_files import RunFiles
from supernet.report.svg_cells import cell_svgs

MAX_DRAWN_EDGES = 200


def shown(run: RunFiles) -> Drawn | None:
    genotype = run.genotype
    if genotype is None and run.trials and not run.folder.genotype.exists():
        return None  # the best so far is drawn where it is told how it came about
    if genotype is None:
        run.existing("genotype.json")
        raise Missing("genotype.json is not a genotype")
    num_edges = sum(len(edges) for _, edges in genotype.cells)
    if num_edges > MAX_DRAWN_EDGES:
        raise Missing(f"the genotype has {num_edges} edges, more than the {MAX_DRAWN_EDGES} that can be drawn legibly")
    notes = run.quietly("genotype.json")
    # a genotype that no run of ours wrote: cells that concatenate only some of their nodes have them among their space's arguments
    outputs = notes.get("outputs") or genotype.arguments.get("concat") or {}
    figures = [page.figure(svg, f"{title} cell", wide=True, caption=lowered(title), paper=False)
               for title, svg in cell_svgs(genotype, outputs=outputs, num_inputs=notes.get("num_inputs"))]
    when = "" if run.folder.genotype.exists() else f" after {run.genotypes[-1][0]} epochs"
    return Drawn(page.paragraph(f"Space {genotype.space}, genotype {genotype.digest}{when}.", soft=True) + "\n".join(figures))
