"""genotype.json as it is."""

from supernet.report import page
from supernet.report.document import Drawn
from supernet.report.run_files import RunFiles


def shown(run: RunFiles) -> Drawn:
    return Drawn(page.preformatted(run.text("genotype.json")))
