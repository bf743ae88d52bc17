"""Cells in the notations of the field, read as data and written beside ours.

`Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)` is what DARTS and what followed it print (official code,
genotypes.py), `|nor_conv_3x3~0|+|...|` the text of NAS-Bench-201 (`Space.text`). Nothing of either is evaluated: the first is parsed as
Python's syntax, of which strings, whole numbers, lists, tuples and `range` are understood.
"""

import ast
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from supernet import genotype as genotypes
from supernet.genotype import Edge, Genotype, GenotypeError, short
from supernet.space import CellSpec, Space
from supernet.spaces import darts, darts_rnn, nasbench201, sequential

MAX_CHARACTERS = 100_000
MAX_NODES = 64
BY_FIRST_WORD: dict[str, Callable[[], Space]] = {  # of a text that names its cells
    "normal": darts.make, "recurrent": darts_rnn.make, "features": sequential.make}


def find(name_or_path: str, space: Space | None = None) -> Genotype:
    """As `genotype.find`; a file may also hold one of the field's notations, of a cell of `space`, or of the space that fits it."""
    if str(name_or_path).lower() in genotypes.published_names() or not os.path.isfile(name_or_path):
        return genotypes.find(name_or_path)
    text = genotypes.read_text(name_or_path)
    if text.lstrip()[:1] in ("{", ""):
        return Genotype.from_text(text, str(name_or_path))
    return read(text, space, str(name_or_path))


def read(text: str, space: Space | None = None, origin: str = "genotype") -> Genotype:
    """The genotype that a text in one of the two notations says, of `space` where it is given. Raises GenotypeError."""
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        raise GenotypeError(f"{origin}: not a JSON file, and a genotype in words has at most {MAX_CHARACTERS:,} characters, "
                            f"got {len(text):,}")
    try:
        if "Genotype(" in text:
            return _from_call(text, space)
        if "|" in text and "~" in text:
            return _from_edges(text, space)
    except GenotypeError as error:
        raise GenotypeError(f"{origin}: {error}") from error
    raise GenotypeError(f"{origin}: not a JSON file, and neither Genotype(normal=[...], ...) nor |op~0|+|...|, got {short(text)}")


def write(space: Space, genotype: Genotype) -> str:
    """The notation that readers of the field expect: `Genotype(...)` of cells of two inputs and of recurrent cells, otherwise the text of
    NAS-Bench-201. Where not all nodes keep two edges, an edge is (op, destination, source), as in FairDARTS."""
    kinds = sorted(space.cells)
    if kinds == ["normal", "reduce"] and all(spec.num_inputs == 2 for spec in space.cells.values()):
        in_pairs = all(_in_pairs(space.cells[kind], genotype[kind]) for kind in kinds)
        fields = [f"{kind}={(_list if in_pairs else _placed)(genotype[kind])}, {kind}_concat={_concat(space.cells[kind].outputs)}"
                  for kind in kinds]
        return f"Genotype({', '.join(fields)})"
    if kinds == ["recurrent"]:
        return f"Genotype(recurrent={_list(genotype['recurrent'])}, concat={_concat(space.cells['recurrent'].outputs)})"
    return space.text(genotype)


def _from_edges(text: str, space: Space | None) -> Genotype:
    if space is not None:
        return space.parse(text)
    assumed = BY_FIRST_WORD.get(text.partition(":")[0], nasbench201.make)()
    try:
        return assumed.parse(text)
    except GenotypeError as error:
        raise GenotypeError(f"{error}; it was taken for one of space {assumed.name}: pass space=... if it is of another") from error


def _in_pairs(spec: CellSpec, edges: Sequence[Edge]) -> bool:
    counts = Counter(e.destination for e in edges)
    return all(counts[node] == 2 for node in spec.nodes)


def _list(edges: Sequence[Edge]) -> str:
    return repr([(e.op, e.source) for e in sorted(edges)])


def _placed(edges: Sequence[Edge]) -> str:
    return repr([(e.op, e.destination, e.source) for e in sorted(edges)])


def _concat(outputs: Sequence[int]) -> str:
    first, last = outputs[0], outputs[-1]
    return f"range({first}, {last + 1})" if list(outputs) == list(range(first, last + 1)) else repr(list(outputs))


