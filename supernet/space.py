"""Search spaces as data: `CellSpec` says what a cell may be, `Space` counts, draws, changes and checks its genotypes. No torch."""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from supernet.genotype import Edge, Genotype, GenotypeError, short

if TYPE_CHECKING:
    from ops.traits import OpTraits

Mask = tuple[tuple[bool, ...], ...]  # (E, O), on the host


@dataclass(frozen=True)
class CellSpec:
    """What one kind of cell may be.

    Nodes 0..num_inputs-1 are inputs, the next `num_nodes` are computed, `outputs` are concatenated. Row e of every (E, O) table is
    `edges[e] = (source, destination)`, ordered by destination, then source; a pair may stand more than once (parallel
    edges). `present[e][o]` says that op o is a candidate of edge e, `selectable` that a genotype may hold it. Each computed
    node keeps between `keep[i][0]` and `keep[i][1]` of its edges. `stride` is that of the edges that leave an input node.
    `ops_per_edge`: how many different ops of one edge a genotype may hold, each of which counts as an edge that is kept; above 1 only
    where no edges are parallel.
    """

    num_inputs: int
    num_nodes: int
    edges: tuple[tuple[int, int], ...]
    ops: tuple[str, ...]
    present: Mask
    selectable: Mask
    keep: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]
    stride: int = 1
    ops_per_edge: int = 1

    def __post_init__(self) -> None:
        want = sorted(self.edges, key=lambda e: (e[1], e[0]))
        if list(self.edges) != want:
            raise ValueError(f"edges must be ordered by destination, then source, got {short(list(self.edges))}")
        if len(set(self.ops)) != len(self.ops):
            raise ValueError(f"op names must be unique, got {short(list(self.ops))}")
        if odd := [op for op in self.ops if not op.isprintable() or set(op) & set("|+;")]:
            raise ValueError(f"op names must be printable and without | + ;, which divide the text of a genotype, got {short(odd[0])}")
        for name, table in (("present", self.present), ("selectable", self.selectable)):
            if [len(row) for row in table] != [len(self.ops)] * len(self.edges):
                raise ValueError(f"{name} must have {len(self.edges)} rows, one an edge, of {len(self.ops)} truth values, one an op; "
                                 f"got rows of {short([len(row) for row in table])}")
        if len(self.keep) != self.num_nodes:
            raise ValueError(f"keep must be [fewest, most] for each of the {self.num_nodes} computed nodes, got {short(list(self.keep))}")
        for e, pair in enumerate(self.edges[1:], 1):  # parallel ones stand together
            if pair == self.edges[e - 1] and self.selectable[e] != self.selectable[e - 1]:
                raise ValueError(f"parallel edges must have the same selectable ops, not so {pair[0]} -> {pair[1]}")
        if self.ops_per_edge > 1 and len(set(self.edges)) < len(self.edges):
            raise ValueError(f"parallel edges hold one op each, got ops_per_edge={self.ops_per_edge} and {short(list(self.edges))}")

    @classmethod
    def full(cls, *, num_inputs: int, num_nodes: int, ops: Sequence[str], outputs: Sequence[int], keep: tuple[int, int] | None,
             unselectable: Sequence[str] = (), stride: int = 1, parallel: int = 1, ops_per_edge: int = 1) -> "CellSpec":
        """Every node sees every earlier one through the same candidates. `keep=None` keeps all edges of a node."""
        edges = tuple((s, d) for d in range(num_inputs, num_inputs + num_nodes) for s in range(d) for _ in range(parallel))
        incoming = [d * parallel * ops_per_edge for d in range(num_inputs, num_inputs + num_nodes)]
        return cls(
            num_inputs, num_nodes, edges, tuple(ops),
            present=tuple((True,) * len(ops) for _ in edges),
            selectable=tuple(tuple(o not in unselectable for o in ops) for _ in edges),
            keep=tuple((n, n) if keep is None else (min(keep[0], n), min(keep[1], n)) for n in incoming),
            outputs=tuple(outputs), stride=stride, ops_per_edge=ops_per_edge,
        )

    @classmethod
    def listed(cls, *, num_inputs: int, edges: Sequence[tuple[int, int, Sequence[str]]], outputs: Sequence[int],
               keep: tuple[int, int] | None, unselectable: Sequence[str] = (), stride: int = 1) -> "CellSpec":
        """Each edge `(source, destination, its ops)` in any order. Columns are all ops in the order in which they first stand.

        Raises ValueError, one line: a computed node without an edge, an edge without a selectable op, a wrong node.
        """
        rows = sorted(edges, key=lambda e: (e[1], e[0]))
        ops = tuple(dict.fromkeys(op for _, _, own in edges for op in own))
        last = max((d for _, d, _ in rows), default=num_inputs - 1)
        for source, destination, own in rows:
            if not 0 <= source < destination or destination < num_inputs:
                raise ValueError(f"an edge must run from an earlier node to a computed one (nodes {num_inputs} and up), "
                                 f"got {source} -> {destination}")
            if len(set(own)) != len(own) or not set(own) - set(unselectable):
                raise ValueError(f"edge {source} -> {destination} needs distinct ops, at least one of them selectable, got {list(own)}")
        bare = sorted(set(range(num_inputs, last + 1)) - {d for _, d, _ in rows})
        if bare or last < num_inputs:
            raise ValueError(f"every computed node needs an edge, got none into node {bare[0] if bare else num_inputs}")
        if not outputs or not set(outputs) <= set(range(num_inputs, last + 1)):
            raise ValueError(f"outputs must name computed nodes, {num_inputs} to {last}, got {list(outputs)}")
        incoming = [sum(d == node for _, d, _ in rows) for node in range(num_inputs, last + 1)]
        return cls(
            num_inputs, last + 1 - num_inputs, tuple((s, d) for s, d, _ in rows), ops,
            present=tuple(tuple(op in own for op in ops) for _, _, own in rows),
            selectable=tuple(tuple(op in own and op not in unselectable for op in ops) for _, _, own in rows),
            keep=tuple((n, n) if keep is None else (min(keep[0], n), min(keep[1], n)) for n in incoming),
            outputs=tuple(outputs), stride=stride,
        )

    @property
    def nodes(self) -> range:
        """The computed nodes."""
        return range(self.num_inputs, self.num_inputs + self.num_nodes)

    @property
    def is_chain(self) -> bool:
        """Whether each node is computed from the one before, by one edge: a row of layers."""
        return all((s, d) == (n, n + 1) for n, (s, d) in enumerate(self.edges))

    def incoming(self, node: int) -> list[int]:
        """Rows of the edges that end in `node`."""
        return [e for e, (_, d) in enumerate(self.edges) if d == node]

    def choices(self, node: int) -> dict[int, tuple[int, tuple[str, ...]]]:
        """For each source of `node`: how many edges from there a genotype may hold, and the ops that it may put on them."""
        return self._choices[node]

    @cached_property
    def _choices(self) -> dict[int, dict[int, tuple[int, tuple[str, ...]]]]:
        return {node: self._choices_of(node) for node in self.nodes}

    def _choices_of(self, node: int) -> dict[int, tuple[int, tuple[str, ...]]]:
        rows: dict[int, list[int]] = {}
        for e in self.incoming(node):
            rows.setdefault(self.edges[e][0], []).append(e)
        found = {}
        for source, es in rows.items():
            ops = tuple(o for i, o in enumerate(self.ops) if self.selectable[es[0]][i])
            found[source] = (len(es) if self.ops_per_edge == 1 else min(self.ops_per_edge, len(ops)), ops)
        return found

    def ways(self, ops: int, taken: int) -> int:
        """In how many ways `taken` edges from one source can hold some of `ops` ops: multisets, as parallel edges may hold the same; sets,
        where one edge holds several."""
        if not ops:
            return int(taken == 0)
        return math.comb(ops + taken - 1, taken) if self.ops_per_edge == 1 else math.comb(ops, taken)

    def rows(self, edges: Sequence[Edge]) -> list[tuple[int, int]]:
        """The table entries (e, o) that a genotype's edges occupy; parallel edges take their rows in order."""
        used: set[int] = set()
        entries = []
        for edge in edges:
            e = next(i for i, pair in enumerate(self.edges) if pair == (edge.source, edge.destination) and i not in used)
            if self.ops_per_edge == 1:
                used.add(e)
            entries.append((e, self.ops.index(edge.op)))
        return entries


