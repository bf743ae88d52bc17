"""Recipes of final training: what each is made of, that its parts can be switched one by one, and that a broken one goes on bit for bit."""

import json
import signal

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.compose import final_parts
from supernet.app.options import CONF
from supernet.data.digits import Digits
from supernet.errors import UsageError
from supernet.genotype import find
from supernet.optim.schedules import CosineAfterRise, Triangle
from supernet.runs import checkpoint
from supernet.runs.journal import Journal
from supernet.runs.loading import load
from supernet.runs.weights import read_weights
from supernet.spaces import darts
from supernet.training.final import fit_final
from supernet.training.records import Silent
from tests import groups
from tests.helpers import At, run
from tests.runs import assert_same, finished, go_on, outcome

SMALL = ("genotype=darts_v2", "dataset=digits", "layers=2", "channels=4", "epochs=2", "split.max_train=96", "batch_size=32", "threads=1",
         "drop_path_prob=0.2", "dataset.augment.cutout=2")


@pytest.fixture(scope="module")
def composed():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        def made(*options):
            cfg = compose("final", overrides=list(options))
            validate(cfg, "train_final")
            return cfg
        yield made
    GlobalHydra.instance().clear()


def trained(cfg):
    parts = final_parts(cfg, darts.make(), find("darts_v2"))
    fit_final(parts.loop, cfg.epochs, Silent())
    return parts


PUBLISHED = {"clip_norm": 5.0, "lr_minimum": 0.0, "drop_path_prob": 0.2, "w_optimizer.lr": 0.025, "w_optimizer.weight_decay": 3e-4,
             "w_optimizer.momentum": 0.9, "dataset.augment.cutout": 16, "task.label_smoothing": 0.0, "task.auxiliary_weight": 0.4,
             "lr_every": "epoch", "whiten_first": False, "decay_norms_and_biases": True}


def test_the_recipe_that_nobody_chose_is_the_published_one(composed):
    cfg = composed("dataset=cifar10")
    assert OmegaConf.to_container(cfg) == OmegaConf.to_container(composed("dataset=cifar10", "recipe=darts"))
    assert {key: OmegaConf.select(cfg, key) for key in PUBLISHED} == PUBLISHED
    assert cfg.w_optimizer._target_ == "torch.optim.SGD" and cfg.w_schedule._target_.endswith(".Cosine")
    assert cfg.average._target_.endswith(".NoAverage") and "policy" not in cfg.dataset.augment and "mixing" not in cfg.task
    assert composed("dataset=text").average._target_.endswith(".NoAverage")
    assert composed("dataset=ptb").average._target_.endswith(".NonMonotonicAverage")


@pytest.mark.parametrize("switch, key, ends", [
    ("policy=none", "dataset.augment.policy", None), ("policy=rand_augment", "dataset.augment.policy", ".RandAugment"),
    ("mixing=none", "task.mixing", None), ("mixing=cutmix", "task.mixing", ".CutMix"), ("average=none", "average", ".NoAverage"),
    ("schedule@w_schedule=constant", "w_schedule", ".Constant"),
])
def test_a_part_of_a_recipe_is_switched_by_its_own_option_and_nothing_else_changes(composed, switch, key, ends):
    whole, other = (OmegaConf.to_container(composed("dataset=cifar10", "recipe=modern", *more), resolve=True) for more in ((), (switch,)))
    node = OmegaConf.select(OmegaConf.create(other), key)
    assert node is None if ends is None else node["_target_"].endswith(ends)
    for part in (whole, other):
        holder = part
        *above, last = key.split(".")
        for name in above:
            holder = holder[name]
        holder.pop(last, None)
        part["dataset"]["data"].pop("augment")  # the same node once more
    assert whole == other


@pytest.mark.parametrize("recipe", groups.choices("recipe"))
def test_every_recipe_learns_digits_the_same_way_twice(composed, recipe):
    if recipe.startswith("imagenet"):
        pytest.skip("of files of larger images: tests/test_imagenet.py")
    cfg = composed(*SMALL, f"recipe={recipe}", "seed=3")
    first, second = trained(cfg), trained(cfg)
    for (name, one), other in zip(first.net.state_dict().items(), second.net.state_dict().values()):
        assert torch.equal(one, other), name
    assert all(torch.isfinite(p).all() for p in first.net.parameters())


