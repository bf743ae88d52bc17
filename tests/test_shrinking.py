"""Searches that open their space stage by stage: what is open when, what goes over, and that a killed run goes on to the same bits."""

import random
import signal

import pytest
import torch

from supernet.app import compose
from supernet.costs.chain import chain_costs
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.passes import extremes
from supernet.spaces import accel_mnasnet, layerwise, ofa_mobilenet
from supernet.training.shrinking import go_on_sorted, opened
from supernet.training.stages import Stage, Stages, fit_stages, fit_supernet, narrowed
from supernet.weights import one_hot
from tests.helpers import At, run
from tests.reference import close
from tests.runs import assert_same, exactly, finished, go_on, outcome
from tests.searches import Records, composed

ELASTIC = ("space=ofa_mobilenet", "space.strides=[1,2,1,1,1]", "space.stem_stride=1", "space.depths=[1,2]", "space.kernels=[3,5]",
           "space.expansions=[2,3]", "channels=4", "split.max_train=16", "split.max_val=8", "batch_size=8")
TINY = (*ELASTIC, "relaxation=uniform", "passes=sandwich")
OPENING = ("stage=progressive_shrinking", "stage.open=[{},{kernel:all,depth:all},{expansion:all}]", "stage.sort=[false,false,true]",
           "stage.epochs=1", "stage.lr=[0.08,0.03,0.01]")
SPACE = ofa_mobilenet.make(kernels=(3, 5, 7), expansions=(4, 6, 3), depths=(2, 3, 4), sides=(24, 32))


def cost_of(space):
    return chain_costs(space, layers=space.sizes["layers"], channels=8, num_classes=5)["multiply_adds"]


def staged(*options):
    cfg = composed(*TINY, *OPENING, *options)
    return compose.search_stages(cfg, compose.search_parts(cfg))


def names(space, candidates, kind):
    return {tuple(op for op, held in zip(space.cells[kind].ops, row) if held) for row in candidates[kind]}


# ---- what is open when


@pytest.mark.equation
def test_the_published_phases_open_kernels_then_depths_then_expansions_from_the_largest_on():
    """Cai et al. 2020, Sec. 3.3 and 4.1; the official script's lists of each task and phase."""
    cfg = composed("space=ofa_mobilenet", "stage=progressive_shrinking")
    found = opened(SPACE, cost_of(SPACE), cfg.stage.open)
    told = [("7", "4", "6"), ("3,5,7", "4", "6"), ("3,5,7", "3,4", "6"), ("3,5,7", "2,3,4", "6"), ("3,5,7", "2,3,4", "4,6"),
            ("3,5,7", "2,3,4", "3,4,6")]
    for candidates, lists in zip(found, told, strict=True):
        for kind, own in zip(("kernel", "depth", "expansion"), lists):
            assert [set(row) for row in names(SPACE, candidates, kind)] == [{f"{kind}_{n}" for n in own.split(",")}]
        assert names(SPACE, candidates, "side") == {("side_24", "side_32")}
    assert found[-1] == SPACE.candidates()


@pytest.mark.parametrize("space, plan", [
    (accel_mnasnet.make(), [{}, {"kernel": "all", "squeeze": "all"}, {"expansion": 2}, {"expansion": 3}]),
    (layerwise.make(stages=[[1, 2], [2, 2]]), [{"kernel": 2}, {"kernel": "all"}, {"width": "all"}])], ids=["accel", "layerwise"])
def test_each_stage_holds_the_largest_of_its_own_and_all_that_was_open_before(space, plan):
    cost, before = cost_of(space), None
    whole = extremes(space, cost)[1]
    for candidates in opened(space, cost, plan):
        own = narrowed(space, candidates)
        for seed in range(20):
            assert cost(whole) >= cost(space.genotype(dict(own.sample(random.Random(seed)).cells)))
        assert all(candidates[kind][e][o] for kind, spec in space.cells.items() for e, o in spec.rows(whole[kind]))
        if before is not None:
            assert all(now or not was for kind in candidates for rows in zip(candidates[kind], before[kind]) for now, was in zip(*rows))
        before = candidates
    assert before == space.candidates()


