"""`python -m supernet.diff A B`, `supernet-diff`: two runs or two genotypes, and where they differ. Reads only."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from supernet.commands.arguments import Arguments, exit_code, one_of
from supernet.errors import UsageError, printable
from supernet.files import read_text
from supernet.genotype import Genotype
from supernet.report.names import NAMINGS, Naming
from supernet.runs.architectures import named
from supernet.runs.folder import ABSENT, RunFolder, RunFolderError, differences
from supernet.runs.journal import TIME_FIELDS, Journal, JournalError
from supernet.runs.listing import MAX_SUMMARY_BYTES, Listed, row

PARTS = ("options", "environment", "cells", "results")
MAX_SHOWN = 44  # characters of a value
NO_RESULTS = {*TIME_FIELDS, "genotype"}  # of a record, beside what it measured


class Difference(NamedTuple):
    """What is called so is `a` there and `b` here; `ABSENT` where it is not there at all."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Side:
    """One of the two. genotype: None for a run that has found nothing yet. run: None for a genotype alone."""

    given: str
    genotype: Genotype | None
    num_inputs: Mapping[str, int]
    run: RunFolder | None
    listed: Listed | None

    @property
    def title(self) -> str:
        what = "" if self.listed is None else ", ".join(filter(None, (self.listed.script, self.listed.state))) + ", "
        return f"{self.given}  ({what}{'no genotype yet' if self.genotype is None else f'genotype {self.genotype.digest}'})"


def parser() -> Arguments:
    made = Arguments("diff", "Where two runs, or two genotypes, differ: options, environment, cells edge by edge, results. Clocks and "
                     "process ids,\nwhich differ in every two runs, are left out. The exit code is 0 where nothing differs, else 1.",
                     ["runs/<one> runs/<other>", "darts_v1 darts_v2", "runs/<one> runs/<other> --only options --only results",
                      "runs/<search> pc_darts_cifar --json"])
    made.add_argument("a", help="the folder of a run, or a genotype: a published name, a file, a cell in a notation of the field")
    made.add_argument("b", help="the other one")
    made.add_argument("--only", action="append", type=one_of(PARTS), metavar="PART", help=f"one of {', '.join(PARTS)}, any number of times")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: compared(parser().parsed(arguments)))


def compared(given: argparse.Namespace) -> int:
    a, b = side(given.a), side(given.b)
    are_runs = a.run is not None and b.run is not None
    wanted = list(dict.fromkeys(given.only or (PARTS if are_runs else ("cells",))))
    if not are_runs and wanted != ["cells"]:
        other = next(part for part in wanted if part != "cells")
        raise UsageError(f"--only {other}: expected the folders of two runs; of a genotype there are cells alone")
    found = {part: FIND[part](a, b) for part in wanted}
    if given.json:
        told = {part: [difference._asdict() for difference in each] for part, each in found.items()}
        print(json.dumps({"a": a.given, "b": b.given, **told, "edges": shared(a, b), "differs": any(found.values())}, indent=1))
    else:
        print("\n".join(printable(line) for line in shown(a, b, found)))
    return 1 if any(found.values()) else 0


def side(given: str) -> Side:
    """Raises GenotypeError, RunFolderError: it is neither a run nor a genotype."""
    path = Path(given)
    if path.is_dir() and (path / "run.json").exists() and not (path / "genotype.json").exists():
        return Side(given, None, {}, RunFolder(path), row(path, path.name))
    of = named(given)
    run = of.run if of.run is not None and of.run.run_json.exists() else None
    return Side(given, of.genotype, of.num_inputs, run, None if run is None else row(run.path, run.path.name))


def options(a: Side, b: Side) -> list[Difference]:
    """By their full names; a choice from a group stands for the class that it names. Raises RunFolderError."""
    status = [side.run.known_status() for side in (a, b)]
    chosen = [each.get("choices") if type(each.get("choices")) is dict else {} for each in status]
    groups = sorted({*chosen[0], *chosen[1]}) if all(chosen) else []
    found = [Difference(group, *(str(each.get(group, ABSENT)) for each in chosen)) for group in groups]
    found = [each for each in found if each.a != each.b]
    nodes = [each.name.partition("@")[2] or each.name for each in found]
    told = {*nodes, *(f"{node}._target_" for node in nodes)}
    return found + [Difference(*each) for each in differences(a.run.options(), b.run.options()) if each[0] not in told]


def environment(a: Side, b: Side) -> list[Difference]:
    """Raises RunFolderError."""
    return [Difference(*each) for each in differences(*(_object(side.run, side.run.environment) for side in (a, b)))]


