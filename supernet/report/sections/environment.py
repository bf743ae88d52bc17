"""What a run met: versions, device, commit."""

from supernet.report import page
from supernet.report.document import Drawn
from supernet.report.run_files import RunFiles, flat


def shown(run: RunFiles) -> Drawn:
    return Drawn(page.table(flat(run.json("environment.json")), tall=True))
