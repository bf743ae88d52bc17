"""The runs under a folder, a row each, from what they leave behind: quickly, for many, whatever lies there. No PyTorch, no YAML."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from supernet.files import damaged_lines, json_objects, number, read_bytes, read_text
from supernet.genotype import Genotype
from supernet.runs.checkpoint_files import has_checkpoint
from supernet.runs.folder import MAX_OPTIONS_BYTES, RunFolder

State = Literal["running", "finished", "stopped", "failed", "died", "damaged", "foreign"]
MAX_DEPTH = 6  # folders below the one that is looked at
MAX_RECORDS_BYTES = 50_000_000  # of metrics.jsonl; 600 epochs have 300 kB
MAX_SUMMARY_BYTES = 10_000_000
MAX_TRIALS_BYTES = 200_000_000  # of trials.jsonl; 100,000 trials have 50 MB
OF_RUNS = ("run.json", "config.yaml", "metrics.jsonl", "checkpoints", "genotypes.jsonl")  # a folder that holds one of these is a run's
# What the method of a search without a preset is called by. conf/experiment/*.yaml are named <method>_<data set>.
METHOD = ("relaxation", "hypergradient", "final_select", "stage")
BY_TRIALS = ("searcher", "evaluator")


@dataclass(frozen=True)
class Listed:
    """A run, or a folder that is none. What is not known is None, or empty.

    state: running, while a process holds its lock; died: it says that it runs, and no process does (it can go on, where it has a
    checkpoint); damaged: of a run, but what it says of itself cannot be read; foreign: no run. note: why, where there is something to say.
    """

    path: Path
    name: str  # the path, below the folder that was looked at
    state: State
    note: str = ""
    script: str = ""  # search, final
    method: str = ""  # of a final training: the published architecture
    space: str = ""
    data: str = ""
    seed: int | None = None
    epoch: int | None = None  # how many are done
    epochs: int | None = None  # how many are wanted
    best: float | None = None  # accuracy, percent: of a search by trials that of its best trial, else the best of an epoch, on validation
    # items, else on those trained on
    test: float | None = None  # percent
    digest: str = ""  # of the genotype: what was found last, or what is trained
    started: datetime | None = None
    seconds: float | None = None  # of work so far


def listed(folder: Path) -> list[Listed]:
    """All runs below the folder, and the folders right below it that hold none, by name. A folder that is a run is the only row. Raises
    OSError: the folder cannot be read."""
    if _is_run(folder):
        return [row(folder, folder.resolve().name)]
    found = []
    ours = any((folder / name).exists() for name in ("sweep.yaml", "jobs.jsonl"))  # a sweep keeps what its jobs print in a folder
    for path in _folders(folder):
        below = list(_runs(path, 1))
        if below:
            found += [row(run, str(run.relative_to(folder))) for run in below]
        elif not (ours and path.name == "logs"):
            found.append(Listed(path, path.name, "foreign", _why_foreign(path)))
    return found


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in OF_RUNS)


def _folders(path: Path) -> list[Path]:
    """Those right below, without hidden ones."""
    with os.scandir(path) as entries:
        return [Path(entry.path) for entry in sorted(entries, key=lambda entry: entry.name) if entry.name[0] != "." and entry.is_dir()]


def _runs(path: Path, depth: int) -> Iterator[Path]:
    """The path, where it is a run's folder; else those within it. Links are followed to runs only, so that nobody walks in a circle."""
    try:
        if _is_run(path):
            yield path
        elif depth < MAX_DEPTH and not path.is_symlink():
            for below in _folders(path):
                yield from _runs(below, depth + 1)
    except OSError:
        return


def _why_foreign(path: Path) -> str:
    try:
        return "not a run" if any(path.iterdir()) else "empty"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def row(path: Path, name: str) -> Listed:
    """One run. Never raises for what its folder holds."""
    folder = RunFolder(path)
    try:
        status, known = folder.status(), has_checkpoint(folder.checkpoints)
    except OSError as error:
        return Listed(path, name, "damaged", f"cannot be read ({error.strerror})")
    if status is None:
        why = "run.json is damaged" if folder.run_json.exists() else "no run.json"
        return Listed(path, name, "damaged", why + (": resume= restores it from its checkpoint" if known else ""))
    state, note = _state(folder, status, known)
    records, wrong = _records(folder)
    if changed := folder.changed(("config.yaml", "metrics.jsonl", "genotype.json", "summary.json")):
        wrong = f"not what the run wrote: {', '.join(changed)}"
    genotype, unread = _genotype(folder)
    chosen, last = _mapping(status.get("choices")), records[-1] if records else {}
    script = _text(status.get("script")).removeprefix("train_")
    values, options = _values(folder) if state == "finished" else {}, _top_options(folder.config)
    key = next((key for key in ("val_accuracy", "train_accuracy") if number(last.get(key)) is not None), "")
    best = [value for record in records if (value := number(record.get(key))) is not None]
    epoch, by_trials = number(last.get("epoch")), number(values.get("found/accuracy"))  # which one that has ended says itself
    by_trials = _best_trial(folder) if by_trials is None else by_trials
    return Listed(path, name, state, "; ".join(filter(None, (note, wrong or unread))), script,
                  _method(chosen) if script == "search" else _published(status), genotype.space if genotype else _text(chosen.get("space")),
                  _text(status.get("data")) or _text(chosen.get("dataset")), _whole(options.get("seed")),
                  0 if epoch is None else int(epoch) + 1, _whole(options.get("epochs")),
                  max(best, default=None) if by_trials is None else by_trials, number(values.get("test_accuracy")),
                  _text(last.get("genotype")) or (genotype.digest if genotype else ""), _time(status.get("started")),
                  number(last.get("elapsed_s")))


