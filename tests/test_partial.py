"""Partial channels, auxiliary skips and dropout within a supernet's cells, against edge-by-edge references in float64."""

import pytest
import torch
import torch.nn.functional as F

from ops.op import Normalisation
from supernet.networks.cell import Cell
from supernet.networks.measure import peak_memory
from supernet.spaces import darts, nasbench201
from supernet.weights import EdgeWeights, Weights

SEARCH = Normalisation(affine=False, after_pools=True)
OPS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")


def cell_of(kind, *, channels=8, seed=0, **options):
    space = darts.make(nodes=3, ops=OPS)
    torch.manual_seed(seed)
    spec = space.cells[kind]
    return Cell(spec, space.candidates()[kind], channels, SEARCH, **options).double(), spec


def inputs(channels=8, seed=0, size=7):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(3, channels, size, size, generator=g, dtype=torch.float64) for _ in range(2)]


def random_weights(spec, seed=1, edges=True, skip=None):
    g = torch.Generator().manual_seed(seed)
    ops = torch.rand(len(spec.edges), len(spec.ops), generator=g, dtype=torch.float64).requires_grad_()
    beta = torch.rand(len(spec.edges), generator=g, dtype=torch.float64).requires_grad_() if edges else None
    return Weights(ops, beta, skip=None if skip is None else torch.tensor(skip, dtype=torch.float64, requires_grad=True))


