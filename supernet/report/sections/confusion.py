"""Which classes the test takes for which."""

from supernet.report import page
from supernet.report.classes import MAX_DRAWN, confusion_svg, mistakes_table
from supernet.report.document import Drawn
from supernet.report.run_files import RunFiles
from supernet.runs.predictions import Predictions


def shown(run: RunFiles) -> Drawn | None:
    """None where nothing was tested class by class."""
    if "classes" not in run.summary:
        return None
    found = Predictions.load(run.existing("predictions.npz"))
    html = []
    if len(found.class_names) <= MAX_DRAWN:
        svg = confusion_svg(found.confusion, found.class_names)
        html.append(page.figure(svg, "items by true and predicted class", wide=True, paper=False, caption=(
            "Rows: the true class; columns: the predicted one. Blue: right; orange: wrong; the stronger, the larger the share of its row "
            "(as a square root, so that rare mistakes are seen).")))
    return Drawn("".join([*html, page.heading("Commonest mistakes"), mistakes_table(found.confusion, found.class_names)]))
