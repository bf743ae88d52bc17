"""The command line: a script's Hydra main, and every error that the user can mend as one line on stderr."""

import contextlib
import functools
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.app.options import CONF, of_multirun, own_overrides
from supernet.app.own_folder import choices_on_disk, join_own_folder
from supernet.app.schema import FinalConfig, RankConfig, SearchConfig, TabulateConfig
from supernet.errors import LeftAlone, Mendable, UsageError, did_you_mean
from supernet.genotype import short

MENDABLE = (Mendable, HydraException, OmegaConfBaseException)  # what the user can mend, in one line


def register() -> None:
    """Makes the schemas known to Hydra, and the folder of the user's command a place for their own Python files."""
    store = ConfigStore.instance()
    # Hydra copies the whole store each time it lists a group, 145 times for --help. Nothing writes to it, and what it hands out is a copy.
    ConfigStore.__deepcopy__ = lambda self, memo: self
    store.store("search_schema", SearchConfig)
    store.store("final_schema", FinalConfig)
    store.store("rank_schema", RankConfig)
    store.store("tabulate_schema", TabulateConfig)
    OmegaConf.register_new_resolver("choices", lambda group: ", ".join(choices_on_disk(group)), replace=True)  # for texts of help
    join_own_folder()


def check_flags() -> None:
    """Raises UsageError for a flag that Hydra does not know, which it would answer with a page of usage."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            unknown = get_args_parser().parse_known_args()[1]
        except SystemExit as error:
            if not error.code:
                raise
            unknown = sys.argv[1:]
    if unknown:
        raise UsageError(f"there is no flag {short(' '.join(unknown))}; the flags are --help, --multirun, --cfg, --info and Hydra's others")


def cli(main: Callable[[], Any]) -> None:
    """Runs a script's Hydra main. What the user can mend is one line on stderr and exit code 2, anything else a traceback."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing several lines of its own
    register()
    with mendable_errors():
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
        try:
            with leaving_alone():
                main(cfg)
        except Exception as error:
            job = " ".join(own_overrides())
            if not issubclass(type(error), MENDABLE):
                traceback.print_exc()
            failed.append(f"{job}: {one_line(error)}")
            print(f"error: {failed[-1]}; the other jobs go on", file=sys.stderr)
            raise

    return wrapped


@contextlib.contextmanager
def leaving_alone() -> Iterator[None]:
    """What is done already is said, and no failure."""
    try:
        yield
    except LeftAlone as done:
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
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:  # Hydra's own for `group=null`, where the group has a default
        if "Config group override must be" not in str(error):
            raise
        print("error: a group takes the name of a choice, got null (there is table=none; --help lists the choices)", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of `--help | head` has left; the interpreter must not find that out again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


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


def one_line(error: BaseException) -> str:
    """The message of `error` in one line, without Hydra's internals, with a hint where a name was nearly right."""
    if type(error) is InstantiationException and error.__cause__ is not None:
        target = re.search(r"'([^']+)'", str(error))
        return f"{target.group(1) if target else 'options'}: {one_line(error.__cause__)}"
    message = " ".join(str(error).split())
    if message.startswith("Error merging override") and error.__cause__ is not None:
        message += ": " + " ".join(str(error.__cause__).split())
    message = re.sub(r" (Config search path:|full_key:|reference_type=|object_type=|See https://hydra).*", "", message)
    message = re.sub(r"^In '[^']*': ", "", message)
    group = re.match(r"Could not find '(\S+)/(\S+)' Available options in '\S+': (.*)", message)
    if group:
        name, seen, options = group.groups()
        return f"{name}={seen}: no such choice, there are {', '.join(options.split())}{did_you_mean(seen, options.split())}"
    member = re.match(r"Could not load '(\w+)/(\w+)'", message)
    if member:  # of a list, wrapper=[a,b]
        name, seen = member.groups()
        options = choices_on_disk(name)
        return f"{name}=[{seen}]: no such choice, there are {', '.join(options)}{did_you_mean(seen, options)}"
    key = re.match(r"Could not override '([^']+)'", message)
    if key:
        default, known = (_known_keys(os.path.basename(sys.argv[0]), choices) for choices in ([], sys.argv[1:]))
        if key.group(1) in default and key.group(1) not in known:
            return f"there is no option {key.group(1)!r} with the chosen {key.group(1).partition('.')[0]}"
        return f"there is no option {key.group(1)!r}{did_you_mean(key.group(1), known)} (--help lists the options)"
    return message


def _known_keys(script: str, overrides: Sequence[str]) -> list[str]:
    """All options of a script by their full names, as its defaults and those of `overrides` that choose from a group compose them."""
    name = {"train_final.py": "final", "rank.py": "rank", "tabulate.py": "tabulate"}.get(script, "search")

    def flat(node: DictConfig, prefix: str = "") -> Iterator[str]:
        for key in (key for key in node if not str(key).startswith("_")):
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if OmegaConf.is_dict(child) and not child._is_none():
                yield from flat(child, f"{prefix}{key}.")

    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
        try:
            return list(flat(compose(name, [option for option in overrides if re.split("[@=]", option)[0] in groups])))
        except HydraException:  # the choices of several runs
            return list(flat(compose(name)))
