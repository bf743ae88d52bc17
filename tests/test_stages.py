"""Searches in stages: what is pruned, what is carried over, and that a run killed at a border goes on to the same bits."""

import functools
import random
import signal

import pytest
import torch

from ops.op import Normalisation
from supernet.app import compose
from supernet.networks.stacked import batch_norms, inherit_widened, widened
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.binary_gates import BinaryGates
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.controller import Controller
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.reinmax import ReinMax
from supernet.relaxations.sigmoid import Sigmoid
from supernet.relaxations.simplex import Simplex
from supernet.relaxations.softmax import Softmax
from supernet.relaxations.uniform import Uniform
from supernet.select.argmax import argmax
from supernet.space import Space
from supernet.spaces import darts, nasbench201, toy
from supernet.training import stages
from supernet.training.stages import carry_over, fit_stages, narrowed, start_anew, strongest, widen_genotype
from supernet.weights import EdgeWeights, Weights
from tests.helpers import At, only_error, run
from tests.runs import assert_same, exactly, finished, go_on, outcome
from tests.searches import Records, composed, searched

NORM = Normalisation(affine=False, after_pools=True)
SIZES = {"layers": 3, "channels": 12, "num_classes": 5, "norm": NORM, "image_size": (8, 8)}
SMALL = darts.make(nodes=2, ops=["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"])


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_mean(space: Space, seed: int = 0) -> EdgeWeights:
    return EdgeWeights({kind: Weights(torch.rand(len(spec.edges), len(spec.ops), generator=gen(seed)).double())
                        for kind, spec in space.cells.items()})


def pruned(space: Space, keep: int, seed: int = 0) -> Space:
    return narrowed(space, strongest(space, random_mean(space, seed), keep))


def masks(space: Space) -> dict:
    return {kind: torch.tensor(spec.present) for kind, spec in space.cells.items()}


# ---- which candidates are kept


@pytest.mark.equation("p_darts", "dr_nas_progressive")
def test_the_strongest_candidates_of_each_edge_are_kept_none_among_them():
    (kind, spec), *_ = nasbench201.make().cells.items()
    space = nasbench201.make()
    table = torch.tensor([[0.1, 0.2, 0.3, 0.25, 0.15]] * 6)
    table[1] = torch.tensor([0.9, 0.05, 0.02, 0.02, 0.01])
    kept = strongest(space, EdgeWeights({kind: Weights(table)}), 2)[kind]
    assert kept[0] == (False, False, True, True, False) and kept[1] == (True, True, False, False, False)
    assert len(kept) == len(spec.edges)


def test_an_edge_always_keeps_an_op_that_a_genotype_may_hold():
    for keep in (1, 2):
        mean = EdgeWeights({kind: Weights(torch.tensor([[0.9, 0.0, 0.01, 0.05, 0.04]] * len(spec.edges)))
                            for kind, spec in SMALL.cells.items()})
        for kind, rows in strongest(SMALL, mean, keep).items():
            wanted = (False, False, False, True, False) if keep == 1 else (True, False, False, True, False)
            assert set(rows) == {wanted}, kind


def official_drop(row, k):
    """`get_min_k` of P-DARTS' train_search.py."""
    row, dropped = row.clone(), []
    for _ in range(k):
        dropped.append(int(row.numpy().argmin()))
        row[dropped[-1]] = 1
    return dropped