def results(a: Side, b: Side) -> list[Difference]:
    """How far both are, and every number of summary.json, or of the last epoch where one of them is not finished. Raises RunFolderError."""
    for each in (a, b):
        each.run.check_unchanged(each.run.metrics.name)
    found = [Difference(name, *(getattr(side.listed, name) for side in (a, b))) for name in ("state", "epoch", "best")]
    finished = all(side.listed.state == "finished" for side in (a, b))
    values = [_plain(_object(side.run, side.run.summary).get("values") if finished else _last(side.run)) for side in (a, b)]
    found += [Difference(name, *(each.get(name, ABSENT) for each in values)) for name in sorted({*values[0], *values[1]} - {"epoch"})]
    return [each for each in found if each.a != each.b]


def _object(run: RunFolder, path: Path) -> dict[str, Any]:
    run.check_unchanged(path.name)
    try:
        found = json.loads(read_text(path, MAX_SUMMARY_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path}: cannot be read ({' '.join(str(error).split())[:150]})") from error
    if type(found) is not dict:
        raise RunFolderError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def _last(run: RunFolder) -> dict[str, Any]:
    try:
        return (Journal.read(run.metrics) or [{}])[-1]
    except (OSError, JournalError) as error:
        raise RunFolderError(f"{run.metrics}: cannot be read ({' '.join(str(error).split())[:150]})") from error


def _plain(values: Any) -> dict[str, Any]:
    kept = values.items() if type(values) is dict else ()
    return {key: value for key, value in kept if type(value) in (int, float, str, bool) and key not in NO_RESULTS}


def cells(a: Side, b: Side) -> list[Difference]:
    """The edges that one of them alone has, by cell and the nodes that they join, with their ops."""
    found = [] if a.genotype and b.genotype else [Difference("genotype", *(_digest(side) for side in (a, b)))]
    if a.genotype and b.genotype and (a.genotype.space, a.genotype.fingerprint) != (b.genotype.space, b.genotype.fingerprint):
        same = a.genotype.space == b.genotype.space
        found.append(Difference("space", *(f"{side.genotype.space} {side.genotype.fingerprint}" if same else side.genotype.space
                                           for side in (a, b))))
    there = [_ops(side.genotype) for side in (a, b)]
    inputs = {kind: side.num_inputs[kind] for side in (b, a) for kind in side.num_inputs}
    cells = {kind for kind, source, destination in (*there[0], *there[1]) if destination != source + 1}  # the others are rows of layers
    for kind, source, destination in sorted({*there[0], *there[1]}, key=lambda edge: (edge[0], edge[2], edge[1])):
        ops = [sorted(each.get((kind, source, destination), [])) for each in there]
        if ops[0] != ops[1]:
            first = inputs.get(kind, min(d for each in there for k, _, d in each if k == kind))
            naming = NAMINGS.get(kind, Naming())
            where = f"{naming.name(source, first)} → {naming.name(destination, first)}" if kind in cells else f"layer {destination}"
            found.append(Difference(f"{kind} {where}", *(" + ".join(each) or ABSENT for each in ops)))
    return [each for each in found if each.a != each.b]


def _digest(side: Side) -> str:
    return ABSENT if side.genotype is None else side.genotype.digest


def _ops(genotype: Genotype | None) -> dict[tuple[str, int, int], list[str]]:
    found: dict[tuple[str, int, int], list[str]] = {}
    for kind, edges in genotype.cells if genotype is not None else ():
        for edge in edges:
            found.setdefault((kind, edge.source, edge.destination), []).append(edge.op)
    return found


def shared(a: Side, b: Side) -> dict[str, int]:
    """How many edges each has, and how many both, with the same op between the same nodes."""
    there = [Counter((key, op) for key, ops in _ops(side.genotype).items() for op in ops) for side in (a, b)]
    return {"a": there[0].total(), "b": there[1].total(), "both": (there[0] & there[1]).total()}


FIND = {"options": options, "environment": environment, "cells": cells, "results": results}


def shown(a: Side, b: Side, found: Mapping[str, Sequence[Difference]]) -> Iterable[str]:
    yield f"a  {a.title}"
    yield f"b  {b.title}"
    rows = [(each.name, value(each.a), value(each.b)) for differing in found.values() for each in differing]
    widths = [max((len(row[n]) for row in rows), default=0) for n in range(3)]
    for part, differing in found.items():
        yield ""
        edges = shared(a, b)
        counted = f"{edges['both']} edges are the same, of {edges['a']} and {edges['b']}" if part == "cells" else ""
        yield "  ".join(filter(None, [part, "" if differing else "the same", counted if differing else ""]))
        for each in differing:
            words = [word.ljust(width) for word, width in zip((each.name, value(each.a), value(each.b)), widths)]
            yield "  ".join(["", *words, change(each) if part == "results" else ""]).rstrip()


def value(of: Any) -> str:
    text = f"{of:.6g}" if type(of) is float else of if type(of) is str else json.dumps(of)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN - 2] + ".."


def change(of: Difference) -> str:
    """Of numbers, b - a."""
    return f"{of.b - of.a:+.6g}" if {type(of.a), type(of.b)} <= {int, float} else ""


def command() -> None:
    """The console command."""
    sys.exit(main())
