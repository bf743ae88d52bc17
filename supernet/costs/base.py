"""What an architecture costs: parameters, multiply-adds, memory, latency, any column of a table.

A cost is called with a genotype. `expected(weights)` is the mean cost of the architectures that edge weights describe, differentiable,
and exists where it is exact: linear for sums over edges, multilinear for a table of all architectures. Elsewhere it raises.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ops import make_op
from ops.kernels import on_plain_path
from ops.op import Normalisation, Op
from supernet.errors import Mendable
from supernet.genotype import Genotype
from supernet.networks.cell import MixedEdges
from supernet.networks.chain import MixedLayer
from supernet.networks.measure import multiply_adds_of, parameters, peak_memory
from supernet.space import CellSpec, Space
from supernet.tables.files import read_table
from supernet.tables.table import Table
from supernet.weights import EdgeWeights, check_shapes

FINAL = Normalisation(affine=True, after_pools=False)  # how final networks normalise
QUANTITIES = ("parameters", "multiply_adds")
LATENCY_FORMAT = "supernet.latency/1"


class CostError(Mendable, ValueError):
    """A cost that cannot be computed for this space, or has no exact expectation. The message is one line."""


class Cost(Protocol):
    name: str
    unit: str

    def __call__(self, genotype: Genotype) -> float: ...

    def expected(self, weights: EdgeWeights) -> Tensor:
        """A scalar. Raises CostError where no exact expectation exists."""

    def least(self) -> float:
        """What no genotype costs less than. Raises CostError where that is not known."""


def _no_expectation(what: str) -> CostError:
    return CostError(f"{what} is no sum over edges: it has no exact expectation; use a latency table, parameters or multiply_adds")


# ---- sums over edges


class Additive:
    """`constant` plus, for each kept edge, the entry of its op in `tables[kind]` (E, O), which counts every cell of the kind."""

    def __init__(self, space: Space, name: str, unit: str, constant: float, tables: Mapping[str, np.ndarray]):
        self.space, self.name, self.unit, self.constant = space, name, unit, constant
        self.tables = {kind: np.asarray(table, np.float64) for kind, table in tables.items()}

    def __call__(self, genotype: Genotype) -> float:
        entries = ((kind, entry) for kind, spec in self.space.cells.items() for entry in spec.rows(genotype[kind]))
        return self.constant + sum(self.tables[kind][entry] for kind, entry in entries)

    def expected(self, weights: EdgeWeights) -> Tensor:
        """Linear in the weights of the ops. A node keeps `keep` of its edges: an edge counts with the probability that it is kept, its
        share of the node's total weight times `keep`. (Summing all edges would overstate a DARTS cell, which keeps 8 of 14.) The
        shares are constants; where edge weights are given they are these. The cost itself at one-hot weights."""
        check_shapes(self.space, weights)
        total: Any = self.constant
        for kind, spec in self.space.cells.items():
            w = weights[kind]
            ops = w.ops.mean(0) if w.ops.dim() == 3 else w.ops
            cost = (ops * torch.as_tensor(self.tables[kind], dtype=ops.dtype, device=ops.device)).sum(1)
            total = total + (_kept(spec, w.edges, ops) * cost).sum()
        return total

    def least(self) -> float:
        total = self.constant
        for kind, spec in self.space.cells.items():
            selectable = np.array(spec.selectable)
            cheapest = np.where(selectable, self.tables[kind], np.inf).min(1)
            total += sum(sum(sorted(cheapest[spec.incoming(node)])[: low]) for node, (low, _) in zip(spec.nodes, spec.keep))
        return float(total)


def _kept(spec: CellSpec, edges: Tensor | None, ops: Tensor) -> Tensor:
    """(E,): how much each edge counts, so that the edges into a node count as many as it keeps."""
    mass = ops.detach().sum(1)
    factor = torch.ones_like(mass)
    for i, node in enumerate(spec.nodes):
        rows, (low, high) = spec.incoming(node), spec.keep[i]
        own = mass[rows] if edges is None else edges[rows].detach() * mass[rows]
        wanted = own.sum().clamp(low, high)  # where the number may vary, as many as the weights say
        share = wanted * own / own.sum().clamp(min=1e-12)
        factor[rows] = share / mass[rows].clamp(min=1e-12)
    return factor


def additive(space: Space, quantity: str, *, check: int = 2, **sizes: Any) -> Additive:
    """`parameters`, or `multiply_adds` of one image, of final networks of a cell space. `sizes` are those of the space's network.

    Counted on one supernet: each op's own parameters and convolutions, and all that is left as the constant. `check` architectures are
    built and counted on their own. Raises CostError: they differ, so that costs in this space are no sums over edges.
    """
    image = (sizes.get("in_channels", 3), *sizes.get("image_size", (32, 32)))

    def total(net: nn.Module) -> int:
        p = next(net.parameters())
        return parameters(net) if quantity == "parameters" else multiply_adds_of(net, torch.zeros(1, *image, device=p.device))

    with torch.random.fork_rng(devices=[]):
        net = space.network(space.candidates(), norm=FINAL, **sizes).eval()
        tables = {kind: np.zeros((len(spec.edges), len(spec.ops))) for kind, spec in space.cells.items()}
        macs = _convolutions(net, image) if quantity == "multiply_adds" else {}
        for kind, mixed in _mixtures(net, space):
            for bundle in mixed.bundles.values():
                for e, o, _, op in bundle:
                    own = sum(p.numel() for p in op.parameters()) if not macs else sum(macs.get(m, 0) for m in op.modules())
                    tables[kind][e, o] += own
        cost = Additive(space, quantity, "parameters" if quantity == "parameters" else "multiply-adds an image",
                        total(net) - sum(table.sum() for table in tables.values()), tables)
        for genotype in _some(space, check):
            alone = total(space.network(space.candidates(genotype), norm=FINAL, **sizes))
            if alone != cost(genotype):
                raise CostError(f"{quantity} in space {space.name} are no sums over edges: {alone} counted, {cost(genotype):.0f} summed")
    return cost


def counted(space: Space, quantity: str, **sizes: Any) -> Cost:
    """`parameters`, or `multiply_adds` of one image (one item of a text), of final networks. `sizes` are those of the space's network; what
    the space decides itself, as a chain its layers, is not asked. Raises CostError: no such quantity, or no way to count in this space."""
    if quantity not in QUANTITIES:
        raise CostError(f"a counted cost is {' or '.join(QUANTITIES)}, got {quantity!r}")
    count = additive if space.costs is None else space.costs
    return count(space, quantity, **(sizes | dict(space.sizes)))


def _some(space: Space, n: int) -> list[Genotype]:
    import random

    rng = random.Random(0)
    return [space.sample(rng) for _ in range(n)]


def _mixtures(net: nn.Module, space: Space) -> list[tuple[str, MixedEdges]]:
    """A network's bundles of edges with the kinds of their cells. Raises CostError: it is no stack of cells."""
    mixed = [m for m in net.modules() if type(m) is MixedEdges]
    kinds = list(getattr(net, "kinds", ()))
    if not mixed or len(kinds) != len(mixed):
        raise CostError(f"space {space.name} stacks no cells: its costs are no sums over edges")
    return list(zip(kinds, mixed))


