import random

import numpy as np
import pytest
import torch

from ops.op import Normalisation
from supernet.costs.additive import Additive, additive, counted
from supernet.costs.base import CostError
from supernet.costs.latency_table import latency_table, load_latency_table, save_latency_table
from supernet.costs.measured import Latency, PeakMemory, measured_latency, measured_memory
from supernet.costs.table import TableCost
from supernet.genotype import find
from supernet.networks.measure import multiply_adds, multiply_adds_of, parameters
from supernet.spaces import darts, darts_rnn, layerwise, nasbench201, nasbench_macro, robust, toy
from supernet.tables.files import read_table
from supernet.tables.table import Columns, Table
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.shared import NB201, needs

FINAL = Normalisation(affine=True, after_pools=False)
SIZES = {"layers": 5, "channels": 4, "num_classes": 3, "image_size": (8, 8)}
SPACES = {"darts": darts.make(), "nasbench201": nasbench201.make(), "s1": robust.s1(), "s3": robust.s3(), "s4": robust.s4(),
          "nodes2": darts.make(nodes=2, edges_per_node=[1, 2])}


def random_weights(space, seed=0):
    g = torch.Generator().manual_seed(seed)
    tables = {}
    for kind, spec in space.cells.items():
        logits = torch.randn(len(spec.edges), len(spec.ops), dtype=torch.float64, generator=g)
        tables[kind] = logits.masked_fill(~torch.tensor(spec.present), -torch.inf).softmax(-1).requires_grad_()
    return EdgeWeights({k: Weights(t) for k, t in tables.items()})


