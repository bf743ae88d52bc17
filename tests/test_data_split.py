"""Splits: who trains w and who trains alpha."""

import numpy as np
import pytest
import torch

from supernet.data.base import DataError
from supernet.data.shared import shared_split
from supernet.data.split import ORDERS, Split, lacking, lend, make_split


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def labels_of(*counts, seed=0):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=generator(seed))]


@pytest.mark.parametrize("mode", ORDERS)
@pytest.mark.parametrize("portion", [0.1, 0.5, 0.73, 1.0])
def test_every_image_is_on_one_side(mode, portion):
    labels = labels_of(40, 31, 7)
    split = make_split(labels, mode=mode, train_portion=portion, generator=generator())
    assert len(split.train) == int(portion * 78)
    assert torch.equal(torch.cat([split.train, split.val]).sort().values, torch.arange(78))


def test_index_order_is_what_the_official_code_does_and_draws_nothing():
    source = generator(3)
    before = source.get_state()
    split = make_split(torch.zeros(50_000, dtype=torch.int64), mode="index_order", train_portion=0.5, generator=source)
    assert torch.equal(split.train, torch.arange(25_000))
    assert torch.equal(split.val, torch.arange(25_000, 50_000))
    assert torch.equal(source.get_state(), before)


def test_stratified_halves_of_balanced_classes_are_exactly_balanced():
    labels = labels_of(*[500] * 10)
    split = make_split(labels, mode="stratified", train_portion=0.5, generator=generator(), max_train=1000, max_val=500)
    assert labels[split.train].bincount().tolist() == [100] * 10
    assert labels[split.val].bincount().tolist() == [50] * 10


@pytest.mark.parametrize("seed", range(10))
def test_stratified_keeps_the_proportions_of_unequal_classes_to_within_two_images(seed):
    counts = torch.randint(3, 200, (7,), generator=generator(seed))
    labels = labels_of(*counts.tolist(), seed=seed)
    split = make_split(labels, mode="stratified", train_portion=0.6, generator=generator(seed), max_train=60, max_val=40)
    for side, size in ((split.train, 60), (split.val, 40)):
        want = counts * size / len(labels)
        assert (labels[side].bincount(minlength=7) - want).abs().max() <= 2


@pytest.mark.parametrize("mode", ["stratified", "shuffled"])
def test_the_generator_decides(mode):
    labels = labels_of(50, 50)
    first, again, other = (make_split(labels, mode=mode, train_portion=0.5, generator=generator(s)).digest for s in (0, 0, 1))
    assert first == again != other


def test_each_image_of_a_class_is_equally_likely_to_train():
    labels = labels_of(30, 10)
    source = generator()
    hits = torch.zeros(40)
    for _ in range(1000):
        hits[make_split(labels, mode="stratified", train_portion=0.5, generator=source).train] += 1
    assert (hits / 1000 - 0.5).abs().max() < 0.08  # five standard deviations


@pytest.mark.parametrize("portion, limits", [(0.95, {}), (0.05, {}), (0.5, {"max_train": 12, "max_val": 7}), (0.9, {"max_val": 6})])
@pytest.mark.parametrize("seed", range(5))
def test_stratified_has_every_class_on_both_sides_wherever_there_are_images_and_room(portion, limits, seed):
    labels = labels_of(200, 2, 30, 3, 2, seed=seed)
    split = make_split(labels, mode="stratified", train_portion=portion, generator=generator(seed), **limits)
    plain = make_split(labels, mode="shuffled", train_portion=portion, generator=generator(seed), **limits)
    assert (len(split.train), len(split.val)) == (len(plain.train), len(plain.val))  # nothing is lost
    assert all((labels[side].bincount(minlength=5) > 0).all() for side in (split.train, split.val))
    assert lacking(labels, split, "abcde", mode="stratified") == ()


def test_a_limit_on_validation_leaves_the_training_side_as_it_is():
    labels = labels_of(200, 2, 30, 3, 2)
    free, limited = (make_split(labels, mode="stratified", train_portion=0.9, generator=generator(), max_val=limit) for limit in (None, 6))
    assert torch.equal(free.train, limited.train) and set(limited.val.tolist()) <= set(free.val.tolist())


def test_where_no_class_is_missing_nothing_is_exchanged():
    labels = labels_of(50, 31, 7)
    order = ORDERS["stratified"].of(labels, generator())
    split = make_split(labels, mode="stratified", train_portion=0.5, generator=generator())
    assert torch.equal(split.train, order[:44].sort().values)
    poor, rich = lend(order[:44], order[44:], labels, keep=1)
    assert poor.data_ptr() == order.data_ptr()


@pytest.mark.parametrize("mode", ["index_order", "shuffled"])
def test_a_side_without_a_class_is_refused_where_it_could_be_otherwise(mode):
    labels = torch.tensor([0] * 40 + [1] * 40 + [2] * 2)
    splits = (make_split(labels, mode=mode, train_portion=0.5, generator=generator(seed)) for seed in range(20))
    split = next(s for s in splits if len(labels[s.train].unique()) < 3)
    with pytest.raises(DataError, match=f"split.mode={mode} leaves the part that .* without class .*: pass split.mode=strat") as caught:
        lacking(labels, split, ("ant", "bee", "cat"), mode=mode)
    assert "\n" not in str(caught.value)


