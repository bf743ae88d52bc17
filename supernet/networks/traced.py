"""A network of one's own with one set of weights for all its sizes: layers take the leading channels, blocks are left out, kernels are the
centre of larger ones.

The graph is the network's own (`channels.traced`), and its modules keep their names. A width is a mask over the channels of a group, the
sum of `factor * (the first so many)`. It stands where channels are mixed, behind norm and activation: the convolution or linear layer that
reads them takes it into its weights, which is the same product. Kernels likewise are the sum of zero-padded centres. What runs alone is cut
out instead of masked, and its factor stands behind the norm of the layer that reads it, or the norm would take it away. A block is its
shortcut and `run` times its branch; the factor of `skip` is not read. At one-hot weights all of it is the final network, and only its
slices are computed.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ops import plain
from ops.depthwise import depthwise
from ops.forms import Form, NoPlainForm, form_of
from ops.op import BatchNorm
from supernet.networks.chain import Choices, LayerCosts, drop_path_factor, mixed
from supernet.networks.channels import Layer, Part, Traced
from supernet.networks.graph import called, draws, tensor_of
from supernet.networks.measure import counting
from supernet.networks.shortcuts import Block
from supernet.networks.slices import Span, centre, laid_out, leading, padding_for, permuted, square, take_layer, taken
from supernet.networks.stacked import take
from supernet.networks.written import Block as Written
from supernet.networks.written import identifier
from supernet.weights import EdgeWeights

RUN, SKIP = "run", "skip"


@dataclass(frozen=True)
class Decisions:
    """What each row of a kind decides. widths: the group, and its channels by choice. kernels: the layer's module, and its sizes by choice.
    blocks: what `run` and `skip` are of."""

    widths: Sequence[tuple[int, Mapping[str, int]]]
    kernels: Sequence[tuple[str, Mapping[str, int]]]
    blocks: Sequence[Block]


@dataclass
class Now:
    """What a call runs. widths: channels by group. masks, alone: by group, the mask over them, or the factor of the one choice that runs.
    kernels: by module, sizes and their factors. runs: by name of a block's sum, the factor of its branch. idle: nodes that do not run.
    scales: by node, the factor of a norm that is still to come."""

    widths: dict[int, int]
    masks: dict[int, Tensor]
    alone: dict[int, Tensor]
    kernels: dict[str, Mapping[int, Tensor | None]]
    runs: dict[str, Tensor | None]
    idle: set[str]
    scales: dict[str, Tensor] = field(default_factory=dict)


class TracedNetwork(nn.Module):
    """`net(x, weights) -> logits`. traced: what is known of `model`, whose modules it takes over, narrower where `choices` hold no wider
    choice. running_statistics: as of `ops.op.Normalisation`; all else of the norms is the model's. drop_path_prob: chance that the branch
    of a block is dropped in training, beside what the model itself drops."""

    def __init__(self, model: nn.Module, traced: Traced, decisions: Decisions, choices: Choices, *, running_statistics: bool = True):
        super().__init__()
        self.choices, self.decisions, self.traced, self.drop_path_prob = choices, decisions, traced, 0.0
        self.full = {n: group.channels for n, group in enumerate(traced.groups)}  # by group, channels
        self.kept = dict(self.full)
        for (group, channels), held in zip(decisions.widths, choices.of.get("width", ())):
            self.kept[group] = max(channels[name] for name in held)
        self.kernels = {target: {name: sizes[name] for name in held}
                        for (target, sizes), held in zip(decisions.kernels, choices.of.get("kernel", ()))}
        self.left_out = {node for block, held in zip(decisions.blocks, choices.of.get("depth", ())) if RUN not in held
                         for node in block.own}
        self.model = nn.Module()
        layers = {layer.target: layer for layer in traced.layers.values()}
        for node in traced.graphs[False].nodes:
            if node.name not in self.left_out and node.op == "call_module":
                module = model.get_submodule(node.target)
                if node.target in layers:
                    module = self._narrowed(module, layers[node.target], running_statistics)
                elif getattr(module, "inplace", False):
                    module.inplace = False
                _placed(self.model, node.target, module)
            elif node.name not in self.left_out and node.op == "get_attr":
                _placed(self.model, node.target, tensor_of(model, node.target))
        self.behind = _norms_behind(traced)
        self.blocks = {block.node: block for block in decisions.blocks}
        self.draws = any(draws(node, model) for node in traced.graphs[True].nodes if node.name not in self.left_out)

    def _narrowed(self, module: nn.Module, layer: Layer, running_statistics: bool) -> nn.Module:
        """The leading part of a layer's weights, as a module of that size."""
        rows = leading(layer.rows, self.full, self.kept)
        size = sum(length for _, length in rows)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            if layer.kind == "norm":
                made = BatchNorm(size, affine=module.affine, eps=module.eps, momentum=module.momentum,
                                 running_statistics=running_statistics and module.track_running_stats)
            elif layer.kind == "linear":
                made = nn.Linear(sum(n for _, n in leading(layer.columns, self.full, self.kept)), size, bias=module.bias is not None)
            else:
                kernel = max(self.kernels.get(layer.target, {"": module.kernel_size[0]}).values())
                narrow = kernel != module.kernel_size[0]
                made = nn.Conv2d(
                    sum(n for _, n in leading(layer.columns or layer.rows, self.full, self.kept)), size,
                    kernel if narrow else module.kernel_size, module.stride, padding_for(module, kernel) if narrow else module.padding,
                    module.dilation, size if layer.kind == "depthwise" else 1, module.bias is not None)
            made = made.to(next(iter(module.state_dict().values()), torch.zeros(())))
            take_layer(made, module, layer, self.kept, self.full)
        for name, own in made.named_parameters():
            own.requires_grad_(getattr(module, name).requires_grad)
        return made.train(module.training)

    # ---- forward

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (N, num_classes). x: (N, in_channels, H, W). generator: for drop path, and for what the model itself draws in training."""
        graph, now = self.traced.graphs[self.training], self.now(weights, x)
        env: dict[str, Any] = {}
        with self._drawing(x, generator):
            for node in graph.nodes:
                if node.op == "placeholder":
                    env[node.name] = x
                elif node.op == "output":
                    return env[node.args[0].name]
                elif node.name not in now.idle:
                    env[node.name] = self._gives(node, env, now, generator)
        raise AssertionError("unreachable: a graph has an output")

    def _gives(self, node: fx.Node, env: Mapping[str, Any], now: Now, generator: torch.Generator | None) -> Any:
        layer = self.traced.layers.get(node.name)
        if layer is not None:
            return self._layer(node, layer, env[node.args[0].name], now)
        block = self.blocks.get(node.name)
        if block is None:
            return called(node, self.model, env)
        if node.name not in now.runs:
            return env[block.shortcut]
        factor, drop = now.runs[node.name], self.drop_path_prob if self.training else 0.0
        if factor is None and drop == 0:
            return called(node, self.model, env)
        branch = env[block.branch] if factor is None else env[block.branch] * factor
        if drop > 0:
            kept = drop_path_factor(branch, drop, generator)
            branch = branch * kept.reshape(-1, *(1 for _ in branch.shape[1:]))
        return env[block.shortcut] + branch

    def now(self, weights: EdgeWeights | None, like: Tensor) -> Now:
        """like: of the type and on the device of the masks."""
        rows = self.choices.rows(weights)
        now = Now(dict(self.kept), {}, {}, {}, {}, set(self.left_out))
        for (group, channels), row in zip(self.decisions.widths, rows.get("width", ())):
            now.widths[group] = max(channels[name] for name in row)
            if len(row) == 1:
                (factor,) = row.values()
                if factor is not None:
                    now.alone[group] = factor
            else:
                place = torch.arange(now.widths[group], device=like.device)
                kind = next((factor for factor in row.values() if factor is not None), like)
                now.masks[group] = mixed(row, lambda name, c=channels, p=place, k=kind: (p < c[name]).to(k))
        for (target, sizes), row in zip(self.decisions.kernels, rows.get("kernel", ())):
            now.kernels[target] = {sizes[name]: factor for name, factor in row.items()}
        for block, row in zip(self.decisions.blocks, rows.get("depth", ())):
            if RUN in row:
                now.runs[block.node] = row[RUN]
            else:
                now.idle |= block.own
        return now

    def _layer(self, node: fx.Node, layer: Layer, x: Tensor, now: Now) -> Tensor:
        module = self.model.get_submodule(layer.target)
        rows = leading(layer.rows, self.kept, now.widths)
        if layer.kind == "norm":
            return self._normalised(module, x, rows, now.scales.get(node.name))
        weight, scales = taken(module.weight, 0, rows), []
        if layer.columns:
            weight = taken(weight, 1, leading(layer.columns, self.kept, now.widths))
            mask = self._columns(layer, now, scales, weight)
            weight = weight if mask is None else weight * mask.view(1, -1, *(1 for _ in weight.shape[2:]))
        padding = getattr(module, "padding", None)
        factors = now.kernels.get(layer.target)
        if factors is not None:
            largest = max(factors)
            padding = module.padding if largest == module.kernel_size[0] else padding_for(module, largest)
            weight = centre(weight, largest)
            if len(factors) > 1:
                weight = weight * mixed(factors, lambda k: square(k, largest, weight))
            elif (factor := factors[largest]) is not None:
                scales.append(factor)
        if scales:
            scale = math.prod(scales[1:], start=scales[0])
            if node.name in self.behind:
                now.scales[self.behind[node.name]] = scale
            else:
                weight = weight * scale
        bias = None if module.bias is None else taken(module.bias, 0, rows)
        if layer.kind == "linear":
            return F.linear(x, weight, bias)
        if layer.kind == "depthwise":
            if bias is None and layer.kernel is not None and module.stride == (1, 1) and module.dilation[0] == module.dilation[1]:
                return depthwise(x, weight, 1, module.dilation[0])  # the same, with faster gradients
            return F.conv2d(x, weight, bias, module.stride, padding, module.dilation, len(weight))
        return F.conv2d(x, weight, bias, module.stride, padding, module.dilation)

    def _columns(self, layer: Layer, now: Now, scales: list[Tensor], like: Tensor) -> Tensor | None:
        """The mask over what a layer reads, None for ones. `scales` gets the factor of a choice that runs alone, where that is all that it
        reads."""
        groups = {part.group for part in layer.columns}
        if len(groups) == 1:
            (group,) = groups
            if group in now.alone:
                scales.append(now.alone[group])
        if not (groups & now.masks.keys() or (len(groups) > 1 and groups & now.alone.keys())):
            return None
        pieces = []
        for group, repeat in layer.columns:
            piece = now.masks.get(group)
            if piece is None:
                factor = now.alone.get(group)
                piece = like.new_ones(now.widths[group]) if factor is None else factor.expand(now.widths[group])
            pieces.append(piece if repeat == 1 else piece.repeat_interleave(repeat))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    @staticmethod
    def _normalised(norm: BatchNorm, x: Tensor, rows: Sequence[Span], scale: Tensor | None) -> Tensor:
        if len(rows) == 1:
            return norm.leading(x, scale)
        pieces = x.split([length for _, length in rows], 1)
        return torch.cat([norm.leading(piece, scale, begin) for piece, (begin, _) in zip(pieces, rows)], 1)

    @contextmanager
    def _drawing(self, x: Tensor, generator: torch.Generator | None) -> Iterator[None]:
        """What the model draws in training comes from the generator: torch's own modules take none. Raises ValueError: there is none."""
        if not (self.training and self.draws):
            yield
            return
        if generator is None:
            raise ValueError("dropout draws at every forward: the network must be called with generator=")
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    # ---- weights

    def take(self, other: "TracedNetwork") -> None:
        """Becomes the leading channels and the centres of kernels of `other`, the same network with all that is held here."""
        with torch.no_grad():
            for layer in self._own_layers():
                take_layer(self.model.get_submodule(layer.target), other.model.get_submodule(layer.target), layer, self.kept, other.kept)

    def sort(self) -> None:
        """Orders the channels of each group that may be narrower by the weight that the layers which read them give them (the sum of
        absolute values), the largest first, so that a narrower network keeps what counts most (Cai et al. 2020, Sec. 3.3; Li et al. 2017
        rank filters by their own norm). At full width the network computes what it did."""
        layers = self._own_layers()
        with torch.no_grad():
            orders = {group: order for group, _ in self.decisions.widths if (order := self._order(group, layers)) is not None}
            for layer in layers:
                module = self.model.get_submodule(layer.target)
                for name, dim, parts in laid_out(module, layer):
                    tensor = getattr(module, name)
                    tensor.copy_(tensor.index_select(dim, permuted(parts, self.kept, orders, tensor.device)))

    def _order(self, group: int, layers: Sequence[Layer]) -> Tensor | None:
        total = None
        for layer in layers:
            if all(part.group != group for part in layer.columns):
                continue
            weight = self.model.get_submodule(layer.target).weight
            columns = weight.abs().sum([n for n in range(weight.dim()) if n != 1])
            for part, own in zip(layer.columns, columns.split([self.kept[part.group] * part.repeat for part in layer.columns])):
                if part.group == group:
                    own = own.view(-1, part.repeat).sum(1)
                    total = own if total is None else total + own
        return None if total is None else total.argsort(descending=True, stable=True)

    def _own_layers(self) -> list[Layer]:
        """Of the modules that are held, each once."""
        found = {layer.target: layer for name, layer in self.traced.layers.items() if name not in self.left_out}
        return list(found.values())

    # ---- what it costs

    def costs(self, x: Tensor) -> list[tuple[dict[str, int], LayerCosts]]:
        """Of what is the same for all, then of the layers that depend on the same decisions together: by label the edge of each decision,
        and the costs. x: an input of the network, of which only the shape counts."""
        found: dict[tuple[tuple[str, int], ...], dict[tuple[str, ...], tuple[int, int]]] = {(): {(): (0, 0)}}
        for rows, table in self._terms(x):
            known = found.setdefault(rows, {})
            for key, (parameters, products) in table.items():
                before = known.get(key, (0, 0))
                known[key] = before[0] + parameters, before[1] + products
        made = []
        for rows, table in found.items():
            labels = [f"{kind}#{n}" for n, (kind, _) in enumerate(rows)]
            made.append(({label: edge for label, (_, edge) in zip(labels, rows)}, LayerCosts(tuple(labels), table)))
        return made

    def _terms(self, x: Tensor) -> Iterator[tuple[tuple[tuple[str, int], ...], dict[tuple[str, ...], tuple[int, int]]]]:
        """Decisions, and by their choices parameters and multiply-adds, of each layer and each part that it reads."""
        widths = {group: (("width", e), {name: channels[name] for name in held})
                  for e, ((group, channels), held) in enumerate(zip(self.decisions.widths, self.choices.of.get("width", ())))}
        areas = {target: (("kernel", e), {name: k * k for name, k in sizes.items()})
                 for e, (target, sizes) in enumerate(self.kernels.items())}
        counted: set[Any] = set()  # layers, and parameters of all else
        for node, shape, products in self._walked(x):
            always = [(("depth", e), {RUN: 1}) for e, block in enumerate(self.decisions.blocks) if node.name in block.own]
            layer = self.traced.layers.get(node.name)
            if layer is None:
                own = [p for p in self._parameters_of(node) if id(p) not in counted]
                counted.update(map(id, own))
                if own or products:
                    total = sum(p.numel() for p in own)
                    yield _table(always, lambda total=total, products=products: (total, products))
                continue
            new, module = layer.target not in counted, self.model.get_submodule(layer.target)
            counted.add(layer.target)

            def width(group: int) -> tuple[tuple[str, int] | None, dict[str, int]]:
                return widths.get(group, (None, {"": self.kept[group]}))

            if layer.kind == "norm":
                for part in layer.rows if module.weight is not None and new else ():
                    yield _table([*always, width(part.group)], lambda n, part=part: (2 * n * part.repeat, 0))
                continue
            pixels = math.prod(shape[1:-1]) if layer.kind == "linear" else math.prod(shape[2:])
            area = areas.get(layer.target, (None, {"": 1 if layer.kind == "linear" else math.prod(module.kernel_size)}))
            if module.bias is not None and new:
                for part in layer.rows:
                    yield _table([*always, width(part.group)], lambda n, part=part: (n * part.repeat, 0))
            rows = [(part, width(part.group)) for part in layer.rows]
            for part in layer.columns or layer.rows:
                read = [width(part.group)] if layer.kind == "depthwise" else [width(part.group), rows[0][1]]

                def size(*factors: int, part: Part = part, new: bool = new, pixels: int = pixels) -> tuple[int, int]:
                    weights = math.prod(factors) * part.repeat
                    return weights if new else 0, weights * pixels

                yield _table([*always, area, *read], size)

    def _walked(self, x: Tensor) -> Iterator[tuple[fx.Node, tuple[int, ...], int]]:
        """The nodes that are held, in evaluation: their shapes with all that is held, and multiply-adds of those that are no layers."""
        training, now, env = self.training, self.now(None, x), {}
        try:
            self.eval()
            for node in self.traced.graphs[False].nodes:
                if node.op == "placeholder":
                    env[node.name] = x
                elif node.op != "output" and node.name not in now.idle:
                    with torch.no_grad(), counting() as counter:
                        env[node.name] = self._gives(node, env, now, None)
                    shape = tuple(env[node.name].shape) if isinstance(env[node.name], Tensor) else ()
                    yield node, shape, counter.get_total_flops() // 2
        finally:
            self.train(training)

    def _parameters_of(self, node: fx.Node) -> list[nn.Parameter]:
        if node.op == "get_attr":
            tensor = tensor_of(self.model, node.target)
            return [tensor] if isinstance(tensor, nn.Parameter) else []
        return list(self.model.get_submodule(node.target).parameters()) if node.op == "call_module" else []

    # ---- export

    def plain(self) -> Written:
        """The network in plain PyTorch, in evaluation: a line a node. Raises NoPlainForm: a decision is open, or a part has none."""
        for kind, rows in self.choices.of.items():
            for row in rows:
                if len(row) > 1:
                    raise NoPlainForm(f"decision {kind!r} holds {', '.join(row)}: it is a supernet's, and has no plain form")
        graph, parts = fx.Graph(), {}
        env: dict[str, fx.Node] = {}
        for node in self.traced.graphs[False].nodes:
            block = self.blocks.get(node.name)
            if node.name in self.left_out:
                continue
            if block is not None and set(block.own) <= self.left_out:
                env[node.name] = env[block.shortcut]
            elif node.op == "placeholder":
                env[node.name] = graph.placeholder("x")
            elif draws(node, self.model):
                env[node.name] = env[node.args[0].name]
            elif node.op in ("call_module", "get_attr"):
                name = identifier(str(node.target))
                parts[name] = self._form(node)
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: env[n.name])
                env[node.name] = graph.call_module(name, args, kwargs)
            else:
                env[node.name] = graph.node_copy(node, lambda n: env[n.name])
        _without_the_unread(graph)
        used = {node.target for node in graph.nodes if node.op == "call_module"}
        count = sum(layer.kind != "norm" for layer in self._own_layers())
        return Written("Network", f"{count} convolutions and linear layers of a network whose sizes were searched.",
                       {name: part for name, part in parts.items() if name in used}, ["x"], _lines(graph))

    def _form(self, node: fx.Node) -> Form:
        if node.op == "get_attr":
            tensor = tensor_of(self.model, node.target).detach()
            whole = {} if tensor.is_floating_point() else {"whole": True}
            if whole and tensor.dtype != torch.int64:
                raise NoPlainForm(f"{node.target} holds numbers of {tensor.dtype}, which have no plain form")
            return Form(plain.Value, {"shape": tuple(tensor.shape), **whole}, {"value": tensor})
        module = self.model.get_submodule(node.target)
        if type(module) is BatchNorm and len(self.traced.shapes[node.name]) != 4:
            return module.plain(nn.BatchNorm1d)
        try:
            return form_of(module)
        except NoPlainForm as error:
            raise NoPlainForm(f"{node.target}: {error}") from error