@pytest.mark.parametrize("quantity", ["parameters", "multiply_adds"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_additive_costs_are_those_of_the_final_network(space, quantity):
    cost = additive(space, quantity, **SIZES)
    rng = random.Random(1)
    for _ in range(4):
        genotype = space.sample(rng)
        net = space.network(space.candidates(genotype), norm=FINAL, **SIZES)
        assert cost(genotype) == (parameters(net) if quantity == "parameters" else multiply_adds(net, (3, 8, 8)))
        hot = one_hot(space, genotype, dtype=torch.float64)
        assert cost.expected(hot).item() == pytest.approx(cost(genotype), rel=1e-12)


def test_golden_costs_of_darts():
    sizes = {"layers": 20, "channels": 36, "num_classes": 10}
    count, macs = (additive(SPACES["darts"], quantity, check=0, **sizes) for quantity in ("parameters", "multiply_adds"))
    cells = {name: SPACES["darts"].genotype(dict(find(name).cells)) for name in ("darts_v1", "darts_v2")}
    assert [count(cells["darts_v1"]), count(cells["darts_v2"])] == [3_169_414, 3_349_342]
    assert round(macs(cells["darts_v2"]) / 1e6, 3) == 528.359


def test_expectation_counts_as_many_edges_as_are_kept():
    """Equal weights: a node of n edges keeps 2, so each of its edges counts 2 / n."""
    space = SPACES["darts"]
    cost = Additive(space, "x", "x", 5.0, {kind: np.ones((14, 8)) for kind in space.cells})
    assert cost.expected(random_weights(space)).item() == pytest.approx(5 + 2 * 8)  # not 2 * 14


def test_expectation_is_the_mean_over_architectures():
    space = nasbench201.make()
    cost, weights = additive(space, "parameters", **SIZES), random_weights(space)
    table = weights["cell"].ops.detach().numpy()
    mean = sum(np.prod([table[entry] for entry in space.cells["cell"].rows(g["cell"])]) * cost(g) for g in space.enumerate())
    assert cost.expected(weights).item() == pytest.approx(mean, rel=1e-10)


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_expectation_is_linear_and_differentiable(name):
    space = SPACES[name]
    cost, weights = additive(space, "multiply_adds", **SIZES), random_weights(space)
    tables = [w.ops for w in weights.values()]
    grads = torch.autograd.grad(cost.expected(weights), tables)
    for kind, grad in zip(weights, grads):
        kept = torch.tensor([spec_keep / n for spec_keep, n in _keep_share(space.cells[kind])], dtype=torch.float64)
        torch.testing.assert_close(grad, kept[:, None] * torch.from_numpy(cost.tables[kind]))
    layered = EdgeWeights({k: Weights(torch.stack([w.ops, w.ops])) for k, w in weights.items()})
    torch.testing.assert_close(cost.expected(layered), cost.expected(weights))


def _keep_share(spec):
    for _, destination in spec.edges:
        yield spec.keep[destination - spec.num_inputs][1], len(spec.incoming(destination))


def test_edge_weights_say_which_edges_are_kept():
    space = darts.make(nodes=1, edges_per_node=1)
    cost = Additive(space, "x", "x", 0.0, {kind: np.arange(16.0).reshape(2, 8) for kind in space.cells})
    ops = torch.full((2, 8), 1 / 8, dtype=torch.float64)
    first = {k: Weights(ops, edges=torch.tensor([1.0, 0.0], dtype=torch.float64)) for k in space.cells}
    assert cost.expected(EdgeWeights(first)).item() == pytest.approx(2 * 3.5)


def test_chains_are_refused():
    with pytest.raises(CostError, match="stacks no cells"):
        additive(nasbench_macro.make(), "parameters", layers=8, channels=4, num_classes=3)
    with pytest.raises(CostError, match="parameters or multiply_adds"):
        counted(SPACES["darts"], quantity="weight", **SIZES)


# what a final network of each space is built with, beside what the space decides
BUILT = {**dict.fromkeys(SPACES, SIZES), **dict.fromkeys(("nasbench_macro", "layerwise"), SIZES | {"layers": 99}),
         "darts_rnn": {"layers": 1, "channels": 4, "vocabulary": 7}}


@pytest.mark.parametrize("quantity", ["parameters", "multiply_adds"])
@pytest.mark.parametrize("name", BUILT)
def test_costs_of_every_space_are_those_of_its_final_networks(name, quantity):
    space = (SPACES | {"nasbench_macro": nasbench_macro.make(), "layerwise": layerwise.make(), "darts_rnn": darts_rnn.make(nodes=3)})[name]
    sizes, own = BUILT[name], {"batch_norm": False} if name == "darts_rnn" else {}
    cost = counted(space, quantity=quantity, **sizes)
    assert cost.name == quantity and quantity.split("_")[-1] in cost.unit.replace("multiply-", "")
    x = torch.zeros(1, 1, dtype=torch.long) if name == "darts_rnn" else torch.zeros(1, 3, 8, 8)
    for seed in range(3):
        genotype = space.sample(random.Random(seed))
        net = space.network(space.candidates(genotype), norm=FINAL, **(sizes | space.sizes), **own)
        count = parameters(net) if quantity == "parameters" else multiply_adds_of(net, x)
        assert cost(genotype) == count and cost.expected(one_hot(space, genotype, dtype=torch.float64)).item() == pytest.approx(count)


@pytest.mark.parametrize("space", [nasbench201.make(), nasbench_macro.make(), layerwise.make()], ids=lambda s: s.name)
def test_memory_and_latency_of_final_networks_are_measured(space):
    state = torch.random.get_rng_state()
    memory, latency = measured_memory(space, **SIZES), measured_latency(space, repeats=1, warmup=0, **SIZES)
    genotype = space.sample(random.Random(0))
    net = space.network(space.candidates(genotype), norm=FINAL, **(SIZES | space.sizes))
    assert memory(genotype) > 4 * parameters(net) and latency(genotype) > 0
    torch.random.set_rng_state(state)
    memory(genotype)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(CostError, match="networks that read images, got the sizes channels, layers, vocabulary"):
        measured_memory(darts_rnn.make(), **BUILT["darts_rnn"])


def toy_table(values):
    space = toy.make()
    return Table(space, [space.text(g) for g in space.enumerate()], {"cost_ms": values}, {"digits": Columns("cost_ms", "cost_ms")})


def test_table_costs_are_multilinear():
    space = toy.make()
    table = toy_table(np.random.default_rng(0).normal(size=27))
    cost, weights = TableCost(table, "cost_ms"), random_weights(space)
    probabilities = weights["cell"].ops.detach().numpy()
    mean = sum(np.prod([probabilities[entry] for entry in space.cells["cell"].rows(g["cell"])]) * cost(g) for g in space.enumerate())
    assert cost.expected(weights).item() == pytest.approx(mean) and cost.unit == "ms"
    for genotype in space.enumerate():
        assert cost.expected(one_hot(space, genotype, dtype=torch.float64)).item() == pytest.approx(cost(genotype))
    assert torch.autograd.gradcheck(lambda t: cost.expected(EdgeWeights({"cell": Weights(t)})), (weights["cell"].ops,))
    with pytest.raises(CostError, match="missing values"):
        TableCost(toy_table(np.full(27, np.nan)), "cost_ms")
    with pytest.raises(CostError, match="every architecture"):
        TableCost(Table(space, table.texts[:5], {"cost_ms": np.ones(5)}, {}), "cost_ms")


@needs(NB201)
def test_costs_of_nas_bench_201_columns():
    space = nasbench201.make()
    table = read_table(NB201, space)
    devices = [name for name in table.names() if name.startswith(("help_", "hw360_"))]
    assert len(devices) == 34
    flops = TableCost(table, "c10_flops_m")
    exact = additive(space, "multiply_adds", layers=17, channels=16, num_classes=10)
    weights = random_weights(space)
    assert flops.expected(weights).item() == pytest.approx((exact.expected(weights).item() + 10) / 1e6)  # linear, so both agree
    latency = TableCost(table, "help_fpga_ms")
    genotype = space.sample(random.Random(0))
    assert latency.expected(one_hot(space, genotype, dtype=torch.float64)).item() == pytest.approx(latency(genotype))


def test_measured_costs_have_no_expectation():
    space = toy.make()
    make = lambda genotype: space.network(space.candidates(genotype), norm=FINAL, **SIZES)
    x = torch.zeros(2, 3, 8, 8)
    nothing, all_convs = space.parse("|none~0|+|none~0|none~1|"), space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|")
    memory = PeakMemory(make, x)
    assert memory(all_convs) > memory(nothing) > sum(p.numel() * 4 for p in make(nothing).parameters())
    latency = Latency(make, x, repeats=3, warmup=1)
    assert latency(all_convs) > 0
    assert latency(all_convs) == latency(all_convs)  # measured once
    for cost in (memory, latency):
        with pytest.raises(CostError, match="no exact expectation"):
            cost.expected(random_weights(space))


def test_latency_tables_of_chains_have_an_entry_for_each_layer_and_op():
    space = nasbench_macro.make()
    cost = latency_table(space, device=torch.device("cpu"), repeats=3, warmup=1, **SIZES)
    table = cost.tables["layers"]
    assert table.shape == (8, 3) and (table > 0).all()
    for alike in ([3, 4], [6, 7]):  # of one shape, so measured once
        assert (table[alike[0]] == table[alike[1]]).all()
    assert len({tuple(row) for row in table}) == 6
    weights = random_weights(space)
    mean = cost.constant + (weights["layers"].ops.detach().numpy() * table).sum()
    assert cost.expected(weights).item() == pytest.approx(mean)
    with pytest.raises(CostError, match="stacks no cells"):
        latency_table(layerwise.make(), device=torch.device("cpu"), repeats=1, warmup=0, **SIZES)


def test_latency_tables_are_sums_and_can_be_kept(tmp_path):
    space = toy.make()
    cost = latency_table(space, device=torch.device("cpu"), repeats=3, warmup=1, **SIZES)
    none, skip, conv = (cost.tables["cell"][0, o] for o in range(3))
    assert none == 0 and conv > skip > 0
    genotype = space.sample(random.Random(0))
    assert cost.expected(one_hot(space, genotype, dtype=torch.float64)).item() == pytest.approx(cost(genotype))
    path = tmp_path / "latency.json"
    save_latency_table(path, cost, note="a test")
    assert load_latency_table(path, space)(genotype) == cost(genotype)
    with pytest.raises(CostError, match="was measured for space"):
        load_latency_table(path, SPACES["darts"])
    path.write_text("{}")
    with pytest.raises(CostError, match="expected format 'supernet.latency/1'"):
        load_latency_table(path, space)
    with pytest.raises(CostError, match="cannot read"):
        load_latency_table(tmp_path / "none.json", space)
