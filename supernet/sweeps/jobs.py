"""A job: a script, its options, and the digest of what it computes, known before it runs."""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from supernet import notation
from supernet.app.build import space_from, space_of
from supernet.app.checks import validate
from supernet.app.command_line import composing, one_line, register
from supernet.app.compose import settle_sizes
from supernet.app.identity import job_digest
from supernet.app.options import CONF, named_in, override
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.space import Space

CONFIGS = {"train_search": "search", "train_final": "final"}


@dataclass(frozen=True)
class Job:
    """What one process does. `options` are Hydra's overrides without `seed`, `output`, `name` and `resume`; `name` is for people, and is
    in the name of the run's folder; `digest` is the `job` in its run.json, by which its run is found; `epochs` is how many it has."""

    script: str  # train_search, train_final
    options: tuple[str, ...]
    name: str
    seed: int
    digest: str
    epochs: int

    @property
    def title(self) -> str:
        return f"{self.name} seed {self.seed}"

    def command(self, output: Path) -> list[str]:
        """The command that runs it, or goes on with it, under `output`. What is finished, or under way, it leaves alone."""
        return [*script_words(self.script), *self.options, override("name", self.name), f"seed={self.seed}",
                override("output", str(output)), "resume=auto"]


def jobs(script: str, options: Sequence[str], name: str, seeds: Sequence[int]) -> list[Job]:
    """A job for each seed, composed and checked as the script will do it; no data are read. Raises UsageError: the options are wrong, in
    one line that names the job."""
    with configs():
        try:
            cfg = compose(CONFIGS[script], overrides=list(options))
        except Exception as error:
            raise UsageError(f"{name}: {one_line(error, CONFIGS[script], options)}") from error
        return [_job(script, options, name, cfg.copy(), seed) for seed in seeds]


@dataclass(frozen=True)
class Training:
    """A genotype's file, the name of the job that trains it, and its seed."""

    path: Path
    name: str
    seed: int


def trainings(options: Sequence[str], wanted: Sequence[Training], space_of: Callable[[Genotype], Space]) -> list[Job]:
    """Final trainings of many genotypes with the same options, which are composed and checked once. Raises UsageError."""
    if not wanted:
        return []
    first = jobs("train_final", [_of(wanted[0].path), *options], wanted[0].name, [wanted[0].seed])
    if len(wanted) == 1:
        return first
    with configs():
        cfg = compose(CONFIGS["train_final"], overrides=[_of(wanted[0].path), *options])
        validate(cfg, "train_final")
    found = []
    for each in wanted:
        try:
            genotype = notation.find(str(each.path), None)
            own, space = cfg.copy(), space_of(genotype)
            space.validate(genotype)
            own.genotype, own.seed = str(each.path), each.seed
            settle_sizes(own, space, partial(named_in, options))
            digest = job_digest(own, genotype)
        except Exception as error:
            raise UsageError(f"{each.name}: {one_line(error)}") from error
        found.append(Job("train_final", (_of(each.path), *options), each.name, each.seed, digest, own.epochs))
    return found


def _of(path: Path) -> str:
    return override("genotype", str(path))


def _job(script: str, options: Sequence[str], name: str, cfg: DictConfig, seed: int) -> Job:
    cfg.seed = seed
    try:
        validate(cfg, script)
        with composing():
            space, genotype = _space(cfg, script)
            settle_sizes(cfg, space, partial(named_in, options))
        return Job(script, tuple(options), name, seed, job_digest(cfg, genotype), cfg.epochs)
    except Exception as error:
        raise UsageError(f"{name}: {one_line(error)}") from error


def _space(cfg: DictConfig, script: str):
    """The space, and what a final training trains in it."""
    if script == "train_search":
        return space_from(cfg.space), None
    own = None if cfg.space is None else space_from(cfg.space)
    genotype = notation.find(cfg.genotype, own)
    return own or space_of(genotype), genotype


@contextlib.contextmanager
def configs() -> Iterator[None]:
    """Within, Hydra composes the project's options: those of the command that is running, or else anew."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def script_words(script: str) -> list[str]:
    """How a script is started: by its file, where that lies beside the package, else by the console command that is installed with it."""
    beside = Path(__file__).resolve().parents[2] / f"{script}.py"
    if beside.exists():
        return [sys.executable, str(beside)]
    command = f"supernet-{script.removeprefix('train_')}"
    return [shutil.which(command, path=str(Path(sys.executable).parent)) or command]
