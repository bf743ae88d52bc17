"""The packed backends, few large calls of PyTorch, against the edge-by-edge reference and the plain path in float64."""

import random

import pytest
import torch
import torch.nn.functional as F

from benchmarks.launches import launches
from ops import kernels
from ops.kernels import packed
from ops.op import BatchNorm
from supernet.hypergradients.implicit import neumann
from supernet.hypergradients.unrolled import unrolled
from supernet.networks.cell import Cell
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.softmax import Softmax
from supernet.space import CellSpec
from supernet.spaces import darts, nasbench201, robust
from supernet.weights import Weights, replaced
from tests import backends, reference
from tests.builders import FINAL, SEARCH, build, compare, random_weights, small_search

BOTH = ("packed", "merged")
LABELS = torch.tensor([0, 1, 2, 3])


@pytest.fixture(params=BOTH)
def backend(request):
    with backends.using(request.param):
        yield request.param


def image(size=8, seed=0, layout=torch.channels_last):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, size, size, generator=g, dtype=torch.float64).contiguous(memory_format=layout)


@pytest.mark.parametrize("size, active, layout", [(8, False, torch.channels_last), (7, True, torch.channels_last),
                                                  (7, False, torch.contiguous_format), (8, True, torch.contiguous_format)])
def test_darts_equals_the_sum_over_edges_and_ops(backend, size, active, layout):
    space = darts.make(nodes=3)
    net = build(space)
    ref = reference.like(net, space.cells, space.candidates(), 4, 5)
    net.to(memory_format=layout)
    compare(net, ref, random_weights(space, active=active), image(size, layout=layout), LABELS)
    net.eval(), ref.eval()  # the running statistics that the training forward left must agree as well
    if not active:  # a shared pool counts a batch once; edges that did not run would differ
        compare(net, ref, random_weights(space), image(size, layout=layout), LABELS)


def test_nasbench201_and_s1_equal_the_sum_over_edges_and_ops(backend):
    space = nasbench201.make()
    net = build(space, layers=5)
    spec, present = space.cells["cell"], space.candidates()["cell"]
    compare(net.to(memory_format=torch.channels_last), reference.residual_like(net, spec, present, 5, 4, 5), random_weights(space),
            image(), LABELS)
    space = robust.s1()
    net = build(space, layers=3)
    compare(net.to(memory_format=torch.channels_last), reference.like(net, space.cells, space.candidates(), 4, 5), random_weights(space),
            image(), LABELS)


def test_partial_channels_with_edge_weights_equal_the_reference(backend):
    space = darts.make(nodes=2)
    net = build(space, partial=2)
    ref = reference.like(net, space.cells, space.candidates(), 4, 5, partial=2)
    weights = replaced(random_weights(space), lambda kind, w: {"edges": torch.rand(len(w.ops), dtype=torch.float64).requires_grad_()})
    compare(net.to(memory_format=torch.channels_last), ref, weights, image(7), LABELS)
    for ours, theirs in zip(*(torch.autograd.grad(model(image(), weights).square().sum(), [w.edges for w in weights.values()])
                              for model in (net, ref))):
        reference.close(ours, theirs, 1e-10)


@pytest.mark.parametrize("partial", [1, 2])
def test_drop_path_equals_the_reference(backend, partial):
    space = darts.make(nodes=2)
    net = build(space, partial=partial)
    ref = reference.like(net, space.cells, space.candidates(), 4, 5, partial=partial)
    net.drop_path_prob = ref.drop_path_prob = 0.4
    weights = random_weights(space)
    for layout in (torch.channels_last, torch.contiguous_format):
        x = image(layout=layout).repeat(4, 1, 1, 1).contiguous(memory_format=layout)
        found, wanted = (model(x, weights, generator=torch.Generator().manual_seed(3)) for model in (net.to(memory_format=layout), ref))
        reference.close(found, wanted, 1e-10)
        for w in weights.values():
            reference.close(*(torch.autograd.grad(out.square().sum(), w.ops, retain_graph=True)[0] for out in (found, wanted)), 1e-10)


def pruned(space):
    """Every edge with some of its ops."""
    rng = random.Random(0)
    return {kind: tuple(tuple(rng.random() < 0.6 for _ in spec.ops) for _ in spec.edges) for kind, spec in space.cells.items()}


