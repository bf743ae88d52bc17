"""Every preset, shrunk by profile=smoke, through the whole search in one process."""

import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from supernet.app import compose
from supernet.app.options import CONF
from supernet.bilevel import statistics_held
from supernet.errors import UsageError
from supernet.spaces import nasbench201, toy
from supernet.spaces.named import named_space
from tests.searches import composed, searched

PRESETS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SHORTER = {"darts_pt": ["final_select.finetune_epochs=1", "final_select.finetune_last=1", "final_select.val_batches=1",
                        "split.max_train=32"],
           "darts_es": ["monitor.eigenvalue.iterations=2"], "darts_ada": ["monitor.eigenvalue.iterations=2"],
           "enas": ["hypergradient.samples=2", "final_select.n=5"], "random_ws": ["final_select.n=20"]}
NEEDS_TEXT = {name for name in PRESETS if name.endswith("_ptb")}


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in NEEDS_TEXT])
def test_smoke(preset, record_property):
    record_property("smoke", preset)
    stages, records, genotype = searched(f"experiment={preset}", "profile=smoke", *SHORTER.get(preset.rsplit("_", 1)[0], ()))
    assert [record["epoch"] for record in records] == list(range(stages.epochs)) and len(records) == max(2, len(stages.plan))
    stages.space.validate(genotype)
    for record in records:
        assert record["train_loss"] == record["train_loss"] and 0 <= record["val_accuracy"] <= 100
        assert 0 <= record["skip_share"] <= record["parameter_free_share"] + 1e-9 <= 1 + 1e-9
    alpha = list(stages.loop.search.relaxation.parameters())
    if alpha:
        assert all(torch.isfinite(p).all() for p in alpha)


@pytest.mark.parametrize("preset, hypergradient", [
    *((preset, "as published") for preset in ("gdas_cifar10", "gdas_nasbench201", "dr_nas_cifar10", "dr_nas_nasbench201")),
    ("gdas_nasbench201", "finite_difference"), ("dr_nas_nasbench201", "finite_difference"),
])
def test_presets_that_sample_draw_anew_for_the_weights(preset, hypergradient, monkeypatch):
    """In every step the alphas learn under one draw, which a finite difference's two losses share, and the weights under another."""
    override = [] if hypergradient == "as published" else [f"hypergradient={hypergradient}"]
    cfg = composed(f"experiment={preset}", "profile=smoke", *override)
    GlobalHydra.instance().clear()
    search = compose.search_stages(cfg, compose.search_parts(cfg)).loop.search
    batches = [(torch.randn(4, 1, 8, 8), torch.arange(4)) for _ in range(2)]
    forward, seen, draws = search.net.forward, [], []
    monkeypatch.setattr(search.net, "forward", lambda x, weights, **more: (seen.append(weights), forward(x, weights, **more))[1])
    for _ in range(3):
        seen.clear()
        search.step(*batches)
        flat = [torch.cat([w.ops.detach().flatten() for w in weights.values()]) for weights in seen]
        assert len(flat) == (2 if hypergradient == "as published" else 5)
        assert all(torch.equal(flat[0], other) for other in flat[1:-1]) and not torch.equal(flat[0], flat[-1])
        draws += [flat[0], flat[-1]]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


@pytest.mark.parametrize("preset", PRESETS)
def test_composes_as_published(preset):
    cfg = composed(f"experiment={preset}")
    assert cfg.epochs >= 25 and preset.rsplit("_", 1)[1] in ("cifar10", "nasbench201", "ptb", "imagenet")


@pytest.mark.parametrize("preset", ["sdarts_rs_cifar10", "sdarts_adv_cifar10"])
def test_sdarts_searches_seven_ops_without_none(preset):
    assert "none" not in (ops := composed(f"experiment={preset}").space.ops) and len(ops) == 7


# ---- in the restricted spaces

RESTRICTED = {"s1": 2, "s2": 2, "s3": 3, "s4": 2}  # the candidates of an edge
STAGED = {"dr_nas_cifar10": "[4]", "dr_nas_progressive_nasbench201": "[3]", "p_darts_cifar10": "[5, 3]"}
HAS_NONE = {"s3"}


def why_not(preset, space):
    """What a preset says to a space in which it cannot search; None where it can."""
    if preset in STAGED:
        return (f"stage.keep must begin below the {RESTRICTED[space]} candidates that an edge of space {space} has, got {STAGED[preset]}; "
                "stage.keep=[] searches in one stage")
    if preset == "gaea_nasbench201" and space not in HAS_NONE:
        return f"exclude_ops names 'none', which space {space} does not have; there are "
    if preset == "gdas_cifar10":
        return f"several ops of one edge, and those of {space} hold one: pass select=argmax"
    return None


