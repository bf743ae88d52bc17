"""Folders of larger photographs: parts cut out of files, colour jitter, the published schedules, and a run that is broken off."""

import colorsys
import math

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.options import CONF
from supernet.data.augment import Augment
from supernet.data.crops import ResizedCrop, of_batch
from supernet.data.folder import Folder
from supernet.data.images import ImageData
from supernet.data.jitter import ColorJitter, turn_hue
from supernet.data.loader import Loading
from supernet.optim.schedules import Cosine, LinearWithTail, Rising, Step
from tests.helpers import At, run
from tests.photographs import photographs
from tests.runs import assert_same, finished, go_on, outcome

CPU = torch.device("cpu")
SMALL = ("genotype=darts_v2", "dataset=imagenet", "recipe=imagenet", "dataset.image_size=40", "dataset.augment.crop=32", "layers=2",
         "channels=2", "batch_size=8", "eval_batch_size=16", "epochs=2", "w_optimizer.lr=0.05", "threads=1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("photographs"))


def numbers(seed=0, batch=500, crop=ResizedCrop()):  # noqa: B008
    return crop.draw(batch, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("height, width", [(300, 400), (224, 224), (40, 1000)])
def test_boxes_lie_within_and_have_the_areas_and_ratios_that_are_asked_for(height, width):
    crop = ResizedCrop(smallest=0.1, widest=1.5)
    boxes = [crop.box(row, height, width) for row in numbers()]
    assert all(top >= 0 and left >= 0 and top + high <= height and left + wide <= width for top, left, high, wide in boxes)
    ratios = [math.log(wide / high) for _, _, high, wide in boxes]
    assert max(map(abs, ratios)) < math.log(1.5) + 0.05
    if height < 100:
        assert (0, 470, 40, 60) in boxes, "no box fits: the centre, as wide as the ratio lets it be"
        return
    areas = [high * wide / height / width for *_, high, wide in boxes]
    assert 0.09 < min(areas) < 0.15 and max(areas) > 0.85
    if height == width:  # else boxes that are as long as the image is more often fit
        assert np.mean(ratios) == pytest.approx(0, abs=0.03)
    tops = [top / (height - high) for top, _, high, _ in boxes if height > high]
    assert np.mean(tops) == pytest.approx(0.5, abs=0.05)


def test_a_box_is_cut_from_the_file_before_it_is_resized(root):
    part, crop = Folder(str(root), image_size=40, resident_mb=0, val=None, test="val").train(), ResizedCrop()
    drawn = of_batch(crop, seed=5, batch=2, size=4)
    got = part.crops(torch.tensor([0, 13, 20, 35]), crop, drawn, 32)
    for image, index, row in zip(got, (0, 13, 20, 35), drawn):
        with Image.open(part.files.open(index)) as file:
            top, left, high, wide = crop.box(row, file.height, file.width)
            want = file.crop((left, top, left + wide, top + high)).resize((32, 32), Image.Resampling.BILINEAR)
        assert torch.equal(image, torch.from_numpy(np.asarray(want).copy()).permute(2, 0, 1))
    resident = Folder(str(root), image_size=40, val=None, test="val").train()
    assert resident.resident and resident.crops(torch.tensor([0, 1]), crop, drawn, 32).shape == (2, 3, 32, 32)


def loaders(root, workers, resident_mb=0):
    source = Folder(str(root), image_size=40, resident_mb=resident_mb, val=None, test="val")
    augment = Augment(flip=True, crop=32, resized_crop=ResizedCrop(), jitter=ColorJitter(0.4, 0.4, 0.4, 0.2))
    generators = {"split": torch.Generator().manual_seed(1), "train": torch.Generator().manual_seed(2)}
    return ImageData(source, augment).final(Loading(8, 16, CPU, workers=workers), generators=generators,
                                            split={"mode": "stratified", "val_portion": 0.1, "max_train": None})


def test_workers_draw_nothing_and_a_pass_goes_on_where_it_was_left(root):
    whole = [[(x.clone(), y) for x, y in loader] for loader in (loaders(root, 0).train, loaders(root, 2).train)]
    again = loaders(root, 0).train
    second = [list(again), list(again)]
    assert not torch.equal(second[0][0][0], second[1][0][0])
    for one, other, third in zip(*whole, second[0], strict=True):
        assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(one, other, third))
    broken, late = loaders(root, 2).train, loaders(root, 0).train
    for n, _ in enumerate(broken):
        if n == 1:
            break
    late.load_state_dict(broken.state_dict())
    rest = list(late)
    assert len(rest) == len(whole[0]) - 2
    assert all(torch.equal(a, b) for got, want in zip(rest, whole[0][2:]) for a, b in zip(got, want))


def test_networks_are_built_for_what_is_cut_out(root):
    made = loaders(root, 0)
    assert next(iter(made.train))[0].shape == (8, 3, 32, 32) == (8, *next(iter(made.val))[0].shape[1:])
    data = ImageData(Folder(str(root), image_size=40, val=None, test="val"), Augment(crop=32))
    assert data.sizes["image_size"] == (32, 32) and data.example(CPU).shape == (1, 3, 32, 32)


def test_turning_the_hue_is_what_hsv_says():
    pixels = torch.randint(256, (4, 3, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[0, :, 0, 0] = 90  # grey has no hue
    turn = torch.tensor([0.0, 0.13, -0.4, 0.5])
    got = turn_hue(pixels, turn)
    for n in range(4):
        for y in range(5):
            for x in range(6):
                hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[n, :, y, x] / 255).tolist())
                want = colorsys.hsv_to_rgb((hue + turn[n].item()) % 1, saturation, value)
                assert (got[n, :, y, x] - torch.tensor(want) * 255).abs().max() < 0.51
    grey = pixels[:, :1]
    assert torch.equal(turn_hue(grey, turn), grey)


def test_jitter_draws_factors_around_one_and_leaves_out_what_is_not_asked_for():
    pixels = torch.randint(256, (300, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    drawn = ColorJitter(0.4, 0.2, 1.5, 0.1).draw(300, torch.Generator().manual_seed(1))
    for n, (low, high) in enumerate(((0.6, 1.4), (0.8, 1.2), (0.0, 2.5), (-0.1, 0.1))):
        assert low <= drawn[:, n].min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < drawn[:, n].max() <= high
    assert torch.equal(ColorJitter().apply(pixels, drawn), pixels)
    assert not torch.equal(ColorJitter(brightness=0.4).apply(pixels, drawn), pixels)


def published_linear(start, epoch, epochs):
    """As yuhuixu1993/PC-DARTS, train_imagenet.py, computes it for batches of 1024."""
    rate = start * (epochs - 5 - epoch) / (epochs - 5) if epochs - epoch > 5 else start * (epochs - epoch) / ((epochs - 5) * 5)
    return rate * (epoch + 1) / 5.0 if epoch < 5 else rate


def test_schedules_are_those_of_the_official_codes():
    schedule = Rising(LinearWithTail(tail=5), warm_up_epochs=5)
    for epoch in range(250):
        assert schedule(0.5, epoch, 250) == pytest.approx(published_linear(0.5, epoch, 250), rel=1e-12)
        assert Step()(0.1, epoch, 250) == pytest.approx(0.1 * 0.97**epoch)
    assert Step(gamma=0.5, every=3)(1.0, 7, 9) == 0.25
    assert Rising(Cosine(), 5)(0.5, 2, 50) == pytest.approx(Cosine()(0.5, 2, 50) * 3 / 5)
    assert [LinearWithTail()(1.0, e, 4) for e in range(4)] == [1, 0.75, 0.5, 0.25]


@pytest.fixture(scope="module")
def composed():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda script, *options: compose(script, overrides=list(options))
    GlobalHydra.instance().clear()


def test_the_published_trainings_and_the_published_search(composed):
    cfg = composed("final", "dataset=imagenet", "recipe=imagenet")
    validate(cfg, "train_final")
    assert (cfg.epochs, cfg.layers, cfg.channels, cfg.batch_size, cfg.w_optimizer.lr, cfg.w_optimizer.weight_decay) == (
        250, 14, 48, 1024, 0.5, 3e-5)
    assert (cfg.task.label_smoothing, cfg.task.auxiliary_weight, cfg.drop_path_prob, cfg.dataset.augment.crop) == (0.1, 0.4, 0.0, 224)
    assert dict(cfg.dataset.augment.jitter) | {"_target_": 0} == {"_target_": 0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4,
                                                                  "hue": 0.2}
    darts = composed("final", "dataset=imagenet", "recipe=imagenet_darts", "batch_size=128")
    validate(darts, "train_final")
    assert (darts.w_optimizer.lr, darts.w_schedule.gamma, darts.w_schedule.every, darts.task.label_smoothing) == (0.1, 0.97, 1, 0.1)
    search = composed("search", "experiment=pc_darts_imagenet")
    validate(search, "train_search")
    assert (search.epochs, search.batch_size, search.w_optimizer.lr, search.alpha_optimizer.lr, search.alpha_begin) == (
        50, 1024, 0.5, 6e-3, 35)
    assert search.split.portion * search.split.train_portion == pytest.approx(0.1)
    assert search.split.portion * (1 - search.split.train_portion) == pytest.approx(0.025)


def test_a_search_takes_its_portion_of_every_class(tmp_path):
    folder = photographs(tmp_path, per_class=80, sizes=((10, 10),))
    source = Folder(str(folder), image_size=10, val=None, test="val")
    generators = {name: torch.Generator().manual_seed(n) for n, name in enumerate(("split", "train", "val"))}
    found = ImageData(source, Augment()).search(
        Loading(4, 4, CPU), augment_val=True, generators=generators,
        split={"mode": "stratified", "train_portion": 0.8, "portion": 0.125, "max_train": None, "max_val": None})
    labels = source.train().labels
    assert torch.bincount(labels[found.split.train]).tolist() == [8, 8, 8]
    assert torch.bincount(labels[found.split.val]).tolist() == [2, 2, 2]


def ends_alike(options, tmp_path, at, workers):
    """Broken off at a write and gone on with by workers, a training ends as the unbroken one."""
    ends = []
    for broken in (False, True):
        where = tmp_path / str(broken)
        where.mkdir()
        if broken:
            assert run("train_final", *options, cwd=where, report=False, at=At(at, ".pt.")).code < 0
            go_on("train_final", *options, f"workers={workers}", where=where)
        else:
            ended = run("train_final", *options, cwd=where, report=False)
            assert ended.code == 0, ended.err
        ends.append(finished(where))
    assert_same(outcome(ends[1]), outcome(ends[0]))


def test_a_training_broken_off_within_an_epoch_ends_as_an_unbroken_one(root, tmp_path):
    ends_alike((*SMALL, f"dataset.root={root}", "checkpoint_every_s=0"), tmp_path, at=7, workers=1)


@pytest.mark.slow
def test_a_few_hundred_photographs_at_the_published_size(tmp_path):
    """224x224 through the stem of ImageNet, two epochs, broken off in the middle."""
    folder = photographs(tmp_path / "photographs", per_class=80, test=10, sizes=((320, 260), (256, 400)))
    ends_alike(("genotype=darts_v2", "dataset=imagenet", "recipe=imagenet", f"dataset.root={folder}", "layers=3", "channels=4",
                "batch_size=32", "eval_batch_size=32", "epochs=2", "w_optimizer.lr=0.05", "checkpoint_every_s=0"),
               tmp_path, at=9, workers=2)
