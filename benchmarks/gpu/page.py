"""docs/gpu.md from the journal of a run: `python -m benchmarks.gpu --page [FILE]`. What stands between its marks is written here, so that
no number is copied by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.fast import MARK, SIZES
from benchmarks.gpu.final import EPOCHS, WAYS, WHOLE
from benchmarks.gpu.finals import IMAGES
from benchmarks.gpu.parts import PARTS, WHOLE_S
from benchmarks.gpu.searches import CASES
from benchmarks.gpu.speed import PUBLISHED
from benchmarks.gpu.variants import VARIANTS
from benchmarks.report import markdown_table, replaced
from supernet.errors import UsageError
from supernet.runs.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / "docs" / "gpu.md", ROOT / "benchmarks" / "results" / "gpu.jsonl"
BEGIN, END = "<!-- benchmarks.gpu --page writes what follows -->", "<!-- benchmarks.gpu --page ends -->"
NOTHING = "No GPU has run this yet: every number of one is missing, and no default rests on any."
STEPS = {"w": "weight step", "alpha": "alpha step", "second": "second order", "train": "training step"}
MIB = 2**20

Record = Mapping[str, Any]
Records = Sequence[Record]


def write(source: Path = RESULTS, path: Path = PAGE) -> bool:
    """Writes the page's block; whether it has changed. Raises UsageError: there is no such file, unless it is the usual one, or the page
    has lost its marks."""
    if not source.exists() and source != RESULTS:
        raise UsageError(f"--page: there is no file {source}")
    old = path.read_text()
    try:
        new = replaced(old, block(list(Journal.readable(source))), BEGIN, END)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if new != old:
        path.write_text(new)
    return new != old


def block(records: Records) -> str:
    lines = ["## The parts", "", *parts_table(records), "", "## What was measured", ""]
    if not records:
        return "\n".join([*lines, NOTHING])
    sections = [machine(records), failures(records), exactness(records), speed(records), where(records), memory(records), loading(records),
                finals(records), fast(records), searches(records), checkpoints(records)]
    return "\n".join([*lines, *("\n".join(section) + "\n" for section in sections if section)]).rstrip()


# ---- what the journal holds


def results(records: Records, part: str) -> dict[str, Record]:
    """The last result of each check, by its name."""
    return {r["check"]: r for r in records if r.get("kind") == "check" and r["part"] == part}


def values(records: Records, part: str, check: str) -> Mapping[str, Any]:
    """Those of a check that has passed; none otherwise."""
    found = results(records, part).get(check, {})
    return found.get("values", {}) if found.get("verdict") == "passed" else {}


def last(records: Records, kind: str) -> Record:
    return next((r for r in reversed(records) if r.get("kind") == kind), {})


# ---- the sections


def parts_table(records: Records) -> list[str]:
    verdicts = {r["part"]: r for r in records if r.get("kind") == "verdict"}
    rows = [("part", "what it does", f"limit, of {WHOLE_S / 60:g} minutes", "verdict", "checks", "s")]
    for part in PARTS:
        found = verdicts.get(part.name, {})
        limit = f"{part.limit_s:g} s" if part.limit_s else f"{part.rest:.0%} of what is left"
        checks = ", ".join(f"{n} {verdict}" for verdict, n in sorted(found.get("checks", {}).items()))
        seconds = f"{found['seconds']:.0f}" if found else ""
        rows.append((f"`{part.name}`", part.about, limit, found.get("verdict", "not run"), checks, seconds))
    return markdown_table(rows)


def machine(records: Records) -> list[str]:
    found = last(records, "machine")
    known, smi = found.get("environment", {}), found.get("smi", {})
    commit = (known.get("git_commit") or "unknown")[:12] + (" with changes" if known.get("git_dirty") else "")
    what = "**A stand-in on a CPU: the numbers mean nothing.**" if found.get("stand_in") else smi.get("name", "an unknown GPU")
    lines = [f"{what} Driver {smi.get('driver_version', 'none')}, torch {known.get('torch')}, CUDA {known.get('cuda')}, cuDNN "
             f"{known.get('cudnn')}, Triton {known.get('triton')}, Python {known.get('python')}; {known.get('cpu')}, "
             f"{known.get('cores')} cores; commit {commit}."]
    if smi:
        lines.append(f"Clocks at the start: {smi['clocks.sm']} of {smi['clocks.max.sm']} MHz, memory {smi['clocks.mem']} of "
                     f"{smi['clocks.max.mem']} MHz, {smi['temperature.gpu']} degrees, {smi['power.draw']} of {smi['power.limit']} W.")
    return lines


def failures(records: Records) -> list[str]:
    rows = [(f"`{part.name}`", check, " ".join(str(r.get("error", "")).strip().splitlines()[-1:])[:200])
            for part in PARTS for check, r in results(records, part.name).items() if r["verdict"] == "failed"]
    whys = [(f"`{part}`", "", str(r["why"])[:200]) for part, r in {r["part"]: r for r in records if r.get("kind") == "verdict"}.items()
            if r.get("why")]
    return ["### What failed, was cut or skipped", "", *markdown_table([("part", "check", "why"), *rows, *whys])] if rows or whys else []


def exactness(records: Records) -> list[str]:
    """How far kernels and networks are from float64."""
    rows = []
    for precision in ("float32", "bf16"):
        found = [r["values"] for check, r in results(records, "kernels").items() if check.endswith(f", {precision}") and "forward" in r.get(
            "values", {})]
        if found:
            off = (number(None if None in (seen := [v[k] for v in found]) else max(seen)) for k in ("forward", "backward"))
            rows.append((f"kernels, {precision}: worst of {len(found)}", *off))
    lines = [*markdown_table([("", "forward", "backward"), *rows]), ""] if rows else []
    networks = [(check, *(number(r["values"]["off"][k]) for k in ("train", "val", "w", "alpha")),
                 ", ".join(f"{r['values']['cosine'][k]:.4f}" for k in ("w", "alpha")))
                for check, r in results(records, "networks").items() if "off" in r.get("values", {})]
    if networks:
        head = ("network", "training loss", "validation loss", "gradient of w", "hypergradient", "cosine of both")
        lines += markdown_table([head, *networks])
    return ["### How far from float64", "", *lines] if lines else []


def speed(records: Records) -> list[str]:
    """A table a space: milliseconds, how many times that the published loop takes, launches, MiB."""
    lines: list[str] = []
    for case in [*(c.name for c in CASES), "final"]:
        other = values(records, "speed", f"{case}, {PUBLISHED}")
        named = [(name, values(records, "speed", f"{case}, {name}")) for name in (PUBLISHED, *(v.name for v in VARIANTS))]
        named = [(name, found) for name, found in named if found]
        if named:
            steps = [step for step in STEPS if step in named[0][1]]
            rows = [(f"`{name}`", *(cell(found.get(step), other.get(step)) for step in steps)) for name, found in named]
            lines += [f"### Speed: {case}", "", "Milliseconds (times the published loop's), launches or nodes, MiB.", "",
                      *markdown_table([("", *(STEPS[s] for s in steps)), *rows]), ""]
    return lines


def cell(found: Record | None, other: Record | None) -> str:
    if not found:
        return ""
    ratio = f" ({other['wall_s'] / found['wall_s']:.2f}x)" if other else ""
    launches = "?" if found["launches"] is None else f"{found['launches']:,}"
    return f"{found['wall_s'] * 1e3:.1f}{ratio}, {launches}, {found['peak_bytes'] / MIB:.0f}"


def where(records: Records) -> list[str]:
    lines = []
    for check, r in results(records, "where").items():
        for step, line in r.get("values", {}).items() if check.startswith("timeline of ") and r["verdict"] == "passed" else ():
            top = "; ".join(f"{op['share']:.0%} `{op['name'][:60]}` ({op['calls']:,})" for op in line["top"][:5])
            lines.append((check.removeprefix("timeline of "), STEPS.get(step, step), f"{line['launches']:,}", f"{line['span_ms']:.1f}",
                          f"{line['busy_ms']:.1f}", f"{line['median_gap_us']:.1f}", top))
    head = ("variant", "step", "launches", "from first to last, ms", "busy, ms", "median gap, us", "most time")
    return ["### Where the time goes", "", *markdown_table([head, *lines])] if lines else []


def memory(records: Records) -> list[str]:
    rows = [(check.removeprefix("memory of "), f"{v['predicted_bytes'] / MIB:.0f}", f"{v['taken_bytes'] / MIB:.0f}", f"{v['ratio']:.2f}")
            for check, r in results(records, "where").items() if "predicted_bytes" in (v := r.get("values", {}))]
    head = ("", "dry run", "taken", "ratio")
    return ["### Memory: the dry run's MiB and those taken", "", *markdown_table([head, *rows])] if rows else []


def loading(records: Records) -> list[str]:
    rows = [(check, f"{r['values']['images_per_s']:,.0f}") for check, r in results(records, "loading").items() if "images_per_s" in r.get(
        "values", {})]
    return ["### The data path", "", *markdown_table([("", "images a second"), *rows])] if rows else []


def checkpoints(records: Records) -> list[str]:
    rows = [(check.removeprefix("steps of "), *(f"{ms:.2f}" for ms in v["step_ms"].values()),
             *(f"{ms:.1f}" for ms in v["checkpoint_ms"].values()), f"{v['bytes'] / MIB:.1f}")
            for check, r in results(records, "checkpoints").items() if "checkpoint_ms" in (v := r.get("values", {}))]
    head = ("", "step without, ms", "with, in their midst", "with, in the background", "a checkpoint in their midst, ms",
            "in the background, ms", "MiB")
    return ["### Checkpoints", "", *markdown_table([head, *rows])] if rows else []


def finals(records: Records) -> list[str]:
    """The published training of DARTS_V2 under every way to compute it."""
    rows = []
    for name in WAYS:
        if v := values(records, "final", name):
            rows.append((f"`{name}`", f"{v['step_s'] * 1e3:.1f}", f"{v['flowing_s'] * 1e3:.1f}", f"{v['images_per_s']:,.0f}",
                         f"{v['epoch_s']:.1f}", f"{v['epoch_s'] * EPOCHS / 3600:.1f}", f"{v['peak_bytes'] / MIB:.0f}",
                         f"{v['warm_s']:.0f}"))
    if not rows:
        return []
    head = ("", "a step, ms", "steps in a row, ms", "images a second", "s an epoch", f"h for {EPOCHS} epochs", "MiB", "to begin, s")
    whole = values(records, "final", WHOLE)
    said = f"A whole epoch of `{whole['way']}`, {whole['images']:,} images: {whole['seconds']:.1f} s." if whole else ""
    return ["### Final training: DARTS_V2 as published", "", f"20 cells, C=36, batch 96, auxiliary head, Cutout, drop path; an epoch of "
            f"{IMAGES:,} images at the pace of some seconds.", "", *markdown_table([head, *rows]), *(["", said] if said else [])]


def fast(records: Records) -> list[str]:
    rows = []
    for name in SIZES:
        if v := values(records, "fast", name):
            reached = v["reached"]
            rows.append((name, f"{v['images']:,} + {v['held_out']:,}", f"{v['epochs']} of {v['of_epochs']}", f"{v['epoch_s']:.1f}",
                         percent(v["best"]), f"after {reached['seconds']:.0f} s, epoch {reached['epoch']}" if reached else "not reached"))
    head = ("network", "images, trained on + held out", "epochs", "s an epoch", "best %", f"{MARK:g} %")
    return [f"### recipe=fast to {MARK:g} %", "", *markdown_table([head, *rows])] if rows else []


def searches(records: Records) -> list[str]:
    """What searches of full size found, and how it went epoch by epoch."""
    rows, epochs = [], []
    for part in ("nasbench201", "cifar10"):
        for check, r in results(records, part).items():
            v = r.get("values", {})
            if v.get("epochs"):
                rows.append((check, v["variant"], " + ".join(f"{n:,}" for n in v["split"]), f"{v['epochs']} of {v['of_epochs']}",
                             f"{v['epoch_s']:.2f}", *(percent(v.get(k)) for k in ("val_accuracy", "table/cifar10/test_accuracy",
                                                                                 "table/cifar10/regret")), f"`{v['text']}`"))
    for preset in dict.fromkeys(r["preset"] for r in records if r.get("kind") == "note" and "preset" in r):
        own = [r for r in records if r.get("kind") == "note" and r.get("preset") == preset and "table/cifar10/test_accuracy" in r]
        if own:
            epochs.append(f"True accuracy of each epoch's cell, {preset}: " + ", ".join(
                percent(r["table/cifar10/test_accuracy"]) for r in own) + ".")
    head = ("search", "variant", "images for w + alpha", "epochs", "s an epoch", "supernet %", "true accuracy %", "regret", "cell")
    return ["### Searches", "", *markdown_table([head, *rows]), "", *epochs] if rows else []


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2g}"
