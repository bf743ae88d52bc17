"""The slow, obvious networks: every edge and every op on its own, in plain torch.nn, as the published codebases write them.

They are what the bundled cells are compared with, in numbers (tests) and in time (benchmarks). `like(net)` copies a `CellNetwork`
parameter by parameter, `residual_like(net)` a `ResidualCellNetwork`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.networks.cell import edge_names
from supernet.networks.residual import ResidualCellNetwork
from supernet.networks.stacked import CellNetwork


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


def relu_conv_bn(cin, cout, affine, size=1, stride=1):
    return nn.Sequential(nn.ReLU(), conv(cin, cout, size, stride, size // 2), nn.BatchNorm2d(cout, affine=affine))


def sep(c, k, s, affine):
    return nn.Sequential(nn.ReLU(), conv(c, c, k, s, k // 2, groups=c), conv(c, c, 1), nn.BatchNorm2d(c, affine=affine),
                         nn.ReLU(), conv(c, c, k, 1, k // 2, groups=c), conv(c, c, 1), nn.BatchNorm2d(c, affine=affine))


def dil(c, k, s, affine):
    return nn.Sequential(nn.ReLU(), conv(c, c, k, s, k - 1, 2, groups=c), conv(c, c, 1), nn.BatchNorm2d(c, affine=affine))


def pool(p, c, pool_bn):
    return nn.Sequential(p, nn.BatchNorm2d(c, affine=False)) if pool_bn else p


def make(name, c, s, affine, pool_bn):
    return {
        "none": lambda: Zero(s),
        "skip_connect": lambda: nn.Identity() if s == 1 else FactorizedReduce(c, c, affine),
        "max_pool_3x3": lambda: pool(nn.MaxPool2d(3, s, 1), c, pool_bn),
        "avg_pool_3x3": lambda: pool(nn.AvgPool2d(3, s, 1, count_include_pad=False), c, pool_bn),
        "sep_conv_3x3": lambda: sep(c, 3, s, affine), "sep_conv_5x5": lambda: sep(c, 5, s, affine),
        "dil_conv_3x3": lambda: dil(c, 3, s, affine), "dil_conv_5x5": lambda: dil(c, 5, s, affine),
        "nor_conv_1x1": lambda: relu_conv_bn(c, c, affine, 1, s), "nor_conv_3x3": lambda: relu_conv_bn(c, c, affine, 3, s),
    }[name]()


class ReferenceEdges(nn.Module):
    """The sum over edges and ops of a cell, node by node. partial: K of PC-DARTS's MixedOp (official code, model_search.py): the first
    1/K of the channels through the ops, the others past them, joined and shuffled on every edge."""

    def __init__(self, spec, present, c, affine, pool_bn, partial=1):
        super().__init__()
        self.spec, self.present, self.partial, self.width = spec, present, partial, c // partial
        self.ops = nn.ModuleList(
            nn.ModuleDict({op: make(op, self.width, spec.stride if s < spec.num_inputs else 1, affine, pool_bn)
                           for o, op in enumerate(spec.ops) if present[e][o]})
            for e, (s, _) in enumerate(spec.edges))

    def forward(self, inputs, weights=None, drop_path_prob=0.0, generator=None):
        """weights: `Weights` of this kind of cell. drop_path_prob, generator: drop path in training, of whole mixed edges in a supernet
        (RobustDARTS, model_search.py), of all ops but the identity in a final network (DARTS, model.py)."""
        states, masks, x = list(inputs), None, inputs[0]
        whole = any(len(ops) > 1 for ops in self.ops)
        table, active, factors = (None, None, None) if weights is None else (weights.ops, weights.active, weights.edges)
        if drop_path_prob > 0 and self.training:
            masks = [torch.rand(x.shape[0], 1, 1, 1, generator=generator, device=x.device) >= drop_path_prob for _ in self.spec.edges]
        for node in self.spec.nodes:
            terms = []
            for e, (source, destination) in enumerate(self.spec.edges):
                if destination == node:
                    mixed = []
                    for o, op in enumerate(self.spec.ops):
                        if self.present[e][o] and (active is None or active[e][o]):
                            y = self.ops[e][op](states[source][:, : self.width])
                            if masks is not None and not whole and type(self.ops[e][op]) is not nn.Identity:
                                y = y.div_(1 - drop_path_prob).mul_(masks[e])
                            mixed.append(y if table is None else table[e, o] * y)
                    if mixed:
                        y = sum(mixed) if self.partial == 1 else self._beside(sum(mixed), states[source][:, self.width:])
                        if masks is not None and whole:
                            y = y / (1 - drop_path_prob) * masks[e]
                        terms.append(y if factors is None else factors[e] * y)
            states.append(sum(terms) if terms else None)
        like = states[0][:, :, :: self.spec.stride, :: self.spec.stride]
        return torch.cat([torch.zeros_like(like) if states[n] is None else states[n] for n in self.spec.outputs], 1)

    def _beside(self, mixed, rest):
        if mixed.shape[-1] != rest.shape[-1]:
            rest = F.max_pool2d(rest, 2, 2, ceil_mode=True)
        joined = torch.cat([mixed, rest], 1)
        n, c, h, w = joined.shape
        return joined.view(n, self.partial, c // self.partial, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ReferenceCell(nn.Module):
    def __init__(self, spec, present, c_before, c_last, c, halved, affine, pool_bn, partial=1):
        super().__init__()
        self.inputs = nn.ModuleList([FactorizedReduce(c_before, c, affine) if halved else relu_conv_bn(c_before, c, affine),
                                     relu_conv_bn(c_last, c, affine)])
        self.edges = ReferenceEdges(spec, present, c, affine, pool_bn, partial)

    def forward(self, before, last, weights, drop_path_prob, generator):
        return self.edges([self.inputs[0](before), self.inputs[1](last)], weights, drop_path_prob, generator)


def auxiliary_head(c, num_classes):
    """AuxiliaryHeadCIFAR (DARTS, model.py), for maps of 8x8."""
    return nn.Sequential(nn.ReLU(), nn.AvgPool2d(5, 3, count_include_pad=False), conv(c, 128, 1), nn.BatchNorm2d(128), nn.ReLU(),
                         conv(128, 768, 2), nn.BatchNorm2d(768), nn.ReLU(), nn.Flatten(), nn.Linear(768, num_classes))


class ReferenceNetwork(nn.Module):
    """A CIFAR-style network (small stem) of `kinds` cells; `affine`, `pool_bn` as in the search (False, True) or final net. `auxiliary`:
    with the auxiliary head at two thirds of the depth, whose logits come beside the others in training."""

    def __init__(self, specs, candidates, kinds, channels, num_classes, affine, pool_bn, in_channels=3, partial=1, auxiliary=False):
        super().__init__()
        self.kinds, self.drop_path_prob = kinds, 0.0
        self.stem = nn.Sequential(conv(in_channels, 3 * channels, 3, padding=1), nn.BatchNorm2d(3 * channels))
        before = last = 3 * channels
        halved, self.cells, self.auxiliary = False, nn.ModuleList(), None
        for layer, kind in enumerate(kinds):
            spec = specs[kind]
            channels *= spec.stride
            self.cells.append(ReferenceCell(spec, candidates[kind], before, last, channels, halved, affine, pool_bn, partial))
            before, last, halved = last, len(spec.outputs) * channels, spec.stride > 1
            if auxiliary and layer == 2 * len(kinds) // 3:
                self.auxiliary = auxiliary_head(last, num_classes)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x, weights=None, *, generator=None):
        before = last = self.stem(x)
        for layer, (kind, cell) in enumerate(zip(self.kinds, self.cells)):
            before, last = last, cell(before, last, None if weights is None else weights[kind], self.drop_path_prob, generator)
            if self.auxiliary is not None and self.training and layer == 2 * len(self.kinds) // 3:
                extra = self.auxiliary(last)
        logits = self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))
        return logits if self.auxiliary is None or not self.training else (logits, extra)


class ReferenceResidualNetwork(nn.Module):
    """The skeleton of NAS-Bench-201 (AutoDL-Projects, models/cell_searchs): stages of one-input cells, ResNetBasicblocks between."""

    def __init__(self, kind, spec, present, layers, channels, num_classes, affine, in_channels=3):
        super().__init__()
        first, second = layers // 3, 2 * layers // 3
        self.stem = nn.Sequential(conv(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.kind, self.layers = kind, nn.ModuleList()
        for layer in range(layers):
            if layer in (first, second):
                self.layers.append(ReferenceBlock(channels, 2 * channels))
                channels *= 2
            else:
                self.layers.append(ReferenceEdges(spec, present, channels, affine, pool_bn=False))
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x, weights=None, *, generator=None):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x) if type(layer) is ReferenceBlock else layer([x], None if weights is None else weights[self.kind])
        return self.classifier(F.adaptive_avg_pool2d(self.last(x), 1).flatten(1))


class ReferenceBlock(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.first, self.second = relu_conv_bn(cin, cout, True, 3, 2), relu_conv_bn(cout, cout, True, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), conv(cin, cout, 1))

    def forward(self, x):
        return self.shortcut(x) + self.second(self.first(x))


def edges_side_by_side(cell, reference: ReferenceEdges) -> list[tuple[nn.Module, nn.Module]]:
    return [(cell.mixed.edges[name][op], module) for name, ops in zip(edge_names(cell.spec), reference.ops) for op, module in ops.items()
            if next(module.parameters(), None) is not None]


def modules_side_by_side(net: CellNetwork, reference: ReferenceNetwork) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs (ours, reference) of modules whose parameters correspond in order. Pools have none and are left out."""
    pairs = [(net.stem, reference.stem), (net.classifier, reference.classifier)]
    for cell, inputs, ref in zip(net.cells, net.inputs, reference.cells):
        pairs += list(zip(inputs, ref.inputs))
        pairs += edges_side_by_side(cell, ref.edges)
    if reference.auxiliary is not None:
        pairs.append((net.auxiliary_head, reference.auxiliary))
    return pairs


