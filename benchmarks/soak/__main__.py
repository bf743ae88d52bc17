"""Kills, stops, damages and starves small runs of everything that writes, and counts what came of each case.

    python -m benchmarks.soak                               # all of it: some 25 minutes of processor time
    python -m benchmarks.soak --parts kill,bit --most 5     # five cases of each of two parts

A line a case, as it goes. Every case is in the file of results as soon as it is known; stopped or killed, the same command goes on. The
exit code is 1 where work was lost or a result was silently wrong.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.soak import damage, kills, memory, records, room, sweeps, together
from benchmarks.soak.cases import Case, Kept, progress
from supernet.runs.environment import describe

OUT = Path(__file__).resolve().parents[1] / "results" / "soak.json"
BITS, CUTS = 200, 50

Cases = list[tuple[str, Callable[[], Case]]]


def of_subjects(counts: dict[str, int], make: Callable[[str, int], Case], most: int) -> Cases:
    return [(f"{name} {n}", lambda name=name, n=n: make(name, n)) for name, count in counts.items() for n in range(min(most, count))]


def damages(kind: str, count: int, most: int, made: damage.Made) -> Cases:
    return [(f"{kind} {n}", lambda n=n: damage.damaged(made, kind, n)) for n in range(min(most, count))]


def cases(part: str, most: int, made: damage.Made) -> Cases:
    """Those of a part that is judged, at most so many of each kind."""
    if part == "kill":
        return [*of_subjects(kills.KILLS, kills.killed, most), *of_subjects({"sweep": sweeps.KILLS}, sweeps.killed, most)]
    if part == "stop":
        return [*of_subjects(kills.STOPS, kills.asked, most), *of_subjects({"sweep": sweeps.STOPS}, sweeps.asked, most)]
    if part in ("bit", "cut"):
        return damages(part, {"bit": BITS, "cut": CUTS}[part], most, made)
    return {"room": room.cases, "together": together.cases}[part](most)


JUDGED = {"kill": "kill -9 at a random moment, gone on with", "stop": "SIGTERM or SIGINT at a random moment, gone on with",
          "bit": "one flipped bit in a file", "cut": "a file cut off", "room": "a full disk, and a limit on the size of files",
          "together": "two resumes, and twenty starts, at once"}
MEASURED = {"memory": "memory, descriptors and threads over 5,000 steps", "records": "what records of many epochs take"}


def measured(part: str, kept: Kept, most: int, only: str) -> None:
    found: dict[str, Callable[[], Mapping[str, Any]]] = dict(records.MEASURED)
    if part == "memory":
        found = {name: lambda of=of: memory.measured(of, progress) for name, of in memory.CONFIGURATIONS.items()}
    for name, make in [(name, make) for name, make in found.items() if name.startswith(only)][:most]:
        kept.value(part, name, make)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   epilog="parts:\n" + "\n".join(f"  {name:9} {about}" for name, about in (JUDGED | MEASURED).items()))
    made.add_argument("--parts", default=",".join(JUDGED | MEASURED), metavar="A,B", help="some of those below, in this order")
    made.add_argument("--most", type=int, default=10**6, metavar="N", help="at most so many cases of each kind")
    made.add_argument("--only", default="", metavar="TEXT", help="those cases alone whose name begins so")
    made.add_argument("--out", type=Path, default=OUT, help="the file of results (%(default)s)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser()
    options = given.parse_args(arguments)
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in JUDGED | MEASURED]:
        given.error(f"--parts must be some of {','.join(JUDGED | MEASURED)}, got {unknown[0]!r}")
    if options.most < 1:
        given.error(f"--most must be at least 1, got {options.most}")
    try:
        kept = Kept(options.out, "python -m benchmarks.soak", lambda: describe(torch.device("cpu")))
    except (ValueError, OSError) as error:
        given.error(str(error))
    torch.set_num_threads(1)
    bad = 0
    try:
        with tempfile.TemporaryDirectory(prefix="soak_made_") as where:
            made = damage.Made(Path(where))
            for part in parts:
                if part in MEASURED:
                    measured(part, kept, options.most, options.only)
                    continue
                found = [kept.case(part, name, make) for name, make in cases(part, options.most, made) if name.startswith(options.only)]
                counts = {outcome: sum(case.outcome == outcome for case in found) for outcome in ("survived", "told", "lost", "wrong")}
                bad += counts["lost"] + counts["wrong"]
                print(f"{part:8} {len(found)} tried: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items()), flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