@pytest.mark.parametrize("plan, told", [
    ([{}, {"kernels": "all"}], "space ofa_mobilenet has no decisions 'kernels', it has depth, expansion, kernel, side"),
    ([{}, {"kernel": 2}], "stage.open must open all choices of 'kernel' in the end .kernel: all., got 2 of 3"),
    ([{"kernel": 2}, {"kernel": 2, "depth": 1}, {"kernel": "all", "depth": "all"}], "must open something and close nothing, stage 2"),
    ([{"kernel": 3, "depth": 2}, {"kernel": 1, "depth": 3}], "must open something and close nothing, stage 2"),
])
def test_a_plan_that_does_not_open_the_space_is_one_line(plan, told):
    with pytest.raises(UsageError, match=told):
        opened(SPACE, cost_of(SPACE), plan)


def test_stages_say_their_candidates_or_how_many_are_kept():
    for plan in ([Stage(1), Stage(1)], [Stage(1, 2), Stage(1, None, SPACE.candidates())], [Stage(1, 2)]):
        with pytest.raises(ValueError, match="each stage but the last must say"):
            Stages(SPACE, plan, lambda *_: None)


# ---- what goes over


def bits(search):
    return {name: exactly(part.state_dict()) for name, part in search.stateful().items()}


def test_what_was_open_computes_the_same_in_the_next_stage():
    search = staged("stage.sort=null")
    rng = random.Random(0)
    for index in range(2):
        fit_supernet(search.loop, 1, Records())
        before, x = search.loop, next(iter(search.loop.val))[0]
        old, space = before.search.net.eval(), before.space
        genotypes = [Genotype(space.name, space.fingerprint, g.cells, g.arguments) for g in (space.sample(rng) for _ in range(3))]
        with torch.no_grad():
            wanted = [old(x, one_hot(space, g)) for g in genotypes]
        state = {name: value.clone() for name, value in old.state_dict().items()}
        search.advance()
        new, wider = search.loop.search.net.eval(), search.loop.space
        assert search.index == index + 1 and wider.count() > space.count()
        for g, want in zip(genotypes, wanted):
            with torch.no_grad():
                assert torch.equal(new(x, one_hot(wider, wider.genotype(dict(g.cells)))), want)
        for name, value in new.state_dict().items():
            if name in state:
                assert torch.equal(value, state[name]), name
            else:  # a map to a smaller kernel
                assert torch.equal(value, torch.eye(len(value))), name
        assert not search.loop.search.w_optimizer.state and before.search.w_optimizer.state


def test_sorting_at_the_width_phase_leaves_the_largest_as_it_is_and_puts_what_counts_first():
    search = staged()
    fit_supernet(search.loop, 1, Records())
    search.advance()
    fit_supernet(search.loop, 1, Records())
    x, old = next(iter(search.loop.val))[0].double(), search.loop.search.net.double().eval()
    _, whole = extremes(search.space, compose.work_of(search.space, old))
    with torch.no_grad():
        want = old(x, one_hot(search.space, whole, dtype=torch.float64))
        unsorted = [block.project.weight.abs().sum((0, 2, 3)) for stage in old.stages[1:] for block in stage.blocks]
        search.loop.search.net.float()
        search.advance()
        assert search.plan[2].hand_over is go_on_sorted
        new = search.loop.search.net.double().eval()
        close(new(x, one_hot(search.space, whole, dtype=torch.float64)), want, 1e-9)
        weights = [block.project.weight.abs().sum((0, 2, 3)) for stage in new.stages[1:] for block in stage.blocks]
    assert any((w.diff() > 0).any() for w in unsorted) and all((w.diff() <= 1e-5).all() for w in weights)


def test_a_stage_draws_only_what_is_open_and_the_last_one_everything():
    search = staged()
    seen = []

    class Watched(Records):
        def epoch(self, record, genotype):
            super().epoch(record, genotype)
            search.space.validate(genotype)
            loop = search.loop
            draws = [loop.search.relaxation(loop.generators["alpha"]) for _ in range(30)]
            ran = {kind: {tuple(row) for d in draws for row in d[kind].active} for kind in search.space.cells}
            seen.append({kind: len(rows) for kind, rows in ran.items()})

    records = Watched()
    fit_stages(search, records)
    assert seen == [{"kernel": k, "depth": d, "expansion": e} for k, d, e in ((1, 1, 1), (2, 2, 1), (2, 2, 2))]
    assert [r["lr"] for r in records] == pytest.approx([0.08, 0.03, 0.01]) and [r["stage"] for r in records] == [1, 2, 3]
    assert search.loop.space.count() == search.space.count()


