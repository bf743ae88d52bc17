"""`python -m supernet.compare RUNS...`: a table of any finished runs, a row for each set of options, with honest statistics.

Reads folders only; nothing is built, trained or changed.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supernet.app.not_computed import NOT_COMPUTED
from supernet.commands.arguments import Arguments, exit_code, writing
from supernet.errors import UsageError, did_you_mean
from supernet.report.referee import Column, Row, Search, lines
from supernet.report.verdicts import Tables, summary, write_tables
from supernet.runs.results import Finished, Gathered, LeftOut, gather, leaves, names, names_by_words, run_folders

# What makes no row of its own: what nothing is computed from, who computes, where data lies, what other options took in, and the seed.
SAME_ROW = frozenset({*NOT_COMPUTED, "seed", "genotype", "protocol", "script", "experiment", "profile", "device", "backend", "root",
                      "download"})
SCRIPTS = {"search": "train_search", "final": "train_final"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    return exit_code(lambda: shown(parser().parsed(arguments)))


def parser() -> Arguments:
    made = Arguments("compare", "A table of finished runs: rows by what differs between their options, seeds together, each job once.", [
        "runs",
        "runs/*gdas* runs/*darts* --baseline relaxation=uniform --output table"])
    made.add_argument("runs", nargs="+", type=Path, help="folders of runs, or folders that hold some")
    made.add_argument("--of", choices=sorted(SCRIPTS), help="whose results; default: final trainings where there are any, else searches")
    made.add_argument("--value", action="append", metavar="NAME", help="of summary.json's values, any number of times; default: test "
                      "accuracies (of a search those of a table, else val_accuracy)")
    made.add_argument("--lower-is-better", action="store_true", help="of the values given, as for a loss or a perplexity")
    made.add_argument("--baseline", metavar="ROW", help="the row, by name, that gains are over, seed by seed")
    made.add_argument("--level", type=float, default=0.95, help="of the intervals (default 0.95)")
    made.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    made.add_argument("--title", default="Runs compared")
    made.add_argument("--output", type=Path, metavar="FOLDER", help="where table.md, table.tex, table.csv and table.html are written")
    return made


def shown(given: argparse.Namespace) -> int:
    tables = compared(given)
    print(summary(tables))
    if given.output is not None:
        with writing(given.output):
            given.output.mkdir(parents=True, exist_ok=True)
            written = write_tables(given.output, tables)
        print("\nwritten   " + ", ".join(map(str, written)))
    return 0


def compared(given: argparse.Namespace) -> Tables:
    """Raises RunFolderError, UsageError: there is nothing to compare, or a name is not there."""
    if not 0 < given.level < 1:
        raise UsageError(f"--level must be above 0 and below 1, got {given.level:g}")
    if given.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {given.seed}")
    folders = run_folders(given.runs)
    found = gather(folders)
    there = {run.script for run in found.runs}
    script = SCRIPTS[given.of] if given.of else next((s for s in ("train_final", "train_search") if s in there), "")
    runs = [run for run in found.runs if run.script == script]
    if not runs:
        raise UsageError(f"no finished {'run' if not script else script + ' run'} among {len(folders)} folders{_told(found.left_out)}")
    keys = columns_of(runs, given.value)
    found = gather(folders, keys)  # copies that disagree in what is shown are told
    grouped = groups([run for run in found.runs if run.script == script], [run for run in found.runs if run.script == "train_search"])
    rows = [Row(name, searches_of(members, found.runs, keys)) for name, members in grouped.items()]
    if given.baseline is not None and given.baseline not in grouped:
        raise UsageError(f"--baseline {given.baseline!r}: there is no such row; there are {', '.join(map(repr, grouped))}"
                         f"{did_you_mean(given.baseline, grouped)}")
    columns = [Column(key, title(key), lower_is_better=given.lower_is_better) for key in keys]
    about = [f"{len(runs)} {script} runs, {len(rows)} rows by what differs between their options; each job counts once."]
    baselines = {} if given.baseline is None else dict.fromkeys(grouped, given.baseline)
    said = lines(rows, columns, baselines=baselines, seed=given.seed, level=given.level)
    notes = [*remarks(found), *unknown([run for run in found.runs if run.script == script], keys)]
    return Tables(given.title, rows, columns, said, about=about, notes=notes, baselines=baselines, level=given.level)


def columns_of(runs: Sequence[Finished], wanted: Sequence[str] | None) -> list[str]:
    """Raises UsageError: no run has a wanted value."""
    numbers = sorted({key for run in runs for key, value in run.values.items() if type(value) in (int, float)})
    if wanted:
        for key in wanted:
            if key not in numbers:
                raise UsageError(f"--value {key}: no run has it; there are {', '.join(numbers) or 'none'}{did_you_mean(key, numbers)}")
        return list(dict.fromkeys(wanted))
    of_table = [key for key in numbers if key.startswith("table/") and key.endswith("/test_accuracy")]
    found = of_table or [key for key in ("test_accuracy", "val_accuracy") if key in numbers][:1]
    if not found:
        raise UsageError(f"the runs have no accuracy: pass --value with one of {', '.join(numbers) or 'none'}")
    return found


def title(key: str) -> str:
    parts = key.split("/")
    if parts[0] == "table" and len(parts) == 3:
        return f"{parts[2].replace('_', ' ')} on {parts[1]}, by the table (%)"
    return key.replace("_", " ") + (" (%)" if key.endswith("accuracy") else "")


def groups(runs: Sequence[Finished], searches: Sequence[Finished]) -> dict[str, list[Finished]]:
    """The rows, by name, in the order in which their first run started: runs whose options, and those of the searches that found what they
    train, differ in the seed alone. What no given search found is a row for each architecture."""
    rows: dict[tuple, list[Finished]] = {}
    found_by: dict[tuple, Finished | None] = {}
    for run in runs:
        search = source(run, searches)
        unknown = str(run.options.get("genotype", "")) if search is None else ""
        key = (_frozen(run), _frozen(search) if search is not None else unknown)
        rows.setdefault(key, []).append(run)
        found_by.setdefault(key, search)
    own = told([members[0] for members in rows.values()])
    known = [search for search in found_by.values() if search is not None]
    of_search = dict(zip([search.path for search in known], told(known), strict=True))
    named: dict[str, list[Finished]] = {}
    for (key, members), name in zip(rows.items(), own, strict=True):
        search = found_by[key]
        # what found the architecture names the row before how it was trained
        first = of_search[search.path] if search is not None else genotype_name(key[1]) if members[0].script == "train_final" else ""
        label = " ".join(filter(None, (first, name))) or "all runs"
        while label in named:
            label += "'"
        named[label] = members
    return named


def told(runs: Sequence[Finished]) -> list[str]:
    """What differs between the options of runs, in words, a text each: by what their command lines said, where that tells them apart, else
    by the options themselves; nothing where they are the same."""
    different: dict[tuple, Finished] = {}
    for run in runs:
        different.setdefault(_frozen(run), run)
    if len(different) < 2:
        return [""] * len(runs)
    found: list[str] = []
    if all(run.said is not None for run in different.values()):
        found = names_by_words([run.said for run in different.values()], SAME_ROW - {"experiment", "protocol", "profile"})
    if len(set(found)) < len(different):
        chosen = [run.chosen for run in different.values()]
        found = names([dict(leaves(run.options, SAME_ROW)) for run in different.values()], chosen if all(chosen) else [])
    named = dict(zip(different, found, strict=True))
    return [named[_frozen(run)] for run in runs]


def genotype_name(given: str) -> str:
    """A genotype as a row's name: the name of its file's folder, or the name itself."""
    path = Path(given)
    return f"genotype={path.parent.name if path.name == 'genotype.json' else path.stem}"


def source(run: Finished, searches: Sequence[Finished]) -> Finished | None:
    """The search whose genotype a final training trains: that in whose folder the file lies, else the only one that found such."""
    if run.script != "train_final" or run.genotype is None:
        return None
    same = [search for search in searches if search.genotype == run.genotype]
    name = Path(str(run.options.get("genotype", ""))).parent.name
    return next((search for search in same if search.path.name == name), same[0] if len(same) == 1 else None)


def searches_of(members: Sequence[Finished], runs: Sequence[Finished], keys: Sequence[str]) -> list[Search]:
    """The searches of a row, each with the results of its retrainings."""
    searches = [run for run in runs if run.script == "train_search"]
    nested: dict[Any, list[tuple[Finished, Finished | None]]] = {}
    for run in members:
        found_by = source(run, searches)
        which = run.path if run.script != "train_final" else found_by.path if found_by else run.genotype
        nested.setdefault(which, []).append((run, found_by))
    found = []
    for number, each in enumerate(nested.values()):
        run, found_by = each[0]
        seed = run.seed if run.script != "train_final" else found_by.seed if found_by else number
        results = {key: tuple(known(r.values[key]) for r, _ in each if type(r.values.get(key)) in (int, float)) for key in keys}
        cost = (found_by or run).values.get("elapsed_s")
        commits = sorted({r.commit for r, _ in each} | ({found_by.commit} if found_by else set()))
        found.append(Search(seed, results, float(cost) if type(cost) in (int, float) else math.nan, " ".join(filter(None, commits))))
    return sorted(found, key=lambda search: search.seed)


def known(value: float) -> float:
    """NaN for what is not finite, or too large, as of a training that diverged: then nobody knows the mean of its row."""
    return float(value) if abs(value) <= sys.float_info.max else math.nan


def unknown(runs: Sequence[Finished], keys: Sequence[str]) -> list[str]:
    """Why a row has no number: which of its runs have a value that is not finite."""
    notes = []
    for key in keys:
        names = [run.path.name for run in runs if type(run.values.get(key)) in (int, float) and math.isnan(known(run.values[key]))]
        if names:
            told = "; ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
            notes.append(f"No finite {key}, so that the mean of the row is not known: {told}.")
    return notes


def remarks(found: Gathered) -> list[str]:
    """What was not counted."""
    notes = []
    if found.duplicates:
        told = [f"{copy.name} repeats {kept.name}" for copy, kept in found.duplicates]
        notes.append(f"Duplicates, which count for nothing: {len(told)} ({'; '.join([*told[:5], *(['...'] if len(told) > 5 else [])])}).")
    if found.unlike:
        told = "; ".join(f"{copy.name} and {kept.name}" for copy, kept in found.unlike[:5])
        notes.append(f"Of these {len(found.unlike)} found another result than the run that counts ({told}): another device, backend or "
                     "commit, or something that is not repeatable.")
    if found.left_out:
        notes.append(f"Left out: {len(found.left_out)} runs without a result{_told(found.left_out)}.")
    return notes


def _told(left_out: Sequence[LeftOut]) -> str:
    told = [f"{each.path.name}: {each.why}" for each in left_out]
    return f" ({'; '.join([*told[:5], *(['...'] if len(told) > 5 else [])])})" if told else ""


def _frozen(run: Finished) -> tuple:
    """What its row is known by."""
    return tuple(sorted((key, repr(value)) for key, value in leaves(run.options, SAME_ROW)))


def command() -> None:
    """The console command."""
    sys.exit(main())
