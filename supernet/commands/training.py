"""What both scripts do around their loop: the run folder, new or gone on with; what is said first; how an interrupt ends."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from omegaconf import DictConfig

from ops.kernels import Backend
from supernet.app.compose import Met, settle_sizes
from supernet.app.identity import asked_resume, identity, job_digest, not_computed, own_words, stem
from supernet.app.labels import labels
from supernet.app.options import own_overrides, plain, text
from supernet.app.searched_on import data_name
from supernet.genotype import Genotype
from supernet.processes.group import ALONE, Group
from supernet.runs import disk
from supernet.runs.checkpoint_files import all_files
from supernet.runs.collector import lasting_objects_passed_over
from supernet.runs.folder import RunFolder, config_hash, runs_of
from supernet.runs.run import Asked, Interrupted, Run, choose_folder, command_line, extended_from, interpreter, refuse, stopped
from supernet.space import Space
from supernet.training.records import Position, Stateful


def in_background(cfg: DictConfig, device: torch.device) -> bool:
    """Whether checkpoints are written by a thread. On a CPU that thread would take its time from the steps, which have all cores."""
    return device.type == "cuda" if cfg.background_checkpoints is None else cfg.background_checkpoints


class Composed(Protocol):
    """What a search and a final training are composed of, as far as a run's record goes."""

    device: torch.device
    backend: Backend

    @property
    def met(self) -> Met: ...


def job_of(cfg: DictConfig, script: str, space: Space, genotype: Genotype | None = None,
           content: Mapping[str, Any] | None = None, group: Group = ALONE) -> str:
    """The digest of the job that the options ask for, before any data is read; content: as of `job_digest`. With `resume=auto`, and in a
    multirun, one that is finished or under way ends here (LeftAlone, Elsewhere); Recorded looks again once it has something to write."""
    settle_sizes(cfg, space)
    extends = None
    if cfg.extend is not None:
        there = RunFolder(Path(cfg.extend)).known_status()
        extends = str(there.get("job") or there.get("config_hash"))
    job = job_digest(cfg, genotype, extends, content)
    if asked_resume(cfg) == "auto" and not cfg.dry_run:
        group.first(lambda: refuse(runs_of(Path(cfg.output), script, job, waits), "resume=never runs it again"))
    return job


def waits(text: str) -> None:
    """Says what a process waits for that has no run yet."""
    print(text, file=sys.stderr, flush=True)


