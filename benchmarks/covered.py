"""What the tests reach: the share of lines and branches by room, and the lines that none reaches. `make coverage` runs them and then this:
`python -m benchmarks.covered build/coverage/coverage.json`.

The file is what `coverage json` writes of `supernet/` and `ops/`, without kernels (setup.cfg). A branch is a jump from a line to another
one; the share is that of lines and branches together, as coverage counts it. Ends with exit code 1 where it lies below `--floor`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

KEYS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def room(file: str) -> str:
    """`supernet/costs/base.py` is of costs, `supernet/space.py` of space, `ops/conv.py` of ops."""
    first, *rest = Path(file).with_suffix("").parts
    return rest[0] if first == "supernet" and rest else first


def rooms(report: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Sums by room, in alphabetical order."""
    found: dict[str, dict[str, int]] = {}
    for file, data in sorted(report["files"].items(), key=lambda row: room(row[0])):
        of = found.setdefault(room(file), dict.fromkeys(KEYS, 0))
        for key in KEYS:
            of[key] += data["summary"][key]
    return found


def share(counts: Mapping[str, int]) -> float:
    """In percent; 100 where there is nothing to reach."""
    there = counts["num_statements"] + counts["num_branches"]
    return 100 * (counts["covered_lines"] + counts["covered_branches"]) / there if there else 100.0


def total(found: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(counts[key] for counts in found.values()) for key in KEYS}


def in_runs(lines: Sequence[int]) -> str:
    """`3-5, 9` for 3, 4, 5 and 9."""
    runs = [[line for _, line in run] for _, run in groupby(enumerate(sorted(lines)), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def unreached(report: Mapping[str, Any]) -> list[str]:
    """A line for each file that has lines or branches left, most first."""
    left = []
    for file, data in report["files"].items():
        jumps = [pair for pair in data["missing_branches"] if pair[0] not in data["missing_lines"]]
        if data["missing_lines"] or jumps:
            parts = [in_runs(data["missing_lines"])] * bool(data["missing_lines"])
            parts += ["branches " + ", ".join(f"{a} to {'the end' if b < 0 else b}" for a, b in jumps)] * bool(jumps)
            left.append((len(data["missing_lines"]) + len(jumps), f"{file}: {'; '.join(parts)}"))
    return [line for _, line in sorted(left, key=lambda row: (-row[0], row[1]))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.covered", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="what `coverage json` wrote")
    parser.add_argument("--floor", type=float, default=95.0, help="the least share of all, in percent (95)")
    parser.add_argument("--json", type=Path, help="also write the numbers by room to this file")
    options = parser.parse_args(argv)
    try:
        report = json.loads(options.report.read_text())
        found = rooms(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        parser.error(f"{options.report}: expected what `coverage json` writes ({error})")
    import torch

    from benchmarks import compare

    result = compare.begun("covered", argv, torch.device("cpu")) | {"rounds": 1, "rooms": found}
    compare.write(options.json, result)
    print("\n".join(unreached(report)))
    head, cells = table(result)
    for row in (head, *cells):
        print(f"{row[0]:15}" + "".join(f"{cell:>20}" for cell in row[1:]))
    if (reached := share(total(found))) < options.floor:
        raise SystemExit(f"{reached:.2f} % of lines and branches are reached, and {options.floor:g} % is the floor")


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was counted and what came out, for docs/measured.md."""
    of = total(result["rooms"])
    lines, branches = 100 * of["covered_lines"] / of["num_statements"], 100 * of["covered_branches"] / of["num_branches"]
    return [("lines and branches of `supernet/` and `ops/`, without kernels, that the default suite reaches",
             f"{share(of):.1f} %: {lines:.1f} % of {of['num_statements']:,} lines, {branches:.1f} % of {of['num_branches']:,} branches")]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = {**result["rooms"], "all": total(result["rooms"])}
    return ("room", "lines", "not reached", "branches", "not reached", "share"), [
        (name, f"{of['num_statements']:,}", f"{of['num_statements'] - of['covered_lines']:,}", f"{of['num_branches']:,}",
         f"{of['num_branches'] - of['covered_branches']:,}", f"{share(of):.1f} %") for name, of in rows.items()]


if __name__ == "__main__":
    main()
