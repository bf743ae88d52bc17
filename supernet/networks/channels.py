"""Which channels of a network belong together, found in its graph: what may become narrower, shallower, or of smaller kernels.

A network is traced by torch.fx, modules of `torch.nn` kept whole. Channels that a layer gives are a group; it is followed through the
graph: sums and products tie the groups of both sides, depthwise convolutions, batch norms, pools and activations keep them, concatenations
put them side by side, flattening repeats each channel for its pixels. What reads channels in a way that is not known here fixes them,
with the reason; so do the input and the output.
"""

import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from supernet.networks.graph import DRAWING_FUNCTIONS, DRAWING_NAMES, graphs_of, path_of, shapes_of, where
from supernet.networks.shortcuts import SUMS, Block, Fixed, blocks_of


class Part(NamedTuple):
    """Channels that stand side by side: those of a group, each `repeat` times in a row (the pixels of a flattened map)."""

    group: int
    repeat: int = 1


class Layout(NamedTuple):
    """Of a tensor: the axis of its channels, and of what they consist, in order."""

    axis: int
    parts: tuple[Part, ...]


class Layer(NamedTuple):
    """A module whose tensors follow the groups. kind: `dense` and `depthwise` convolutions, `linear`, `norm`. rows: what its outputs are;
    columns: what a dense convolution or a linear layer reads, else none. kernel: side of an odd square kernel whose centre gives maps
    of the same size, else None."""

    target: str
    kind: str
    rows: tuple[Part, ...]
    columns: tuple[Part, ...] = ()
    kernel: int | None = None


@dataclass
class Group:
    """Channels that are kept or left out together. layers: the targets of those that make them, in order. fixed: why there is no choice,
    None where there may be one."""

    channels: int
    layers: list[str]
    fixed: str | None = None


@dataclass(frozen=True)
class Traced:
    """What is known of a network. graphs: in training and in evaluation, with nodes of the same names. layers: by node. blocks: in the
    order of the graph, as are groups. shapes: of each node's tensor with a batch of 2, in evaluation. digest: of the graph, without the
    names of modules, and without what the data decide (channels of images, classes)."""

    graphs: Mapping[bool, fx.Graph]
    layers: Mapping[str, Layer]
    layouts: Mapping[str, Layout]
    groups: Sequence[Group]
    blocks: Sequence[Block]
    fixed: Sequence[Fixed]
    shapes: Mapping[str, tuple[int, ...]]
    digest: str = field(default="")

    @property
    def output(self) -> tuple[int, ...]:
        return self.shapes["output"]


# ---- what is found


def traced(model: nn.Module, image: Sequence[int]) -> Traced:
    """image: C, H, W of what it reads. Leaves the model as it was. Raises ValueError, one line, as `graph.graphs_of` and
    `graph.shapes_of`."""
    training = model.training
    try:
        graphs = graphs_of(model)
        shapes = shapes_of(model.eval(), graphs[False], image)
    finally:
        model.train(training)
    found = _Walk(graphs[False], model, shapes)
    groups, layers, layouts = found.settled()
    blocks, no_blocks = blocks_of(graphs[False], model, shapes)
    fixed = [Fixed("width", group_name(group), group.fixed) for group in groups if group.fixed and group.layers]
    fixed += [Fixed("width", what, why) for what, why in found.opaque.items()] + no_blocks
    return Traced(graphs, layers, layouts, groups, blocks, fixed, shapes, _digest(graphs[False], model, layers, groups, blocks))


def group_name(group: Group) -> str:
    """In words: how many channels of which layers."""
    more = f" and {len(group.layers) - 3} more" if len(group.layers) > 3 else ""
    return f"{group.channels} channels of {', '.join(group.layers[:3])}{more}"


# ---- groups

POINTWISE = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.Hardswish, nn.Hardsigmoid,
             nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
             nn.AlphaDropout)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.ZeroPad2d, nn.ReflectionPad2d,
         nn.ReplicationPad2d, nn.Upsample)
POINTWISE_FUNCTIONS = (F.relu, torch.relu, F.relu6, F.gelu, F.silu, F.mish, F.elu, F.selu, F.leaky_relu, F.hardswish, F.hardsigmoid,
                       F.hardtanh, F.sigmoid, torch.sigmoid, F.tanh, torch.tanh, F.softplus, torch.clone, torch.abs, torch.square,
                       torch.neg, operator.neg)
