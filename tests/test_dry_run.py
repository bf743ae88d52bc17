"""The peak that `dry_run=true` tells, against the one that is measured while the same options train."""

import gc
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hydra import compose as composed
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from supernet import genotype
from supernet.app import checks, command_line, compose
from supernet.app.build import space_of
from supernet.networks.measure import LiveBytes, live_tensors, peak_memory
from supernet.runs import dry_run
from supernet.training.final import fit_final
from supernet.training.search import fit_supernet

CPU = torch.device("cpu")
TINY = ["device=cpu", "layers=3", "channels=8", "batch_size=16", "dataset.source.num_train=100", "dataset.source.num_test=32",
        "dataset=random", "epochs=2", "eval_batch_size=32"]


class Silent:
    def step(self, items, totals):
        pass

    def line(self, text):
        pass

    def epoch(self, record, genotype):
        pass


@pytest.fixture(scope="module", autouse=True)
def configs():
    command_line.register()
    with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def predicted_and_measured(make, train, steps=1):
    """Bytes beside what other tests have left behind: of `make()`'s loop as a dry run sees it, and of training for two epochs."""
    gc.collect()
    other = peak_memory(lambda: None, CPU, live_tensors(CPU))
    loop, step = make()
    predicted = dry_run.peak_of_training(step, loop.evaluate_batch, CPU, steps=steps) - other
    del loop, step
    gc.collect()
    assert peak_memory(lambda: None, CPU, live_tensors(CPU)) == other
    loop, _ = make()
    with ExitStack() as stack:
        mode = stack.enter_context(LiveBytes(live_tensors(CPU)))
        train(loop)
    return predicted, mode.peak - other


SEARCHES = {"first order": ["space.nodes=1"], "second order": ["space.nodes=1", "hypergradient=finite_difference"],
            "checkpointed": ["space.nodes=2", "checkpoint_cells=true"], "bf16": ["space.nodes=1", "amp=bf16"],
            "sampled": ["space.nodes=2", "relaxation=gumbel"],
            "evaluation dominates": ["space.nodes=1", "batch_size=2", "split.max_train=6"],
            "mostly data": ["space.nodes=1", "channels=2", "batch_size=2", "split.max_train=6", "dataset.source.num_train=3000"],
            "drop path": ["space.nodes=1", "drop_path_prob=0.4"]}
FAST = {"first order", "evaluation dominates"}


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in SEARCHES])
def test_of_a_search(name):
    def make():
        cfg = composed("search", overrides=[*TINY, "split.max_train=48", "split.max_val=48", "table=none", *SEARCHES[name]])
        checks.validate(cfg, "train_search")
        parts = compose.search_parts(cfg)
        loop = compose.search_stages(cfg, parts).loop
        parts.net.drop_path_prob = cfg.drop_path_prob
        batches = (next(iter(loop.train)), next(loop.alpha_batches))
        return loop, lambda: loop.step(*batches)

    predicted, measured = predicted_and_measured(make, lambda loop: fit_supernet(loop, 2, Silent()),
                                                 steps=dry_run.DRAWS if name == "sampled" else 1)
    assert abs(predicted - measured) <= 0.1 * measured, (predicted, measured)


@pytest.mark.parametrize("free_mib, fits", [(0, False), (1, True), (2**30, True)])
def test_what_makes_a_run_fit_is_told_where_it_does_not(monkeypatch, free_mib, fits):
    """What lives when it begins counts on both sides: here more than is free beside it."""
    net = torch.nn.Linear(1000, 1000)  # 4 MB
    x = torch.ones(2, 1000)
    monkeypatch.setattr(dry_run, "available_memory", lambda device: free_mib * 2**20)
    monkeypatch.setattr(dry_run, "multiply_adds_an_item", lambda net, example: 0)
    rows = dict(dry_run.report(net, lambda: net(x).relu_(), example=x, item="image", batch_size=2, steps_per_epoch=1, epochs=1, device=CPU,
                               remedies=["batch_size=1", "channels=8"]))
    assert rows.get("to make it fit") == (None if fits else "batch_size=1; channels=8")


def test_tensors_that_only_stand_for_others_are_not_counted():
    """As torch.compile leaves them: their bytes are symbols, and so would be every sum."""
    gc.collect()
    before = peak_memory(lambda: None, CPU, live_tensors(CPU))
    fake = FakeTensorMode(shape_env=ShapeEnv()).from_tensor(torch.ones(5, 7))
    assert fake.device == CPU
    after = peak_memory(lambda: None, CPU, live_tensors(CPU))
    assert type(after) is int and after == before


def test_memory_that_can_be_reclaimed_is_available():
    available = dry_run.available_memory(CPU)
    assert type(available) is int and 0 < available <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize("more", [["drop_path_prob=0.2"], ["checkpoint_cells=true", "optimizer@w_optimizer=adam_weights"]])
def test_of_a_final_training(more):
    found = genotype.find("darts_v2")

    def make():
        cfg = composed("final", overrides=[*TINY, "genotype=darts_v2", "split.max_train=48", *more])
        checks.validate(cfg, "train_final")
        parts = compose.final_parts(cfg, space_of(found), found)
        parts.net.drop_path_prob = cfg.drop_path_prob
        batch = next(iter(parts.loop.train))
        return parts.loop, lambda: parts.loop.step(batch)

    predicted, measured = predicted_and_measured(make, lambda loop: fit_final(loop, 2, Silent()))
    assert abs(predicted - measured) <= 0.1 * measured, (predicted, measured)