def check_restricted(preset, space):
    """The preset searches the space as it is, whatever ops it chooses in its own, or says why it cannot."""
    options = (f"experiment={preset}", f"space={space}", *SMALL)
    if expected := why_not(preset, space):
        with pytest.raises((UsageError, ValueError), match=re.escape(expected)):
            built(*options)
        return
    parts, stages = built(*options)
    assert parts.space == named_space(space) and stages.space.fingerprint == parts.space.fingerprint
    assert {kind: spec.ops for kind, spec in parts.searched.cells.items()} == {k: spec.ops for k, spec in named_space(space).cells.items()}


OWN_SPACE = ["sdarts_rs_cifar10", "sdarts_adv_cifar10", "fair_darts_cifar10", "darts_pt_cifar10", "enas_cifar10", "gdas_cifar10",
             "dr_nas_cifar10", "gaea_nasbench201"]


@pytest.mark.parametrize("preset, space", list(zip(OWN_SPACE, itertools.cycle(RESTRICTED))))
def test_presets_that_choose_a_space_of_their_own_search_the_restricted_ones_too(preset, space):
    check_restricted(preset, space)


@pytest.mark.slow
@pytest.mark.parametrize("preset, space", list(itertools.product(PRESETS, RESTRICTED)))
def test_every_preset_searches_every_restricted_space_or_says_why_not(preset, space):
    check_restricted(preset, space)


@pytest.mark.parametrize("options", [("experiment=dr_nas_cifar10", "stage.keep=[]"), ("experiment=gdas_cifar10", "select=argmax"),
                                     ("experiment=gaea_nasbench201", "exclude_ops=[]")])
def test_what_a_refusal_advises_helps(options):
    parts, _ = built(*options, "space=s2", *SMALL)
    assert parts.space.name == "s2"


# ---- values that the official scripts have, and the parts that they need

PUBLISHED = {
    "gaea_pc_darts_cifar10": {"alpha_begin": 0, "epochs": 50, "retrain": "pc_darts"},
    "gaea_nasbench201": {"exclude_ops": ["none"], "split.shared": True, "epochs": 25, "w_schedule.over": 50, "channels": 24,
                         "hypergradient._target_": "supernet.hypergradients.first_order.first_order"},
    "proxyless_cifar10": {"epochs": 160, "alpha_begin": 40, "w_schedule.warm_up_epochs": 40, "w_schedule.warm_up_lr": 0.05,
                          "w_optimizer.nesterov": True, "w_optimizer.lr": 0.025, "clip_norm": None, "lr_minimum": 0.0,
                          "task.label_smoothing": 0.1, "alpha_task.label_smoothing": 0.0},
    "enas_nasbench201": {"alpha_optimizer.betas": [0.0, 0.999], "alpha_optimizer.eps": 1e-3, "w_schedule.over": 10,
                         "hypergradient.baseline_update": "epoch", "hypergradient.differentiate_entropy": True,
                         "relaxation.lstm_layers": 2, "relaxation.temperature": 5.0, "relaxation.favoured": [], "alpha_clip_norm": 5.0},
    "enas_cifar10": {"layers": 8, "split.train_portion": 0.9, "w_optimizer.weight_decay": 2e-4, "alpha_optimizer.eps": 1e-3,
                     "task.auxiliary_weight": 0.4, "alpha_task.auxiliary_weight": 0.0, "w_schedule.first": 10,
                     "alpha_optimizer.betas": [0.0, 0.999], "clip_norm": 5.0, "alpha_clip_norm": None, "compat.augment_val": False,
                     "compat.bn_statistics": "batch",
                     "relaxation.favoured": ["sep_conv_3x3", "sep_conv_5x5"], "hypergradient.differentiate_entropy": False},
    "random_ws_cifar10": {"epochs": 150, "channels": 24, "clip_norm": 1.0, "eval_batch_size": 64, "final_select.n": 1000,
                          "final_select.screen_batches": 10, "final_select.finalists": 10, "final_select.statistics": "running"},
    "random_ws_nasbench201": {"epochs": 250, "final_select.n": 100, "final_select.screen_batches": 1, "final_select.finalists": 1},
    "gdas_cifar10": {"layers": 6, "network.last_norm": True, "space.ops_per_edge": 2, "compat.pool_norm": "never",
                     "select._target_": "supernet.select.strongest_pairs.strongest_pairs"},
    "spos_cifar10": {"clip_norm": None, "decay_norms_and_biases": False, "budget.trials": 1000, "searcher.population": 50,
                     "searcher.parents": 10, "searcher.mutations": 25, "searcher.crossovers": 25, "searcher.mutation_prob": 0.1,
                     "evaluator.statistics": "recalibrated", "cost.channels": 32},
    "spos_nasbench201": {"budget.trials": 1000, "evaluator.statistics": "recalibrated", "final_select": None, "epochs": 250},
    "fbnet_cifar10": {"penalty.cost_log.form": "factor", "epochs": 180, "batch_size": 1000, "lr_minimum": 0.0, "clip_norm": None,
                      "w_schedule._target_": "supernet.optim.schedules.Cosine", "cost.channels": 32, "alpha_every": 4,
                      "relaxation.init_scale": 0.0, "relaxation.rest": 10},
    "snas_cifar10": {"alpha_optimizer._target_": "torch.optim.SGD", "alpha_optimizer.weight_decay": 0.0},
    "pc_darts_cifar10": {"alpha_begin": 15, "retrain": "pc_darts"},
    "p_darts_cifar10": {"retrain": "p_darts"},
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_values_of_the_official_scripts(preset):
    cfg = composed(f"experiment={preset}")
    for key, value in PUBLISHED[preset].items():
        assert OmegaConf.select(cfg, key) == value, key
    assert "momentum" not in cfg.alpha_optimizer, "of alphas no preset has any"


def built(*overrides):
    cfg = composed(*overrides)
    GlobalHydra.instance().clear()
    parts = compose.search_parts(cfg)
    return parts, compose.search_stages(cfg, parts)


SMALL = ["profile=smoke", "epochs=1", "split.max_train=32", "split.max_val=32"]


@pytest.mark.equation("proxyless")
def test_alphas_may_descend_on_another_loss_than_the_weights():
    """Without label smoothing: the plain cross entropy, here and there written out."""
    parts, stages = built("experiment=proxyless_cifar10", *SMALL)
    search = stages.loop.search
    search.net.train()
    (x, y), draw = next(stages.loop.alpha_batches), search.relaxation(torch.Generator().manual_seed(0)).detach()
    with statistics_held(search.norms):
        logits = search.net(x, draw)
    smooth, plain = (F.cross_entropy(logits, y, label_smoothing=eps) for eps in (0.1, 0.0))
    assert abs(smooth - plain) > 1e-3
    torch.testing.assert_close(search.val_loss_under((x, y), draw), plain)
    with statistics_held(search.norms):
        torch.testing.assert_close(search.w_loss((x, y), draw).loss, smooth)
    noise = search.relaxation.noise(search.generators["alpha"])
    problem = search.problem((x, y), (x, y), noise)
    torch.testing.assert_close(problem.train_loss() - problem.val_loss(), problem.train_loss() - problem.joint_loss())
    assert abs(problem.train_loss() - problem.val_loss()) > 1e-3, "the inner problem keeps the weights' loss"


@pytest.mark.equation("enas")
def test_a_search_may_train_an_auxiliary_head_that_the_alphas_do_not_see():
    parts, stages = built("experiment=enas_cifar10", *SMALL, "hypergradient.samples=2")
    search = stages.loop.search
    head = [p for name, p in search.net.named_parameters() if name.startswith("auxiliary_head")]
    assert head and search.net.auxiliary_at == 2
    batch = next(iter(stages.loop.train))
    search.w_step(batch)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head)
    with torch.no_grad():
        loss = search.val_loss_under(batch, search.relaxation.mean())
        assert loss < search.w_loss(batch, search.relaxation.mean()).loss
    with pytest.raises(UsageError, match="alpha_task.auxiliary_weight needs the head"):
        built("experiment=enas_cifar10", *SMALL, "task.auxiliary_weight=0", "alpha_task.auxiliary_weight=0.4")


