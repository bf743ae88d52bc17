"""What finished runs found, read back from their folders: nothing is built, and no PyTorch is imported where none is needed."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supernet.files import read_text
from supernet.genotype import Genotype
from supernet.runs.folder import MAX_STATUS_BYTES, RunFolder, RunFolderError

MAX_SUMMARY_BYTES = 10_000_000


@dataclass(frozen=True)
class Finished:
    """A finished run. job: what identifies it (runs of one job are copies of each other); of an earlier version its `config_hash`, which
    also tells devices and backends apart."""

    path: Path
    script: str
    job: str
    options: Mapping[str, Any]
    chosen: Mapping[str, str]  # the choices of groups, by group; empty where the run did not keep them
    said: Mapping[str, str] | None  # the options that its command line named; None where the run did not keep them
    values: Mapping[str, Any]  # of summary.json
    commit: str  # of the code, with `+` where files differed from it; empty where it is not known
    genotype: Genotype | None
    started: str = ""

    @property
    def seed(self) -> int:
        return self.options.get("seed", 0)


@dataclass(frozen=True)
class LeftOut:
    """A folder of a run that has no result."""

    path: Path
    why: str


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """The folders of runs among the paths: each itself, or else all within it. Raises RunFolderError: a path holds none."""
    found: dict[Path, None] = {}
    for path in paths:
        inside = [path] if (path / "run.json").exists() else sorted(file.parent for file in path.glob("**/run.json"))
        if not inside:
            raise RunFolderError(f"{path}: expected the folder of a run, or one that holds some; no run.json there")
        for folder in inside:
            found[folder.resolve()] = None
    return list(found)


def read(path: Path) -> Finished | LeftOut:
    """The result of one run, or why it has none. Never raises for what a folder holds."""
    folder = RunFolder(path)
    status = folder.known_status()
    if not status:
        return LeftOut(path, "no readable run.json")
    if status.get("status") != "finished":
        return LeftOut(path, "at work" if folder.is_locked() else "failed" if status.get("status") == "failed" else "not finished")
    if changed := folder.changed(("summary.json", "genotype.json", "environment.json")):
        return LeftOut(path, f"{changed[0]} is not what the run wrote (sha256 differs)")
    try:
        summary = json.loads(read_text(folder.summary, MAX_SUMMARY_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        return LeftOut(path, f"summary.json cannot be read ({_line(error)})")
    values = summary.get("values") if type(summary) is dict else None
    if type(values) is not dict:
        return LeftOut(path, "summary.json holds no values")
    try:
        options = folder.options()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, RunFolderError) as error:
        return LeftOut(path, _line(error))
    job = status.get("job") or status.get("config_hash", "")
    chosen = status.get("choices")
    return Finished(path, str(status.get("script", "")), str(job), options, chosen if type(chosen) is dict else {},
                    _said(status.get("overrides")), values, _commit(folder), _genotype(folder), str(status.get("started", "")))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


def _said(overrides: Any) -> dict[str, str] | None:
    if type(overrides) is not list:
        return None
    pairs = (str(word).lstrip("+").partition("=") for word in overrides)
    return {key: value for key, _, value in pairs}


def _commit(folder: RunFolder) -> str:
    try:
        known = json.loads(read_text(folder.environment, MAX_STATUS_BYTES))
        return f"{str(known['git_commit'])[:12]}{'+' if known.get('git_dirty') else ''}" if known.get("git_commit") else ""
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""


def _genotype(folder: RunFolder) -> Genotype | None:
    try:
        return Genotype.load(folder.genotype)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Gathered:
    """Runs of which each counts once."""

    runs: list[Finished]
    duplicates: list[tuple[Path, Path]]  # a run, and the one of the same job that counts
    unlike: list[tuple[Path, Path]]  # of these: such that found another result
    left_out: list[LeftOut]


def gather(paths: Iterable[Path], compared: Collection[str] = ()) -> Gathered:
    """Reads the runs; of those of one job the one that started first counts. compared: values that copies of a run should share."""
    read_ones = [read(path) for path in paths]
    finished = sorted((run for run in read_ones if type(run) is Finished), key=lambda run: (run.started, str(run.path)))
    first: dict[tuple[str, str], Finished] = {}
    duplicates, unlike = [], []
    for run in finished:
        kept = first.setdefault((run.script, run.job), run)
        if kept is run:
            continue
        duplicates.append((run.path, kept.path))
        if run.genotype != kept.genotype or any(run.values.get(name) != kept.values.get(name) for name in compared):
            unlike.append((run.path, kept.path))
    return Gathered(list(first.values()), duplicates, unlike, [run for run in read_ones if type(run) is LeftOut])


def leaves(options: Mapping[str, Any], ignore: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All options that are no nodes, by their full names, without those that are ignored, by their full or last name."""
    for key, value in options.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if name in ignore or key in ignore:
            continue
        if type(value) is dict and value:
            yield from leaves(value, ignore, name)
        else:
            yield name, value


def names(rows: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, str]] = (), *, most: int = 4) -> list[str]:
    """A name for each row of leaves, by what the rows do not share: `relaxation=gumbel epochs=250`. chosen: choices of groups by row; they
    stand for all that a choice says, where every row has them. What more than `most` options differ by is counted."""
    different = {key for row in rows for key in row if any(other.get(key, None) != row[key] for other in rows)}
    groups = [key for key in (chosen[0] if chosen else {}) if key != "experiment" and len({row.get(key) for row in chosen}) > 1]
    targets = {key.removesuffix("._target_") for key in different if key.endswith("._target_")}
    hidden = {key for key in different for group in {*groups, *targets} if key != f"{group}._target_" and key.startswith(f"{group}.")}
    found = []
    for n, row in enumerate(rows):
        words = [f"{group}={chosen[n].get(group, 'none')}" for group in groups]
        for key in sorted(different - hidden):
            name = key.removesuffix("._target_")
            if name not in groups:
                words.append(f"{name}={_word(row[key]) if key in row else 'none'}")
        found.append(" ".join([*words[:most], *([f"and {len(words) - most} more"] if len(words) > most else [])]) or "all runs")
    again: dict[str, int] = {}
    for n, name in enumerate(found):  # what is hidden or cut may be all that tells rows apart
        again[name] = again.get(name, 0) + 1
        found[n] = name if again[name] == 1 else f"{name} ({again[name]})"
    return found


def names_by_words(rows: Sequence[Mapping[str, str]], ignore: Collection[str] = ()) -> list[str]:
    """A name for each row by the options that command lines named, as far as the rows do not share them."""
    kept = [{key: value for key, value in row.items() if key not in ignore and key.rpartition(".")[2] not in ignore} for row in rows]
    different = [key for key in dict.fromkeys(key for row in kept for key in row) if len({row.get(key) for row in kept}) > 1]
    return [" ".join(f"{key}={row[key]}" for key in different if key in row) or "as by default" for row in kept]


def _word(value: Any) -> str:
    if isinstance(value, str) and value.count(".") > 1 and value.startswith("supernet."):
        *_, module, name = value.split(".")
        return module if name == "make" else name
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
