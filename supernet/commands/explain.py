"""`python -m supernet.explain RUN`: what the edges and ops of a found architecture carry, its neighbours, its margins, its agreement over
seeds; what is done is in `explained.py`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from supernet.commands.arguments import Arguments, exit_code, writing


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: told(parser().parsed(arguments)), stopped="interrupted: an explanation is written whole or not at all")


def told(given: argparse.Namespace) -> int:
    from supernet.commands import explained  # takes seconds, in which somebody may have thought better of it

    explained.check(given)
    found = explained.explained(given)
    with writing(given.output):
        paths = explained.written(given, found)
    print(explained.text(found), *(f"written   {path}" for path in paths), sep="\n", flush=True)
    return 0


def parser() -> Arguments:
    made = Arguments("explain",
                     "Why an architecture is as it is: what each edge and op carries, the best neighbours, how sure the search was.", [
        "runs/<a search>                    with the supernet's weights; by a table where there is one",
        "runs/<a final training>            with its own weights",
        "runs/<a search> runs/<other seeds> and where the seeds agree",
        "genotype.json --table nasbench201.csv.gz --dataset cifar10"])
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of the run that is explained, or a genotype; then those of "
                      "other seeds, or folders that hold them")
    made.add_argument("--by", choices=("weights", "table"), action="append", help="who judges: the run's weights, a table; default: both, "
                      "where they are there")
    made.add_argument("--table", metavar="FILE", help="architectures that were trained alone; default: that of the run, or of data/tables")
    made.add_argument("--dataset", metavar="NAME", help="of those that the table knows; default: that of the run")
    made.add_argument("--images", default="1000", metavar="N", help="how many the weights are asked about, or `all` (default 1000)")
    made.add_argument("--seed", type=int, default=0, help="of the drawing of images (default 0)")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    made.add_argument("--trust", action="append", default=[], metavar="TARGET",
                      help="your own function or class that the run's options name")
    made.add_argument("--output", type=Path, metavar="FILE", help="of a genotype alone: where its explanation.json is written")
    return made


def command() -> None:
    """The console command."""
    sys.exit(main())
