"""Every trial of a search by trials, in a table that is sorted and filtered."""

from collections.abc import Sequence
from typing import Any

from supernet.report import page
from supernet.report.document import Drawn, drawing
from supernet.report.names import plain
from supernet.report.run_files import RunFiles
from supernet.report.trial_cells import Architectures
from supernet.report.wanted import label, scores_of

MAX_ROWS = 20_000  # of the table
MAX_METRICS = 12
MAX_WORDS = 120    # of what a searcher says, in characters


def shown(run: RunFiles) -> Drawn | None:
    if not run.trials:
        return None
    trials, scores = run.trials[-MAX_ROWS:], scores_of(run)
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    metrics = [name for name in metrics if name not in {score.metric for score in scores}][:MAX_METRICS]
    columns: list[tuple[str, Sequence[Any]]] = [
        ("trial", [t.number for t in trials]),
        *((s.label, [s.shown(t.scores[n]) if t.scores else None for t in trials]) for n, s in enumerate(scores)),
        *((label(name), [t.metrics.get(name) for t in trials]) for name in metrics),
        ("training", [t.fidelity for t in trials]), ("images", [t.images for t in trials]), ("wall s", [t.wall_s for t in trials]),
        ("simulated s", [t.simulated_s for t in trials])]
    usual = {"training": 1.0, "images": 0, "simulated s": 0.0}
    columns = [(name, values) for name, values in columns if name not in usual or any(value != usual[name] for value in values)]
    words = [("how", [plain(t.change, MAX_WORDS) for t in trials]), ("from", [" ".join(map(str, t.parents)) for t in trials]),
             ("not evaluated", [plain(t.refused, MAX_WORDS) if t.refused is not None else "" if t.repeats is None else
                                f"repeats {t.repeats}" for t in trials])]
    data = Architectures([t.genotype for t in trials], run.quietly("genotype.json").get("outputs")).data()
    data["columns"] = [*({"name": name, "kind": "number", "values": list(values)} for name, values in columns),
                       *(_words(name, texts) for name, texts in words if any(texts))]
    note = "A click on a title sorts, one on a row draws its architecture. Filter by words and numbers, such as mutation or "
    note += f"{scores[0].label.replace(' ', '_')}>90." if scores else "trial<100."
    if len(run.trials) > len(trials):
        note += f" The last {len(trials):,} of {len(run.trials):,} trials are shown."
    return Drawn(page.paragraph(note, soft=True) + drawing("trials", kind="trials", label="all trials"), {"trials": data})


def _words(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """A text that is often the same is kept once."""
    known: dict[str, int] = {}
    codes = [known.setdefault(text, len(known)) for text in texts]
    return {"name": name, "kind": "text", "words": list(known), "values": codes}