Candidates = Mapping[str, Mask]  # kind -> which (edge, op) pairs a network holds


@dataclass(frozen=True)
class Built:
    """What a network was built from, as plain values: the space (`fingerprint` stands for what it allows), the candidates, and the
    builder's arguments. A network made by `Space.network` knows its own as `net.built`, so that weights can be kept with it."""

    space: str
    arguments: Mapping[str, Any]
    fingerprint: str
    candidates: Candidates
    sizes: Mapping[str, Any]


def _itself(space: "Space", genotype: Genotype) -> Genotype:
    return genotype


def _describe(op: str) -> "OpTraits | None":
    from ops import describe  # imports torch

    return describe(op)


@dataclass(frozen=True)
class Space:
    """A set of genotypes, and the builder of their networks.

    `cells` maps each kind to its spec. `build(space, candidates, **sizes)` returns the network (an nn.Module called as `net(x,
    weights)`); it is the only part of a space that imports torch, and does so when called. `canonicalise(space,
    genotype)` maps the genotypes that compute one function to one of them, where the literature defines such an equality. `costs(space,
    quantity, **sizes)` counts `parameters` or `multiply_adds` of final networks, where these are no sums over the edges of stacked
    cells. `sizes` are options of the network that the space itself decides (a chain its number of layers); `auxiliary_head` says
    whether final networks can have one. `describe(name)` is what is known of the op that `build` makes of a name, None for nothing:
    `ops.describe` where it makes those of `ops`. `rules`: plain values that decide what a genotype computes and that no cell shows; they
    are part of the fingerprint. about: lines that a run says of the space before it begins.
    """

    name: str
    arguments: Mapping[str, Any]
    cells: Mapping[str, CellSpec]
    build: Callable[..., Any] = field(repr=False)
    canonicalise: Callable[["Space", Genotype], Genotype] = field(default=_itself, repr=False)
    costs: Callable[..., Any] | None = field(default=None, repr=False)
    sizes: Mapping[str, int] = field(default_factory=dict)
    auxiliary_head: bool = True
    describe: Callable[[str], "OpTraits | None"] = field(default=_describe, repr=False)
    rules: Mapping[str, Any] = field(default_factory=dict)
    about: Sequence[str] = field(default=(), repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that decides which genotypes are valid and what they compute."""
        specs = {kind: [s.num_inputs, s.num_nodes, s.edges, s.ops, s.present, s.selectable, s.keep, s.outputs, s.stride,
                        *([s.ops_per_edge] if s.ops_per_edge > 1 else [])]  # as before there was such a thing, where there is not
                 for kind, s in sorted(self.cells.items())}
        told = [self.name, specs, *([dict(sorted(self.rules.items()))] if self.rules else [])]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def genotype(self, cells: Mapping[str, Sequence[Edge]]) -> Genotype:
        """The validated genotype with these edges. Raises GenotypeError."""
        value = Genotype(self.name, self.fingerprint, tuple((k, tuple(sorted(cells[k]))) for k in sorted(cells)), self.arguments)
        self.validate(value)
        return value

    def validate(self, genotype: Genotype) -> None:
        """Raises GenotypeError, one line, unless `genotype` is one of this space."""
        if (genotype.space, genotype.fingerprint) != (self.name, self.fingerprint):
            differ = sorted(k for k in {**genotype.arguments, **self.arguments} if genotype.arguments.get(k) != self.arguments.get(k))
            why = f"arguments that differ: {short(differ)}" if differ else "the fingerprint does not fit the arguments"
            raise GenotypeError(f"the genotype is of space {short(genotype.space)} ({short(genotype.fingerprint)}), not of {self.name!r} "
                                f"({self.fingerprint})" + (f"; {why}" if genotype.space == self.name else ""))
        kinds = [kind for kind, _ in genotype.cells]
        if kinds != sorted(self.cells):
            raise GenotypeError(f"space {self.name!r} has cells {sorted(self.cells)}, the genotype has {short(kinds)}")
        for kind, edges in genotype.cells:
            spec = self.cells[kind]
            for edge in edges:
                self._validate_edge(kind, spec, edge)
            for i, node in enumerate(spec.nodes):
                kept = [e for e in edges if e.destination == node]
                low, high = spec.keep[i]
                if not low <= len(kept) <= high:
                    want = str(low) if low == high else f"{low} to {high}"
                    raise GenotypeError(f"cell {kind!r}: node {node} must keep {want} edges, the genotype gives it {len(kept)}")
                for source, (room, _) in spec.choices(node).items():
                    if sum(e.source == source for e in kept) > room:
                        raise GenotypeError(f"cell {kind!r}: at most {room} edge(s) {source} -> {node}, the genotype has more")
                if spec.ops_per_edge > 1 and len(set(kept)) < len(kept):
                    raise GenotypeError(f"cell {kind!r}: node {node} must keep different ops of one edge, the genotype has one twice")

    def _validate_edge(self, kind: str, spec: CellSpec, edge: Edge) -> None:
        where = f"cell {kind!r}, edge {edge.source} -> {edge.destination}"
        if edge.destination not in spec.nodes:
            raise GenotypeError(f"{where}: the computed nodes are {spec.nodes.start} to {spec.nodes.stop - 1}")
        choices = spec.choices(edge.destination)
        if edge.source not in choices:
            raise GenotypeError(f"{where}: node {edge.destination} has sources {sorted(choices)}")
        ops = choices[edge.source][1]
        if edge.op not in ops:
            raise GenotypeError(f"{where}: op must be one of {', '.join(ops)}; got {edge.op[:40]!r}")

    def candidates(self, genotype: Genotype | None = None) -> Candidates:
        """All candidates (a supernet), or only the ops of one genotype (a final network)."""
        if genotype is None:
            return {kind: spec.present for kind, spec in self.cells.items()}
        self.validate(genotype)
        tables = {}
        for kind, spec in self.cells.items():
            entries = set(spec.rows(genotype[kind]))
            tables[kind] = tuple(tuple((e, o) in entries for o in range(len(spec.ops))) for e in range(len(spec.edges)))
        return tables

    def network(self, candidates: Candidates, **sizes: Any) -> Any:
        """The network that holds `candidates`; `sizes` are the builder's (channels, layers, num_classes, ...)."""
        net = self.build(self, candidates, **sizes)
        net.built = Built(self.name, self.arguments, self.fingerprint, candidates, sizes)
        return net

    def op(self, name: str) -> "OpTraits":
        """The traits of an op, or what may be said of any."""
        from ops.traits import OpTraits

        return self.describe(name) or OpTraits()

    def canonical(self, genotype: Genotype) -> Genotype:
        """The representative of the genotypes that compute the same function as this one; itself where none is defined."""
        return self.canonicalise(self, genotype)

    def text(self, genotype: Genotype) -> str:
        """One line, in the notation of NAS-Bench-201: `|op~source|op~source|` for each computed node, joined by `+`; `||` for a node
        without edges. Several kinds of cells stand as `kind:` and their text, joined by `;`."""
        parts = []
        for kind, edges in genotype.cells:
            nodes = ([f"{e.op}~{e.source}" for e in sorted(edges) if e.destination == n] for n in self.cells[kind].nodes)
            parts.append("+".join(f"|{'|'.join(terms)}|" for terms in nodes))
        return parts[0] if len(parts) == 1 else ";".join(f"{kind}:{part}" for (kind, _), part in zip(genotype.cells, parts))

    def parse(self, text: str) -> Genotype:
        """The inverse of `text`. Raises GenotypeError."""
        kinds = sorted(self.cells)
        parts = [f"{kinds[0]}:{text}"] if len(kinds) == 1 else text.split(";")
        cells = {}
        for part in parts:
            kind, _, body = part.partition(":")
            if kind not in self.cells or kind in cells:
                raise GenotypeError(f"the text of a genotype of {self.name!r} must hold each of the cells {', '.join(kinds)} once, "
                                    f"got {short(text)}")
            cells[kind] = _parse_nodes(self.cells[kind], body)
        return self.genotype(cells)

    # A node's part of a genotype is a multiset of (source, op), or a set where one edge may hold several ops. Sources are independent
    # but for the number of edges kept, so counting and uniform drawing multiply one small polynomial a source: the coefficient of x^t
    # counts the choices of size t (`CellSpec.ways`).

    def count(self) -> int:
        """Number of genotypes, exactly."""
        return math.prod(sum(_node_counts(spec, i)[0]) for spec in self.cells.values() for i in range(spec.num_nodes))

    def sample(self, rng: random.Random) -> Genotype:
        """A genotype drawn uniformly."""
        return self.genotype({kind: [edge for i in range(spec.num_nodes) for edge in _sample_node(spec, i, rng)]
                              for kind, spec in self.cells.items()})

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes one change away: an edge's op replaced, or an edge moved to another source (with its op where that
        source allows it, else with each op it allows), or, where a node's number of edges may vary, an edge added or removed."""
        for kind, edges in genotype.cells:
            for change in _changes(self.cells[kind], edges):
                yield self._changed(genotype, kind, change)

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:
        """A neighbour, drawn uniformly: always valid, always different. Raises GenotypeError in a space of one genotype."""
        options = [(kind, change) for kind, edges in genotype.cells for change in _changes(self.cells[kind], edges)]
        if not options:
            raise GenotypeError(f"space {self.name!r} holds no other genotype to mutate to")
        return self._changed(genotype, *rng.choice(options))

    def mutate_each(self, genotype: Genotype, rng: random.Random, probability: float) -> Genotype:
        """Each edge, with `probability`, replaced by one of those that may stand in its place, and, where a node's number of edges may
        vary, one more edge added or taken away with the same probability: as a genetic algorithm mutates each gene by itself, so that
        none may change, or several. An edge that no other can replace stays."""
        for kind, edges in genotype.cells:
            spec = self.cells[kind]
            for edge in edges:
                if rng.random() < probability:
                    own = [c for c in _changes(spec, genotype[kind]) if c[0] == edge and c[1] is not None]
                    genotype = self._changed(genotype, kind, rng.choice(own)) if own else genotype
            for i, node in enumerate(spec.nodes):
                if spec.keep[i][0] < spec.keep[i][1] and rng.random() < probability:
                    own = [c for c in _changes(spec, genotype[kind]) if None in c and node in {e.destination for e in c if e is not None}]
                    genotype = self._changed(genotype, kind, rng.choice(own))
        return genotype

    def _changed(self, genotype: Genotype, kind: str, change: "Change") -> Genotype:
        return self.genotype(dict(genotype.cells) | {kind: _after(genotype[kind], change)})

    def genes(self, genotype: Genotype) -> list[tuple[str, tuple[Edge, ...]]]:
        """What parents hand down whole, in order, with the kind of cell: each edge, at a node that keeps one from each of its sources, and
        else all edges of a node, which compete for their places. Any mixture of the genes of two genotypes is a genotype."""
        found = []
        for kind, edges in genotype.cells:
            spec = self.cells[kind]
            for i, node in enumerate(spec.nodes):
                own = tuple(e for e in edges if e.destination == node)
                alone = spec.ops_per_edge == 1 and spec.keep[i][0] == len(spec.incoming(node)) == len(spec.choices(node))
                found += [(kind, (edge,)) for edge in own] if alone else [(kind, own)]
        return found

    def crossover(self, a: Genotype, b: Genotype, rng: random.Random) -> Genotype:
        """Uniform crossover: each of the `genes` from either parent with equal chance."""
        return self._of_genes([rng.choice(pair) for pair in zip(self.genes(a), self.genes(b), strict=True)])

    def crossover_one_point(self, a: Genotype, b: Genotype, rng: random.Random) -> Genotype:
        """The `genes` of the first parent up to a point between two of them, those of the second after it. Where there is one gene, it is
        the first parent's."""
        first, second = self.genes(a), self.genes(b)
        point = rng.randrange(1, len(first)) if len(first) > 1 else 1
        return self._of_genes([*first[:point], *second[point:]])

    def _of_genes(self, genes: Sequence[tuple[str, tuple[Edge, ...]]]) -> Genotype:
        return self.genotype({kind: [edge for own, edges in genes if own == kind for edge in edges] for kind in self.cells})

    def enumerate(self) -> Iterator[Genotype]:
        """Every genotype once. Only for spaces small enough to count by hand."""
        per_kind = [[list(itertools.chain(*nodes)) for nodes in itertools.product(*(_all_nodes(spec, i) for i in range(spec.num_nodes)))]
                    for spec in self.cells.values()]
        for combination in itertools.product(*per_kind):
            yield self.genotype(dict(zip(self.cells, combination)))