def _from_call(text: str, space: Space | None) -> Genotype:
    if text.count("Genotype(") > 1:
        raise GenotypeError(f"expected one Genotype(...), got {text.count('Genotype(')}")
    fields = _fields(text[text.index("Genotype("):])
    if set(fields) == {"recurrent", "concat"}:
        cells, concats, per_node = {"recurrent": fields["recurrent"]}, {"recurrent": fields["concat"]}, 1
    elif set(fields) == {"normal", "normal_concat", "reduce", "reduce_concat"}:
        cells = {kind: fields[kind] for kind in ("normal", "reduce")}
        concats, per_node = {kind: fields[f"{kind}_concat"] for kind in cells}, 2
    else:
        raise GenotypeError("Genotype(...) must have normal, normal_concat, reduce and reduce_concat, or recurrent and concat, "
                            f"got {short(sorted(fields))}")
    inputs = 1 if "recurrent" in cells else 2
    edges = {kind: _edges(rows, inputs, per_node, kind) for kind, rows in cells.items()}
    outputs = {kind: _numbers(value, f"the concat of {kind}") for kind, value in concats.items()}
    space = _space_of(edges, outputs) if space is None else space
    if sorted(space.cells) != sorted(edges):
        raise GenotypeError(f"space {space.name!r} has cells {sorted(space.cells)}, the text has {sorted(edges)}")
    for kind, spec in space.cells.items():
        if list(spec.outputs) != sorted(outputs[kind]):
            raise GenotypeError(f"cell {kind!r} of space {space.name!r} joins nodes {list(spec.outputs)}, the text {short(outputs[kind])}")
    return space.genotype(edges)


def _space_of(edges: dict[str, list[Edge]], outputs: dict[str, list[int]]) -> Space:
    """The space of DARTS's cells that these are of, with DARTS's ops and those that they have beside."""
    last = max([e.destination for own in edges.values() for e in own] + [n for own in outputs.values() for n in own], default=0)
    try:
        if "recurrent" in edges:
            return darts_rnn.make(nodes=last)
        nodes = last - 1
        found = {e.op for own in edges.values() for e in own}
        counts = [sum(e.destination == node for e in own) for own in edges.values() for node in range(2, 2 + nodes)]
        alike = Counter((kind, e.source, e.destination) for kind, own in edges.items() for e in own)
        return darts.make(
            nodes=nodes, ops=(*darts.OPS, *sorted(found - set(darts.OPS))),
            edges_per_node=2 if set(counts) == {2} else [0, max(2, *counts)], concat={kind: sorted(own) for kind, own in outputs.items()},
            none_selectable="none" in found, parallel=max(alike.values(), default=1))
    except ValueError as error:
        raise GenotypeError(str(error)) from error


def _edges(rows: Any, inputs: int, per_node: int, kind: str) -> list[Edge]:
    """From a list of (op, source), `per_node` a node; or of a list of those for each node; or of (op, node, node), the later of the two
    the destination (FairDARTS). A third value that is a fraction, the strength of an edge, counts for nothing."""
    if type(rows) is not list:
        raise GenotypeError(f"{kind} must be a list of (op, source), got {short(rows)}")
    nested = bool(rows) and all(type(row) is list and all(type(term) is list for term in row) for row in rows)
    placed = [(inputs + n, term) for n, row in enumerate(rows) for term in row] if nested else \
             [(inputs + n // per_node, term) for n, term in enumerate(rows)]
    edges = []
    for destination, term in placed:
        kinds = [type(value) for value in term] if type(term) is list else []
        if kinds == [str, int, int]:
            source, destination = sorted(term[1:])
        elif kinds in ([str, int], [str, int, float]):
            source = term[1]
        else:
            raise GenotypeError(f"{kind} must be a list of (op, source), got {short(term)}")
        if not 0 <= source < destination < MAX_NODES:
            raise GenotypeError(f"{kind}: an edge must run from an earlier node to a later one, below {MAX_NODES}, "
                                f"got {source} -> {destination}")
        edges.append(Edge(destination, source, term[0]))
    return edges


def _numbers(value: Any, what: str) -> list[int]:
    if type(value) is not list or not value or not all(type(n) is int and 0 <= n < MAX_NODES for n in value):
        raise GenotypeError(f"{what} must be a list or a range of nodes, got {short(value)}")
    return value


def _fields(text: str) -> dict[str, Any]:
    """The keyword arguments of a call, as plain values; tuples become lists."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in strings
            call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise GenotypeError("expected Genotype(normal=[...], normal_concat=..., ...), with named arguments alone")
        return {keyword.arg: _plain(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, GenotypeError):
            raise
        raise GenotypeError(f"not the text of a Genotype(...) ({' '.join(str(error).split())[:100]})") from error


def _plain(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float() as value) if type(value) is not bool:
            return value
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_plain(element) for element in elements]
        case ast.Call(func=ast.Name(id="range" | "list"), args=[inner], keywords=[]):
            values = _plain(inner)
            return list(range(values)) if type(values) is int and 0 <= values <= MAX_NODES else values
        case ast.Call(func=ast.Name(id="range"), keywords=[],
                      args=[ast.Constant(value=int() as first), ast.Constant(value=int() as last)]):
            if not 0 <= first <= last <= MAX_NODES:
                raise GenotypeError(f"range({short(first)}, {short(last)}) must lie in 0 to {MAX_NODES}")
            return list(range(first, last))
    raise GenotypeError(f"expected strings, whole numbers, lists, tuples and range alone, got {short(ast.unparse(node))}")