@pytest.mark.equation("p_darts")
def test_of_equals_the_first_are_dropped_as_in_p_darts_and_none_where_an_edge_has_no_more():
    mean = EdgeWeights({kind: Weights(torch.full((len(spec.edges), len(spec.ops)), 0.2)) for kind, spec in SMALL.cells.items()})
    assert set(strongest(SMALL, mean, 2)["normal"]) == {(False, False, False, True, True)}
    assert strongest(SMALL, mean, 9) == dict(SMALL.candidates())
    rows = torch.tensor([[0.2, 0.1, 0.2, 0.3, 0.2], [0.1, 0.1, 0.1, 0.1, 0.6], [0.4, 0.1, 0.1, 0.4, 0.0]])
    tied = EdgeWeights({kind: Weights(rows[torch.arange(len(spec.edges)) % 3]) for kind, spec in SMALL.cells.items()})
    for keep in (2, 3):
        for n, kept in enumerate(strongest(SMALL, tied, keep)["normal"][:3]):
            assert [o for o in range(5) if not kept[o]] == sorted(official_drop(rows[n], 5 - keep))
    layers = EdgeWeights({kind: Weights(torch.stack([w.ops, w.ops.flip(-1)])) for kind, w in mean.items()})
    assert strongest(SMALL, layers, 2) == strongest(SMALL, mean, 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_second_pruning_keeps_only_what_the_first_one_kept(seed):
    first = pruned(SMALL, 3, seed)
    second = pruned(first, 2, seed + 10)
    for kind in SMALL.cells:
        a, b = masks(first)[kind], masks(second)[kind]
        assert (a | ~b).all() and (a.sum(1) == 3).all() and (b.sum(1) == 2).all()


def test_a_narrowed_space_samples_and_selects_only_what_is_kept():
    space = pruned(SMALL, 3)
    for seed in range(20):
        genotype = space.sample(random.Random(seed))
        wide = widen_genotype(SMALL, genotype)
        SMALL.validate(wide)
        assert wide.cells == genotype.cells
        for kind, spec in space.cells.items():
            assert all(spec.selectable[e][o] for e, o in spec.rows(genotype[kind]))
    outvoted = random_mean(SMALL, 7)
    for kind, spec in space.cells.items():
        chosen = argmax(space, outvoted)[kind]
        assert all(spec.present[e][o] for e, o in spec.rows(chosen))
    assert space.count() < SMALL.count()


@pytest.mark.parametrize(("change", "told"), [
    (lambda rows: [tuple(o == 0 for o in range(5)), *rows[1:]], "must keep an op that a genotype may hold"),
    (lambda rows: [(False,) * 5, *rows[1:]], "must keep an op"),
])
def test_a_bad_narrowing_is_one_line(change, told):
    candidates = dict(SMALL.candidates())
    with pytest.raises(ValueError, match=told):
        narrowed(SMALL, candidates | {"normal": tuple(change(list(candidates["normal"])))})


def test_wrong_narrowings_of_other_kinds():
    once = pruned(SMALL, 2)
    with pytest.raises(ValueError, match="cannot keep an op that it does not have"):
        narrowed(once, SMALL.candidates())
    twins = darts.make(nodes=1, parallel=2)
    with pytest.raises(ValueError, match="parallel edges"):
        narrowed(twins, twins.candidates())
    with pytest.raises(ValueError, match="at least 1 candidate, got 0"):
        strongest(SMALL, random_mean(SMALL), 0)
    with pytest.raises(ValueError, match="each stage but the last"):
        stages.Stages(SMALL, [stages.Stage(1), stages.Stage(1)], lambda index, space, before: None)


# ---- what a relaxation makes of it

RELAXATIONS = [BinaryGates, Concrete, Controller, Dirichlet, GumbelHard, ReinMax, Sigmoid, Simplex, Softmax, Uniform]


@pytest.mark.parametrize("make", RELAXATIONS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("wrap", ["plain", "edges", "auxiliary"])
def test_what_is_pruned_weighs_nothing_and_what_is_left_is_normalised(make, wrap):
    def relaxation(space: Space):
        inner = make(space, gen())
        return {"plain": lambda: inner, "edges": lambda: EdgeNormalised(inner, space, gen(1)),
                "auxiliary": lambda: AuxiliarySkip(inner, space, gen())}[wrap]()

    wide = relaxation(SMALL)
    with torch.no_grad():
        for name, p in wide.named_parameters():
            if "alpha" in name:
                p.copy_(torch.randn(p.shape, generator=gen(3)).softmax(-1) if make is Simplex else torch.randn(p.shape, generator=gen(3)))
    space = narrowed(SMALL, strongest(SMALL, wide.mean().detach(), 2))
    narrow = relaxation(space)
    narrow.load_state_dict(wide.state_dict())
    narrow.after_inherit()
    for n in range(5):
        draws = (narrow(gen(n)), narrow.mean(), narrow.evaluated(gen(n)))
        for weights in draws:
            for kind, w in weights.items():
                gone = ~masks(space)[kind]
                assert (w.ops[gone] == 0).all() and torch.isfinite(w.ops).all()
                if make not in (Controller, Sigmoid, Uniform):
                    torch.testing.assert_close(w.ops.sum(-1), torch.ones(len(w.ops)))
                if w.active is not None:
                    assert not torch.tensor(w.active)[gone].any()


def test_the_softmax_over_what_is_left_is_the_old_one_renormalised():
    wide = Softmax(SMALL, gen(), init_scale=1.0).double()
    mean = wide.mean().detach()
    space = narrowed(SMALL, strongest(SMALL, mean, 3))
    narrow = Softmax(space, gen(1)).double()
    narrow.load_state_dict(wide.state_dict())
    for kind, w in narrow.mean().items():
        old = mean[kind].ops * masks(space)[kind]
        torch.testing.assert_close(w.ops, old / old.sum(-1, keepdim=True), rtol=0, atol=1e-14)


def test_simplex_rows_without_weight_on_what_is_left_become_uniform():
    theta = Simplex(SMALL, gen())
    space = pruned(SMALL, 2)
    with torch.no_grad():
        for kind, p in theta.alpha.items():
            p.copy_((~masks(space)[kind]) / 3.0)
    narrow = Simplex(space, gen())
    narrow.load_state_dict(theta.state_dict())
    narrow.after_inherit()
    for kind, w in narrow.mean().items():
        torch.testing.assert_close(w.ops, masks(space)[kind] / 2.0)


# ---- networks


def network(space: Space, seed: int, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = space.network(space.candidates(), **SIZES | options).double()
        for norm in batch_norms(net):  # as after some training
            if norm.running_mean is not None:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2.0)
        return net


@pytest.mark.equation("dr_nas_progressive")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("space", "options"), [(SMALL, {}), (SMALL, {"partial": 2}), (SMALL, {"auxiliary_skip": True}),
                                                (nasbench201.make(), {}), (nasbench201.make(), {"partial": 2}), (toy.make(), {})])
def test_pruning_leaves_what_the_kept_part_computes(space, options, training):
    narrow = pruned(space, 2)
    old, new = network(space, 0, **options).train(training), network(narrow, 1, **options).train(training)
    inherit_widened(new, old)
    mean = random_mean(space, 5)
    limited = EdgeWeights({kind: Weights(w.ops, active=narrow.cells[kind].present) for kind, w in mean.items()})
    x = torch.randn(4, 3, 8, 8, generator=gen(2), dtype=torch.float64)
    wanted, seen = old(x, limited, generator=gen()), new(x, mean, generator=gen())
    torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-12)
    assert sum(p.numel() for p in new.parameters()) < sum(p.numel() for p in old.parameters())
    statistics = dict(old.named_buffers())
    for name, value in new.named_buffers():
        torch.testing.assert_close(value, statistics[name], rtol=0, atol=0)


