"""A search space of one's own: copy this file anywhere, and from its folder run

    python <clone>/train_search.py space=custom space._target_=my_space.make layers=4 channels=8
    python <clone>/train_final.py space=custom space._target_=my_space.make layers=4 channels=8

A space is data, and a function that builds its networks. Here a network is a stack of equal cells of one input, whose edges choose
among the operations of `ops` and one of our own.
"""

from torch import nn

from ops import OPS
from ops.op import BatchNorm, Op, ReLU
from supernet.networks.cell import Cell
from supernet.space import CellSpec, Space


class Stack(nn.Module):
    def __init__(self, spec, present, *, layers, channels, num_classes, norm, in_channels, image_size):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), BatchNorm(channels, affine=True))
        self.cells = nn.ModuleList(Cell(spec, present, channels, norm) for _ in range(layers))
        self.kinds, self.drop_path_prob = ["cell"] * layers, 0.0
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x, weights=None, *, generator=None):
        scales = None if weights is None else weights.scales(self.kinds)
        x = self.stem(x)
        for n, cell in enumerate(self.cells):
            x = cell([x], scales and scales[n], weights and weights["cell"].active, self.drop_path_prob, generator)
        return self.classifier(x.mean((2, 3)))


def grouped_conv(channels, stride, norm):
    """ReLU, 3x3 convolution in two groups, norm."""
    return Op(nn.Conv2d(channels, channels, 3, stride, 1, groups=2, bias=False), prefix=ReLU(), norm=norm(channels))


def make():
    OPS.setdefault("grouped_conv_3x3", grouped_conv)
    spec = CellSpec.full(num_inputs=1, num_nodes=3, ops=("skip_connect", "grouped_conv_3x3", "sep_conv_3x3", "max_pool_3x3"), outputs=(3,),
                         keep=(1, 2))  # a genotype keeps one or two edges a node
    return Space("my_space", {}, {"cell": spec}, lambda space, candidates, **sizes: Stack(spec, candidates["cell"], **sizes),
                 auxiliary_head=False)
