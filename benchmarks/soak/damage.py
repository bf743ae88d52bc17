"""Files of run folders with one flipped bit, or cut off: does every reader, and going on, give the true result or say so in a line?

Each file of a folder is drawn alike, whatever its size; then the bit, or the length. A damage that no reader of ours could tell from the
whole file (a blank more in a JSON file) leaves the true result, and counts as survived.
"""

import gzip
import io
import json
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.soak.cases import Case
from benchmarks.soak.kills import last_line
from benchmarks.soak.subjects import EVERY, LIMIT_S, SUBJECTS, left_by, left_by_tabulate
from supernet import notation
from supernet.app.retraining import retraining_of
from supernet.commands import diff, draw
from supernet.data.split import Split
from supernet.errors import Mendable
from supernet.report.alphas import alpha_tables
from supernet.report.document import Missing
from supernet.report.html import run_page
from supernet.report.run_files import UNEXPECTED, RunFiles
from supernet.runs.folder import RunFolder, check_in_run
from supernet.runs.listing import row
from supernet.runs.loading import load
from supernet.runs.locks import FOLDER as LOCKS
from supernet.runs.predictions import Predictions
from supernet.runs.results import LeftOut, read
from supernet.spaces.named import space_again
from supernet.sweeps.jobs import Job
from supernet.sweeps.states import Ledger, Watch, summary_values
from supernet.tables.files import read_table
from tests.helpers import At, Ended, start
from tests.runs import exactly, finished

UNREAD = (LOCKS, ".lock", "report.html", "cell.svg", "cell.png")  # no reader of ours: for people, or empty


class Told(Exception):
    """A reader says that it cannot give the result."""


# ---- what reads a run's folder. Each gives plain values, or raises an error with one line.


def listed(path: Path) -> Any:
    found = row(path, "run")
    if found.state in ("damaged", "foreign") or found.note not in ("", "resume= goes on from its checkpoint"):
        raise Told(f"{found.state}: {found.note}")
    return vars(found) | {"path": ""}


def result(path: Path) -> Any:
    found = read(path)
    if type(found) is LeftOut:
        raise Told(found.why)
    return vars(found) | {"path": ""}


def network(path: Path) -> Any:
    found = load(path)
    weights = None if found.weights is None else {kind: exactly([w.ops, w.edges, w.skip, w.active]) for kind, w in found.weights.items()}
    if found.notes:
        raise Told("; ".join(found.notes))
    return [exactly(dict(found.network.state_dict())), weights, found.genotype, found.class_names, found.options]


def shown(path: Path) -> Any:
    return run_page(path).replace(str(path), "RUN").replace(path.name, "RUN")


def said_by_page(seen: str, wanted: str) -> list[str]:
    """The lines in which a page says what is damaged or left out, as that of the whole folder does not."""
    there = set(wanted.splitlines())
    return [line for line in seen.splitlines() if line not in there and any(word in line for word in ("Damaged: ", "Left out: "))]


def architecture(path: Path) -> Any:
    check_in_run(path / "genotype.json")
    return notation.find(str(path / "genotype.json")), retraining_of(str(path / "genotype.json"))


def architecture_as_text(path: Path) -> Any:
    check_in_run(path / "genotype.txt")
    return notation.find(str(path / "genotype.txt"), space_again(*space_of(path)))


def space_of(path: Path) -> tuple[str, dict[str, Any]]:
    """Told by the harness, not by the damaged folder."""
    return json.loads((path.parent / "space.json").read_text())


def drawn(path: Path) -> Any:
    command(draw.main, str(path), "-o", str(path.parent / "drawn.dot"))
    return (path.parent / "drawn.dot").read_text()


def compared(path: Path) -> Any:
    """With the whole folder, from which it must not differ."""
    found = json.loads(command(diff.main, str(path.parent / "whole"), str(path), "--json", codes=(0, 1)))
    if any(each["name"] == "state" and each["b"] == "damaged" for each in found["results"]):
        raise Told("it is damaged")
    return found["differs"]


def command(main: Callable[[list[str]], int], *words: str, codes: tuple[int, ...] = (0,)) -> str:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(words))
    if code not in codes:
        lines = err.getvalue().strip().splitlines()
        if code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
            raise RuntimeError(f"exit code {code}: {err.getvalue()[-300:]}")
        raise Told(lines[0])
    return out.getvalue()


def moved(path: Path) -> Any:
    try:
        found = alpha_tables(run := RunFiles(path))
        if run.passed_over:
            raise Told(run.passed_over[0])
    except UNEXPECTED as error:  # which a page says in the place of the section
        raise Told(" ".join(str(error).split())) from error
    return {kind: exactly([table.epochs, table.weights, table.strengths]) + [table.edges, table.ops]
            for kind, table in found.items()}


def values(path: Path) -> Any:
    """What a sweep compares searches by."""
    return summary_values(RunFolder(path))


