"""Which classes the test took for which others."""

from supernet.report import page
from supernet.report.classes import MAX_DRAWN, confusion_svg, mistakes_table
from supernet.report.document import Drawn
from supernet.report.figure import with_ids
from supernet.report.run_files import RunFiles

CAPTION = ("Rows: the true class; columns: the predicted one. Blue: right; orange: wrong; the stronger, the larger the share of its row "
           "(as a square root, so that rare mistakes are seen).")


def shown(run: RunFiles) -> Drawn | None:
    if "classes" not in run.summary:
        return None
    from supernet.runs.predictions import Predictions  # imports PyTorch, which the rest of a page does without

    found = Predictions.load(run.existing("predictions.npz"))
    html = []
    if len(found.class_names) <= MAX_DRAWN:
        svg = with_ids(confusion_svg(found.confusion, found.class_names), "confusion")
        html.append(page.figure(svg, "items by true and predicted class", wide=True, caption=CAPTION))
    return Drawn("".join([*html, page.heading("Commonest mistakes"), mistakes_table(found.confusion, found.class_names)]))
