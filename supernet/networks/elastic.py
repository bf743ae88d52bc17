"""Chains of inverted residual blocks that share their weights among the choices of size: kernels within kernels, hidden channels by leading
slices, depth by leaving a stage early, images of several sides (Once-for-all, Cai et al. 2020, Sec. 3; BigNAS, Yu et al. 2020).

What a decision's weights multiply stands behind a norm, or the norm would take it away: a block is the weighted sum of what its widths give
after its last norm, a stage that of what its depths give, the classifier's input that of what the sides give. Kernels alone are summed
before the convolution, which is the sum of the convolutions before the norm that they share; the factor of a kernel that runs alone
stands behind that norm. At one-hot weights all of it is the final network itself, and only its slices are computed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import plain
from ops.activations import ACTIVATIONS, AS_MODULES
from ops.elastic import ElasticDepthwise, ElasticSqueeze
from ops.forms import Form, NoPlainForm, form_of, sequence, under
from ops.mobile import pointwise
from ops.op import BatchNorm, Normalisation
from supernet.networks.chain import Choices, LayerCosts, Row, chosen, drop_path_factor, mixed, only
from supernet.networks.measure import parameters
from supernet.networks.stacked import take
from supernet.networks.steps import Step, steps_of
from supernet.networks.written import Block
from supernet.weights import EdgeWeights

OF_A_BLOCK = ("expansion", "kernel", "squeeze")


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, at least one, and the next where that is below 90 % (MobileNetV2, official code, `make_divisible`)."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


class Squeeze(NamedTuple):
    """How squeeze-and-excitation is built. per: hidden units as a share of the block's `input`, or of its `hidden` channels (rounded to
    multiples of 8)."""

    per: str
    share: float
    activation: str
    gate: str

    def layer(self, channels_in: int, hidden: int) -> ElasticSqueeze:
        middle = {"input": lambda _: max(1, int(channels_in * self.share)), "hidden": lambda h: divisible(h * self.share)}[self.per]
        return ElasticSqueeze(hidden, middle, activation=self.activation, gate=self.gate)


@dataclass(frozen=True)
class StagePlan:
    """What a stage is. blocks: for each, by kind (OF_A_BLOCK) the choices that are held. edges: for each, by kind the row of its decision;
    a kind without one is fixed. depths: by name, the blocks that run; depth_edge: the row of that decision, None where there is one depth.
    `stride` is that of the first block. kernels: all sizes of the space."""

    channels: int
    stride: int
    activation: str
    blocks: Sequence[Mapping[str, Sequence[str]]]
    edges: Sequence[Mapping[str, int]]
    depths: Mapping[str, int]
    depth_edge: int | None = None
    kernels: Sequence[int] = field(default=(3, 5, 7))


take.register(ElasticDepthwise, lambda module, other: module.take(other))


def number(choice: str) -> int:
    """5 of `kernel_5`."""
    return int(choice.rpartition("_")[2])


class ElasticBlock(nn.Module):
    """1x1 to the hidden channels, depthwise, squeeze-and-excitation or none, 1x1: `x -> sum of factors * block(x)`, beside x where the
    shape is kept. `expansion_1` has no first convolution (MobileNetV2, Sandler et al. 2018, official code)."""

    def __init__(self, held: Mapping[str, Sequence[str]], *, channels_in: int, channels_out: int, stride: int, activation: str,
                 squeeze: Squeeze, kernels: Sequence[int], transforms: bool, norm: Normalisation):
        super().__init__()
        self.channels_in, self.channels_out, self.activation = channels_in, channels_out, activation
        self.residual = stride == 1 and channels_in == channels_out
        self.hidden = {name: channels_in if number(name) == 1 else divisible(channels_in * number(name)) for name in held["expansion"]}
        self.expands = {name for name in self.hidden if number(name) > 1}
        largest = max(self.hidden.values())
        if self.expands:
            self.expand, self.norm1 = pointwise(channels_in, largest), norm(largest)
        sizes = [number(name) for name in held["kernel"]]
        self.depthwise = ElasticDepthwise(largest, [k for k in kernels if min(sizes) <= k <= max(sizes)], stride, transforms=transforms)
        self.kernel_sizes = {name: number(name) for name in held["kernel"]}
        self.norm2 = norm(largest)
        self.squeeze = squeeze.layer(channels_in, largest) if "se" in held["squeeze"] else None
        self.project, self.norm3 = pointwise(largest, channels_out), norm(channels_out)
        self.squeezes = tuple(held["squeeze"])

    def forward(self, x: Tensor, rows: Mapping[str, Row], drop_path_prob: float, generator: torch.Generator | None) -> Tensor:
        expansion, act = rows["expansion"], ACTIVATIONS[self.activation]
        widest = max((self.hidden[name] for name in expansion if name in self.expands), default=0)
        wide = self._filtered(act(self.norm1.leading(F.conv2d(x, self.expand.weight[:widest]))), rows["kernel"]) if widest else None
        total = None
        for name, factor in expansion.items():
            h = wide[:, : self.hidden[name]] if name in self.expands else self._filtered(x, rows["kernel"])
            for way, of_way in rows["squeeze"].items():
                y = F.conv2d(self.squeeze(h) if way == "se" else h, self.project.weight[:, : self.hidden[name]])
                y = self.norm3(y, _times(factor, of_way))
                total = y if total is None else total + y
        if not self.residual:
            return total
        return x + (total * drop_path_factor(x, drop_path_prob, generator) if drop_path_prob > 0 else total)

    def _filtered(self, x: Tensor, row: Row) -> Tensor:
        factors, behind = {self.kernel_sizes[name]: factor for name, factor in row.items()}, None
        if len(factors) == 1:  # before the norm its factor would count for nothing
            ((size, behind),) = factors.items()
            factors = {size: None}
        return ACTIVATIONS[self.activation](self.norm2.leading(self.depthwise(x, factors), behind))

    def sort(self) -> None:
        """Orders the hidden channels by the weight that the last convolution gives them (the sum of absolute values), the largest first,
        so that a narrower block keeps what counts most (Cai et al. 2020, Sec. 3.3). At full width the block computes what it did. Left as
        it is where the hidden channels are the input's own."""
        if len(self.expands) < len(self.hidden):
            return
        with torch.no_grad():
            order = self.project.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
            for norm in (self.norm1, self.norm2):
                for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                    if part is not None:
                        part.copy_(part[order])
            for layer in (self.expand, self.depthwise):
                layer.weight.copy_(layer.weight[order])
            self.project.weight.copy_(self.project.weight[:, order])
            if self.squeeze is not None:
                self.squeeze.reduce.weight.copy_(self.squeeze.reduce.weight[:, order])
                for part in (self.squeeze.expand.weight, self.squeeze.expand.bias):
                    part.copy_(part[order])

    def plain(self) -> Form:
        """Of a final network's block. Raises NoPlainForm: it holds several choices."""
        for kind, held in (("expansion", self.hidden), ("kernel", self.kernel_sizes), ("squeeze", self.squeezes)):
            only(kind, {kind: tuple(held)})
        act = Form(AS_MODULES[self.activation])
        first = [form_of(self.expand), form_of(self.norm1), act] if self.expands else []
        gate = [] if self.squeeze is None else [form_of(self.squeeze)]
        block = sequence(*first, form_of(self.depthwise), form_of(self.norm2), act, *gate, form_of(self.project), form_of(self.norm3))
        return Form(plain.Residual, {"body": block}, under(body=block)) if self.residual else block

    def costs(self, pixels_in: int, pixels_out: int) -> dict[tuple[str, str, str], tuple[int, int]]:
        """Parameters and multiply-adds of an image by (expansion, kernel, squeeze), of the block that is left when these are decided."""
        per_channel = 0 if self.norm2.weight is None else 2
        made = {}
        for (name, h), (kernel, k), way in product(self.hidden.items(), self.kernel_sizes.items(), self.squeezes):
            expand, filters, project = self.channels_in * h if name in self.expands else 0, k * k * h, h * self.channels_out
            norms = per_channel * ((2 if name in self.expands else 1) * h + self.channels_out)
            gate, products = (self.squeeze.size(h), 2 * h * self.squeeze.middle(h)) if way == "se" else (0, 0)
            made[name, kernel, way] = (expand + filters + project + norms + gate,
                                       expand * pixels_in + (filters + project) * pixels_out + products)
        return made


