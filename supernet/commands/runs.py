"""`python -m supernet.runs [FOLDER]`, `supernet-runs`: the runs of a folder, a line each. Reads only."""

import fnmatch
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from supernet.commands.arguments import Arguments, at_least_one, exit_code, one_of
from supernet.errors import UsageError, did_you_mean, printable
from supernet.runs.listing import Listed, listed

Value = str | float | None


class Column(NamedTuple):
    """value: what is compared and sorted by. text: what is shown, where that is not the value itself. right: aligned so."""

    value: Callable[[Listed, datetime], Value]
    text: Callable[[Listed, datetime], str] | None = None
    right: bool = False


def age_s(row: Listed, now: datetime) -> float | None:
    return None if row.started is None else max(0.0, (now - row.started).total_seconds())


def age(row: Listed, now: datetime) -> str:
    """`40s`, `12m`, `5h`, `3d`."""
    seconds = age_s(row, now)
    if seconds is None:
        return ""
    return next(f"{seconds / size:.0f}{unit}" for size, unit, below in ((1, "s", 100), (60, "m", 100), (3600, "h", 48), (86400, "d", 1e9))
                if seconds / size < below)


def epochs(row: Listed, now: datetime) -> str:
    return "" if row.epoch is None else f"{row.epoch}/{'?' if row.epochs is None else row.epochs}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


COLUMNS: Mapping[str, Column] = {
    "state": Column(lambda row, now: row.state),
    "script": Column(lambda row, now: row.script),
    "method": Column(lambda row, now: row.method),
    "space": Column(lambda row, now: row.space),
    "data": Column(lambda row, now: row.data),
    "seed": Column(lambda row, now: row.seed, right=True),
    "epoch": Column(lambda row, now: row.epoch, epochs, right=True),
    "best": Column(lambda row, now: row.best, lambda row, now: percent(row.best), right=True),
    "test": Column(lambda row, now: row.test, lambda row, now: percent(row.test), right=True),
    "digest": Column(lambda row, now: row.digest),
    "age": Column(age_s, age, right=True),
    "name": Column(lambda row, now: row.name, lambda row, now: f"{row.name}  ({row.note})" if row.note else row.name),
}
SPARED = ("seed", "data", "script", "space", "test")  # in this order, where a terminal is too narrow for all
WHERE = re.compile(r"(\w+)\s*(!=|<=|>=|=|<|>)\s*(.*)")
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # of an age
ORDER: Mapping[str, Callable[[float, float], bool]] = {"<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b,
                                                       ">=": lambda a, b: a >= b, "=": lambda a, b: a == b, "!=": lambda a, b: a != b}


def parser() -> Arguments:
    made = Arguments("runs", "The runs of a folder, and of the folders in it: how far they are, what they found.",
                     ["", "runs/mine --where state=running", "--where method='*darts*' --where 'best>90' --sort best", "--json | jq .runs"])
    made.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="default: runs")
    made.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only such rows, any number of times; also !=, "
                      "<, <=, >, >=. Words may have * in them, ages a unit: age<2h")
    made.add_argument("--sort", type=one_of(COLUMNS), metavar="COLUMN", help="smallest first (default: oldest first)")
    made.add_argument("--reverse", action="store_true", help="the other way round")
    made.add_argument("--last", type=at_least_one, metavar="N", help="the last N lines alone")
    made.add_argument("--columns", metavar="A,B,...", help=f"which ones, of {','.join(COLUMNS)}")
    made.add_argument("--json", action="store_true", help="everything that is known of each, for programs")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: shown(parser().parsed(arguments)))


def shown(given: Any) -> int:
    now = datetime.now().astimezone()
    kept = [test(text) for text in given.where]
    columns = chosen(given.columns)
    try:
        rows = listed(given.folder)
    except OSError as error:
        raise UsageError(f"{given.folder}: expected a folder of runs ({error.strerror or error})") from error
    found = ordered([row for row in rows if all(holds(row, now) for holds in kept)], given.sort, given.reverse, now)
    if given.last is not None:
        found = found[-given.last:]
    if given.json:
        print(json.dumps({"folder": str(given.folder), "runs": [plain(row, now) for row in found]}, indent=1))
        return 0
    width = os.get_terminal_size(sys.stdout.fileno()).columns or 80 if sys.stdout.isatty() else None
    print("\n".join([*table(found, columns, now, width), headline(found, len(rows), given.folder)]))
    return 0