def _convolutions(net: nn.Module, image: tuple[int, int, int]) -> dict[nn.Module, int]:
    """Multiply-adds of each convolution for one image."""
    found: dict[nn.Module, int] = {}

    def count(module: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        found[module] = found.get(module, 0) + output.numel() * module.weight[0].numel()

    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d)]
    p = next(net.parameters())
    try:
        with torch.no_grad(), on_plain_path():
            net(torch.zeros(1, *image, device=p.device), generator=torch.Generator(p.device))
    finally:
        for handle in handles:
            handle.remove()
    return found


# ---- tables of all architectures


class TableCost:
    """A column of a table that has every architecture of a space whose edges are all kept, with one op each (NAS-Bench-201)."""

    def __init__(self, table: Table, column: str):
        self.table, self.name, self.unit, self.space = table, column, column.rpartition("_")[2], table.space
        ((self.kind, spec),) = self.space.cells.items()
        values = table.column(column)
        shape = (len(spec.ops),) * len(spec.edges)
        full = [low == high == len(spec.incoming(node)) for node, (low, high) in zip(spec.nodes, spec.keep)]
        if not all(full) or len(table) != np.prod(shape):
            raise CostError(f"{table.source}: an expectation needs every architecture of a space that keeps all edges, "
                            f"{np.prod(shape):.0f} rows, got {len(table)} of {self.space.name}")
        if np.isnan(values).any():
            raise CostError(f"{table.source}: column {column} has {int(np.isnan(values).sum())} missing values, so no expectation")
        tensor = np.empty(shape)
        place = {op: o for o, op in enumerate(spec.ops)}
        for text, value in zip(table.texts, values):  # as fast as this must be: the texts' ops in order are the edges' ops
            tensor[tuple(place[term.rpartition("~")[0]] for node in text.split("+") for term in node.strip("|").split("|"))] = value
        self.values = torch.from_numpy(tensor)

    def __call__(self, genotype: Genotype) -> float:
        return self.table.value(genotype, self.name)

    def expected(self, weights: EdgeWeights) -> Tensor:
        """The sum over all architectures of the product of their edges' weights times the value: multilinear, exact where edges are drawn
        independently with these weights."""
        check_shapes(self.space, weights)
        ops = weights[self.kind].ops
        rest = self.values.to(ops)
        for row in ops:
            rest = torch.tensordot(row, rest, 1)
        return rest

    def least(self) -> float:
        return self.values.min().item()