def _times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a * b


class ElasticStage(nn.Module):
    """Blocks one after the other, of which those behind the least depth are beside their input: each is multiplied by the sum of the
    factors of the depths that run it. With factors that sum to 1 the output is the weighted sum of what the depths give; a depth that runs
    alone has a gradient, where its factor on all of the output would be taken away by the next norm. That of the least depth is not
    read."""

    def __init__(self, blocks: Sequence[ElasticBlock], depths: Mapping[str, int]):
        super().__init__()
        self.blocks, self.depths = nn.ModuleList(blocks), dict(depths)

    def forward(self, x: Tensor, rows: Sequence[Mapping[str, Row]], depth: Row, drop_path_prob: float,
                generator: torch.Generator | None) -> Tensor:
        reached = Reached(x, x)
        for n in range(self.deepest(depth)):
            reached = self.block(n, reached, rows[n], depth, drop_path_prob, generator)
        return reached.total

    def deepest(self, depth: Row) -> int:
        """How many blocks run."""
        return max(self.depths[name] for name in depth)

    def block(self, n: int, before: "Reached", rows: Mapping[str, Row], depth: Row, drop_path_prob: float,
              generator: torch.Generator | None) -> "Reached":
        """What the stage has come to behind its n-th block."""
        x = self.blocks[n](before.x, rows, drop_path_prob, generator)
        factors = self.running(n, depth)
        if n < min(self.depths.values()) or list(factors.values()) == [None]:
            return Reached(x, x)
        part = x - before.x
        return Reached(x, before.total + mixed(factors, lambda name: part))

    def running(self, n: int, depth: Row) -> Row:
        """Of a row of depths, those with which the n-th block runs."""
        return {name: factor for name, factor in depth.items() if self.depths[name] > n}


