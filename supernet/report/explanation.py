"""`Explanation`: why an architecture is as it is, as far as something was computed of it: values, sentences, and explanation.json."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supernet.files import read_text, write_whole
from supernet.formats import Format
from supernet.genotype import Genotype
from supernet.report.agreement import Agreement, Shared
from supernet.report.effects import Carried, Effect, Place, View
from supernet.report.names import lowered, op_label
from supernet.runs.journal import to_json

FORMAT = Format("supernet.explanation")
MAX_BYTES = 20_000_000
FILE = "explanation.json"
BEST = 3       # neighbours that are named
JUDGES = {"shared weights": "By the supernet's shared weights", "own weights": "By its own weights", "table": "By the table"}


@dataclass(frozen=True)
class Margin:
    """A decision of the search's edge weights: where, what leads what, by how much, how far that lead moved within the last `window`
    epochs, and whether it could turn. has: what the architecture has there, where that is another op than leads."""

    where: str
    first: str
    second: str
    gap: float
    spread: float
    window: float
    unsure: bool
    has: str | None = None


@dataclass(frozen=True)
class Explanation:
    """left_out: why a part is missing, by its title."""

    genotype: Genotype
    text: str  # the architecture in one line, `Space.text`
    views: tuple[View, ...] = ()
    margins: tuple[Margin, ...] = ()
    agreement: Agreement | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """`told`: the sentences; `views`, `margins`, `agreement`: the numbers in them, and those that are not told. `summed` of a view:
        the sentences that speak of all its edges and steps."""
        agreed = None if self.agreement is None else asdict(self.agreement)
        found = {**FORMAT.stamp(), "genotype": self.genotype.to_json(), "digest": self.genotype.digest, "text": self.text,
                 "told": [[title, list(said)] for title, said in told(self)],
                 "views": [asdict(view) | {"summed": summed(view)} for view in self.views],
                 "margins": [asdict(margin) for margin in self.margins], "agreement": agreed, "left_out": dict(self.left_out)}
        return found | {"sha256": _digest(found)}

    def save(self, path: Path) -> None:
        """Whole or not at all. Raises OSError."""
        write_whole(path, (to_json(self.to_json(), indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """What `save` wrote. Raises OSError, ValueError: it is something else, or was changed."""
    try:
        read = json.loads(read_text(path, MAX_BYTES))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    data = FORMAT.current(read)
    if read.pop("sha256", None) != _digest(read):
        raise ValueError("it is not what was written (sha256 differs)")
    return data


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(json.loads(to_json(data))).encode()).hexdigest()  # as it reads once it is written


# ---- sentences


def told(found: Explanation) -> list[tuple[str, list[str]]]:
    """Titles, each with its sentences. Each number in them stands in the values."""
    parts = [(JUDGES[view.by], _view(view)) for view in found.views]
    if found.margins:
        parts.append(("How far ahead its choices were", _margins(found.margins)))
    if found.agreement is not None:
        parts.append(("Agreement over runs", _agreement(found.agreement)))
    return parts + ([("Not told", [f"{title}: {why}." for title, why in found.left_out.items()])] if found.left_out else [])


def _view(view: View) -> list[str]:
    said = list(view.on)
    kinds = {one.place.kind for one in view.carried}
    ordered = sorted((one for one in view.carried if one.without is not None), key=lambda one: one.without.difference)
    idle = [one for one in view.carried if one.place.op == "none"]
    unknown = [one for one in view.carried if one.without is None and one not in idle]
    for one in [*ordered, *unknown]:
        said.append(_carried(one, kinds))
    for one in idle:
        said.append(f"{_named(one.place, kinds)} has the op none, and carries nothing by construction.{_instead(one)}")
    return [*said, *_of_edges(view), *_counted(view), *_best(view), *_of_many(view)]


def _carried(one: Carried, kinds: set[str]) -> str:
    name = f"{_named(one.place, kinds)}, {op_label(one.place.op)}"
    if one.without is None:
        return f"{name}: it cannot be taken out alone.{_instead(one)}"
    alike = " It computes the same function without." if one.without.same_function else ""
    return f"{name}: without it {one.without.accuracy:.2f} %, {_difference(one.without)}.{alike}{_instead(one)}"


def _instead(one: Carried) -> str:
    others = {op: effect for op, effect in one.instead.items() if op != "none" or one.without is None}  # with none it is taken out
    if not others:
        return ""
    ordered = sorted(others.items(), key=lambda item: -item[1].difference)
    (best, most), (worst, least) = ordered[0], ordered[-1]
    text = f" In its place {op_label(best)} {'would be best' if len(ordered) > 1 else 'is the only other'}, {_brief(most)}"
    return text + (f", and {op_label(worst)} worst, {_brief(least)}." if len(ordered) > 1 else ".")


def summed(view: View) -> list[str]:
    """What is said of all edges, and of all steps, without naming any."""
    return [*_of_edges(view), *_counted(view), *_of_many(view)]


def _of_edges(view: View) -> list[str]:
    measured = [one.without for one in view.carried if one.without is not None and one.without.surely is not None]
    if not measured:
        return []
    carry, harm = (sum(bool(one.surely) and sign * one.difference < 0 for one in measured) for sign in (1, -1))
    return [f"So {carry} of {len(measured)} edges {'carries' if carry == 1 else 'carry'} something for sure, and {harm} "
            f"{'does' if harm == 1 else 'do'} harm for sure: told from 0 also when all changes that were measured are looked at together "
            "(Bonferroni, 95 %)."]


def _counted(view: View) -> list[str]:
    if not view.steps:
        return [f"Nothing is known here of its {view.unjudged:,} neighbours, one change away." if view.unjudged else
                "It has no neighbour one change away."]
    better, worse = _better(view), sum(step.effect.difference < 0 for step in view.steps)
    missing = f"; {view.unjudged:,} more are not known" if view.unjudged else ""
    equal = len(view.steps) - better - worse
    return [f"Of {len(view.steps):,} neighbours, one change away, {better:,} {_are(better)} better, {worse:,} {_are(worse)} worse and "
            f"{equal:,} equal{missing}." + ("" if better else " So no single change improves it here.")]


def _best(view: View) -> list[str]:
    shown = [step for step in view.steps if step.effect.difference > 0][:BEST]
    return [f"{'The best' if n == 0 else 'Next'}: {lowered(step.change)}: {step.effect.accuracy:.2f} %, {_difference(step.effect)}."
            + (" It computes the same function." if step.effect.same_function else "") for n, step in enumerate(shown)]


def _of_many(view: View) -> list[str]:
    better = _better(view)
    if not better or view.steps[0].effect.surely is None:
        return []
    surely = sum(bool(step.effect.surely) and step.effect.difference > 0 for step in view.steps)
    return [f"The best of many looks better than it is: taken together (Bonferroni, 95 %), {surely:,} of these {better:,} {_are(surely)} "
            "better for sure."]


def _better(view: View) -> int:
    return sum(step.effect.difference > 0 for step in view.steps)


def _margins(margins: Sequence[Margin]) -> list[str]:
    unsure = sum(margin.unsure for margin in margins)
    window = f"{margins[0].window:g} epoch{'' if margins[0].window == 1 else 's'}"
    said = [f"Of {len(margins)} choices that the edge weights make, {unsure} could turn: some rival is behind by no more than the lead "
            f"moved in the last {window}."]
    for one in sorted(margins, key=lambda margin: (not margin.unsure, margin.gap)):
        other = f" The architecture has {one.has} there: something else than these weights chose it." if one.has else ""
        said.append(f"{one.where}: {one.first} leads {one.second} by {one.gap:.4f}, a lead that moved by {one.spread:.4f}: "
                    f"{'unsure' if one.unsure else 'sure'}.{other}")
    return said


def _agreement(found: Agreement) -> list[str]:
    runs, kinds = len(found.names), {one.place.kind for one in found.shared}
    said = [f"{runs} runs are compared, this one among them: {', '.join(found.names)}. They found {found.distinct} different "
            f"architecture{'' if found.distinct == 1 else 's'}."]
    whole, alone = ([one for one in found.shared if one.op == count] for count in (runs, 1))
    said.append(f"All of them agree on {len(whole)} of its {len(found.shared)} edges, with their ops{_list(whole, kinds)}.")
    for one in sorted((one for one in found.shared if 1 < one.op < runs), key=lambda one: (-one.op, -one.edge)):
        where = "" if found.every_edge else f"{one.edge} of {runs} keep the edge, "
        said.append(f"{_named(one.place, kinds)}: {where}{one.op} of {runs} have {op_label(one.place.op)} there.")
    if alone:
        kept = "" if found.every_edge else f" ({sum(one.edge > 1 for one in alone)} of these edges others keep with another op)"
        said.append(f"No other run has {len(alone)} of its edges with their ops{_list(alone, kinds)}{kept}.")
    for other in found.elsewhere:
        kind = "" if len(kinds) == 1 else f"{other.kind} cell, "
        said.append(f"{kind}{lowered(other.label)} is not in this architecture: {other.runs} of {runs} keep it, most often with "
                    f"{op_label(other.op)} ({other.with_op}).")
    return said


def _named(place: Place, kinds: set[str]) -> str:
    return lowered(place.label if len(kinds) == 1 else f"{place.kind} cell, {place.label}")


def _difference(effect: Effect) -> str:
    text = _points(effect.difference)
    if effect.standard_error is None:
        return text
    return f"{text} (standard error {effect.standard_error:.2f}; 95 % interval {_span(effect.low, effect.high)})"


def _brief(effect: Effect) -> str:
    error = "" if effect.standard_error is None else f" (standard error {effect.standard_error:.2f})"
    return _points(effect.difference) + error


def _points(difference: float) -> str:
    if difference == 0:
        return "no difference"
    return f"{abs(difference):.2f} points {'more' if difference > 0 else 'less'}"


def _span(low: float, high: float) -> str:
    if low >= 0:
        return f"{low:.2f} to {high:.2f} more"
    return f"{-high:.2f} to {-low:.2f} less" if high <= 0 else f"{-low:.2f} less to {high:.2f} more"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _list(edges: Sequence[Shared], kinds: set[str]) -> str:
    return ": " + "; ".join(f"{_named(one.place, kinds)} {op_label(one.place.op)}" for one in edges) if edges else ""
