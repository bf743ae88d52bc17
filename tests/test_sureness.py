"""How sure a search is: planted trajectories whose decisions are known, and properties."""

import json

import numpy as np
import pytest
import torch

from supernet.report.sureness import rows, sureness
from supernet.select.argmax import argmax, strongest
from supernet.space import CellSpec, Space
from supernet.spaces import darts, nasbench201
from supernet.weights import EdgeWeights, Weights

OPS = ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3")
EPOCHS = np.arange(0, 8.01, 0.5)  # of 8 epochs, of which the last two are looked at


def one_edge():
    """A cell of one edge, whose `none` takes part and is never selected."""
    return _space(CellSpec.full(num_inputs=1, num_nodes=1, ops=OPS, outputs=(1,), keep=None, unselectable=("none",)))


def two_of_three():
    """A cell of one node that keeps two of its three edges; each has one op."""
    return _space(CellSpec.full(num_inputs=3, num_nodes=1, ops=("skip_connect",), outputs=(3,), keep=(2, 2)))


def _space(spec):
    return Space("planted", {}, {"cell": spec}, build=None)


def record(table, epochs=EPOCHS, **more):
    return {"epoch": epochs, "weights.cell": np.asarray(table), **more}


def on_one_edge(skip, conv, none=0.0, pool=0.0, epochs=EPOCHS):
    """The weights of one edge over the epochs: a number, or one for each snapshot."""
    columns = [np.broadcast_to(np.asarray(column, float), epochs.shape) for column in (none, skip, conv, pool)]
    return record(np.stack(columns, -1)[:, None], epochs)


def test_a_lead_that_does_not_move_is_sure_however_small():
    found = sureness(one_edge(), on_one_edge(0.26, 0.25))
    (decision,) = found.decisions
    assert (decision.first, decision.second, decision.would_flip, decision.since) == ("skip_connect", "sep_conv_3x3", False, 0.0)
    assert decision.gap == pytest.approx(0.01) and decision.spread == 0


def test_a_lead_that_moved_by_more_than_itself_is_unsure_however_large():
    wobble = np.where(np.arange(len(EPOCHS)) % 2 == 0, 0.4, 0.0)  # ahead by 0.3 in the end, by -0.1 a snapshot before
    (decision,) = sureness(one_edge(), on_one_edge(0.2 + wobble, 0.3)).decisions
    assert decision.would_flip
    assert (decision.gap, decision.spread) == (pytest.approx(0.3), pytest.approx(0.4))


def test_only_the_last_quarter_of_the_epochs_counts_for_the_spread():
    calm_at_last = np.where(EPOCHS < 6, np.cos(EPOCHS * 7), 0.5)
    found = sureness(one_edge(), on_one_edge(calm_at_last, 0.4))
    assert found.window == 2 and found.decisions[0].spread == pytest.approx(0) and not found.decisions[0].would_flip


def test_a_rival_far_behind_that_moves_much_makes_a_choice_unsure():
    leaping = np.where(EPOCHS == 7, 0.9, 0.1)  # third in the end, first two epochs before
    (decision,) = sureness(one_edge(), on_one_edge(0.6, 0.3, pool=leaping)).decisions
    assert decision.second == "sep_conv_3x3" and decision.gap == pytest.approx(0.3) and decision.spread == 0 and decision.would_flip


def test_an_op_that_cannot_be_selected_is_no_rival():
    (decision,) = sureness(one_edge(), on_one_edge(0.2, 0.1, none=np.cos(EPOCHS) + 2)).decisions
    assert (decision.first, decision.second, decision.would_flip) == ("skip_connect", "sep_conv_3x3", False)


@pytest.mark.parametrize("epoch", [1.0, 3.0, 8.0])
def test_since_is_when_the_winner_took_the_lead_for_the_last_time(epoch):
    skip = np.where(EPOCHS >= epoch, 0.5, 0.1)
    skip[0] = 0.5  # an earlier lead, lost again
    assert sureness(one_edge(), on_one_edge(skip, 0.3)).decisions[0].since == epoch


