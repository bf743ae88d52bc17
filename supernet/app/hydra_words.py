"""What is known of Hydra beyond its documentation: a function of its insides, a copy that it need not make, and the words of its errors.

Held against the installed Hydra by tests/test_hydra_words.py; another version is looked at there before it is allowed.
"""

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf

from supernet.app.options import CONF, override
from supernet.app.own_folder import choices_on_disk
from supernet.errors import did_you_mean, nearest

READ = ("1.3.8",)  # the versions whose words these are
CONFIGS = {"train_final.py": "final", "rank.py": "rank", "tabulate.py": "tabulate", "sweep.py": "sweep",
           "reproduce.py": "reproduce", "compress.py": "compress", "deploy.py": "deploy"}  # by script, else `search`
MOST = 20  # choices that a message names
GRAMMAR = r"mismatched |extraneous |missing |no viable alternative|LexerNoViableAlt|token recognition|Error parsing override"


def lists_groups_without_copies() -> None:
    """Hydra copies its whole store each time it lists a group, 145 times for --help. Nothing writes to it; what it hands out is a copy."""
    ConfigStore.__deepcopy__ = lambda self, memo: self


def unknown_words(arguments: Sequence[str]) -> list[str]:
    """The words of a command line that Hydra would answer with a page of usage."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return get_args_parser().parse_known_args(list(arguments))[1]
        except SystemExit as error:
            if not error.code:
                raise
            return list(arguments)


def flags_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line by what Hydra takes them for: flags with their values, and all others."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            known, unknown = get_args_parser().parse_known_args(list(arguments))
        except SystemExit:  # a flag lacks its value; Hydra will say so
            return list(arguments), []
    others = [*known.overrides, *(word for word in unknown if not word.startswith("-"))]
    return [word for word in arguments if word not in others], [word for word in arguments if word in others]


def one_line(error: BaseException, config: str | None = None, words: Sequence[str] | None = None) -> str:
    """The message of `error` in one line, without Hydra's internals, with a hint where a name was nearly right. config, words: what was
    composed, and with which overrides; those of this process unless given."""
    words = sys.argv[1:] if words is None else words
    if type(error) is InstantiationException and error.__cause__ is not None:
        target = re.search(r"'([^']+)'", str(error))
        return f"{target.group(1) if target else 'options'}: {one_line(error.__cause__, config, words)}"
    message = " ".join(str(error).split())
    if message.startswith("Error merging override") and error.__cause__ is not None:
        message += ": " + " ".join(str(error.__cause__).split())
    message = re.sub(r" (Config search path:|full_key:|reference_type=|object_type=|See https://hydra).*", "", message)
    message = re.sub(r"^In '[^']*': ", "", message)
    group = re.match(r"Could not find '(\S+)/(\S+)' Available options in '\S+': (.*)", message)
    if group:
        name, seen, options = group.groups()
        return f"{name}={seen}: no such choice, there are {nearest(seen, options.split(), MOST)}{did_you_mean(seen, options.split())}"
    member = re.match(r"Could not load '(\w+)/(\w+)'", message)
    if member:  # of a list, wrapper=[a,b]
        name, seen = member.groups()
        options = choices_on_disk(name)
        return f"{name}=[{seen}]: no such choice, there are {nearest(seen, options, MOST)}{did_you_mean(seen, options)}"
    spelt = re.match(r"Ambiguous value for argument '(.+?)' 1\. To use it", message)
    if spelt or re.match(GRAMMAR, message):
        return unreadable(spelt.group(1), words) + ", or --multirun for a run of each" if spelt else unreadable(message, words)
    key = re.match(r"Could not override '([^']+)'", message)
    if key:
        config = config or CONFIGS.get(os.path.basename(sys.argv[0]), "search")
        default, known = (_known_keys(config, choices) for choices in ([], words))
        if key.group(1) in default and key.group(1) not in known:
            return f"there is no option {key.group(1)!r} with the chosen {key.group(1).partition('.')[0]}"
        return f"there is no option {key.group(1)!r}{did_you_mean(key.group(1), known)} (--help lists the options)"
    return message


def unreadable(told: str, given: Sequence[str]) -> str:
    """A value that Hydra's grammar does not read as a text: which option, and how it is written instead."""
    words = [word for word in given if "=" in word and not word.startswith("-")]
    word = next((word for word in words if word == told or not _is_read(word)), None)
    if word is None:
        alone = next((word for word in given if "=" not in word and not word.startswith("-") and not _is_read(word)), None)
        return told if alone is None else f"{alone}: options are written option=value"
    key, _, value = word.partition("=")
    return f"{key}={value}: the value must be quoted, once for the shell and once for Hydra: pass {shlex.quote(override(key, value))}"


def _is_read(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _known_keys(name: str, overrides: Sequence[str]) -> list[str]:
    """All options of a config by their full names, as its defaults and those of `overrides` that choose from a group compose them."""

    def flat(node: DictConfig, prefix: str = "") -> Iterator[str]:
        for key in (key for key in node if not str(key).startswith("_")):
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if OmegaConf.is_dict(child) and not child._is_none():
                yield from flat(child, f"{prefix}{key}.")

    with contextlib.nullcontext() if GlobalHydra.instance().is_initialized() else initialize_config_dir(str(CONF), version_base="1.3"):
        groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
        try:
            return list(flat(compose(name, [option for option in overrides if re.split("[@=]", option)[0] in groups])))
        except HydraException:  # the choices of several runs
            return list(flat(compose(name)))
