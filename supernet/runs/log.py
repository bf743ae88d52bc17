"""Where a run's numbers go: `Metrics` (a file, always), `Progress` (one line on a terminal) and `Tracker` (W&B, where wanted)."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from supernet.errors import Mendable
from supernet.files import read_bytes
from supernet.runs.folder import RunFolderError, to_json

MAX_BYTES = 2**31  # of metrics.jsonl, which has a line an epoch


class Metrics:
    """One JSON object a line. A checkpoint stores `position()`; resuming from it begins with `cut(position)`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line; NaN and infinities become null, which JSON cannot spell otherwise."""
        with open(self.path, "ab") as file:
            file.write(to_json(dict(record)).encode() + b"\n")

    def position(self) -> int:
        """Bytes so far. They are on the disk when this returns, so that no checkpoint knows more than the file."""
        with open(self.path, "ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut(self, position: int) -> None:
        """Drops what came after `position`. Raises RunFolderError: the file is missing, or shorter than that."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < position:
            raise RunFolderError(f"{self.path}: the checkpoint was made at byte {position:,}, but the file has only {size:,}")
        if size > position:
            os.truncate(self.path, position)

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """All records. A last line without its end is dropped (a kill in the middle of it).

        Raises ValueError: another line is not JSON.
        """
        *lines, _torn = read_bytes(path, MAX_BYTES).split(b"\n")
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is not JSON ({error})") from error
        return records