def _parse_nodes(spec: CellSpec, body: str) -> list[Edge]:
    nodes, edges = body.split("+"), []
    if len(nodes) != spec.num_nodes:
        raise GenotypeError(f"the text of a cell must hold {spec.num_nodes} nodes joined by '+', got {len(nodes)} in {short(body)}")
    for node, group in zip(spec.nodes, nodes):
        terms = group[1:-1].split("|") if group != "||" else []
        for term in terms:
            op, tilde, source = term.rpartition("~")
            if not (group[:1] == group[-1:] == "|" and tilde and source.isascii() and source.isdigit()):
                raise GenotypeError(f"a node's text must be |op~source|...|, got {short(group)}")
            edges.append(Edge(node, int(source), op))
    return edges


def _node_counts(spec: CellSpec, i: int) -> tuple[list[int], list[list[int]]]:
    """(multisets of each allowed size, then per number of leading sources the polynomial of their product)."""
    low, high = spec.keep[i]
    partial = [[1] + [0] * high]
    for room, ops in spec.choices(spec.nodes[i]).values():
        own = [spec.ways(len(ops), t) for t in range(room + 1)]
        last = partial[-1]
        partial.append([sum(own[t] * last[k - t] for t in range(min(room, k) + 1)) for k in range(high + 1)])
    return [partial[-1][k] for k in range(low, high + 1)], partial


