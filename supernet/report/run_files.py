"""What the folder of a run says, read whole or not at all, and with bounds: the folder may be a stranger's, of a run that goes on, or of
one that broke."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from supernet.errors import Mendable
from supernet.files import DAMAGED, check_zip, damaged_lines, json_objects, number, read_bytes, read_text
from supernet.genotype import Genotype
from supernet.report.document import Missing
from supernet.runs.folder import RunFolder, plain_options
from supernet.runs.journal import AFTER
from supernet.trials import Trial

MAX_BYTES = 2**28          # of a file, and of what one unpacks to
MAX_CHECKPOINT_BYTES = 2**31
MAX_TEXT = 200_000         # characters of a file shown as text
UNEXPECTED = (OSError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError, MemoryError, Mendable, *DAMAGED)


class RunFiles:
    """One run. Its properties are read when they are first asked for; they raise Missing or one of UNEXPECTED."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, RunFolder(path)
        self.passed_over: list[str] = []  # a line for each checkpoint that a section could not read, and read an older one

    # -- files

    def existing(self, name: str) -> Path:
        path = self.path / name
        if not path.exists():
            raise Missing(f"the run has no {name}")
        if path.suffix == ".npz":
            check_zip(path, MAX_BYTES)
        if name in self.folder.changed((name,)):
            self.folder.verify(path)
        return path

    def text(self, name: str) -> str:
        text = read_bytes(self.existing(name), MAX_BYTES).decode(errors="replace")
        return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + f"\n... ({len(text) - MAX_TEXT:,} more characters in {name})"

    def json(self, name: str) -> Any:
        return json.loads(read_text(self.existing(name), MAX_BYTES))

    def quietly(self, name: str) -> dict[str, Any]:
        """The object in a file that others can do without; its own section says what is wrong with it."""
        try:
            data = json.loads(read_text(self.path / name, MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return data if type(data) is dict else {}

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The JSON objects of a file of lines. A line cut short by a crash is skipped."""
        path = self.path / name
        return json_objects(read_bytes(path, MAX_BYTES).decode(errors="replace").splitlines()) if path.exists() else []

    # -- what they say

    @cached_property
    def info(self) -> dict[str, Any]:
        """Empty where run.json is not what was written."""
        return self.folder.status() or {}

    @cached_property
    def damaged(self) -> list[str]:
        """What is known to be damaged, in a few words each: what is not what a run wrote, as its digests say, and lines of journals."""
        found = [f"{name} is not what the run wrote (sha256 differs)" for name in self.folder.changed()]
        if self.folder.run_json.exists() and not self.info:
            found.append("run.json is damaged")
        if not found and self.folder.genotype.exists():  # of a run that goes on it is not sealed yet, and has a digest of its own
            try:
                Genotype.load(self.folder.genotype)
            except UNEXPECTED:
                found.append("genotype.json cannot be read, or is not what was written")
        for path in (self.folder.metrics, self.folder.genotypes, self.folder.trials):
            try:
                lines = damaged_lines(read_bytes(path, MAX_BYTES))
            except OSError:
                continue
            if lines:
                found.append(f"line {lines[0]} of {path.name} is damaged" + (f", and {len(lines) - 1} more" if len(lines) > 1 else ""))
        return found

    @property
    def script(self) -> str:
        return str(self.info.get("script", ""))

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self.quietly("summary.json")

    @property
    def values(self) -> dict[str, Any]:
        """Those of summary.json; none while a run goes on."""
        values = self.summary.get("values")
        return values if type(values) is dict else {}

    @cached_property
    def options(self) -> dict[str, Any]:
        """Empty where they cannot be read."""
        try:
            return plain_options(self.folder.config)
        except UNEXPECTED:
            return {}

    @property
    def learned_nothing(self) -> bool:
        """Whether nothing learned here which architecture is best: of a final training, and of a search by trials alone."""
        return self.script == "train_final" or (self.folder.trials.exists() and not self.folder.alphas.exists())

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Of each epoch, in order; of one written twice (a search that went back) the later counts."""
        try:
            found = [r for r in self.lines("metrics.jsonl") if r.get("kind", "epoch") == "epoch" and is_number(r.get("epoch"))]
        except UNEXPECTED:
            return []
        return [r for _, r in sorted({r["epoch"]: r for r in found}.items())]

    @cached_property
    def genotypes(self) -> list[tuple[int, Genotype]]:
        """Epochs done, and the genotype that would be selected then. Raises Missing: there are none."""
        found = [(int(r.get("epoch", -1)) + 1, Genotype.from_json(r.get("genotype"), "genotypes.jsonl"))
                 for r in self.lines("genotypes.jsonl")]
        if not found:
            raise Missing("the run has no genotypes.jsonl")
        return found

    @property
    def trials(self) -> list[Trial]:
        """Those of a search by trials, by number; none of any other run. What the journal holds of an architecture is not checked against
        its space, which is not at hand. Records from the first that is not the next trial are left out (`cut_trials`)."""
        return self._trials[0]

    @property
    def cut_trials(self) -> int:
        """How many records of trials.jsonl are left out."""
        return self._trials[1]

    @cached_property
    def _trials(self) -> tuple[list[Trial], int]:
        found: list[Trial] = []
        lines = self.lines("trials.jsonl")
        for line in lines:
            line.pop(AFTER, None)
            try:
                trial = Trial.unchecked(line, {"space": "", "arguments": {}, "fingerprint": ""})
            except (ValueError, TypeError):
                break
            if trial.number != len(found) or not all(parent < trial.number for parent in trial.parents):
                break
            found.append(trial)
        return found, len(lines) - len(found)

    @cached_property
    def genotype(self) -> Genotype | None:
        """What the run found or trained, else the newest of a search that goes on; None where it has none yet."""
        for read in (lambda: Genotype.load(self.folder.genotype), lambda: self.genotypes[-1][1]):
            try:
                return read()
            except (Missing, *UNEXPECTED):
                continue
        return None

    @cached_property
    def state(self) -> str:
        """finished, running, stopped, failed; empty where nothing says it. The page is the last thing that a run writes, after its
        summary."""
        status = str(self.info.get("status", ""))
        if status != "running":
            return status
        if self.summary:
            return "finished"
        try:
            return "running" if self.folder.is_locked() else "stopped"
        except OSError:
            return "stopped"

    def series(self, key: str) -> tuple[list[float], list[float | None]]:
        """Epochs done and the values of a key where it was recorded; None where the value was not finite."""
        kept = [(r["epoch"] + 1, r[key]) for r in self.records if key in r and (r[key] is None or is_number(r[key]))]
        return [x for x, _ in kept], [y for _, y in kept]


def is_number(value: Any) -> bool:
    return number(value) is not None


def field(data: Mapping[str, Any], key: str, file: str) -> Any:
    if key not in data:
        raise Missing(f"{file} has no {key!r}")
    return data[key]


def flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows; the keys of inner objects are joined by dots."""
    rows = []
    for key, value in data.items():
        rows += flat(value, f"{prefix}{key}.") if type(value) is dict else [(f"{prefix}{key}", str(value)[:MAX_TEXT])]
    return rows
