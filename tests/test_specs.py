"""What a cell spec refuses, lists in any order, and allows; and how genes are cut."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ops.op import Normalisation
from supernet.costs.additive import Additive
from supernet.genotype import Edge, GenotypeError
from supernet.networks.cell import Cell, MixedEdges
from supernet.penalties.base import WeightProblem
from supernet.penalties.layer_alignment import LayerAlignment
from supernet.penalties.weights import Entropy
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.greedy import Greedy
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.select.learned import learned
from supernet.select.perturbation import Perturbation
from supernet.select.sampled import Sampled
from supernet.select.strongest_pairs import strongest_pairs
from supernet.select.threshold import threshold
from supernet.select.within_cost import WithinCost
from supernet.space import CellSpec, Space
from supernet.spaces import darts, nasbench201, toy
from supernet.training.records import Silent
from supernet.weights import EdgeWeights, Weights, check_shapes
from tests.searches import searched

GOOD = {"num_inputs": 1, "num_nodes": 2, "edges": ((0, 1), (0, 2), (1, 2)), "ops": ("a", "b"), "present": ((True, True),) * 3,
        "selectable": ((True, True),) * 3, "keep": ((1, 1), (1, 2)), "outputs": (2,)}


@pytest.mark.parametrize("change, message", [
    ({"edges": ((0, 2), (0, 1), (1, 2))}, r"^edges must be ordered by destination, then source, got \[\(0, 2\), \(0, 1\), \(1, 2\)\]$"),
    ({"edges": ((0, 1), (1, 2), (0, 2))}, "edges must be ordered by destination, then source"),
    ({"ops": ("a", "a")}, "op names must be unique"),
    ({"present": ((True, True),) * 2}, "present must have 3 rows, one an edge, of 2 truth values"),
    ({"selectable": ((True,), (True, True), (True, True))}, "selectable must have 3 rows"),
    ({"keep": ((1, 1),)}, "keep must be .* for each of the 2 computed nodes"),
    ({"edges": ((0, 1), (0, 2), (0, 2)), "selectable": ((True, True), (True, True), (True, False))}, "not so 0 -> 2$"),
    ({"edges": ((0, 1), (0, 2), (0, 2)), "ops_per_edge": 2}, "parallel edges hold one op each, got ops_per_edge=2"),
])
def test_a_spec_that_does_not_fit_together_is_refused(change, message):
    assert CellSpec(**GOOD).nodes == range(1, 3)
    assert CellSpec(**GOOD | {"ops_per_edge": 2}).ops_per_edge == 2
    assert CellSpec(**GOOD | {"edges": ((0, 1), (0, 2), (0, 2))}).incoming(2) == [1, 2]
    different = {"edges": ((0, 1), (0, 2), (1, 2)), "selectable": ((True, True), (True, False), (False, True))}
    assert CellSpec(**GOOD | different).choices(2) == {0: (1, ("a",)), 1: (1, ("b",))}
    with pytest.raises(ValueError, match=message):
        CellSpec(**GOOD | change)


def listed(edges, **more):
    return CellSpec.listed(**{"num_inputs": 2, "edges": edges, "outputs": (3,), "keep": None, "unselectable": ("none",)} | more)


def test_edges_are_listed_in_any_order_and_columns_are_ops_in_the_order_of_the_list():
    edges = [(2, 3, ["b", "a"]), (0, 2, ["none", "b"]), (0, 3, ["c"]), (1, 2, ["a"])]
    spec = listed(edges)
    assert spec.edges == ((0, 2), (1, 2), (0, 3), (2, 3)) and spec.ops == ("b", "a", "none", "c") and spec.nodes == range(2, 4)
    assert [[op for op, here in zip(spec.ops, row) if here] for row in spec.present] == [["b", "none"], ["a"], ["c"], ["b", "a"]]
    assert spec.selectable[0] == (True, False, False, False) and spec.selectable[1:] == spec.present[1:]
    assert spec.keep == ((2, 2), (2, 2)) and listed(edges, keep=(0, 1)).keep == ((0, 1), (0, 1))
    assert listed([*edges, (1, 3, ["a"])], keep=(1, 3)).keep == ((1, 2), (1, 3)), "no node keeps more than it has"
    assert listed(edges, outputs=(2, 3)).outputs == (2, 3) and not spec.is_chain


@pytest.mark.parametrize("edges, more, message", [
    ([(0, 2, ["a"]), (3, 3, ["a"])], {}, r"nodes 2 and up\), got 3 -> 3$"), ([(3, 2, ["a"])], {}, "got 3 -> 2"),
    ([(-1, 2, ["a"])], {}, "got -1 -> 2"), ([(0, 1, ["a"])], {}, "got 0 -> 1"),
    ([(0, 2, ["a", "a"])], {}, r"edge 0 -> 2 needs distinct ops, at least one of them selectable, got \['a', 'a'\]"),
    ([(0, 2, ["none"])], {}, "at least one of them selectable"),
    ([(0, 3, ["a"])], {}, "every computed node needs an edge, got none into node 2$"), ([], {}, "got none into node 2$"),
    ([(0, 2, ["a"]), (0, 5, ["a"])], {}, "got none into node 3$"),
    ([(0, 2, ["a"]), (0, 3, ["a"])], {"outputs": ()}, r"outputs must name computed nodes, 2 to 3, got \[\]"),
    ([(0, 2, ["a"]), (0, 3, ["a"])], {"outputs": (1, 3)}, r"computed nodes, 2 to 3, got \[1, 3\]"),
    ([(0, 2, ["a"]), (0, 3, ["a"])], {"outputs": (4,)}, "outputs must name computed nodes"),
])
def test_a_list_of_edges_that_is_no_cell_is_refused(edges, more, message):
    with pytest.raises(ValueError, match=message) as caught:
        listed(edges, **more)
    assert "\n" not in str(caught.value)


def test_what_a_chain_is():
    assert listed([(0, 1, ["a"]), (1, 2, ["a"])], num_inputs=1, outputs=(2,)).is_chain
    assert not listed([(0, 1, ["a"]), (0, 2, ["a"])], num_inputs=1, outputs=(2,)).is_chain


def test_full_cells_have_every_op_on_every_edge_once():
    spec = CellSpec.full(num_inputs=2, num_nodes=2, ops=("none", "a"), outputs=(3,), keep=(1, 3), unselectable=("none",))
    assert spec.edges == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)) and spec.present == ((True, True),) * 5
    assert spec.selectable == ((False, True),) * 5 and spec.keep == ((1, 2), (1, 3)) and (spec.stride, spec.ops_per_edge) == (1, 1)
    assert spec.choices(3) == {source: (1, ("a",)) for source in range(3)}


def test_a_one_point_crossover_cuts_between_any_two_genes_and_never_outside():
    space, rng = nasbench201.make(), random.Random(0)
    a, b = (space.parse(f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|") for op in ("none", "skip_connect"))
    points = {sum(e.op == "none" for e in space.crossover_one_point(a, b, rng)["cell"]) for _ in range(300)}
    assert points == {1, 2, 3, 4, 5}


def test_an_edge_that_the_space_does_not_have_is_refused_with_the_sources_that_there_are():
    space = Space("s", {}, {"cell": CellSpec(**GOOD | {"edges": ((0, 1), (0, 2), (0, 2))})}, build=None)
    with pytest.raises(GenotypeError, match=r"edge 1 -> 2: node 2 has sources \[0\]$"):
        space.genotype({"cell": [Edge(1, 0, "a"), Edge(2, 1, "a")]})
    with pytest.raises(GenotypeError, match="node 2 must keep 1 to 2 edges, the genotype gives it 0"):
        space.genotype({"cell": [Edge(1, 0, "a")]})
    both = space.genotype({"cell": [Edge(2, 0, "b"), Edge(1, 0, "a"), Edge(2, 0, "a")]})
    assert space.candidates(both)["cell"] == ((True, False), (True, False), (False, True)), "parallel edges take their rows in order"


@pytest.mark.parametrize("text", ["normal:|a~0|;normal:|a~0|", "normal:|a~0|", "normal:|a~0|;other:|a~0|"])
def test_the_text_of_two_kinds_holds_each_once(text):
    spec = CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a"])], outputs=(1,), keep=None)
    space = Space("s", {}, {"normal": spec, "reduce": spec}, build=None)
    assert space.text(space.parse("reduce:|a~0|;normal:|a~0|")) == "normal:|a~0|;reduce:|a~0|"
    with pytest.raises(GenotypeError, match="cells"):
        space.parse(text)


def test_a_space_of_one_genotype_has_no_mutation():
    spec = CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a"])], outputs=(1,), keep=None)
    space = Space("s", {}, {"cell": spec}, build=None)
    (one,) = space.enumerate()
    assert space.count() == 1 and not list(space.neighbours(one)) and space.mutate_each(one, random.Random(0), 1.0) == one
    with pytest.raises(GenotypeError, match="space 's' holds no other genotype to mutate to"):
        space.mutate(one, random.Random(0))


def test_edge_weights_cover_all_kinds_of_cells():
    space = darts.make(nodes=1)
    weights = alike(space)
    check_shapes(space, weights)
    with pytest.raises(ValueError, match=r"must cover cells \['normal', 'reduce'\], got \['normal'\]"):
        check_shapes(space, EdgeWeights({"normal": weights["normal"]}))


# ---- selections at their edges


def alike(space, value=1.0, edges=None):
    return EdgeWeights({kind: Weights(torch.full((len(spec.edges), len(spec.ops)), value), edges) for kind, spec in space.cells.items()})


def loop_of(space, weights, cost):
    relaxation = SimpleNamespace(mean=lambda: weights)
    return SimpleNamespace(space=space, cost=cost, recorder=Silent(), search=SimpleNamespace(relaxation=relaxation))


def test_a_selection_within_a_cost_ends_where_all_architectures_are_as_strong():
    space = toy.make()
    cost = Additive(space, "c", "x", 1.0, {"cell": np.tile([0.0, 1.0, 2.0], (3, 1))})
    weights = alike(space)
    assert WithinCost(limit=10.0)(loop_of(space, weights, cost)) == argmax(space, weights)
    assert cost(WithinCost(limit=1.5)(loop_of(space, weights, cost))) <= 1.5


def test_a_selection_within_a_cost_takes_exactly_the_limit_and_counts_edge_weights():
    """Two edges into a node that keeps one: by its op the first is stronger, by its own weight the second."""
    spec = CellSpec.listed(num_inputs=2, edges=[(0, 2, ["a", "b"]), (1, 2, ["a", "b"])], outputs=(2,), keep=(1, 1))
    space = Space("s", {}, {"cell": spec}, build=None)
    cost = Additive(space, "c", "x", 1.0, {"cell": np.array([[3.0, 0.0], [3.0, 1.0]])})
    weights = EdgeWeights({"cell": Weights(torch.tensor([[0.5, 0.3], [0.4, 0.2]]), torch.tensor([0.1, 0.9]))})
    chosen = lambda limit: WithinCost(limit=limit)(loop_of(space, weights, cost))["cell"]
    assert chosen(9.0) == (Edge(2, 1, "a"),) and chosen(2.0) == (Edge(2, 1, "b"),) and chosen(1.5) == (Edge(2, 0, "b"),)


def test_a_selection_within_a_cost_makes_the_change_that_loses_least_for_what_it_saves():
    """The other one saves more and loses much more, and no single change leads back from it."""
    spec = CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a", "b"]), (1, 2, ["a", "b"])], outputs=(2,), keep=None)
    space = Space("s", {}, {"cell": spec}, build=None)
    cost = Additive(space, "c", "x", 1.0, {"cell": np.array([[2.0, 0.0], [3.0, 0.0]])})
    weights = EdgeWeights({"cell": Weights(torch.tensor([[0.5, 0.45], [0.5, 0.025]]))})
    assert WithinCost(limit=4.5)(loop_of(space, weights, cost))["cell"] == (Edge(1, 0, "b"), Edge(2, 1, "a"))


def test_a_selection_within_a_cost_gains_back_what_the_limit_leaves_room_for():
    """Of what the dear op costs the cheapest saves most for what it loses; then there is room for the better one."""
    spec = CellSpec.listed(num_inputs=1, edges=[(0, 1, ["a", "b", "c"])], outputs=(1,), keep=None)
    space = Space("s", {}, {"cell": spec}, build=None)
    cost = Additive(space, "c", "x", 1.0, {"cell": np.array([[3.0, 1.2, 0.0]])})
    weights = EdgeWeights({"cell": Weights(torch.tensor([[0.5, 0.2, 0.19]]))})
    chosen = lambda limit: WithinCost(limit=limit)(loop_of(space, weights, cost))["cell"][0].op
    assert chosen(4.0) == "a" and chosen(2.5) == "b" and chosen(2.2) == "b" and chosen(2.1) == "c"


def test_a_sampled_selection_counts_the_images_and_trials_that_it_has_looked_at():
    stages, _, _ = searched("space=toy", "relaxation=uniform", "split.max_train=32", "split.max_val=32", "batch_size=16", "threads=1",
                            "eval_batch_size=8", "layers=3", "channels=2", "epochs=0", "table=none")
    loop = stages.loop
    images, trials = loop.position.images, loop.position.trials
    Sampled(n=4, screen_batches=2, finalists=3)(loop)
    looked = loop.position.trials - trials
    assert 3 <= looked <= 4 and loop.position.images - images == looked * 16 + 3 * 32


def test_fine_tuning_between_decisions_trains_a_network_that_came_in_evaluation_mode():
    stages, _, _ = searched("space=toy", "split.max_train=32", "split.max_val=32", "batch_size=16", "layers=3", "channels=2", "epochs=0",
                            "table=none", "threads=1")
    loop, modes = stages.loop, []
    step = loop.search.step
    loop.search.step = lambda *batches: (modes.append(loop.search.net.training), step(*batches))[1]
    loop.search.net.eval()
    Perturbation(finetune_epochs=1, val_batches=1)(loop)
    assert modes and all(modes)


def test_strongest_pairs_multiply_edge_weights_and_average_layers():
    space = darts.make(nodes=1, ops=("none", "skip_connect", "sep_conv_3x3"), ops_per_edge=2)
    table = torch.tensor([[9.0, 0.5, 0.4], [9.0, 0.3, 0.2]])

    def pairs(**w):
        genotype = strongest_pairs(space, EdgeWeights({kind: Weights(**w) for kind in space.cells}))
        return {(e.source, e.op) for e in genotype["normal"]}

    assert pairs(ops=table) == {(0, "skip_connect"), (0, "sep_conv_3x3")}
    assert pairs(ops=table, edges=torch.tensor([0.5, 1.0])) == {(1, "skip_connect"), (0, "skip_connect")}
    other = table - torch.tensor([[0.0, 0.4, 0.4], [0.0, 0.0, 0.0]])
    assert pairs(ops=torch.stack([table, other])) == {(0, "skip_connect"), (1, "skip_connect")}
    with pytest.raises(ValueError, match="genotypes may hold several ops of one edge"):
        strongest_pairs(darts.make(nodes=1), alike(darts.make(nodes=1)))


def test_a_threshold_keeps_what_weighs_exactly_as_much_and_as_many_as_the_space_asks_for():
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3"), edges_per_node=[1, 2])
    kept = lambda table, **more: [e.source for e in threshold(space, EdgeWeights({k: Weights(torch.tensor(table)) for k in space.cells}),
                                                               **more)["normal"]]
    assert kept([[0.5, 0.1], [0.2, 0.75]], value=0.5) == [0, 1] and kept([[0.5, 0.1], [0.2, 0.75]], value=0.75) == [1]
    assert kept([[0.5, 0.1], [0.2, 0.75]], value=0.8) == [1], "one at least"


def test_what_was_learned_counts_edge_weights_and_is_drawn_by_the_op_weights():
    """A relaxation that draws nothing is drawn from by its weights; the edge that is nearly shut is nearly never kept."""
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3"), edges_per_node=1)
    relaxation = EdgeNormalised(Softmax(space, torch.Generator()), space, torch.Generator())
    with torch.no_grad():
        for kind in space.cells:
            relaxation.inner.alpha[kind].copy_(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
            relaxation.beta[kind][0].copy_(torch.tensor([-6.0, 6.0]))
    found = learned(space, relaxation, 2001, torch.Generator().manual_seed(0))
    edges = [edge for genotype in found[1:] for edge in genotype["normal"]]
    assert sum(e.source == 1 for e in edges) > 1990
    share = 1 / (1 + math.exp(-1))
    assert abs(sum(e.op == "sep_conv_3x3" for e in edges) / 2000 - share) < 4 * math.sqrt(share * (1 - share) / 2000)


def test_an_alignment_penalty_is_nothing_before_the_first_epoch_is_announced():
    space = darts.make(nodes=1)
    penalty = LayerAlignment(space)
    assert penalty(SimpleNamespace(layers=dict.fromkeys(space.cells, 2))) is None
    assert penalty.kinds == ["normal", "reduce"] and (penalty.weight, penalty.radius) == (0.25, 1e-3)


def test_an_alignment_penalty_looks_as_far_to_both_sides_as_its_radius_says():
    """eps u_l at both sides, eps = radius / |u|, over all kinds together [official code, get_perturbations]."""
    g = torch.Generator().manual_seed(0)
    shapes, seen = {"a": (2, 3), "b": (1, 2)}, []
    draw = EdgeWeights({kind: Weights(torch.randn(shape, generator=g, dtype=torch.float64)) for kind, shape in shapes.items()})
    w = (torch.randn(4, generator=g, dtype=torch.float64).requires_grad_(),)
    mix = {kind: torch.randn(2, 4, *shape, generator=g, dtype=torch.float64) for kind, shape in shapes.items()}

    def loss(weights):
        seen.append({kind: weights[kind].ops.detach() for kind in shapes})
        return sum(((w[0][:, None, None] * mix[kind][n]).sum(0) * weights[kind].ops[n]).sum().sin() for kind in shapes for n in range(2))

    penalty = LayerAlignment(Space("s", {}, dict.fromkeys(shapes), build=None), radius=0.02)
    penalty.anneal(1.0)
    penalty(WeightProblem(w, draw, dict.fromkeys(shapes, 2), loss))
    at, ahead, behind = ({kind: table.expand(2, *shapes[kind]) for kind, table in tables.items()} for tables in seen)
    moved = torch.cat([(ahead[kind] - at[kind]).flatten() for kind in shapes])
    assert moved.norm().item() == pytest.approx(0.02) and len(seen) == 3
    torch.testing.assert_close(torch.cat([(at[kind] - behind[kind]).flatten() for kind in shapes]), moved)


def test_the_entropy_penalty_makes_weights_more_alike_or_less():
    space = toy.make()
    relaxation = Softmax(space, torch.Generator().manual_seed(0), init_scale=1.0).double()
    mean = relaxation.mean()["cell"].ops
    (slope,) = torch.autograd.grad(Entropy(space, weight=0.3)(torch.ones(()), relaxation.mean(), relaxation), relaxation.parameters())
    entropy = -(mean * mean.log()).sum(1, keepdim=True)
    torch.testing.assert_close(slope, -0.3 / 3 * mean * (mean.log() + entropy))  # of a softmax, by hand; three edges


def test_a_node_that_reaches_the_output_through_others_alone_is_written_and_one_that_reaches_none_is_not():
    skips = [(0, 1), (1, 2), (2, 3), (1, 4)]
    spec = CellSpec.listed(num_inputs=1, edges=[(s, d, ["skip_connect"]) for s, d in skips], outputs=(3,), keep=None)
    block = Cell(spec, spec.present, 4, Normalisation(True, False)).plain("normal")
    assert [line.partition(" = ")[0] for line in block.lines] == ["s1", "s2", "s3", "return s3"] and len(block.parts) == 3


def test_the_ops_that_run_are_told_in_the_order_in_which_they_are_added():
    """Those of the inputs together, then node by node: what is computed in rounds meets what is added one by one."""
    for auxiliary in (False, True):
        space = darts.make(nodes=3, ops=("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"))
        spec = space.cells["normal"]
        active = tuple(tuple((e + o) % 3 > 0 for o in range(4)) for e in range(len(spec.edges)))
        mixed = MixedEdges(spec, spec.present, 2, Normalisation(False, True), auxiliary_skip=auxiliary)
        weights = Weights(torch.ones(len(spec.edges), 4), skip=torch.ones(()) if auxiliary else None)
        for mask in (None, active):
            rounds = mixed.running(mask, auxiliary)
            added, x = [], torch.ones(1, 2, 4, 4)
            for source in range(spec.num_inputs + spec.num_nodes):
                own = []
                sums = {node: SimpleNamespace(add=lambda op, *rest, own=own: own.append(op)) for node in spec.nodes}
                mixed.leave(source, x, sums, weights.scales(), mask, None, None)
                added.append(own)
            inputs = [op for own in added[: spec.num_inputs] for op in own]
            assert [list(map(id, r)) for r in rounds] == [list(map(id, r)) for r in (inputs, *added[spec.num_inputs: -1])]


# ---- where relaxations begin and end


def test_alphas_of_a_concrete_relaxation_start_around_their_mean_and_its_temperature_ends_exactly():
    space = toy.make()
    drawn = Softmax(space, torch.Generator().manual_seed(0), init_scale=1.0).alpha["cell"]
    torch.testing.assert_close(Concrete(space, torch.Generator().manual_seed(0)).alpha["cell"], 1e-2 * drawn)
    moved = Concrete(space, torch.Generator().manual_seed(0), init_scale=0.5, init_mean=2.0)
    torch.testing.assert_close(moved.alpha["cell"], 0.5 * drawn + 2.0)
    for decay in ("linear", "exponential"):
        for first, last in ((1.0, 0.03), (5.0, 0.091), (3.0, 0.7)):
            relaxation = Concrete(space, torch.Generator(), temperature=first, temperature_end=last, decay=decay)
            relaxation.anneal(1.0, 7)
            assert relaxation.temperature == last
            relaxation.anneal(0.0, 0)
            assert relaxation.temperature == first


def test_forms_of_edge_weights_are_two():
    space = toy.make()
    with pytest.raises(ValueError, match="form must be softmax or simplex, got 'sum'"):
        EdgeNormalised(Softmax(space, torch.Generator()), space, torch.Generator(), form="sum")


@pytest.mark.parametrize("criterion, chosen", [(1, 4), (2, 1)])
def test_greedy_compares_the_others_where_none_has_all_the_weight_of_an_edge(criterion, chosen):
    """Importance alone would take edge 3, which is undecided; by stability edge 1 is before edge 4, which has changed its mind."""
    space = darts.make(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3"), edges_per_node=1)
    inner = Softmax(space, torch.Generator().manual_seed(0))
    greedy = Greedy(inner, space, torch.Generator(), criterion=criterion, warm_up=1, every=1)
    rows = [[500.0, 0.0, 0.0], [0.0, 0.0, 2.8], [500.0, 0.0, 0.0], [-5.0, 0.0, 0.0]]  # none alone weighs, twice
    for epoch, last in enumerate(([0.0, 3.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0])):
        with torch.no_grad():
            inner.alpha["normal"].copy_(torch.tensor([*rows, last]))
        greedy.anneal(epoch / 9, epoch)
    assert [e for e, row in enumerate(greedy.rows["normal"]) if row >= 0] == [chosen]