def _sample_node(spec: CellSpec, i: int, rng: random.Random) -> list[Edge]:
    low, _ = spec.keep[i]
    sizes, partial = _node_counts(spec, i)
    left = low + _weighted(sizes, rng)
    sources = list(spec.choices(spec.nodes[i]).items())
    edges = []
    for n in range(len(sources), 0, -1):  # the last source first: how many edges it takes, then which ops
        source, (room, ops) = sources[n - 1]
        take = _weighted([spec.ways(len(ops), t) * partial[n - 1][left - t] for t in range(min(room, left) + 1)], rng)
        bars = spec.ops_per_edge == 1  # stars and bars: uniform multisets
        picked = sorted(rng.sample(range(len(ops) + (take - 1 if bars else 0)), take)) if take else []
        edges += [Edge(spec.nodes[i], source, ops[p - k if bars else p]) for k, p in enumerate(picked)]
        left -= take
    return edges


def _weighted(counts: list[int], rng: random.Random) -> int:
    """An index with probability proportional to `counts`: exact for integers of any size."""
    pick = rng.randrange(sum(counts))
    for index, count in enumerate(counts):
        if pick < count:
            return index
        pick -= count
    raise AssertionError("unreachable: the counts sum to more than the pick")


def _all_nodes(spec: CellSpec, i: int) -> Iterator[list[Edge]]:
    low, high = spec.keep[i]
    node = spec.nodes[i]
    combinations = itertools.combinations_with_replacement if spec.ops_per_edge == 1 else itertools.combinations
    per_source = [[[Edge(node, source, op) for op in combo] for t in range(room + 1) for combo in combinations(ops, t)]
                  for source, (room, ops) in spec.choices(node).items()]
    for parts in itertools.product(*per_source):
        edges = list(itertools.chain(*parts))
        if low <= len(edges) <= high:
            yield edges


