"""`python -m supernet.commands.nats_import SOURCE TABLE`: the official NATS-Bench topology files as a table of our own.

Needs the package nats_bench and the benchmark's own files, which only their authors distribute.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from supernet.runs.progress import Counted
from supernet.spaces import nasbench201
from supernet.tables.nats_import import import_api
from supernet.tables.table import TableError


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    parser = argparse.ArgumentParser(prog="python -m supernet.commands.nats_import",
                                     description="Writes the official NATS-Bench topology files as a table (docs/tables.md).")
    parser.add_argument("source", type=Path, help="the NATS-Bench file, or its folder, of the topology search space")
    parser.add_argument("table", type=Path, help="the table to write, .csv or .csv.gz")
    given = parser.parse_args(arguments)
    if not given.source.exists():
        print(f"error: {given.source}: no such file or folder", file=sys.stderr)
        return 2
    try:
        from nats_bench import create
    except ImportError:
        print("error: the package nats_bench is needed to read its files: pip install nats_bench", file=sys.stderr)
        return 2
    try:
        space = nasbench201.make()
        with Counted(space.count(), "architectures") as progress:
            import_api(create(str(given.source), "tss", fast_mode=given.source.is_dir(), verbose=False), space, given.table,
                       lambda done, total: progress.add(done - progress.done))
    except TableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written   {given.table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
