"""What holds of every penalty, monitor and selection that `conf/` offers, as a search builds it."""

import copy

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from supernet.app import compose
from supernet.monitors.base import Look, shares
from tests import groups
from tests.runs import exactly
from tests.searches import composed

SMALL = ("profile=smoke", "split.max_train=8", "split.max_val=8", "space.nodes=1",
         "space.ops=[none,skip_connect,avg_pool_3x3,sep_conv_3x3]", "layers=3", "channels=2", "batch_size=8", "threads=1", "table=none")


def loop_with(group, choice):
    """A small search with that choice, before its first step."""
    cfg = composed(*SMALL, *groups.chosen(group, choice))
    GlobalHydra.instance().clear()
    threads = torch.get_num_threads()
    try:
        return compose.search_stages(cfg, compose.search_parts(cfg)).loop
    finally:
        torch.set_num_threads(threads)


def batch_of(loop):
    return next(iter(loop.val))


@pytest.mark.parametrize("choice", groups.choices("penalty"))
def test_a_penalty_adds_a_number_that_alphas_feel_alone_and_its_state_comes_back(choice):
    loop = loop_with("penalty", choice)
    search = loop.search
    (penalty,) = search.penalties
    other = copy.deepcopy(penalty)
    search.anneal(1.0, 1)
    weights, before = search.relaxation(torch.Generator().manual_seed(0)), exactly(search.net.state_dict())
    added = penalty(torch.ones(()), weights, search.relaxation)
    assert added.shape == () and torch.isfinite(added) and added.requires_grad
    slopes = torch.autograd.grad(added, search.alpha, allow_unused=True)
    assert all(slope is None or torch.isfinite(slope).all() for slope in slopes) and any(slope is not None for slope in slopes)
    assert exactly(search.net.state_dict()) == before
    penalty.after_step(search.relaxation)
    state = exactly(penalty.state_dict())
    other.load_state_dict(penalty.state_dict())
    assert exactly(other.state_dict()) == state


@pytest.mark.parametrize("choice", groups.choices("w_penalty"))
def test_a_penalty_of_the_weights_gives_a_gradient_of_each_or_nothing(choice):
    loop = loop_with("w_penalty", choice)
    search, batch = loop.search, batch_of(loop)
    search.anneal(1.0, 1)
    before = [p.detach().clone() for p in search.alpha]
    search.w_step(batch)
    assert all(torch.isfinite(p).all() for p in search.w) and all(torch.equal(p, q) for p, q in zip(search.alpha, before))


@pytest.mark.parametrize("choice", groups.choices("monitor"))
def test_a_monitor_gives_what_it_announces_leaves_the_search_alone_and_its_state_comes_back(choice):
    loop = loop_with("monitor", choice)
    search, batch, (monitor,) = loop.search, batch_of(loop), loop.monitors.values()
    other = copy.deepcopy(monitor)
    monitor.before_epoch(search)
    search.step(batch, batch)
    monitor.after_step(search, batch, batch, 0)
    mean = search.relaxation.mean().detach()
    values = {"train_loss": 1.0, "val_loss": 1.0, **shares(loop.space, loop.genotype(), mean)}
    before = exactly([search.net.state_dict(), search.relaxation.state_dict(), [g.get_state() for g in search.generators.values()]])
    signal = monitor.after_epoch(Look(0, 2, loop.genotype(), mean, search, loop.val, values, lambda batch_size: loop.val))
    assert set(signal.values) <= set(monitor.gives)
    assert all(value == value for value in signal.values.values()) and signal.stop is None and signal.retry is None, "it warns at most"
    assert before == exactly([search.net.state_dict(), search.relaxation.state_dict(), [g.get_state() for g in search.generators.values()]])
    other.load_state_dict(monitor.state_dict())
    assert exactly(other.state_dict()) == exactly(monitor.state_dict())


@pytest.mark.parametrize("choice", groups.choices("select"))
def test_a_selection_finds_a_genotype_of_the_space_and_leaves_the_weights_alone(choice):
    loop = loop_with("select", choice)
    for seed in range(5):
        with torch.no_grad():
            for alpha in loop.search.alpha:
                alpha.copy_(torch.randn(alpha.shape, generator=torch.Generator().manual_seed(seed)))
        mean = loop.search.relaxation.mean()
        before = exactly({kind: w.ops for kind, w in mean.items()})
        genotype = loop.select(mean)
        loop.space.validate(genotype)
        assert genotype == loop.select(mean.detach()) and exactly({kind: w.ops for kind, w in mean.items()}) == before


@pytest.mark.parametrize("choice", groups.choices("final_select"))
def test_a_selection_at_the_end_finds_a_genotype_of_the_space(choice):
    small = {"perturbation": ["final_select.finetune_epochs=1", "final_select.val_batches=1"], "sampled": ["final_select.n=4"]}
    cfg = composed(*SMALL, *groups.chosen("final_select", choice),
                   *small.get(choice, ()))
    GlobalHydra.instance().clear()
    loop = compose.search_stages(cfg, compose.search_parts(cfg)).loop
    relaxation = loop.search.relaxation
    loop.space.validate(loop.finish(loop))
    assert loop.search.relaxation is relaxation