READERS: Mapping[str, Callable[[Path], Any]] = {
    "supernet.runs": listed, "results": result, "load": network, "page": shown, "genotype": architecture, "diff": compared}
OF_SEARCHES = {**READERS, "genotype.txt": architecture_as_text, "draw": drawn, "alphas": moved,
               "split": lambda path: Split.load(path / "split.npz").digest}


@dataclass(frozen=True, eq=False)
class Scene:
    """A folder as some subject leaves it. make: into an empty folder, the path of what is damaged there. readers: what reads it. goes_on:
    a process that goes on with it, whose `left` is compared."""

    name: str
    make: Callable[[Path], Path]
    readers: Mapping[str, Callable[[Path], Any]]
    goes_on: Callable[[Path], Ended] | None = None
    left: Callable[[Path], Any] = lambda where: left_by(finished(where))
    ignored: tuple[str, ...] = UNREAD


def of_subject(name: str, at: At | None) -> Callable[[Path], Path]:
    """The folder that the subject leaves: finished, or killed at a change of a file."""
    def made(where: Path) -> Path:
        subject = SUBJECTS[name]
        subject.prepare(where)
        ended = start(subject.script, *subject.words(EVERY[0]), cwd=where, at=at).wait(LIMIT_S)
        if ended.code != (0 if at is None else -9):
            raise RuntimeError(f"{name} ended with {ended.code}: {ended.err[-500:]}")
        (path,) = [path for path in where.glob("runs/*") if path.is_dir()]
        return path

    return made


def going_on(name: str) -> Callable[[Path], Ended]:
    return lambda where: SUBJECTS[name].ended(where, EVERY[0])


def table(where: Path) -> Path:
    SUBJECTS["table"].prepare(where)
    ended = SUBJECTS["table"].ended(where, EVERY[0])
    if ended.code:
        raise RuntimeError(f"tabulate ended with {ended.code}: {ended.err[-500:]}")
    folder = where / "tables"
    folder.mkdir()
    shutil.move(where / "toy.csv.gz", folder)
    (folder / "toy.csv").write_bytes(gzip.decompress((folder / "toy.csv.gz").read_bytes()))
    return folder


def rows(name: str) -> Callable[[Path], Any]:
    def values(path: Path) -> Any:
        found = read_table(path / name, space_again("toy", {}))
        cells = [found.genotype(n) for n in range(len(found))]
        return [cell.digest for cell in cells], {key: [repr(found.value(cell, key)) for cell in cells] for key in found.names()}
    return values


def journal(where: Path) -> Path:
    """A table that was broken off: its journal alone."""
    SUBJECTS["table"].prepare(where)
    SUBJECTS["table"].ended(where, EVERY[0])
    (where / "toy.csv.gz").unlink()
    return where


def sweep(where: Path) -> Path:
    """A search under a folder, and a ledger that says of two other jobs that one failed and one was stopped."""
    run_json = of_subject("search", None)(where) / "run.json"
    (where / "job").write_text(json.loads(run_json.read_text())["job"])
    for digest, kind in zip(OTHERS, ("failed", "stopped")):
        Ledger(where / "runs").add(job(digest), kind, "it ended without having finished")
    return where / "runs"


OTHERS = ("e" * 64, "f" * 64)


def job(digest: str) -> Job:
    return Job("train_search", (), "run", 0, digest, 3)


def states(path: Path) -> Any:
    """How the three jobs stand; a run that cannot be read has not been, and its job is done again: which costs time and misleads nobody."""
    found = Watch(path).look([job((path.parent / "job").read_text()), *map(job, OTHERS)])
    if found[0].kind != "finished" or found[1].kind != "failed":
        raise Told("it is done again")
    if found[0].error:
        raise Told(found[0].error)
    return [(state.kind, state.epoch, state.best, state.error, state.folder and summary_values(state.folder)) for state in found]


SCENES = (
    Scene("finished search", of_subject("search", None), {**OF_SEARCHES, "summary": values}),
    Scene("killed search", of_subject("search", At(9, ".pt.")), {
        key: OF_SEARCHES[key] for key in ("supernet.runs", "load", "page", "genotype", "diff", "alphas")}, going_on("search")),
    Scene("finished training", of_subject("final training", None), {
        **READERS, "summary": values, "predictions": lambda path: Predictions.load(path / "predictions.npz").digest}),
    Scene("killed training", of_subject("final training", At(9, ".pt.")), {
        key: READERS[key] for key in ("supernet.runs", "page", "genotype")}, going_on("final training")),
    Scene("finished search by trials", of_subject("search by trials", None), {**READERS, "summary": values}),
    Scene("killed search by trials", of_subject("search by trials", At(1, "genotype.txt")), {
        key: READERS[key] for key in ("supernet.runs", "page")}, going_on("search by trials")),
    Scene("table", table, {"csv": rows("toy.csv"), "csv.gz": rows("toy.csv.gz")}),
    Scene("sweep", sweep, {"states": states}),
    Scene("journal of a table", journal, {}, going_on("table"), left_by_tabulate, (*UNREAD, "genotype.json", "tabulate.py")),
)


