"""One run of a script: its folder, what it records, how it stops and how it goes on."""

import hashlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from supernet.errors import Elsewhere, LeftAlone
from supernet.files import write_whole
from supernet.formats import VERSION
from supernet.genotype import Genotype, short
from supernet.processes.group import ALONE, Group, digest
from supernet.processes.launched import launcher
from supernet.runs import checkpoint
from supernet.runs.checkpoint import CheckpointError, has_checkpoint
from supernet.runs.checkpoint_writer import Writer
from supernet.runs.claim import claim
from supernet.runs.earlier_options import Known, begun_alike, known_without, writer_of
from supernet.runs.environment import describe
from supernet.runs.folder import FORMAT, Earlier, RunFolder, RunFolderError, Status, differences, earlier_runs
from supernet.runs.interrupt import Interrupt
from supernet.runs.journal import TIME_FIELDS as TIME_FIELDS
from supernet.runs.journal import Journal, JournalError, Mark, to_json
from supernet.runs.locks import nobody
from supernet.runs.log import Progress
from supernet.runs.tracker import Labels, NoTracker, Tracker, TrackerError, is_preemption, open_tracker, run_id
from supernet.space import Space
from supernet.training.records import Position, Stateful, Totals
from supernet.trials import Trial

# What a tracker is told of a run's end; 255 is what W&B itself says of one that Ctrl-C ended, and shows as killed.
EXIT_CODES: Mapping[Status, int] = {"finished": 0, "failed": 1, "stopped": 255}


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""