def table_cost(space: Space, *, path: str, column: str, **sizes: Any) -> TableCost:
    """A column of the table at `path`; the table has its own sizes. Raises TableError, CostError."""
    return TableCost(read_table(Path(path), space), column)


# ---- measured


class PeakMemory:
    """Bytes of live tensors at the highest moment of one forward pass of the final network, its weights included. `make(genotype)`
    builds the network, `x` is its input."""

    name, unit = "peak_memory", "bytes"

    def __init__(self, make: Callable[[Genotype], nn.Module], x: Tensor):
        self.make, self.x = make, x

    def __call__(self, genotype: Genotype) -> float:
        net = self.make(genotype).eval()
        generator = torch.Generator(self.x.device)
        with torch.no_grad():
            return float(peak_memory(lambda: net(self.x, generator=generator), self.x.device, [self.x, *net.parameters(), *net.buffers()]))

    def expected(self, weights: EdgeWeights) -> Tensor:
        raise _no_expectation("peak memory")

    def least(self) -> float:
        raise _no_expectation("peak memory")


class Latency:
    """Milliseconds of one forward pass of the final network on the device of `x`: the median of `repeats` after `warmup` passes. Each
    architecture is measured once, so that comparisons agree with each other."""

    name, unit = "latency", "ms"

    def __init__(self, make: Callable[[Genotype], nn.Module], x: Tensor, *, repeats: int = 30, warmup: int = 5):
        self.make, self.x, self.repeats, self.warmup = make, x, repeats, warmup
        self.known: dict[Genotype, float] = {}

    def __call__(self, genotype: Genotype) -> float:
        if genotype not in self.known:
            net, generator = self.make(genotype).eval(), torch.Generator(self.x.device)
            run = lambda: net(self.x, generator=generator)
            self.known[genotype] = median_ms(run, self.x.device, self.repeats, self.warmup)
        return self.known[genotype]

    def expected(self, weights: EdgeWeights) -> Tensor:
        raise _no_expectation("the latency of a whole network")

    def least(self) -> float:
        raise _no_expectation("the latency of a whole network")