def pc_darts(cell, spec, states, weights, k):
    """The official MixedOp: the first C/K channels through the ops, the others past them (halved by max pooling), joined and shuffled for
    each edge; then the sum of edge weight times that."""
    states = list(states)
    for node in spec.nodes:
        total = 0
        for e in spec.incoming(node):
            source = spec.edges[e][0]
            x = states[source]
            part = x.shape[1] // k
            held = {o: op for _, o, _, op in [entry for entry in cell.mixed.bundles[source] if entry[0] == e]}
            mixed = sum(weights.ops[e, o] * op.finish(op.prefix(x[:, :part]), None, None) for o, op in held.items() if op.contributes)
            rest = x[:, part:]
            if mixed.shape[-1] != x.shape[-1]:
                rest = F.max_pool2d(rest, 2, 2, ceil_mode=True)
            joined = torch.cat([mixed, rest], 1)
            n, c, h, w = joined.shape
            shuffled = joined.view(n, k, c // k, h, w).transpose(1, 2).reshape(n, c, h, w)
            total = total + (1 if weights.edges is None else weights.edges[e]) * shuffled
        states.append(total)
    return torch.cat([states[n] for n in spec.outputs], 1)


@pytest.mark.equation("pc_darts", "gaea_pc_darts", "dr_nas_progressive")
@pytest.mark.parametrize("kind", ["normal", "reduce"])
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("edges", [True, False])
def test_partial_channels_equal_the_official_mixed_op(kind, k, edges):
    cell, spec = cell_of(kind, partial=k)
    weights, x = random_weights(spec, edges=edges), inputs()
    ours, theirs = cell(x, weights.scales()), pc_darts(cell, spec, x, weights, k)
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()
    ends = [weights.ops, *([weights.edges] if edges else []), *cell.parameters()]
    probe = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pairs = zip(*(torch.autograd.grad((y * probe).sum(), ends, allow_unused=True, materialize_grads=True) for y in (ours, theirs)))
    for a, b in pairs:
        assert (a - b).abs().max() <= 1e-9 * max(1.0, b.abs().max())


@pytest.mark.equation("pc_darts")
def test_the_bypass_sees_the_edge_weight_and_no_op_weight():
    cell, spec = cell_of("normal", partial=4)
    x, w = inputs(), random_weights(spec)
    silent = Weights(torch.zeros_like(w.ops), w.edges)
    out = cell(x, silent.scales())
    e = spec.incoming(2)
    expected = sum(w.edges[row] * x[spec.edges[row][0]][:, 2:] for row in e)
    first = out[:, :8].view(3, 2, 4, 7, 7).transpose(1, 2).reshape(3, 8, 7, 7)  # the shuffle undone
    torch.testing.assert_close(first[:, 2:], expected)
    assert first[:, :2].abs().max() == 0


def test_the_same_channels_pass_by_at_every_forward():
    cell, spec = cell_of("normal", partial=4)
    cell.eval()
    x, scales = inputs(), random_weights(spec).scales()
    assert torch.equal(cell(x, scales), cell(x, scales))


def test_inactive_edges_let_nothing_pass():
    cell, spec = cell_of("normal", partial=2)
    w = random_weights(spec)
    active = tuple(tuple(e == 0 and o == 2 for o in range(len(OPS))) for e in range(len(spec.edges)))
    out = cell(inputs(), w.scales(), active)
    assert out[:, 8:].abs().max() == 0 and out[:, :8].abs().max() > 0  # only node 2 is reached


def test_partial_must_divide_the_channels():
    with pytest.raises(ValueError, match="network.partial must divide"):
        cell_of("normal", partial=3)
    with pytest.raises(ValueError, match="partial must be at least 1"):
        cell_of("normal", partial=0)


@pytest.mark.equation("pc_darts")
def test_activation_memory_of_the_mixed_ops_follows_a_plus_b_over_k():
    """The peak of a training step's live tensors lies on a line in 1/K (K = 1 has no bypass: it is left out of the fit)."""
    space = darts.make(nodes=2, ops=("skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3"))
    spec = space.cells["normal"]
    x = [torch.randn(4, 32, 16, 16) for _ in range(2)]
    weights = Weights(torch.full((len(spec.edges), 4), 0.25), torch.ones(len(spec.edges)))

    def peak(k):
        cell = Cell(spec, space.candidates()["normal"], 32, SEARCH, partial=k)
        there = [*x, *cell.parameters(), *cell.buffers()]
        return peak_memory(lambda: cell(x, weights.scales()).sum().backward(), torch.device("cpu"), there)

    peaks = {k: peak(k) for k in (2, 4, 8, 16)}
    b = (peaks[2] - peaks[16]) / (1 / 2 - 1 / 16)
    a = peaks[16] - b / 16
    for k in (4, 8):
        assert abs(a + b / k - peaks[k]) < 0.05 * peaks[k]
    assert b > 2 * a, "the ops dominate"
    assert peaks[4] < 0.45 * peak(1)


@pytest.mark.equation("darts_minus")
@pytest.mark.parametrize("kind", ["normal", "reduce"])
def test_auxiliary_skips_add_beta_times_a_skip_on_every_edge(kind):
    cell, spec = cell_of(kind, auxiliary_skip=True)
    w, x = random_weights(spec, skip=0.7), inputs()
    out = cell(x, w.scales())
    states = list(x)
    for node in spec.nodes:
        total = 0
        for e in spec.incoming(node):
            source = spec.edges[e][0]
            held = {o: op for row, o, _, op in cell.mixed.bundles[source] if row == e}
            total = total + sum(w.edges[e] * w.ops[e, o] * op.finish(op.prefix(states[source]), None, None)
                                for o, op in held.items() if op.contributes)
            (skip,) = [op for row, _, op in cell.mixed.skips[source] if row == e]
            total = total + w.edges[e] * w.skip * skip(states[source])
        states.append(total)
    torch.testing.assert_close(out, torch.cat([states[n] for n in spec.outputs], 1))
    with_parameters = [list(module.parameters()) != [] for module in cell.mixed.auxiliary.values()]
    assert with_parameters == [kind == "reduce" and spec.edges[e][0] < 2 for e in range(len(spec.edges))]
    without = cell(x, Weights(w.ops, w.edges).scales())
    assert not torch.allclose(out, without)


def test_residual_cells_take_partial_channels_and_auxiliary_skips():
    space = nasbench201.make()
    torch.manual_seed(0)
    net = space.network(space.candidates(), layers=5, channels=4, num_classes=3, norm=SEARCH, partial=2, auxiliary_skip=True)
    table = torch.full((6, 5), 0.2, requires_grad=True)
    logits = net(torch.randn(2, 3, 8, 8), EdgeWeights({"cell": Weights(table, torch.ones(6), skip=torch.tensor(0.5))}))
    logits.sum().backward()
    assert logits.shape == (2, 3) and table.grad.abs().sum() > 0


@pytest.mark.equation("p_darts")
def test_skip_dropout_drops_entries_of_skips_alone_and_keeps_their_mean():
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3"))
    spec = space.cells["normal"]
    torch.manual_seed(0)
    cell = Cell(spec, space.candidates()["normal"], 4, SEARCH)
    x = [torch.ones(64, 4, 16, 16), torch.zeros(64, 4, 16, 16)]
    cell.mixed.skip_dropout = 0.25
    only_skip = Weights(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), active=((True, False), (False, False)))
    out = cell(x, only_skip.scales(), only_skip.active, generator=torch.Generator().manual_seed(0))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3]) and abs(out.mean() - 1) < 0.01
    only_conv = Weights(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), active=((False, True), (False, False)))
    cell.mixed.skip_dropout = 0.0
    plain = cell(x, only_conv.scales(), only_conv.active)
    cell.mixed.skip_dropout = 0.25
    assert torch.equal(cell(x, only_conv.scales(), only_conv.active, generator=torch.Generator()), plain)
    with pytest.raises(ValueError, match="generator="):
        cell(x, only_skip.scales(), only_skip.active)
    cell.eval()
    assert torch.equal(cell(x, only_skip.scales(), only_skip.active), x[0])


