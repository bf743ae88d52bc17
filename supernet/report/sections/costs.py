"""What a run cost, and what its architecture costs."""

from collections.abc import Callable
from typing import Any

from supernet.report import page
from supernet.report.document import Drawn, Missing
from supernet.report.run_files import RunFiles, is_number


def shown(run: RunFiles) -> Drawn:
    values, records = run.values, run.records
    rows = [(str(name), str(value)) for name, value in run.summary.get("rows", []) if str(name).startswith("cost, ")]
    for key, name, text in VALUES:
        if is_number(values.get(key)):
            rows.append((name, text(values[key])))
    spent = values.get("elapsed_s", records[-1].get("elapsed_s") if records else None)
    if is_number(spent):
        rows.append(("time", f"{duration(spent)}{'' if run.values else ' so far'}"))
    trained = [r["seconds"] for r in records if is_number(r.get("seconds"))]
    if trained:
        rows.append(("of that, epochs", f"{duration(sum(trained))}: {len(trained)} of {duration(sum(trained) / len(trained))} on average"))
    speeds = [r["items_per_s"] for r in records if is_number(r.get("items_per_s"))]
    if speeds:
        rows.append(("items a second", f"{sum(speeds) / len(speeds):,.0f} on average"))
    for part in ("device", "gpu", "threads"):
        value = run.quietly("environment.json").get(part)
        if value not in (None, ""):
            rows.append((part, str(value)))
    if not rows:
        raise Missing("nothing is recorded of what it cost")
    return Drawn(page.table(rows))


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


VALUES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("parameters", "parameters", lambda n: f"{n / 1e6:.6f} M"),
    ("multiply_adds", "multiply-adds an item", lambda n: f"{n / 1e6:.3f} M"),
    ("latency_ms", "latency", lambda n: f"{n:.3g} ms"),
    ("peak_memory_mib", "peak memory", lambda n: f"{n:,.0f} MiB"),
)