@dataclass
class Run:
    """Records a loop (it is a `supernet.training.records.Recorder`) into a run folder.

    `parts` is all that moves, by name; `position` is among them. Everything is restored by `resume`, after which the next
    step is the one that an unbroken run would take. Parts are looked up when their turn comes, in order: in a live mapping one may decide
    what those after it are (`supernet.training.stages.StatefulOfStage`).
    """

    folder: RunFolder
    script: str
    command: str
    config_hash: str
    parts: Mapping[str, Stateful]
    position: Position
    epochs: int
    steps_per_epoch: int
    checkpoint_every_s: float
    images: Callable[[Genotype], Mapping[str, Callable[[], Any]]] = lambda genotype: {}  # an epoch's pictures, by name, for the tracker
    before_save: Callable[[], None] = lambda: None  # raises where the parts are not worth saving
    about: Callable[[], Mapping[str, Any]] = dict  # plain values that say what a checkpoint's weights are of, for who loads them alone
    item: str = "image"  # what the loop counts
    keep_checkpoints: int = 2
    background: bool = False  # checkpoints are written by a thread
    tracker: Tracker = field(default_factory=NoTracker)
    labels: Labels = Labels()  # what the tracker finds it by
    identity: Mapping[str, Any] = field(default_factory=dict)  # what run.json says of what is run, beside config_hash
    held: AbstractContextManager[Any] | None = None  # the lock of the folder, where it was taken with the choice of it
    group: Group = ALONE  # of the processes that train together, of which this is the first; the others have a `follower.Follower`
    synchronised_norms: bool = False  # what their batch norms go by; for who goes on with the run
    config_text: str = ""  # the options as YAML, set by `begin`

    def __post_init__(self) -> None:
        self.metrics, self.genotypes = Journal(self.folder.metrics), Journal(self.folder.genotypes)
        self.trials = Journal(self.folder.trials)
        self._synced_at = float("-inf")
        self._trials = 0  # of them there are, of which this process knows
        self.writer = Writer(self.folder.checkpoints, keep=self.keep_checkpoints, background=self.background, first=self._before_checkpoint)
        self.interrupt = Interrupt()
        self.elapsed_s, self._since = 0.0, time.perf_counter()
        self._saved_at = time.perf_counter()
        self.progress: Progress | None = None

    # -- opening and closing

    def __enter__(self) -> "Run":
        with ExitStack() as stack:
            stack.enter_context(self.folder.lock() if self.held is None else self.held)
            stack.enter_context(self.interrupt)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        unsaved = self._unsaved()
        if kind not in (None, Interrupted):  # the first error is the one to tell
            unsaved = None
        elif unsaved is not None:  # it has not ended well
            kind, error = type(unsaved), unsaved
        mine, resumable = self._has_lock(), has_checkpoint(self.folder.checkpoints)
        status: Status = "finished" if kind is None else "stopped" if kind in (Interrupted, KeyboardInterrupt) else "failed"
        try:
            if self.progress is not None:
                self.progress.close()
                if kind is Interrupted and is_preemption(self.interrupt.signal):
                    self.tracker.preempted()
                self.tracker.finish(EXIT_CODES[status])
                self.folder.set_status(status, f"{kind.__name__}: {error}".partition("\n")[0] if status == "failed" else None)
        except RunFolderError:
            if kind is None:  # else the first error is the one to tell
                raise
        finally:
            self._stack.close()
        if kind is not None and mine and not resumable and (kind is TrackerError or self.progress is None):
            shutil.rmtree(self.folder.path, ignore_errors=True)  # as where asked-for tracking cannot be had: nothing was started
            with suppress(OSError):
                self.folder.path.parent.rmdir()  # only if it is empty
        if kind is not None and issubclass(kind, OSError):
            raise RunFolderError(f"{self.folder.path}: cannot write the run's records ({error})") from error
        if unsaved is not None:
            raise unsaved

    def begin(self, *, config_text: str, options: dict[str, Any], device: torch.device, wandb: Mapping[str, Any],
              lines: Sequence[str]) -> None:
        """Records what is run and where, opens the tracker (`wandb`: mode, project, entity, timeout_s) with `options`, prints `lines`."""
        self.folder.start(script=self.script, command=self.command, config_hash=self.config_hash, identity=self.identity)
        self.folder.metrics.touch()
        self.progress = Progress(self.epochs * self.steps_per_epoch, self.steps_per_epoch, start_step=self.position.scheduled_step,
                                 item=self.item)
        self._since = self._saved_at = time.perf_counter()
        environment = describe(device)
        if not self.folder.config.exists():  # a resumed run keeps the record of its start
            self.folder.write(self.folder.config, config_text.encode())
            self.folder.write(self.folder.environment, (to_json(environment, indent=1) + "\n").encode())
        self.config_text = self.folder.config.read_text(encoding="utf-8")
        started = (self.folder.status() or {}).get("started", "")
        self.tracker, opened = open_tracker(
            wandb["mode"], project=wandb["project"], entity=wandb["entity"], timeout_s=wandb["timeout_s"], labels=self.labels,
            folder=self.folder.path, run_id=run_id(self.folder.path.name, self.config_hash, started),
            config={**options, **self.identity, "environment": environment, "run_folder": self.folder.path.name}, warn=self.line)
        threads = f"{device}, {environment['threads']} CPU threads, torch {environment['torch']}"
        for text in [f"run folder {self.folder.path}", opened, *lines, threads, *filter(None, [self.group.line()])]:
            self.line(text)
        check_same(self.group, self.parts)

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        self.progress.line(text)

    # -- what a loop tells

    def step(self, items: int, totals: Totals) -> None:
        def fields() -> dict[str, float]:
            means = totals.means()
            return {"loss": means["loss"], "acc %": means["accuracy"]}

        self.progress.update(self.position.scheduled_step, fields, items)
        stops, due = self.interrupt.agreed(self.group, time.perf_counter() - self._saved_at > self.checkpoint_every_s)
        if stops or due:
            self.save()
        if stops:
            self.writer.wait()
            raise Interrupted

    def begun_work(self) -> None:
        """Before work that follows the last epoch: a run of no epochs has saved nothing yet, and can be gone on with from here."""
        self.writer.wait()
        if self.group.largest(not has_checkpoint(self.folder.checkpoints))[0]:
            self.save()
            self.writer.wait()  # other processes may begin with it

    def working(self, done: int = 0, total: int = 0, item: str = "") -> None:
        if total:
            self.progress.working(done, total, item)
        if self.interrupt.agreed(self.group)[0]:
            self.writer.wait()
            raise Interrupted

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        check_same(self.group, self.parts)
        record = record | {"elapsed_s": self.elapsed()}
        if genotype is not None:
            record["genotype"] = genotype.digest
            self.folder.check_lock()
            genotype.save(self.folder.genotype)
            self.genotypes.append({"epoch": record["epoch"], "digest": genotype.digest, "genotype": genotype.to_json()})
        self.folder.check_lock()
        self.metrics.append(record)
        self.tracker.log(record["step"], record)
        if genotype is not None:
            for name, draw in self.images(genotype).items():
                self.tracker.image(record["step"], name, draw)
        self.line(epoch_line(record, self.epochs, self.item))
        self.save()
        if self.position.epoch >= self.epochs:
            self.writer.wait()  # what follows is of a run that is whole
        self.working()

    def known_trials(self, space: Space, *, trained: bool) -> list[Trial]:
        """The trials so far of a search by trials, which goes on from them. trained: what they are evaluated with was trained further
        since they were written, so that none counts. Raises JournalError: the journal is not what was written."""
        if trained:
            self.trials.cut(Mark(0, hashlib.sha256().hexdigest()))
        found = []
        for number, record in enumerate(self.trials.read_chained()):
            try:
                found.append(Trial.from_json(record, space))
            except ValueError as error:
                raise JournalError(f"{self.folder.trials}: line {number + 1}: {error}") from error
            if found[-1].number != number:
                raise JournalError(f"{self.folder.trials}: line {number + 1} must be trial {number}, got {found[-1].number}")
        self._trials = len(found)
        return found

    def trial(self, trial: Trial) -> None:
        """After every trial of a search by trials. What follows may be killed at any moment; a power cut costs no trial that took long, and
        of the others those of the last second."""
        now = time.perf_counter()
        sync = trial.wall_s > 0.01 or now - self._synced_at > 1
        self.folder.check_lock()
        self.trials.append(trial.to_json(), sync=sync, chained=True)
        self._trials, self._synced_at = self._trials + 1, now if sync else self._synced_at
        if sync and trial.refused is None:
            record = {"number": trial.number, "score": trial.scores[0], **trial.metrics}
            self.tracker.log(self.position.step + self._trials, {f"trial/{name}": value for name, value in record.items()})
        if self.interrupt.signal is not None:
            self._write()
            self.writer.wait()
            raise Interrupted
        if time.perf_counter() - self._saved_at > self.checkpoint_every_s:
            self._write()

    def standing(self) -> str:
        """Where the run stands, in words."""
        trials = f", {self._trials} trials" if self._trials else ""
        return f"epoch {self.position.epoch}, step {self.position.step}{trials}"

    def results(self, genotype: Genotype, values: Mapping[str, Any]) -> None:
        """Tells the tracker what the run came to, once all its files are written: the plain ones of `values`, and what people share."""
        folder = self.folder
        plain = {name: value for name, value in values.items() if type(value) in (bool, int, float, str)}
        if folder.cell_png.exists():
            self.tracker.image(self.position.step + self._trials, "cell", lambda: folder.cell_png)
        self.tracker.results(plain | {"found": genotype.digest})
        for kind, paths in (("genotype", (folder.genotype, folder.genotype_text, folder.cell_svg, folder.cell_png)),
                            ("report", (folder.report,))):
            if present := [path for path in paths if path.exists()]:
                self.tracker.files(kind, present, {"genotype": genotype.digest, "run_folder": folder.path.name, **plain})

    def elapsed(self) -> float:
        """Seconds of work in all, over every time the run was resumed."""
        return self.elapsed_s + time.perf_counter() - self._since

    def extend(self, source: RunFolder) -> list[str]:
        """Begins where the newest checkpoint of another run stands, with that run's records so far. `source` is only read."""
        loaded = checkpoint.load(source.checkpoints)
        for name, journal in (("metrics", self.metrics), ("genotypes", self.genotypes)):
            theirs, mark = Journal(source.path / journal.path.name), Mark(*loaded.state[name])
            theirs.verify(mark)
            write_whole(journal.path, theirs.path.read_bytes()[: mark.size] if mark.size else b"")
        self._restore(loaded)
        return [*loaded.skipped, f"goes on from {source.path}, at epoch {self.position.epoch} of now {self.epochs}"]

    def _restore(self, loaded: checkpoint.Loaded) -> None:
        for name, part in self.parts.items():
            if name not in loaded.state["parts"]:
                raise CheckpointError(f"{loaded.path}: has no {name!r}, so it was written by another version of the project")
            try:
                part.load_state_dict(loaded.state["parts"][name])
            except (RuntimeError, KeyError, ValueError) as error:
                reason = " ".join(str(error).split())[:150]
                raise CheckpointError(f"{loaded.path}: {name!r} does not fit, so another version wrote it ({reason})") from error
        self.elapsed_s = loaded.state["elapsed_s"]
        self.group.hand_out(lambda: checkpoint.packed({name: loaded.state["parts"][name] for name in self.parts}))

    def _restore_files(self, config_text: str) -> list[str]:
        """Writes config.yaml as the checkpoint knows it where it is gone or damaged."""
        try:
            if self.folder.config.read_text(encoding="utf-8") == config_text:
                return []
        except (OSError, ValueError):
            pass
        self.folder.write(self.folder.config, config_text.encode())
        return [f"{self.folder.config} was damaged or gone: restored from the checkpoint"]

    # -- checkpoints

    def save(self) -> None:
        """Writes a checkpoint of every part, and of how far the records go; in the background, the next step need not wait for it."""
        self.before_save()
        self._write()

    def _write(self) -> None:
        """The same, where nothing has moved since the parts were looked at."""
        now = not self.background
        state = {"config_hash": self.config_hash, "threads": torch.get_num_threads(), "elapsed_s": self.elapsed(),
                 "processes": self.group.size, "synchronised_norms": self.synchronised_norms,
                 "metrics": list(self.metrics.mark(sync=now)), "genotypes": list(self.genotypes.mark(sync=now)),
                 **({"trials": list(self.trials.mark(sync=now))} if self.folder.trials.exists() else {}),
                 "run": {**FORMAT.stamp(), "script": self.script, "status": "stopped", "config_hash": self.config_hash,
                         **self.identity, "command": self.command,
                         "started": (self.folder.status() or {}).get("started"), "config": self.config_text},
                 "about": dict(self.about()), "parts": {name: part.state_dict() for name, part in self.parts.items()}}
        self.writer.save(state, f"epoch_{self.position.epoch:05d}_step_{self.position.step:08d}")
        self._saved_at = time.perf_counter()

    def _before_checkpoint(self) -> None:
        """Before one is there. In the background, the records that it tells of are synced now."""
        if self.background:
            for journal in (self.metrics, self.genotypes, self.trials):
                if journal.path.exists():
                    journal.sync()
        self.folder.check_lock()

    def _unsaved(self) -> Exception | None:
        """Why the last checkpoint was not written; None where it was, and where somebody does not want to wait for it."""
        try:
            self.writer.wait()
        except Exception as error:
            return error
        except KeyboardInterrupt:
            pass
        return None

    def _has_lock(self) -> bool:
        try:
            self.folder.check_lock()
        except RunFolderError:
            return False
        return True

    def resume(self) -> list[str]:
        """Restores the newest good checkpoint and cuts the records back to it. Returns lines that say what was done."""
        loaded = checkpoint.load(self.folder.checkpoints)
        state = loaded.state
        if state["config_hash"] != self.config_hash:
            raise CheckpointError(f"{loaded.path}: is of a run with other options, data or backend than these, so it does not belong here")
        marks = Mark(*state["metrics"]), Mark(*state["genotypes"])
        self.metrics.verify(marks[0]), self.genotypes.verify(marks[1])
        if "trials" in state:
            self.trials.verify(Mark(*state["trials"]))
        self._restore(loaded)
        self.metrics.cut(marks[0]), self.genotypes.cut(marks[1])
        lines = [*loaded.skipped, *self._restore_files(state["run"]["config"]),
                 f"resuming {self.folder.path} at epoch {self.position.epoch}, step {self.position.step}"]
        if state["threads"] != torch.get_num_threads():
            lines.append(f"note: the checkpoint was written with {state['threads']} CPU threads, this process has "
                         f"{torch.get_num_threads()}: rounding differs, so the run goes on but not to the same bits")
        there, here = ((n, n > 1 and norms) for n, norms in (
            (state["processes"], state["synchronised_norms"]), (self.group.size, self.synchronised_norms)))
        if there != here:
            lines.append(f"note: the checkpoint was written by {processes(*there)}, now there {'is' if here[0] == 1 else 'are'} "
                         f"{processes(*here)}: each augments its own part of a batch, so the run goes on but not to the same bits")
        return lines