CASES = ("sampled", "pruned", "final", "frozen", "auxiliary", "skip dropout", "drop path of a final network", "by batch",
         "each layer its own")


def steps(case, backend):
    """Losses and alphas' gradients of two steps with momentum and decay, then which weights had gradients, the weights and the running
    statistics, then a loss in evaluation."""
    kernels.use(backend)
    space = darts.make(nodes=2)
    last = case == "final" or case.startswith("drop path")
    candidates = pruned(space) if case == "pruned" else space.candidates(space.sample(random.Random(1))) if last else None
    options = {"auxiliary_skip": True} if case == "auxiliary" else {}
    net = build(space, candidates, layers=3, norm=FINAL if last else SEARCH, **options).to(memory_format=torch.channels_last)
    weights = None if last else random_weights(space, active=case == "sampled")
    if case == "auxiliary":
        weights = replaced(weights, lambda kind, w: {"skip": torch.tensor(0.3, dtype=torch.float64)})
    if case == "each layer its own":
        weights = replaced(weights, lambda kind, w: {"ops": torch.stack([w.ops * (n + 1) for n in range(2)]).detach().requires_grad_()})
    if last and case != "final":
        net.drop_path_prob = 0.4
    for cell in net.cells:
        cell.mixed.skip_dropout = 0.4 if case == "skip dropout" else 0.0
        if case == "frozen":
            for p in [*cell.mixed.edges["0-2"].parameters(), *cell.mixed.edges["1-3"]["dil_conv_3x3"].parameters()]:
                p.requires_grad_(False)
    for norm in (m for m in net.modules() if type(m) is BatchNorm):
        norm.by_batch = case == "by batch"
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=3e-4)
    found = []
    tables = [] if weights is None else [w.ops for w in weights.values()]
    for step in range(2):
        for table in tables:
            table.grad = None
        optimizer.zero_grad()
        loss = F.cross_entropy(net(image(seed=step), weights, generator=torch.Generator().manual_seed(step)), LABELS)
        loss.backward()
        optimizer.step()
        found += [loss.detach(), *(table.grad.clone() for table in tables)]
    found.append(torch.tensor([p.grad is not None for p in net.parameters()]).double())
    found += [p.detach() for p in net.parameters()] + list(net.buffers())
    return [*found, net.eval()(image(seed=3), weights, generator=torch.Generator().manual_seed(3)).detach()]


@pytest.mark.parametrize("case", CASES)
def test_two_steps_equal_the_plain_path(case):
    plain, *both = (steps(case, backend) for backend in ("plain", *BOTH))
    for found in both:
        for a, b in zip(found, plain, strict=True):
            # a running mean may be 0 but for rounding
            assert (a - b).abs().max() <= 1e-9 * max(b.abs().max().item(), 1e-6)


def test_an_op_that_is_not_drawn_has_no_gradient_and_does_not_move(backend):
    search, batch, _ = small_search(GumbelHard)
    before = {name: p.detach().clone() for name, p in search.net.named_parameters()}
    search.w_step(batch)
    still = [name for name, p in search.net.named_parameters() if p.grad is None]
    assert still and all(torch.equal(before[name], search.net.get_parameter(name)) for name in still)
    assert any(".edges." in name for name in before if name not in still)


def test_a_checkpoint_of_one_way_goes_on_the_other(backend):
    search, batch, _ = small_search(Softmax)
    other, _, _ = small_search(Softmax, seed=1)
    search.w_step(batch)
    other.net.load_state_dict(search.net.state_dict())
    other.relaxation.load_state_dict(search.relaxation.state_dict())
    assert list(search.net.state_dict()) == list(other.net.state_dict())
    ours = search.problem(batch, batch).train_loss()
    kernels.use("plain")
    reference.close(ours, other.problem(batch, batch).train_loss(), 1e-10)


def test_held_statistics_stay_and_a_forward_moves_them_once(backend):
    net, moved = build(darts.make(nodes=2), layers=3), []
    for which in (backend, "plain"):
        kernels.use(which)
        net = build(darts.make(nodes=2), layers=3)
        net(image(), None)
        moved.append([b.clone() for b in net.buffers()])
        for norm in (m for m in net.modules() if type(m) is BatchNorm):
            norm.updates = False
        net(image(seed=1), None)
        assert all(torch.equal(a, b) for a, b in zip(moved[-1], net.buffers()))
    for a, b in zip(*moved, strict=True):
        assert (a - b).abs().max() <= 1e-12 * max(b.abs().max().item(), 1.0)