def test(text: str) -> Callable[[Listed, datetime], bool]:
    """The condition `COLUMN=VALUE`. Raises UsageError."""
    match = WHERE.fullmatch(text)
    if match is None:
        raise UsageError(f"--where {text}: expected a column, one of = != < <= > >=, and a value, as state=running or 'best>90'")
    name, sign, wanted = match.groups()
    if name not in COLUMNS:
        raise UsageError(f"--where {text}: there is no column {name}, there are {', '.join(COLUMNS)}{did_you_mean(name, COLUMNS)}")
    value = COLUMNS[name].value
    if not COLUMNS[name].right:
        if sign not in ("=", "!="):
            raise UsageError(f"--where {text}: {name} is a word, which takes = and !=")
        return lambda row, now: fnmatch.fnmatchcase(str(value(row, now)).lower(), wanted.lower()) == (sign == "=")
    number = re.fullmatch(r"(-?\d+(?:\.\d+)?)([smhd]?)", wanted)
    if number is None or number[2] and name != "age":
        raise UsageError(f"--where {text}: {name} is a number{', as 90s, 15m, 2h or 3d' if name == 'age' else ''}, got {wanted!r}")
    limit = float(number[1]) * UNITS[number[2]]

    def holds(row: Listed, now: datetime) -> bool:
        seen = value(row, now)
        return type(seen) in (int, float) and ORDER[sign](float(seen), limit)  # what is not known is neither above nor below

    return holds


def chosen(columns: str | None) -> list[str]:
    """Raises UsageError."""
    names = list(COLUMNS) if columns is None else [name.strip() for name in columns.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"--columns {columns}: there is no {name or 'empty'} column, there are {', '.join(COLUMNS)}"
                             f"{did_you_mean(name, COLUMNS)}")
    return names


def ordered(rows: Sequence[Listed], column: str | None, reverse: bool, now: datetime) -> list[Listed]:
    """What has no value in the column comes last, whichever way round; equals stay in the order of their names."""
    value: Callable[[Listed], Any] = (lambda row: row.started) if column is None else (lambda row: COLUMNS[column].value(row, now))
    known = [row for row in rows if value(row) not in (None, "")]
    return [*sorted(known, key=value, reverse=reverse), *(row for row in rows if value(row) in (None, ""))]


def plain(row: Listed, now: datetime) -> dict[str, Any]:
    return {"path": str(row.path), **{name: column.value(row, now) for name, column in COLUMNS.items() if name != "age"},
            "epochs": row.epochs, "note": row.note, "started": None if row.started is None else row.started.isoformat(),
            "age_s": age_s(row, now), "elapsed_s": row.seconds}


def table(rows: Sequence[Listed], columns: Sequence[str], now: datetime, width: int | None) -> list[str]:
    """A head and a line a row. width: of the terminal, into which the last column is cut; other columns are left out where that needs it,
    those first that are the same in all rows. None: everything is shown whole."""
    if not rows:
        return []
    shown = [name for name in columns if name in ("state", "name") or any(COLUMNS[name].value(row, now) not in (None, "") for row in rows)]
    cells = {name: [printable((column.text or (lambda row, now: str("" if (v := column.value(row, now)) is None else v)))(row, now))
                    for row in rows] for name in shown for column in (COLUMNS[name],)}
    widths = {name: max(len(name), *map(len, cells[name])) for name in shown}

    def taken() -> int:
        return sum(widths[name] + 2 for name in shown[:-1])

    same = [name for name in ("script", "data", "space", "seed", "method") if len(rows) > 1 and len(set(cells.get(name, ()))) == 1]
    for name in (*same, *SPARED) if list(columns) == list(COLUMNS) and width is not None else ():
        if name in shown and taken() + 30 > width:
            shown.remove(name)
    lines = []
    for n in range(-1, len(rows)):
        words = [name if n < 0 else cells[name][n] for name in shown]
        aligned = [word.rjust(widths[name]) if COLUMNS[name].right else word.ljust(widths[name])
                   for name, word in zip(shown, words, strict=True)]
        room = None if width is None else max(16, width - taken())
        aligned[-1] = aligned[-1].rstrip() if room is None else cut(aligned[-1].rstrip(), room)
        lines.append("  ".join(aligned).rstrip())
    return lines


def cut(text: str, most: int) -> str:
    """In its middle: names of runs begin with their time and end with their seed."""
    return text if len(text) <= most else f"{text[:most // 2 - 1]}..{text[len(text) - (most - most // 2 - 1):]}"


def headline(rows: Sequence[Listed], of: int, folder: Path) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in Counter(row.state for row in rows).most_common())
    among = f" of {of}" if len(rows) < of else ""
    return f"{len(rows)}{among} in {folder}" + (f": {counts}" if counts else "")


def command() -> None:
    """The console command."""
    sys.exit(main())