@pytest.mark.slow
def test_alphas_and_their_optimizer_go_over_and_penalties_begin_anew():
    options = (*ELASTIC, *OPENING, "relaxation=softmax", "wrapper=[steered]", "passes=attentive", "passes.pool=4", "cost=multiply_adds",
               "cost.channels=4", "penalty=[cost_limit]", "penalty.cost_limit.limit=5e5")
    cfg = composed(*options)
    search = compose.search_stages(cfg, compose.search_parts(cfg))
    fit_supernet(search.loop, 1, Records())
    search.advance()
    fit_supernet(search.loop, 1, Records())
    before = search.loop.search
    assert before.penalties[0].multiplier > 0
    search.advance()
    after = search.loop.search
    assert after.penalties[0].multiplier == 0
    for p, q in zip(after.relaxation.parameters(), before.relaxation.parameters(), strict=True):
        assert torch.equal(p, q) and p is not q
        for key, value in before.alpha_optimizer.state[q].items():
            assert torch.equal(after.alpha_optimizer.state[p][key], value)
    fit_supernet(search.loop, 1, Records())


# ---- runs that are killed, and what comes after


def test_a_loaded_state_goes_on_to_the_same_bits_across_the_sorting():
    search = staged()
    fit_supernet(search.loop, 1, Records())
    search.advance()
    fit_supernet(search.loop, 1, Records())
    saved = {name: part.state_dict() for name, part in search.stateful().items()}
    other = staged()
    for name, part in other.stateful().items():
        part.load_state_dict(saved[name])
    assert bits(other) == bits(search) and other.index == 1
    fit_stages(search, Records())
    fit_stages(other, Records())
    assert bits(other) == bits(search) and other.index == 2


@pytest.mark.slow
def test_a_run_killed_around_its_stages_ends_as_an_unbroken_one_with_a_searcher_behind_it(tmp_path):
    options = (*TINY, *OPENING, "searcher=random", "budget.trials=3")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    unbroken.mkdir(), killed.mkdir()
    assert run("train_search", *options, cwd=unbroken, report=False).code == 0
    for every, at in [("checkpoint_every_s=60", At(1, "checkpoints/epoch_00001")),  # after the first stage, before its checkpoint
                      ("checkpoint_every_s=0", At(1, "epoch_00001_step_00000003")),  # within the second
                      ("checkpoint_every_s=0", At(1, "epoch_00002_step_00000005"))]:  # within the last, nothing of which is saved
        ended = run("train_search", *options, every, "resume=auto", cwd=killed, report=False, at=at)
        assert ended.code == -signal.SIGKILL, f"{at}: {ended.err}"
    go_on("train_search", *options, where=killed)
    assert_same(outcome(finished(killed)), outcome(finished(unbroken)))
    pooled = tmp_path / "pooled"
    pooled.mkdir()
    assert run("train_search", *options, "processes=2", cwd=pooled, report=False).code == 0
    assert outcome(finished(pooled))["genotype"] == outcome(finished(unbroken))["genotype"]


RULE = ("stage.open must be a list of at least two stages, each {kind of decision: choices that are open from then on, at least 1, or "
        "all}")


@pytest.mark.parametrize(("options", "told"), [
    (("stage.keep=[2]",), "stage.keep takes choices away and stage.open adds some: pass one of both, got stage.keep=[2]"),
    (("stage.open=[{}]",), f"{RULE}, got [{{}}]"),
    (("stage.open=[{},{kernel:0}]",), f"{RULE}, got [{{}}, {{'kernel': 0}}]"),
    (("stage.epochs=[1,2]",), "stage.epochs must be one value, or one for each of the 3 stages (stage.open has 3 entries), got [1, 2]"),
    (("stage.sort=[true,false,false]",),
     "stage.sort must be true or false for each stage, and false for the first, got [True, False, False]"),
    (("stage.sort=[0,0,2]",), "stage.sort must be true or false for each stage, and false for the first, got [0, 0, 2]"),
    (("stage.lr=[0.1,-1,0.1]",), "stage.lr must be positive, got -1 for stage 2"),
    (("stage.inherit=none",), "stage.open goes on with the weights of the stage before: pass stage.inherit=weights, got none"),
    (("stage.open=[{},{kernels:all}]", "stage.sort=null", "stage.lr=null"),
     "stage.open: space ofa_mobilenet has no decisions 'kernels', it has depth, expansion, kernel; did you mean kernel?"),
])
def test_wrong_options_are_one_line(options, told):
    with pytest.raises(UsageError) as error:
        staged(*options)
    assert str(error.value) == told
