"""Costs of chains: against counted final networks, and expectations against enumeration."""

import math
import random

import pytest
import torch

from ops.op import Normalisation
from supernet.costs.chain import QUANTITIES, chain_costs, layer_costs
from supernet.networks.measure import multiply_adds, parameters
from supernet.spaces import accel_mnasnet, layerwise, nasbench201, nasbench_macro, ofa_mobilenet
from supernet.weights import EdgeWeights, Weights, one_hot

FINAL = Normalisation(affine=True, after_pools=False)
SPACES = {"macro": nasbench_macro.make(), "layerwise": layerwise.make(),
          "accel": accel_mnasnet.make(), "ofa": ofa_mobilenet.make(depths=(1, 3), sides=(9, 16)),
          "one_width": layerwise.make(stages=[[1, 1], [3, 2]], widths=[100], skippable=False)}
TINY = layerwise.make(stages=[[1, 1], [2, 1]], kernels=[3, 5], expansions=[1, 2], widths=[50, 100], activations=["relu"], dropouts=[0])


def sizes(space, channels=8, image_size=(9, 14)):
    return {"layers": space.sizes["layers"], "channels": channels, "num_classes": 7, "in_channels": 2, "image_size": image_size}


def counted(space, genotype, **size):
    net = space.network(space.candidates(genotype), norm=FINAL, **size)
    return parameters(net), multiply_adds(net, (size["in_channels"], *size["image_size"]))


def random_weights(space, generator, requires_grad=False):
    """Probabilities over the choices that each edge has."""
    kinds = {}
    for kind, spec in space.cells.items():
        present = torch.tensor(spec.present)
        table = torch.rand(present.shape, generator=generator, dtype=torch.float64).masked_fill(~present, 0)
        kinds[kind] = Weights((table / table.sum(1, keepdim=True)).requires_grad_(requires_grad))
    return EdgeWeights(kinds)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("channels", [8, 5])
def test_costs_are_those_of_the_final_network_at_every_size(name, channels):
    space, size = SPACES[name], sizes(SPACES[name], channels)
    costs = chain_costs(space, **size)
    for seed in range(5):
        genotype = space.sample(random.Random(seed))
        for cost, want in zip((costs[q] for q in QUANTITIES), counted(space, genotype, **size)):
            assert cost(genotype) == want
            assert cost.expected(one_hot(space, genotype, dtype=torch.float64)).item() == want
            assert cost.expected(one_hot(space, genotype)).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_expected_cost_is_the_mean_over_all_architectures(quantity):
    cost = chain_costs(TINY, **sizes(TINY))[quantity]
    weights = random_weights(TINY, torch.Generator().manual_seed(0))
    every = list(TINY.enumerate())
    assert len(every) == TINY.count()

    def probability(genotype):
        entries = ((kind, e, o) for kind, spec in TINY.cells.items() for e, o in spec.rows(genotype[kind]))
        return math.prod(weights[kind].ops[e, o].item() for kind, e, o in entries)

    assert sum(map(probability, every)) == pytest.approx(1)
    assert cost.expected(weights).item() == pytest.approx(sum(probability(g) * cost(g) for g in every), rel=1e-12)


def test_the_expected_cost_is_differentiable_in_every_decision_it_depends_on():
    space = SPACES["layerwise"]
    cost, weights = chain_costs(space, **sizes(space))["multiply_adds"], random_weights(space, torch.Generator().manual_seed(1), True)
    tables = {kind: w.ops for kind, w in weights.items()}
    grads = dict(zip(tables, torch.autograd.grad(cost.expected(weights), list(tables.values()), allow_unused=True)))
    assert {kind for kind, g in grads.items() if g is None} == {"activation", "dropout", "pooling"}
    for kind in ("kernel", "expansion", "width", "depth"):
        e, o = 1, 0
        moved = {k: t.detach().clone() for k, t in tables.items()}
        moved[kind][e, o] += 0.25
        change = cost.expected(EdgeWeights({k: Weights(t) for k, t in moved.items()})) - cost.expected(weights)
        assert change.item() == pytest.approx(0.25 * grads[kind][e, o].item(), rel=1e-9)  # linear in each
    assert torch.autograd.gradcheck(lambda t: cost.expected(EdgeWeights(dict(weights) | {"width": Weights(t)})) / 1e6, tables["width"])


def test_edge_weights_count_in_the_expected_cost():
    cost, weights = chain_costs(TINY, **sizes(TINY))["parameters"], random_weights(TINY, torch.Generator().manual_seed(2))
    factors = {kind: torch.linspace(0.5, 1.5, len(w.ops), dtype=torch.float64) for kind, w in weights.items()}
    apart = EdgeWeights({kind: Weights(w.ops, edges=factors[kind]) for kind, w in weights.items()})
    folded = EdgeWeights({kind: Weights(w.ops * factors[kind][:, None]) for kind, w in weights.items()})
    assert cost.expected(apart).item() == pytest.approx(cost.expected(folded).item(), rel=1e-12)
    assert cost.expected(apart).item() != pytest.approx(cost.expected(weights).item(), rel=1e-3)


def test_layer_costs_are_ordered_and_disturb_no_draws():
    space, before = SPACES["layerwise"], torch.random.get_rng_state()
    layers = layer_costs(space, **sizes(space))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(layers) == space.sizes["layers"] + 2
    rows = [terms["parameters"].rows for terms in layers]
    assert rows[0] == () and rows[-1] == (("width", 5),)
    assert rows[1] == (("expansion", 0), ("width", 0), ("kernel", 0), ("depth", 0))
    assert rows[3] == (("width", 1), ("expansion", 2), ("width", 2), ("kernel", 2), ("depth", 2))
    skip = space.cells["depth"].ops.index("skip")
    assert all(layers[n]["parameters"].table[..., skip].abs().max() == 0 for n in range(1, 7))


def test_a_space_that_is_no_chain_is_one_clear_error():
    with pytest.raises(ValueError, match="whose kinds are all chains, got 'nasbench201'"):
        chain_costs(nasbench201.make(), layers=3, channels=4, num_classes=3)
