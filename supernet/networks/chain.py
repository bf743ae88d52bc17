"""Networks that are one chain of layers, each with its own decisions: macro search (NAS-Bench-Macro, FBNet, ProxylessNAS and others).

A layer's decisions are the rows of weight tables, one table a kind of decision. `Row` holds, of one layer and one kind, the choices
that run and their factors.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import plain
from ops.activations import ACTIVATIONS, AS_MODULES
from ops.depthwise import Depthwise
from ops.drop_path import drop_path_masks
from ops.forms import Form, NoPlainForm, form_of, sequence, under
from ops.mobile import PLAIN_POOLS, POOLS, LayerOp, pointwise
from ops.op import BatchNorm, Normalisation
from supernet.networks.measure import multiply_adds_of, parameters
from supernet.networks.steps import Step, steps_of
from supernet.networks.written import Block
from supernet.space import Candidates, CellSpec
from supernet.weights import EdgeWeights

Row = Mapping[str, Tensor | None]  # choice -> its factor, None for 1


class Choices:
    """The choices that a network holds, by kind and layer, and how edge weights become rows."""

    def __init__(self, specs: Mapping[str, CellSpec], candidates: Candidates):
        self.of = {kind: [{name: o for o, name in enumerate(spec.ops) if row[o]} for row in candidates[kind]]
                   for kind, spec in specs.items()}

    def rows(self, weights: EdgeWeights | None) -> dict[str, list[Row]]:
        """By kind, the row of each edge. Inactive choices are left out; their weights are not read."""
        if weights is None:
            return {kind: [dict.fromkeys(names) for names in edges] for kind, edges in self.of.items()}
        made: dict[str, list[Row]] = {}
        for kind, edges in self.of.items():
            active, table = weights[kind].active, weights[kind].scales().ops
            made[kind] = [{name: table[e][o] for name, o in names.items() if active is None or active[e][o]}
                          for e, names in enumerate(edges)]
        return made


def chosen(rows: Mapping[str, Row]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Which choices run, by kind of decision."""
    return tuple((kind, tuple(row)) for kind, row in rows.items())


def mixed(row: Row, compute: Callable[[str], Tensor]) -> Tensor:
    """The sum of `factor * compute(choice)` over a row."""
    terms = [y if factor is None else y * factor for y, factor in ((compute(name), factor) for name, factor in row.items())]
    return sum(terms[1:], terms[0])


class LayerCosts(NamedTuple):
    """Parameters and multiply-adds of a layer for each way to decide what they depend on.

    kinds: the decisions, each by its kind; where several of a kind meet in a layer, `#` and something that tells them apart follow, as in
    BEFORE, the width of the layer before. of: the choices, in that order, -> (parameters, multiply-adds of one image).
    """

    kinds: tuple[str, ...]
    of: Mapping[tuple[str, ...], tuple[int, int]]

    def regardless_of(self, kind: str) -> "LayerCosts":
        """Without a decision of which there is one choice, if it is among the kinds."""
        if kind not in self.kinds:
            return self
        n = self.kinds.index(kind)
        return LayerCosts(self.kinds[:n] + self.kinds[n + 1 :], {key[:n] + key[n + 1 :]: value for key, value in self.of.items()})


BEFORE = "width#of the layer before"
ALWAYS = "always"  # the width where there is no choice


