"""`python -m supernet.report RUN_OR_FOLDER...`: pages of runs, of folders of runs and of tables; `--serve` shows them while runs go on.

Reads folders only, also of runs at work; what is written is a page beside what it shows.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from supernet.commands.arguments import Arguments, exit_code, writing
from supernet.commands.many_runs import READ, names, statistics
from supernet.errors import UsageError
from supernet.files import write_whole
from supernet.report.fleet import row
from supernet.report.html import run_page, write_report
from supernet.report.runs_page import runs_page
from supernet.runs.results import run_folders

BESIDE = ("table.html", "race.html", "rank.html")  # pages of other commands
PORTS = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: told(parser().parsed(arguments)), stopped="interrupted; what was written stays, the same command goes on")


def told(given: argparse.Namespace) -> int:
    check(given)
    if given.serve:
        from supernet.commands.served import serve  # needs the extra

        return serve(given.runs, given.host, given.port)
    with writing(given.output):
        for path in pages(given):
            print(f"written   {path}", flush=True)
    return 0


def parser() -> Arguments:
    made = Arguments("report",
                     "Pages to look at: of a run, of many runs, of a table of architectures. Each is one file that opens offline.", [
        "runs/2026-11-29_search_digits    its report.html, written anew",
        "runs                             runs/report.html: all runs there, compared",
        "data/tables/nasbench201.csv.gz   a table",
        "runs --serve                     in the browser, while runs go on"])
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN_OR_FOLDER", help="folders of runs, folders that hold some, or tables")
    made.add_argument("--output", type=Path, metavar="FILE", help="where the page is written; default: report.html in the folder; of "
                      "several, or NAME.html of a table, in the working directory")
    made.add_argument("--title", help="of the page of many runs; default: the name of the folder")
    made.add_argument("--all", action="store_true", help="write the page of every run anew; default: where it is older than the run")
    made.add_argument("--space", metavar="NAME", help="of a table that does not name its space")
    made.add_argument("--serve", action="store_true", help="show the runs on a local address, refreshed while they go on "
                      "(pip install 'supernet[serve]')")
    made.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1: this machine alone)")
    made.add_argument("--port", type=int, default=8765, help="0 for any free one (default 8765)")
    return made


def check(given: argparse.Namespace) -> None:
    """Raises UsageError."""
    for path in given.runs:
        if not path.exists():
            raise UsageError(f"{path}: there is no such run, folder or table")
    files = [path for path in given.runs if not path.is_dir()]
    if files and (given.serve or len(given.runs) > 1):
        raise UsageError(f"{files[0]}: a table is shown alone, and not served")
    if not 0 <= given.port <= PORTS:
        raise UsageError(f"--port must be 0 to {PORTS}, got {given.port}")
    if given.serve and given.output is not None:
        raise UsageError("--output is of a page that is written, --serve writes none")


def pages(given: argparse.Namespace) -> Iterator[Path]:
    """Writes what was asked for, that first, then the pages of single runs that it leads to. Raises Mendable, OSError."""
    (first, *others) = given.runs
    if not first.is_dir():
        yield table(first, given)
        return
    if not others and (first / "run.json").exists():
        output = given.output or first / "report.html"
        write_whole(output, run_page(first).encode("utf-8", errors="replace"))
        yield output
        return
    folders = run_folders(given.runs)
    output = given.output or (Path("report.html") if others else first / "report.html")
    named = {path.resolve() for path in given.runs if (path / "run.json").exists()}
    waiting = [path for path in folders if given.all or path in named or outdated(path)]
    name = names(folders, given.runs)
    title = given.title or (first.resolve().name if not others else "Runs compared")
    html = runs_page(title, [row(path) for path in folders], folders=given.runs, tables=statistics(given.runs),
                     pages=beside(given.runs, output), named=lambda r: name[r.path],
                     link=lambda r: relative(r.path / "report.html", output))
    write_whole(output, html.encode("utf-8", errors="replace"))
    yield output
    for path in waiting:
        yield write_report(path)


def outdated(run: Path) -> bool:
    page = run / "report.html"
    if not page.exists():
        return True
    made = page.stat().st_mtime_ns
    return any((run / name).exists() and (run / name).stat().st_mtime_ns > made for name in READ if name != "run.json")  # it is closed last


def relative(page: Path, output: Path) -> str | None:
    """None where it does not lie below the folder of `output`: an address with `..` breaks where the folder is moved."""
    try:
        return quote(page.resolve().relative_to(output.resolve().parent).as_posix())
    except ValueError:
        return None


def beside(folders: Sequence[Path], output: Path) -> dict[str, str]:
    found = {}
    for folder in folders:
        for page in sorted(path for name in BESIDE for path in folder.glob(f"**/{name}")):
            if (address := relative(page, output)) is not None:
                found[page.resolve().relative_to(output.resolve().parent).as_posix()] = address
    return found


def table(path: Path, given: argparse.Namespace) -> Path:
    from supernet.report.table_page import table_page
    from supernet.spaces.named import named_space, space_again
    from supernet.tables.files import read_table, space_named_in

    name, arguments = (given.space, None) if given.space else space_named_in(path)
    html = table_page(read_table(path, named_space(name) if arguments is None else space_again(name, arguments)))
    output = given.output or Path(f"{path.name.partition('.')[0]}.html")
    write_whole(output, html.encode("utf-8", errors="replace"))
    return output


def command() -> None:
    """The console command."""
    sys.exit(main())