@pytest.mark.parametrize("recipe", ["modern", "fast"])
def test_a_training_that_is_killed_within_an_epoch_ends_as_an_unbroken_one(recipe, tmp_path):
    options = (*SMALL, f"recipe={recipe}", "checkpoint_every_s=0")
    ends = []
    for broken in (False, True):
        where = tmp_path / str(broken)
        where.mkdir()
        if broken:
            ended = run("train_final", *options, cwd=where, report=False, at=At(7, ".pt."))
            assert ended.code == -signal.SIGKILL, ended.err
            go_on("train_final", *options, where=where)
        else:
            assert run("train_final", *options, cwd=where, report=False).code == 0
        ends.append(finished(where))
    assert_same(outcome(ends[1]), outcome(ends[0]))
    kept = read_weights(ends[0].weights)
    assert ("exponential moving average" in kept["weights"]) == (recipe == "modern")
    last = Journal.read(ends[0].metrics)[-1]
    assert {"train_loss", "lr"} <= last.keys()


def test_a_network_is_tested_with_the_weights_that_are_kept(tmp_path):
    """The test accuracy in summary.json is that of weights.pt, which with an average are not the last ones."""
    assert run("train_final", *SMALL, "recipe=modern", cwd=tmp_path, report=False).code == 0
    folder = finished(tmp_path)
    values = json.loads((folder.path / "summary.json").read_text())["values"]
    test, loaded = Digits().test(), load(folder.path)
    logits = loaded.network(loaded.preprocess(test.pixels), loaded.weights)
    assert 100 * (logits.argmax(1) == test.labels).double().mean().item() == pytest.approx(values["test_accuracy"], abs=1e-9)
    last = checkpoint.load(folder.checkpoints).state["parts"]["net"]
    kept = read_weights(folder.weights)["state_dict"]
    different = [name for name in kept if kept[name].is_floating_point() and not torch.equal(kept[name], last[name])]
    assert "classifier.weight" in different and any("running_mean" in name for name in different)
    assert values["weights"].startswith("the exponential moving average")


def test_a_rise_and_a_cosine_meet_at_the_peak():
    schedule = CosineAfterRise(share=0.1, begin=0.2, minimum=0.01)
    assert [schedule(1.0, e, 20) for e in (0, 1, 2, 11, 20)] == pytest.approx([0.2, 0.6, 1.0, 0.505, 0.01])


def test_a_triangle_goes_up_and_down_in_straight_lines():
    schedule = Triangle(share=0.25, begin=0.2, end=0.1)
    assert [schedule(2.0, e, 8) for e in (0, 1, 2, 5, 8)] == pytest.approx([0.4, 1.2, 2.0, 1.1, 0.2])


def test_the_rate_moves_within_an_epoch_where_it_is_asked_to(composed):
    for every, distinct in (("epoch", 1), ("step", 3)):
        parts, seen = final_parts(composed(*SMALL, f"lr_every={every}"), darts.make(), find("darts_v2")), []
        step = parts.loop.step
        parts.loop.step = lambda batch: seen.append(parts.loop.optimizer.param_groups[0]["lr"]) or step(batch)  # noqa: B023
        fit_final(parts.loop, 1, Silent())
        assert len(seen) == 3 and len(set(seen)) == distinct
        want = [parts.loop.rate(n / 3 if every == "step" else 0, 1) for n in range(3)]
        assert seen == pytest.approx(want)


def test_a_recipe_of_images_says_so_where_there_is_text(composed):
    with pytest.raises(UsageError, match=r"task\.\w+: .*LanguageModel has no such option"):
        composed("dataset=text", "recipe=modern")
    with pytest.raises(UsageError, match="lr_every must be epoch or step, got day"):
        composed("dataset=digits", "lr_every=day")
    with pytest.raises(UsageError, match="compat.scheduler_step=end, got start"):
        composed("dataset=digits", "lr_every=step", "compat.scheduler_step=start")
