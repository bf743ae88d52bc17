"""`python -m supernet.export RUN -o FOLDER`: the network of a final training as plain PyTorch, which needs nothing of this package.

Each file is read again and held against the network before anything stands in FOLDER.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from supernet.commands.arguments import Arguments, exit_code, writing
from supernet.errors import UsageError

FORMATS = ("pt2", "onnx")  # beside the plain network; as `supernet.exports.formats`, which imports torch


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: told(parser().parsed(arguments)), stopped="interrupted: nothing in the output folder was changed")


def told(given: argparse.Namespace) -> int:
    check(given)
    with writing(given.output):
        for line in exported(given):
            print(line, flush=True)
    return 0


def parser() -> Arguments:
    made = Arguments("export", (
        "Writes the network of a final training as plain PyTorch: a file of torch.nn modules, its weights, the pre-processing and an\n"
        "example. Nothing in the folder needs this package (docs/export.md)."), [
        "runs/<run> -o net",
        "runs/<run>/weights.pt -o net --formats pt2,onnx --images photos"])
    made.add_argument("run", type=Path, help="the folder of a finished final training, or its weights.pt")
    made.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="new, empty, or of an earlier export")
    made.add_argument("--formats", default="", metavar="NAMES", help=f"beside the plain network: {', '.join(FORMATS)}, or both "
                      "with a comma; onnx needs the extra 'export'")
    made.add_argument("--batch", type=int, metavar="N", help="of pt2 and onnx: the one batch size that they take (default: any)")
    made.add_argument("--steps", type=int, default=1, metavar="N", help="of pt2 and onnx of a language model: the items read in a call "
                      "(default 1: a recurrent cell hands its hidden state on)")
    made.add_argument("--images", type=Path, nargs="+", default=[], metavar="PATH", help="image files, or folders of them, on which the "
                      "files are compared with the network (default: noise)")
    made.add_argument("--trust", action="append", default=[], metavar="TARGET", help="your own function that the run's options name, which "
                      "will run: my_network.make")
    made.add_argument("--threads", type=int, default=1, metavar="N", help="for the comparison and its times (default 1)")
    return made


def check(given: argparse.Namespace) -> None:
    """What is wrong before anything is imported or read. Raises UsageError."""
    given.formats = [name for name in given.formats.split(",") if name not in ("", "plain")]
    unknown = [name for name in given.formats if name not in FORMATS]
    if unknown:
        raise UsageError(f"--formats must be of {', '.join(FORMATS)} (plain is always written), got {unknown[0]!r}")
    for name in ("batch", "steps", "threads"):
        value = getattr(given, name)
        if value is not None and not 1 <= value <= 4096:
            raise UsageError(f"--{name} must be a whole number of 1 to 4096, got {value}")


def exported(given: argparse.Namespace) -> Iterator[str]:
    """Writes the folder; yields what is told. Raises Mendable errors, OSError."""
    from supernet.app.own_space import own_space
    from supernet.exports.folder import earlier_files
    from supernet.exports.formats import check_packages
    from supernet.exports.writing import export
    from supernet.runs.device import use
    from supernet.runs.loading import load

    check_packages(given.formats)
    earlier_files(given.output)  # nothing is read where nothing can be written
    use(threads=given.threads, backend="plain", device="cpu")
    loaded = load(given.run, space=own_space(given.run, given.trust))
    yield from export(loaded, given.output, source=str(given.run), formats=given.formats, batch=given.batch, steps=given.steps,
                      images=given.images)


def command() -> None:
    """The console command."""
    sys.exit(main())
