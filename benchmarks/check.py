"""Whether a change made a step slower: `python -m benchmarks.check`, or `make bench-check`, from the repository root.

The steps of searches and of a final training, here and at another commit, which is checked out in a folder of its own for as long as this
runs: `BASE`, or where the branch left main, or the commit before. Two processes, one for each, take the same step in turns, the first
of a round changing from round to round, and its CPU seconds are compared round by round; so what else the machine does meets both. Every
few rounds both processes begin anew, for where things happen to lie in memory makes some percent. A step is slower where the median of the
ratios is surely (99 %) above 1 by more than `--allow`. The exit code is then 1. One thread; nothing is kept.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from supernet.errors import UsageError
from supernet.report.statistics import Interval, median_interval

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("check_worker.py")  # of this tree, for both: the same is measured
WORK = ("darts:w", "darts:alpha", "darts:second", "darts:w:gdas", "darts:w:plain", "nasbench201:w", "nasbench201:alpha", "final:train")
LEVEL = 0.99


class Compared(NamedTuple):
    """Medians of CPU seconds, and of the rounds' ratios now / base, with its interval."""

    base_s: float
    now_s: float
    ratio: float
    interval: Interval

    def says(self, allow: float) -> str:
        if self.interval.low > 1 + allow:
            return "slower"
        if self.interval.high < 1:
            return "faster"
        return "not slower" if self.interval.high <= 1 + allow else "unsure"


def git(*words: str, root: Path = ROOT) -> str:
    """What it prints. Raises UsageError."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        raise UsageError("git is not installed") from None
    if done.returncode:
        raise UsageError(f"git {words[0]}: {' '.join(done.stderr.split()) or f'it ended with {done.returncode}'}")
    return done.stdout.strip()


def base_commit(wanted: str | None, root: Path = ROOT) -> str:
    """The commit to compare with: as asked, or where the branch left main; on main the one before, or the last one where something is not
    committed yet. Raises UsageError."""
    if wanted is not None:
        with contextlib.suppress(UsageError):
            return git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}", root=root)
        raise UsageError(f"the base must be a commit of this repository, got {wanted!r}")
    head = git("rev-parse", "HEAD", root=root)
    with contextlib.suppress(UsageError):  # there is no main here
        left = git("merge-base", "HEAD", "main", root=root)
        if left != head:
            return left
    if git("status", "--porcelain", "--untracked-files=no", root=root):
        return head
    try:
        return git("rev-parse", "--verify", "--quiet", "HEAD~1", root=root)
    except UsageError:
        raise UsageError("the first commit has none before it to compare with") from None


@contextlib.contextmanager
def checked_out(commit: str, root: Path = ROOT) -> Iterator[Path]:
    """A folder with the files of a commit, while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        tree = Path(folder) / "base"
        git("worktree", "add", "--quiet", "--detach", str(tree), commit, root=root)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree), root=root)


class Stepper:
    """A process that takes a step of one tree when told to."""

    def __init__(self, tree: Path, work: str, batch: int):
        self.where = tree
        self.process = subprocess.Popen([sys.executable, str(WORKER), work, str(batch)], cwd=tree, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"})
        self._expect("ready")

    def seconds(self) -> float:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return float(self._expect())

    def _expect(self, word: str | None = None) -> str:
        """The next line it says. Raises UsageError where it has ended."""
        line = self.process.stdout.readline().strip()
        if not line or word not in (None, line):
            self.process.kill()
            why = self.process.communicate()[1].strip().splitlines() or ["it said nothing"]
            raise UsageError(f"the step of {self.where} cannot be measured: {why[-1]}")
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def steppers(trees: Sequence[Path], work: str, batch: int) -> Iterator[list[Stepper]]:
    with contextlib.ExitStack() as stack:
        begun = []
        for tree in trees:
            begun.append(Stepper(tree, work, batch))
            stack.callback(begun[-1].close)
        yield begun


def measured(base: Path, now: Path, work: str, *, batch: int, starts: int, rounds: int) -> list[tuple[float, float]]:
    """CPU seconds of the step (base, now), round by round; `rounds` of them after each of `starts` beginnings."""
    found = []
    for _ in range(starts):
        with steppers((base, now), work, batch) as both:
            for number in range(rounds):
                times = [0.0, 0.0]
                for side in (0, 1) if number % 2 == 0 else (1, 0):
                    times[side] = both[side].seconds()
                found.append((times[0], times[1]))
    return found


def compared(times: Sequence[tuple[float, float]]) -> Compared:
    ratios = [now / base for base, now in times]
    return Compared(*[median(values) for values in (*zip(*times, strict=True), ratios)], median_interval(ratios, level=LEVEL))


def _work(text: str) -> list[str]:
    wanted = text.split(",")
    unknown = [work for work in wanted if work not in WORK]
    if unknown:
        raise argparse.ArgumentTypeError(f"must be some of {','.join(WORK)}, got {unknown[0]!r}")
    return wanted


def _at_least(least: float, kind: type) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text!r}")
        return value
    return number


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help="a commit; by default where the branch left main, or the commit before")
    parser.add_argument("--only", type=_work, default=list(WORK), help="some of " + ",".join(WORK))
    parser.add_argument("--batch", type=_at_least(1, int), default=8)
    parser.add_argument("--starts", type=_at_least(1, int), default=3, help="how often both processes begin anew")
    parser.add_argument("--rounds", type=_at_least(8, int), default=9, help="after each of them")
    parser.add_argument("--allow", type=_at_least(0, float), default=0.05, help="how much slower is not called slower")
    options = parser.parse_args(argv)
    slower = []
    try:
        commit = base_commit(options.base)
        with checked_out(commit) as tree:
            print(f"CPU seconds of a step, batch {options.batch}, one thread: {git('log', '-1', '--format=%h %s', commit)[:90]}, and now")
            for work in options.only:
                found = compared(measured(tree, ROOT, work, batch=options.batch, starts=options.starts, rounds=options.rounds))
                says = found.says(options.allow)
                slower += [work] * (says == "slower")
                print(f"  {work:18} {found.base_s:7.4f} {found.now_s:7.4f}  now / base {found.ratio:.3f} "
                      f"({found.interval.low:.3f} to {found.interval.high:.3f})  {says}", flush=True)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(f"{', '.join(slower) or 'nothing'} is slower by more than {options.allow:.0%}")
    return int(bool(slower))


if __name__ == "__main__":
    sys.exit(main())
