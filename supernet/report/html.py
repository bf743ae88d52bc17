"""`write_report`: the files of a run folder as one page that opens anywhere, offline.

A new part of a run's page is a file of `sections/` and a line of SECTIONS.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

from supernet.files import write_whole
from supernet.report import page
from supernet.report.document import Drawn, Missing, Section, document, left_out
from supernet.report.run_files import UNEXPECTED, RunFiles
from supernet.report.sections import (
    against_table,
    ancestry,
    cells,
    classes,
    confusion,
    costs,
    curves,
    environment,
    explanation,
    front,
    genotype_text,
    options,
    reproduce,
    result,
    sureness,
    timeline,
    trial_table,
    trials,
    weights,
)

TITLES = {"train_search": "Architecture search", "train_final": "Training of a final network"}


class Part(NamedTuple):
    """Of a run's page. folded: shown when its title is clicked."""

    key: str
    title: str
    shown: Callable[[RunFiles], Drawn | None]
    folded: bool = False


SECTIONS = (
    Part("result", "Result", result.shown),
    Part("cells", "Cells", cells.shown),
    Part("trials", "Trials", trials.shown),
    Part("front", "Scores and costs", front.shown),
    Part("ancestry", "How the best came about", ancestry.shown),
    Part("all-trials", "All trials", trial_table.shown),
    Part("weights", "Weights of the ops over time", weights.shown),
    Part("curves", "Curves", curves.shown),
    Part("against-table", "Against the table", against_table.shown),
    Part("classes", "Test, class by class", classes.shown),
    Part("confusion", "Confusion matrix of the test", confusion.shown),
    Part("timeline", "Genotype by epoch", timeline.shown),
    Part("sureness", "How sure the search is", sureness.shown),
    Part("explanation", "What its parts carry", explanation.shown),
    Part("costs", "Costs", costs.shown),
    Part("genotype", "Genotype", genotype_text.shown, folded=True),
    Part("options", "Configuration", options.shown, folded=True),
    Part("environment", "Environment", environment.shown, folded=True),
    Part("reproduce", "Reproduce", reproduce.shown),
)


def write_report(run: Path) -> Path:
    """Writes `run/report.html` from the files of the run folder and returns its path.

    A section whose file is missing or unreadable is one line that says so: a report is wanted most of a run that broke.
    """
    path = run / "report.html"
    write_whole(path, run_page(run).encode("utf-8", errors="replace"))
    return path


def run_page(path: Path, *, live: bool = False) -> str:
    """The page of one run. live: it is served, and looks for newer data."""
    run = RunFiles(path)
    title, line = headline(run)
    chip = f' <span class="chip {state}">{escape(state)}</span>' if (state := _word(run.state)) else ""
    notes = [line, *([f"Damaged: {'; '.join(run.damaged)}."] if run.damaged else [])]
    head = f"<header><h1>{escape(title)}{chip}</h1>\n" + "\n".join(page.paragraph(note, soft=True) for note in notes) + "</header>"
    made = (_section(part, run) for part in SECTIONS)
    return document(title, head, [section for section in made if section is not None], live=live)


def _word(state: str) -> str:
    return state if state in ("running", "stopped", "finished", "failed") else ""


def _section(part: Part, run: RunFiles) -> Section | None:
    try:
        drawn = part.shown(run)
    except Missing as reason:
        return left_out(part.key, part.title, str(reason))
    except UNEXPECTED as error:
        return left_out(part.key, part.title, f"the file is not as expected ({type(error).__name__}: {error})")
    return None if drawn is None else Section(part.key, part.title, drawn.html, drawn.data, part.folded)


def headline(run: RunFiles) -> tuple[str, str]:
    """The title, and one line of what was done and what was reached."""
    info = run.info
    title = str(run.summary.get("title") or TITLES.get(run.script) or f"Run {run.path.resolve().name}")
    said = [TITLES.get(run.script, run.script), run.path.resolve().name]
    said.append(f"error: {info['error']}" if info.get("error") else "")
    said.append(f"started {str(info['started'])[:19].replace('T', ' ')}" if "started" in info else "")
    done, of = len(run.records), run.options.get("epochs")
    if done:
        said.append(f"{done} of {of} epochs" if type(of) is int and of != done else f"{done} epoch{'s' if done != 1 else ''}")
    if run.trials:
        said.append(f"{len(run.trials):,} trials")
    for name, key in (("train", "train_accuracy"), ("validation", "val_accuracy")):
        epochs, values = run.series(key)
        known = [(value, -epoch) for epoch, value in zip(epochs, values) if value is not None]
        if known and values[-1] is not None:
            best, at = max(known)
            said.append(f"{name} accuracy {values[-1]:.2f} % at the end, at best {best:.2f} % (epoch {-at:g})")
    return title, "; ".join(part for part in said if part) or "Nothing is recorded of what was done."