def test_widening_keeps_the_old_channels_and_repeats_them_in_order():
    value = torch.arange(6.0).view(2, 3)
    assert widened(value, (2, 3)) is value
    assert widened(value, (5, 4)).tolist() == [[0, 1, 2, 0], [3, 4, 5, 3]] * 2 + [[0, 1, 2, 0]]
    assert widened(value, (1, 2)).tolist() == [[0, 1]]


@pytest.mark.equation("dr_nas_progressive")
@pytest.mark.parametrize("space", [SMALL, nasbench201.make()])
def test_less_partial_networks_keep_the_original_channels(space):
    old, new = network(space, 0, partial=4), network(pruned(space, 3), 1, partial=2)
    inherit_widened(new, old)
    have, grown = old.state_dict(), 0
    for name, value in new.state_dict().items():
        before = have[name]
        assert torch.equal(value[tuple(slice(n) for n in before.shape)], before), name
        if value.shape != before.shape:
            grown += 1
            assert all(n == m or n == 2 * m or m == 1 for n, m in zip(value.shape, before.shape))
            half = tuple(slice(m, None) if n == 2 * m else slice(None) for n, m in zip(value.shape, before.shape))
            assert torch.equal(value[half], before), name
    assert grown > 5
    assert torch.isfinite(new(torch.randn(2, 3, 8, 8).double(), random_mean(space))).all()


