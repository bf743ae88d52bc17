"""The skeleton of NAS-Bench-201 (Dong & Yang 2020, Sec. 2.1, Fig. 1): three stages of one-input cells, residual blocks between."""

import functools
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import plain
from ops.conv import relu_conv_bn
from ops.forms import Form, form_of, held, sequence, under
from ops.op import BatchNorm, Normalisation
from supernet.networks.cell import Cell
from supernet.networks.recompute import recomputed
from supernet.networks.written import Block
from supernet.ranges import Channels, Count, Layers, ranged
from supernet.space import CellSpec, Mask
from supernet.weights import EdgeWeights, Scales


class ResidualBlock(nn.Module):
    """Halves height and width: two ReLU-conv3x3-norm, the first of stride 2, beside average pooling and a 1x1 convolution."""

    def __init__(self, channels_in: int, channels_out: int, norm: Normalisation):
        super().__init__()
        self.first = relu_conv_bn(channels_in, channels_out, norm, 3, 2)
        self.second = relu_conv_bn(channels_out, channels_out, norm, 3)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # ceil_mode matters for odd sides only, which the benchmark does not have: both branches then give ceil(side / 2)
        return self.second(self.first(x)) + self.shortcut(F.avg_pool2d(x, 2, 2, ceil_mode=True))

    def plain(self) -> Form:
        first, second = self.first, self.second
        parts = {"conv1": held(first.body), "norm1": first.norm.plain(), "conv2": held(second.body), "norm2": second.norm.plain()}
        return Form(plain.HalvingBlock, {"channels_in": self.shortcut.in_channels, "channels_out": self.shortcut.out_channels},
                    under(**parts, shortcut=held(self.shortcut)))


@ranged
class ResidualCellNetwork(nn.Module):
    """3x3 stem, stages of cells at C, 2C and 4C channels, norm-ReLU, global pooling, linear classifier: `net(x, weights) -> logits`.

    `layers` counts cells and the two residual blocks, which stand at 1/3 and 2/3 of the depth: 17 are the benchmark's (N = 5 cells a
    stage). Candidates are normalised by `norm`, but pools have no batch norm; the skeleton's norms are affine with running
    averages, as in the official code, for search and final network alike. checkpoint_cells: in training a cell keeps its input alone, and
    is computed again for the backward pass.
    """

    def __init__(self, kind: str, spec: CellSpec, present: Mask, *, layers: Layers, channels: Channels, num_classes: Count,
                 norm: Normalisation, in_channels: Channels = 3, image_size: tuple[int, int] = (32, 32), partial: Count = 1,
                 auxiliary_skip: bool = False, checkpoint_cells: bool = False):
        super().__init__()
        if layers < 3 or channels < 1 or num_classes < 2:
            raise ValueError("a network of this space needs layers >= 3 (two of them residual blocks), channels >= 1 and "
                             f"num_classes >= 2, got {layers}, {channels} and {num_classes}")
        if min(image_size) < 4:
            raise ValueError(f"images must have sides of at least 4 pixels to be halved twice, got {image_size}")
        self.drop_path_prob, self.checkpoint_cells = 0.0, checkpoint_cells
        fixed = Normalisation(affine=True, after_pools=False)
        norm = replace(norm, after_pools=False)
        first, second = layers // 3, 2 * layers // 3
        self.ends = (first, second - 1)  # how many cells stand before each residual block
        widths = [channels] * first + [2 * channels] * (second - first - 1) + [4 * channels] * (layers - second - 1)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), BatchNorm(channels, affine=True))
        self.cells = nn.ModuleList(Cell(spec, present, width, norm, partial=partial, auxiliary_skip=auxiliary_skip) for width in widths)
        self.kinds = [kind] * len(self.cells)
        self.reductions = nn.ModuleList(ResidualBlock(width, 2 * width, fixed) for width in (channels, 2 * channels))
        width = 4 * channels
        self.last = BatchNorm(width, affine=True)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (N, num_classes). x: (N, in_channels, H, W). generator: for drop path and drawing ops."""
        scales = None if weights is None else weights.scales(self.kinds)
        active = None if weights is None else weights[self.kinds[0]].active
        x = self.stem(x)
        for n, cell in enumerate(self.cells):
            run = functools.partial(self._cell, n, None if scales is None else scales[n], active, self.drop_path_prob, generator)
            x = recomputed(run, (x,), (cell,), generator) if self.checkpoint_cells and self.training and torch.is_grad_enabled() else run(x)
            for end, reduction in zip(self.ends, self.reductions):
                if end == n + 1:
                    x = reduction(x)
        return self.classifier(F.relu(self.last(x)).mean((2, 3)))

    def plain(self) -> Block:
        """The network in plain PyTorch, in evaluation: a line a cell. Raises NoPlainForm."""
        parts, lines = {"stem": form_of(self.stem)}, ["x = self.stem(x)"]
        for n, (kind, cell) in enumerate(zip(self.kinds, self.cells)):
            parts[f"cell{n}"] = cell.plain(kind)
            lines.append(f"x = self.cell{n}(x)")
            for k, (end, reduction) in enumerate(zip(self.ends, self.reductions)):
                if end == n + 1:
                    parts[f"reduction{k}"] = reduction.plain()
                    lines.append(f"x = self.reduction{k}(x)")
        parts |= {"last": sequence(self.last.plain(), Form(nn.ReLU)), "classifier": form_of(self.classifier)}
        lines.append("return self.classifier(self.last(x).mean((2, 3)))")
        return Block("Network", f"{len(self.cells)} cells in three stages, global pooling and a linear classifier.", parts, ["x"], lines)

    def _cell(self, n: int, scales: Scales | None, active: Mask | None, drop_path_prob: float, generator: torch.Generator | None,
              x: Tensor) -> Tensor:
        return self.cells[n]([x], scales, active, drop_path_prob, generator)
