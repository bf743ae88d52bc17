"""How sure a search is of what it selects: how far the winner of each decision is ahead, against how far that lead moved of late.

A lead that moved by as much as itself within the last epochs could be gone after as many more; whether it stands is then chance.
Pure functions of the recorded mean edge weights (`training.records.Trajectory`) and the space. The rule is that of `select.argmax`: the
strongest selectable op of each edge, then the strongest edges of each node. Another rule may choose otherwise; what is said here then holds
for the weights alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from supernet.genotype import Genotype
from supernet.report.names import edge_labels, node_name
from supernet.space import CellSpec, Space

WINDOW = 1 / 4  # of the epochs: the last ones, whose movement a lead is held against


@dataclass(frozen=True)
class Decision:
    """One choice that the weights make: of an edge's op (`what` "op"), or of the edges that a node keeps (`what` "edges").

    first, second: the winner and its nearest rival; of a node's edges the weakest one that it keeps and the strongest one that it leaves.
    gap: how much larger the weight of `first` is at the end. spread: the largest less the smallest value of that gap over the last epochs.
    since: epochs done when the winner became what it is, for the last time. would_flip: some rival's gap is at most its own spread.
    kept: whether the edge is one that its node keeps; a node's own choice always counts.
    """

    kind: str
    what: str
    where: str
    first: str
    second: str
    gap: float
    spread: float
    since: float
    would_flip: bool
    kept: bool


@dataclass(frozen=True)
class Sureness:
    """All decisions of a search that have a rival, and the mean entropy (nats) of the edges' weights, taken as shares, beside the largest
    there can be. entries: by kind of cell, the table entries (e, o) that are decided for."""

    decisions: tuple[Decision, ...]
    entries: Mapping[str, frozenset[tuple[int, int]]]
    window: float  # epochs
    entropy: float
    max_entropy: float

    def of(self, what: str) -> list[Decision]:
        """The choices of ops on kept edges, or of the edges that nodes keep."""
        return [d for d in self.decisions if d.what == what and d.kept]

    def decides_for(self, space: Space, genotype: Genotype) -> bool:
        """Whether the genotype is what the weights decide for, by the rule of this module."""
        return all(set(spec.rows(genotype[kind])) == self.entries[kind] for kind, spec in space.cells.items())

    def to_json(self) -> dict[str, Any]:
        ops = self.of("op")
        return {"window_epochs": self.window, "entropy": self.entropy, "max_entropy": self.max_entropy,
                "mean_gap": _mean([d.gap for d in ops]), "mean_spread": _mean([d.spread for d in ops]),
                "ops": len(ops), "ops_would_flip": sum(d.would_flip for d in ops), "edge_choices": len(self.of("edges")),
                "edge_choices_would_flip": sum(d.would_flip for d in self.of("edges")), "decisions": [asdict(d) for d in self.decisions]}


def sureness(space: Space, record: Mapping[str, np.ndarray], *, first_epoch: float = 0, last_epoch: float = math.inf) -> Sureness | None:
    """How sure the weights are at the end of a record, or of its part from `first_epoch` (of the last stage, in a search of several) to
    `last_epoch`.

    record: `epoch` (T,), epochs done at each snapshot; `weights.<kind>` (T, E, O), or (T, L, E, O) where each of the L cells of a kind has
    its own, of which the mean decides; `edge_weights.<kind>` (T, E) where edges have weights of their own. Where the search went back,
    what came before counts no more. None where fewer than two snapshots lie in the last epochs, or no decision has a rival. Raises
    ValueError for tables of other shapes.
    """
    used = _used(np.asarray(record["epoch"], dtype=float), first_epoch, last_epoch)
    times = np.asarray(record["epoch"], dtype=float)[used]
    if len(times) < 2:
        return None
    window = float(max(1, math.ceil(WINDOW * (times[-1] - max(first_epoch, times[0])) - 1e-9)))
    recent = times >= times[-1] - window - 1e-9
    if recent.sum() < 2:
        return None
    decisions: list[Decision] = []
    entries, entropies, maxima = {}, [], []
    for kind, spec in space.cells.items():
        table = _table(kind, spec, record[f"weights.{kind}"])[used]
        edges = record.get(f"edge_weights.{kind}")
        found, entries[kind] = _decisions(kind, spec, times, recent, table, np.ones(table.shape[:2]) if edges is None else edges[used])
        decisions += found
        entropies += [_entropy(row[np.array(present)]) for row, present in zip(table[-1], spec.present)]
        maxima += [math.log(sum(present)) for present in spec.present]
    if not decisions:
        return None
    return Sureness(tuple(decisions), entries, window, float(np.mean(entropies)), float(np.mean(maxima)))


def rows(found: Sureness, selected: bool = True) -> list[tuple[str, str]]:
    """The same in a few lines, for the table at the end of a search. selected: whether the genotype is what the weights decide for."""
    said = [] if selected else [("of the weights alone", "they decide for another architecture than was selected")]
    for what, name in (("op", "ops"), ("edges", "choices of edges")):
        if decisions := found.of(what):
            gap, spread = _mean([d.gap for d in decisions]), _mean([d.spread for d in decisions])
            flips = sum(d.would_flip for d in decisions)
            said.append((f"unsure {name}", f"{flips} of {len(decisions)}: ahead by {gap:.4f} on average, which moved by {spread:.4f} in "
                                           f"the last {_epochs(found.window).removeprefix('1 ')}"))
    last = max((d.since for d in found.decisions if d.kept), default=0.0)
    said.append(("last change", f"after {_epochs(last)}" if last else "none since the start"))
    said.append(("entropy of the weights", f"{found.entropy:.3f} of at most {found.max_entropy:.3f} nats"))
    return said


def _used(times: np.ndarray, first: float, last: float) -> np.ndarray:
    """Indices of the snapshots within these epochs and after the last way back. The end of one stage is not the start of the next."""
    inside = np.flatnonzero((times <= last + 1e-9) & ((times > first + 1e-9) | (first == 0)))
    back = np.flatnonzero(np.diff(times[inside]) < 0)
    return inside[back[-1] + 1:] if len(back) else inside


def _table(kind: str, spec: CellSpec, weights: np.ndarray) -> np.ndarray:
    """(T, E, O), in double precision."""
    table = np.asarray(weights, dtype=np.float64)
    table = table.mean(1) if table.ndim == 4 else table
    want = (len(spec.edges), len(spec.ops))
    if table.shape[1:] != want:
        raise ValueError(f"weights of {kind!r} must be (T, E, O) with (E, O) = {want}, got {table.shape}")
    return table


def _entropy(weights: np.ndarray) -> float:
    """Of weights that need not sum to 1 (those of a sigmoid do not), taken as shares."""
    share = weights[weights > 0] / weights[weights > 0].sum()
    return abs(float((share * np.log(share)).sum()))


def _decisions(kind: str, spec: CellSpec, times: np.ndarray, recent: np.ndarray, table: np.ndarray,
               edge_weights: np.ndarray) -> tuple[list[Decision], frozenset[tuple[int, int]]]:
    """Of one kind of cell: its decisions, and the entries that they are for."""
    selectable = np.array(spec.selectable)
    allowed = np.where(selectable, table, -np.inf)  # (T, E, O)
    leaders = allowed.argmax(-1)  # (T, E); the first of equals, as in `select.argmax`
    strengths = allowed.max(-1) * edge_weights  # (T, E)
    labels = edge_labels(spec.edges, spec.num_inputs, kind)
    kept = np.zeros(strengths.shape, bool)
    found = []
    for i, node in enumerate(spec.nodes):
        rows = np.array(spec.incoming(node))
        order = np.argsort(-strengths[:, rows], axis=1, kind="stable")
        chosen = rows[order[:, : spec.keep[i][1]]]
        np.put_along_axis(kept, chosen, True, axis=1)
        if left := [e for e in rows if not kept[-1, e]]:
            kept_now = [e for e in rows if kept[-1, e]]
            first, second, gap, spread, flips = _nearest(strengths, kept_now, left, recent)
            found.append(Decision(kind, "edges", f"into {node_name(node, spec.num_inputs)}", labels[first], labels[second], gap, spread,
                                  _since(times, (kept[:, rows] == kept[-1, rows]).all(1)), flips, True))
    for e, label in enumerate(labels):
        best = int(leaders[-1, e])
        rivals = [o for o in np.flatnonzero(selectable[e]) if o != best]
        if rivals:
            first, second, gap, spread, flips = _nearest(table[:, e], [best], rivals, recent)
            found.append(Decision(kind, "op", label, spec.ops[first], spec.ops[second], gap, spread,
                                  _since(times, leaders[:, e] == best), flips, bool(kept[-1, e])))
    return found, frozenset((int(e), int(leaders[-1, e])) for e in np.flatnonzero(kept[-1]))


def _nearest(values: np.ndarray, winners: Sequence[int], rivals: Sequence[int], recent: np.ndarray) -> tuple[int, int, float, float, bool]:
    """Of all pairs of a winner and a rival, columns of `values (T, N)`, the one with the smallest gap at the end: its columns, gap and
    spread; and whether the gap of any pair is at most its spread."""
    gaps = values[:, winners][:, :, None] - values[:, rivals][:, None, :]  # (T, W, R)
    last, spreads = gaps[-1], np.ptp(gaps[recent], axis=0)
    w, r = np.unravel_index(last.argmin(), last.shape)
    return int(winners[w]), int(rivals[r]), float(last[w, r]), float(spreads[w, r]), bool((last <= spreads).any())


def _since(times: np.ndarray, same: np.ndarray) -> float:
    """The epochs done at the first snapshot from which on `same` holds to the end; 0 where it always did."""
    other = np.flatnonzero(~same)
    return float(times[other[-1] + 1]) if len(other) else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _epochs(number: float) -> str:
    text = f"{number:.1f}".removesuffix(".0")
    return "1 epoch" if text == "1" else f"{text} epochs"
