"""The command, and what it chose: the digest of the job and, of each group, the choice."""

from supernet.report import page
from supernet.report.document import Drawn
from supernet.report.run_files import RunFiles, field


def shown(run: RunFiles) -> Drawn:
    info = run.json("run.json")
    choices = info.get("choices") or {}
    rows = [("job", str(info["job"]))] if "job" in info else []
    rows += [(str(group), str(choice)) for group, choice in sorted(choices.items())] if type(choices) is dict else []
    command = page.preformatted(str(field(info, "command", "run.json")), wrap=True)
    return Drawn(command + (page.table(rows, tall=True) if rows else ""))
