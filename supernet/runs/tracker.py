"""A second place for a run's numbers: W&B, where it is wanted and can be had."""

import contextlib
import hashlib
import netrc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from supernet.errors import Mendable

MAX_NAME, MAX_TAG, MAX_ID = 128, 64, 64  # characters, of W&B's names and groups, tags, and run ids


class TrackerError(Mendable, RuntimeError):
    """The asked-for tracking cannot be had. The message is one line."""


@dataclass(frozen=True)
class Labels:
    """What a run is found and sorted by on a page of hundreds. `group` has the runs that differ by their seeds alone, in which `version`
    says which one this is; `kind` (W&B's job type) says what was done: search, final."""

    name: str = ""
    group: str = ""
    version: str = ""
    kind: str = ""
    tags: tuple[str, ...] = ()


class Tracker(Protocol):
    """A second place for the numbers; results are never read back from it. No call raises or asks anything."""

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """`step` never falls, also over a resume; W&B ignores what comes at an earlier step."""

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray | Path]) -> None:
        """`draw` gives (H, W, 3) of uint8, or a PNG file; it is called only if there is someone to look."""

    def results(self, values: Mapping[str, Any]) -> None:
        """What the whole run came to: a column each where runs are listed. Nothing is logged after it."""

    def files(self, kind: str, paths: Sequence[Path], about: Mapping[str, Any]) -> None:
        """Keeps final files under `kind` (W&B: a version of an artifact of that type), with plain values that describe them."""

    def preempted(self) -> None:
        """The machine takes its processor back; the run will go on elsewhere from its checkpoint. `finish` follows."""

    def finish(self, exit_code: int) -> None: ...


class NoTracker:
    """Tracks nothing."""

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        pass

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray | Path]) -> None:
        pass

    def results(self, values: Mapping[str, Any]) -> None:
        pass

    def files(self, kind: str, paths: Sequence[Path], about: Mapping[str, Any]) -> None:
        pass

    def preempted(self) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        pass


