"""What a run leaves behind: the fixed layout of its folder, its status, and the lock that says it is alive."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from supernet.errors import Mendable
from supernet.files import read_bytes, read_text, write_whole, yaml_loader, yaml_text
from supernet.formats import Format, FormatError
from supernet.genotype import short
from supernet.runs.checkpoint_files import MAX_BYTES, CheckpointError, has_checkpoint
from supernet.runs.journal import to_json
from supernet.runs.locks import FOLDER, Lock, LockError, nobody

MAX_STATUS_BYTES = 1_000_000  # run.json has a few hundred
MAX_OPTIONS_BYTES = 300_000  # a run's options are 5 kB; YAML is read at some 100 kB a second
Status = Literal["running", "stopped", "finished", "failed"]
FORMAT = Format("supernet.run", 2)  # of all that a folder holds; the first one had no name, and its options name modules that have moved


ABSENT = "nothing"
# What a finished run's run.json keeps the digest of: all that is read back, but for what has one in itself (checkpoints, weights.pt).
SEALED = ("config.yaml", "environment.json", "split.npz", "metrics.jsonl", "genotypes.jsonl", "trials.jsonl", "alphas.npz", "genotype.json",
          "genotype.txt", "summary.json", "predictions.npz", "cell.svg", "cell.png")


class RunFolderError(Mendable, RuntimeError):
    """A run's folder cannot be made, written or locked. The message is one line."""


