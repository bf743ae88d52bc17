"""The figures of the pages from benchmarks/results/*.json: `python -m benchmarks.report`, from the repository root.

Rewrites what stands between two marks in docs/measured.md (one line a figure) and in benchmarks/README.md (every number, with its command
and machine), so that no number is copied by hand. `--check` writes nothing and fails where a block is not what the results say.

A result belongs here if it names its `benchmark`: the module of this package that wrote it, whose `figures(result)` and `table(result)`
put it into words, and `notes(result)`, where it has them.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks.report writes what follows -->", "<!-- benchmarks.report ends -->"


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Those that name their benchmark, by file name, in order."""
    found = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: result for name, result in found.items() if "benchmark" in result}


def module(result: Mapping[str, Any]) -> Any:
    return importlib.import_module(f"benchmarks.{result['benchmark']}")


def markdown_table(cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; the first row is its head."""
    head, *others = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
    return [head, "|" + "---|" * len(cells[0]), *others]


def summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The block of docs/measured.md."""
    cells = [(what, came_out, f"`benchmarks/results/{name}`") for name, result in found.items()
             for what, came_out in module(result).figures(result)]
    said = ("Speed, side by side in one process: how many times the time of ours the other takes (CPU time on a CPU, wall time on a GPU), "
            "and our share of its memory.")
    return "\n".join([said, "", *markdown_table([("what", "result", "where"), *cells])])


def details(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The block of benchmarks/README.md."""
    lines: list[str] = []
    for name, result in found.items():
        known = result["environment"]
        commit = (known["git_commit"] or "unknown")[:12] + (" with changes" if known["git_dirty"] else "")
        head, cells = module(result).table(result)
        lines += [f"## results/{name}", "", f"`{result['command']}`", "",
                  f"{known.get('gpu') or known['cpu']}, threads: {known['threads']}, torch {known['torch']}, commit {commit}; rounds: "
                  f"{result['rounds']}.", "", *markdown_table([head, *cells]), ""]
        if said := getattr(module(result), "notes", lambda result: [])(result):
            lines += ["  \n".join(said), ""]
    return "\n".join(lines).rstrip()


BLOCKS = {ROOT / "docs" / "measured.md": summary, ROOT / "benchmarks" / "README.md": details}


def replaced(text: str, block: str, begin: str = BEGIN, end: str = END) -> str:
    """`text` with `block` between the marks. Raises ValueError: they are not there, once each and in order."""
    before, begins, rest = text.partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends) or begin in rest or end in before + after:
        raise ValueError(f"expected one {begin!r} and one {end!r} after it")
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a block is stale")
    options = parser.parse_args(argv)
    found = results()
    stale = []
    for path, make in BLOCKS.items():
        old = path.read_text()
        try:
            new = replaced(old, make(found))
        except ValueError as error:
            raise SystemExit(f"{path.relative_to(ROOT)}: {error}") from None
        if new != old:
            stale.append(str(path.relative_to(ROOT)))
            if not options.check:
                path.write_text(new)
    if options.check and stale:
        raise SystemExit(f"{' and '.join(stale)}: not what benchmarks/results says; run python -m benchmarks.report")
    print(f"written: {', '.join(stale)}" if stale else "nothing has changed", file=sys.stderr)


if __name__ == "__main__":
    main()
