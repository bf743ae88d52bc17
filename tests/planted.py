"""A task whose best architecture is known: stripes that only one op, on one edge, can tell apart.

Images hold vertical or horizontal stripes with a random phase. The network is one cell, or a few in a row, between a 1x1 stem and a
classifier of the mean of |x|: skip connections and pooling give both classes the same means, so nothing but the 3x3 convolution, a
candidate of the edge 0 -> 1 alone, can tell them apart; and it must not be dropped on the way, so the edge 1 -> 2 must not be `none`.
"""

import numpy as np
from torch import nn

from supernet.networks.cell import Cell
from supernet.space import CellSpec, Space

EDGES = [(0, 1, ["skip_connect", "avg_pool_3x3", "nor_conv_3x3"]), (0, 2, ["none", "skip_connect"]), (1, 2, ["none", "skip_connect"])]


class Stripes(nn.Module):
    def __init__(self, spec, present, *, layers, channels, num_classes, norm, in_channels, image_size, partial=1, auxiliary_skip=False):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.cells = nn.ModuleList(Cell(spec, present, channels, norm, partial=partial, auxiliary_skip=auxiliary_skip)
                                   for _ in range(layers))
        self.kinds, self.drop_path_prob = ["cell"] * layers, 0.0
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x, weights=None, *, generator=None):
        x = self.stem(x)
        scales = [None] * len(self.cells) if weights is None else weights.scales(self.kinds)
        for cell, own in zip(self.cells, scales):
            x = cell([x], own, None if weights is None else weights["cell"].active, self.drop_path_prob, generator)
        return self.classifier(x.abs().mean((2, 3)))


def make():
    spec = CellSpec.listed(num_inputs=1, edges=EDGES, outputs=(2,), keep=None)
    return Space("planted", {}, {"cell": spec}, lambda space, candidates, **sizes: Stripes(spec, candidates["cell"], **sizes),
                 auxiliary_head=False)


def solved(genotype):
    ops = {(e.source, e.destination): e.op for e in genotype["cell"]}
    return ops[0, 1] == "nor_conv_3x3" and ops[1, 2] == "skip_connect"


def write_images(path, n=256):
    """An .npz file of 2n training images and a few test images, 8x8, one channel."""
    rng = np.random.default_rng(0)

    def draw(count):
        labels = np.arange(count) % 2
        wave = (((np.arange(8) // 2)[None] + rng.integers(2, size=count)[:, None]) % 2 * 2 - 1)
        rows = wave[:, :, None].repeat(8, 2)
        images = np.where(labels[:, None, None] == 0, rows, rows.transpose(0, 2, 1)) * 60 + 128
        return (images + rng.normal(0, 20, images.shape)).clip(0, 255).astype(np.uint8), labels

    (train, y), (test, z) = draw(2 * n), draw(16)
    np.savez(path, train_images=train, train_labels=y, test_images=test, test_labels=z)
