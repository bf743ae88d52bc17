"""What the test says class by class, and how sure the network is of it."""

from supernet.report import page
from supernet.report.classes import class_table, reliability_svg
from supernet.report.document import Drawn
from supernet.report.figure import with_ids
from supernet.report.run_files import RunFiles, field


def shown(run: RunFiles) -> Drawn | None:
    """None where nothing was tested class by class."""
    if "classes" not in run.summary:
        return None
    note = ("Precision: of the items taken for a class, the share that is of it. Recall: of the items of a class, the share taken for it. "
            "F1: their harmonic mean. Each is 0 where nothing was taken for the class, or no item is of it.")
    below = ("Confidence is the probability of the class that is predicted, in 15 bins of equal width. Bars below the dashed line: surer "
             "than right. The calibration error is the mean distance of the dots to that line, each item counted once.")
    svg = with_ids(reliability_svg(field(run.summary, "calibration", "summary.json")), "reliability")
    return Drawn(class_table(run.summary["classes"]) + page.paragraph(note, soft=True) + page.heading("Reliability")
                 + page.figure(svg, "the share that is right against confidence") + page.paragraph(below, soft=True))