Change = tuple[Edge | None, Edge | None]  # what a cell loses, what it gets instead; None for nothing


def _changes(spec: CellSpec, edges: tuple[Edge, ...]) -> Iterator[Change]:
    """Each once: two that differ lead to different genotypes, and none leads back to this one."""
    for i, node in enumerate(spec.nodes):
        choices = spec.choices(node)
        kept = [e for e in edges if e.destination == node]
        held = () if spec.ops_per_edge == 1 else kept  # no edge holds one op twice
        free = {s: room - sum(e.source == s for e in kept) for s, (room, _) in choices.items()}
        for edge in dict.fromkeys(kept):  # parallel edges may be equal
            for op in choices[edge.source][1]:
                if op != edge.op and (other := edge._replace(op=op)) not in held:
                    yield edge, other
            for source, room in free.items():
                if room and source != edge.source:
                    ops = choices[source][1]
                    for op in (edge.op,) if edge.op in ops else ops:
                        if (other := Edge(node, source, op)) not in held:
                            yield edge, other
            if len(kept) > spec.keep[i][0]:
                yield edge, None
        if len(kept) < spec.keep[i][1]:
            for source, room in free.items():
                if room:
                    for op in choices[source][1]:
                        if (other := Edge(node, source, op)) not in held:
                            yield None, other


def _after(edges: tuple[Edge, ...], change: Change) -> list[Edge]:
    removed, added = change
    found = list(edges)
    if removed is not None:
        found.remove(removed)
    return found if added is None else [*found, added]
