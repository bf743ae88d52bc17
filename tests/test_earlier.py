"""Final trainings that begin with the weights of an earlier run, or learn of its network."""

import json
import shutil

import numpy as np
import pytest
import torch

from supernet.data.digits import Digits
from supernet.runs import checkpoint
from supernet.runs.weights import read_weights
from tests.helpers import At, only_error, run
from tests.runs import assert_same, finished, folders, go_on, outcome

SIZES = ("layers=3", "channels=4", "batch_size=32", "space.nodes=2", "split.max_train=96")
FINAL = ("layers=3", "channels=4", "batch_size=32", "split.max_train=96", "epochs=1", "dataset=digits")


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    where = tmp_path_factory.mktemp("search")
    ended = run("train_search", *SIZES, "epochs=1", "split.max_val=96", "compat.bn_affine=true", cwd=where, report=False)
    assert ended.code == 0, ended.err
    return finished(where)


@pytest.fixture(scope="module")
def bigger(search, tmp_path_factory):
    """A trained network of the found cell, wider than those that learn of it."""
    where = tmp_path_factory.mktemp("bigger")
    ended = run("train_final", f"genotype={search.genotype}", *FINAL, "channels=8", "epochs=2", cwd=where, report=False)
    assert ended.code == 0, ended.err
    return finished(where)


def final(search, where, *options, **how):
    return run("train_final", f"genotype={search.genotype}", *FINAL, *options, cwd=where, report=False, **how)


@pytest.fixture
def three_classes(tmp_path):
    """Digits of three classes in colour, as another data set of other images."""
    arrays = {"class_names": np.array(["naught", "one", "two"])}
    for part, images in (("train", Digits().train()), ("test", Digits().test())):
        kept = images.labels < 3
        arrays |= {f"{part}_images": images.pixels[kept].permute(0, 2, 3, 1).numpy(), f"{part}_labels": images.labels[kept].numpy()}
    np.savez(tmp_path / "three.npz", **arrays)
    return ("dataset=npz", f"dataset.path={tmp_path / 'three.npz'}", "dataset.augment.pad=1", "protocol=digits")


def test_a_training_begins_with_what_a_search_has_learned(search, tmp_path):
    ended = final(search, tmp_path, f"init={search.path}", "w_optimizer.lr=1e-30")
    assert ended.code == 0, ended.err
    assert f"init: {(line := next(x for x in ended.err.splitlines() if x.startswith('init: '))).split()[1]} of" in line
    net = checkpoint.load(search.checkpoints).state["parts"]["net"]
    kept = read_weights(finished(tmp_path).weights)["state_dict"]
    shared = [name for name in kept if name in net and kept[name].dim() > 1 and kept[name].shape == net[name].shape]
    assert len(shared) > 10 and all(torch.allclose(kept[name], net[name]) for name in shared), "such a rate moves nothing"


def test_fine_tuning_on_other_classes_begins_with_a_new_classifier_and_says_so(search, bigger, three_classes, tmp_path):
    where = tmp_path / "fine"
    where.mkdir()
    ended = final(search, where, "channels=8", f"init={bigger.weights}", *three_classes, "w_optimizer.lr=1e-30")
    assert ended.code == 0, ended.err
    assert "init: the classifier begins anew, for there are other classes (10: 0, 1, 2, ... there)" in ended.err
    before, after = (read_weights(folder.weights)["state_dict"] for folder in (bigger, finished(where)))
    assert after["classifier.weight"].shape[0] == 3
    same = [name for name in after if "classifier" not in name and after[name].dim() > 1]
    assert all(torch.allclose(after[name], before[name]) for name in same) and len(same) > 10


@pytest.mark.parametrize("kind", ["network", pytest.param("supernet", marks=pytest.mark.slow)])
def test_a_network_learns_of_a_teacher_and_goes_on_after_a_kill_to_the_same_bits(kind, search, bigger, tmp_path):
    teacher, ends = (bigger.weights if kind == "network" else search.path), []
    options = (f"genotype={search.genotype}", *FINAL, f"teacher={teacher}", "distillation.temperature=2", "checkpoint_every_s=0")
    for broken in (False, True):
        where = tmp_path / str(broken)
        where.mkdir()
        if broken:
            assert run("train_final", *options, cwd=where, report=False, at=At(3, ".pt.")).code < 0
            go_on("train_final", *options, where=where)
        else:
            ended = run("train_final", *options, cwd=where, report=False)
            assert ended.code == 0 and "teacher: " in ended.err, ended.err
        ends.append(finished(where))
    assert_same(outcome(ends[1]), outcome(ends[0]))
    alone = tmp_path / "alone"
    alone.mkdir()
    assert final(search, alone, "teacher=null").code == 0
    assert outcome(finished(alone))["weights"] != outcome(ends[0])["weights"]


def test_a_teacher_that_was_changed_meanwhile_is_told(search, bigger, tmp_path):
    shutil.copytree(bigger.path, tmp_path / "teacher")
    options = (f"genotype={search.genotype}", *FINAL, "teacher=teacher/weights.pt", "checkpoint_every_s=0")
    assert run("train_final", *options, cwd=tmp_path, report=False, at=At(3, ".pt.")).code < 0
    assert final(search, tmp_path, "channels=8", "seed=5", "name=other").code == 0
    (other,) = [f for f in folders(tmp_path) if "other" in f.path.name]
    shutil.copy(other.weights, tmp_path / "teacher" / "weights.pt")
    line = only_error(run("train_final", *options, "resume=auto", cwd=tmp_path, report=False))
    assert "teacher=teacher/weights.pt: its weights are not those with which this training began" in line


def test_what_does_not_fit_is_one_line_before_any_work(search, bigger, three_classes, tmp_path):
    where = tmp_path / "wrong"
    where.mkdir()
    for options, told in (
        ((f"teacher={bigger.weights}", *three_classes), "the classes of npz apart (3: naught, one, two), got 10: 0, 1, 2, ..."),
        (("teacher=nowhere",), "nowhere"), (("init=nowhere.pt",), "nowhere.pt: cannot read the weights"),
        ((f"init={bigger.weights}",), "that network was built with channels=8 layers=3: pass the same"),
        (("genotype=darts_v2", f"init={bigger.weights}"), "its weights are of genotype"),
        (("genotype=darts_v2", f"init={search.path}"), "this genotype is of darts"),
        ((f"teacher={bigger.weights}", "distillation.weight=1.5"), "distillation.weight must be at least 0 and at most 1, got 1.5"),
        ((f"teacher={bigger.weights}", "distillation.temperature=0"), "distillation.temperature must be positive, got 0"),
    ):
        genotype = () if options[0].startswith("genotype") else (f"genotype={search.genotype}",)
        line = only_error(run("train_final", *genotype, *FINAL, *options, cwd=where, report=False))
        assert told in line, line
    assert not list(where.iterdir())


def test_the_summary_of_a_taught_network_counts_its_own_parameters(search, bigger, tmp_path):
    assert final(search, tmp_path, f"teacher={bigger.path}").code == 0
    values = json.loads((finished(tmp_path).path / "summary.json").read_text())["values"]
    assert values["parameters"] < sum(p.numel() for p in read_weights(bigger.weights)["state_dict"].values())
