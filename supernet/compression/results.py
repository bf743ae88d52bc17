"""What was made of a network, a record a line, and what each record must hold to be used again."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from supernet.exports.folder import MAX_RECORD_BYTES, RECORD
from supernet.files import read_bytes, read_text
from supernet.runs.journal import Journal

JOURNAL = "results.jsonl"
MAX_FILE_BYTES = 2**34


@dataclass(frozen=True)
class Result:
    """One way to make a network smaller. key: a digest of all that it depends on. told: in words. steps: the methods. folder: that holds
    it, beside the journal; runs: `weights.pt` or `network.onnx`, which of its files is the network. values: numbers by name. files: SHA-256
    by name. failed: why there is none, a line."""

    key: str
    name: str
    told: str
    steps: Sequence[str]
    distilled: bool
    values: Mapping[str, Any] = field(default_factory=dict)
    runs: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    failed: str | None = None

    def is_whole(self, output: Path) -> bool:
        """Whether its files are there, as they were written."""
        try:
            return all(name == Path(name).name and _sha256(output / self.name / name) == digest for name, digest in self.files.items())
        except OSError:
            return False

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"steps": list(self.steps)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, MAX_FILE_BYTES)).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a folder, by name."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def key_of(*told: Any) -> str:
    """A digest of plain values."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def read_results(output: Path) -> dict[str, Result]:
    """All that was made and is whole, by key; of one key the last counts. What is damaged is passed over: it is made again."""
    known, names = {}, {f.name for f in fields(Result)}
    for record in Journal.readable(output / JOURNAL):
        if names <= record.keys() and _is_sound(record):
            found = Result(**{name: record[name] for name in names})
            if Path(found.name).name == found.name and found.is_whole(output):
                known[found.key] = found
    return known


def _is_sound(record: Mapping[str, Any]) -> bool:
    kinds = {"key": str, "name": str, "told": str, "steps": list, "distilled": bool, "values": dict, "runs": str, "files": dict}
    return all(type(record[name]) is kind for name, kind in kinds.items()) and type(record["failed"]) in (str, type(None))


def free_name(name: str, key: str, known: Iterable[Result], output: Path) -> str:
    """`name`, or with the beginning of `key` where a result of other options has it, or somebody's folder stands there."""
    taken = any(result.name == name and result.key != key and result.failed is None for result in known)
    return f"{name}_{key[:6]}" if taken or ((output / name).exists() and _key_in(output / name) != key) else name


def _key_in(folder: Path) -> str | None:
    """That of the result that a folder is of, also where its files are damaged."""
    try:
        return json.loads(read_text(folder / RECORD, MAX_RECORD_BYTES))["key"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