class WandbTracker:
    """A W&B run. A failure in it costs no training: the first one is told to `warn`, further ones are not.

    wandb: the package, which makes what W&B stores and ends its process.
    """

    def __init__(self, run: Any, wandb: Any, warn: Callable[[str], None], labels: Labels = Labels()) -> None:
        self._run = run
        self._wandb = wandb
        self._warn = warn
        self._labels = labels
        self._warned = False
        with self._never_raising():
            run.define_metric("epoch")
            run.define_metric("trial/number")
            run.define_metric("trial/*", step_metric="trial/number")
            run.define_metric("*", step_metric="epoch")  # runs of other batch sizes lie side by side; the step stays what orders records

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        with self._never_raising():
            self._run.log(dict(record), step=step)

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray | Path]) -> None:
        with self._never_raising():
            self._run.log({name: self._wandb.Image(draw())}, step=step)

    def results(self, values: Mapping[str, Any]) -> None:
        with self._never_raising():
            self._run.log({}, commit=True)  # the last row, which would come afterwards and count for its names
            self._run.summary.update(dict(values))

    def files(self, kind: str, paths: Sequence[Path], about: Mapping[str, Any]) -> None:
        """The artifact `<kind>-<group>`: runs that differ by their seeds alone make versions of one, `genotype-...:seed-03`."""
        with self._never_raising():
            artifact = self._wandb.Artifact(word(f"{kind}-{self._labels.group or self._run.id}"), type=kind, metadata=dict(about))
            for path in paths:
                # "immutable": named by its path until it is uploaded, where W&B would copy it into the user's home first.
                artifact.add_file(str(path), policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact, aliases=["latest", self._labels.version or self._run.id])

    def preempted(self) -> None:
        with self._never_raising():
            self._run.mark_preempting()

    def finish(self, exit_code: int) -> None:
        with self._never_raising():
            try:
                self._run.finish(exit_code=exit_code)
            except ConnectionError:  # W&B's own process is gone, as where a scheduler sends SIGTERM to all processes of a job
                with contextlib.suppress(Exception):
                    self._wandb.teardown(exit_code=exit_code)  # else W&B prints a traceback when the interpreter ends
                raise

    @contextlib.contextmanager
    def _never_raising(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever goes wrong there, the run's own files have all the numbers
            if not self._warned:
                self._warn(f"W&B: {_one_line(error)}; training goes on, metrics.jsonl has every number")
            self._warned = True


def word(text: str) -> str:
    """It as a name for artifacts, aliases and ids: letters, digits, `_`, `.` and `-`, at most 128."""
    return shortened(re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-"))


def shortened(text: str, most: int = MAX_NAME) -> str:
    """It, or where it has more than `most` characters its begin and a digest of all of it, so that long ones stay apart."""
    return text if len(text) <= most else f"{text[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_id(name: str, *of: str) -> str:
    """A run's id in W&B: the same when it goes on, and no other run's, on whatever machine. `of`: what makes it that run."""
    digest = hashlib.sha256("\n".join([name, *of]).encode()).hexdigest()[:8]
    return f"{word(name)[: MAX_ID - 9]}-{digest}"


SECRET = re.compile(r"(^|[._])(api_?key|access_?key|password|passwd|secret|credentials?|(auth|access|api|bearer)_?token)($|[._])", re.I)
HIDDEN = "(hidden)"


def without_secrets(value: Any, secrets: Sequence[str] = ()) -> Any:
    """Plain data without what must not leave the machine: texts whose name calls them a password or a key (also in `name=text`), the user
    part of a URL, and the texts `secrets` wherever they occur."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if SECRET.search(str(key)) and type(inner) is str else without_secrets(inner, secrets)
                for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, secrets) for inner in value]
    if type(value) is not str:
        return value
    name, equals, _ = value.partition("=")
    if equals and SECRET.search(name):
        return f"{name}={HIDDEN}"
    for secret in filter(None, secrets):
        value = value.replace(secret, HIDDEN)
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", HIDDEN, value)


# What is tried in turn for each mode. The last two are what WANDB_MODE may say besides.
MODES = {
    "auto": ("online", "offline", "disabled"), "online": ("online",), "offline": ("offline",), "disabled": ("disabled",),
    "run": ("online",), "dryrun": ("offline",),
}


def open_tracker(mode: str, *, project: str | None, folder: Path, config: Mapping[str, Any], run_id: str, warn: Callable[[str], None],
                 labels: Labels = Labels(), entity: str | None = None, timeout_s: float = 20) -> tuple[Tracker, str]:
    """A tracker, and one line that says what was opened and why.

    `auto` is what WANDB_MODE says, or else the first that can be had of online (a key is configured, and the server answers
    within `timeout_s`), offline and disabled. A mode asked for by name is had or raises TrackerError. W&B's files are under
    `<folder>/wandb`; the same `run_id` continues the same W&B run. `config` is there from the first record, without secrets. project:
    None for WANDB_PROJECT, or `supernet`; entity: None for W&B's own choice. Under a sweep's agent W&B says which run this is and where it
    belongs.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or mode
    if mode not in MODES:
        raise TrackerError(f"the W&B mode must be auto, online, offline or disabled, got {mode!r}")
    config = without_secrets(config, [os.environ.get("WANDB_API_KEY", "")])
    where = {} if of_sweep() else {"project": project or os.environ.get("WANDB_PROJECT") or "supernet", "entity": entity, "id": run_id}
    refusals = []
    for attempt in MODES[mode]:
        if attempt == "disabled":
            return NoTracker(), "; ".join(["W&B: disabled", *refusals])
        try:
            run, wandb = _open_wandb(attempt, timeout_s, dir=str(folder), config=config, name=labels.name or None,
                                     group=labels.group or None, job_type=labels.kind or None, tags=labels.tags or None, **where)
        except TrackerError as error:
            refusals.append(f"not {attempt}: {error}")
            continue
        place = run.url if attempt == "online" else f"`wandb sync {run.settings.sync_dir}` uploads it"
        return WandbTracker(run, wandb, warn, labels), "; ".join([f"W&B: {attempt}, {place}", *refusals])
    raise TrackerError(f"W&B: {refusals[0]} (mode auto goes on without it)")


def of_sweep() -> bool:
    """Whether `wandb agent` started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def is_preemption(number: int | None) -> bool:
    """Whether a signal says that the machine takes its processor back: SIGUSR2, which a scheduler is asked to send before, and SIGTERM.
    An agent of a sweep stops a run by SIGTERM too, and a run that called this a preemption would be queued again."""
    return number == signal.SIGUSR2 or number == signal.SIGTERM and not of_sweep()


def _open_wandb(mode: str, timeout_s: float, **arguments: Any) -> tuple[Any, Any]:
    try:
        import wandb
    except ImportError as error:
        raise TrackerError(f"the package wandb cannot be imported ({_one_line(error)})") from error
    if mode == "online" and not has_key():
        raise TrackerError("No API key configured (`wandb login`, or WANDB_API_KEY)")  # found out here: W&B would ask the network
    settings = {"silent": True, "console": "off"}
    try:
        with _keeping_the_process():
            wandb.setup(wandb.Settings(**settings))  # silent before anything speaks; a silent W&B asks no questions either
            run = wandb.init(mode=mode, resume="allow", reinit="finish_previous", **arguments,
                             settings=wandb.Settings(**settings, init_timeout=timeout_s, finish_timeout=60))
    except Exception as error:
        wandb.teardown(exit_code=1)  # else the service keeps the run id of the failed attempt in use
        raise TrackerError(_one_line(error)) from error
    return run, wandb


def has_key() -> bool:
    """Whether W&B would find a key for its server: in the environment, or in the user's netrc file, where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with contextlib.suppress(OSError, ValueError, netrc.NetrcParseError):
            if netrc.netrc(path).authenticators(host):
                return True
    return False


@contextlib.contextmanager
def _keeping_the_process() -> Iterator[None]:
    """W&B puts its own functions in place of `sys.exit` and `sys.excepthook`; how a script ends is the script's business. It also records
    the command as typed, which is to hold no secrets."""
    kept = sys.exit, sys.excepthook, sys.argv
    sys.argv = without_secrets(sys.argv, [os.environ.get("WANDB_API_KEY", "")])
    try:
        yield
    finally:
        sys.exit, sys.excepthook, sys.argv = kept


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
