"""What `python -m supernet.explain` finds out: each sentence is made of numbers that were computed, and never of those of a test."""

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from supernet import notation
from supernet.commands.compare import SAME_ROW
from supernet.errors import Mendable, UsageError
from supernet.genotype import Genotype
from supernet.report.agreement import Agreement, agreement
from supernet.report.effects import View, by_answers, by_table, places
from supernet.report.explanation import FILE, JUDGES, Explanation, Margin, told
from supernet.report.names import lowered, op_label
from supernet.report.run_files import UNEXPECTED, RunFiles
from supernet.runs.device import resolve_device
from supernet.runs.folder import RunFolder, check_in_run
from supernet.runs.log import Progress
from supernet.runs.results import gather, leaves, run_folders
from supernet.space import Space
from supernet.spaces.named import named_space, names, space_again
from supernet.tables.files import open_table, read_table, space_named_in
from supernet.tables.table import Table

if TYPE_CHECKING:
    from supernet.app.trained import Trained

WIDTH = 110  # characters of a line
MARGINS, AGREEMENT = "How far ahead its choices were", "Agreement over runs"
Part = TypeVar("Part")


def check(given: argparse.Namespace) -> None:
    """Raises UsageError, before any work."""
    first, *others = given.runs
    if given.images != "all" and not (given.images.isascii() and given.images.isdigit() and int(given.images) >= 2):
        raise UsageError(f"--images must be a whole number of at least 2, or all, got {given.images!r}")
    try:
        resolve_device(given.device)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    if not 0 <= given.seed < 2**63:
        raise UsageError(f"--seed must be at least 0, got {given.seed}")
    if first.is_dir():
        run_folder(first)
        if given.output is not None:
            raise UsageError(f"--output is of a genotype alone; of a run {FILE} is written into its folder")
    elif others:
        raise UsageError(f"{first}: only the folder of a search is compared with other runs")
    elif given.by and "weights" in given.by:
        raise UsageError(f"{first}: --by weights needs the folder of a run, which has some")


def run_folder(path: Path) -> RunFolder:
    """Raises UsageError: it is none that can be explained."""
    folder = RunFolder(path)
    if not folder.known_status():
        inside = len(list(path.glob("*/run.json")))
        raise UsageError(f"{path}: expected the folder of a run, with run.json; " + (f"this is a folder of {inside} runs: name one of them"
                                                                                     if inside else "there is none"))
    if folder.known_status().get("script") not in ("train_search", "train_final"):
        raise UsageError(f"{path}: expected a search or a final training, got {str(folder.known_status().get('script'))[:40]!r}")
    if not folder.genotype.exists():
        raise UsageError(f"{path}: that run has found no architecture yet (no genotype.json)")
    folder.check_unchanged(folder.genotype.name)
    return folder


def explained(given: argparse.Namespace) -> Explanation:
    """Raises Mendable errors: there is nothing to say, or something that was asked for cannot be said."""
    first, *others = given.runs
    folder = run_folder(first) if first.is_dir() else None
    if folder is None:
        check_in_run(first)
    genotype = Genotype.load(folder.genotype) if folder is not None else notation.find(str(first), space_of_table(given.table))
    run = RunFiles(first) if folder is not None else None
    space = space_of(genotype, folder, given)
    space.validate(genotype)
    left_out: dict[str, str] = {}

    def tried(title: str, make: Callable[[], Part], wanted: bool) -> Part | None:
        """What is not there is told, and an error only where it was asked for."""
        try:
            return make()
        except Mendable as error:
            if wanted:
                raise
            left_out[title] = str(error)
            return None

    views: list[View | None] = []
    by = given.by or ["weights", "table"]
    if folder is not None and "weights" in by:
        script = folder.known_status()["script"]
        own = "shared weights" if script == "train_search" else "own weights"
        views.append(tried(JUDGES[own], lambda: by_weights(own, genotype, folder, given), bool(given.by)))
    if "table" in by:
        views.append(tried(JUDGES["table"], lambda: of_table(space, genotype, run, given), bool(given.by or given.table)))
    margins, agreed = (), None
    if run is not None and run.script == "train_search":
        margins = tried(MARGINS, lambda: margins_of(space, genotype, run), False) or ()
        if others:
            agreed = tried(AGREEMENT, lambda: agreement_of(space, genotype, first, others), True)
    elif others:
        raise UsageError(f"{first}: only a search is compared with other runs, and this is a final training")
    found = Explanation(genotype, space.text(genotype), tuple(view for view in views if view is not None), margins, agreed, left_out)
    if not (found.views or found.margins or found.agreement):
        raise UsageError(f"{first}: nothing can be said of it: " + "; ".join(left_out.values()))
    return found


