"""`write_report`: the files of a run folder as one page that opens anywhere, offline and without scripts."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from supernet.files import DAMAGED, check_zip, read_bytes, read_text, write_whole
from supernet.genotype import Edge, Genotype
from supernet.report import page
from supernet.report.classes import MAX_DRAWN, class_table, confusion_svg, mistakes_table, reliability_svg
from supernet.report.curves import alpha_charts, heat_map_svg, line_chart
from supernet.report.draw import cells_svg
from supernet.report.figure import with_ids
from supernet.report.names import edge_labels, op_colours, op_label, plain

MAX_ALPHA_POINTS = 20_000  # in all alpha plots together, about 25 bytes each
MAX_EDGE_CHARTS = 120
MAX_DRAWN_EDGES = 200
MAX_CHANGES = 100          # rows of the genotype timeline
MAX_BYTES = 2**31          # of a file, and of what one unpacks to
MAX_TEXT = 200_000         # characters of a file shown as text

CHARTS: tuple[tuple[str, str, Mapping[str, str]], ...] = (  # title, y axis, line -> key of a record
    ("Loss", "loss (nats)", {"train": "train_loss", "validation": "val_loss"}),
    ("Accuracy", "accuracy (%)", {"train": "train_accuracy", "validation": "val_accuracy", "validation, top 5": "val_top5_accuracy"}),
    ("Precision, recall and F1 of validation", "mean over classes (%)", {"precision": "val_precision_macro", "recall": "val_recall_macro",
                                                                       "F1": "val_f1_macro"}),
    ("Calibration error of validation", "expected error (%)", {"validation": "val_expected_calibration_error"}),
    ("Bits per character", "bits", {"train": "train_bits_per_character", "validation": "val_bits_per_character"}),
    ("Perplexity", "perplexity", {"train": "train_perplexity", "validation": "val_perplexity"}),
    ("Learning rate of w", "learning rate", {"w": "lr"}),
    ("Learning rate of alpha", "learning rate", {"alpha": "alpha_lr"}),
    ("Seconds an epoch", "seconds", {"seconds": "seconds"}),
)
UNEXPECTED = (OSError, KeyError, TypeError, AttributeError, IndexError, RecursionError, *DAMAGED)
# What the record of an epoch holds beside what is measured.
PLACES = {"epoch", "step", "stage", "genotype", "kind"}
# What is recorded and has no chart of its own: it lies beside another that has.
BESIDE = {"val_balanced_accuracy", "val_precision_weighted", "val_recall_weighted", "val_f1_weighted", *(
    f"test_{name}" for name in ("top5_accuracy", "balanced_accuracy", "expected_calibration_error", *(
        f"{score}_{average}" for score in ("precision", "recall", "f1") for average in ("macro", "weighted"))))}
ONLY_OF_SEARCHES = frozenset({"Weights of the ops over time", "Final weights", "Genotype by epoch"})
LEFT_OUT = {"train_final": ONLY_OF_SEARCHES}  # sections of which a script's runs never have anything
TITLES = {"train_search": "Architecture search", "train_final": "Training of a final network"}


class Missing(Exception):
    """A section has nothing to show; the message says why, in one line."""


def write_report(run: Path) -> Path:
    """Writes `run/report.html` from the files of the run folder and returns its path.

    A section whose file is missing or unreadable is one line that says so: a report is wanted most of a run that broke.
    """
    records = _epoch_records(run)
    serial = count()

    def inline(svg: str) -> str:
        return with_ids(svg, f"f{next(serial)}")

    known = [("Against the table", lambda: _yardstick(records, inline))] if any("table/" in key for r in records for key in r) else []
    sections: tuple[tuple[str, Callable[[], str]], ...] = (
        ("Result", lambda: _result(run)),
        ("Cells", lambda: _cells(run, inline)),
        *known,
        *([("Test, class by class", lambda: _classes(run, inline)), ("Confusion matrix of the test", lambda: _confusion(run, inline))]
          if "classes" in _quietly(run / "summary.json") else []),
        *([("How sure the search is", lambda: _sureness(run))] if _sure(run) else []),
        ("Curves", lambda: _curves(records, inline)),
        ("Weights of the ops over time", lambda: _alphas(run, inline)),
        ("Final weights", lambda: _heat_maps(run, inline)),
        ("Genotype by epoch", lambda: _timeline(run)),
        ("Genotype", lambda: page.preformatted(_text(run / "genotype.json"))),
        ("Configuration", lambda: page.preformatted(_text(run / "config.yaml"))),
        ("Environment", lambda: page.table(_flat(_json(run / "environment.json")), tall=True)),
        ("Reproduce", lambda: _reproduce(_json(run / "run.json"))),
    )
    title, summary = _headline(run, records)
    empty = LEFT_OUT.get(str(_quietly(run / "run.json").get("script")), frozenset())
    html = [page.header(title, summary), *(page.section(name, _or_reason(make)) for name, make in sections if name not in empty)]
    path = run / "report.html"
    write_whole(path, page.page(title, html).encode("utf-8", errors="replace"))
    return path


def _or_reason(make: Callable[[], str]) -> str:
    try:
        return make()
    except Missing as reason:
        return page.paragraph(f"Left out: {reason}.", soft=True)
    except UNEXPECTED as error:
        return page.paragraph(f"Left out: the file is not as expected ({type(error).__name__}: {error}).", soft=True)


# Reading


def _existing(path: Path) -> Path:
    if not path.exists():
        raise Missing(f"the run has no {path.name}")
    if path.suffix == ".npz":
        check_zip(path, MAX_BYTES)
    return path


def _text(path: Path) -> str:
    text = read_bytes(_existing(path), MAX_BYTES).decode(errors="replace")
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + f"\n... ({len(text) - MAX_TEXT:,} more characters in {path.name})"


def _json(path: Path) -> Any:
    return json.loads(read_text(_existing(path), MAX_BYTES))


def _field(data: Mapping[str, Any], key: str, file: str) -> Any:
    if key not in data:
        raise Missing(f"{file} has no {key!r}")
    return data[key]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines. A line cut short by a crash is skipped."""
    records = []
    for line in read_bytes(path, MAX_BYTES).decode(errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if type(record) is dict:
            records.append(record)
    return records


def _epoch_records(run: Path) -> list[dict[str, Any]]:
    """Per-epoch records by epoch; of one written twice (a resumed run) the later counts."""
    records = [r for r in _lines(run / "metrics.jsonl") if r.get("kind", "epoch") == "epoch" and _is_number(r.get("epoch"))]
    return [r for _, r in sorted({r["epoch"]: r for r in records}.items())]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _series(records: Sequence[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    kept = [(r["epoch"] + 1, r[key]) for r in records if _is_number(r.get(key))]
    return [x for x, _ in kept], [y for _, y in kept]


class AlphaTable(NamedTuple):
    """The edge weights of one kind of cell over a search."""

    epochs: np.ndarray   # (T,)
    weights: np.ndarray  # (T, E, O)
    edges: list[str]
    ops: list[str]
    note: str            # what is not shown, or nothing


def _alpha_tables(run: Path) -> dict[str, AlphaTable]:
    with np.load(_existing(run / "alphas.npz"), allow_pickle=False) as arrays:
        kinds = sorted(name.removeprefix("weights.") for name in arrays.files if name.startswith("weights."))
        if not kinds or not len(arrays["epoch"]):
            raise Missing("alphas.npz holds no weights")
        return {kind: _alpha_table(arrays, kind, MAX_EDGE_CHARTS // len(kinds)) for kind in kinds}


def _alpha_table(arrays: Mapping[str, np.ndarray], kind: str, most: int) -> AlphaTable:
    edges = edge_labels([(int(s), int(d)) for s, d in arrays[f"edges.{kind}"]], kind=kind)
    note = f" (the first {most} of {len(edges)} edges)" if len(edges) > most else ""
    ops = [str(op) for op in arrays[f"ops.{kind}"]]
    return AlphaTable(arrays["epoch"], arrays[f"weights.{kind}"][:, :most], edges[:most], ops, note)


# Sections


def _headline(run: Path, records: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The title, and one line of what was done and what was reached."""
    info, summary = _quietly(run / "run.json"), _quietly(run / "summary.json")
    script = str(info.get("script", ""))
    title = str(summary.get("title") or TITLES.get(script) or f"Run {run.resolve().name}")
    status = str(info.get("status", ""))
    said = [TITLES.get(script, script), "" if status == "running" else status,  # running: the report is the last thing a run writes
            f"started {info['started']}" if "started" in info else ""]
    said.append(f"{len(records)} epoch{'s' if len(records) != 1 else ''}" if records else "")
    for name, key in (("train", "train_accuracy"), ("validation", "val_accuracy")):
        epochs, values = _series(records, key)
        if values:
            best = max(range(len(values)), key=values.__getitem__)
            said.append(f"{name} accuracy {values[-1]:.2f} % at the end, at best {values[best]:.2f} % (epoch {epochs[best]:g})")
    return title, "; ".join(part for part in said if part) or "Nothing is recorded of what was done."


def _quietly(path: Path) -> dict[str, Any]:
    """The object in a file that the headline can do without; its own section says what is wrong with it."""
    try:
        data = json.loads(read_text(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if type(data) is dict else {}


def _reproduce(info: Mapping[str, Any]) -> str:
    """The command, and what it chose: the digest of the job and, of each group, the choice."""
    choices = info.get("choices") or {}
    rows = [("job", str(info["job"]))] if "job" in info else []
    rows += [(str(group), str(choice)) for group, choice in sorted(choices.items())] if type(choices) is dict else []
    command = page.preformatted(str(_field(info, "command", "run.json")), wrap=True)
    return command + (page.table(rows, tall=True) if rows else "")


def _result(run: Path) -> str:
    rows = _field(_json(run / "summary.json"), "rows", "summary.json")
    return page.table([(str(name), str(value)) for name, value in rows])


def _classes(run: Path, inline: Callable[[str], str]) -> str:
    summary = _json(run / "summary.json")
    note = ("Precision: of the items taken for a class, the share that is of it. Recall: of the items of a class, the share taken for it. "
            "F1: their harmonic mean. Each is 0 where nothing was taken for the class, or no item is of it.")
    below = ("Confidence is the probability of the class that is predicted, in 15 bins of equal width. Bars below the dashed line: surer "
             "than right. The calibration error is the mean distance of the dots to that line, each item counted once.")
    svg = reliability_svg(_field(summary, "calibration", "summary.json"))
    return (class_table(_field(summary, "classes", "summary.json")) + page.paragraph(note, soft=True) + page.heading("Reliability")
            + page.figure(inline(svg), "the share that is right against confidence") + page.paragraph(below, soft=True))


def _confusion(run: Path, inline: Callable[[str], str]) -> str:
    from supernet.runs.predictions import Predictions  # imports PyTorch, which the rest of a page does without

    found = Predictions.load(_existing(run / "predictions.npz"))
    html = []
    if len(found.class_names) <= MAX_DRAWN:
        svg = confusion_svg(found.confusion, found.class_names)
        html.append(page.figure(inline(svg), "items by true and predicted class", wide=True, caption=(
            "Rows: the true class; columns: the predicted one. Blue: right; orange: wrong; the stronger, the larger the share of its row "
            "(as a square root, so that rare mistakes are seen).")))
    return "".join([*html, page.heading("Commonest mistakes"), mistakes_table(found.confusion, found.class_names)])


def _sure(run: Path) -> dict[str, Any]:
    """What a search's summary says of its decisions; empty for runs of older versions, and for those in which nothing learned them."""
    values = _quietly(run / "summary.json").get("values")
    found = values.get("sureness") if type(values) is dict else None
    return found if type(found) is dict else {}


def _sureness(run: Path) -> str:
    found = _sure(run)
    epochs = f"{found['window_epochs']:g} epoch{'s' if found['window_epochs'] != 1 else ''}"
    html = [page.paragraph(
        "By the weights, each edge has its strongest op, each node its strongest edges. Ahead by: the weight of what was chosen less that "
        f"of its nearest rival. Moved by: the largest less the smallest value of that lead in the last {epochs}. A choice is unsure where "
        "a rival is behind by no more than its lead moved.", soft=True)]
    shown = sorted(found["decisions"], key=lambda d: (not d["kept"], d["kind"], not d["would_flip"]))
    for kept, title in ((True, "What the architecture is made of"), (False, "Edges that no node keeps")):
        rows = [(f"{d['kind']}, {d['where']}", "unsure" if d["would_flip"] else "sure",
                 f"{_choice(d, 'first')} before {_choice(d, 'second')}", f"{d['gap']:.4f}", f"{d['spread']:.4f}",
                 f"{d['since']:.2f}" if d["since"] else "the start")
                for d in shown if d["kept"] == kept]
        if rows:
            html += [page.heading(title), page.table(
                rows, head=("choice", "", "what was chosen", "ahead by", "moved by", "chosen since epoch"), tall=True)]
    return "\n".join(html)


def _choice(decision: Mapping[str, Any], which: str) -> str:
    return op_label(decision[which]) if decision["what"] == "op" else f"edge {decision[which]}"


def _cells(run: Path, inline: Callable[[str], str]) -> str:
    genotype = Genotype.load(_existing(run / "genotype.json"))
    num_edges = sum(len(edges) for _, edges in genotype.cells)
    if num_edges > MAX_DRAWN_EDGES:
        raise Missing(f"the genotype has {num_edges} edges, more than the {MAX_DRAWN_EDGES} that can be drawn legibly")
    notes = _json(run / "genotype.json")
    # a genotype that no run of ours wrote: cells that concatenate only some of their nodes have them among their space's arguments
    outputs = notes.get("outputs") or genotype.arguments.get("concat") or {}
    names = f"Space {genotype.space}, genotype {genotype.digest}."
    svg = cells_svg(genotype, outputs=outputs, num_inputs=notes.get("num_inputs"))
    return page.figure(inline(svg), "the cells of the genotype", wide=True, caption=names)


def _curves(records: Sequence[dict[str, Any]], inline: Callable[[str], str]) -> str:
    if not records:
        raise Missing("the run has no records of epochs in metrics.jsonl")
    entropies = sorted({key for r in records for key in r if key.startswith("alpha_entropy/")})
    entropy = ("Entropy of the weights", "entropy (nats)", {key.split("/", 1)[1]: key for key in entropies})
    figures = []
    for title, y_label, keys in (*CHARTS, entropy, *_others(records, entropies)):
        lines = {name: series for name, key in keys.items() if (series := _series(records, key))[0]}
        if lines:
            svg = line_chart(lines, x_label="epochs done", y_label=y_label)
            figures.append(page.figure(inline(svg), title, caption=title))
    if not figures:
        raise Missing("the records in metrics.jsonl hold none of the charted quantities")
    return page.grid(figures)


def _others(records: Sequence[dict[str, Any]], known: Sequence[str]) -> list[tuple[str, str, dict[str, str]]]:
    """A chart for every other number that was recorded, whoever recorded it; those of one name before a slash share theirs."""
    charted = {*PLACES, *BESIDE, *known, *(key for _, _, keys in CHARTS for key in keys.values())}
    found = {key for r in records for key, value in r.items() if _is_number(value) and key not in charted and not key.startswith("table/")}
    groups: dict[str, dict[str, str]] = {}
    for key in sorted(found):
        name, _, line = key.partition("/")
        groups.setdefault(name, {})[line or name] = key
    return [(plain(name.replace("_", " ")).capitalize(), "", keys) for name, keys in groups.items()]


def _yardstick(records: Sequence[dict[str, Any]], inline: Callable[[str], str]) -> str:
    """What a table of trained architectures knows of the genotype of each epoch, one column of charts a data set."""
    names = sorted({key.split("/")[1] for r in records for key in r if key.startswith("table/") and key.count("/") == 2})
    charts = (("Regret", "regret (% points)", {"regret": "regret"}),
              ("Test accuracy", "accuracy (%)", {"this genotype": "test_accuracy", "best of the space": "best_accuracy",
                                                 "mean of the space": "mean_accuracy"}),
              ("Rank", "rank", {"rank": "rank"}))
    html = []
    for name in names:
        figures = []
        for title, y_label, keys in charts:
            lines = {line: series for line, key in keys.items() if (series := _series(records, f"table/{name}/{key}"))[0]}
            if lines:
                svg = line_chart(lines, x_label="epochs done", y_label=y_label)
                figures.append(page.figure(inline(svg), f"{title} on {name}", caption=title))
        html.append(page.heading(name) + page.grid(figures))
    note = ("The genotype that would be selected after each epoch, looked up among architectures that were trained alone. Regret: the best "
            "test accuracy of the space minus this one's. The search itself never sees these numbers.")
    return page.paragraph(note, soft=True) + "\n".join(html)


def _alphas(run: Path, inline: Callable[[str], str]) -> str:
    tables = _alpha_tables(run)
    num_lines = sum(table.weights[0].size for table in tables.values())
    points = max(10, min(150, MAX_ALPHA_POINTS // num_lines))
    html = []
    for kind, (epochs, weights, edges, ops, note) in tables.items():
        charts = alpha_charts(epochs, weights, edges, ops, max_points=points)
        html += [page.heading(kind + note), page.legend([(op_label(op), colour) for op, colour in op_colours(ops).items()]),
                 page.grid([page.figure(inline(svg), f"{kind}, edge {edge}") for svg, edge in zip(charts, edges)], small=True)]
    return page.paragraph("Weight of each op against epochs done, one chart an edge.", soft=True) + "\n".join(html)


def _heat_maps(run: Path, inline: Callable[[str], str]) -> str:
    return page.grid([page.figure(inline(heat_map_svg(table.weights[-1], table.edges, table.ops)), f"final weights of {kind}",
                                  wide=True, caption=kind + table.note) for kind, table in _alpha_tables(run).items()])


def _timeline(run: Path) -> str:
    """The epochs at which the genotype became another, and what changed."""
    rows, last = [], None
    for record in _lines(run / "genotypes.jsonl"):
        genotype = Genotype.from_json(record.get("genotype"), "genotypes.jsonl")
        if last is None or genotype != last:
            rows.append((str(record.get("epoch", -1) + 1), genotype.digest, "first" if last is None else _difference(last, genotype)))
        last = genotype
    if not rows:
        raise Missing("the run has no genotypes.jsonl")
    note = f" The last {MAX_CHANGES} are shown." if len(rows) > MAX_CHANGES else ""
    changes = len(rows) - 1
    return (page.paragraph(f"The genotype changed {changes} time{'s' if changes != 1 else ''}.{note}", soft=True)
            + page.table(rows[-MAX_CHANGES:], head=("after epoch", "genotype", "change"), tall=True))


def _difference(old: Genotype, new: Genotype) -> str:
    parts = []
    for kind, edges in new.cells:
        before = dict(old.cells).get(kind, ())
        first = min((e.destination for e in (*edges, *before)), default=0)
        gone = _edge_texts(kind, before, first, Counter(before) - Counter(edges))
        come = _edge_texts(kind, edges, first, Counter(edges) - Counter(before))
        if gone or come:
            parts.append(f"{kind}: " + ", ".join([f"− {text}" for text in gone] + [f"+ {text}" for text in come]))
    return "; ".join(parts)


def _edge_texts(kind: str, edges: Sequence[Edge], num_inputs: int, chosen: Counter[Edge]) -> list[str]:
    """Of all edges of a kind, those chosen: op and place."""
    pairs = [(e.source, e.destination) for e in edges]
    names = dict(zip(pairs, edge_labels(pairs, num_inputs, kind)))
    return [f"{op_label(e.op)} {names[e.source, e.destination]}" for e in chosen.elements()]


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows; the keys of inner objects are joined by dots."""
    rows = []
    for key, value in data.items():
        rows += _flat(value, f"{prefix}{key}.") if type(value) is dict else [(f"{prefix}{key}", str(value)[:MAX_TEXT])]
    return rows
