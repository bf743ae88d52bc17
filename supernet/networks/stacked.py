"""Networks of stacked cells: stem, cells with two inputs, classifier; the auxiliary head of the final network."""

import functools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.conv import factorised_reduce, relu_conv_bn
from ops.forms import Form, form_of, sequence
from ops.op import BatchNorm, Normalisation
from supernet.networks.cell import Cell
from supernet.networks.recompute import recomputed
from supernet.networks.written import Block
from supernet.ranges import Channels, Count, ranged
from supernet.space import Candidates, CellSpec, Mask
from supernet.weights import EdgeWeights, Scales

LARGE_IMAGE = 96  # from this side on a stem reduces the image eightfold, as for ImageNet


class SmallStem(nn.Module):
    """3x3 convolution to `multiplier * channels`; both inputs of the first cell are its output (DARTS on CIFAR)."""

    halves_second_input = False

    def __init__(self, in_channels: int, channels: int, multiplier: int):
        super().__init__()
        width = multiplier * channels
        self.out_channels = (width, width)
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = BatchNorm(width, affine=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.conv(x))
        return x, x

    def plain(self) -> tuple[dict[str, Form], list[str]]:
        """Parts, and lines that make y0 and y1 of x."""
        return {"stem": sequence(form_of(self.conv), form_of(self.norm))}, ["y0 = y1 = self.stem(x)"]