take.register(TracedNetwork, lambda module, other: module.take(other))


# ---- parts

def _placed(root: nn.Module, target: str, value: nn.Module | Tensor) -> None:
    """At the place of `target` in `root`, in modules that hold nothing else."""
    *owners, name = target.split(".")
    for owner in owners:
        if owner not in root._modules:
            root.add_module(owner, nn.Module())
        root = root.get_submodule(owner)
    if isinstance(value, nn.Parameter):
        root.register_parameter(name, value)
    elif isinstance(value, Tensor):
        root.register_buffer(name, value)
    else:
        root.add_module(name, value)


def _norms_behind(traced: Traced) -> dict[str, str]:
    """By node of a convolution or linear layer that a batch norm alone reads, that norm's node."""
    found = {}
    for node in traced.graphs[False].nodes:
        users = list(node.users)
        if node.name in traced.layers and traced.layers[node.name].kind != "norm" and len(users) == 1:
            reader = traced.layers.get(users[0].name)
            if reader is not None and reader.kind == "norm":
                found[node.name] = users[0].name
    return found


def _table(decisions: Sequence[tuple[tuple[str, int] | None, Mapping[str, float]]], size: Any
           ) -> tuple[tuple[tuple[str, int], ...], dict[tuple[str, ...], tuple[int, int]]]:
    """`size` of all joint choices. decisions: each with what its choices mean for the size, depths apart; None for what is fixed. One that
    comes twice is decided once."""
    rows = tuple(dict.fromkeys(row for row, _ in decisions if row is not None))
    made = {}
    for choices in product(*(meaning for _, meaning in decisions)):
        chosen: dict[Any, str] = {}
        agree = all(row is None or chosen.setdefault(row, name) == name for (row, _), name in zip(decisions, choices))
        if agree:
            values = [meaning[name] for (row, meaning), name in zip(decisions, choices) if row is None or row[0] != "depth"]
            made[tuple(chosen[row] for row in rows)] = size(*values)
    return rows, made


def _without_the_unread(graph: fx.Graph) -> None:
    for node in reversed(graph.nodes):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)


def _lines(graph: fx.Graph) -> list[str]:
    """The lines of a forward, as fx writes them. Raises NoPlainForm: one calls a function that is not torch's."""
    code = graph.python_code("self")
    body = code.src[re.search(r"def forward\(.*:\n", code.src).end():]
    lines = [re.sub(r";  (\w+ = )+None$", "", line.strip()) for line in body.split("\n")]
    lines = [re.sub(r"  # type: .*$", "", line) for line in lines if line and not line.startswith("#")]
    foreign = sorted(name for name in code.globals if name != "torch" and any(re.search(rf"\b{name}\b", line) for line in lines))
    if foreign:
        raise NoPlainForm(f"the network calls {foreign[0]}, which is not torch's and has no plain form")
    return lines