def residual_modules_side_by_side(net: ResidualCellNetwork, reference: ReferenceResidualNetwork) -> list[tuple[nn.Module, nn.Module]]:
    pairs = [(net.stem, reference.stem), (net.last, reference.last), (net.classifier, reference.classifier)]
    for cell, ref in zip(net.cells, (layer for layer in reference.layers if type(layer) is ReferenceEdges)):
        pairs += edges_side_by_side(cell, ref)
    for block, ref in zip(net.reductions, (layer for layer in reference.layers if type(layer) is ReferenceBlock)):
        pairs += [(block.first, ref.first), (block.second, ref.second), (block.shortcut, ref.shortcut)]
    return pairs


def parameters_side_by_side(net, reference) -> list[tuple[nn.Parameter, nn.Parameter]]:
    modules = residual_modules_side_by_side if type(net) is ResidualCellNetwork else modules_side_by_side
    pairs = [pair for ours, theirs in modules(net, reference)
             for pair in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert len(pairs) == len(list(net.parameters())) == len(list(reference.parameters()))
    return pairs


def like(net: CellNetwork, specs, candidates, channels: int, num_classes: int, *, affine=False, pool_bn=True,
         in_channels=3, partial=1, auxiliary=False) -> ReferenceNetwork:
    """The reference with the same weights, dtype and mode as `net`."""
    return copied(ReferenceNetwork(specs, candidates, net.kinds, channels, num_classes, affine, pool_bn, in_channels, partial, auxiliary),
                  net)


def residual_like(net: ResidualCellNetwork, spec, present, layers: int, channels: int, num_classes: int, *, affine=False,
                  in_channels=3) -> ReferenceResidualNetwork:
    """The same for the skeleton of NAS-Bench-201."""
    return copied(ReferenceResidualNetwork(net.kinds[0], spec, present, layers, channels, num_classes, affine, in_channels), net)


def copied(reference, net):
    reference.to(next(net.parameters()).dtype)
    with torch.no_grad():
        for ours, theirs in parameters_side_by_side(net, reference):
            theirs.copy_(ours)
    return reference.train(net.training)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Asserts that the largest difference is at most `tolerance` times the largest expected entry."""
    scale = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= tolerance * (scale or 1.0), ((actual - expected).abs().max().item(), scale)
