"""The front of a search for several scores, and its scores against what architectures cost."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from supernet.report import page
from supernet.report.curves import thinned
from supernet.report.document import Drawn, drawing
from supernet.report.progress import comparable, front_of, staircase
from supernet.report.run_files import RunFiles, is_number
from supernet.report.wanted import label, limits, scores_of
from supernet.trials import Trial, best

MAX_POINTS = 8_000  # of a scatter, beside the front
MAX_PANELS = 12
MAX_MEMBERS = 200   # rows of the table


class Axis:
    """A quantity of trials. score: which one it is of theirs, None where it is a metric beside them; sign: -1 where less is better."""

    def __init__(self, name: str, of: Callable[[Trial], float | None], score: int | None = None, sign: int = 1) -> None:
        self.name, self.of, self.score, self.sign = name, of, score, sign


def shown(run: RunFiles) -> Drawn | None:
    trials = comparable(run.trials)
    if not trials:
        return None
    scores = scores_of(run)
    axes = [Axis(s.metric, lambda trial, n=n, s=s: s.shown(trial.scores[n]), n, s.sign) for n, s in enumerate(scores)]
    known = dict.fromkeys(name for trial in trials for name, value in trial.metrics.items() if is_number(value))
    beside = [Axis(name, lambda trial, name=name: trial.metrics.get(name)) for name in known if name not in {s.metric for s in scores}]
    pairs = [*((y, x) for y, x in combinations(axes, 2)), *((axes[0], x) for x in beside)][:MAX_PANELS]
    if not pairs:
        return None
    members = front_of(trials) if len(scores) > 1 else []
    chosen, bounds = best(trials), limits(run)
    panels = [_panel(y, x, trials, members, chosen, bounds, steps=len(scores) == 2) for y, x in pairs]
    limited = any(some for panel in panels for some in panel["limits"].values())
    html = page.paragraph(_note(len(trials), len(members), len(scores), limited), soft=True)
    html += drawing("front", kind="scatters", label="scores against each other and against costs")
    if members:
        head = ("trial", *(s.label for s in scores), *(label(a.name) for a in beside))
        rows = [(f"{t.number}{' (chosen)' if chosen is not None and t.number == chosen.number else ''}",
                 *(_number(a.of(t)) for a in (*axes, *beside))) for t in members[:MAX_MEMBERS]]
        more = f" The first {MAX_MEMBERS} are listed." if len(members) > MAX_MEMBERS else ""
        html += page.heading("Members of the front") + (page.paragraph(more.strip(), soft=True) if more else "")
        html += page.table(rows, head=head, tall=True, numbers=True)
    return Drawn(html, {"front": panels})


def _note(known: int, members: int, scores: int, limited: bool) -> str:
    said = [f"A point an architecture that was evaluated ({known:,})."]
    if members:
        how = "with the border of what they beat" if scores == 2 else f"all {scores} taken together"
        said.append(f"Strong: the {members} that no other beats in every score, {how}.")
    said.append("Ringed: the best by the first score, which a search chooses.")
    if limited:
        said.append("Dashed: a hard limit.")
    return " ".join(said)


def _panel(y: Axis, x: Axis, trials: Sequence[Trial], members: Sequence[Trial], chosen: Trial | None, bounds: Any, *,
           steps: bool) -> dict[str, Any]:
    strong = {trial.number for trial in members}
    rest = [trial for trial in trials if trial.number not in strong]
    both = members and x.score is not None and steps
    corners = staircase([(x.sign * x.of(t), y.sign * y.of(t)) for t in members]) if both else []
    return {"title": f"{label(y.name)} against {label(x.name)}", "x": label(x.name), "y": label(y.name),
            "points": _points(x, y, [rest[i] for i in thinned(len(rest), MAX_POINTS)] if rest else []),
            "strong": _points(x, y, members), "chosen": _points(x, y, [] if chosen is None else [chosen]),
            "from": _fence(y, members or trials),
            "front": [[x.sign * a, y.sign * b] for a, b in corners] or None,
            "better": y.sign, "limits": {"x": list(bounds.get(x.name, ())), "y": list(bounds.get(y.name, ()))}}


def _fence(y: Axis, trials: Sequence[Trial]) -> float | None:
    """Where a closer look at the good ones begins: three times the middle half below it (Tukey's outer fence), as collapsed architectures
    would fill most of the picture. None where that leaves nothing out."""
    values = np.array([y.sign * value for trial in trials if is_number(value := y.of(trial))])
    if not len(values):
        return None
    low, high = np.quantile(values, (0.25, 0.75))
    fence = float(low - 3 * (high - low))
    return y.sign * fence if high > low and values.min() < fence else None


def _points(x: Axis, y: Axis, trials: Sequence[Trial]) -> list[list[Any]]:
    found = ((x.of(t), y.of(t), t) for t in trials)
    return [[a, b, f"trial {t.number}" + (f": {t.change[:80]}" if t.change else "")] for a, b, t in found if is_number(a) and is_number(b)]


def _number(value: Any) -> str:
    return f"{value:.6g}" if is_number(value) else "\u2013"