class Progress:
    """One line that is redrawn in place: `epoch 3/50  step 120/391  loss 1.234  acc 45.6 %  812 images/s  12:34 left`.

    Silent where `stream` is not a terminal, but for `line`. Time left follows the mean pace since this process began, pauses
    for evaluation included; items a second those of about the last ten seconds.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int, *, start_step: int = 0, item: str = "image", stream: TextIO | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.start_step = start_step
        self.item = item
        self._stream = sys.stderr if stream is None else stream
        self._shows = self._stream.isatty()
        self._clock = clock
        self._start = self._last_update = clock()
        self._last_draw = float("-inf")
        self._items = self._seconds = 0.0  # both fade alike, so that their quotient is a recent rate
        self._drawn = ""

    def update(self, step: int, fields: Callable[[], Mapping[str, float]], items: int) -> None:
        """`step` steps of the whole run are done, the last one with `items` items (images, words). Draws at most five times a second.

        `fields` is called only when a line is drawn, since reading a GPU makes it wait. A field's name may end in its
        unit: `{"acc %": 45.6}` reads `acc 45.6 %`.
        """
        now = self._clock()
        fade = 0.5 ** ((now - self._last_update) / 10)
        self._items = fade * self._items + items
        self._seconds = fade * self._seconds + (now - self._last_update)
        self._last_update = now
        if self._shows and now - self._last_draw >= 0.2:
            self._last_draw = now
            self._draw(self._text(step, fields(), now))

    def line(self, text: str) -> None:
        """Prints a line that stays, above the moving one."""
        moving = self._drawn
        self._draw("")
        self._stream.write(text + "\n")
        self._draw(moving)
        self._stream.flush()

    def close(self) -> None:
        """Takes the moving line away."""
        self._draw("")

    def _text(self, step: int, fields: Mapping[str, float], now: float) -> str:
        epoch = max(0, step - 1) // self.steps_per_epoch
        in_epoch = step - epoch * self.steps_per_epoch
        done = step - self.start_step
        left = (self.total_steps - step) * (now - self._start) / done if done > 0 else None
        named = ((*name.partition(" "), value) for name, value in fields.items())
        return "  ".join([
            f"epoch {epoch + 1}/{-(-self.total_steps // self.steps_per_epoch)}",
            f"step {in_epoch}/{self.steps_per_epoch}",
            *(f"{name} {value:.4g} {unit}".rstrip() for name, _, unit, value in named),
            f"{self._items / self._seconds:.0f} {self.item}s/s" if self._seconds else f"-- {self.item}s/s",
            f"{_duration(left)} left",
        ])

    def _draw(self, text: str) -> None:
        """Replaces the line drawn last. Blanks, not escape codes, wipe it: every terminal knows those."""
        if not (self._shows and (text or self._drawn)):
            return
        # A terminal that does not know its width says 0. The last column stays free: some wrap when it is filled.
        text = text[: (os.get_terminal_size(self._stream.fileno()).columns or 80) - 1]
        blanks = " " * (len(self._drawn) - len(text))
        self._stream.write(f"\r{text}{blanks}" if text else f"\r{blanks}\r")
        self._stream.flush()
        self._drawn = text


class TrackerError(Mendable, RuntimeError):
    """The asked-for tracking cannot be had. The message is one line."""


class Tracker(Protocol):
    """A second place for the numbers; results are never read back from it. No call raises or asks anything."""

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """`step` never falls, also over a resume; W&B ignores what comes at an earlier step."""

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray | Path]) -> None:
        """`draw` gives (H, W, 3) of uint8, or a PNG file; it is called only if there is someone to look."""

    def finish(self, exit_code: int) -> None: ...


class NoTracker:
    """Tracks nothing."""

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        pass

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray | Path]) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        pass


class WandbTracker:
    """A W&B run. A failure in it costs no training: the first one is told to `warn`, further ones are not."""

    def __init__(self, run: Any, make_image: Callable[[np.ndarray | Path], Any], warn: Callable[[str], None]) -> None:
        self._run = run
        self._make_image = make_image
        self._warn = warn
        self._warned = False

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        with self._never_raising():
            self._run.log(dict(record), step=step)

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray | Path]) -> None:
        with self._never_raising():
            self._run.log({name: self._make_image(draw())}, step=step)

    def finish(self, exit_code: int) -> None:
        with self._never_raising():
            self._run.finish(exit_code=exit_code)

    @contextlib.contextmanager
    def _never_raising(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever goes wrong there, the run's own files have all the numbers
            if not self._warned:
                self._warn(f"W&B: {_one_line(error)}; training goes on, metrics.jsonl has every number")
            self._warned = True


# What is tried in turn for each mode. The last two are what WANDB_MODE may say besides.
MODES = {
    "auto": ("online", "offline", "disabled"), "online": ("online",), "offline": ("offline",), "disabled": ("disabled",),
    "run": ("online",), "dryrun": ("offline",),
}


def open_tracker(mode: str, *, project: str, name: str, folder: Path, config: Mapping[str, Any], run_id: str,
                 warn: Callable[[str], None], notes: str = "", tags: Sequence[str] = (), group: str | None = None,
                 timeout_s: float = 20) -> tuple[Tracker, str]:
    """A tracker, and one line that says what was opened and why.

    `auto` is what WANDB_MODE says, or else the first that can be had of online (a key is configured, and the server answers
    within `timeout_s`), offline and disabled. A mode asked for by name is had or raises TrackerError. W&B's files are under
    `<folder>/wandb`; the same `run_id` continues the same W&B run.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or mode
    if mode not in MODES:
        raise TrackerError(f"the W&B mode must be auto, online, offline or disabled, got {mode!r}")
    refusals = []
    for attempt in MODES[mode]:
        if attempt == "disabled":
            return NoTracker(), "; ".join(["W&B: disabled", *refusals])
        try:
            run, make_image = _open_wandb(
                attempt, timeout_s, project=project, name=name, dir=str(folder), config=dict(config), id=run_id, notes=notes,
                tags=tuple(tags), group=group)
        except TrackerError as error:
            refusals.append(f"not {attempt}: {error}")
            continue
        place = run.url if attempt == "online" else f"`wandb sync {run.settings.sync_dir}` uploads it"
        return WandbTracker(run, make_image, warn), "; ".join([f"W&B: {attempt}, {place}", *refusals])
    raise TrackerError(f"W&B: {refusals[0]} (mode auto goes on without it)")


def _open_wandb(mode: str, timeout_s: float, **arguments: Any) -> tuple[Any, Callable[[np.ndarray | Path], Any]]:
    try:
        import wandb
    except ImportError as error:
        raise TrackerError(f"the package wandb cannot be imported ({_one_line(error)})") from error
    settings = {"silent": True, "console": "off"}
    try:
        with _keeping_exit_hooks():
            wandb.setup(wandb.Settings(**settings))  # silent before anything speaks; a silent W&B asks no questions either
            run = wandb.init(mode=mode, resume="allow", reinit="finish_previous", **arguments,
                             settings=wandb.Settings(**settings, init_timeout=timeout_s, finish_timeout=60))
    except Exception as error:
        wandb.teardown(exit_code=1)  # else the service keeps the run id of the failed attempt in use
        raise TrackerError(_one_line(error)) from error
    return run, wandb.Image


@contextlib.contextmanager
def _keeping_exit_hooks() -> Iterator[None]:
    """W&B puts its own functions in place of `sys.exit` and `sys.excepthook`; how a script ends is the script's business."""
    kept = sys.exit, sys.excepthook
    try:
        yield
    finally:
        sys.exit, sys.excepthook = kept


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "--:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