class LargeStem(nn.Module):
    """Three 3x3 convolutions of stride 2; the first cell reads the results after two and after three (DARTS on ImageNet)."""

    halves_second_input = True

    def __init__(self, in_channels: int, channels: int, multiplier: int):
        super().__init__()
        self.out_channels = (channels, channels)
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False), BatchNorm(channels // 2, affine=True),
            nn.ReLU(), nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False), BatchNorm(channels, affine=True))
        self.second = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False), BatchNorm(channels, affine=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        return x, self.second(x)

    def plain(self) -> tuple[dict[str, Form], list[str]]:
        """As `SmallStem.plain`."""
        return ({"stem_first": form_of(self.first), "stem_second": form_of(self.second)},
                ["y0 = self.stem_first(x)", "y1 = self.stem_second(y0)"])


STEMS = {"small": SmallStem, "large": LargeStem}


class AuxiliaryHead(nn.Module):
    """A second classifier at two thirds of the depth (DARTS, model.py). Average pooling brings the map to 2x2: from 8x8 with
    5x5 windows of stride 3 and from 7x7 with stride 2, as published; from any other size with windows that cover it."""

    def __init__(self, channels: int, num_classes: int, size: tuple[int, int], second_norm: bool):
        super().__init__()
        windows = {7: (5, 2), 8: (5, 3)}  # side: (window, stride)
        height, width = (windows.get(side, (side - side // 2, side // 2)) for side in size)
        # A side of 1 gets a zero beside it. Unlike adaptive pooling all this has a deterministic backward on a GPU.
        grow = nn.ZeroPad2d((0, int(size[1] == 1), 0, int(size[0] == 1)))
        shrink = nn.AvgPool2d(tuple(max(1, w) for w, _ in (height, width)), tuple(max(1, s) for _, s in (height, width)))
        self.features = nn.Sequential(
            nn.ReLU(), grow, shrink, nn.Conv2d(channels, 128, 1, bias=False),
            BatchNorm(128, affine=True), nn.ReLU(), nn.Conv2d(128, 768, 2, bias=False),
            BatchNorm(768, affine=True) if second_norm else nn.Identity(), nn.ReLU())
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


@ranged
class CellNetwork(nn.Module):
    """Stem, one cell per entry of `kinds`, global pooling, linear classifier: `net(x, weights) -> logits (N, num_classes)`.

    Channels double at each cell of stride 2. A cell reads the outputs of the two cells before it, each brought to its
    channels by a 1x1 convolution (or halved in size, after a reduction). The final network is this class with one candidate
    on each kept edge, and `weights=None` for ones.

    stem: `small`, `large` or `auto` (by the image's side). auxiliary: adds the auxiliary head. partial, auxiliary_skip: of a supernet's
    cells (`cell.Cell`). last_norm: a batch norm with factors and a ReLU before the pooling (GDAS). checkpoint_cells: in training a cell
    keeps its inputs alone, and is computed again for the backward pass. drop_path_prob: chance that an edge is dropped in training, set
    by the training loop; draws from the call's generator.
    """

    def __init__(self, specs: Mapping[str, CellSpec], candidates: Candidates, *, kinds: Sequence[str], channels: Channels,
                 num_classes: Count, norm: Normalisation, in_channels: Channels = 3, image_size: tuple[int, int] = (32, 32),
                 stem: str = "auto", stem_multiplier: Count = 3, auxiliary: bool = False, partial: Count = 1, auxiliary_skip: bool = False,
                 last_norm: bool = False, checkpoint_cells: bool = False):
        super().__init__()
        if len(kinds) < 1 or channels < 2 or num_classes < 2:
            raise ValueError("a network needs layers >= 1, channels >= 2 and num_classes >= 2, "
                             f"got {len(kinds)}, {channels} and {num_classes}")
        self.kinds, self.drop_path_prob, self.checkpoint_cells = list(kinds), 0.0, checkpoint_cells
        if stem == "auto":
            stem = "large" if min(image_size) >= LARGE_IMAGE else "small"
        if stem not in STEMS:
            raise ValueError(f"stem must be auto, {' or '.join(STEMS)}, got {stem!r}")
        self.stem = STEMS[stem](in_channels, channels, stem_multiplier)
        before_last, last = self.stem.out_channels
        halved = self.stem.halves_second_input
        size = tuple(-(-side // (8 if halved else 1)) for side in image_size)
        self.cells, self.inputs = nn.ModuleList(), nn.ModuleList()
        auxiliary_at = 2 * len(kinds) // 3
        self.auxiliary_at = None
        for layer, kind in enumerate(kinds):
            spec = specs[kind]
            channels *= spec.stride
            first = factorised_reduce(before_last, channels, norm) if halved else relu_conv_bn(before_last, channels, norm)
            self.inputs.append(nn.ModuleList([first, relu_conv_bn(last, channels, norm)]))
            self.cells.append(Cell(spec, candidates[kind], channels, norm, partial=partial, auxiliary_skip=auxiliary_skip))
            halved, size = spec.stride > 1, tuple(-(-side // spec.stride) for side in size)
            before_last, last = last, channels * self.cells[-1].num_outputs
            if auxiliary and layer == auxiliary_at:
                self.auxiliary_at = layer
                self.auxiliary_head = AuxiliaryHead(last, num_classes, size, second_norm=stem == "small")
        self.last_norm = BatchNorm(last, affine=True) if last_norm else None
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None,
                auxiliary: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, num_classes); with `auxiliary` a pair, the second from the auxiliary head.

        x: (N, in_channels, H, W). weights: by kind of cell, or None for ones. generator: for drop path and drawing ops.
        """
        scales = None if weights is None else weights.scales(self.kinds)
        before_last, last = self.stem(x)
        extra = None
        for layer, kind in enumerate(self.kinds):
            own, active = (None, None) if weights is None else (scales[layer], weights[kind].active)
            run = functools.partial(self._cell, layer, own, active, self.drop_path_prob, generator)
            if self.checkpoint_cells and self.training and torch.is_grad_enabled():
                state = recomputed(run, (before_last, last), (self.inputs[layer], self.cells[layer]), generator)
            else:
                state = run(before_last, last)
            before_last, last = last, state
            if auxiliary and layer == self.auxiliary_at:
                extra = self.auxiliary_head(last)
        if self.last_norm is not None:
            last = F.relu(self.last_norm(last))
        logits = self.classifier(last.mean((2, 3)))
        if not auxiliary:
            return logits
        if extra is None:
            raise ValueError("the network was built without an auxiliary head")
        return logits, extra

    def plain(self) -> Block:
        """The network in plain PyTorch, in evaluation and without the auxiliary head: a line a cell. Raises NoPlainForm."""
        parts, lines = self.stem.plain()
        for n, (kind, cell, (first, second)) in enumerate(zip(self.kinds, self.cells, self.inputs)):
            parts |= {f"cell{n}_input0": first.plain(), f"cell{n}_input1": second.plain(), f"cell{n}": cell.plain(kind)}
            lines.append(f"y{n + 2} = self.cell{n}(self.cell{n}_input0(y{n}), self.cell{n}_input1(y{n + 1}))")
        last = f"y{len(self.kinds) + 1}"
        if self.last_norm is not None:
            parts["last"] = sequence(self.last_norm.plain(), Form(nn.ReLU))
            last = f"self.last({last})"
        parts["classifier"] = form_of(self.classifier)
        lines.append(f"return self.classifier({last}.mean((2, 3)))")
        about = f"{len(self.kinds)} cells, each of which reads the outputs of the two before it; global pooling and a linear classifier."
        return Block("Network", about, parts, ["x"], lines)

    def _cell(self, layer: int, scales: Scales | None, active: Mask | None, drop_path_prob: float, generator: torch.Generator | None,
              before_last: Tensor, last: Tensor) -> Tensor:
        first, second = self.inputs[layer]
        return self.cells[layer]([first(before_last), second(last)], scales, active, drop_path_prob, generator)


def inherit(final: nn.Module, supernet: nn.Module) -> None:
    """Copies into `final` what it shares with `supernet`, by name: its sub-network's weights and running statistics. Of layers that
    are narrower in `final` the leading channels are taken, as width masks keep them, and of some what they say themselves (`take`).

    Raises ValueError where `final` has an entry that the supernet lacks, or a larger one (built with other sizes or another
    normalisation mode).
    """
    have, want = supernet.state_dict(), final.state_dict()
    wrong = [name for name, value in want.items() if name not in have or have[name].dim() != value.dim()
             or any(h < w for h, w in zip(have[name].shape, value.shape))]
    if wrong:
        raise ValueError(f"cannot inherit {len(wrong)} of {len(want)} entries, the first {wrong[0]!r}: build both networks with the same "
                         "sizes and normalisation")
    final.load_state_dict({name: have[name][tuple(slice(n) for n in value.shape)] for name, value in want.items()})
    for name, module in final.named_modules():
        take(module, supernet.get_submodule(name))


@functools.singledispatch
def take(module: nn.Module, other: nn.Module) -> None:
    """What a module that is made smaller takes from `other` where that is not the leading slices. Raises ValueError."""


def widened(value: Tensor, shape: Sequence[int]) -> Tensor:
    """`value` brought to `shape`, of as many dimensions: entry n of a side is the old entry n % old. So the old channels keep their place,
    in the leading slice, and new ones repeat them in order (DrNAS, official code, net2wider.py, repeats randomly drawn ones)."""
    for dim, size in enumerate(shape):
        if value.shape[dim] != size:
            value = value.index_select(dim, torch.arange(size, device=value.device) % value.shape[dim])
    return value


def inherit_widened(net: nn.Module, old: nn.Module) -> None:
    """Copies the weights and running statistics of `old` into `net` by name, each `widened` to its new shape. What `old` alone has, ops
    that are no candidates any more, is left behind. Where no shape differs, `net` computes what `old` computes without those ops.

    Raises ValueError where `net` has an entry that `old` lacks (more layers, another normalisation mode).
    """
    have, want = old.state_dict(), net.state_dict()
    wrong = [name for name, value in want.items() if name not in have or have[name].dim() != value.dim()]
    if wrong:
        raise ValueError(f"cannot inherit {len(wrong)} of {len(want)} entries, the first {wrong[0]!r}: only candidates and widths may "
                         "differ between the two networks")
    net.load_state_dict({name: widened(have[name], value.shape) for name, value in want.items()})


def batch_norms(net: nn.Module) -> list[BatchNorm]:
    """All batch norms of a network, in order."""
    return [m for m in net.modules() if type(m) is BatchNorm]