def test_skip_dropout_is_drawn_for_each_edge_and_leaves_halving_skips_alone():
    """chenxin061/pdarts, model_search.py: dropout follows Identity, not FactorizedReduce."""
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3"))
    active = ((True, False), (True, False))
    cells = {}
    for kind in ("normal", "reduce"):
        torch.manual_seed(0)
        cells[kind] = Cell(space.cells[kind], space.candidates()[kind], 4, SEARCH)
        cells[kind].mixed.skip_dropout = 0.5
    scales = Weights(torch.tensor([[1.0, 0.0], [0.1, 0.0]]), active=active).scales()
    out = cells["normal"]([torch.ones(8, 4, 64, 64)] * 2, scales, active, generator=torch.Generator().manual_seed(0))
    counts = {round(v, 4): n / out.numel() for v, n in zip(*(t.tolist() for t in out.unique(return_counts=True)))}
    assert set(counts) == {0.0, 0.2, 2.0, 2.2} and all(abs(share - 0.25) < 0.01 for share in counts.values())
    x = [torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))] * 2
    dropped = cells["reduce"](x, scales, active, generator=torch.Generator().manual_seed(0))
    cells["reduce"].mixed.skip_dropout = 0.0
    assert torch.equal(dropped, cells["reduce"](x, scales, active))


@pytest.mark.parametrize("rows", [(0, 1), (0, 2), (2, 3)], ids=["two sources", "one source", "one destination"])
def test_drop_path_masks_of_edges_are_independent(rows):
    """Also of edges that leave one node, whose pools are one module."""
    space = darts.make(nodes=2, ops=("max_pool_3x3", "sep_conv_3x3"))
    spec = space.cells["normal"]
    cell = Cell(spec, space.candidates()["normal"], 2, Normalisation(affine=False, after_pools=False))
    active = tuple((e in rows, False) for e in range(len(spec.edges)))
    table = torch.zeros(len(spec.edges), 2)
    table[rows[0], 0], table[rows[1], 0] = 1.0, 0.25
    n = 8192
    out = cell([torch.ones(n, 2, 1, 1)] * 2, Weights(table).scales(), active, 0.5, torch.Generator().manual_seed(0))
    first, second = (spec.edges[e][1] - 2 for e in rows)
    a = out[:, 2 * first, 0, 0]
    if first == second:
        kept = torch.stack([a >= 2.0, (a == 0.5) | (a == 2.5)])
    else:
        kept = torch.stack([a == 2.0, out[:, 2 * second, 0, 0] == 0.5])
    both = kept.all(0).float().mean()
    assert abs(kept.float().mean() - 0.5) < 0.02 and abs(both - 0.25) < 0.02
