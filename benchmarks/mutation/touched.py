"""Which tests run which lines, by contexts of coverage; and of those the ones that a mutant meets, the likeliest and fastest first."""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.mutation.child import ROOT, file_of, in_child
from benchmarks.mutation.operators import Mutant

# The core's own tests, and those of what is built on it at once; whole searches by scripts are no tests of a line. By file, with the words
# by which pytest chooses some of its tests (-k).
TESTS = {
    **dict.fromkeys(("relaxations", "wrappers", "bilevel", "specs", "published_defaults", "hypergradients", "implicit", "penalties",
                     "select", "space", "cell", "partial", "genotype", "traits", "oracles", "oracles_gdas", "oracles_oles",
                     "oracles_darts_pt_schedule"), ""),
    "selections": "not after_a_resume", "train": "not compiled", "searchers": "recurrent_policy", "trial_evaluators": "relaxation_learned",
    "composition": "wrappers_compose", "monitors": "layered or guard or oles or freez",
    "export": "line_a_node or reaches_no_output or two_ops or plain_form",
}
SLOWEST_S = 3.0  # of a test: processor time
ALL_S = 15.0  # of the tests that a mutant meets, together


class Touched(NamedTuple):
    """tests: their names. cpu_s: what each takes. lines: by module and line, the numbers of those that run it. digest: of their files and
    of all sources."""

    tests: list[str]
    cpu_s: list[float]
    lines: dict[str, dict[int, list[int]]]
    digest: str

    def of(self, mutant: Mutant) -> list[int]:
        """Those that run the changed lines; all that run any of a module's, where the change is made as it is imported."""
        own = self.lines.get(mutant.module, {})
        if mutant.at_import:
            return sorted({test for tests in own.values() for test in tests})
        return sorted({test for line in range(mutant.lines[0], mutant.lines[1] + 1) for test in own.get(line, ())})

    def batches(self, mutant: Mutant) -> list[tuple[str, list[str]]]:
        """What is run against it: tests of files that are named after its module or room come first, then quick files; within a file the
        quick tests. Up to `ALL_S` in all, without tests above `SLOWEST_S`."""
        by_file: dict[str, list[int]] = defaultdict(list)
        for test in self.of(mutant):
            if self.cpu_s[test] <= SLOWEST_S:
                by_file[self.tests[test].partition("::")[0]].append(test)
        names = set(mutant.module.split("."))

        def rank(file: str) -> tuple[bool, float]:
            return Path(file).stem.removeprefix("test_") not in names, sum(self.cpu_s[t] for t in by_file[file])

        found, left = [], ALL_S
        for file in sorted(by_file, key=rank):
            taken = []
            for test in sorted(by_file[file], key=lambda t: (self.cpu_s[t], t)):
                if self.cpu_s[test] <= left:
                    left -= self.cpu_s[test]
                    taken.append(self.tests[test])
            if taken:
                found.append((file, taken))
        return found

    def seconds(self, batches: Sequence[tuple[str, Sequence[str]]]) -> float:
        number = {name: n for n, name in enumerate(self.tests)}
        return sum(self.cpu_s[number[name]] for _, tests in batches for name in tests)


def touched(modules: Sequence[str], kept: Path) -> Touched:
    """By a run of each file of `TESTS`; from the folder `kept` where the file and all sources are the same."""
    tests, cpu_s, lines = [], [], {module: defaultdict(list) for module in modules}
    whole = hashlib.sha256()
    for name, word in sorted(TESTS.items()):
        path = ROOT / "tests" / f"test_{name}.py"
        known = hashlib.sha256(word.encode() + b"".join(one.read_bytes() for one in (path, *map(file_of, modules)))).hexdigest()
        whole.update(known.encode())
        place = kept / f"{path.stem}.json"
        if not place.exists() or json.loads(place.read_text())["digest"] != known:
            ended = in_child(lambda: _run(modules, str(path.relative_to(ROOT)), word), place.with_suffix(".out"), 1800.0, 3600.0)
            if ended.answer is None or ended.answer["failed"]:
                raise SystemExit(f"error: without any change there fails {(ended.answer or {}).get('failed') or path.name}: see "
                                 f"{place.with_suffix('.out')}")
            place.write_text(json.dumps({"digest": known, **ended.answer}))
            print(f"{path.name}: {len(ended.answer['tests'])} tests, {ended.cpu_s:.0f} s of processor time", flush=True)
        data = json.loads(place.read_text())
        for module, found in data["lines"].items():
            for line, own in found.items():
                lines[module][int(line)] += [len(tests) + test for test in own]
        tests += data["tests"]
        cpu_s += data["cpu_s"]
    return Touched(tests, cpu_s, lines, whole.hexdigest())


def _run(modules: Sequence[str], file: str, word: str) -> dict[str, Any]:
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, config_file=False, include=[str(file_of(module)) for module in modules])

    class Timed:
        def __init__(self) -> None:
            self.cpu_s: dict[str, float] = {}
            self.failed: list[str] = []

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
            measured.switch_context(item.nodeid)
            begun = time.process_time()
            done = yield
            self.cpu_s[item.nodeid] = time.process_time() - begun
            measured.switch_context("")
            return done

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                self.failed.append(report.nodeid)

    timed = Timed()
    measured.start()
    code = pytest.main(["-q", "-p", "no:cacheprovider", file, "-k", word], plugins=[timed])
    measured.stop()
    tests = list(timed.cpu_s)
    number = {name: n for n, name in enumerate(tests)}
    data = measured.get_data()
    lines = {module: {line: sorted(number[c] for c in contexts if c in number)
                      for line, contexts in data.contexts_by_lineno(str(file_of(module))).items()} for module in modules}
    return {"tests": tests, "cpu_s": [round(timed.cpu_s[name], 4) for name in tests], "lines": lines,
            "failed": timed.failed or ([] if code == 0 else [f"pytest ended with {int(code)}"])}
