"""How many small faults of the mathematical core its tests find: `python -m benchmarks.mutation`, or `make mutation`.

A sample of the mutants of each module (`operators.py`), by a fixed seed and in proportion to how many it has, meets the tests that run
the changed lines (`touched.py`), up to the first that fails. A mutant that all pass has survived; those that no test could find, because
they compute the same, are judged by a person, in `judged.json`, with the reason. At the end each test that has found one is run again
without any change, and has to pass.

mutmut and cosmic-ray were considered. mutmut 3 leaves out functions with decorators, and here `@ranged`, `@static`, `@property` and
`@torch.no_grad()` stand on half of the core; cosmic-ray starts a Python, which imports PyTorch, for each mutant, and changes files.
Neither knows of `detach`, `keepdim`, `sum` for `mean`.
"""

import argparse
import ast
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.mutation.child import ROOT, file_of, first_failure, in_child, replace_modules
from benchmarks.mutation.operators import Mutant, mutants, mutated
from benchmarks.mutation.touched import Touched, touched

ROOMS = {"relaxations": "relaxations/*.py", "hypergradients": "hypergradients/*.py", "penalties": "penalties/*.py", "select": "select/*.py",
         "weights": "weights.py", "space": "space.py", "bilevel": "bilevel.py", "cell": "networks/cell.py"}
PRELOADED = ("torch", "torch._dynamo", "numpy", "matplotlib.figure", "pytest", "hydra", "hydra._internal.instantiate._instantiate2")
JUDGED = Path(__file__).with_name("judged.json")


def modules() -> dict[str, str]:
    """The core's, with the room of each."""
    found = {}
    for room, pattern in ROOMS.items():
        for path in sorted((ROOT / "supernet").glob(pattern)):
            if path.stat().st_size:
                found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = room
    return found


def sample(everything: Mapping[str, Sequence[Mutant]], number: int, seed: int) -> list[Mutant]:
    """`number` mutants, of each module in proportion to how many it has (largest remainders), in the order of the text."""
    total = sum(map(len, everything.values()))
    shares = {module: number * len(found) / total for module, found in everything.items()}
    taken = {module: int(share) for module, share in shares.items()}
    for module in sorted(shares, key=lambda m: (taken[m] - shares[m], m))[: number - sum(taken.values())]:
        taken[module] += 1
    return [found[n] for module, found in everything.items()
            for n in sorted(random.Random(f"{seed} {module}").sample(range(len(found)), taken[module]))]  # whatever becomes of the others


