"""`python -m supernet.draw GENOTYPE -o cell.svg`, `supernet-draw`: a cell as a picture, or a run's over its epochs as one that moves."""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from supernet.commands.arguments import Arguments, at_least_one, exit_code, writing
from supernet.errors import UsageError, did_you_mean
from supernet.files import write_whole
from supernet.runs.architectures import Named, named

MAX_EDGES = 500  # laying out more takes minutes


def parser() -> Arguments:
    made = Arguments("draw", "Draws the cells of a genotype. The ending of the file says how: " + ", ".join(WRITERS),
                     ["darts_v2 -o cell.svg", "runs/<search> -o cell.pdf", "runs/<search> -o search.gif",
                      "'|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|' -o cell.png"])
    made.add_argument("genotype", help="a published name, a file, the folder of a run, or a cell in a notation of the field")
    made.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=f"ends in {', '.join(WRITERS)}")
    made.add_argument("--dpi", type=at_least_one, default=150, metavar="N", help="of .png and .gif (default 150)")
    made.add_argument("--frames", type=at_least_one, default=60, metavar="N", help="at most so many pictures in a .gif (default 60)")
    made.add_argument("--seconds", type=seconds, default=6.0, metavar="S", help="that a .gif takes (default 6), and two for its end")
    return made


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, at most 3600, got {text!r}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: drawn(parser().parsed(arguments)))


def drawn(given: argparse.Namespace) -> int:
    path: Path = given.output
    if path.suffix not in WRITERS:
        raise UsageError(f"-o {path}: the name must end in one of {', '.join(WRITERS)}{did_you_mean(path.suffix, WRITERS)}")
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}")
    of = named(given.genotype)
    num_edges = sum(len(edges) for _, edges in of.genotype.cells)
    if num_edges > MAX_EDGES and path.suffix != ".dot":
        raise UsageError(f"{given.genotype}: has {num_edges:,} edges, and at most {MAX_EDGES} can be drawn; a .dot file takes any number")
    with writing(path, "-o"):
        WRITERS[path.suffix](of, path, given)
    print(f"drawn     {path}  ({of.genotype.space}, genotype {of.genotype.digest})")
    return 0


def still(of: Named, path: Path, given: argparse.Namespace) -> None:
    from supernet.report.draw import draw_cells

    draw_cells(of.genotype, path, dpi=given.dpi, outputs=of.outputs, num_inputs=of.num_inputs)


def graph(of: Named, path: Path, given: argparse.Namespace) -> None:
    from supernet.report.dot import dot

    write_whole(path, dot(of.genotype, of.outputs, of.num_inputs).encode())


def moving(of: Named, path: Path, given: argparse.Namespace) -> None:
    from supernet.report.film import film, frames, gif
    from supernet.runs.progress import Counted

    shown, pictures = film(of, given.frames), []
    num_edges = sum(len(weights.edges) for weights in shown.weights.values())
    if num_edges > MAX_EDGES:
        raise UsageError(f"{given.genotype}: its space has {num_edges:,} edges, and at most {MAX_EDGES} can be drawn")
    with Counted(len(shown.epochs), "pictures") as progress:
        for picture in frames(shown, given.dpi):
            pictures.append(picture)
            progress.add()
    write_whole(path, gif(pictures, given.seconds))


WRITERS: Mapping[str, Callable[[Named, Path, argparse.Namespace], None]] = {".svg": still, ".png": still, ".pdf": still, ".dot": graph,
                                                                            ".gif": moving}


def command() -> None:
    """The console command."""
    sys.exit(main())