def test_a_deeper_network_cannot_inherit():
    with pytest.raises(ValueError, match="only candidates and widths may differ"):
        inherit_widened(network(SMALL, 0, layers=4), network(SMALL, 0))


# ---- the search

TINY = ("split.max_train=40", "split.max_val=16", "space.nodes=1",
        "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "layers=3", "channels=4", "batch_size=8", "table=none", "threads=1")
STAGED = ("stage.keep=[3,2]", "stage.epochs=[2,1,2]")


def staged(*options: str):
    cfg = composed(*TINY, *STAGED, *options)
    parts = compose.search_parts(cfg)
    return cfg, compose.search_stages(cfg, parts)


def bits(search) -> dict:
    return exactly({name: part.state_dict() for name, part in search.stateful().items()})


@pytest.mark.parametrize("inherit", ["none", "weights"])
def test_a_search_in_stages_is_the_same_each_time(inherit):
    first, records, genotype = searched(*TINY, *STAGED, f"stage.inherit={inherit}")
    assert [r["epoch"] for r in records] == [0, 1, 2, 3, 4] and [r["stage"] for r in records] == [1, 1, 2, 3, 3]
    assert [r["step"] for r in records] == [5, 10, 15, 20, 25]
    assert len(records.lines) == 2 and records.lines[0].startswith("stage 2 of 3: 1 epochs, at most 3 candidates an edge")
    for mask in first.candidates.values():
        assert {sum(row) for row in mask} == {2}
    for kind, spec in first.space.cells.items():
        assert all(first.candidates[kind][e][o] for e, o in spec.rows(genotype[kind]))
    first.space.validate(genotype)
    again = searched(*TINY, *STAGED, f"stage.inherit={inherit}")[0]
    assert bits(again) == bits(first)


@pytest.mark.equation("p_darts")
def test_a_stage_that_starts_anew_depends_on_the_seed_and_the_candidates_alone():
    _, search = staged()
    fresh = {name: p.clone() for name, p in search.loop.search.net.named_parameters()}
    alphas = {name: p.clone() for name, p in search.loop.search.relaxation.named_parameters()}
    fit = functools.partial(stages.fit_supernet, recorder=Records())
    fit(search.loop, 2)
    search.advance()
    _, untrained = staged()
    candidates = search.candidates
    untrained._enter(1, candidates)
    for (name, p), q in zip(search.loop.search.net.named_parameters(), untrained.loop.search.net.parameters(), strict=True):
        assert torch.equal(p, q), name
    for (name, p), q in zip(search.loop.search.relaxation.named_parameters(), untrained.loop.search.relaxation.parameters(), strict=True):
        assert torch.equal(p, q) and not torch.equal(p, alphas[name])
    assert set(dict(search.loop.search.net.named_parameters())) <= set(fresh)
    assert not search.loop.search.w_optimizer.state and search.loop.position.epoch == 2


@pytest.mark.equation("dr_nas_progressive")
def test_carrying_over_takes_weights_alphas_and_both_optimizers():
    _, search = staged("stage.inherit=weights", "stage.network={partial:[4,2,1]}")
    stages.fit_supernet(search.loop, 2, Records())
    before = search.loop.search
    search.advance()
    after = search.loop.search
    assert search.hand_over is carry_over and search.loop.search.net.cells[0].bypass.partial == 2
    old, grown = dict(before.net.named_parameters()), 0
    for name, p in after.net.named_parameters():
        assert torch.equal(p, widened(old[name], p.shape)), name
        was, now = before.w_optimizer.state[old[name]], after.w_optimizer.state[p]
        assert was.keys() == now.keys()
        if was and was["momentum_buffer"] is not None:
            assert torch.equal(now["momentum_buffer"], widened(was["momentum_buffer"], p.shape))
            grown += p.shape != old[name].shape
    assert grown > 0
    for p, q in zip(after.relaxation.parameters(), before.relaxation.parameters(), strict=True):
        assert torch.equal(p, q) and p is not q
        for key, value in before.alpha_optimizer.state[q].items():
            assert torch.equal(after.alpha_optimizer.state[p][key], value)
    stages.fit_supernet(search.loop, 1, Records())


def test_schedules_run_over_each_stage_or_over_the_search():
    def lrs(*options: str) -> list[float]:
        return [r["lr"] for r in searched(*TINY, *STAGED, *options)[1]]

    each, whole = lrs(), lrs("stage.schedules=search")
    plain = [r["lr"] for r in searched(*TINY, "epochs=5")[1]]
    assert whole == plain and each[0] == each[2] == each[3] == plain[0] and each[1] == each[4] < plain[0]


def test_weights_alone_are_trained_first_in_each_stage():
    _, search = staged("stage.alpha_begin=1", "stage.epochs=2")
    seen = []

    class Watched(Records):
        def epoch(self, record, genotype):
            super().epoch(record, genotype)
            seen.append([p.detach().clone() for p in search.loop.search.relaxation.parameters()])

    fit_stages(search, Watched())
    assert len(seen) == 6
    for n in range(0, 6, 2):
        assert not all(torch.equal(a, b) for a, b in zip(seen[n], seen[n + 1]))
    # in the first epoch of the first stage the alphas rest where they started
    _, other = staged("stage.alpha_begin=1", "stage.epochs=2")
    assert all(torch.equal(a, b) for a, b in zip(seen[0], other.loop.search.relaxation.parameters()))


@pytest.mark.equation("p_darts")
def test_depth_channels_and_skip_dropout_follow_the_stages():
    cfg, search = staged("stage.layers=[3,4,5]", "stage.channels=[4,6,8]", "skip_dropout=p_darts", "stage.skip_dropout=[0,0.4,0.7]")
    assert cfg.epochs == search.epochs == 5 and search.hand_over is start_anew
    seen = []
    for n in range(3):
        loop = search.loop
        seen.append((len(loop.search.net.cells), loop.search.net.stem.conv.out_channels, loop.skip_dropout(0, 2), loop.first_epoch))
        if n < 2:
            search.advance()
    assert seen == [(3, 12, 0.0, 0), (4, 18, 0.2, 2), (5, 24, 0.35, 3)]


@pytest.mark.parametrize("final_select", ["perturbation", "sampled"])
def test_a_final_selection_stays_within_the_candidates(final_select):
    small = {"perturbation": ("final_select.finetune_epochs=1",), "sampled": ("final_select.n=5",)}[final_select]
    search, _, genotype = searched(*TINY, *STAGED, f"final_select={final_select}", *small)
    for kind, spec in search.space.cells.items():
        assert all(search.candidates[kind][e][o] for e, o in spec.rows(genotype[kind]))
    search.space.validate(genotype)


def test_a_loaded_state_builds_the_network_of_its_stage():
    _, search = staged("stage.inherit=weights", "stage.network={partial:[2,1,1]}")
    stages.fit_supernet(search.loop, 2, Records())
    search.advance()
    stages.fit_supernet(search.loop, 1, Records())
    saved = {name: part.state_dict() for name, part in search.stateful().items()}
    _, other = staged("stage.inherit=weights", "stage.network={partial:[2,1,1]}")
    for name, part in other.stateful().items():
        part.load_state_dict(saved[name])
    assert bits(other) == bits(search) and other.index == 1
    fit_stages(search, Records())
    fit_stages(other, Records())
    assert bits(other) == bits(search)


# ---- runs that are killed

SCRIPT = ("split.max_train=40", "split.max_val=16", "space.nodes=1", "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]",
          "channels=4", "batch_size=8", *STAGED)
WIDER = (*SCRIPT, "stage.inherit=weights", "stage.network={partial:[4,2,1]}", "wrapper=[edge_normalised]", "layers=3")
DEEPER = (*SCRIPT, "stage.layers=[3,4,5]", "relaxation=dirichlet", "skip_dropout=p_darts", "stage.skip_dropout=[0.1,0.4,0.7]")


@pytest.mark.parametrize("options", [WIDER, DEEPER], ids=["wider", "deeper"])
def test_a_search_killed_around_a_stages_end_ends_as_an_unbroken_one(options, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    unbroken.mkdir(), killed.mkdir()
    assert run("train_search", *options, cwd=unbroken, report=False).code == 0
    for every, at in [
        ("checkpoint_every_s=60", At(1, "checkpoints/epoch_00002")),  # after the first stage, before its checkpoint
        ("checkpoint_every_s=0", At(1, "checkpoints/epoch_00002_step_00000011")),  # after the first step of the second stage
        ("checkpoint_every_s=0", At(1, "checkpoints/epoch_00002_step_00000013")),  # within the second stage
        ("checkpoint_every_s=0", At(1, "checkpoints/epoch_00003_step_00000016")),  # in the third, nothing of which is saved
        ("checkpoint_every_s=0", At(1, "checkpoints/epoch_00004_step_00000022")),  # within the third
    ]:
        ended = run("train_search", *options, every, "resume=auto", cwd=killed, report=False, at=at)
        assert ended.code == -signal.SIGKILL, f"{at}: {ended.err}"
    assert "at epoch 4, step 21" in go_on("train_search", *options, where=killed).err
    assert_same(outcome(finished(killed)), outcome(finished(unbroken)))
    assert outcome(finished(killed))["checkpoint: stage"]["index"] == 2


@pytest.mark.parametrize(("options", "told"), [
    (("stage.keep=[2,3]",), "stage.keep must be falling numbers of at least 1, got [2, 3]"),
    (("stage.keep=[3,0]",), "stage.keep must be falling numbers of at least 1, got [3, 0]"),
    (("stage.keep=[99,2]",), "stage.keep must begin below the 4 candidates that an edge of space darts has, got [99, 2]; "
                              "stage.keep=[] searches in one stage"),
    (("stage.epochs=[1,2]",), "stage.epochs must be one value, or one for each of the 3 stages (stage.keep is [3, 2]), got [1, 2]"),
    (("stage.epochs=0",), "stage.epochs must be at least 1 each, got [0, 0, 0]"),
    (("stage.epochs=null",), "stage.epochs must say how long each of the 3 stages is, got null"),
    (("stage.layers=[3,4,0]",), "stage.layers must be at least 1 and at most 10,000, got 0 for stage 3"),
    (("stage.layers=[3,4,5]", "stage.inherit=weights"), "stage.inherit=weights needs the same layers in every stage, got [3, 4, 5]"),
    (("stage.inherit=alphas",), "stage.inherit must be weights or none, got alphas"),
    (("stage.schedules=epoch",), "stage.schedules must be stage or search, got epoch"),
    (("stage.skip_dropout=0.1",), "stage.skip_dropout needs a function of the epoch: pass skip_dropout=p_darts"),
    (("skip_dropout=p_darts", "stage.skip_dropout=[0,0.5,1]"), "stage.skip_dropout must be at least 0 and below 1, got 1 for stage 3"),
    (("space.parallel=2",), "stages need cells without parallel edges, and 'normal' of space darts has some"),
    (("stage.network={partial:[2,1,3]}",), "network.partial must divide the channels of every cell, got 3 and 4 channels"),
])
def test_wrong_options_are_one_line(options, told, tmp_path):
    assert only_error(run("train_search", *SCRIPT, *options, cwd=tmp_path)) == told
    assert not list(tmp_path.glob("runs/*"))


def test_a_stage_that_does_not_exist_is_one_line(tmp_path):
    assert only_error(run("train_search", "stage=pdarts", cwd=tmp_path)).startswith("stage=pdarts: no such choice")
