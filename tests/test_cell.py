import random

import pytest
import torch
import torch.nn.functional as F

from ops import make_op
from ops.op import Normalisation
from supernet.networks.stacked import inherit
from supernet.space import CellSpec, Space
from supernet.spaces import darts
from supernet.weights import EdgeWeights, Weights, one_hot
from tests import backends, reference
from tests.builders import FINAL, SEARCH, build, compare, random_weights


@pytest.fixture(params=["plain", "native"], autouse=True)
def backend(request):
    with backends.using(request.param):
        yield request.param


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("size", [8, 7])
def test_bundles_equal_the_sum_over_edges_and_ops(size, active, layout):
    space = darts.make(nodes=3)
    net = build(space)
    ref = reference.like(net, space.cells, space.candidates(), 4, 5)
    net.to(memory_format=layout)
    x, y = torch.randn(4, 3, size, size, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    compare(net, ref, random_weights(space, active=active), x, y)
    net.eval(), ref.eval()  # the running statistics that the training forward left must agree as well
    if not active:  # a shared pool counts a batch once; edges that did not run would differ
        compare(net, ref, random_weights(space), x, y)


@pytest.mark.parametrize("channels", [16, 6])
def test_channels_last_in_float32_is_as_exact_as_the_reference(channels):
    """Memory layouts have kernels of their own; those for float32 and whole vectors of channels are the ones that run in practice."""
    space = darts.make(nodes=3)
    exact = build(space, channels=channels, layers=3)
    x, y = torch.randn(8, 3, 16, 16, dtype=torch.float64), torch.arange(8) % 5

    def gradients(net, dtype):
        weights = EdgeWeights({k: Weights(w.ops.detach().to(dtype).requires_grad_()) for k, w in random_weights(space).items()})
        loss = F.cross_entropy(net(x.to(dtype), weights), y)
        inputs = [w.ops for w in weights.values()] + [p for p in net.parameters()]
        return torch.cat([g.double().flatten() for g in torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)])

    truth = gradients(exact, torch.float64)
    ours = build(space, channels=channels, layers=3).float().to(memory_format=torch.channels_last)
    plain = reference.like(ours, space.cells, space.candidates(), channels, 5)
    by_layout = (gradients(ours, torch.float32) - truth).norm() / truth.norm()
    weights = EdgeWeights({k: Weights(w.ops.detach().float().requires_grad_()) for k, w in random_weights(space).items()})
    inputs = [w.ops for w in weights.values()] + [t for _, t in reference.parameters_side_by_side(ours, plain)]
    own = torch.autograd.grad(F.cross_entropy(plain(x.float(), weights), y), inputs)
    order = {id(p): i for i, p in enumerate(ours.parameters())}
    tables, rest = own[:2], own[2:]
    placed = [None] * len(order)
    for (p, _), g in zip(reference.parameters_side_by_side(ours, plain), rest):
        placed[order[id(p)]] = g
    of_reference = (torch.cat([g.double().flatten() for g in (*tables, *placed)]) - truth).norm() / truth.norm()
    assert by_layout < max(2 * of_reference, 1e-5), (by_layout, of_reference)


