"""A search as a moving picture: the cell over its epochs, edges as wide as the weights of their ops, the kept ones strong.

All is read from a run's folder: the weights from alphas.npz, which ops are kept from genotypes.jsonl.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from supernet.errors import Mendable
from supernet.files import DAMAGED, check_zip
from supernet.genotype import Edge, Genotype, GenotypeError
from supernet.report import figure as figures
from supernet.report.curves import thinned
from supernet.report.draw import Panel, Stroke, assembled, cell_panel, chain_panel, drawn_outputs, is_chain
from supernet.report.draw_chain import chain_layout, text_width
from supernet.report.names import NAMINGS, op_label
from supernet.runs.architectures import Named
from supernet.runs.journal import Journal

MAX_BYTES = 2**30  # what alphas.npz unpacks to
COLOURS = 128  # of the picture
FAINT = 0.35  # of an edge that is not kept
THIN, WIDER = 0.5, 3.5  # points: of a weight of 0, and what a weight of 1 adds


class FilmError(Mendable, ValueError):
    """There is nothing to show. The message is one line."""


class Weights(NamedTuple):
    """Of one kind of cell: (source, destination) of each edge, the ops, and (T, E, O) weights."""

    edges: list[tuple[int, int]]
    ops: list[str]
    values: np.ndarray


@dataclass(frozen=True)
class Film:
    """epochs: (T,), how many are done at each moment. kept: the genotype that the search would have ended with then, if it is known."""

    epochs: np.ndarray
    weights: Mapping[str, Weights]
    kept: Sequence[Genotype | None]
    of: Named


def film(of: Named, most: int) -> Film:
    """What was recorded of a search, of at most so many moments. Raises FilmError: it is not there, or not as it was written."""
    if of.run is None:
        raise FilmError("a moving picture is made of a search: expected the folder of its run")
    path = of.run.alphas
    if not path.exists():
        raise FilmError(f"{of.run.path}: no alphas.npz there, which a search writes when it ends")
    try:
        check_zip(path, MAX_BYTES)
        with np.load(path, allow_pickle=False) as arrays:
            epochs = np.asarray(arrays["epoch"], dtype=float)
            kinds = sorted(name.removeprefix("weights.") for name in arrays.files if name.startswith("weights."))
            found = {kind: _weights(arrays, kind, len(epochs)) for kind in kinds}
    except (OSError, KeyError, TypeError, *DAMAGED) as error:
        raise FilmError(f"{path}: cannot be read as the weights of a search ({' '.join(str(error).split())[:150]})") from error
    if not found or not len(epochs):
        raise FilmError(f"{path}: holds no weights")
    chosen = thinned(len(epochs), most)
    weights = {kind: w._replace(values=w.values[chosen]) for kind, w in found.items()}
    return Film(epochs[chosen], weights, _kept(of, epochs[chosen]), of)


def _weights(arrays: Mapping[str, Any], kind: str, moments: int) -> Weights:
    values = np.nan_to_num(np.asarray(arrays[f"weights.{kind}"], dtype=float), posinf=0, neginf=0)
    edges, ops = [(int(s), int(d)) for s, d in arrays[f"edges.{kind}"]], [str(op) for op in arrays[f"ops.{kind}"]]
    if values.shape != (moments, len(edges), len(ops)) or not ops or not all(0 <= s < d < 10_000 for s, d in edges):
        raise ValueError(f"weights of {kind!r} have shape {values.shape}, with {len(edges)} edges and {len(ops)} ops")
    return Weights(edges, ops, values)


def _kept(of: Named, epochs: np.ndarray) -> list[Genotype | None]:
    """The newest genotype at each moment; at the end the one that the search chose."""
    known: list[tuple[float, Genotype]] = []
    try:
        for record in Journal.readable(of.run.genotypes):
            if type(record.get("epoch")) is int:
                known.append((record["epoch"] + 1.0, Genotype.from_json(record.get("genotype"))))
    except (OSError, GenotypeError):  # what was kept is told where it is known
        known = []
    found = [next((genotype for done, genotype in reversed(known) if done <= epoch + 1e-9), None) for epoch in epochs]
    return [*found[:-1], of.genotype]


def frames(shown: Film, dpi: float) -> Iterator[np.ndarray]:
    """The pictures, (H, W, 3) uint8, all of one size."""
    with figures.house_style():
        draws = _draws(shown)
        for n, epoch in enumerate(shown.epochs):
            yield figures.pixels(assembled([draw(n) for draw in draws], f"epoch {epoch:.1f}"), dpi)


def _draws(shown: Film) -> list[Callable[[int], Panel]]:
    """A panel for each kind of cell, and for the chains of each length, by the number of the moment."""
    chains: dict[int, list[str]] = defaultdict(list)
    cells = []
    for kind, weights in shown.weights.items():
        edges = [Edge(d, s, "") for s, d in weights.edges]
        if is_chain(edges, shown.of.outputs.get(kind)) and kind not in NAMINGS:
            chains[len(edges)].append(kind)
        elif edges:
            cells.append(_cell(shown, kind))
    return [*cells, *(_chains(shown, kinds) for kinds in chains.values())]


def _strokes(shown: Film, kind: str) -> list[list[Stroke]]:
    """For each moment, how each edge is drawn: with the op that is kept of it, else faintly with the one of the largest weight."""
    weights, found = shown.weights[kind], []
    for values, genotype in zip(weights.values, shown.kept, strict=True):
        kept: dict[tuple[int, int], list[str]] = defaultdict(list)
        for edge in dict(genotype.cells).get(kind, ()) if genotype else ():
            kept[edge.source, edge.destination].append(edge.op)
        strokes = []
        for pair, row in zip(weights.edges, values, strict=True):
            op = kept[pair].pop(0) if kept[pair] else None
            op, strength = (weights.ops[int(row.argmax())], FAINT) if op is None else (op, 1.0)
            weight = float(row[weights.ops.index(op)]) if op in weights.ops else 0.0
            strokes.append(Stroke(op, THIN + WIDER * min(1.0, max(0.0, weight)), strength))
        found.append(strokes)
    return found


def _widest(strokes: Sequence[Sequence[Stroke]]) -> list[str]:
    """Of each edge, the op whose name takes most room at any moment."""
    return [max((moment[e].op for moment in strokes), key=lambda op: text_width(op_label(op))) for e in range(len(strokes[0]))]


def _cell(shown: Film, kind: str) -> Callable[[int], Panel]:
    strokes = _strokes(shown, kind)
    edges = [Edge(d, s, op) for (s, d), op in zip(shown.weights[kind].edges, _widest(strokes), strict=True)]
    inputs = shown.of.num_inputs.get(kind, min(e.destination for e in edges))
    computed = range(inputs, max(e.destination for e in edges) + 1) if kind in NAMINGS else None
    outputs = drawn_outputs(edges, inputs, shown.of.outputs.get(kind, computed))
    draw = cell_panel(kind, edges, inputs, outputs)
    return lambda n: draw(strokes[n])


def _chains(shown: Film, kinds: Sequence[str]) -> Callable[[int], Panel]:
    strokes = {kind: _strokes(shown, kind) for kind in kinds}
    layout = chain_layout({kind: _widest(each) for kind, each in strokes.items()})
    among = {kind: [stroke.op for moment in each for stroke in moment] for kind, each in strokes.items()}
    return lambda n: chain_panel({kind: [stroke.op for stroke in each[n]] for kind, each in strokes.items()}, layout, among)


def gif(pictures: Sequence[np.ndarray], seconds: float) -> bytes:
    """The pictures as one that moves, over and over: `seconds` in all, and the last one for two more. Colours are those of the first, the
    middle and the last."""
    of_all = np.concatenate([pictures[0], pictures[len(pictures) // 2], pictures[-1]])
    palette = Image.fromarray(of_all).quantize(COLOURS, dither=Image.Dither.NONE)
    table = np.array(palette.getpalette("RGB")).reshape(-1, 3)
    table[(table >= 244).all(axis=1)] = 255  # white is mixed with what is almost white
    palette.putpalette(table.reshape(-1).tolist())
    images = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    each = max(20, round(seconds * 1000 / len(images) / 10) * 10)  # GIF counts hundredths of a second, and viewers take less than 2 for 10
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], loop=0, duration=[each] * (len(images) - 1) + [each + 2000])
    return buffer.getvalue()
