"""Latency as a sum over edges: a table of single ops, measured alone, and its file."""

import json
import math
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ops import make_op
from ops.op import Op
from supernet.costs.additive import Additive, asked, mixtures, some
from supernet.costs.base import FINAL, CostError
from supernet.costs.measured import Batch, Latency, median_ms
from supernet.files import read_text, write_whole
from supernet.formats import Format, FormatError
from supernet.genotype import short
from supernet.networks.cell import MixedEdges
from supernet.networks.chain import MixedLayer
from supernet.ranges import Channels, Count, Layers, Whole, ranged
from supernet.space import Space

LATENCY_FORMAT = Format("supernet.latency")
MAX_BYTES = 20_000_000  # a table has some thousand numbers


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
        for genotype in some(space, 3):
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
    for (kind, mixed), read in zip(mixtures(net, space), _read_shapes(net, space, x)):
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


@ranged
def measured_latency_table(space: Space, *, path: str | None = None, layers: Layers | None = None, channels: Channels | None = None,
                           batch_size: Batch = 1, repeats: Count = 30, warmup: Whole = 5, **sizes: Any) -> Additive:
    """The latency table at `path`, or one that is measured now on the CPU (`latency_table`)."""
    if path is not None:
        return load_latency_table(Path(path), space)
    return latency_table(space, device=torch.device("cpu"), batch_size=batch_size, repeats=repeats, warmup=warmup,
                         **asked(layers, channels), **sizes)


def _alone_ms(part: _Part, device: torch.device, repeats: int, warmup: int) -> float:
    op = part.make().to(device).eval()
    x, generator = torch.randn(*part.shape, device=device, generator=torch.Generator(device).manual_seed(0)), torch.Generator(device)
    return median_ms(lambda: op(x, generator), device, repeats, warmup)


def _read_shapes(net: nn.Module, space: Space, x: Tensor) -> list[dict[int, tuple[int, ...]]]:
    """By bundle, the shape of each source node's state."""
    found: list[dict[int, tuple[int, ...]]] = []
    for _, mixed in mixtures(net, space):
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
    data = {**LATENCY_FORMAT.stamp(), "space": cost.space.name, "fingerprint": cost.space.fingerprint, "unit": cost.unit,
            "constant": cost.constant, "tables": {kind: table.tolist() for kind, table in cost.tables.items()},
            "machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads(), **notes}
    write_whole(path, (json.dumps(data, indent=1) + "\n").encode())


def load_latency_table(path: Path, space: Space) -> Additive:
    """The inverse of `save_latency_table`. Raises CostError: no such table, or one of another space."""
    try:
        data = LATENCY_FORMAT.current(json.loads(read_text(path, MAX_BYTES)))
        if data["fingerprint"] != space.fingerprint:
            raise CostError(f"{path}: was measured for space {str(data['space'])[:40]!r} ({str(data['fingerprint'])[:16]}), not "
                            f"{space.name!r} ({space.fingerprint})")
        tables = {kind: np.array(data["tables"][kind], np.float64) for kind in space.cells}
        for kind, spec in space.cells.items():
            shape = (len(spec.edges), len(spec.ops))
            if tables[kind].shape != shape or not np.isfinite(tables[kind]).all():
                raise CostError(f"{path}: the table of {kind!r} must hold finite numbers (edges, ops) = {shape}, got {tables[kind].shape}")
        if type(data["unit"]) is not str or not math.isfinite(data["constant"]):
            raise CostError(f"{path}: unit must be a text and constant a finite number, got {short(data['unit'])} and "
                            f"{short(data['constant'])}")
        return Additive(space, "latency_table", data["unit"], float(data["constant"]), tables)
    except OSError as error:
        raise CostError(f"{path}: cannot read the latency table ({error.strerror or error})") from error
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, CostError):
            raise
        if isinstance(error, FormatError):
            raise CostError(f"{path}: {error}") from error
        raise CostError(f"{path}: not a latency table ({error})") from error