def measured_memory(space: Space, *, batch_size: int = 1, **sizes: Any) -> PeakMemory:
    """The peak memory of final networks of these sizes, on the CPU. Raises CostError: networks that read no images."""
    return PeakMemory(_maker(space, sizes), _images(batch_size, sizes))


def measured_latency(space: Space, *, batch_size: int = 1, repeats: int = 30, warmup: int = 5, **sizes: Any) -> Latency:
    """The latency of final networks of these sizes, on the CPU. Raises CostError: networks that read no images."""
    return Latency(_maker(space, sizes), _images(batch_size, sizes), repeats=repeats, warmup=warmup)


def _maker(space: Space, sizes: Mapping[str, Any]) -> Callable[[Genotype], nn.Module]:
    def make(genotype: Genotype) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return space.network(space.candidates(genotype), norm=FINAL, **(dict(sizes) | dict(space.sizes)))

    return make


def _images(batch_size: int, sizes: Mapping[str, Any]) -> Tensor:
    if "num_classes" not in sizes:
        raise CostError(f"memory and latency are measured for networks that read images, got the sizes {', '.join(sorted(sizes))}")
    return torch.zeros(batch_size, sizes.get("in_channels", 3), *sizes.get("image_size", (32, 32)))


@torch.no_grad()
def median_ms(run: Callable[[], object], device: torch.device, repeats: int, warmup: int) -> float:
    """Milliseconds of a call, without gradients; the device is waited for."""
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    times = []
    for n in range(warmup + repeats):
        wait()
        started = time.perf_counter()
        run()
        wait()
        if n >= warmup:
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def latency_table(space: Space, *, device: torch.device, batch_size: int = 1, repeats: int = 30, warmup: int = 5, **sizes: Any) -> Additive:
    """Latency as a sum over edges: each op of a cell space, or of a chain of whole operations, measured alone, once a shape, and as the
    constant what is left of a whole network's time after its ops. What runs between ops is in that constant, so that single sums are
    estimates. Raises CostError: a network is neither a stack of cells nor such a chain."""
    sizes |= space.sizes
    image = (sizes.get("in_channels", 3), *sizes.get("image_size", (32, 32)))
    x = torch.zeros(batch_size, *image, device=device)
    with torch.random.fork_rng(devices=[]):
        net = space.network(space.candidates(), norm=FINAL, **sizes).to(device).eval()
        tables = {kind: np.zeros((len(spec.edges), len(spec.ops))) for kind, spec in space.cells.items()}
        known: dict[Any, float] = {}
        for part in _parts(net, space, x):
            if part.key not in known:
                known[part.key] = _alone_ms(part, device, repeats, warmup)
            tables[part.kind][part.entry] += known[part.key]
        cost = Additive(space, "latency_table", "ms", 0.0, tables)
        rest = []
        for genotype in _some(space, 3):
            alone = space.network(space.candidates(genotype), norm=FINAL, **sizes).to(device)
            rest.append(Latency(lambda g, net=alone: net, x, repeats=repeats, warmup=warmup)(genotype) - cost(genotype))
        cost.constant = statistics.median(rest)
    return cost


class _Part(NamedTuple):
    """An op somewhere in a network: of which table it is which entry (edge, op), the shape that it reads, and a function that builds one
    like it. Parts of one key take the same time."""

    kind: str
    entry: tuple[int, int]
    key: tuple[Any, ...]
    shape: tuple[int, ...]
    make: Callable[[], Op]


def _parts(net: nn.Module, space: Space, x: Tensor) -> Iterator[_Part]:
    """All ops that compute something, of a stack of cells or of a chain of whole operations."""
    layers = [m for m in net.modules() if type(m) is MixedLayer]
    if layers:
        yield from _parts_of_layers(net, layers, space, x)
        return
    for (kind, mixed), read in zip(_mixtures(net, space), _read_shapes(net, space, x)):
        spec = space.cells[kind]
        for source, bundle in mixed.bundles.items():
            shape, stride = read[source], spec.stride if source < spec.num_inputs else 1
            for e, o, _, op in bundle:
                if op.contributes:
                    name = spec.ops[o]
                    yield _Part(kind, (e, o), (name, stride, *shape), shape, partial(make_op, name, shape[1], stride, FINAL))


