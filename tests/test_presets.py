"""Every preset, shrunk by profile=smoke, through the whole search in one process."""

import itertools

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from supernet.app import compose
from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.options import CONF
from supernet.training.stages import fit_stages

PRESETS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SHORTER = {"darts_pt": ["final_select.finetune_epochs=1", "final_select.finetune_last=1", "final_select.val_batches=1",
                        "split.max_train=32"],
           "darts_es": ["monitor.eigenvalue.iterations=2"], "darts_ada": ["monitor.eigenvalue.iterations=2"],
           "enas": ["hypergradient.samples=2", "final_select.n=5"], "random_ws": ["final_select.n=20"], "spos": ["final_select.n=20"]}
NEEDS_TEXT = {name for name in PRESETS if name.endswith("_ptb")}


class Records(list):
    def __init__(self):
        super().__init__()
        self.lines = []

    def step(self, items, totals):
        pass

    def line(self, text):
        self.lines.append(text)

    def working(self):
        pass

    def epoch(self, record, genotype):
        self.append(record)


def composed(*overrides):
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra_compose("search", overrides=list(overrides))
        validate(cfg, "train_search")
        return cfg


def searched(*overrides):
    cfg = composed(*overrides)
    GlobalHydra.instance().clear()
    threads = torch.get_num_threads()
    try:
        parts = compose.search_parts(cfg)
        stages = compose.search_stages(cfg, parts)
        records = Records()
        fit_stages(stages, records)
        return stages, records, stages.loop.genotype()
    finally:
        torch.set_num_threads(threads)


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
    assert cfg.epochs >= 25 and preset.rsplit("_", 1)[1] in ("cifar10", "nasbench201", "ptb")


@pytest.mark.parametrize("preset", ["sdarts_rs_cifar10", "sdarts_adv_cifar10"])
def test_sdarts_searches_seven_ops_without_none(preset):
    assert "none" not in (ops := composed(f"experiment={preset}").space.ops) and len(ops) == 7
