"""A part of `benchmarks.gpu` whose checks do everything that a part may do wrong."""

import os
import signal
import subprocess
import sys
import time

from benchmarks.gpu.checks import Bench, Check, ContextIsGone, Failed, Report, Skipped

CHILD = "child"


def run(bench: Bench, report: Report) -> None:
    print("at work", flush=True)
    if report.part == "broken":
        raise RuntimeError("this part has no checks")
    if report.part == "slow":
        report.each(Check(f"{n}", lambda: time.sleep(0.3)) for n in range(1000))
    if report.part == "not here":
        raise Skipped("it needs what is not here")
    report.each([Check("good", lambda: {"number": 1.5, "endless": float("inf")}), Check("raises", raises), Check("failed", failed),
                 Check("skipped", skipped), Check("hangs", lambda: hangs(bench)),
                 Check("dies", lambda: os.kill(os.getpid(), signal.SIGKILL))])
    if "gone" not in report.done:
        report.begin("gone")
        report.end("gone", "failed", 0.0, None, "an illegal access")
        raise ContextIsGone
    report.each([Check("last", dict)])


def raises() -> None:
    raise ZeroDivisionError("of a check")


def failed() -> None:
    raise Failed("off by 3", {"off": 3})


def skipped() -> None:
    raise Skipped("not installed")


def hangs(bench: Bench) -> None:
    """With a child, which must not outlive it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (bench.work / CHILD).write_text(str(child.pid))
    while True:
        signal.pause()