def processes(size: int, synchronised_norms: bool) -> str:
    return f"{size} process{'es' if size > 1 else ''}{' with synchronised norms' if synchronised_norms else ''}"


def check_same(group: Group, parts: Mapping[str, Stateful]) -> None:
    """What a checkpoint holds must be the same in all processes, bit for bit. Raises `supernet.processes.together.Drifted`."""
    group.check_same(lambda: {name: digest(part.state_dict()) for name, part in parts.items()})


class Choice(NamedTuple):
    """The folder to work in, whether it holds a run to go on with, lines to show, and the folder's lock, where it is held already."""

    folder: RunFolder
    resuming: bool
    lines: list[str]
    held: ExitStack | None = None
    known: Known | None = None  # where the run did not know some of the options


class Asked(NamedTuple):
    """A run that is asked for: what script does what job (`supernet.app.identity`), with what configuration here."""

    script: str
    job: str
    config_hash: str
    config: Mapping[str, Any]  # the options now, to say which ones differ
    ignore: Collection[str]  # those that are not compared
    here: Mapping[str, str]  # device, backend, split
    start: Callable[[RunFolder], None]  # writes run.json of a new run
    digest: Callable[[Mapping[str, Any]], str] = lambda config: ""  # the configuration's hash, of options here
    overrides: Collection[str] = ()  # those on the command line, as given

    def known_to(self, folder: RunFolder) -> Known | None:
        """As `earlier_options.known_without`."""
        given = [word.lstrip("+~").partition("=")[0] for word in self.overrides]
        return known_without(folder, self.config, self.ignore, given, self.digest)