POOL_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate, torch.max_pool2d)
POINTWISE_METHODS = ("relu", "sigmoid", "tanh", "contiguous", "clone", "float", "detach", "abs", "square", "neg")
PAIRS = (*SUMS, operator.sub, torch.sub, operator.mul, torch.mul, operator.truediv, torch.div)
PAIR_METHODS = ("add", "sub", "mul", "div")
OVER_AXES = (torch.mean, torch.sum, torch.amax)
OF_SHAPE = ("size", "dim", "numel")


class _Walk:
    """One walk through a graph, node by node. Groups are found by union: `self.of` leads from a group to the one it was tied to."""

    def __init__(self, graph: fx.Graph, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]):
        self.model, self.shapes = model, shapes
        self.of: list[int] = []
        self.groups: list[Group] = []
        self.layouts: dict[str, Layout] = {}
        self.layers: dict[str, Layer] = {}
        self.made: dict[str, Layer] = {}  # by target, for modules that are called twice
        self.opaque: dict[str, str] = {}  # layers that are elastic nowhere, and why
        self.twins = _twins(model)
        functions: dict[Any, Callable[[fx.Node], Layout | None]] = {
            **dict.fromkeys((*POINTWISE_FUNCTIONS, *DRAWING_FUNCTIONS), self._same), **dict.fromkeys(POOL_FUNCTIONS, self._pool),
            **dict.fromkeys(PAIRS, self._pair), **dict.fromkeys(OVER_AXES, self._over_axes), torch.cat: self._cat, torch.concat: self._cat,
            torch.flatten: self._flatten, torch.permute: self._permute, torch.transpose: self._transpose, torch.reshape: self._reshape}
        methods = {**dict.fromkeys(POINTWISE_METHODS, self._same), **dict.fromkeys(PAIR_METHODS, self._pair),
                   **dict.fromkeys(("mean", "sum", "amax"), self._over_axes), "flatten": self._flatten, "permute": self._permute,
                   "transpose": self._transpose, "view": self._reshape, "reshape": self._reshape}
        modules = {**dict.fromkeys(POINTWISE, self._same), **dict.fromkeys(POOLS, self._pool), nn.Flatten: self._flatten,
                   nn.Conv2d: self._conv, nn.Linear: self._linear, nn.BatchNorm2d: self._norm, nn.BatchNorm1d: self._norm}
        for node in graph.nodes:
            if node.op == "placeholder":
                layout = Layout(1, (Part(self._group(shapes[node.name][1], fixed="it is the input's"), 1),))
            elif node.op == "output":
                self._fix(node.all_input_nodes, "it is the output's")
                continue
            elif _given_by_name(node, shapes):
                layout = self._unknown(node)
            elif node.op == "call_module":
                module = model.get_submodule(node.target)
                hooks = module._forward_hooks or module._forward_pre_hooks
                layout = (modules.get(type(module)) if not hooks else None) or self._unknown
                layout = layout(node)
            elif node.op == "call_function":
                known = self._same if path_of(node.target) in DRAWING_NAMES else functions.get(node.target, self._unknown)
                layout = known(node)
            elif node.op == "call_method":
                layout = None if node.target in OF_SHAPE else methods.get(node.target, self._unknown)(node)
            else:
                layout = None
            if layout is not None and node.name in shapes:
                self.layouts[node.name] = layout

    # -- groups

    def _group(self, channels: int, layer: str | None = None, fixed: str | None = None) -> int:
        self.groups.append(Group(channels, [] if layer is None else [layer], fixed))
        self.of.append(len(self.of))
        return len(self.of) - 1

    def _root(self, group: int) -> int:
        while self.of[group] != group:
            group = self.of[group]
        return group

    def _tie(self, a: Sequence[Part], b: Sequence[Part], why: str) -> None:
        """Makes both the same channels; where they are put together otherwise, no choice is left."""
        sizes = [[(self.groups[part.group].channels, part.repeat) for part in parts] for parts in (a, b)]
        if sizes[0] != sizes[1]:
            self._fix_parts((*a, *b), why)
            return
        for one, other in zip(a, b):
            first, second = sorted((self._root(one.group), self._root(other.group)))
            if first != second:
                self.of[second] = first
                kept, left = self.groups[first], self.groups[second]
                kept.layers += left.layers
                kept.fixed = kept.fixed or left.fixed

    def _fix_parts(self, parts: Iterable[Part], why: str) -> None:
        for part in parts:
            group = self.groups[self._root(part.group)]
            group.fixed = group.fixed or why

    def _fix(self, nodes: Iterable[fx.Node], why: str) -> None:
        for node in nodes:
            if node.name in self.layouts:
                self._fix_parts(self.layouts[node.name].parts, why)

    def settled(self) -> tuple[list[Group], dict[str, Layer], dict[str, Layout]]:
        """Groups renumbered in order, and all that names them."""
        roots = [n for n in range(len(self.of)) if self._root(n) == n]
        place = {root: n for n, root in enumerate(roots)}

        def again(parts: Sequence[Part]) -> tuple[Part, ...]:
            return tuple(Part(place[self._root(part.group)], part.repeat) for part in parts)

        layers = {name: layer._replace(rows=again(layer.rows), columns=again(layer.columns)) for name, layer in self.layers.items()}
        layouts = {name: Layout(layout.axis, again(layout.parts)) for name, layout in self.layouts.items()}
        for root in roots:
            self.groups[root].layers = list(dict.fromkeys(self.groups[root].layers))
        return [self.groups[root] for root in roots], layers, layouts

    # -- nodes

    def _unknown(self, node: fx.Node) -> None:
        if node.target is getattr and node.name not in self.shapes:
            return  # of its shape, or its device
        what = type(self.model.get_submodule(node.target)).__name__ if node.op == "call_module" else getattr(
            node.target, "__name__", str(node.target))
        at = where(node)
        self._fix(node.all_input_nodes, f"{what} reads it" if at.startswith(what) else f"{what} ({at}) reads it")

    def _input(self, node: fx.Node) -> tuple[Layout | None, tuple[int, ...]]:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return None, ()
        return self.layouts.get(source.name), self.shapes.get(source.name, ())

    def _same(self, node: fx.Node) -> Layout | None:
        return self._input(node)[0]

    def _pool(self, node: fx.Node) -> Layout | None:
        layout, shape = self._input(node)
        if layout is None:
            return None
        if len(shape) != 4 or layout.axis != 1 or self.shapes.get(node.name, ())[1:2] != shape[1:2]:
            return self._unknown(node)
        return layout

    def _over_axes(self, node: fx.Node) -> Layout | None:
        layout, shape = self._input(node)
        if layout is None:
            return None
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        axes = [axes] if type(axes) is int else axes
        if not isinstance(axes, list | tuple) or not all(type(axis) is int for axis in axes):
            return self._unknown(node)
        axes = {axis % len(shape) for axis in axes}
        if layout.axis in axes:
            return self._unknown(node)
        gone = 0 if len(self.shapes[node.name]) == len(shape) else sum(axis < layout.axis for axis in axes)
        return Layout(layout.axis - gone, layout.parts)

    def _flatten(self, node: fx.Node) -> Layout | None:
        layout, shape = self._input(node)
        if layout is None:
            return None
        out = self.shapes[node.name]
        if layout.axis != 1 or len(out) != 2 or out[0] != shape[0]:
            return self._unknown(node)
        return Layout(1, tuple(Part(part.group, part.repeat * math.prod(shape[2:])) for part in layout.parts))

    def _reshape(self, node: fx.Node) -> Layout | None:
        sides = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], list | tuple) else node.args[1:]
        if len(sides) == 2 and type(sides[1]) is int and sides[1] == -1 and (type(sides[0]) is fx.Node):
            return self._flatten(node)  # x.view(x.size(0), -1)
        return self._unknown(node) if self._input(node)[0] is not None else None

    def _permute(self, node: fx.Node) -> Layout | None:
        layout, shape = self._input(node)
        if layout is None:
            return None
        axes = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], list | tuple) else node.args[1:]
        if len(axes) != len(shape) or not all(type(axis) is int for axis in axes):
            return self._unknown(node)
        return Layout([axis % len(shape) for axis in axes].index(layout.axis), layout.parts)

    def _transpose(self, node: fx.Node) -> Layout | None:
        layout, shape = self._input(node)
        if layout is None:
            return None
        if len(node.args) != 3 or not all(type(axis) is int for axis in node.args[1:]):
            return self._unknown(node)
        a, b = (axis % len(shape) for axis in node.args[1:])
        return Layout({a: b, b: a}.get(layout.axis, layout.axis), layout.parts)

    def _cat(self, node: fx.Node) -> Layout | None:
        sources = node.args[0]
        found = [self.layouts.get(source.name) for source in sources if isinstance(source, fx.Node)]
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        dims = len(self.shapes[node.name])
        if type(axis) is not int or None in found or len(found) != len(sources) or len({layout.axis for layout in found}) > 1:
            return self._unknown(node)
        if axis % dims == found[0].axis:
            return Layout(found[0].axis, tuple(part for layout in found for part in layout.parts))
        for other in found[1:]:
            self._tie(found[0].parts, other.parts, f"{where(node)} joins channels that are put together otherwise")
        return found[0]

    def _pair(self, node: fx.Node) -> Layout | None:
        tensors = [a for a in node.args[:2] if isinstance(a, fx.Node) and a.name in self.shapes]
        known = [a for a in tensors if a.name in self.layouts]
        if not known:
            return None
        if len(tensors) == 1:
            return self.layouts[known[0].name]
        dims = len(self.shapes[node.name])
        if len(known) == 1:
            other = next(a for a in tensors if a is not known[0])
            layout, shape = self.layouts[known[0].name], self.shapes[other.name]
            from_end = len(self.shapes[known[0].name]) - layout.axis
            if len(shape) >= from_end and shape[-from_end] != 1:
                self._fix(known, f"{where(node)} combines it with {where(other)}, whose channels are fixed")
            return Layout(dims - from_end, layout.parts)
        (a, b), (first, second) = ([self.layouts[n.name] for n in known], [self.shapes[n.name] for n in known])
        if len(first) - a.axis != len(second) - b.axis:
            self._fix(known, f"{where(node)} combines it along another axis")
            return None
        if first[a.axis] != second[b.axis]:  # one is broadcast
            narrow, wide = (a, b) if first[a.axis] == 1 else (b, a)
            self._fix_parts(narrow.parts, f"{where(node)} spreads it over other channels")
            return Layout(dims - (len(first) - a.axis), wide.parts)
        if a.parts != b.parts:
            self._tie(a.parts, b.parts, f"{where(node)} adds channels that are put together otherwise")
        return Layout(dims - (len(first) - a.axis), a.parts)

    # -- layers

    def _layer(self, node: fx.Node, layer: Layer) -> tuple[Part, ...]:
        """Its rows; those of the same module called before, tied, where it was."""
        before = self.made.get(layer.target)
        if before is not None:
            for one, other in ((before.rows, layer.rows), (before.columns, layer.columns)):
                self._tie(one, other, f"{layer.target} is called with channels that are put together otherwise")
            layer = before
        self.made[layer.target] = self.layers[node.name] = layer
        return layer.rows

    def _not_elastic(self, node: fx.Node, why: str) -> None:
        self._fix(node.all_input_nodes, f"{node.target} reads it, {why}")
        self.opaque.setdefault(str(node.target), why)

    def _read(self, node: fx.Node, axis: int) -> tuple[Part, ...] | None:
        """What a layer reads along `axis`, a new fixed group where nothing is known of it; None where its channels lie elsewhere."""
        layout, shape = self._input(node)
        if layout is None:
            return (Part(self._group(shape[axis], fixed="it is not known of what it consists")),)
        return layout.parts if layout.axis == axis % len(shape) else None

    def _conv(self, node: fx.Node) -> Layout | None:
        conv, shape = self.model.get_submodule(node.target), self._input(node)[1]
        depthwise = conv.groups > 1 and conv.groups == conv.in_channels == conv.out_channels
        columns = self._read(node, 1) if len(shape) == 4 else None
        why = ("its padding is not zeros" if conv.padding_mode != "zeros" else f"a convolution of {conv.groups} groups"
               if conv.groups > 1 and not depthwise else f"which shares its weights with {self.twins[node.target]}"
               if node.target in self.twins else "along another axis" if columns is None else None)
        if why is not None:
            return self._not_elastic(node, why)
        kernel = _centred(conv)
        if depthwise:
            rows = self._layer(node, Layer(node.target, "depthwise", columns, (), kernel))
        else:
            out = self._rows(node, conv.out_channels)
            rows = self._layer(node, Layer(node.target, "dense", out, columns, kernel))
        return Layout(1, rows)

    def _rows(self, node: fx.Node, channels: int) -> tuple[Part, ...]:
        before = self.made.get(node.target)
        return (Part(self._group(channels, node.target)),) if before is None else before.rows

    def _linear(self, node: fx.Node) -> Layout | None:
        linear, shape = self.model.get_submodule(node.target), self._input(node)[1]
        columns = self._read(node, -1)
        why = (f"which shares its weights with {self.twins[node.target]}" if node.target in self.twins
               else "along another axis" if columns is None else None)
        if why is not None:
            return self._not_elastic(node, why)
        rows = self._layer(node, Layer(node.target, "linear", self._rows(node, linear.out_features), columns))
        return Layout(len(shape) - 1, rows)

    def _norm(self, node: fx.Node) -> Layout | None:
        norm, (layout, _) = self.model.get_submodule(node.target), self._input(node)
        if norm.momentum is None or node.target in self.twins or (layout is not None and layout.axis != 1):
            return self._not_elastic(node, "a batch norm with cumulative averages, shared weights or another axis")
        columns = self._read(node, 1)
        self._layer(node, Layer(node.target, "norm", columns))
        return Layout(1, columns)


