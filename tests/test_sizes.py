"""What the sub-networks of a chain cost before a training, and the exact extremes behind it, against enumeration."""

import itertools
import random

import numpy as np
import pytest
import torch

from ops.op import Normalisation
from supernet.app import compose
from supernet.commands import search
from supernet.costs import elimination
from supernet.costs.chain import ChainCost, Term, chain_costs
from supernet.networks.measure import multiply_adds, parameters
from supernet.passes import extreme, extremes
from supernet.runs import sizes
from supernet.spaces import accel_mnasnet, darts, layerwise, nasbench_macro, ofa_mobilenet
from tests.helpers import only_error, run
from tests.searches import composed

NORM = Normalisation(affine=False, after_pools=True)
SPACES = {"ofa": ofa_mobilenet.make(kernels=(3, 5), expansions=(2, 4), depths=(1, 2), strides=(1, 2, 1, 1, 1), stem_stride=1),
          "accel": accel_mnasnet.make(), "macro": nasbench_macro.make(), "layerwise": layerwise.make(stages=[[1, 2], [2, 2]])}
TINY = ("space=ofa_mobilenet", "space.strides=[1,2,1,1,1]", "space.stem_stride=1", "space.depths=[1,2]", "space.kernels=[3,5]",
        "space.expansions=[2,3]", "channels=4", "split.max_train=16", "split.max_val=8", "batch_size=8", "relaxation=uniform", "epochs=1")


def net_of(space):
    return space.network(space.candidates(), norm=NORM, layers=space.sizes["layers"], channels=8, num_classes=5, image_size=(16, 16))


# ---- the extremes of sums of tables


def random_factors(rng, rows, count):
    size = dict(zip(rows, rng.integers(1, 4, len(rows))))
    factors = []
    for _ in range(count):
        own = tuple(rows[n] for n in rng.permutation(len(rows))[: rng.integers(0, 4)])
        factors.append((own, rng.normal(size=[size[row] for row in own])))
    allowed = {row: [True] + [bool(b) for b in rng.integers(0, 2, n - 1)] for row, n in size.items()}
    return factors, allowed


@pytest.mark.parametrize("seed", range(20))
def test_eliminating_decisions_finds_the_least_of_all_assignments(seed):
    rng = np.random.default_rng(seed)
    rows = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)]
    factors, allowed = random_factors(rng, rows, 6)

    def total(chosen):
        return sum(table[tuple(chosen[row] for row in own)] for own, table in factors)

    every = [dict(zip(rows, choice)) for choice in itertools.product(*([o for o, may in enumerate(allowed[row]) if may] for row in rows))]
    value, chosen = elimination.least(factors, allowed)
    assert value == pytest.approx(min(map(total, every)), abs=1e-12) and total(chosen) == pytest.approx(value, abs=1e-12)
    assert all(allowed[row][o] for row, o in chosen.items())


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("quantity", ["parameters", "multiply_adds"])
def test_the_least_of_a_chain_is_what_its_cheapest_architecture_costs(name, quantity):
    space = SPACES[name]
    cost = chain_costs(space, layers=space.sizes["layers"], channels=8, num_classes=5)[quantity]
    smallest, largest = extremes(space, cost)
    assert cost.least() == cost(smallest)
    descent = extreme.dispatch(object)
    assert cost(smallest) <= cost(descent(cost, space, 1)) and cost(largest) >= cost(descent(cost, space, -1))
    values = [cost(space.sample(random.Random(seed))) for seed in range(100)]
    assert cost(smallest) <= min(values) and cost(largest) >= max(values)


def test_where_single_changes_get_stuck_the_sum_of_tables_does_not(monkeypatch):
    """Two decisions that are cheap together alone. Where tables would be too large, what is left are a bound and single changes."""
    space = layerwise.make(stages=[[1, 1], [2, 1]], kernels=[3, 5], expansions=[1, 2], widths=[50, 100], activations=["relu"], dropouts=[0])
    spec = space.cells["kernel"]
    table = torch.full((len(spec.ops),) * 2, 9.0, dtype=torch.float64)
    a, b = (spec.ops.index(f"kernel_{k}") if f"kernel_{k}" in spec.ops else n for n, k in enumerate((3, 5)))
    table[a, a], table[b, b] = 2.0, 1.0
    cost = ChainCost(space, [Term((("kernel", 0), ("kernel", 1)), table)], "parameters")
    assert cost(extremes(space, cost)[0]) == cost.least() == 1.0
    assert cost(extreme.dispatch(object)(cost, space, 1)) == 2.0
    monkeypatch.setattr(elimination, "MOST", 3)
    assert cost.extreme(1) is None and cost.least() == 1.0 and cost(extremes(space, cost)[0]) == 2.0


def test_one_decision_that_stands_with_very_many_others_is_eliminated_after_them():
    hub, others = ("depth", 0), [("heads", n) for n in range(48)]
    tables = np.random.default_rng(0).normal(size=(len(others), 3, 3))
    factors = [((hub, other), table) for other, table in zip(others, tables)]
    value, chosen = elimination.least(factors, dict.fromkeys([hub, *others], [True] * 3))
    assert value == pytest.approx(tables.min(2).sum(0).min()) and chosen[hub] == tables.min(2).sum(0).argmin()


# ---- the table