def plain_options(path: Path) -> dict[str, Any]:
    """A run's config.yaml as dicts and lists: nothing in it is built or resolved. Raises RunFolderError."""
    try:
        found = yaml.load(yaml_text(path, MAX_OPTIONS_BYTES), yaml_loader())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{path}: cannot read the run's options ({' '.join(str(why).split())[:150]})") from error
    if type(found) is not dict:
        raise RunFolderError(f"{path}: expected the options of a run, got {short(found)}")
    return found


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
        self.genotype_text = path / "genotype.txt"
        self.genotypes = path / "genotypes.jsonl"
        self.trials = path / "trials.jsonl"
        self.cell_svg = path / "cell.svg"
        self.cell_png = path / "cell.png"
        self.alphas = path / "alphas.npz"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self.weights = path / "weights.pt"
        self.predictions = path / "predictions.npz"
        self._lock = Lock(path / FOLDER, "run")
        self._earlier_lock = path / ".lock"

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

    def start(self, *, script: str, command: str, config_hash: str, identity: Mapping[str, Any] | None = None,
              status: Status = "running") -> None:
        """Writes run.json. A resumed run keeps the time at which it first started, and the digests of its files. identity: what else says
        what is run (`job`, its own overrides and choices)."""
        before = self.known_status()
        self._write_status({**FORMAT.stamp(), "script": script, "status": status, "command": command,
                            "started": before.get("started", _now()), "updated": _now(), "config_hash": config_hash,
                            **(identity or {}), "pid": os.getpid(), "files": _digests(before)})

    def set_status(self, status: Status, error: str | None = None) -> None:
        """Changes the status of a started run. error: of one that failed, a line. Of one that is finished the files are sealed: their
        digests say later whether they are still what was written."""
        kept = {key: value for key, value in (self.status() or {}).items() if key != "error"}
        if status == "finished":
            kept["files"] = _digests(kept) | {name: _sha256(self.path / name) for name in SEALED if (self.path / name).is_file()}
        self._write_status({**kept, "status": status, "updated": _now(), **({} if error is None else {"error": error})})

    def status(self) -> dict[str, Any] | None:
        """What run.json says; None where there is no such file, or it is not ours, or no longer what was written."""
        try:
            data = json.loads(read_text(self.run_json, MAX_STATUS_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        return data if type(data) is dict and data.get("sha256", "") in ("", _digest(data)) else None

    def known_status(self) -> dict[str, Any]:
        """The same; where run.json is gone or damaged, what the newest checkpoint knows of the run; {} where there is neither."""
        status = self.status()
        if status is None and has_checkpoint(self.checkpoints):
            from supernet.runs import checkpoint  # PyTorch, which few who ask for a status need

            with contextlib.suppress(CheckpointError):
                status = checkpoint.load(self.checkpoints).state.get("run")
        return status or {}

    def _write_status(self, status: dict[str, Any]) -> None:
        self.check_lock()
        status.pop("sha256", None)
        write_json(self.run_json, status | {"sha256": _digest(status)})

    def write(self, path: Path, data: bytes) -> None:
        """A file that is final when it is written: whole, synced, its digest in run.json. Raises RunFolderError."""
        self.check_lock()
        try:
            write_whole(path, data)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot write ({error.strerror or error})") from error
        self.record(path)

    def record(self, path: Path) -> None:
        """Keeps the digest of a file that is final, for `verify`."""
        status = self.status() or {}
        files = {**_digests(status), path.name: _sha256(path)}
        self._write_status({**status, "files": files, "updated": _now()})

    def verify(self, path: Path) -> None:
        """Raises RunFolderError: the file is missing, or not what was written; one whose digest nobody kept is taken as it is."""
        known = _digests(self.status() or {}).get(path.name)
        try:
            seen = _sha256(path)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot read ({error.strerror or error})") from error
        if known is not None and seen != known:
            raise RunFolderError(f"{path}: is not what was written (sha256 differs): the file was damaged or edited")

    def changed(self, names: Collection[str] = SEALED) -> list[str]:
        """Those of the files that are no longer what was written; of a run that goes on, few are final. None where run.json, which has
        their digests, cannot be read. One that is gone, or cannot be read, is the business of whoever needs it."""
        known = _digests(self.status() or {})
        return [name for name in names if name in known and _seen(self.path / name) not in (None, known[name])]

    def check_unchanged(self, *names: str) -> None:
        """Raises RunFolderError, as `verify`, for the first of the files that is not what was written."""
        for name in self.changed(names):
            self.verify(self.path / name)

    def options(self) -> dict[str, Any]:
        """The options that the run was started with, as plain data: nothing in them is built or resolved. Raises RunFolderError."""
        self.verify(self.config)
        return plain_options(self.config)

    def check_format(self) -> None:
        """Raises RunFolderError: a version of the project wrote this run whose files cannot be gone on with."""
        status = self.known_status()
        if "format" in status:
            try:
                FORMAT.current(dict(status))
            except FormatError as error:
                raise RunFolderError(f"{self.path}: {error}{self._commit()}") from error
        else:
            raise RunFolderError(f"{self.path}: an earlier version of the project wrote this run, and its options name modules that have "
                                 f"moved since: go on with it there{self._commit()}")

    def _commit(self) -> str:
        try:
            commit = json.loads(read_text(self.environment, MAX_STATUS_BYTES))["git_commit"]
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            return ""
        return f" (commit {str(commit)[:40]})" if commit else ""

    @contextlib.contextmanager
    def lock(self, told: Callable[[str], None] = nobody) -> Iterator[None]:
        """Held while the run is alive; others see at once, or after a while, that the process has ended, however it ended. told: hears
        what is waited for, where another machine's process may be at work.

        Raises RunFolderError: another process holds it, or the folder cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._lock.held(wait=False, told=told))
            except LockError as error:
                who = str(error).removesuffix(" has it")
                raise RunFolderError(f"{self.path}: another process is working on this run ({who})") from error
            except OSError as error:
                raise RunFolderError(f"{self.path}: cannot lock this run folder ({error.strerror or error})") from error
            if self._is_locked_by_an_earlier_version():
                raise RunFolderError(f"{self.path}: another process, of an earlier version of the project, is working on this run")
            yield

    def check_lock(self) -> None:
        """Raises RunFolderError: this process had the lock, and has lost it to another one, which goes on with the run. To be asked before
        anything is written."""
        try:
            self._lock.check()
        except LockError as error:
            raise RunFolderError(f"{self.path}: {error}; that one goes on with this run, and here nothing more is written") from error

    def is_locked(self) -> bool:
        """Whether a live process holds the lock (also when it is this one). Of another machine's, which may have died, this says yes until
        it was looked at for a while."""
        return self._lock.is_held() or self._is_locked_by_an_earlier_version()

    def is_surely_locked(self, told: Callable[[str], None] = nobody) -> bool:
        """The same after a wait, where that is in doubt."""
        return self._lock.is_surely_held(told) or self._is_locked_by_an_earlier_version()

    def worker(self) -> str:
        """Who holds the lock, in words: its process, and the machine where that is another one."""
        return self._lock.holder() if self._lock.is_held() else f"process {(self.status() or {}).get('pid', 'unknown')}"

    def _is_locked_by_an_earlier_version(self) -> bool:
        """Those held another file, by flock."""
        try:
            descriptor = os.open(self._earlier_lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a stranger's may be a pipe
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not see each other
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


class Earlier(NamedTuple):
    """The runs of one job under a folder, newest first: at work now, finished, such that can go on here, and such that cannot, since they
    met another device, backend or data there."""

    working: list[RunFolder]
    finished: list[RunFolder]
    unfinished: list[RunFolder]
    foreign: list[RunFolder]


def runs_of(output: Path, script: str, job: str, told: Callable[[str], None] | None = None) -> Earlier:
    """The runs of one job under `output`, wherever they can go on (none is `foreign`). told: as of `earlier_runs`."""
    return earlier_runs(output, script, None, job, told)


def earlier_runs(output: Path, script: str, config_hash: str | None, job: str | None = None,
                 told: Callable[[str], None] | None = None) -> Earlier:
    """Looks at every run under `output`. One whose run.json is gone or damaged is known by its checkpoints (`restore`); one that an earlier
    version of the project wrote, without a job, by its `config_hash`, which of one with a job says whether it can go on here. told: where
    it is in doubt whether a process of another machine still works on one, this waits, and `told` hears of it; None: it counts as at work.
    """
    found = []
    for path in sorted(output.glob("*")):
        folder = RunFolder(path)
        status = folder.known_status()
        if status.get("script") == script and _is_of(status, config_hash, job):
            found.append((str(status.get("started", "")), path.name, status, folder))
    earlier = Earlier([], [], [], [])
    for *_, status, folder in sorted(found, key=lambda row: row[:2], reverse=True):
        if folder.is_locked() and (told is None or folder.is_surely_locked(told)):
            earlier.working.append(folder)
        elif status.get("status") == "finished":
            earlier.finished.append(folder)
        elif has_checkpoint(folder.checkpoints):
            here = config_hash is None or status.get("config_hash") == config_hash
            (earlier.unfinished if here else earlier.foreign).append(folder)
    return earlier


def _is_of(status: Mapping[str, Any], config_hash: str | None, job: str | None) -> bool:
    if job is None or status.get("job") is None:
        return config_hash is not None and status.get("config_hash") == config_hash
    return status["job"] == job


def differences(there: Any, here: Any, ignore: Collection[str] = ()) -> list[tuple[str, Any, Any]]:
    """The options that two plain configs do not share, by their full names, with both values (`ABSENT` where one has none)."""
    if type(there) is not dict or type(here) is not dict:
        return [] if there == here else [("", there, here)]
    found = []
    for key in sorted({*there, *here} - set(ignore), key=str):  # a stranger's may be numbers
        rows = differences(there.get(key, ABSENT), here.get(key, ABSENT))
        found += [(f"{key}.{name}".rstrip("."), a, b) for name, a, b in rows]
    return found


def check_in_run(path: Path) -> None:
    """Raises RunFolderError: the file lies in the folder of a run that wrote it, and is no longer what that was."""
    folder = RunFolder(path.parent)
    if folder.run_json.exists() and folder.changed((path.name,)):
        raise RunFolderError(f"{path}: is not what was written (sha256 differs): the file was damaged or edited; one that is edited on "
                             "purpose may lie elsewhere than in the folder of a run")


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, MAX_BYTES)).hexdigest()


def _seen(path: Path) -> str | None:
    try:
        return _sha256(path)
    except OSError:
        return None


def _digests(status: Mapping[str, Any]) -> dict[str, str]:
    """Of the files that are final, by name."""
    found = status.get("files")
    return dict(found) if type(found) is dict else {}


def _digest(status: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in status.items() if key != "sha256"}
    return hashlib.sha256(to_json(kept).encode()).hexdigest()


def config_hash(plain_config: Mapping[str, Any], ignore: Collection[str] = ()) -> str:
    """SHA-256 of the configuration as canonical JSON, without the top-level keys in `ignore`."""
    kept = {key: value for key, value in plain_config.items() if key not in ignore}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Writes the whole file or leaves the old one. Raises RunFolderError: it cannot be written."""
    try:
        write_whole(path, (to_json(data, indent=1) + "\n").encode())
    except OSError as error:
        raise RunFolderError(f"{path}: cannot write ({error.strerror or error})") from error


def _mkdir(path: Path) -> bool:
    """False where the folder exists: only one of many processes makes it."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat()
