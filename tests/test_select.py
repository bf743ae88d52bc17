import random

import pytest
import torch

from supernet.relaxations.base import entropies
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.spaces import darts
from supernet.weights import EdgeWeights, Weights, one_hot


def published_rule(alpha, nodes, ops):
    """`genotype()` of quark0/darts (model_search.py), written out."""
    probs, gene, start, none = alpha.softmax(-1).tolist(), set(), 0, ops.index("none")
    for i in range(nodes):
        rows = probs[start : start + i + 2]
        strongest = lambda row: max(v for k, v in enumerate(row) if k != none)
        for j in sorted(range(i + 2), key=lambda j: -strongest(rows[j]))[:2]:
            best = max((k for k in range(len(ops)) if k != none), key=lambda k: rows[j][k])
            gene.add((i + 2, j, ops[best]))
        start += i + 2
    return gene


@pytest.mark.equation("darts_first_order", "darts_second_order")
@pytest.mark.parametrize("seed", range(20))
def test_argmax_is_the_published_rule(seed):
    space = darts.make()
    relaxation = Softmax(space, torch.Generator().manual_seed(seed), init_scale=2.0)
    genotype = argmax(space, relaxation.mean())
    for kind, alpha in relaxation.alpha.items():
        assert set(genotype[kind]) == published_rule(alpha.detach().double(), 4, list(darts.OPS))


@pytest.mark.parametrize("seed", range(10))
def test_argmax_of_one_hot_weights_is_the_genotype(seed):
    for space in (darts.make(), darts.make(edges_per_node=None, none_selectable=True), darts.make(ops=darts.OPS[1:])):
        genotype = space.sample(random.Random(seed))
        assert argmax(space, one_hot(space, genotype)) == genotype


def test_edge_weights_count():
    space = darts.make(nodes=2)
    weights = {k: Weights(torch.full((5, 8), 0.1), torch.tensor([1.0, 1.0, 0.1, 0.5, 0.9])) for k in space.cells}
    assert [e.source for e in argmax(space, EdgeWeights(weights))["normal"]] == [0, 1, 1, 2]


def test_wrong_shapes_are_refused():
    space = darts.make(nodes=2)
    with pytest.raises(ValueError, match=r"must be \(E, O\) = \(5, 8\), got \(14, 8\)"):
        argmax(space, Softmax(darts.make(), torch.Generator()).mean())


def test_softmax_rows_sum_to_one_and_entropy_is_in_nats():
    space = darts.make()
    mean = Softmax(space, torch.Generator().manual_seed(0), init_scale=0.0).mean()
    assert all(torch.allclose(w.ops.sum(-1), torch.ones(14)) for w in mean.values())
    assert entropies(mean)["normal"].item() == pytest.approx(torch.tensor(8.0).log().item())
    assert entropies(one_hot(space, space.sample(random.Random(0))))["normal"].item() == 0