def _parts_of_layers(net: nn.Module, layers: Sequence[MixedLayer], space: Space, x: Tensor) -> Iterator[_Part]:
    ((kind, spec),) = space.cells.items()
    read: list[tuple[tuple[int, ...], tuple[int, ...]]] = []  # by layer, the shapes of its input and output

    def see(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        read.append((tuple(inputs[0].shape), tuple(output.shape)))

    handles = [layer.register_forward_hook(see) for layer in layers]
    try:
        with torch.no_grad():
            net(x, generator=torch.Generator(x.device))
    finally:
        for handle in handles:
            handle.remove()
    for e, (layer, (shape, after)) in enumerate(zip(layers, read)):
        for name, op in layer.ops.items():
            yield _Part(kind, (e, spec.ops.index(name)), (name, *shape, *after), shape, lambda op=op: op)


def measured_latency_table(space: Space, *, path: str | None = None, **options: Any) -> Additive:
    """The latency table at `path`, or one that is measured now on the CPU (`latency_table`)."""
    return latency_table(space, device=torch.device("cpu"), **options) if path is None else load_latency_table(Path(path), space)


def _alone_ms(part: _Part, device: torch.device, repeats: int, warmup: int) -> float:
    op = part.make().to(device).eval()
    x, generator = torch.randn(*part.shape, device=device, generator=torch.Generator(device).manual_seed(0)), torch.Generator(device)
    return median_ms(lambda: op(x, generator), device, repeats, warmup)


def _read_shapes(net: nn.Module, space: Space, x: Tensor) -> list[dict[int, tuple[int, ...]]]:
    """By bundle, the shape of each source node's state."""
    found: list[dict[int, tuple[int, ...]]] = []
    for _, mixed in _mixtures(net, space):
        seen: dict[int, tuple[int, ...]] = {}
        found.append(seen)

        def leave(source: int, state: Tensor, *rest: Any, _mixed: MixedEdges = mixed, _seen: dict = seen) -> None:
            _seen[source] = tuple(state.shape)
            type(_mixed).leave(_mixed, source, state, *rest)

        mixed.leave = leave  # shadows the method of this one module; the network is thrown away
    with torch.no_grad():
        net(x, generator=torch.Generator(x.device))
    return found


def save_latency_table(path: Path, cost: Additive, **notes: Any) -> None:
    """The table as JSON, with where it was measured; whole or not at all."""
    data = {"format": LATENCY_FORMAT, "space": cost.space.name, "fingerprint": cost.space.fingerprint, "unit": cost.unit,
            "constant": cost.constant, "tables": {kind: table.tolist() for kind, table in cost.tables.items()},
            "machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads(), **notes}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(data, indent=1) + "\n")
    os.replace(part, path)


def load_latency_table(path: Path, space: Space) -> Additive:
    """The inverse of `save_latency_table`. Raises CostError: no such table, or one of another space."""
    try:
        data = json.loads(Path(path).read_text())
        if data["format"] != LATENCY_FORMAT:
            raise CostError(f"{path}: expected a table of format {LATENCY_FORMAT!r}, got {str(data['format'])[:40]!r}")
        if data["fingerprint"] != space.fingerprint:
            raise CostError(f"{path}: was measured for space {str(data['space'])[:40]!r} ({str(data['fingerprint'])[:16]}), not "
                            f"{space.name!r} ({space.fingerprint})")
        return Additive(space, "latency_table", data["unit"], float(data["constant"]), {k: np.array(t) for k, t in data["tables"].items()})
    except OSError as error:
        raise CostError(f"{path}: cannot read the latency table ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CostError):
            raise
        raise CostError(f"{path}: not a latency table ({error})") from error