class ChainNetwork(nn.Module):
    """3x3 stem, the layers, 1x1 convolution to `head` channels, global pooling, linear classifier: `net(x, weights) -> logits`.

    layers: modules called as `layer(x, rows, drop_path_prob, generator)`, which also know their `costs` and the channels of each width
    that may be chosen (`widths`, empty where there is no such choice). edges_of: for each layer, by kind the edge that is its. The
    skeleton's norms are affine with running averages. drop_path_prob: chance that a residual block is dropped in training.
    """

    def __init__(self, choices: Choices, layers: Sequence[nn.Module], edges_of: Sequence[Mapping[str, int]], *, in_channels: int,
                 stem: int, last: int, head: int, num_classes: int):
        super().__init__()
        self.choices, self.edges_of, self.drop_path_prob = choices, list(edges_of), 0.0
        self.stem = nn.Sequential(nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), BatchNorm(stem, affine=True), nn.ReLU())
        self.layers = nn.ModuleList(layers)
        self.head = nn.Sequential(pointwise(last, head), BatchNorm(head, affine=True), nn.ReLU())
        self.classifier = nn.Linear(head, num_classes)

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (N, num_classes). x: (N, in_channels, H, W). generator: for dropout and drop path."""
        for step in self.steps(weights):
            x = step.run(x, generator)
        return x

    def steps(self, weights: EdgeWeights | None) -> list[Step]:
        """The stem, the layers, then all that is behind them."""
        rows = self.choices.rows(weights)
        made = [Step((), lambda x, generator: self.stem(x), self.stem)]
        for layer, edges in zip(self.layers, self.edges_of):
            own = {kind: rows[kind][e] for kind, e in edges.items()}
            made.append(Step(chosen(own), partial(self._layer, layer, own), layer))
        return [*made, Step((), lambda x, generator: self.classifier(self.head(x).mean((2, 3))), self.head)]

    def _layer(self, layer: nn.Module, rows: Mapping[str, Row], x: Tensor, generator: torch.Generator | None) -> Tensor:
        return layer(x, rows, self.drop_path_prob if self.training else 0.0, generator)

    def plain(self) -> Block:
        """The network in plain PyTorch, in evaluation: a line a layer. Raises NoPlainForm: a layer holds several choices."""
        parts, lines = {"stem": form_of(self.stem)}, ["x = self.stem(x)"]
        for n, layer in enumerate(self.layers):
            try:
                parts[f"layer{n}"] = layer.plain({kind: tuple(self.choices.of[kind][e]) for kind, e in self.edges_of[n].items()})
            except NoPlainForm as error:
                raise NoPlainForm(f"layer {n}: {error}") from error
            lines.append(f"x = self.layer{n}(x)")
        parts |= {"head": form_of(self.head), "classifier": form_of(self.classifier)}
        lines.append("return self.classifier(self.head(x).mean((2, 3)))")
        return Block("Network", f"A chain of {len(self.layers)} layers, global pooling and a linear classifier.", parts, ["x"], lines)

    def costs(self, x: Tensor) -> list[tuple[dict[str, int], LayerCosts]]:
        """Of the stem, each layer, then the head with the classifier: by kind the edge of each decision, and the costs. x: an input of the
        network, of which only the shape counts."""
        rows, pixels = self.choices.rows(None), x.shape[2] * x.shape[3]
        made = [({}, LayerCosts((), {(): (parameters(self.stem), self.stem[0].weight.numel() * pixels)}))]
        x = self.stem(x)
        widths, edges_before = {}, {}  # of the layer before
        for layer, edges in zip(self.layers, self.edges_of):
            costs = layer.costs(x, widths or {ALWAYS: x.shape[1]})
            made.append((edges | edges_before, costs if widths else costs.regardless_of(BEFORE)))
            x = layer(x, {kind: rows[kind][e] for kind, e in edges.items()}, 0.0, None)
            widths, edges_before = layer.widths, {BEFORE: edges["width"]} if layer.widths else {}
        head, pixels = self.head[0].out_channels, x.shape[2] * x.shape[3]
        fixed, products = parameters(self.head[1]) + parameters(self.classifier), self.classifier.weight.numel()
        last = LayerCosts((BEFORE,), {(name,): (c * head + fixed, c * head * pixels + products)
                                      for name, c in (widths or {ALWAYS: x.shape[1]}).items()})
        return [*made, (edges_before, last if widths else last.regardless_of(BEFORE))]


@steps_of.register
def _of_chain(net: ChainNetwork, weights: EdgeWeights | None) -> list[Step]:
    return net.steps(weights)


class MixedLayer(nn.Module):
    """One of several whole operations: the weighted sum of `ops`, whose names are the choices of the decision `layers`. Drop path drops
    the blocks of all choices together; the shortcut stays, for there is no other way through the network."""

    widths: Mapping[str, int] = {}

    def __init__(self, ops: Mapping[str, LayerOp]):
        super().__init__()
        self.ops = nn.ModuleDict(ops)

    def forward(self, x: Tensor, rows: Mapping[str, Row], drop_path_prob: float, generator: torch.Generator | None) -> Tensor:
        total = kept = None
        for name, factor in rows["layers"].items():
            y = self.ops[name].finish(x, factor, generator)
            if drop_path_prob > 0 and self.ops[name].shape_kept:
                kept = drop_path_factor(x, drop_path_prob, generator) if kept is None else kept
                straight = x if factor is None else x * factor  # the shortcut stays
                y = straight + (y - straight) * kept
            total = y if total is None else total + y
        return total

    def plain(self, choices: Mapping[str, Sequence[str]]) -> Form:
        """choices: by kind of decision, those that are held."""
        return self.ops[only("layers", choices)].plain()

    def costs(self, x: Tensor, before: Mapping[str, int]) -> LayerCosts:
        """x: an input of the layer, of which only the shape counts. before: not used, the channels are always the same."""
        return LayerCosts(("layers",), {(name,): (parameters(op), multiply_adds_of(op, x)) for name, op in self.ops.items()})


class FactorisedLayer(nn.Module):
    """An inverted residual block whose parts are decided one by one, so that n decisions of k choices cost about one block and not
    k^n: `out = width_mask * (run * block(x) + x)`.

    kernel: each size has its own depthwise convolution and norm; their outputs are added. expansion and width: masks over the
    first channels, added with their weights (FBNetV2, Wan et al. 2020, Sec. 3.1). activation: a sum of functions. dropout: of
    whole channels, one draw for all rates. pooling: halves the input where a stage begins. depth: `run`, or `skip` the block.
    The input stays beside the block where a stage goes on; it is cut or padded with zeros to the layer's width.

    expansions, widths: channels of each choice that is held; the layer is built for the largest. full_width: channels at width_100. The
    mask on hidden channels stands behind the depthwise convolution, which is equivalent to a narrower block: up to there channels do not
    mix.
    """

    def __init__(self, choices: Mapping[str, Sequence[str]], *, channels_in: int, expansions: Mapping[str, int], widths: Mapping[str, int],
                 full_width: int, residual: bool, norm: Normalisation):
        super().__init__()
        self.full_width = full_width
        self.channels_out, self.residual, self.widths = max(widths.values()), residual, dict(widths)
        self.width_mask, self.hidden_mask = ChannelMask(widths), ChannelMask(expansions)
        self.runs, self.halves = "run" in choices["depth"], "pooling" in choices
        if not self.runs:
            return
        hidden = max(expansions.values())
        self.expand, self.norm1 = pointwise(channels_in, hidden), norm(hidden)
        self.depthwise = nn.ModuleDict({name: Depthwise(hidden, int(name.removeprefix("kernel_"))) for name in choices["kernel"]})
        self.norm2 = nn.ModuleDict({name: norm(hidden) for name in choices["kernel"]})
        self.project, self.norm3 = pointwise(hidden, self.channels_out), norm(self.channels_out)

    def forward(self, x: Tensor, rows: Mapping[str, Row], drop_path_prob: float, generator: torch.Generator | None) -> Tensor:
        if "pooling" in rows:
            x = mixed(rows["pooling"], lambda name: POOLS[name](x))
        total = fitted(x, self.channels_out) if self.residual else None
        if self.runs and "run" in rows["depth"]:
            y = self._block(x, rows, generator)
            if drop_path_prob > 0 and self.residual:
                y = y * drop_path_factor(y, drop_path_prob, generator)
            run = rows["depth"]["run"]
            y = y if run is None else y * run
            total = y if total is None else total + y
        return self.width_mask(total, rows["width"])

    def _block(self, x: Tensor, rows: Mapping[str, Row], generator: torch.Generator | None) -> Tensor:
        h = self._activated(self.norm1(self.expand(x)), rows)
        total = None
        for name, factor in rows["kernel"].items():
            y = self.norm2[name](self.depthwise[name](h), factor)
            total = y if total is None else total + y
        h = self.hidden_mask(self._activated(total, rows), rows["expansion"])
        return self._dropout(self.norm3(self.project(h)), rows["dropout"], generator)

    def plain(self, choices: Mapping[str, Sequence[str]]) -> Form:
        """choices: by kind of decision, those that are held. Dropout of whole channels is nn.Dropout2d, which rests in evaluation."""
        chosen = {kind: only(kind, choices) for kind in choices}
        pools = [PLAIN_POOLS[chosen["pooling"]]] if "pooling" in chosen else []
        kept = Form(plain.FirstChannels, {"channels": self.channels_out})
        if not self.runs:
            return sequence(*pools, kept)
        activation, kernel, rate = Form(AS_MODULES[chosen["activation"]]), chosen["kernel"], int(chosen["dropout"].removeprefix("dropout_"))
        block = sequence(form_of(self.expand), form_of(self.norm1), activation,
                         form_of(self.depthwise[kernel]), form_of(self.norm2[kernel]), activation,
                         form_of(self.project), form_of(self.norm3), Form(nn.Dropout2d, {"p": rate / 100}) if rate else Form(nn.Identity))
        if not self.residual:
            return sequence(*pools, block)
        if self.expand.in_channels == self.channels_out:
            return sequence(*pools, Form(plain.Residual, {"body": block}, under(body=block)))
        return sequence(*pools, Form(plain.ResidualOfWidth, {"body": block, "channels": self.channels_out}, under(body=block)))

    @staticmethod
    def _activated(x: Tensor, rows: Mapping[str, Row]) -> Tensor:
        return mixed(rows["activation"], lambda name: ACTIVATIONS[name](x))

    def _dropout(self, x: Tensor, row: Row, generator: torch.Generator | None) -> Tensor:
        if not self.training:
            factors = [factor for factor in row.values() if factor is not None]
            return x * sum(factors[1:], factors[0]) if factors else x
        if list(row) == ["dropout_0"]:  # nothing to draw
            return x if row["dropout_0"] is None else x * row["dropout_0"]
        if generator is None:
            raise ValueError("dropout draws at every forward: the network must be called with generator=")
        # for the full width, so that a narrower network drops the same channels
        drawn = torch.rand(x.shape[0], self.full_width, 1, 1, generator=generator, device=x.device, dtype=x.dtype)[:, : x.shape[1]]

        def kept(name: str) -> Tensor:
            rate = int(name.removeprefix("dropout_")) / 100
            return (drawn >= rate).to(x) / (1 - rate)

        return x * mixed(row, kept)

    def costs(self, x: Tensor, before: Mapping[str, int]) -> LayerCosts:
        """Those of the narrow layer that is left when all is decided. x: an input of the layer, of which only the shape counts. before:
        by choice of the width of the layer before, the channels that are read."""
        pixels = math.prod(-(-side // 2) if self.halves else side for side in x.shape[2:])
        made = {}
        if self.runs:
            per_channel = 0 if self.norm1.weight is None else 2
            for (b, c), (e, hidden), (w, out), k in product(before.items(), self.hidden_mask.channels.items(), self.widths.items(),
                                                            self.depthwise):
                weights = c * hidden + self.depthwise[k].kernel_size[0] ** 2 * hidden + hidden * out
                made[b, e, w, k, "run"] = (weights + per_channel * (2 * hidden + out), weights * pixels)
        return LayerCosts((BEFORE, "expansion", "width", "kernel", "depth"), made)


class ChannelMask(nn.Module):
    """Multiplies channels by the sum of weighted masks, each keeping the first so many; nothing where there is one choice."""

    def __init__(self, channels: Mapping[str, int]):
        super().__init__()
        self.channels, self.largest = dict(channels), max(channels.values())

    def forward(self, x: Tensor, row: Row) -> Tensor:
        if all(factor is None for factor in row.values()):
            return x
        place = torch.arange(self.largest, device=x.device)
        return x * mixed(row, lambda name: (place < self.channels[name]).to(x)).view(1, -1, 1, 1)


def only(kind: str, choices: Mapping[str, Sequence[str]]) -> str:
    """The one choice of a decision that a final network holds. Raises NoPlainForm: there are several."""
    if len(choices[kind]) != 1:
        raise NoPlainForm(f"decision {kind!r} holds {', '.join(choices[kind])}: it is a supernet's, and has no plain form")
    return choices[kind][0]


def fitted(x: Tensor, channels: int) -> Tensor:
    """The first `channels` channels, zeros where there are fewer."""
    missing = channels - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, 0, missing)) if missing > 0 else x[:, :channels]


def drop_path_factor(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """(N, 1, 1, 1): what drop path multiplies a branch by."""
    if generator is None:
        raise ValueError("drop path draws at every forward: the network must be called with generator=")
    return drop_path_masks(1, x.shape[0], probability, generator, x)[0]
