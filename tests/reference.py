"""The slow, obvious supernet: every edge and every op on its own, in plain torch.nn, as the published codebases write it.

It is what the bundled cells are compared with, in numbers (tests) and in time (benchmarks). `like(net)` copies a
`CellNetwork` parameter by parameter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.cell import edge_names
from supernet.network import CellNetwork


def conv(cin, cout, size, stride=1, padding=0, dilation=1, groups=1):
    return nn.Conv2d(cin, cout, size, stride, padding, dilation, groups, bias=False)


class Zero(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class FactorizedReduce(nn.Module):
    def __init__(self, cin, cout, affine):
        super().__init__()
        self.conv1, self.conv2 = conv(cin, cout // 2, 1, 2), conv(cin, cout - cout // 2, 1, 2)
        self.bn = nn.BatchNorm2d(cout, affine=affine)

    def forward(self, x):
        x = F.relu(x)
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return self.bn(torch.cat([self.conv1(x), self.conv2(shifted[:, :, 1:, 1:])], 1))


def relu_conv_bn(cin, cout, affine):
    return nn.Sequential(nn.ReLU(), conv(cin, cout, 1), nn.BatchNorm2d(cout, affine=affine))


def sep(c, k, s, affine):
    return nn.Sequential(nn.ReLU(), conv(c, c, k, s, k // 2, groups=c), conv(c, c, 1), nn.BatchNorm2d(c, affine=affine),
                         nn.ReLU(), conv(c, c, k, 1, k // 2, groups=c), conv(c, c, 1), nn.BatchNorm2d(c, affine=affine))


def dil(c, k, s, affine):
    return nn.Sequential(nn.ReLU(), conv(c, c, k, s, k - 1, 2, groups=c), conv(c, c, 1), nn.BatchNorm2d(c, affine=affine))


def pool(p, c, affine, pool_bn):
    return nn.Sequential(p, nn.BatchNorm2d(c, affine=affine)) if pool_bn else p


def make(name, c, s, affine, pool_bn):
    return {
        "none": lambda: Zero(s),
        "skip_connect": lambda: nn.Identity() if s == 1 else FactorizedReduce(c, c, affine),
        "max_pool_3x3": lambda: pool(nn.MaxPool2d(3, s, 1), c, affine, pool_bn),
        "avg_pool_3x3": lambda: pool(nn.AvgPool2d(3, s, 1, count_include_pad=False), c, affine, pool_bn),
        "sep_conv_3x3": lambda: sep(c, 3, s, affine), "sep_conv_5x5": lambda: sep(c, 5, s, affine),
        "dil_conv_3x3": lambda: dil(c, 3, s, affine), "dil_conv_5x5": lambda: dil(c, 5, s, affine),
    }[name]()


class ReferenceCell(nn.Module):
    def __init__(self, spec, present, c_before, c_last, c, halved, affine, pool_bn):
        super().__init__()
        self.spec, self.present = spec, present
        self.inputs = nn.ModuleList([FactorizedReduce(c_before, c, affine) if halved else relu_conv_bn(c_before, c, affine),
                                     relu_conv_bn(c_last, c, affine)])
        self.edges = nn.ModuleList(
            nn.ModuleDict({op: make(op, c, spec.stride if s < 2 else 1, affine, pool_bn) for o, op in enumerate(spec.ops) if present[e][o]})
            for e, (s, _) in enumerate(spec.edges))

    def forward(self, before, last, table, active):
        states = [self.inputs[0](before), self.inputs[1](last)]
        for node in self.spec.nodes:
            terms = []
            for e, (source, destination) in enumerate(self.spec.edges):
                if destination == node:
                    for o, op in enumerate(self.spec.ops):
                        if self.present[e][o] and (active is None or active[e][o]):
                            y = self.edges[e][op](states[source])
                            terms.append(y if table is None else table[e, o] * y)
            states.append(sum(terms) if terms else None)
        stride = self.spec.stride
        like = states[0][:, :, ::stride, ::stride]
        return torch.cat([torch.zeros_like(like) if states[n] is None else states[n] for n in self.spec.outputs], 1)


class ReferenceNetwork(nn.Module):
    """A CIFAR-style network (small stem) of `kinds` cells; `affine`, `pool_bn` as in the search (False, True) or final net."""

    def __init__(self, specs, candidates, kinds, channels, num_classes, affine, pool_bn, in_channels=3):
        super().__init__()
        self.kinds = kinds
        self.stem = nn.Sequential(conv(in_channels, 3 * channels, 3, padding=1), nn.BatchNorm2d(3 * channels))
        before = last = 3 * channels
        halved, self.cells = False, nn.ModuleList()
        for kind in kinds:
            spec = specs[kind]
            channels *= spec.stride
            self.cells.append(ReferenceCell(spec, candidates[kind], before, last, channels, halved, affine, pool_bn))
            before, last, halved = last, len(spec.outputs) * channels, spec.stride > 1
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x, weights=None):
        before = last = self.stem(x)
        for kind, cell in zip(self.kinds, self.cells):
            before, last = last, cell(before, last, None if weights is None else weights[kind].ops,
                                      None if weights is None else weights[kind].active)
        return self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))


def modules_side_by_side(net: CellNetwork, reference: ReferenceNetwork) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs (ours, reference) of modules whose parameters correspond in order. Pools have none and are left out."""
    pairs = [(net.stem, reference.stem), (net.classifier, reference.classifier)]
    for cell, inputs, ref in zip(net.cells, net.inputs, reference.cells):
        pairs += list(zip(inputs, ref.inputs))
        for name, ops in zip(edge_names(cell.spec), ref.edges):
            pairs += [(cell.mixed.edges[name][op], module) for op, module in ops.items() if next(module.parameters(), None) is not None]
    return pairs


def parameters_side_by_side(net: CellNetwork, reference: ReferenceNetwork) -> list[tuple[nn.Parameter, nn.Parameter]]:
    pairs = [pair for ours, theirs in modules_side_by_side(net, reference)
             for pair in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert len(pairs) == len(list(net.parameters())) == len(list(reference.parameters()))
    return pairs


def like(net: CellNetwork, specs, candidates, channels: int, num_classes: int, *, affine=False, pool_bn=True,
         in_channels=3) -> ReferenceNetwork:
    """The reference with the same weights, dtype and mode as `net`."""
    reference = ReferenceNetwork(specs, candidates, net.kinds, channels, num_classes, affine, pool_bn, in_channels)
    dtype = next(net.parameters()).dtype
    reference.to(dtype)
    with torch.no_grad():
        for ours, theirs in parameters_side_by_side(net, reference):
            theirs.copy_(ours)
    return reference.train(net.training)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Asserts that the largest difference is at most `tolerance` times the largest expected entry."""
    scale = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= tolerance * (scale or 1.0), ((actual - expected).abs().max().item(), scale)