def choose_folder(resume: str, asked: Asked, *, output: str, stem: str, told: Callable[[str], None] = nobody) -> Choice:
    """Makes a new folder unless there is something to go on with. With `resume=auto` one process alone does what is asked for under
    `output`, whoever else starts it. told: hears what is waited for, where a process of another machine may have died.

    Raises LeftAlone: `resume=auto`, and a run of the same job is finished. Raises Elsewhere: another process works on it, or it is half
    done and met another device, backend or data there. Raises RunFolderError: `resume` names a folder that is not a run of this script
    with these options, or has no checkpoint.
    """
    if resume not in ("auto", "never"):
        (folder, known), held = named_folder(RunFolder(Path(resume)), asked), ExitStack()
        held.enter_context(folder.lock(told))
        return gone_on_with(folder, held, known)
    where = Path(output)
    if resume == "never":
        earlier = earlier_runs(where, asked.script, asked.config_hash, asked.job)
        hint = [f"note: {run.path} is unfinished and has the same options; resume=auto goes on with it" for run in earlier.unfinished[:1]]
        return new_folder(where, stem, asked, hint)
    if (choice := known_folder(where, asked, told)) is not None:
        return choice
    try:
        with claim(where, asked.job):
            found = known_folder(where, asked, told)  # another process may have been first
            return found or new_folder(where, stem, asked, [f"nothing to resume under {output}: starting anew"])
    except OSError as error:
        raise RunFolderError(f"{output}: cannot make a run folder here ({error.strerror or error})") from error


