"""GDAS in the DARTS space against numbers of the official code (tests/oracles/gdas_darts_space.npz): weights and noise given, float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from supernet.app import compose
from supernet.app.build import build, space_from
from supernet.networks.build import search_normalisation
from supernet.relaxations.gumbel import GumbelHard
from supernet.select.argmax import argmax
from supernet.select.strongest_pairs import strongest_pairs
from supernet.spaces import darts
from supernet.weights import EdgeWeights, Weights, one_hot
from tests.searches import composed

ORACLE = Path(__file__).parent / "oracles" / "gdas_darts_space.npz"
KINDS = ("normal", "reduce")


@pytest.fixture(scope="module")
def official():
    with np.load(ORACLE, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def tensor(values):
    return torch.from_numpy(values.astype(np.float64) if values.dtype.kind == "f" else values)


def difference(found, official):
    """The largest one over the largest official value."""
    official = tensor(official)
    assert found.shape == official.shape
    return ((found - official).abs().max() / official.abs().max()).item()


def as_the_preset(space, **changes):
    """The supernet of the file's sizes, otherwise as gdas_cifar10 composes it."""
    cfg = composed("experiment=gdas_cifar10")
    norm = search_normalisation(cfg.compat.pool_norm, cfg.compat.bn_statistics, cfg.compat.bn_affine)
    return space.network(space.candidates(), norm=norm, layers=3, channels=4, num_classes=10, **(dict(cfg.network) | changes)).double()


def filled(net, official):
    own, values, found, at = net.state_dict(), tensor(official["weights/values"]), {}, 0
    for name in official["weights/names"].tolist():
        n = own[name].numel()
        found[name], at = values[at: at + n].view(own[name].shape), at + n
    assert at == len(values)
    if "last_norm.weight" in own:
        found |= {f"last_norm.{name}": tensor(official[f"last_norm/{name}"]) for name in ("weight", "bias")}
    missing, unexpected = net.load_state_dict(found, strict=False)
    assert not unexpected and all("running_" in name for name in missing)
    return net.train()


@pytest.mark.equation("gdas")
@pytest.mark.parametrize("last_norm, ending", [(True, ""), (False, "_without_last_norm")])
def test_the_supernet_of_the_preset_is_that_of_the_official_code(official, last_norm, ending):
    space = darts.make(ops=official["ops"].tolist())
    net = filled(as_the_preset(space, last_norm=last_norm), official)
    x, y = tensor(official["train/images"]), tensor(official["train/labels"])
    for n, temperature in enumerate(official["temperature"].tolist()):
        relaxation = GumbelHard(space, torch.Generator()).double()
        relaxation.temperature = temperature
        with torch.no_grad():
            for kind in KINDS:
                relaxation.alpha[kind].copy_(tensor(official[f"alpha/{kind}"]))
        logits = net(x, relaxation.weights({kind: tensor(official[f"gumbel/{kind}"][n]) for kind in KINDS}))
        F.cross_entropy(logits, y).backward()
        assert difference(logits.detach(), official[f"logits{ending}"][n]) < 1e-9
        for kind in KINDS:
            assert difference(relaxation.alpha[kind].grad, official[f"alpha_gradient{ending}/{kind}"][n]) < 1e-9


@pytest.mark.equation("gdas")
def test_the_preset_selects_the_genotypes_of_the_official_code(official):
    """All 480 nodes; in 36 of them two ops of one edge are taken."""
    cfg, ops = composed("experiment=gdas_cifar10", f"space.ops=[{','.join(official['ops'].tolist())}]"), official["ops"].tolist()
    space, select = space_from(cfg.space), build(cfg.select)
    twice = 0
    for tables, cells in zip(official["tables"], official["genotypes"]):
        mean = EdgeWeights({kind: Weights(tensor(table).softmax(-1)) for kind, table in zip(KINDS, tables)})
        genotype = select(space, mean)
        space.validate(genotype)
        for kind, nodes in zip(KINDS, cells.tolist()):
            for node, pairs in enumerate(nodes, 2):
                found = sorted([edge.source, ops.index(edge.op)] for edge in genotype[kind] if edge.destination == node)
                assert found == sorted(pairs)
                twice += pairs[0][0] == pairs[1][0]
    assert twice == 36


def test_pairs_of_one_edge_need_a_space_that_may_hold_them():
    space = darts.make(ops_per_edge=2)
    mean = EdgeWeights({kind: Weights(torch.rand(14, 8)) for kind in KINDS})
    with pytest.raises(ValueError, match="those of darts hold one: pass select=argmax"):
        strongest_pairs(darts.make(), mean)
    space.validate(argmax(space, mean))
    assert {len({e.source for e in argmax(space, mean)["normal"] if e.destination == node}) for node in (2, 3, 4, 5)} == {2}


def test_edge_weights_count_and_equals_are_taken_in_order():
    space = darts.make(nodes=1, ops=("a", "b", "c"), ops_per_edge=2)
    table = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25]])
    taken = [{(e.source, e.op) for e in strongest_pairs(space, EdgeWeights({k: Weights(table, edges=edges) for k in KINDS}))["normal"]}
             for edges in (None, torch.tensor([1.0, 0.5]))]
    assert taken == [{(0, "a"), (1, "a")}, {(0, "a"), (0, "b")}]
    equal = strongest_pairs(space, EdgeWeights({k: Weights(torch.full((2, 3), 1 / 3)) for k in KINDS}))
    assert {(e.source, e.op) for e in equal["normal"]} == {(0, "a"), (0, "b")}


def test_a_final_network_computes_both_ops_of_an_edge():
    space = darts.make(nodes=1, ops=("skip_connect", "sep_conv_3x3", "max_pool_3x3"), ops_per_edge=2)
    mean = EdgeWeights({kind: Weights(torch.tensor([[0.4, 0.5, 0.1], [0.3, 0.3, 0.3]])) for kind in KINDS})
    genotype = strongest_pairs(space, mean)
    assert [(e.source, e.op) for e in genotype["normal"]] == [(0, "sep_conv_3x3"), (0, "skip_connect")]
    sizes = {"norm": search_normalisation("never", "running"), "layers": 3, "channels": 4, "num_classes": 3}
    supernet = space.network(space.candidates(), **sizes).double().train()
    final = space.network(space.candidates(genotype), **sizes).double().train()
    compose.inherit_widened(final, supernet)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = supernet(x, one_hot(space, genotype, dtype=torch.float64))
    torch.testing.assert_close(final(x), expected, rtol=0, atol=1e-10)
    assert sum(p.numel() for p in final.parameters()) < sum(p.numel() for p in supernet.parameters())