def _state(folder: RunFolder, status: Mapping[str, Any], known: bool) -> tuple[State, str]:
    said = status.get("status")
    try:
        locked = folder.is_locked()
    except OSError:  # somebody else's, which we may not open
        return (said, "") if said in ("running", "finished", "stopped", "failed") else ("damaged", "run.json names no state")
    if said == "finished":
        return "finished", ""
    if locked:
        return "running", ""
    if said == "failed":
        return "failed", _text(status.get("error"))
    if said == "running":
        return "died", "resume= goes on from its checkpoint" if known else "no checkpoint"
    return ("stopped", "") if said == "stopped" else ("damaged", "run.json names no state")


def _records(folder: RunFolder) -> tuple[list[dict[str, Any]], str]:
    """The epochs' records; a line that is damaged or was cut off is passed over. And what is wrong with the file."""
    try:
        data = read_bytes(folder.metrics, MAX_RECORDS_BYTES)
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"metrics.jsonl: {error.strerror}"
    wrong = damaged_lines(data)
    return json_objects(data.splitlines()), f"metrics.jsonl: line {wrong[0]} is damaged" if wrong else ""


def _best_trial(folder: RunFolder) -> float | None:
    """Of a search by trials, the accuracy of what `supernet.trials.best` would choose; None where there are none, or they tell none."""
    try:
        trials = json_objects(read_bytes(folder.trials, MAX_TRIALS_BYTES).splitlines())
    except OSError:
        return None
    found, top = None, (-math.inf, -math.inf)
    for trial in trials:
        scores, fidelity = trial.get("scores"), number(trial.get("fidelity", 1.0))
        score = _spelt(scores[0]) if type(scores) is list and scores else None
        if trial.get("refused") is None and score is not None and fidelity is not None and (found is None or (fidelity, score) > top):
            found, top = trial, (fidelity, score)
    return None if found is None else number(_mapping(found.get("metrics")).get("accuracy"))


def _spelt(score: Any) -> float | None:
    """A score as it is kept: a number, or the word for one that JSON cannot spell."""
    return {"inf": math.inf, "-inf": -math.inf}.get(score) if type(score) is str else number(score)


def _values(folder: RunFolder) -> Mapping[str, Any]:
    try:
        return _mapping(_mapping(json.loads(read_text(folder.summary, MAX_SUMMARY_BYTES))).get("values"))
    except (OSError, ValueError, RecursionError):
        return {}


def _genotype(folder: RunFolder) -> tuple[Genotype | None, str]:
    """None where there is none yet; and why, where there is one that cannot be read."""
    try:
        return (Genotype.load(folder.genotype), "") if folder.genotype.exists() else (None, "")
    except (OSError, ValueError):
        return None, "genotype.json cannot be read"


def _top_options(config: Path) -> dict[str, str]:
    """The root options of config.yaml that are plain, as text. The file is ours and has one a line at its left edge; PyYAML takes 50 ms for
    it, which nobody waits for of hundreds of runs."""
    try:
        return dict(re.findall(r"^(\w+): (\S+)$", read_text(config, MAX_OPTIONS_BYTES), re.MULTILINE))
    except OSError:
        return {}


def _method(chosen: Mapping[str, Any]) -> str:
    """The preset, else the searcher and what it asks, of a search by trials; else the parts of a gradient search."""
    if preset := _text(chosen.get("experiment")):
        return preset.rpartition("_")[0] or preset
    parts = BY_TRIALS if _text(chosen.get("searcher")) else METHOD
    return "+".join(text for part in parts if (text := _text(chosen.get(part))))


def _published(status: Mapping[str, Any]) -> str:
    """The architecture that a final training trains, where its command names a published one."""
    overrides = status.get("overrides")
    words = dict(str(word).partition("=")[::2] for word in overrides) if type(overrides) is list else {}
    name = words.get("genotype", "")
    return name if re.fullmatch(r"[A-Za-z0-9_]{1,40}", name) and name != "latest" else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if type(value) is dict else {}


def _text(value: Any) -> str:
    return value[:200] if type(value) is str else ""


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text) else None


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.astimezone()