def new_folder(output: Path, stem: str, asked: Asked, lines: list[str]) -> Choice:
    """A folder that says from its first moment on what is run in it, and that a process is at work there."""
    folder, held = RunFolder.create(output, stem), ExitStack()
    held.enter_context(folder.lock())
    asked.start(folder)
    return Choice(folder, False, lines, held)


def known_folder(output: Path, asked: Asked, told: Callable[[str], None]) -> Choice | None:
    """The run of the job to go on with, its lock taken; None where there is none. Raises as `choose_folder`."""
    while True:
        earlier = earlier_runs(output, asked.script, asked.config_hash, asked.job, told)
        refuse(earlier, "resume=never runs it again")
        known = None
        if not earlier.unfinished:
            alike = earlier.foreign or begun_alike(output, asked.script, asked.overrides, asked.ignore)
            older = [(folder, found) for folder in alike if (found := asked.known_to(folder)) is not None and not folder.is_locked()]
            if older:
                earlier.unfinished.append(older[0][0])
                known = older[0][1]
        if not earlier.unfinished and earlier.foreign:
            folder = earlier.foreign[0]
            raise Elsewhere(f"{folder.path} is half done and cannot go on here: {other_place(folder, asked)}; go on with it there, or pass "
                            "resume=never for a second one")
        if not earlier.unfinished:
            return None
        folder, held = earlier.unfinished[0], ExitStack()
        try:
            held.enter_context(folder.lock(told))
        except RunFolderError:
            if not folder.is_locked():
                raise  # it cannot be written
            continue  # another process was faster: look again
        if folder.known_status().get("status") != "finished":  # since it was looked at
            return gone_on_with(folder, held, known)
        held.close()