class Recorded:
    """A run of a script about to begin: its folder, and the lines that it says first. `job` is what `job_of` gave; `stateful`,
    `before_save`, `about` and `images` as in `Run`; rate: the next epoch's learning rate; genotype: what a final training trains; content:
    options that count by what lies behind them, as of `job_digest`; later: bytes that come to a checkpoint with time
    (`supernet.runs.disk`); group: of the processes that train together, of which this is the
    first (`Followed` is what the others have).

    Raises LeftAlone, Elsewhere, RunFolderError as `choose_folder` and `extended_from`.
    """

    def __init__(self, cfg: DictConfig, script: str, job: str, composed: Composed, *, stateful: Mapping[str, Stateful], position: Position,
                 before_save: Callable[[], None], rate: Callable[[], float], genotype: Genotype | None = None,
                 about: Callable[[], Mapping[str, Any]] = dict,
                 images: Callable[["Run", Genotype], Mapping[str, Callable[[], Any]]] = lambda run, genotype: {},
                 content: Mapping[str, Any] | None = None, group: Group = ALONE, later: int = 0):
        # what is trained counts, not the name of its file
        options = dict(content or {}) | ({} if genotype is None else {"genotype": genotype.to_json()})
        self.cfg, self.composed, self.rate, self.options, self.group = cfg, composed, rate, plain(cfg) | options, group
        self.checkpoint_bytes = disk.checkpoint_bytes(stateful, later)
        idle, met = not_computed(cfg), composed.met
        ignored = {*idle, *options}  # what config.yaml holds in another form is not compared with it
        self.source = None if cfg.extend is None else extended_from(RunFolder(Path(cfg.extend)), script, self.options, ignored)
        # CPU and GPU draw other numbers, backends round differently, and the same options may meet other data; a run that was made longer
        # has had other learning rates than one that was as long from the start.
        here = {"device": composed.device.type, "backend": composed.backend.name,
                **({} if met.split is None else {"split": met.split.digest})}
        beside = dict(here)
        if self.source is not None:
            beside["extends"] = self.source.known_status()["config_hash"]
        digest, known, command = config_hash(self.options | beside, idle), identity(job, here, data_name(cfg)), command_line(own_words())
        asked = Asked(script, job, digest, self.options, ignored, here, start=lambda folder: folder.start(
            script=script, command=command, config_hash=digest, identity=known, status="stopped"),
            digest=lambda options: config_hash({**options, **beside}, idle), overrides=own_overrides())

        def chosen() -> bool:
            self.choice = choose_folder(asked_resume(cfg), asked, output=cfg.output, stem=stem(cfg, script, genotype),
                                        told=waits)
            return self.choice.resuming or self.source is not None

        group.wait()  # so that none is made where another process has ended already
        group.first(chosen)
        if self.choice.known is not None:
            digest = self.choice.known.config_hash
        self.run = Run(self.choice.folder, script, command, digest, stateful, position, cfg.epochs, met.steps,
                       cfg.checkpoint_every_s, before_save=before_save, item=met.item, keep_checkpoints=cfg.keep_checkpoints,
                       about=about, images=lambda genotype: images(self.run, genotype), identity=known,
                       labels=labels(cfg, genotype), held=self.choice.held,
                       background=in_background(cfg, composed.device), group=group, synchronised_norms=cfg.synchronised_norms)

    @contextlib.contextmanager
    def begun(self, lines: Sequence[str]) -> Iterator[Run]:
        """Within, the run is recorded, from where it stood. An interrupt ends the process, with a line that says how to go on."""
        run, cfg = self.run, self.cfg
        try:
            with run:
                folder, keep = run.folder, cfg.keep_checkpoints
                disk.check_room(self.checkpoint_bytes, keep, folder.path, len(all_files(folder.checkpoints)))
                if self.checkpoint_bytes > disk.WORTH_TELLING:
                    lines = [*lines, f"disk {disk.told(self.checkpoint_bytes, keep, folder.path)}"]
                before = run.resume() if self.choice.resuming else []
                if self.source is not None and not self.choice.resuming:
                    before = run.extend(self.source)
                    rates = [record["lr"] for record in run.metrics.read(run.folder.metrics)][-1:]
                    before += [f"learning rate {rate:.4g} in its last epoch, {self.rate():.4g} in the next one" for rate in rates]
                run.begin(config_text=text(cfg), options=self.options, device=self.composed.device, wandb=self.options["wandb"],
                          lines=[*before, *self.choice.lines, *lines, self.composed.backend.line])
                if (split := self.composed.met.split) is not None:
                    split.save(run.folder.split)
                with lasting_objects_passed_over():
                    yield run
            self.group.wait()
        except Interrupted:
            print(stopped(run.standing()), file=sys.stderr)
            self.group.wait()
            sys.exit(run.interrupt.exit_code)


class Followed:
    """What `Recorded` is in the processes behind the first one, which alone chooses the folder and reads the checkpoint."""

    def __init__(self, group: Group, *, stateful: Mapping[str, Stateful], before_save: Callable[[], None]):
        from supernet.runs.follower import Follower

        group.wait()
        self.group, self.takes_over = group, group.first(lambda: None)
        self.run = Follower(group, stateful, before_save)

    @contextlib.contextmanager
    def begun(self) -> Iterator[Any]:
        run = self.run
        try:
            with run:
                if self.takes_over:
                    run.resume()
                run.begin()
                with lasting_objects_passed_over():
                    yield run
            self.group.wait()
        except Interrupted:
            self.group.wait()
            sys.exit(run.interrupt.exit_code)


def command_beside(script: str, options: Sequence[str]) -> str:
    """The command that runs another script with these options, to be pasted into a shell in this working directory: the script that lies
    beside the running one, or the console command of that name."""
    here = Path(sys.argv[0])
    beside = here.with_name(f"{script}.py")
    words = [interpreter(), str(beside)] if here.suffix == ".py" and beside.exists() else [f"supernet-{script.removeprefix('train_')}"]
    return shlex.join([*words, *options])


