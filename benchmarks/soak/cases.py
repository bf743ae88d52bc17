"""What came of each case, on the disk as soon as it is known."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from supernet.files import read_text
from supernet.runs.folder import write_json

MAX_BYTES = 2**26  # of the file of results
# survived: the true result is there, to the bit. told: it is refused, with one line that says why. lost: work that was saved is gone, or
# cannot be gone on with, or there is a traceback in place of a line. wrong: another result, and nothing says so.
OUTCOMES = ("survived", "told", "lost", "wrong")


class Case(NamedTuple):
    """outcome: one of OUTCOMES. said: where it happened, and what was seen, in a few words."""

    outcome: str
    said: str = ""


class Kept:
    """The cases of all parts, by part and name, in one file. The same command goes on with what is not in it.

    Raises ValueError: the file holds something else.
    """

    def __init__(self, path: Path, command: str, environment: Callable[[], Mapping[str, Any]]) -> None:
        self.path, self.command, self.environment = path, command, environment
        self.parts: dict[str, dict[str, dict[str, Any]]] = {}
        if path.exists():
            there = json.loads(read_text(path, MAX_BYTES))
            if type(there) is not dict or there.get("benchmark") != "soak":
                raise ValueError(f"{path} is no file of this benchmark: name another one with --out")
            self.parts = there["parts"]

    def case(self, part: str, name: str, make: Callable[[], Case]) -> Case:
        """That of an earlier call, else `make()`, written and said."""
        kept = self.parts.setdefault(part, {})
        if name not in kept:
            began = time.perf_counter()
            outcome, said = make()
            kept[name] = {"outcome": outcome, "said": said, "seconds": round(time.perf_counter() - began, 2)}
            self.write()
            print(f"{part:8} {name:44} {outcome:9} {said}", flush=True)
        return Case(kept[name]["outcome"], kept[name]["said"])

    def value(self, part: str, name: str, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The same of what is measured, not judged."""
        kept = self.parts.setdefault(part, {})
        if name not in kept:
            kept[name] = dict(make())
            self.write()
            print(f"{part:8} {name:44} {json.dumps(kept[name])}", flush=True)
        return kept[name]

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"benchmark": "soak", "command": self.command, "rounds": 1, "parts": self.parts,
                               "environment": self.environment()})


def progress(text: str) -> None:
    """A line that nobody keeps."""
    print(text, file=sys.stderr, flush=True)