def gone_on_with(folder: RunFolder, held: ExitStack, known: Known | None) -> Choice:
    return Choice(folder, True, [] if known is None else [known.line], held, known)


def refuse(earlier: Earlier, otherwise: str) -> None:
    """Raises Elsewhere where a process works on a run of the job, LeftAlone where one is finished. otherwise: how a second one is had."""
    if earlier.working:
        folder = earlier.working[0]
        raise Elsewhere(f"{folder.path}: another process, {folder.worker().removeprefix('process ')}, is at work on this run of the same "
                        "options; wait for it, stop it, or pass resume=never for a second one")
    if earlier.finished:
        raise LeftAlone(f"{earlier.finished[0].path} is finished and has the same options: left alone ({otherwise})")


def other_place(folder: RunFolder, asked: Asked) -> str:
    """Why a half-done run of the same job does not go on here."""
    there = folder.known_status().get("here", {})
    rows = [f"{key} {short(there[key])} there, {short(value)} here" for key, value in asked.here.items() if there.get(key, value) != value]
    return "; ".join(rows) or different(folder, asked)


def named_folder(folder: RunFolder, asked: Asked) -> tuple[RunFolder, Known | None]:
    """The folder itself, where it holds a run that these options can go on with, and what is to say where it did not know all of them.
    Raises RunFolderError."""
    status = folder.known_status()
    said = f"resume={folder.path}"
    if not status:
        raise RunFolderError(f"{said}: expected never, auto or the folder of a run; no run.json there")
    folder.check_format()
    if status.get("script") != asked.script:
        raise RunFolderError(f"{said}: that run is of {status.get('script')}, not of {asked.script}")
    known = None
    if status.get("config_hash") != asked.config_hash:
        known = asked.known_to(folder)
        if known is None:
            written = "" if status.get("written_by") == VERSION else f" ({writer_of(status)} wrote it)"
            raise RunFolderError(f"{said}: that run has other options: {different(folder, asked)}{written}")
    if status.get("status") == "finished":
        raise RunFolderError(f"{said}: that run is finished; there is nothing to go on with (extend={folder.path} epochs=... makes it "
                             "longer)")
    if not has_checkpoint(folder.checkpoints):
        raise RunFolderError(f"{said}: that run stopped before its first checkpoint")
    return folder, known


