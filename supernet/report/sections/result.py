"""The table at the end of a run."""

from supernet.report import page
from supernet.report.document import Drawn
from supernet.report.run_files import RunFiles, field


def shown(run: RunFiles) -> Drawn:
    rows = field(run.json("summary.json"), "rows", "summary.json")
    return Drawn(page.table([(str(name), str(value)) for name, value in rows]))
