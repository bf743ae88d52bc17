"""What the pages of many runs share, written or served: their names, and what the referee says of them."""

from collections.abc import Sequence
from pathlib import Path

from supernet.commands.compare import compared, parser
from supernet.errors import UsageError
from supernet.report.verdicts import Tables

READ = ("run.json", "metrics.jsonl", "summary.json", "genotypes.jsonl", "alphas.npz", "trials.jsonl")  # what the page of a run is made of


def statistics(runs: Sequence[Path]) -> Tables | str:
    """The referee's tables, or why there are none."""
    try:
        return compared(parser().parse_args(["--", *map(str, runs)]))
    except UsageError as error:
        return str(error)


def names(folders: Sequence[Path], given: Sequence[Path]) -> dict[Path, str]:
    """A name for each run: its path below the folder that was given, where that is one."""
    if len(given) == 1:
        base = given[0].resolve()
        return {path: path.relative_to(base).as_posix() for path in folders}
    short = {path: path.name for path in folders}
    return short if len(set(short.values())) == len(short) else {path: str(path) for path in folders}
