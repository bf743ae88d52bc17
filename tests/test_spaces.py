"""Properties of every space, over random genotypes; the restricted and the listed spaces."""

import json
import random

import pytest
import torch
import yaml

from ops.op import Normalisation
from supernet.genotype import Genotype
from supernet.networks.stacked import inherit
from supernet.report.draw import draw_cells
from supernet.select.argmax import argmax
from supernet.spaces import (
    accel_mnasnet,
    darts,
    darts_rnn,
    layerwise,
    listed,
    nasbench201,
    nasbench_macro,
    ofa_mobilenet,
    robust,
    toy,
    vit,
)
from supernet.weights import EdgeWeights, Weights, one_hot
from tests import reference
from tests.shared import SPACES as SHARED
from tests.shared import needs

LISTED = {"inputs": 2, "cells": {
    "normal": {"edges": [[0, 2, ["skip_connect", "sep_conv_3x3"]], [1, 2, ["max_pool_3x3", "none"]], [2, 3, ["sep_conv_3x3"]],
                         [0, 3, ["dil_conv_3x3", "none"]]], "keep": [1, 2], "outputs": [3], "unselectable": ["none"]},
    "reduce": {"edges": [[0, 2, ["skip_connect", "max_pool_3x3"]], [1, 2, ["skip_connect"]]], "keep": None, "outputs": [2]}}}
SPACES = {"nasbench201": nasbench201.make(), "toy": toy.make(), "s1": robust.s1(), "s2": robust.s2(), "s3": robust.s3(), "s4": robust.s4(),
          "listed": listed.make(**LISTED), "darts": darts.make(nodes=2), "nasbench_macro": nasbench_macro.make(),
          "layerwise": layerwise.make(stages=[[1, 1], [2, 2]]), "accel_mnasnet": accel_mnasnet.make(stem_stride=1),
          "ofa_mobilenet": ofa_mobilenet.make(strides=(1, 1, 1, 1, 2), stem_stride=1, depths=(1, 2), sides=(8, 9)),
          "vit": vit.make(embeddings=(6, 8), depths=(1, 3), head_channels=4)}
NORM = Normalisation(affine=False, after_pools=True)


@pytest.fixture(params=SPACES.values(), ids=SPACES)
def space(request):
    return request.param


def build(space, genotype=None):
    sizes = {"layers": 3, "channels": 2} | space.sizes
    return space.network(space.candidates(genotype), norm=NORM, num_classes=3, image_size=(8, 8), **sizes).double()


@pytest.mark.parametrize("name", [*SPACES, "darts_rnn"])
@pytest.mark.parametrize("seed", range(3))
def test_genotypes_are_values_of_their_space(name, seed):
    space = darts_rnn.make() if name == "darts_rnn" else SPACES[name]
    rng = random.Random(seed)
    genotype, other = space.sample(rng), space.sample(rng)
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype == space.parse(space.text(genotype))
    changed = space.mutate(genotype, rng)
    assert changed != genotype and changed in set(space.neighbours(genotype))
    space.validate(space.crossover(genotype, other, rng))
    assert space.canonical(space.canonical(genotype)) == space.canonical(genotype)


def test_small_spaces_are_counted_by_enumeration():
    for name in ("nasbench201", "toy", "listed"):
        assert len(set(SPACES[name].enumerate())) == SPACES[name].count()


def test_networks_train_and_inherit(space):
    torch.manual_seed(0)
    genotype = space.sample(random.Random(0))
    supernet, final = build(space), build(space, genotype)
    inherit(final, supernet)
    x, g = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.Generator()
    seeded = lambda: g.manual_seed(1)  # an op that draws (noise) must draw the same in both
    a, b = final(x, generator=seeded()), supernet(x, one_hot(space, genotype, dtype=torch.float64), generator=seeded())
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    tables = {k: torch.rand(len(s.edges), len(s.ops), dtype=torch.float64, requires_grad=True) for k, s in space.cells.items()}
    loss = supernet(x, EdgeWeights({k: Weights(t) for k, t in tables.items()}), generator=g).square().sum()
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, list(tables.values())))


def test_selection_takes_the_planted_architecture(space):
    genotype = space.sample(random.Random(3))
    full = all(low == high for spec in space.cells.values() for low, high in spec.keep)  # else argmax keeps as many edges as it may
    found = argmax(space, one_hot(space, genotype))
    assert found == genotype if full else found in set(space.enumerate())