class Reached(NamedTuple):
    """How far a stage has come: what the next block reads, and the output of the stage if none follows."""

    x: Tensor
    total: Tensor


class ElasticNetwork(nn.Module):
    """3x3 stem, the stages, 1x1 convolution to `head` channels, global pooling, a layer of `mix` units or none, linear classifier:
    `net(x, weights) -> logits`. The skeleton's norms are affine with running averages. drop_path_prob: chance that a residual block is
    dropped in training.

    sides: by name, the side to which images are brought first (bilinear); empty where images stay as they are.
    """

    def __init__(self, choices: Choices, plans: Sequence[StagePlan], *, in_channels: int, stem: int, stem_stride: int, activation: str,
                 head: int, mix: int | None, squeeze: Squeeze, transforms: bool, sides: Mapping[str, int], num_classes: int,
                 norm: Normalisation):
        super().__init__()
        self.choices, self.plans, self.sides, self.drop_path_prob = choices, list(plans), dict(sides), 0.0
        act = AS_MODULES[activation]
        self.stem = nn.Sequential(nn.Conv2d(in_channels, stem, 3, stem_stride, 1, bias=False), BatchNorm(stem, affine=True), act())
        stages, channels = [], stem
        for plan in plans:
            blocks = []
            for n, held in enumerate(plan.blocks[: max(plan.depths.values())]):
                blocks.append(ElasticBlock(held, channels_in=channels, channels_out=plan.channels, stride=plan.stride if n == 0 else 1,
                                           activation=plan.activation, squeeze=squeeze, kernels=plan.kernels, transforms=transforms,
                                           norm=norm))
                channels = plan.channels
            stages.append(ElasticStage(blocks, plan.depths))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Sequential(pointwise(channels, head), BatchNorm(head, affine=True), act())
        self.mix = nn.Sequential(nn.Linear(head, mix, bias=False), act()) if mix is not None else None
        self.classifier = nn.Linear(head if mix is None else mix, num_classes)

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (N, num_classes). x: (N, in_channels, H, W). generator: for drop path."""
        rows = self.choices.rows(weights)
        run = partial(self._features, rows=rows, generator=generator)
        features = mixed(rows["side"][0], lambda name: run(resized(x, self.sides[name]))) if self.sides else run(x)
        return self.classifier(features)

    def _features(self, x: Tensor, rows: Mapping[str, Sequence[Row]], generator: torch.Generator | None) -> Tensor:
        x = self.stem(x)
        for stage, (own, depth) in zip(self.stages, self._of_stages(rows)):
            x = stage(x, own, depth, self._drop(), generator)
        return self._pooled(x)

    def _of_stages(self, rows: Mapping[str, Sequence[Row]]) -> Iterator[tuple[list[dict[str, Row]], Row]]:
        """Of each stage, the rows of its blocks and of its depth."""
        for plan in self.plans:
            yield ([{kind: rows[kind][edges[kind]] if kind in edges else dict.fromkeys(held[kind]) for kind in OF_A_BLOCK}
                    for held, edges in zip(plan.blocks, plan.edges)],
                   dict.fromkeys(plan.depths) if plan.depth_edge is None else rows["depth"][plan.depth_edge])

    def _drop(self) -> float:
        return self.drop_path_prob if self.training else 0.0

    def _pooled(self, x: Tensor) -> Tensor:
        x = self.head(x).mean((2, 3))
        return x if self.mix is None else self.mix(x)

    def steps(self, weights: EdgeWeights | None) -> list[Step] | None:
        """The stem with the images' side, the blocks, then all that is behind them; None where there are several sides, which are computed
        beside each other."""
        rows = self.choices.rows(weights)
        side: Row = rows["side"][0] if self.sides else {}
        if len(side) > 1:
            return None
        made = [Step(tuple(side), partial(self._begin, side), self.stem)]
        for stage, (own, depth) in zip(self.stages, self._of_stages(rows)):
            for n in range(stage.deepest(depth)):
                made.append(Step((n, chosen(own[n])), partial(self._block, stage, n, own[n], depth), stage.blocks[n]))
        return [*made, Step((), partial(self._end, side), self.head)]

    def _begin(self, side: Row, x: Tensor, generator: torch.Generator | None) -> Reached:
        for name in side:
            x = resized(x, self.sides[name])
        x = self.stem(x)
        return Reached(x, x)

    def _block(self, stage: ElasticStage, n: int, rows: Mapping[str, Row], depth: Row, before: Reached,
               generator: torch.Generator | None) -> Reached:
        if n == 0:  # a stage reads what the one before came to
            before = Reached(before.total, before.total)
        return stage.block(n, before, rows, depth, self._drop(), generator)

    def _end(self, side: Row, reached: Reached, generator: torch.Generator | None) -> Tensor:
        features = self._pooled(reached.total)
        return self.classifier(mixed(side, lambda name: features) if side else features)

    def sort(self) -> None:
        """`ElasticBlock.sort`, of all blocks."""
        for stage in self.stages:
            for block in stage.blocks:
                block.sort()

    def plain(self) -> Block:
        """The network in plain PyTorch, in evaluation: a line a block. Raises NoPlainForm: a decision is open."""
        parts, lines, count = {}, [], 0
        if self.sides:
            side = self.sides[only("side", {"side": tuple(self.sides)})]
            parts["resize"] = Form(nn.Upsample, {"size": side, "mode": "bilinear"})
            lines.append("x = self.resize(x)")
        parts["stem"] = form_of(self.stem)
        lines.append("x = self.stem(x)")
        for n, stage in enumerate(self.stages):
            only("depth", {"depth": tuple(stage.depths)})
            for block in stage.blocks:
                try:
                    parts[f"block{count}"] = block.plain()
                except NoPlainForm as error:
                    raise NoPlainForm(f"stage {n}: {error}") from error
                lines.append(f"x = self.block{count}(x)")
                count += 1
        parts["head"] = form_of(self.head)
        lines.append("x = self.head(x).mean((2, 3))")
        if self.mix is not None:
            parts["mix"] = form_of(self.mix)
            lines.append("x = self.mix(x)")
        parts["classifier"] = form_of(self.classifier)
        lines.append("return self.classifier(x)")
        return Block("Network", f"{count} inverted residual blocks in {len(self.stages)} stages, global pooling and a linear classifier.",
                     parts, ["x"], lines)

    def costs(self, x: Tensor) -> list[tuple[dict[str, int], LayerCosts]]:
        """Of the stem, each block, then the head with the classifier: by kind the edge of each decision, and the costs. x: an input of the
        network, of which only the shape counts."""
        sides = {name: (side, side) for name, side in self.sides.items()} or {"": tuple(x.shape[2:])}
        on_side = {"side": 0} if self.sides else {}
        weight, now = self.stem[0].weight, {name: halved(shape, self.stem[0].stride[0]) for name, shape in sides.items()}
        made = [(on_side, self._by_side({name: (parameters(self.stem), weight.numel() * pixels(shape)) for name, shape in now.items()}))]
        for stage, plan in zip(self.stages, self.plans):
            for n, block in enumerate(stage.blocks):
                before, now = now, {name: halved(shape, plan.stride if n == 0 else 1) for name, shape in now.items()}
                runs = [depth for depth, count in stage.depths.items() if n < count]
                found = {(*key, depth, side): value for side in now for depth in runs
                         for key, value in block.costs(pixels(before[side]), pixels(now[side])).items()}
                costs = LayerCosts((*OF_A_BLOCK, "depth", "side"), found)
                edges = dict(plan.edges[n]) | ({} if plan.depth_edge is None else {"depth": plan.depth_edge}) | on_side
                for kind in costs.kinds:
                    costs = costs if kind in edges else costs.regardless_of(kind)
                made.append((edges, costs))
        ends = [self.classifier] if self.mix is None else [self.mix[0], self.classifier]
        fixed = parameters(self.head) + sum(map(parameters, ends))
        products = sum(part.weight.numel() for part in ends)
        head = self.head[0].weight.numel()
        made.append((on_side, self._by_side({name: (fixed, head * pixels(shape) + products) for name, shape in now.items()})))
        return made

    def _by_side(self, found: Mapping[str, tuple[int, int]]) -> LayerCosts:
        costs = LayerCosts(("side",), {(name,): value for name, value in found.items()})
        return costs if self.sides else costs.regardless_of("side")


@steps_of.register
def _of_elastic(net: ElasticNetwork, weights: EdgeWeights | None) -> list[Step] | None:
    return net.steps(weights)


def resized(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, size=(side, side), mode="bilinear")


def halved(shape: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-shape[0] // stride), -(-shape[1] // stride)


def pixels(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
