"""A chart for every number that a run recorded, whoever recorded it."""

from collections.abc import Sequence

from supernet.report import page
from supernet.report.document import Drawn, Missing, drawing
from supernet.report.names import plain
from supernet.report.run_files import RunFiles, is_number
from supernet.report.series import Chart, chart

CHARTS = (
    Chart("Loss", "nats", {"train": "train_loss", "validation": "val_loss", "test": "test_loss"}),
    Chart("Accuracy", "%", {"train": "train_accuracy", "validation": "val_accuracy", "validation, top 5": "val_top5_accuracy",
                            "test": "test_accuracy"}),
    Chart("Precision, recall and F1 of validation", "%, mean over classes", {"precision": "val_precision_macro",
                                                                            "recall": "val_recall_macro", "F1": "val_f1_macro"}),
    Chart("Calibration error of validation", "%, expected", {"validation": "val_expected_calibration_error"}),
    Chart("Bits per character", "bits", {"train": "train_bits_per_character", "validation": "val_bits_per_character"}),
    Chart("Perplexity", "", {"train": "train_perplexity", "validation": "val_perplexity"}),
    Chart("Ops without parameters", "share of the kept edges",
          {"skip connections": "skip_share", "all of them": "parameter_free_share"}),
    Chart("Eigenvalue of the Hessian by alpha", "largest eigenvalue", {"eigenvalue": "eigenvalue"}),
    Chart("Learning rate of w", "", {"w": "lr"}),
    Chart("Learning rate of alpha", "", {"alpha": "alpha_lr"}),
)
LAST = (Chart("Seconds an epoch", "s", {"seconds": "seconds"}), Chart("Items a second", "", {"items": "items_per_s"}))
SPLIT = {"alpha_entropy": ("Entropy of the weights", "nats"),  # names before a slash
         "alpha_gap": ("Lead of the strongest op over the next", "weight")}
MAX_CHARTS = 60
MAX_LINES = 24  # of a chart
# What the record of an epoch holds beside what is measured.
PLACES = {"epoch", "step", "stage", "genotype", "kind", "elapsed_s"}
# What is recorded and has no chart of its own: it lies beside another that has.
BESIDE = {"val_balanced_accuracy", "val_precision_weighted", "val_recall_weighted", "val_f1_weighted", *(
    f"test_{name}" for name in ("top5_accuracy", "balanced_accuracy", "expected_calibration_error", *(
        f"{score}_{average}" for score in ("precision", "recall", "f1") for average in ("macro", "weighted"))))}


def shown(run: RunFiles) -> Drawn | None:
    if not run.records and run.folder.trials.exists():
        return None  # a search by trials need not train anything
    if not run.records:
        raise Missing("the run has no records of epochs in metrics.jsonl")
    more = others(run)
    found = [drawn for one in (*CHARTS, *more[:MAX_CHARTS], *LAST) if (drawn := chart(run, one))]
    if not found:
        raise Missing("the records in metrics.jsonl hold no numbers")
    note = page.paragraph("Against epochs done. Drag over a stretch to look closer, double-click to go back; a click on a name hides its "
                          "line.", soft=True)
    left = sum(len(one.lines) for one in more[MAX_CHARTS:])
    if left:
        note += page.paragraph(f"The first {MAX_CHARTS} other quantities are shown; metrics.jsonl holds {left} more.", soft=True)
    return Drawn(note + drawing("curves", kind="charts", label="curves of what was recorded"), {"curves": found})


def others(run: RunFiles) -> Sequence[Chart]:
    """Those of one name before a slash share theirs, MAX_LINES at most."""
    known = {*PLACES, *BESIDE, *(key for one in (*CHARTS, *LAST) for key in one.lines.values())}
    found = {key for r in run.records for key, value in r.items() if is_number(value) and key not in known}
    groups: dict[str, dict[str, str]] = {}
    for key in sorted(found):
        name, _, line = key.partition("/")
        if name != "table" or not line:
            groups.setdefault(name, {})[line or name] = key
    found = []
    for name, keys in groups.items():
        title, unit = SPLIT.get(name, (plain(name.replace("_", " ")).capitalize(), ""))
        lines = list(keys.items())
        for n in range(0, len(lines), MAX_LINES):
            found.append(Chart(title if n == 0 else f"{title} ({n // MAX_LINES + 1})", unit, dict(lines[n:n + MAX_LINES])))
    return found