def extended_from(folder: RunFolder, script: str, config: Mapping[str, Any], ignore: Collection[str]) -> RunFolder:
    """The folder itself, where its run differs from these options by fewer epochs alone. Raises RunFolderError."""
    status, asked = folder.known_status(), f"extend={folder.path}"
    if status.get("script") != script:
        raise RunFolderError(f"{asked}: expected the folder of a run of {script}, got one of {status.get('script', 'nothing')}")
    folder.check_format()
    if not has_checkpoint(folder.checkpoints):
        raise RunFolderError(f"{asked}: that run has no checkpoint")
    there = folder.options()
    if rows := differences(there, config, {*ignore, "epochs"}):
        raise RunFolderError(f"{asked}: only epochs may differ, and {listed(rows)} ({len(rows)} options)")
    if config["epochs"] <= there["epochs"]:
        raise RunFolderError(f"{asked}: pass epochs above the {there['epochs']} of that run, got {config['epochs']}")
    return folder


def different(folder: RunFolder, asked: Asked) -> str:
    """Which options of a run differ from those asked for, as `epochs 50 there, 4 here`."""
    try:
        there = folder.options()
    except RunFolderError as error:
        return f"which ones cannot be said, {error}"
    return listed(differences(there, asked.config, asked.ignore)) or "the same ones, but another device, backend or data"


def listed(differing: Sequence[tuple[str, Any, Any]], *, most: int = 4) -> str:
    rows = [f"{key} {short(a)} there, {short(b)} here" for key, a, b in differing]
    return "; ".join([*rows[:most], *([f"and {len(rows) - most} more"] if len(rows) > most else [])])


def epoch_line(record: Mapping[str, Any], epochs: int, item: str = "image") -> str:
    """One epoch in one line of text: of evaluations what is known of training too."""
    parts = [f"epoch {record['epoch'] + 1:>{len(str(epochs))}}/{epochs}"]
    for name in ("train", "val", "test"):
        if record.get(f"{name}_loss") is not None:
            known = {f"{name}_loss", f"{name}_accuracy"}
            others = [f"{key.removeprefix(f'{name}_').replace('_', ' ')} {value:.4g}" for key, value in record.items()
                      if key.startswith(f"{name}_") and key not in known and f"train_{key.removeprefix(f'{name}_')}" in record]
            parts.append(" ".join([f"{name} loss {record[f'{name}_loss']:.4f} acc {record[f'{name}_accuracy']:.2f} %", *others]))
    if "genotype" in record:
        parts.append(f"genotype {record['genotype']}")
    parts.append(f"{record['items_per_s']:.0f} {item}s/s")
    return "  ".join(parts)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns of text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def command_line(words: Sequence[str]) -> str:
    """The command with these options, to be pasted into a shell in the project's folder."""
    return shlex.join(["python", os.path.basename(sys.argv[0]), *words])


def interpreter() -> str:
    """This Python as a word of a command: its path below the working directory, or else the whole one."""
    beside = os.path.relpath(sys.executable)
    return sys.executable if beside.startswith("..") else beside


def stopped(standing: str) -> str:
    """What an interrupted run says: where it stands, and the command, as typed, that goes on."""
    key = "resume="
    again = shlex.join([interpreter(), *launcher(), sys.argv[0], *(a for a in sys.argv[1:] if not a.startswith(key)), "resume=auto"])
    return f"stopped at {standing}; saved. Go on with:\n  {again}"
