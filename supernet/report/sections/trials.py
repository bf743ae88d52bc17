"""What a search by trials tried: the best so far, every trial's score, and two scores against each other where there are two."""

import math
from collections import Counter
from typing import Any

from supernet.report import page
from supernet.report.curves import thinned
from supernet.report.document import Drawn, Missing, drawing
from supernet.report.names import plain
from supernet.report.run_files import RunFiles

MAX_POINTS = 20_000


def shown(run: RunFiles) -> Drawn | None:
    """None for a search that tried nothing one by one."""
    if not run.folder.trials.exists():
        return None
    found = [(r["number"], [float(score) for score in r["scores"]], str(r.get("change", ""))) for r in run.lines("trials.jsonl")
             if r.get("refused") is None and type(r.get("scores")) is list and r["scores"] and type(r.get("number")) is int]
    if not found:
        raise Missing("trials.jsonl holds no trial that was evaluated")
    names = objectives(run, len(found[0][1]))
    same = [one for one in found if len(one[1]) == len(names)]
    best, x, y = -math.inf, [], []
    for number, scores, _ in same:
        if scores[0] > best:
            best = scores[0]
            x.append(number)
            y.append(best)
    x.append(same[-1][0])
    y.append(best)
    keep = thinned(len(same), MAX_POINTS)
    points = [same[i] for i in keep]
    panels = [{"title": f"{names[0]} of every trial".capitalize(), "x": "trial", "y": names[0],
               "points": [[n, s[0], _told(n, c)] for n, s, c in points]}]
    for n, name in enumerate(names[1:], start=1):
        panels.append({"title": f"{names[0]} and {name}", "x": name, "y": names[0],
                       "points": [[s[n], s[0], _told(number, c)] for number, s, c in points]})
    changes = Counter(change or "unknown" for *_, change in same)
    note = f"{len(same)} trials were evaluated: {', '.join(f'{count} by {plain(name)}' for name, count in changes.most_common(8))}. " \
           "Scores are as they are compared, larger is better."
    stairs = {"title": f"Best {names[0]} so far", "unit": "", "xname": "trial", "lines": [{"name": "best", "x": x, "y": y}]}
    places = [drawing("best", kind="charts", label="the best score so far, by trial"),
              drawing("scores", kind="scatters", label="the score of every trial")]
    return Drawn(page.paragraph(note, soft=True) + page.grid(places), {"best": [stairs], "scores": panels})


def objectives(run: RunFiles, count: int) -> list[str]:
    """The names of the scores: of the summary, else of the options; numbered where neither tells `count` of them."""
    told: Any = run.values.get("objective")
    if type(told) is not list:
        options = run.options.get("objective")
        told = [*(options.get("maximise") or []), *(options.get("minimise") or [])] if type(options) is dict else []
    names = [plain(str(name).replace("_", " ")) for name in told]
    return names if len(names) == count else [f"score {n + 1}" for n in range(count)] if count > 1 else ["score"]


def _told(number: int, change: str) -> str:
    return f"trial {number}: {plain(change)}" if change else f"trial {number}"
