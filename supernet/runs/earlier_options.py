"""Runs that were begun before some options were there: they go on with what these are where nobody names them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supernet.formats import VERSION
from supernet.genotype import short
from supernet.runs.checkpoint_files import has_checkpoint
from supernet.runs.folder import ABSENT, RunFolder, RunFolderError, differences

MOST_TOLD = 4


@dataclass(frozen=True)
class Known:
    """A run's `config_hash`, and a line on the options that it did not know."""

    config_hash: str
    line: str


def known_without(folder: RunFolder, config: Mapping[str, Any], ignore: Collection[str], given: Collection[str],
                  digest: Callable[[Mapping[str, Any]], str]) -> Known | None:
    """The run, where it has these options but for such as it did not have at all, and which are not `given` on the command line. None where
    it differs by anything else. digest: the `config_hash` of options here."""
    status = folder.known_status()
    try:
        rows = differences(folder.options(), config, ignore)
    except RunFolderError:
        return None
    later = {key: here for key, there, here in rows if there == ABSENT}
    named = any(word == key or word.startswith(f"{key}.") for key in later for word in given)
    if len(later) < len(rows) or named or digest(without(config, later)) != status.get("config_hash"):
        return None
    told = ", ".join(f"{key}={short(here)}" for key, here in list(later.items())[:MOST_TOLD])
    more = f" and {len(later) - MOST_TOLD} more" if len(later) > MOST_TOLD else ""
    return Known(status["config_hash"], f"note: {writer_of(status)} began this run and knew no {told}{more}; version {VERSION} goes on "
                                        "with these values")


def begun_alike(output: Path, script: str, overrides: Collection[str], ignore: Collection[str]) -> list[RunFolder]:
    """The unfinished runs of a script under `output` that were begun with the same words, the newest first."""
    found = []
    for path in sorted(output.glob("[!.]*"), reverse=True):
        folder = RunFolder(path)
        status = folder.status() or {}
        theirs = status.get("overrides")
        if (status.get("script") == script and status.get("status") != "finished" and type(theirs) is list
                and that_count(theirs, ignore) == that_count(overrides, ignore) and has_checkpoint(folder.checkpoints)):
            found.append(folder)
    return found


def that_count(overrides: Collection[Any], ignore: Collection[str]) -> list[str]:
    """The words that say what is computed, in a fixed order."""
    return sorted(word for word in map(str, overrides) if word.lstrip("+~").partition("=")[0].partition(".")[0] not in ignore)


def writer_of(status: Mapping[str, Any]) -> str:
    """Which version of the project wrote run.json, in words."""
    by = status.get("written_by")
    return f"version {short(by)[1:-1]} of the project" if type(by) is str else "an earlier version of the project"


def without(node: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Nested options without those of these full names."""
    heads = {key.partition(".")[0]: [] for key in keys}
    for key in keys:
        heads[key.partition(".")[0]].append(key.partition(".")[2])
    found = {}
    for key, value in node.items():
        if key not in heads:
            found[key] = value
        elif "" not in heads[key]:
            found[key] = without(value, heads[key])
    return found
