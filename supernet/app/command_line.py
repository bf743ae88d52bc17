"""The command line: a script's Hydra main, and every error that the user can mend as one line on stderr."""

import contextlib
import functools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.app.hydra_words import lists_groups_without_copies, one_line, unknown_words
from supernet.app.options import of_multirun, own_overrides
from supernet.app.own_folder import choices_on_disk, join_own_folder
from supernet.app.schema import (
    CompressConfig,
    DeployConfig,
    FinalConfig,
    RaceConfig,
    RankConfig,
    ReproduceConfig,
    SearchConfig,
    SweepConfig,
    TabulateConfig,
)
from supernet.errors import Elsewhere, LeftAlone, Mendable, UsageError, message
from supernet.genotype import short
from supernet.processes.launched import refuse_many, speaks

EXIT_ELSEWHERE = 75  # "try again later" (sysexits.h): nothing failed, and whoever started many jobs must not count this as a failure
MENDABLE = (Mendable, HydraException, OmegaConfBaseException)  # what the user can mend, in one line


def register() -> None:
    """Makes the schemas known to Hydra, and the folder of the user's command a place for their own Python files."""
    store = ConfigStore.instance()
    lists_groups_without_copies()
    store.store("search_schema", SearchConfig)
    store.store("final_schema", FinalConfig)
    store.store("compress_schema", CompressConfig)
    store.store("deploy_schema", DeployConfig)
    store.store("rank_schema", RankConfig)
    store.store("race_schema", RaceConfig)
    store.store("tabulate_schema", TabulateConfig)
    store.store("reproduce_schema", ReproduceConfig)
    store.store("sweep_schema", open_nodes(SweepConfig, "fixed", "axes"))
    OmegaConf.register_new_resolver("choices", lambda group: ", ".join(choices_on_disk(group)), replace=True)  # for texts of help
    join_own_folder()


def open_nodes(schema: type, *names: str) -> DictConfig:
    """A schema with nodes that hold whatever options are given to them: `fixed.epochs=3`, without Hydra's `+`."""
    made = OmegaConf.structured(schema)
    for name in names:
        OmegaConf.set_struct(made[name], False)
    return made


def check_flags() -> None:
    """Raises UsageError for a flag that Hydra does not know, which it would answer with a page of usage."""
    unknown = unknown_words(sys.argv[1:])
    options = [word for word in unknown if re.match(r"[\w.@+~/-]+=", word)]
    if options and sys.argv[1:]:
        flags = [word for word in sys.argv[1:] if word.startswith("-")]
        raise UsageError(f"options must stand together, after the flags, got {short(options[0])} behind {' '.join(flags)}: pass "
                         f"{shlex.join([*flags, *(word for word in sys.argv[1:] if word not in flags)])}")
    if unknown:
        raise UsageError(f"there is no flag {short(' '.join(unknown))}; the flags are --help, --multirun, --cfg, --info and Hydra's others")


def cli(main: Callable[[], Any], *, many: bool = False) -> None:
    """Runs a script's Hydra main. What the user can mend is one line on stderr and exit code 2, anything else a traceback. many: whether
    several processes may do it together."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing several lines of its own
    with mendable_errors():
        register()
        if not many:
            refuse_many(os.path.basename(sys.argv[0]))
        check_flags()
        try:
            main()
        except Exception:
            end_multirun()
            raise


def shows_errors(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Ends the script at a mendable error before Hydra adds lines of its own. In a multirun the other jobs run, whatever one of them meets;
    then `end_multirun` lists what failed."""

    @functools.wraps(main)
    def wrapped(cfg: DictConfig) -> None:
        if not of_multirun():
            with mendable_errors(), leaving_alone():
                main(cfg)
            return
        refuse_many("--multirun")
        try:
            with leaving_alone():
                main(cfg)
        except Exception as error:
            job = " ".join(own_overrides())
            if not issubclass(type(error), MENDABLE):
                traceback.print_exc()
            failed.append(message(f"{job}: {one_line(error)}"))
            print(f"error: {failed[-1]}; the other jobs go on", file=sys.stderr)
            raise

    return wrapped


@contextlib.contextmanager
def leaving_alone() -> Iterator[None]:
    """What is done already is said, and no failure."""
    try:
        yield
    except LeftAlone as done:
        if speaks():
            print(done, file=sys.stderr)


failed: list[str] = []  # jobs of this process's multirun that failed, each with its error


def end_multirun() -> None:
    """Lists the jobs that failed, and ends the process with exit code 2 where there are any."""
    if failed:
        print(f"error: {len(failed)} of the jobs failed:", *failed, sep="\n  ", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def mendable_errors() -> Iterator[None]:
    try:
        yield
    except MENDABLE as error:
        if speaks():  # what every process of a group would say
            print(f"error: {message(one_line(error))}", file=sys.stderr)
        sys.exit(EXIT_ELSEWHERE if type(error) is Elsewhere else 2)
    except ValueError as error:
        if (told := of_hydra(str(error))) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of `--help | head` has left; the interpreter must not find that out again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def of_hydra(said: str) -> str | None:
    """What a ValueError means that Hydra raises, or Python within it, before it has looked at the options; None for any other one."""
    if "Config group override must be" in said:  # group=null, group=1.5
        seen = "null" if "NoneType" in said else "a number"
        return f"a group takes the name of a choice, got {seen} (there is table=none; --help lists the choices)"
    if "integer string conversion" in said:
        return "an option has more digits than any number that one takes"
    return None


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """Around building objects from options: what they refuse (ValueError, TypeError) is the user's to mend.

    SUPERNET_TRACEBACK=1 shows where it came from instead.
    """
    try:
        yield
    except (ValueError, TypeError, InstantiationException) as error:
        if os.environ.get("SUPERNET_TRACEBACK"):
            raise
        # a ValueError was written for the user; a TypeError may come from anywhere
        hint = " (SUPERNET_TRACEBACK=1 shows where)" if type(error) is TypeError else ""
        raise UsageError(one_line(error) + hint) from error


class Resumable(Protocol):
    """Work of a command that can be stopped, and is gone on with by the same command. Each gives the lines that are told."""

    interrupt: Any

    def rehearsed(self) -> str: ...
    def done(self) -> str: ...
    def stopped(self) -> str: ...


def carry_out(work: Resumable, dry_run: bool) -> None:
    """Does it, or says what it would be; exits with the signal's code where it was stopped."""
    from supernet.runs.run import Interrupted

    if dry_run:
        print(work.rehearsed())
        return
    try:
        print(work.done())
    except Interrupted:
        print(work.stopped(), file=sys.stderr)
        sys.exit(work.interrupt.exit_code)
