"""Searches on data of one's own, as scripts: what a user types, and what is printed and kept."""

import numpy as np
import pytest
from PIL import Image

from supernet import notation
from supernet.genotype import Genotype
from tests.helpers import At, only_error, run
from tests.runs import assert_same, finished, outcome

CLASSES = ("ant", "bee", "cat", "dog")
SMALL = ("space.nodes=1", "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "layers=3", "channels=2", "batch_size=8")


def stripes(rng, k, side=16):
    """A picture of class k, as of ../shared/faults/make_images.py."""
    y, x = np.mgrid[:side, :side]
    wave = (x, y, x + y, x - y)[k] + rng.integers(6)
    return np.clip(127 + 90 * np.sin(wave) + rng.normal(0, 15, (side, side)), 0, 255).astype(np.uint8)


def make_folder(root, train=20, test=5):
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for k, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(stripes(rng, k)).convert("RGB").save(root / part / name / f"{i:03d}.png")
    return f"dataset.root={root}"


@pytest.mark.slow
def test_weights_and_alphas_of_a_search_on_sorted_files_see_every_class(tmp_path):
    root = make_folder(tmp_path / "data")
    sizes = "dataset.image_size=16", "epochs=12", "layers=3", "channels=4", "batch_size=16", "dataset.augment.flip=false"
    ended = run("train_search", "dataset=folder", root, *sizes, cwd=tmp_path, report=False)
    assert ended.code == 0 and "images 80 of 4 classes (20 each), 16x16, 3 channels, 8 bits" in ended.out + ended.err
    last = outcome(finished(tmp_path))["metrics"][-1]
    assert last["train_accuracy"] > 80 and last["val_accuracy"] > 60  # it was 100 and 0


def test_sorted_files_in_their_order_are_refused_before_any_work(tmp_path):
    root = make_folder(tmp_path / "data", train=4, test=1)
    ended = run("train_search", "dataset=folder", root, "dataset.image_size=16", "protocol=cifar10", *SMALL, cwd=tmp_path)
    assert "split.mode=index_order leaves the part that trains (8 images) without class 'cat', 'dog'" in only_error(ended)
    assert not (tmp_path / "runs").exists()


def make_arrays(path):
    """Sorted, unequal classes that count from 1, grey and without an axis for it."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 12, 4])
    images = np.stack([stripes(rng, k, 12) for k in labels])
    np.savez(path, train_images=images, train_labels=labels + 1, test_images=images[::4], test_labels=labels[::4] + 1)
    return "dataset=npz", f"dataset.path={path}", "dataset.source.layout=NHW"


def test_a_killed_search_with_balanced_batches_and_weighted_classes_ends_as_an_unbroken_one(tmp_path):
    options = (*make_arrays(tmp_path / "d.npz"), "dataset.sampling=balanced", "task.class_weights=balanced", *SMALL, "epochs=2",
               "checkpoint_every_s=0")
    (tmp_path / "unbroken").mkdir(), (tmp_path / "killed").mkdir()
    ended = run("train_search", *options, cwd=tmp_path / "unbroken", report=False)
    assert ended.code == 0, ended.err
    said = ended.out + ended.err
    assert "images 56 of 3 classes (1: 40, 2: 12, 3: 4), 12x12, 1 channel, 8 bits" in said and "train_labels count from 1" in said
    wanted = finished(tmp_path / "unbroken")
    assert run("train_search", *options, cwd=tmp_path / "killed", report=False, at=At(9, "checkpoints")).code < 0
    assert run("train_search", *options, "resume=auto", cwd=tmp_path / "killed", report=False).code == 0
    assert_same(outcome(finished(tmp_path / "killed")), outcome(wanted))
    # what was found is kept in the notation of the field too
    assert notation.find(str(wanted.path / "genotype.txt")).cells == Genotype.load(wanted.genotype).cells
