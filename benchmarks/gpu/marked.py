"""The tests that are marked `cuda`, one result each, in this process: a device context costs seconds.

Warnings are no errors here: those of a driver or of another version of PyTorch are not what is asked. They are counted.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.checks import FAILED, PASSED, SKIPPED, Bench, ContextIsGone, Report, TimeIsUp, alive

ROOT = Path(__file__).resolve().parents[2]
MARK = "mark.cuda"
OF_A_STAND_IN = 12  # tests that are run without a GPU, where the suite runs all of them anyway
ERROR_CHARS = 1500


def files() -> list[str]:
    """Those that hold marked tests: the others may need what is not installed."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob("test_*.py")) if MARK in path.read_text()]


class Told:
    """A plugin of pytest: leaves out what has a result, writes down every result as it comes, stops when time is up or the device gone."""

    def __init__(self, bench: Bench, report: Report) -> None:
        self.bench, self.report = bench, report
        self.warnings = 0
        self.late = self.gone = False
        self.phases: dict[str, list[Any]] = {}

    @pytest.hookimpl(trylast=True)  # after -m has deselected
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        left = [item for item in items if item.nodeid not in self.report.done]
        items[:] = left[:: max(1, len(left) // OF_A_STAND_IN)] if self.bench.toy else left

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.report.begin(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.phases.setdefault(report.nodeid, []).append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        phases = self.phases.pop(nodeid, [])
        bad = [p for p in phases if p.failed]
        skipped = [p for p in phases if p.skipped]
        verdict = FAILED if bad else SKIPPED if skipped else PASSED
        error = str(bad[0].longrepr)[-ERROR_CHARS:] if bad else str(skipped[0].longrepr[-1]) if skipped else None
        self.report.end(nodeid, verdict, sum(p.duration for p in phases), None, error)
        self.gone = bool(bad) and not alive(self.bench.device_name)

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        if self.bench.left_s() <= 0:
            self.late = True
        if self.late or self.gone:
            item.session.shouldstop = "no time is left" if self.late else "the device is gone"

    def pytest_warning_recorded(self) -> None:
        self.warnings += 1


def run(bench: Bench, report: Report) -> None:
    os.chdir(ROOT)
    told = Told(bench, report)
    words = ["-q", "-m", "cuda and not slow", "-p", "no:cacheprovider", "-W", "default", "--no-header", *files()]
    code = pytest.main(words, plugins=[told])
    report.note(warnings=told.warnings)
    if told.gone:
        raise ContextIsGone
    if told.late:
        raise TimeIsUp
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {code!r}: what it printed is in the log")