@pytest.mark.parametrize("epoch, said", [(1, "after 1 epoch"), (1.5, "after 1.5 epochs"), (2, "after 2 epochs")])
def test_the_last_change_is_told_in_epochs(epoch, said):
    turned = np.where(EPOCHS >= epoch, 0.6, 0.2)
    assert dict(rows(sureness(one_edge(), on_one_edge(skip=0.4, conv=turned))))["last change"] == said
    short = EPOCHS[EPOCHS <= 1]
    told = dict(rows(sureness(one_edge(), on_one_edge(skip=0.4, conv=0.6, epochs=short))))
    assert told["unsure ops"].endswith("in the last epoch") and told["last change"] == "none since the start"


def test_a_node_is_sure_of_its_edges_where_the_weakest_kept_one_stays_ahead():
    steady = np.stack([np.full(len(EPOCHS), w) for w in (0.5, 0.2, 0.4)], 1)[..., None]
    found = sureness(two_of_three(), record(steady))
    (decision,) = found.decisions
    assert (decision.what, decision.first, decision.second) == ("edges", "c_{k-1} → 0", "c_{k-2} → 0")
    assert decision.gap == pytest.approx(0.2) and not decision.would_flip and found.entries == {"cell": {(0, 0), (2, 0)}}
    steady[-3, 1] = 0.65  # the edge that is left was ahead of both, one epoch before the end
    assert [d.would_flip for d in sureness(two_of_three(), record(steady)).decisions] == [True]


def test_weights_of_edges_decide_with_those_of_ops():
    table = np.full((len(EPOCHS), 3, 1), 1.0)
    betas = np.broadcast_to([0.2, 0.5, 0.3], (len(EPOCHS), 3))
    found = sureness(two_of_three(), record(table, **{"edge_weights.cell": betas}))
    assert found.entries == {"cell": {(1, 0), (2, 0)}} and found.decisions[0].gap == pytest.approx(0.1)


def test_the_end_of_an_earlier_stage_is_not_looked_at():
    """Weights leap where a stage begins anew."""
    leap = np.where(EPOCHS <= 6, 0.1, 0.5)
    assert sureness(one_edge(), on_one_edge(leap, 0.3)).decisions[0].would_flip
    found = sureness(one_edge(), on_one_edge(leap, 0.3), first_epoch=6)
    assert found.window == 1 and not found.decisions[0].would_flip


def test_what_comes_after_the_epoch_that_counts_is_not_looked_at():
    late = np.where(EPOCHS > 4, 0.0, 0.5)
    assert sureness(one_edge(), on_one_edge(late, 0.3)).decisions[0].first == "sep_conv_3x3"
    assert sureness(one_edge(), on_one_edge(late, 0.3), last_epoch=4).decisions[0].first == "skip_connect"


def test_epochs_that_were_gone_back_over_do_not_count():
    epochs = np.array([*EPOCHS[:13], *EPOCHS[9:]])  # from epoch 6 back to 4.5
    undone = np.where(np.arange(len(epochs)) < 13, -5.0, 0.5)
    (decision,) = sureness(one_edge(), on_one_edge(undone, 0.3, epochs=epochs)).decisions
    assert decision.since == 0 and not decision.would_flip


def test_nothing_is_said_of_one_snapshot_or_where_there_is_no_choice():
    assert sureness(one_edge(), on_one_edge(0.3, 0.2, epochs=np.array([0.0]))) is None
    lone = _space(CellSpec.full(num_inputs=1, num_nodes=1, ops=("skip_connect",), outputs=(1,), keep=None))
    assert sureness(lone, record(np.ones((len(EPOCHS), 1, 1)))) is None