@pytest.mark.parametrize("name", SPACES)
def test_the_table_counts_the_networks_themselves(name):
    space, net = SPACES[name], net_of(SPACES[name])
    subs = sizes.sub_networks(space, net)
    assert [sub.name for sub in subs] == ["smallest", "middle", "largest"]
    for sub in subs:
        final = space.network(space.candidates(sub.genotype), **(dict(net.built.sizes) | {"norm": sizes.FINAL}))
        assert sub.known == {"parameters": parameters(final), "multiply_adds": multiply_adds(final, (3, 16, 16))}
    for quantity in ("parameters", "multiply_adds"):
        small, middle, large = (sub.known[quantity] for sub in subs)
        assert small < middle < large
    assert sizes.line(subs).startswith(f"sub-networks: smallest {subs[0].known['parameters'] / 1e6:.3f} M parameters, ")


def test_memory_and_time_are_measured_and_leave_the_generator_alone():
    space, net = SPACES["ofa"], net_of(SPACES["ofa"])
    state, subs = torch.random.get_rng_state(), sizes.sub_networks(space, net)
    memory = [sizes.measured(sub.genotype, space, net, torch.zeros(1, 3, 16, 16)) for sub in subs]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert memory[0][0] < memory[1][0] < memory[2][0] and all(ms > 0 for _, ms in memory)
    weights = 4 * subs[2].known["parameters"]
    assert weights < memory[2][0] < 3 * weights + 2**20


def test_what_is_no_chain_has_no_such_table():
    space = darts.make(nodes=2)
    net = space.network(space.candidates(), norm=NORM, layers=3, channels=4, num_classes=5)
    assert sizes.sub_networks(space, net) == [] and sizes.remarks([], {"parameters": len}, {}) == []


def test_limits_that_count_other_sizes_or_are_below_what_the_smallest_has_are_told():
    space, net = SPACES["macro"], net_of(SPACES["macro"])
    subs = sizes.sub_networks(space, net)
    own = subs[0].known["parameters"]
    assert sizes.remarks(subs, {"parameters": lambda g: own, "latency": lambda g: 3.0}, {"parameters": 1.0, "latency": 4.0}) == []
    told = sizes.remarks(subs, {"parameters": lambda g: 2 * own, "latency": lambda g: 5.0}, {"latency": 4.0})
    assert told[0].startswith(f"note: parameters are counted in networks of other sizes than the supernet's: the smallest sub-network has "
                              f"{2 * own:,.0f} there, {own:,.0f} as searched")
    assert told[1] == ("note: the smallest sub-network has latency 5 as measured here, above the limit of 4: few architectures may "
                       "keep it, or none")


def test_the_header_of_a_search_names_them_also_where_a_stage_holds_less():
    cfg = composed(*TINY, "stage=progressive_shrinking", "stage.lr=null", "stage.open=[{},{kernel:all,depth:all,expansion:all}]",
                   "stage.sort=null", "stage.epochs=1")
    parts = compose.search_parts(cfg)
    compose.search_stages(cfg, parts)
    (line,) = search.on_limits(parts, {}, {})
    assert line in search.first_lines(cfg, parts, {}) and line == sizes.line(sizes.sub_networks(parts.space, parts.net))
    (note,) = search.on_limits(parts, {"parameters": lambda genotype: 7.0}, {})[1:]
    assert "has 7 there" in note


@pytest.mark.parametrize("options, noted", [(("relaxation=softmax",), True), (("relaxation=softmax", "wrapper=[steered]"), False),
                                            (("relaxation=gumbel",), False)])
def test_passes_that_train_a_mixture_are_noted(options, noted):
    cfg = composed(*TINY, "passes=sandwich", *options)
    lines = search.first_lines(cfg, compose.search_parts(cfg), {})
    assert any("wrapper=[steered] draws one of them" in line for line in lines) == noted


@pytest.mark.slow
def test_a_dry_run_of_opening_stages_looks_at_the_last_one():
    cfg = composed(*TINY, "passes=sandwich", "stage=progressive_shrinking", "stage.lr=null", "stage.epochs=1",
                   "stage.open=[{},{kernel:all,depth:all,expansion:all}]", "stage.sort=[false,true]")
    parts = compose.search_parts(cfg)
    stages = compose.search_stages(cfg, parts)
    rows = dict(search.dry_run_rows(cfg, parts, stages))
    assert stages.is_last and {"smallest sub-network", "middle sub-network", "largest sub-network"} < set(rows)
    assert all(row.endswith("ms an item, measured here") for name, row in rows.items() if "sub-network" in name)


@pytest.mark.slow
def test_a_search_says_what_its_sub_networks_cost_and_refuses_a_limit_that_none_keeps(tmp_path):
    told = run("train_search", *TINY, "dry_run=true", cwd=tmp_path)
    rows = [line.split() for line in told.out.splitlines() if "sub-network " in line]
    assert [row[0] for row in rows] == ["smallest", "middle", "largest"]
    assert all(row[-4:] == ["an", "item,", "measured", "here"] for row in rows)
    cost = ("cost=multiply_adds", "cost.channels=4", "searcher=random", "budget.trials=1")
    least = int(float(rows[0][rows[0].index("multiply-adds,") - 2]) * 1e6)
    assert only_error(run("train_search", *TINY, *cost, f"objective.at_most={{multiply_adds:{least - 1000}}}", cwd=tmp_path)).startswith(
        f"objective.at_most.multiply_adds is {least - 1000}, and every architecture of space ofa_mobilenet has at least ")
    assert not list(tmp_path.glob("runs/*"))
    header = run("train_search", *TINY, cwd=tmp_path, report=False).err
    assert "sub-networks: smallest 0." in header and "note: multiply_adds" not in header