class Made:
    """The folders of the scenes, made once, and what their readers and going on give of them."""

    def __init__(self, where: Path) -> None:
        self.where = where

    @cache  # noqa: B019  (it lives as long as the process)
    def __call__(self, scene: Scene) -> tuple[Path, Path]:
        """The whole folder, and what is damaged in copies of it, relative to it."""
        folder = self.where / scene.name.replace(" ", "_")
        folder.mkdir()
        path = scene.make(folder)
        return folder, path.relative_to(folder)

    @cache  # noqa: B019
    def wanted(self, scene: Scene) -> tuple[dict[str, Any], Any]:
        folder = self.copied(scene)
        found = {name: reader(folder / self(scene)[1]) for name, reader in scene.readers.items()}
        left = None
        if scene.goes_on is not None:
            ended = scene.goes_on(folder)
            if ended.code:
                raise RuntimeError(f"{scene.name}: going on with what is whole ended with {ended.code}: {last_line(ended)}")
            left = scene.left(folder)
        shutil.rmtree(folder)
        return found, left

    def copied(self, scene: Scene) -> Path:
        whole, inner = self(scene)
        folder = Path(tempfile.mkdtemp(prefix="soak_")) / "copy"
        shutil.copytree(whole, folder)
        beside = (folder / inner).parent  # for readers that compare, or are told the space
        if (whole / inner / "genotype.json").exists():
            known = json.loads((whole / inner / "genotype.json").read_text())
            (beside / "space.json").write_text(json.dumps([known["space"], known["arguments"]]))
            if beside != folder:
                shutil.copytree(whole / inner, folder / "whole")
                (beside / "whole").symlink_to(folder / "whole")
        return folder


def files(folder: Path, ignored: tuple[str, ...]) -> list[Path]:
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size)
    return [path for path in found if not set(path.parts) & set(ignored)]


def damaged(made: Made, kind: str, n: int) -> Case:
    """kind: `bit` or `cut`."""
    rng, scene = random.Random(f"{kind} {n}"), SCENES[n % len(SCENES)]
    whole, inner = made(scene)
    name = rng.choice(files(whole / inner, scene.ignored))
    wanted, left = made.wanted(scene)
    folder = made.copied(scene)
    try:
        path = folder / inner / name
        data = bytearray(path.read_bytes())
        at = rng.randrange(len(data))
        if kind == "bit":
            bit = rng.randrange(8)
            was = bytes(data[max(0, at - 8): at + 8])
            data[at] ^= 1 << bit
            told = f"bit {bit} of byte {at:,}" + (f" ({was!r})" if name.suffix not in (".pt", ".npz", ".gz") else "")
        else:
            del data[at:]
            told = f"cut to {at:,} bytes"
        path.write_bytes(data)
        shown_name = "checkpoint" if name.suffix == ".pt" and name.name != "weights.pt" else name.name
        shorter = kind == "cut" and scene.goes_on is not None and name.suffix == ".jsonl"
        return judged(scene, folder, inner, wanted, left, f"{scene.name}, {shown_name}, {told}", shorter)
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def judged(scene: Scene, folder: Path, inner: Path, wanted: Mapping[str, Any], left: Any, told: str, shorter: bool) -> Case:
    """shorter: a journal of a run that goes on was cut, whose readers then may see it as it was earlier."""
    said, wrong, lost = [], [], []
    for name, reader in scene.readers.items():
        try:
            if (seen := reader(folder / inner)) == wanted[name]:
                continue
            if reader is shown and (lines := said_by_page(seen, wanted[name])):
                said.append(f"page: {re.sub('<[^>]*>', '', lines[0])}")
            elif shorter:
                said.append(f"{name}: as it was earlier")
            else:
                wrong.append(name)
        except (Told, Mendable, Missing) as error:
            (said if "\n" not in str(error) else lost).append(f"{name}: {error}")
        except Exception as error:
            lost.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:100]}")
    if scene.goes_on is not None:
        ended = scene.goes_on(folder)
        lines = [line for line in ended.err.splitlines() if line.strip()]
        if ended.code == 2 and len(lines) == 1 and lines[0].startswith("error: "):
            said.append(f"going on: {lines[0]}")
        elif ended.code or "Traceback" in ended.err:
            lost.append(f"going on: {last_line(ended)}")
        elif scene.left(folder) != left:
            wrong.append("going on")
    if wrong:
        return Case("wrong", f"{told}: {', '.join(wrong)}")
    if lost:
        return Case("lost", f"{told}: {lost[0]}")
    return Case("told", f"{told}: {said[0][:160].replace(str(folder), '')}") if said else Case("survived", told)