@pytest.mark.equation("gaea")
def test_excluded_ops_take_no_part_and_genotypes_stay_those_of_the_space():
    parts, stages = built("experiment=gaea_nasbench201", *SMALL, "split.max_train=null", "split.max_val=null")
    column = parts.space.cells["cell"].ops.index("none")
    weights = stages.loop.search.relaxation.mean()["cell"].ops
    assert (weights[:, column] == 0).all() and torch.allclose(weights.sum(-1), torch.ones(6)) and weights.max() == 0.25
    assert not any(row[column] for row in stages.candidates["cell"])
    split = parts.loaders.split
    assert split.train.tolist() == split.val.tolist() == list(range(1437)), "all images train both"
    first, second = next(iter(stages.loop.train)), next(stages.loop.alpha_batches)
    assert not torch.equal(first[1], second[1]), "in batches of their own"
    genotype = stages.loop.genotype()
    nasbench201.make().validate(genotype)
    assert all(edge.op != "none" for edge in genotype["cell"])
    with pytest.raises(UsageError, match="exclude_ops names 'zero', which space nasbench201 does not have; there are avg_pool_3x3"):
        built("experiment=gaea_nasbench201", *SMALL, "exclude_ops=[zero]")
    with pytest.raises(ValueError, match="must keep an op"):
        built("space=toy", *SMALL, f"exclude_ops=[{','.join(toy.make().cells['cell'].ops)}]")


def test_a_search_in_stages_may_leave_ops_out():
    stages, _, genotype = searched("experiment=dr_nas_progressive_nasbench201", "profile=smoke", "exclude_ops=[avg_pool_3x3]")
    nasbench201.make().validate(genotype)
    column = nasbench201.OPS.index("avg_pool_3x3")
    assert stages.index == 1 and not any(row[column] for row in stages.candidates["cell"])