def _given_by_name(node: fx.Node, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether one of its tensors is a keyword argument: what is known of a call is known of its places."""
    found: list[fx.Node] = []
    fx.node.map_arg(node.kwargs, found.append)
    return any(one.name in shapes for one in found)


def _twins(model: nn.Module) -> dict[str, str]:
    """Modules that share a parameter, each with another of them."""
    seen: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            other = seen.setdefault(id(parameter), name)
            if other != name:
                found[name], found[other] = other, name
    return found


def _centred(conv: nn.Conv2d) -> int | None:
    k, sides = conv.kernel_size[0], range(2)
    same = conv.padding == "same" or (type(conv.padding) is tuple and conv.padding == tuple(conv.dilation[n] * (k // 2) for n in sides))
    return k if conv.kernel_size == (k, k) and k % 2 == 1 and same else None


# ---- digest


def _digest(graph: fx.Graph, model: nn.Module, layers: Mapping[str, Layer], groups: Sequence[Group], blocks: Sequence[Block]) -> str:
    place = {node.name: n for n, node in enumerate(graph.nodes)}
    told: list[Any] = []
    for node in graph.nodes:
        arguments = _told([node.args, node.kwargs], place)
        layer = layers.get(node.name)
        if layer is not None:
            what = [layer.kind, layer.rows, layer.columns and [part.group for part in layer.columns], _options(model, layer)]
        elif node.op == "call_module":
            module = model.get_submodule(node.target)
            what = [type(module).__name__, module.extra_repr()]
        else:
            what = [] if node.op in ("placeholder", "get_attr", "output") else [
                node.target if type(node.target) is str else getattr(node.target, "__name__", "function")]
        told.append([node.op, what, arguments])
    free = [group.channels for group in groups if group.fixed is None]
    told += [free, [[place[block.node], place[block.shortcut]] for block in blocks]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _told(value: Any, place: Mapping[str, int]) -> Any:
    """Arguments of a node as plain values, nodes by their place."""
    if isinstance(value, fx.Node):
        return f"%{place[value.name]}"
    if isinstance(value, list | tuple):
        return [_told(one, place) for one in value]
    if isinstance(value, dict):
        return {name: _told(one, place) for name, one in sorted(value.items())}
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _options(model: nn.Module, layer: Layer) -> list[Any]:
    module = model.get_submodule(layer.target)
    if type(module) is nn.Conv2d:
        return [module.kernel_size, module.stride, module.padding, module.dilation, module.bias is not None]
    return [module.bias is not None]