def test_drawing(space, tmp_path):
    draw_cells(space.sample(random.Random(0)), tmp_path / "cell.svg", outputs={k: s.outputs for k, s in space.cells.items()},
               num_inputs={k: s.num_inputs for k, s in space.cells.items()})
    assert (tmp_path / "cell.svg").stat().st_size > 1000


@needs(SHARED)
def test_restricted_spaces_are_the_published_ones():
    facts = json.loads(SHARED.read_text())
    for name in ("s1", "s2", "s3", "s4"):
        for kind, spec in SPACES[name].cells.items():
            own = [{op for op, here in zip(spec.ops, row) if here} for row in spec.present]
            rows = facts["S1"][kind] if name == "s1" else [{"source": s, "destination": d, "ops": facts[name.upper()]["ops"]}
                                                           for s, d in spec.edges]
            assert spec.edges == tuple((r["source"], r["destination"]) for r in rows)
            assert own == [set(r["ops"]) for r in rows]


def test_golden_counts_of_the_restricted_spaces():
    pairs = 1 * 3 * 6 * 10  # ways to keep two of 2, 3, 4 and 5 edges
    assert SPACES["s1"].count() == SPACES["s2"].count() == SPACES["s3"].count() == SPACES["s4"].count() == (pairs * 4**4) ** 2


@pytest.mark.parametrize("name", ["s1", "s2", "s3"])
def test_restricted_supernets_equal_the_edge_by_edge_sum(name):
    torch.manual_seed(0)
    space = SPACES[name]
    net = space.network(space.candidates(), norm=NORM, layers=3, channels=4, num_classes=3).double()
    slow = reference.like(net, space.cells, space.candidates(), 4, 3)
    weights = EdgeWeights({k: Weights(torch.rand(14, len(s.ops), dtype=torch.float64, requires_grad=True)) for k, s in space.cells.items()})
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    ours, theirs = net(x, weights), slow(x, weights)
    reference.close(ours, theirs, 1e-10)
    tables = [w.ops for w in weights.values()]
    for a, b in zip(torch.autograd.grad(ours.square().sum(), tables), torch.autograd.grad(theirs.square().sum(), tables)):
        reference.close(a, b, 1e-10)


def test_the_listed_example_is_a_space():
    from supernet.app.options import CONF

    options = yaml.safe_load((CONF / "space" / "listed.yaml").read_text())
    options.pop("_target_")
    space = listed.make(**options)
    assert space.count() == 3 * 2 * 3 * 3 * 2
    again = listed.make(**json.loads(json.dumps(space.sample(random.Random(0)).to_json()))["arguments"])
    assert again.fingerprint == space.fingerprint


@pytest.mark.parametrize("change, message", [
    ({"inputs": 3}, "inputs must be at least 1 and at most 2, got 3"), ({"cells": {"cell": {}}}, "must hold normal and reduce"),
    ({"normal": {"edges": [], "keep": 1}}, "must have edges, keep and outputs"), ({"normal": 3}, "must have edges"),
    ({"edges": [[2, 0, ["skip_connect"]]]}, "from an earlier node"), ({"edges": [[0, 3, ["skip_connect"]]]}, "none into node 2"),
    ({"edges": [[0, 2, []]]}, "at least one of them selectable"), ({"edges": [[0, 2, ["none"]]]}, "at least one of them selectable"),
    ({"edges": [[0, 2]]}, "must list"), ({"edges": [[0, 99, ["skip_connect"]]]}, "must list"), ({"edges": "x"}, "must list"),
    ({"outputs": [7]}, "outputs must name"), ({"outputs": []}, "outputs must name"), ({"keep": 0}, "keep must be"),
    ({"keep": "all"}, "keep must be"), ({"edges": [[0, 2, ["skip_connect", "skip_connect"]]]}, "distinct ops"),
])
def test_a_listed_space_says_what_is_wrong(change, message):
    options = json.loads(json.dumps(LISTED))
    if change.keys() <= {"inputs", "cells"}:
        options |= change
    elif "normal" in change:
        options["cells"] |= change
    else:
        options["cells"]["normal"] |= change
    with pytest.raises(ValueError, match=message) as error:
        listed.make(**options)
    assert "\n" not in str(error.value)