def space_of(genotype: Genotype, folder: RunFolder | None, given: argparse.Namespace) -> Space:
    if genotype.space in names() or folder is None:
        return space_again(genotype.space, dict(genotype.arguments))
    from omegaconf import OmegaConf

    from supernet.app.build import space_from
    from supernet.app.trained import run_options

    return space_from(OmegaConf.create(run_options(folder, given.trust)).space)


def space_of_table(path: str | None) -> Space | None:
    """The space that a cell in words is of: that of the table; None where none is given."""
    if path is None:
        return None
    name, arguments = space_named_in(Path(path))
    return named_space(name) if arguments is None else space_again(name, arguments)


# ---- the judges


def by_weights(by: str, genotype: Genotype, folder: RunFolder, given: argparse.Namespace) -> View:
    """Every neighbour that the network holds, and every edge taken out, on the same images. Raises Mendable errors."""
    try:
        from supernet.app.trained import trained
    except ModuleNotFoundError as error:
        raise UsageError(f"needs {error.name}, which is not installed (pip install -r requirements.lock)") from error
    images = None if given.images == "all" else int(given.images)
    return judged(by, genotype, trained(folder, images=images, seed=given.seed, device=given.device, trusted=given.trust))


def judged(by: str, genotype: Genotype, network: "Trained") -> View:
    from supernet.evaluators.ablation import answers, without_edge
    from supernet.weights import one_hot

    space = network.space

    def held(other: Genotype) -> bool:
        return all(network.candidates[kind][e][o] for kind, edges in other.cells for e, o in space.cells[kind].rows(edges))

    others = list(dict.fromkeys(other for other in space.neighbours(genotype) if held(other)))
    taken = [(place.kind, place.n) for place in places(space, genotype)
             if place.op != "none" and not space.cells[place.kind].is_chain]  # nothing would be left of a chain without a layer
    if not taken and not others:
        raise UsageError(f"a layer of a chain cannot be taken out of its network, and this one holds no other ops (space {space.name})")
    p = next(network.shared.net.parameters())
    like = {"dtype": p.dtype, "device": p.device}
    weights = (one_hot(space, genotype, **like), *(without_edge(space, genotype, *which, **like) for which in taken))
    asked = (*weights, *(one_hot(space, other, **like) for other in others))
    progress = Progress(len(asked), len(asked), item="architecture")
    found: list[np.ndarray] = []
    try:
        for right in answers(network.shared, asked, network.num_items):
            found.append(right)
            progress.update(len(found), dict, items=1)
    finally:
        progress.close()
    own, without, after = found[0], found[1 : 1 + len(taken)], found[1 + len(taken):]
    on = (*network.on, f"It gets {int(own.sum()):,} of {len(own):,} right, {100 * own.mean():.2f} %.")
    return by_answers(by, space, genotype, on, own, dict(zip(others, after, strict=True)), dict(zip(taken, without, strict=True)))


def of_table(space: Space, genotype: Genotype, run: RunFiles | None, given: argparse.Namespace) -> View:
    table, dataset = table_of(space, run, given)
    where = table.dataset(dataset)
    column = where.validation
    own = table.value(genotype, column)
    values = table.column(column)
    known = values[~np.isnan(values)]
    on = [f"Judged by {Path(table.source).name}, column {column}: the validation accuracy on {dataset} of architectures that were each "
          f"trained alone. This one has {own:.2f} %, rank {1 + int((known > own).sum()):,} of {len(known):,} (1 is best). A table has one "
          "number an architecture, and so no interval."]
    alike = values[table.alike(genotype)]
    if len(alike) > 1:
        low, high = np.nanmin(alike), np.nanmax(alike)
        on.append(f"{len(alike):,} architectures of the table, itself among them, compute the same function; they have {low:.2f} to "
                  f"{high:.2f} %: what the training leaves to chance alone moves a value by {high - low:.2f} points or more.")
    if any("none" in ops for spec in space.cells.values() for node in spec.nodes for _, ops in spec.choices(node).values()):
        on.append("An edge is taken out by the op none in its place.")
    return by_table(space, genotype, table, column, on)