def test_tables_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"weights of 'cell' must be \(T, E, O\) with \(E, O\) = \(1, 4\), got \(17, 2, 4\)"):
        sureness(one_edge(), record(np.ones((17, 2, 4))))


def walk(space, rng, steps=9, scale=0.05):
    """Random walks of all weights, softmaxed, in a record of 8 epochs."""
    tables = {"epoch": np.linspace(0, 8, steps)}
    for kind, spec in space.cells.items():
        logits = np.cumsum(rng.normal(0, scale, (steps, len(spec.edges), len(spec.ops))), 0)
        tables[f"weights.{kind}"] = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return tables


SPACES = {"darts": darts.make(nodes=3), "nasbench201": nasbench201.make()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", SPACES)
def test_what_is_decided_for_is_what_argmax_selects(name, seed):
    space, rng = SPACES[name], np.random.default_rng(seed)
    tables = walk(space, rng)
    for kind, spec in space.cells.items():
        tables[f"edge_weights.{kind}"] = rng.random((9, len(spec.edges)))
    last = EdgeWeights({kind: Weights(torch.from_numpy(tables[f"weights.{kind}"][-1]), torch.from_numpy(tables[f"edge_weights.{kind}"][-1]))
                        for kind in space.cells})
    found = sureness(space, tables)
    assert {kind: set(entries) for kind, entries in strongest(space, last).items()} == found.entries
    genotype = argmax(space, last)
    assert found.decides_for(space, genotype)
    assert not found.decides_for(space, next(space.neighbours(genotype)))
    kept = sum(len(edges) for _, edges in genotype.cells)
    assert len(found.of("op")) == kept and all(d.gap >= 0 for d in found.decisions)


@pytest.mark.parametrize("seed", range(5))
def test_a_choice_that_changed_within_the_last_epochs_is_unsure(seed):
    """The lead of the winner over the one that it overtook was at most 0 then, so it moved by at least itself."""
    found = sureness(SPACES["darts"], walk(SPACES["darts"], np.random.default_rng(seed), steps=41))
    late = [d for d in found.decisions if d.since > 6]
    assert late and all(d.would_flip for d in late)


def test_weights_of_each_layer_count_by_their_mean():
    space, rng = SPACES["nasbench201"], np.random.default_rng(0)
    tables = walk(space, rng)
    apart = rng.normal(0, 1e-3, tables["weights.cell"].shape)
    layered = {**tables, "weights.cell": np.stack([tables["weights.cell"] + apart, tables["weights.cell"] - apart], 1)}
    one, other = sureness(space, tables), sureness(space, layered)
    assert one.entries == other.entries
    np.testing.assert_allclose([d.gap for d in one.decisions], [d.gap for d in other.decisions], atol=1e-12)


def test_entropy_is_that_of_shares_and_at_most_its_bound():
    found = sureness(one_edge(), on_one_edge(0.25, 0.25, none=0.25, pool=0.25))
    assert found.entropy == pytest.approx(np.log(4)) == found.max_entropy
    assert sureness(one_edge(), on_one_edge(2.0, 2.0)).entropy == pytest.approx(np.log(2))


def test_what_is_written_and_said_counts_the_kept_edges_alone():
    found = sureness(SPACES["darts"], walk(SPACES["darts"], np.random.default_rng(1)))
    data = json.loads(json.dumps(found.to_json()))
    assert data["ops"] == 12 and data["edge_choices"] == 4 and len(data["decisions"]) == 2 * 9 + 4  # the first node of a cell keeps all
    assert data["ops_would_flip"] == sum(d["would_flip"] for d in data["decisions"] if d["kept"] and d["what"] == "op")
    said = dict(rows(found, selected=False))
    assert said["unsure ops"].startswith(f"{data['ops_would_flip']} of 12: ahead by {data['mean_gap']:.4f} on average")
    assert said["of the weights alone"] == "they decide for another architecture than was selected"
    assert "of the weights alone" not in dict(rows(found))