def test_a_side_without_a_class_is_said_where_it_cannot_be_otherwise():
    labels = torch.tensor([0] * 40 + [1] * 40 + [2])
    for mode in ORDERS:
        split = make_split(labels[torch.randperm(81, generator=generator())], mode=mode, train_portion=0.5, generator=generator())
        (note,) = lacking(labels[torch.randperm(81, generator=generator())], split, "abc", mode=mode)
        assert "has no image of class 'c', for lack of images or room" in note
    few = make_split(labels, mode="stratified", train_portion=0.5, generator=generator(), max_train=1)
    assert "the part that trains (1 images) has no image of class" in lacking(labels, few, "abc", mode="stratified")[0]
    whole = make_split(labels, mode="index_order", train_portion=1.0, generator=generator())
    assert lacking(labels, whole, "abc", mode="index_order") == ()
    assert lacking(labels, whole, "abcd", mode="index_order") == ("note: no training image has class 'd'",)


def test_a_validation_part_of_its_own_is_not_divided():
    labels = torch.cat([labels_of(10, 10), labels_of(4, 4)])
    split = make_split(labels, mode="stratified", train_portion=0.5, generator=generator(), own_val=8, max_val=4)
    assert split.train.tolist() == list(range(20)) and len(split.val) == 4 and int(split.val.min()) >= 20
    assert labels[split.val].bincount().tolist() == [2, 2]
    one = torch.cat([labels_of(10, 10), labels_of(8)])
    split = make_split(one, mode="stratified", train_portion=0.5, generator=generator(), own_val=8)
    assert "that validates (8 images) has no image of class 'b'" in lacking(one, split, "ab", mode="stratified", own_val=8)[0]


def test_save_and_load_round_trip(tmp_path):
    split = make_split(labels_of(20, 20), mode="shuffled", train_portion=0.5, generator=generator())
    split.save(tmp_path / "split")
    back = Split.load(tmp_path / "split")
    assert torch.equal(back.train, split.train) and torch.equal(back.val, split.val)
    assert back.digest == split.digest and len(split.digest) == 16


def test_the_digest_tells_the_sides_apart():
    a, b = torch.tensor([1, 2]), torch.tensor([3])
    assert len({Split(a, b).digest, Split(b, a).digest, Split(torch.tensor([1]), torch.tensor([2, 3])).digest}) == 3


def test_a_changed_or_foreign_file_is_refused(tmp_path):
    path = tmp_path / "split.npz"
    np.savez(path, train=np.arange(3), val=np.arange(3, 5), digest=np.array("0" * 16), shared=np.array(False))
    with pytest.raises(DataError, match="the file was changed"):
        Split.load(path)
    path.write_bytes(b"not a split")
    with pytest.raises(DataError, match="must be a split saved as .npz"):
        Split.load(path)
    with pytest.raises(DataError, match="must be a split saved as .npz"):
        Split.load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "sorted"}, "split mode must be one of index_order, stratified, shuffled, got 'sorted'"),
        ({"train_portion": 0.0}, r"train_portion must be in \(0, 1\], got 0.0"),
        ({"train_portion": 1.1}, r"train_portion must be in \(0, 1\], got 1.1"),
        ({"train_portion": 0.01}, "train_portion 0.01 of 20 images leaves none to train on"),
        ({"max_train": 0}, "max_train must be at least 1, or none, got 0"),
        ({"max_val": -1}, "max_val must be at least 1, or none, got -1"),
    ],
)
def test_errors_say_what_was_seen(change, message):
    with pytest.raises(DataError, match=message):
        make_split(labels_of(10, 10), **{"mode": "shuffled", "train_portion": 0.5, "generator": generator(), **change})


def test_a_split_is_disjoint():
    with pytest.raises(DataError, match="each position once"):
        Split(torch.tensor([0, 1]), torch.tensor([1, 2]))


def test_all_images_may_be_on_both_sides(tmp_path):
    whole = shared_split(10, generator=torch.Generator())
    whole.save(tmp_path / "split.npz")
    assert (back := Split.load(tmp_path / "split.npz")).shared and back.digest == whole.digest
    assert whole.train.tolist() == whole.val.tolist() == list(range(10))
    some = shared_split(10, generator=torch.Generator().manual_seed(0), max_train=4, max_val=6)
    assert len(some.train) == 4 and len(some.val) == 6 and set(some.train.tolist()) < set(some.val.tolist())
    assert some.train.tolist() == sorted(some.train.tolist()) != list(range(4))
    with pytest.raises(DataError, match="each position once"):
        Split(torch.tensor([0, 0]), torch.tensor([0]), shared=True)
    with pytest.raises(DataError, match="must be int64"):
        Split(torch.tensor([0.0]), torch.tensor([1]))
