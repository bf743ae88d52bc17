"""What is known of an op by its name, and who asks."""

import pytest
import torch

import ops
from ops import ACTIVATIONS, LAYERS, OPS, describe, make_op
from ops.op import Normalisation, Op
from ops.traits import OpTraits
from supernet.genotype import Edge, Genotype
from supernet.monitors.base import Look, shares
from supernet.monitors.skips import SkipCount
from supernet.relaxations.greedy import Greedy
from supernet.relaxations.softmax import Softmax
from supernet.report.names import FAMILY_COLOURS, op_family
from supernet.report.summary import skip_rows
from supernet.select.limited_skips import limited_skips
from supernet.space import CellSpec, Space
from supernet.spaces import darts, darts_rnn, layerwise, nasbench_macro
from supernet.weights import EdgeWeights, Weights, one_hot

NORM = Normalisation(affine=False, after_pools=False)


class Passing(Op):
    """A user's op: the input itself, under a name that does not say so."""

    passes_input = True
    family = "skip"


class Vanishing(Op):
    contributes = False
    family = "none"

    def compute(self, shared, generator):
        return torch.zeros_like(shared)


@pytest.fixture
def own_ops(monkeypatch):
    monkeypatch.setitem(OPS, "wire", lambda channels, stride, norm: Passing())
    monkeypatch.setitem(OPS, "shift", lambda channels, stride, norm: Op(torch.nn.MaxPool2d(3, stride, 1), family="pool"))
    monkeypatch.setitem(OPS, "nothing", lambda channels, stride, norm: Vanishing())


def cells(names):
    """A space of one edge a node into one output, and the genotype whose ops are `names`."""
    spec = CellSpec.listed(num_inputs=1, edges=[(0, n + 1, dict.fromkeys([name, "nor_conv_1x1"])) for n, name in enumerate(names)],
                           keep=None, outputs=(len(names),))
    space = Space("edges", {}, {"cell": spec}, lambda *a, **k: None)
    return space, space.genotype({"cell": [Edge(n + 1, 0, name) for n, name in enumerate(names)]})


@pytest.mark.parametrize("name", [*OPS, *LAYERS])
def test_what_is_said_of_an_op_is_what_it_does(name):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 5, generator=generator)
    op = make_op(name, 4, 1, NORM) if name in OPS else LAYERS[name](4, 4, 1, NORM)
    y, traits = op(x, generator), describe(name)
    assert traits.is_skip == torch.equal(x, y)
    assert traits.contributes == bool(y.abs().sum() > 0)
    assert traits.parameter_free == (sum(p.numel() for p in op.parameters()) == 0)
    assert traits.family in FAMILY_COLOURS


def test_nothing_is_known_of_a_choice_that_is_no_op_and_activations_are_learned_with():
    assert describe("kernel_5") is None and describe("conv_9x9") is None
    assert darts.make().op("conv_9x9") == OpTraits("other", parameter_free=False, is_skip=False, contributes=True)
    assert {describe(name).family for name in ACTIVATIONS if name not in LAYERS} == {"activation"}
    assert not any(describe(name).parameter_free for name in ACTIVATIONS if name not in LAYERS)


def test_to_describe_an_op_draws_no_numbers_and_one_that_was_replaced_is_looked_at_anew(monkeypatch):
    state = torch.random.get_rng_state()
    monkeypatch.setattr(ops, "_TRIED", {})
    assert not describe("sep_conv_7x7").parameter_free
    assert torch.equal(state, torch.random.get_rng_state())
    monkeypatch.setitem(OPS, "sep_conv_7x7", lambda channels, stride, norm: Passing())
    assert describe("sep_conv_7x7").is_skip


def test_an_op_that_cannot_be_described_is_named(monkeypatch):
    monkeypatch.setitem(OPS, "bare", lambda channels, stride, norm: torch.nn.Identity())
    with pytest.raises(ValueError, match="op 'bare' must be made as an Op on any number of channels.* AttributeError: .*traits"):
        describe("bare")