def table_of(space: Space, run: RunFiles | None, given: argparse.Namespace) -> tuple[Table, str]:
    """The table, and the name of the data set. Raises Mendable errors: there is none."""
    options: Mapping[str, Any] = {} if run is None else run.options
    of_run = options.get("table")
    path = given.table or (str(of_run["path"]) if type(of_run) is dict and of_run.get("path") else "auto")
    table = open_table(space) if path == "auto" else read_table(path, space)
    if table is None:
        raise UsageError(f"there is no table of space {space.name} in data/tables: pass --table FILE")
    of_options = [node.get(key) for node, key in ((options.get("evaluator"), "dataset"), (options.get("dataset"), "name"))
                  if type(node) is dict]
    name = given.dataset or next((known for known in of_options if type(known) is str and known in table.datasets), None)
    if name is None:
        if len(table.datasets) != 1:
            raise UsageError(f"the table knows {', '.join(table.datasets)}: pass --dataset with one of them")
        (name,) = table.datasets
    return table, name


# ---- what the run itself recorded, and other runs


def margins_of(space: Space, genotype: Genotype, run: RunFiles) -> tuple[Margin, ...]:
    """What the search's summary says of the decisions for what it kept. Raises UsageError: nothing."""
    found = run.values.get("sureness")
    if found is None:
        raise UsageError("the search recorded none: nothing in it learned which op is best, or it has not finished")
    ops = {(place.kind, place.label): place.op for place in places(space, genotype)}
    several = len(space.cells) > 1
    try:
        margins = []
        for one in found["decisions"]:
            kept = one["what"] == "edges" or (one["kind"], one["where"]) in ops
            if not (one["kept"] and kept):
                continue
            is_op = one["what"] == "op"
            first, second = (op_label(str(one[key])) if is_op else f"edge {lowered(str(one[key]))}" for key in ("first", "second"))
            has = ops[one["kind"], one["where"]] if is_op else one["first"]
            where = f"{one['kind']} cell, {one['where']}" if several else str(one["where"])
            margins.append(Margin(lowered(where), first, second, float(one["gap"]), float(one["spread"]), float(found["window_epochs"]),
                                  bool(one["would_flip"]), None if has == one["first"] else op_label(has)))
        return tuple(margins)
    except UNEXPECTED as error:
        raise UsageError(f"summary.json is not as expected ({type(error).__name__}: {error})") from error


def agreement_of(space: Space, genotype: Genotype, first: Path, others: Sequence[Path]) -> Agreement:
    """Of finished searches of the same space. Raises UsageError: there is no other one."""
    own = first.resolve()
    folders = list(dict.fromkeys([own, *run_folders(others)]))
    gathered = gather(folders)
    searches = [run for run in gathered.runs if run.script == "train_search" and run.genotype is not None
                and run.genotype.fingerprint == space.fingerprint and run.path != own]
    mine = [run for run in gathered.runs if run.path == own]
    if not searches or not mine:
        raise UsageError(f"no other finished search of space {space.name} among {len(folders)} folders (copies of one job count once)"
                         if mine else f"{first}: is not finished, or a copy of a run among the others")
    runs = [*mine, *sorted(searches, key=lambda run: (run.seed, str(run.path)))]
    told_apart = len({run.seed for run in runs}) == len(runs)
    alike = len({repr(sorted(leaves(run.options, SAME_ROW), key=str)) for run in runs}) == 1
    labels = [f"seed {run.seed}" if told_apart and alike else f"{run.path.name} (seed {run.seed})" for run in runs]
    return agreement(space, [genotype, *(run.genotype for run in runs[1:])], labels)


# ---- what is left of it


def text(found: Explanation) -> str:
    """The explanation as paragraphs for a terminal."""
    lines = [f"Architecture {found.genotype.digest} of space {found.genotype.space}: {found.text}"]
    for title, sentences in told(found):
        lines += ["", title]
        for sentence in sentences:
            lines += textwrap.wrap(sentence.replace(" %", "\xa0%"), WIDTH, initial_indent="  ", subsequent_indent="    ",
                                   break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\xa0%", " %")


def written(given: argparse.Namespace, found: Explanation) -> list[Path]:
    """Raises OSError."""
    first = given.runs[0]
    if not first.is_dir():
        if given.output is None:
            return []
        found.save(given.output)
        return [given.output]
    found.save(first / FILE)
    from supernet.report.html import write_report  # Matplotlib waits until there is something to draw

    return [first / FILE, write_report(first)]
