"""What a run leaves behind: the fixed layout of its folder, its status, and the lock that says it is alive."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from supernet.errors import Mendable
from supernet.files import read_text
from supernet.runs.checkpoint import has_checkpoint

MAX_STATUS_BYTES = 1_000_000  # run.json has a few hundred
Status = Literal["running", "stopped", "finished", "failed"]


class RunFolderError(Mendable, RuntimeError):
    """A run's folder cannot be made, written or locked. The message is one line."""


class RunFolder:
    """The paths of one run. Nothing is created or read until asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.run_json = path / "run.json"
        self.environment = path / "environment.json"
        self.split = path / "split.npz"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.genotype = path / "genotype.json"
        self.genotypes = path / "genotypes.jsonl"
        self.cell_svg = path / "cell.svg"
        self.cell_png = path / "cell.png"
        self.alphas = path / "alphas.npz"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self.weights = path / "weights.pt"
        self._lock = path / ".lock"

    @classmethod
    def create(cls, output: Path, stem: str) -> "RunFolder":
        """Makes `<output>/<YYYY-MM-DD_HH-MM-SS>_<stem>`, with `_2`, `_3`, ... where another process was first.

        Raises RunFolderError: the output folder cannot be made or written.
        """
        # Shells, W&B and Hydra's command line read '=' , ',' and spaces; a file name has at most 255 bytes.
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{re.sub(r'[^A-Za-z0-9_.-]', '-', stem)[:150]}"
        try:
            output.mkdir(parents=True, exist_ok=True)
            n = 1
            while not _mkdir(path := output / (name if n == 1 else f"{name}_{n}")):
                n += 1
        except OSError as error:
            raise RunFolderError(f"{output}: cannot make a run folder here ({error.strerror or error})") from error
        return cls(path)

    def start(self, *, script: str, command: str, config_hash: str) -> None:
        """Writes run.json with status `running`. A resumed run keeps the time at which it first started."""
        started = (self.status() or {}).get("started", _now())
        write_json(self.run_json, {"script": script, "status": "running", "command": command, "started": started,
                                   "updated": _now(), "config_hash": config_hash, "pid": os.getpid()})

    def set_status(self, status: Status) -> None:
        """Changes the status of a started run."""
        write_json(self.run_json, {**(self.status() or {}), "status": status, "updated": _now()})

    def status(self) -> dict[str, Any] | None:
        """What run.json says; None where there is no such file, or it is not ours to read."""
        try:
            data = json.loads(read_text(self.run_json, MAX_STATUS_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        return data if type(data) is dict else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the run is alive; the system lets go of it when the process ends, however it ends.

        Raises RunFolderError: another process holds it, or the folder cannot be written.
        """
        try:
            file = open(self._lock, "ab")
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot lock this run folder ({error.strerror or error})") from error
        with file:
            if not _take(file.fileno()):
                pid = (self.status() or {}).get("pid", "unknown")
                raise RunFolderError(f"{self.path}: another process is working on this run (process id {pid})")
            yield

    def is_locked(self) -> bool:
        """Whether a live process holds the lock (also when it is this one)."""
        try:
            with open(self._lock, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not see each other
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def find_unfinished(output: Path, script: str, config_hash: str) -> RunFolder | None:
    """The newest run of this script and configuration that can go on: unfinished, with a checkpoint, and nobody at work on it."""
    found = []
    for path in output.glob("*/run.json"):
        folder = RunFolder(path.parent)
        status = folder.status() or {}
        if (status.get("script"), status.get("config_hash")) == (script, config_hash) and status.get("status") != "finished":
            found.append((status.get("started", ""), folder.path.name, folder))
    newest_first = (folder for *_, folder in sorted(found, key=lambda row: row[:2], reverse=True))
    return next((f for f in newest_first if has_checkpoint(f.checkpoints) and not f.is_locked()), None)


def config_hash(plain_config: Mapping[str, Any], ignore: Collection[str] = ()) -> str:
    """SHA-256 of the configuration as canonical JSON, without the top-level keys in `ignore`."""
    kept = {key: value for key, value in plain_config.items() if key not in ignore}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_json(data: Any, *, indent: int | None = None) -> str:
    """Standard JSON: floats with all their digits, and null for NaN and infinities, which JSON cannot spell."""
    plain = json.loads(json.dumps(data), parse_constant=lambda _: None)
    return json.dumps(plain, indent=indent, allow_nan=False)


def write_json(path: Path, data: Any) -> None:
    """Writes the whole file or leaves the old one. Raises RunFolderError: it cannot be written."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(to_json(data, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise RunFolderError(f"{path}: cannot write ({error.strerror or error})") from error


def _mkdir(path: Path) -> bool:
    """False where the folder exists: only one of many processes makes it."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def _take(descriptor: int) -> bool:
    # Whoever asks `is_locked` holds a shared lock for microseconds; only one that stays is a live run.
    for _ in range(20):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def _now() -> str:
    return datetime.now().astimezone().isoformat()