@pytest.mark.parametrize("seed", range(6))
def test_final_networks_equal_the_sum_over_edges(seed):
    space = darts.make()
    candidates = space.candidates(space.sample(random.Random(seed)))
    net = build(space, candidates, norm=FINAL, seed=seed).to(memory_format=torch.channels_last)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    ref = reference.like(net, space.cells, candidates, 4, 5, affine=True, pool_bn=False)
    compare(net, ref, None, torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("norm", [SEARCH, FINAL, Normalisation(True, True), Normalisation(False, False, running_statistics=False)])
@pytest.mark.parametrize("seed", range(3))
def test_final_network_computes_what_the_supernet_computes_at_one_hot(seed, norm):
    space = darts.make(nodes=3)
    genotype = space.sample(random.Random(seed))
    supernet = build(space, norm=norm)
    final = build(space, space.candidates(genotype), norm=norm, seed=99)
    inherit(final, supernet)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for mode in (True, False):
        supernet.train(mode), final.train(mode)
        reference.close(final(x), supernet(x, one_hot(space, genotype, dtype=torch.float64)), 1e-10)


def test_inherit_refuses_networks_of_other_sizes():
    space = darts.make(nodes=2)
    with pytest.raises(ValueError, match="cannot inherit .* same sizes and normalisation"):
        inherit(build(space, channels=8), build(space, channels=4))


def test_edge_weights_multiply_op_weights():
    space = darts.make(nodes=2)
    net, x = build(space), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    plain = random_weights(space)
    beta = {k: torch.rand(len(s.edges), dtype=torch.float64) for k, s in space.cells.items()}
    split = EdgeWeights({k: Weights(w.ops, beta[k]) for k, w in plain.items()})
    folded = EdgeWeights({k: Weights(w.ops * beta[k][:, None]) for k, w in plain.items()})
    reference.close(net(x, split), net(x, folded), 1e-12)


def test_weights_of_each_layer():
    space = darts.make(nodes=2)
    net, x = build(space), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    same = random_weights(space)
    repeated = EdgeWeights({k: Weights(w.ops.expand(net.kinds.count(k), -1, -1)) for k, w in same.items()})
    reference.close(net(x, repeated), net(x, same), 0)
    changed = {k: Weights(w.ops.detach().clone()) for k, w in repeated.items()}
    changed["normal"].ops[-1] += 1
    assert not torch.equal(net(x, EdgeWeights(changed)), net(x, same))


@pytest.mark.parametrize("backend", ["plain"], indirect=True)  # which calls modules, and so their hooks
def test_inactive_ops_are_not_run(backend):
    space = darts.make(nodes=2)
    net = build(space)
    genotype = space.sample(random.Random(0))
    ran = []
    for name, module in net.named_modules():
        if name.endswith(("depthwise1", "depthwise", "even")) and ".mixed." in name:
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    net(torch.randn(2, 3, 8, 8, dtype=torch.float64), one_hot(space, genotype, dtype=torch.float64))
    for name in ran:
        _, layer, _, _, edge, op, *_ = name.split(".")
        source, destination = map(int, edge.split("-"))
        assert (destination, source, op) in genotype[net.kinds[int(layer)]]


def test_reordering_the_ops_changes_no_output():
    a = darts.make(nodes=2)
    order = list(reversed(darts.OPS))
    b = darts.make(nodes=2, ops=order)
    columns = [darts.OPS.index(o) for o in order]
    net_a, net_b = build(a), build(b)
    inherit(net_b, net_a)
    weights = random_weights(a)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    reference.close(net_b(x, EdgeWeights({k: Weights(w.ops[:, columns]) for k, w in weights.items()})), net_a(x, weights), 1e-10)


def test_parallel_edges_and_nodes_without_edges():
    space = darts.make(nodes=3, parallel=2, edges_per_node=[0, 2])
    rng = random.Random(3)
    for _ in range(10):
        genotype = space.sample(rng)
        if all(len(genotype[kind]) for kind in ("normal", "reduce")):
            net = build(space, space.candidates(genotype), norm=FINAL)
            assert net(torch.randn(2, 3, 8, 8, dtype=torch.float64)).shape == (2, 5)


def test_a_node_that_no_running_op_reaches_is_zero():
    spec = CellSpec.full(num_inputs=2, num_nodes=1, ops=("none", "skip_connect"), outputs=(2,), keep=(1, 1))
    space = Space("tiny", {}, {"normal": spec, "reduce": spec}, darts.build)
    net = build(space, layers=3)
    nothing = EdgeWeights({k: Weights(torch.ones(2, 2), active=((True, False), (True, False))) for k in space.cells})
    out = net(torch.randn(2, 3, 8, 8, dtype=torch.float64), nothing)
    torch.testing.assert_close(out, net.classifier.bias.expand(2, -1))


def test_noise_draws_from_the_generator_and_drop_path_needs_one():
    space = darts.make(nodes=1, ops=["noise", "sep_conv_3x3"])
    net, x, weights = build(space), torch.randn(2, 3, 8, 8, dtype=torch.float64), random_weights(space)
    draw = lambda seed: net(x, weights, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(draw(1), draw(1), rtol=0, atol=0)
    assert not torch.equal(draw(1), draw(2))
    with pytest.raises(ValueError, match="generator="):
        net(x, weights)
    net.drop_path_prob = 0.5
    with pytest.raises(ValueError, match="drop path draws"):
        net(x, weights)


@pytest.mark.equation("r_darts_dp")
def test_drop_path_drops_edges_per_sample_and_keeps_the_mean():
    spec = CellSpec.full(num_inputs=2, num_nodes=1, ops=("max_pool_3x3", "skip_connect"), outputs=(2,), keep=None)
    from supernet.networks.cell import Cell

    cell = Cell(spec, ((True, False), (False, True)), 2, FINAL)
    x = [torch.full((4000, 2, 3, 3), 1.0), torch.full((4000, 2, 3, 3), 10.0)]
    out = cell(x, None, None, 0.25, torch.Generator().manual_seed(0))
    per_sample = out[:, 0, 1, 1]
    assert {round(v, 4) for v in per_sample.tolist()} == {10.0, 11.3333}  # the skip is never dropped, the pool per sample
    assert (per_sample > 10).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(out, per_sample[:, None, None, None].expand_as(out))
    cell.eval()
    assert cell(x, None, None, 0.25, None).unique().tolist() == [11.0]


@pytest.mark.equation("r_darts_dp")
def test_drop_path_of_a_supernet_drops_whole_edges_skip_connections_and_what_passes_by_too():
    """RobustDARTS and SNAS, model_search.py: `drop_path(mixed_op(h, weights))`."""
    from supernet.networks.cell import Cell

    spec = CellSpec.full(num_inputs=2, num_nodes=1, ops=("max_pool_3x3", "skip_connect"), outputs=(2,), keep=None)
    x = [torch.full((4000, 4, 3, 3), 1.0), torch.full((4000, 4, 3, 3), 10.0)]
    table = Weights(torch.tensor([[0.25, 0.75], [0.0, 1.0]], dtype=torch.float64), skip=torch.tensor(0.5, dtype=torch.float64))
    for options, edge in (({}, 1.0), ({"auxiliary_skip": True}, 1.5), ({"partial": 2}, 1.0)):
        cell = Cell(spec, ((True, True), (True, True)), 4, FINAL, **options)
        out = cell([t.double() for t in x], table.scales(), None, 0.25, torch.Generator().manual_seed(0))
        per_sample = out[:, 0, 1, 1]
        want = {round(edge * v / 0.75, 4) for v in (0, 1, 10, 11)}
        assert {round(v, 4) for v in per_sample.tolist()} == want, options
        assert torch.allclose(out, per_sample[:, None, None, None].expand_as(out)), "all channels of an edge share its fate"
        assert (per_sample > 0).double().mean().item() == pytest.approx(1 - 0.25**2, abs=0.02)
        one = cell([t.double() for t in x], table.scales(), ((False, True), (False, False)), 0.25, torch.Generator().manual_seed(0))
        assert (one[:, 0] == 0).any(), "a sampled path in a supernet is one of its edges, and no final network's"


@pytest.mark.parametrize("partial", [1, 2])
def test_drop_path_of_a_supernet_equals_the_obvious(partial):
    space = darts.make(nodes=2)
    net = build(space, partial=partial)
    ref = reference.like(net, space.cells, space.candidates(), 4, 5, partial=partial)
    net.drop_path_prob = ref.drop_path_prob = 0.4
    weights, x = random_weights(space), torch.randn(64, 3, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    found, wanted = (model(x, weights, generator=torch.Generator().manual_seed(3)) for model in (net, ref))
    reference.close(found, wanted, 1e-10)
    for w in weights.values():
        reference.close(*(torch.autograd.grad(out.square().sum(), w.ops, retain_graph=True)[0] for out in (found, wanted)), 1e-9)


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_full_backward_hook", "register_full_backward_pre_hook"])
def test_whoever_hooks_on_to_an_inner_norm_sees_what_it_gave_and_changes_nothing(hook):
    norm = Normalisation(affine=False, after_pools=True)
    op, x = make_op("sep_conv_3x3", 4, 1, norm), torch.randn(2, 4, 6, 6)
    expected = torch.autograd.grad(op(x).square().sum(), list(op.parameters()))
    seen = []
    getattr(op.body.norm1, hook)(lambda module, *told: seen.append(told[-1] if torch.is_tensor(told[-1]) else told[-1][0]))
    y = op(x)
    assert all(map(torch.equal, expected, torch.autograd.grad(y.square().sum(), list(op.parameters()))))
    assert len(seen) == 1 and seen[0].min() < 0