def trial(mutant: Mutant, known: Touched, printed: Path) -> dict[str, Any]:
    """What became of one mutant."""
    batches = known.batches(mutant)
    clean_s = known.seconds(batches)
    row = {"name": mutant.name, "line": mutant.line, "tests": sum(len(tests) for _, tests in batches),
           "left_out": len(known.of(mutant)) - sum(len(tests) for _, tests in batches)}
    if not batches:
        return row | {"outcome": "survived", "by": "", "cpu_s": 0.0}
    tree = mutated(ast.parse(file_of(mutant.module).read_text()), mutant)

    def run() -> str:
        replace_modules({mutant.module: tree})
        return first_failure(batches)

    ended = in_child(run, printed, 5 * clean_s + 30)
    if ended.answer is None and ended.signal not in (signal.SIGXCPU, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
        raise SystemExit(f"error: the trial of {mutant.name} broke off: see {printed}")
    by = ended.answer if ended.answer is not None else f"ended by {signal.Signals(ended.signal).name}"
    return row | {"outcome": "killed" if by else "survived", "by": by, "cpu_s": round(ended.cpu_s, 2)}


def trials(chosen: Sequence[Mutant], known: Touched, build: Path, workers: int) -> dict[str, dict[str, Any]]:
    """What became of each, by name. A line of a journal keeps each trial of these sources and tests, so that a run that was broken off
    goes on."""
    journal = build / "trials.jsonl"

    def done() -> dict[str, dict[str, Any]]:
        lines = map(json.loads, journal.read_text().splitlines()) if journal.exists() else ()
        return {line["row"]["name"]: line["row"] for line in lines if line["digest"] == known.digest}

    left = [mutant for mutant in chosen if mutant.name not in done()]
    read, write = os.pipe()  # of numbers of mutants, of which each worker takes the next: a few bytes, which the pipe holds
    os.write(write, b"".join(n.to_bytes(4) for n in range(len(left))))
    os.close(write)

    def work(worker: int) -> None:
        while taken := os.read(read, 4):
            mutant = left[int.from_bytes(taken)]
            row = trial(mutant, known, build / f"trial{worker}.out")
            with open(journal, "a") as file:
                file.write(json.dumps({"digest": known.digest, "row": row}) + "\n")
            print(f"{row['outcome']:8} {row['cpu_s']:6.1f} s  {mutant.name}  {row['by']}", flush=True)

    others = []
    for worker in range(1, workers):
        if (pid := os.fork()) == 0:
            try:
                work(worker)
                os._exit(0)
            finally:
                os._exit(1)
        others.append(pid)
    try:
        work(0)
    except BaseException:  # what is left is not tried by the others either
        for pid in others:
            os.kill(pid, signal.SIGTERM)
        raise
    finally:
        ended = [os.waitpid(pid, 0)[1] for pid in others]
    if any(ended):
        raise SystemExit("error: a worker broke off")
    return done()


def check(rows: Sequence[Mapping[str, Any]], printed: Path) -> None:
    """Runs the tests that have found a mutant without any change. Raises SystemExit where one fails."""
    by_file: dict[str, list[str]] = {}
    for name in sorted({row["by"] for row in rows if "::" in row["by"] and " (" not in row["by"]}):
        by_file.setdefault(name.partition("::")[0], []).append(name)
    ended = in_child(lambda: first_failure(list(by_file.items())), printed, 3600.0, 7200.0)
    if ended.answer != "":
        raise SystemExit(f"error: without any change there fails {ended.answer!r}: see {printed}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of mutants (0)")
    parser.add_argument("--module", default="", help="only of modules whose name holds this")
    parser.add_argument("--operator", default="", help="only changes of this kind")
    parser.add_argument("--workers", type=int, default=1, help="processes that try mutants, each a core (1)")
    parser.add_argument("--earlier", type=Path, help="the result of an earlier run of the same mutants: what it says of those that were "
                        "killed is kept where the module's source is the same, and only the others meet the tests anew")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    options = parser.parse_args(argv)
    if not 1 <= options.number <= 10_000:
        parser.error(f"--number must be 1 to 10,000, got {options.number}")
    if not 1 <= options.workers <= 64:
        parser.error(f"--workers must be 1 to 64, got {options.workers}")
    rooms = {module: room for module, room in modules().items() if options.module in module}
    if not rooms:
        parser.error(f"--module: no module of the core has {options.module!r} in its name; there are {', '.join(modules())}")
    everything = {module: [m for m in mutants(file_of(module), module) if options.operator in m.operator] for module in rooms}
    if not (there := sum(map(len, everything.values()))):
        parser.error(f"--operator: no change of a kind {options.operator!r}")
    earlier: Mapping[str, Any] = {"mutants": [], "sources": {}}
    if options.earlier:
        try:
            earlier = json.loads(options.earlier.read_text())
        except (OSError, ValueError) as error:
            parser.error(f"--earlier: cannot read {options.earlier} ({error})")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # of installed ones: what is imported already, they cannot watch
    for name in PRELOADED:
        import_module(name)
    build = ROOT / "build" / "mutation"
    build.mkdir(parents=True, exist_ok=True)
    known = touched(list(modules()), build)
    sources = {module: hashlib.sha256(file_of(module).read_bytes()).hexdigest()[:16] for module in rooms}
    same = {module for module, digest in sources.items() if earlier["sources"].get(module) == digest}
    kept = {row["name"]: row for row in earlier["mutants"] if row["outcome"] == "killed" and row["name"].partition(":")[0] in same}
    begun = time.monotonic()
    chosen = sample(everything, min(options.number, there), options.seed)
    found = trials([m for m in chosen if m.name not in kept], known, build, options.workers)
    rows = [{"room": rooms[m.module], **(kept[m.name] if m.name in kept else found[m.name])} for m in chosen]
    check(rows, build / "check.out")
    print(f"{time.monotonic() - begun:.0f} s, {sum(row['cpu_s'] for row in rows):.0f} s of processor time")
    _tell(options, argv, rows, sources, there, earlier)


def _tell(options: argparse.Namespace, argv: Sequence[str] | None, rows: Sequence[dict[str, Any]], sources: Mapping[str, str], there: int,
          earlier: Mapping[str, Any]) -> None:
    import torch  # what follows imports modules of ours: after the last fork

    from benchmarks import compare, mutation

    words = list(sys.argv[1:] if argv is None else argv)
    if "--earlier" in words:
        at = words.index("--earlier")
        words[at : at + 2] = []
    judged = json.loads(JUDGED.read_text())
    result = compare.begun("mutation", words, torch.device("cpu")) | {"rounds": 1, "seed": options.seed, "candidates": there,
                                                                      "sources": dict(sources)}
    if earlier["mutants"]:
        result["before"] = earlier.get("before") or mutation.scores(earlier["mutants"])
    result["mutants"] = [row | ({"judged": judged[row["name"]]} if row["outcome"] == "survived" and row["name"] in judged else {})
                         for row in rows]
    compare.write(options.json, result)
    head, cells = mutation.table(result)
    for row in (head, *cells):
        print("".join(f"{cell:>22}" for cell in row))
    for line in mutation.notes(result):
        print(line)


if __name__ == "__main__":
    main()