def test_ops_of_ones_own_count_by_what_they_are(own_ops):
    space, genotype = cells(["wire", "shift", "nothing", "sep_conv_3x3"])
    found = shares(space, genotype, one_hot(space, genotype))
    assert found["skip_share"] == 0.25 and found["parameter_free_share"] == 0.75
    assert skip_rows(genotype, space) == [("skip connections", "25 % of the kept edges")]
    look = Look(0, 1, genotype, one_hot(space, genotype), None, (), {}, lambda batch_size: ())
    assert SkipCount(space, most=1).after_epoch(look).warning == "the cell cell holds 1 skip connections"
    assert [op_family(op) for op in ("wire", "shift", "nothing")] == ["skip", "pool", "none"]


def test_noise_is_parameter_free():
    space, genotype = cells(["noise", "sep_conv_3x3"])
    assert shares(space, genotype, one_hot(space, genotype))["parameter_free_share"] == 0.5


def test_the_identity_of_a_chain_is_a_skip_and_that_of_a_recurrent_cell_is_not():
    chain = nasbench_macro.make()
    genotype = chain.genotype({"layers": [Edge(n + 1, n, "identity" if n < 2 else "ir_5x5_e6") for n in range(8)]})
    found = shares(chain, genotype, one_hot(chain, genotype))
    assert found["skip_share"] == found["parameter_free_share"] == 0.25
    assert skip_rows(genotype, chain) == [("skip connections", "25 % of the kept edges")]
    recurrent = darts_rnn.make(nodes=2)
    genotype = recurrent.genotype({"recurrent": [Edge(1, 0, "identity"), Edge(2, 1, "tanh")]})
    found = shares(recurrent, genotype, one_hot(recurrent, genotype))
    assert found["skip_share"] == found["parameter_free_share"] == 0 and skip_rows(genotype, recurrent) == []
    assert not recurrent.op("none").contributes


def test_decisions_of_a_chain_have_no_skips_among_them():
    space = layerwise.make()
    genotype = next(space.enumerate())
    assert shares(space, genotype, one_hot(space, genotype))["skip_share"] == 0 and skip_rows(genotype, space) == []


def test_drawings_guess_the_family_of_an_op_that_nobody_knows():
    assert [op_family(op) for op in ("Zero", "skip", "lp_pool_9x9", "dilated_7x7", "mbconv_3x3_t6")] == ["none", "skip", "pool", "dilated",
                                                                                                       "conv"]
    old = Genotype("elsewhere", "0", (("cell", (Edge(1, 0, "global_pool"),)),))
    assert op_family(old["cell"][0].op) == "pool"


def test_skips_of_ones_own_are_limited_too(own_ops):
    space = darts.make(nodes=1, ops=("wire", "sep_conv_3x3"))
    table = torch.tensor([[0.9, 0.1], [0.8, 0.2]], dtype=torch.float64)
    weights = EdgeWeights({kind: Weights(table) for kind in space.cells})
    assert [e.op for e in limited_skips(space, weights, most=1)["normal"]] == ["wire", "sep_conv_3x3"]


def test_skips_on_parallel_edges_are_limited_each_for_itself():
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3"), parallel=2)
    table = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.5], [0.4, 0.5]], dtype=torch.float64)
    weights = EdgeWeights({kind: Weights(table) for kind in space.cells})
    assert {(e.source, e.op) for e in limited_skips(space, weights, most=0)["normal"]} == {(1, "sep_conv_3x3")}
    assert {(e.source, e.op) for e in limited_skips(space, weights, most=1)["normal"]} == {(0, "skip_connect"), (1, "sep_conv_3x3")}


def test_greedy_counts_no_op_that_gives_nothing(own_ops):
    space = darts.make(nodes=1, ops=("nothing", "sep_conv_3x3", "skip_connect"))
    relaxation = Greedy(Softmax(space, torch.Generator().manual_seed(0)), space, torch.Generator(), warm_up=0, every=1)
    with torch.no_grad():
        for alpha in relaxation.inner.alpha.values():
            alpha[:] = torch.tensor([[9.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    relaxation.anneal(0.0, 0)
    relaxation.anneal(0.5, 1)
    assert all(rows[1] == 1 and rows[0] == -1 for rows in relaxation.rows.values()), "the edge whose weight is for nothing is unimportant"
