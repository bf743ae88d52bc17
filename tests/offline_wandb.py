"""Reads what W&B writes offline, `run-<id>.wandb`: its own messages, in blocks as LevelDB's log has them.

W&B's Python package had a reader of the blocks in 0.28 (`wandb.sdk.internal.datastore`) and has none in 0.31; on files of 0.31 that one and
this one agreed byte for byte. Results are never read back from there: this is for tests."""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER = b":W&B\xe1\xbe\x00"
BLOCK = 32_768  # bytes; a record does not begin in the last 6 of one
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Offline:
    """One file of a run: what W&B was told, in the order in which it was told it."""

    kinds: list[str] = field(default_factory=list)  # of all records
    run: dict[str, Any] = field(default_factory=dict)  # id, project, name, group, job type, tags, sweep
    config: dict[str, Any] = field(default_factory=dict)  # as the first record of the run has it
    metrics: dict[str, str] = field(default_factory=dict)  # what is drawn over what
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)  # the command's
    exit_code: int | None = None


def records(data: bytes) -> Iterator[bytes]:
    """The records of a file. Raises ValueError where one is not what was written; a torn last one is left out."""
    if not data.startswith(HEADER):
        raise ValueError(f"expected a file that begins with {HEADER!r}, got {data[:7]!r}")
    at, parts = len(HEADER), b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        checksum, size, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + 7 : at + 7 + size]
        if len(part) < size:
            return
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"byte {at}: the checksum differs")
        at, parts = at + 7 + size, (part if kind in (WHOLE, FIRST) else parts + part)
        if kind in (WHOLE, LAST):
            yield parts


def read(file: Path) -> Offline:
    from wandb.proto.wandb_internal_pb2 import Record

    found = Offline()
    for data in records(file.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        found.kinds.append(kind)
        if kind == "run" and not found.run:
            run = record.run
            found.run = {"id": run.run_id, "project": run.project, "name": run.display_name, "group": run.run_group, "kind": run.job_type,
                         "tags": list(run.tags), "sweep": run.sweep_id}
            found.config = {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "history":
            found.history.append(_tree(record.history.item))
        elif kind == "summary":
            _into(found.summary, record.summary.update)
        elif kind == "artifact":
            entry = record.artifact
            found.artifacts.append({"name": entry.name, "type": entry.type, "aliases": sorted(entry.aliases),
                                    "about": json.loads(entry.metadata),
                                    "files": {part.path: part.local_path for part in entry.manifest.contents}})
        elif kind == "environment":
            found.arguments += record.environment.args
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _tree(items: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    _into(row, items)
    return row


def _into(row: dict[str, Any], items: Any) -> None:
    """Enters W&B's items, {"nested_key": [...]} or {"key": ...}, with what they say in JSON."""
    for item in items:
        *path, last = item.nested_key or [item.key]
        node = row
        for key in path:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)
