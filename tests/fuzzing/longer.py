"""`python -m tests.fuzzing.longer [TARGET...] --seconds 60` (`make fuzz`): many inputs for every reader, guided by what they make it do.

atheris (libFuzzer) counts which lines of `supernet/` an input reaches, and goes on from those that reach new ones; each target has a
process of its own. build/fuzz/<target>/ holds its corpus, with which the next run goes on, and findings/, one input for each fault:

    python -m tests.fuzzing.longer --again build/fuzz/table/findings/KeyError-files-_own.bin
"""

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzzing.oracle import Target

LONGEST = 300_000  # bytes of an input
OUT = Path("build/fuzz")


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-")[:80]


def main() -> int:
    given = parser().parse_args()
    if given.again is not None:
        return again(given.again)
    try:
        import atheris
    except ImportError:
        print("error: the extra fuzz is needed: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["supernet"], enable_loader_override=False):
        from tests.fuzzing.targets import BY_NAME
    names = given.targets or list(BY_NAME)
    if unknown := [name for name in names if name not in BY_NAME]:
        print(f"error: there is no target {unknown[0]!r}, there are {', '.join(BY_NAME)}", file=sys.stderr)
        return 2
    found = []
    for name in names:
        where = given.out / slug(name)
        where.mkdir(parents=True, exist_ok=True)
        (where / "result.json").unlink(missing_ok=True)
        code = forked(lambda: one(BY_NAME[name], given.seconds, given.seed, where), where / "log.txt")
        try:
            result = json.loads((where / "result.json").read_text())
        except OSError:
            result = {"target": name, "inputs": 0, "accepted": 0, "findings": {}, "cpu_s": 0.0}
        result |= {"exit_code": code}
        found.append(result)
        print(f"{name:45} {result['inputs']:8,} inputs  {result['accepted']:8,} accepted  {len(result['findings']):3} findings"
              + (f"  ended with exit code {code}: {where / 'log.txt'}" if code else ""), flush=True)
        for key, finding in result["findings"].items():
            print(f"    {key}: {finding['what'][:150]!r}\n      python -m tests.fuzzing.longer --again {finding['file']}", flush=True)
    total = {"inputs": sum(r["inputs"] for r in found), "findings": sum(len(r["findings"]) for r in found), "seconds": given.seconds,
             "seed": given.seed}
    (given.out / "summary.json").write_text(json.dumps({**total, "targets": found}, indent=1) + "\n")
    print(f"{total['inputs']:,} inputs, {total['findings']} findings, in {given.out / 'summary.json'}")
    return 1 if total["findings"] or any(r["exit_code"] for r in found) else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.fuzzing.longer", allow_abbrev=False)
    made.add_argument("targets", nargs="*", help="which readers; default: all")
    made.add_argument("--seconds", type=int, default=60, help="of processor time for each (default 60)")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--out", type=Path, default=OUT, help=f"default {OUT}")
    made.add_argument("--again", type=Path, metavar="FILE", help="tries one input again, and shows where it fails")
    return made


def again(path: Path) -> int:
    """Tries the input of a finding. Its target is that whose folder it lies in, or which its name begins with."""
    from tests.fuzzing.oracle import Finding, held
    from tests.fuzzing.targets import TARGETS

    known = {slug(target.name): target for target in TARGETS}
    target = next((known[part] for part in (path.parent.parent.name, path.parent.name) if part in known), None)
    if target is None:
        print(f"error: {path}: expected a file of build/fuzz/<target>/findings", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as where:
        try:
            accepted = held(target, path.read_bytes(), Path(where))
        except Finding as finding:
            traceback.print_exc()
            print(f"{target.name}: {finding.key}", file=sys.stderr)
            return 1
    print(f"{target.name}: {'accepted' if accepted else 'refused, in one line'}")
    return 0


def forked(act: Callable[[], None], log: Path) -> int:
    """The exit code of a process of its own that does it, with all that is imported here; what it prints is in `log`."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        with open(log, "wb") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def one(target: "Target", seconds: int, seed: int, where: Path) -> None:
    """All inputs of one target, until so much processor time has passed."""
    import atheris

    from tests.fuzzing.mutations import mutated
    from tests.fuzzing.oracle import Finding, held

    corpus, findings = where / "corpus", where / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = target.seeds()
    for n, data in enumerate(seeds):
        (corpus / f"seed-{n}").write_bytes(data)
    result: dict[str, Any] = {"target": target.name, "inputs": 0, "accepted": 0, "findings": {}, "cpu_s": 0.0}
    begun, written = time.process_time(), 0.0

    def tried(data: bytes) -> None:
        nonlocal written
        result["inputs"] += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                result["accepted"] += held(target, data, Path(folder))
            except Finding as finding:
                known = result["findings"].setdefault(finding.key, {"what": str(finding), "times": 0,
                                                                    "file": str(findings / f"{slug(finding.key)}.bin")})
                known["times"] += 1
                path = Path(known["file"])
                if known["times"] == 1 or path.stat().st_size > len(data):  # the smallest one
                    path.write_bytes(data)
        now = time.process_time() - begun
        if now - written > 0.2 or now > seconds:
            result["cpu_s"], written = round(now, 1), now
            (where / "result.json").write_text(json.dumps(result))
        if now > seconds:
            sys.stderr.flush()
            os._exit(0)  # libFuzzer's own limit is of time on the clock

    def mutate(data: bytes, most: int, number: int) -> bytes:
        rng = Random(number)
        if rng.random() < 0.1:
            return atheris.Mutate(data, most)
        made = mutated(target.of, rng.choice(seeds) if rng.random() < 0.4 else data, rng)
        return made if len(made) <= most else data

    limits = [f"-seed={seed}", f"-max_len={LONGEST}", "-timeout=300", "-rss_limit_mb=6000", "-len_control=0", "-reduce_inputs=0"]
    atheris.Setup(["fuzz", *limits, f"-artifact_prefix={findings}/", str(corpus)], tried, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
