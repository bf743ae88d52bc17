"""What a part does: checks, each with a name and a verdict, written down one by one.

A check is a function without arguments. What it returns, plain values by name, is kept; it fails by raising.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernet.runs.journal import Journal

if TYPE_CHECKING:
    import torch  # waits in what follows, so that the tests of processes start at once

Values = Mapping[str, Any]
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
LINES = 12  # of a traceback that are kept


class Failed(Exception):
    """A check has found what must not be; `values` are what it saw."""

    def __init__(self, message: str, values: Values | None = None) -> None:
        super().__init__(message)
        self.values = dict(values or {})


class Skipped(Exception):
    """What a check needs is not here. The message is one line."""


class TimeIsUp(Exception):
    """A part has no time left for its next check."""


class ContextIsGone(Exception):
    """The device answers nothing more in this process: what is left is to be done in another."""


@dataclass(frozen=True)
class Check:
    name: str
    run: Callable[[], Values | None]


@dataclass(frozen=True)
class Bench:
    """Where a part works. toy: a stand-in for a GPU, at sizes for a CPU. work: a folder for what is kept between parts (compiled kernels,
    runs), which nobody takes home. data: a folder with what could not be in the repository, or None. ends: of `time.monotonic()`, by when
    the part is to be done. journal: of all parts."""

    device_name: str
    toy: bool
    work: Path
    data: Path | None
    journal: Journal
    ends: float

    @property
    def device(self) -> "torch.device":
        import torch

        return torch.device(self.device_name)

    def left_s(self) -> float:
        return self.ends - time.monotonic()


class Report:
    """Writes down what the checks of one part come to. done: the checks that have a result already, which are not run again."""

    def __init__(self, bench: Bench, part: str, done: Iterable[str]) -> None:
        self.bench, self.part, self.done = bench, part, set(done)

    def begin(self, check: str) -> None:
        """A check that kills its process is known by this line."""
        self.bench.journal.append({"kind": "begun", "part": self.part, "check": check})

    def end(self, check: str, verdict: str, seconds: float, values: Values | None = None, error: str | None = None) -> None:
        record = {"kind": "check", "part": self.part, "check": check, "verdict": verdict, "seconds": round(seconds, 4)}
        self.bench.journal.append(record | ({"values": dict(values)} if values else {}) | ({"error": error} if error else {}), sync=True)
        print(f"{self.part}: {verdict} {check} ({seconds:.2f} s){f': {error.splitlines()[-1]}' if error else ''}", flush=True)
        self.done.add(check)

    def note(self, **values: Any) -> None:
        """A measurement in the middle of a check: an epoch of a search."""
        self.bench.journal.append({"kind": "note", "part": self.part} | values, sync=True)

    def each(self, checks: Iterable[Check]) -> None:
        """Runs those without a result, in order. Raises TimeIsUp before one that would begin too late, ContextIsGone after one that the
        device did not survive."""
        for check in checks:
            if check.name in self.done:
                continue
            if self.bench.left_s() <= 0:
                raise TimeIsUp
            self.one(check)

    def one(self, check: Check) -> None:
        self.begin(check.name)
        started = time.perf_counter()
        verdict, values, error = PASSED, None, None
        try:
            values = check.run()
        except Skipped as reason:
            verdict, error = SKIPPED, str(reason)
        except Failed as failure:
            verdict, values, error = FAILED, failure.values, str(failure)
        except Exception as failure:  # whatever it was, the others are still to be run
            verdict, error = FAILED, told(failure)
        self.end(check.name, verdict, time.perf_counter() - started, values, error)
        if verdict == FAILED and not alive(self.bench.device_name):
            raise ContextIsGone


def told(error: BaseException) -> str:
    """The last lines of a traceback, without the folders of this machine."""
    text = "".join(traceback.format_exception(error)).replace(str(Path(__file__).resolve().parents[2]) + "/", "")
    lines = [line for line in text.strip().splitlines() if line.strip(" ^~")]  # those of marks alone say nothing here
    return "\n".join(lines[-LINES:])[-2000:]


def alive(device: str) -> bool:
    """Whether the device still computes in this process: after an illegal access every call fails. Gives back cached memory."""
    if not device.startswith("cuda"):
        return True
    import torch

    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        return torch.ones(2, device=device).sum().item() == 2
    except RuntimeError:
        return False