@pytest.mark.parametrize("hypergradient", [unrolled, neumann])
def test_exact_second_order_is_computed_packed_too(backend, hypergradient):
    found = []
    for which in (backend, "plain"):
        kernels.use(which)
        search, batch, _ = small_search(Softmax)
        search.w_step(batch)
        other = (batch[0].flip(0), batch[1])
        found.append(hypergradient(search.problem(batch, other)))
    for a, b in zip(*found, strict=True):
        assert b.abs().max() > 0
        reference.close(a, b, 1e-9)
    kernels.use(backend)
    with kernels.differentiable_twice():
        assert kernels.kernels_for(batch[0]) is not kernels.plain
    with kernels.on_plain_path():
        assert kernels.kernels_for(batch[0]) is kernels.plain
        with kernels.differentiable_twice():
            assert kernels.kernels_for(batch[0]) is kernels.plain


def test_checkpointed_cells_give_the_same_bits(backend):
    found = []
    for again in (False, True):
        space = darts.make(nodes=2)
        net = build(space, checkpoint_cells=again).to(memory_format=torch.channels_last).train()
        net.drop_path_prob, weights = 0.3, random_weights(space)
        loss = F.cross_entropy(net(image(), weights, generator=torch.Generator().manual_seed(3)), LABELS)
        loss.backward()
        found.append([loss.detach(), *(w.ops.grad for w in weights.values()), *(p.grad for p in net.parameters()), *net.buffers()])
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_parallel_edges_with_drop_path_and_a_node_that_nothing_reaches(backend):
    ops, every = ("skip_connect", "max_pool_3x3", "sep_conv_3x3"), ((True,) * 3,) * 3
    spec = CellSpec(2, 2, ((0, 2), (0, 2), (1, 3)), ops, every, every, keep=((1, 2), (0, 1)), outputs=(2, 3))
    table = Weights(torch.rand(3, 3, dtype=torch.float64), active=((True, True, True), (True, True, True), (False, False, False)))
    torch.manual_seed(0)
    cell = Cell(spec, every, 4, SEARCH).double()
    x, found = [torch.randn(6, 4, 5, 5, dtype=torch.float64) for _ in range(2)], []
    for which in (backend, "plain"):
        kernels.use(which)
        found.append(cell(x, table.scales(), table.active, 0.5, torch.Generator().manual_seed(0)))
    reference.close(*found, 1e-10)
    assert (found[0][:, 4:] == 0).all()


def test_scales_are_not_rounded_under_autocast(backend):
    """Two alphas closer than bfloat16 can tell give two outputs."""
    spec = darts.make(nodes=2).cells["normal"]
    torch.manual_seed(0)
    cell = Cell(spec, ((True,) * len(spec.ops),) * len(spec.edges), 4, SEARCH)
    x = [torch.randn(4, 4, 6, 6) for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        a, b = (cell(x, Weights(torch.full((5, 8), 0.125 * scale)).scales()) for scale in (1.0, 1.001))
        kernels.use("plain")
        plain = cell(x, Weights(torch.full((5, 8), 0.125)).scales())
    assert not torch.equal(a, b)
    assert (a - plain).abs().max() < 0.05 * plain.abs().max()


def test_launches_of_a_step_grow_with_the_nodes_and_not_with_the_ops_and_edges():
    sizes = {"cells": 3, "channels": 4, "batch": 4, "image_size": 8}
    few, many = (darts.make(nodes=2, ops=ops) for ops in (darts.OPS[:5] + darts.OPS[6:7], darts.OPS))
    ours = launches(many, "packed", "w", **sizes)
    assert ours <= launches(few, "packed", "w", **sizes) + 3 * 8, "kernels are padded in eight calls a cell"
    assert launches(many, "merged", "w", **sizes) < ours < 0.4 * launches(many, "plain", "w", **sizes)
    assert kernels.kernels_for(image()) is kernels.plain, "counting leaves the backend as it was"


def test_they_compute_on_any_device_and_are_off_unless_asked_for():
    assert kernels.use("auto").name not in BOTH
    for name in BOTH:
        assert kernels.use(name, device="cuda").name == name
    assert not packed.computes(torch.zeros(2, 3)) and not packed.computes(torch.zeros(1, 2, 3, 3, dtype=torch.int64))
