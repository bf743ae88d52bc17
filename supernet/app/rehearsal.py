"""What the parts of a search must give back, tried once before any work: what does not fit says whose it is, what was expected and what
came."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ops.kernels import on_plain_path
from supernet.bilevel import Bilevel
from supernet.costs.additive import mixtures
from supernet.costs.base import Cost, CostError
from supernet.interfaces import InterfaceError, check_interface, seen
from supernet.monitors.base import Monitor
from supernet.penalties.base import Penalty, WeightPenalty
from supernet.relaxations.base import Relaxation, Wrapper
from supernet.space import Space
from supernet.tasks.base import Task
from supernet.weights import EdgeWeights, Weights


def check_interfaces(search: Bilevel, monitors: Mapping[str, Monitor], cost: Cost | None) -> None:
    """Raises InterfaceError: a part of a search is not of its kind."""
    for n, relaxation in enumerate(layers(search.relaxation)):
        check_interface(relaxation, Relaxation, "wrapper" if n else "relaxation")
    for penalty in search.penalties:
        check_interface(penalty, Penalty, "penalty")
    for penalty in search.w_penalties:
        check_interface(penalty, WeightPenalty, "w_penalty")
    for name, monitor in monitors.items():
        check_interface(monitor, Monitor, f"monitor.{name}")
    check_interface(search.task, Task, "task")
    if cost is not None:
        check_interface(cost, Cost, "cost")


def layers(relaxation: Relaxation) -> list[Relaxation]:
    """A relaxation and its wrappers, the innermost first."""
    return [*(layers(relaxation.inner) if isinstance(relaxation, Wrapper) else ()), relaxation]


def check_draws(relaxation: Relaxation, space: Space, generator: torch.Generator) -> None:
    """Raises InterfaceError: what a relaxation, or one that it wraps, gives back are no edge weights of the space, or they depend on
    nothing that it could learn."""
    for part in layers(relaxation):
        name = type(part).__qualname__
        noise = part.noise(generator)
        if not isinstance(noise, Mapping):
            raise InterfaceError(f"{name}.noise must return tensors by name, {{}} where nothing is random, got {seen(noise)}")
        draw = part.weights(noise)
        for method, found in (("weights", draw), ("mean", part.mean())):
            check_edge_weights(f"{name}.{method}", found, space)
        tensors = [draw.log_prob, *(t for w in draw.values() for t in (w.ops, w.edges, w.skip))]
        if any(p.requires_grad for p in part.parameters()) and not any(t is not None and t.requires_grad for t in tensors):
            raise InterfaceError(f"{name}.weights must depend on its parameters, so that these can learn; got weights without gradients")


def check_edge_weights(what: str, found: Any, space: Space) -> None:
    """Raises InterfaceError unless `found` is `EdgeWeights` with finite tables of the space's shapes. what: who returned it."""
    kinds = sorted(space.cells)
    if not isinstance(found, EdgeWeights):
        raise InterfaceError(f"{what} must return EdgeWeights({{kind: Weights(table), ...}}) of {', '.join(kinds)}, got {seen(found)}")
    if sorted(found) != kinds:
        raise InterfaceError(f"{what} must cover the kinds of cells {', '.join(kinds)}, got {', '.join(sorted(map(str, found))) or 'none'}")
    for kind, spec in space.cells.items():
        w, (edges, ops) = found[kind], (len(spec.edges), len(spec.ops))
        if not isinstance(w, Weights):
            raise InterfaceError(f"{what} must give Weights for {kind!r}, got {seen(w)}")
        if not isinstance(w.ops, Tensor) or not w.ops.is_floating_point() or w.ops.dim() not in (2, 3) or w.ops.shape[-2:] != (edges, ops):
            raise InterfaceError(f"{what}: ops of {kind!r} must be a table (E, O) = ({edges}, {ops}), or (L, E, O), got {seen(w.ops)}")
        if not torch.isfinite(w.ops).all():
            raise InterfaceError(f"{what}: ops of {kind!r} must be finite, got {int((~torch.isfinite(w.ops)).sum())} that are not")
        if w.edges is not None and (not isinstance(w.edges, Tensor) or w.edges.shape != (edges,)):
            raise InterfaceError(f"{what}: edges of {kind!r} must be (E,) = ({edges},), or None, got {seen(w.edges)}")
        if w.active is not None and [len(row) for row in w.active] != [ops] * edges:
            raise InterfaceError(f"{what}: active of {kind!r} must be {edges} rows of {ops} truth values, or None, got "
                                 f"{len(w.active)} rows of {sorted({len(row) for row in w.active})}")


def check_scalar(what: str, found: Any) -> None:
    """Raises InterfaceError unless `found` is a tensor without axes."""
    if not isinstance(found, Tensor) or found.shape != ():
        raise InterfaceError(f"{what} must return a scalar tensor, of shape (), got {seen(found)}")


@torch.no_grad()
def check_ops(net: nn.Module, space: Space) -> None:
    """Calls one op of each name, width and stride of a network of cells. Raises InterfaceError: it does not keep the channels, or not
    ceil(size / stride) pixels."""
    try:
        cells = mixtures(net, space)
    except CostError:
        return  # networks that are no stacks of cells have ops of their own
    tried: set[tuple[str, int, int]] = set()
    for kind, mixed in cells:
        spec = space.cells[kind]
        for source, bundle in mixed.bundles.items():
            stride = spec.stride if source < spec.num_inputs else 1
            for _, o, _, op in bundle:
                key = (spec.ops[o], mixed.channels, stride)
                if key not in tried:
                    tried.add(key)
                    _check_op(*key, op, next(net.parameters()))


def _check_op(name: str, channels: int, stride: int, op: nn.Module, like: Tensor) -> None:
    size, training = 8, op.training
    try:
        with on_plain_path():
            found = op.eval()(like.new_zeros(2, channels, size, size), torch.Generator(like.device))
    finally:
        op.train(training)
    want = (2, channels, -(-size // stride), -(-size // stride))
    if not isinstance(found, Tensor) or tuple(found.shape) != want:
        raise InterfaceError(f"op {name!r} with {channels} channels and stride {stride} must map (2, {channels}, {size}, {size}) to "
                             f"{want}, got {seen(found)}")
