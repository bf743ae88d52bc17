"""Loaders: what they yield, where they are in their stream, and that a search never sees a test image."""

import io
import itertools

import pytest
import torch
from PIL import Image

from supernet.data.augment import Augment
from supernet.data.base import DataError, Images
from supernet.data.digits import Digits
from supernet.data.folder import Folder
from supernet.data.loader import Forever, Loader, final_loaders, search_loaders, test_loader
from supernet.data.random import Random
from supernet.data.split import Split, make_split

CPU = torch.device("cpu")
AUGMENT = Augment(pad=1, flip=True, cutout=2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(count):
    """Images whose label and pixels say which one they are."""
    labels = torch.arange(count)
    return Images(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(count, 1, 4, 4).contiguous(), labels)


def plain(pixels, generator):
    return pixels.float()


def loader_of(images, **changes):
    settings = {"batch_size": 4, "transform": plain, "generator": generator()}
    settings = {**settings, "shuffle": True, "drop_last": False, "device": "cpu", **changes}
    return Loader(images, settings.pop("indices", torch.arange(len(images))), **settings)


def random_loader(seed=0, images=None):
    transform = AUGMENT.for_training((0.5,) * 3, (0.3,) * 3, device=CPU)
    return loader_of(images or Random(num_train=42, image_size=8).train(), transform=transform, generator=generator(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    noise = Random(num_train=42, image_size=10).train().pixels
    for i, pixels in enumerate(noise):
        path = root / "train" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return root


def assert_same_batches(got, want):
    got, want = list(got), list(want)
    assert len(got) == len(want)
    for (x, y), (x_want, y_want) in zip(got, want, strict=True):
        assert torch.equal(x, x_want) and torch.equal(y, y_want)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_a_pass_yields_each_image_once_with_its_label(drop_last, sizes):
    loader = loader_of(numbered(20), indices=torch.arange(3, 13), drop_last=drop_last)
    batches = list(loader)
    assert [len(y) for _, y in batches] == sizes and len(loader) == len(sizes) and loader.num_items == 10
    labels = torch.cat([y for _, y in batches])
    assert len(labels.unique()) == sum(sizes) and set(labels.tolist()) <= set(range(3, 13))
    assert all(torch.equal(x[:, 0, 0, 0], y.float()) for x, y in batches)


def test_without_shuffling_the_order_is_that_of_the_indices():
    loader = loader_of(numbered(20), indices=torch.tensor([5, 2, 9]), shuffle=False)
    for _ in range(2):
        assert torch.cat([y for _, y in loader]).tolist() == [5, 2, 9]


def test_each_pass_has_its_own_order_and_the_seed_decides():
    first, second = (torch.cat([y for _, y in loader]) for loader in [loader_of(numbered(100))] * 2)
    assert not torch.equal(first, second)
    assert torch.equal(torch.cat([y for _, y in loader_of(numbered(100))]), first)
    assert not torch.equal(torch.cat([y for _, y in loader_of(numbered(100), generator=generator(1))]), first)


def test_images_come_in_the_dtype_and_layout_asked_for():
    transform = AUGMENT.for_training((0.5,) * 3, (0.3,) * 3, device=CPU, channels_last=True)
    x, y = next(iter(loader_of(Random(num_train=8).train(), transform=transform, dtype=torch.float64)))
    assert x.dtype == torch.float64 and x.is_contiguous(memory_format=torch.channels_last) and y.dtype == torch.int64


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on, of the worker process
@pytest.mark.parametrize(("resident_mb", "workers"), [(1024, 0), (0, 0), (0, 1)])
@pytest.mark.parametrize("taken", [0, 1, 7, 11])  # 11 is a whole pass
def test_a_restored_loader_yields_what_remains_bit_for_bit(folder, taken, resident_mb, workers):
    images = Folder(str(folder), image_size=8, resident_mb=resident_mb).train()
    assert images.resident == bool(resident_mb)

    def make(seed):
        transform = AUGMENT.for_training((0.5,) * 3, (0.3,) * 3, device=CPU)
        return loader_of(images, transform=transform, generator=generator(seed), workers=workers)

    loader, restored = make(0), make(1)
    list(itertools.islice(loader, taken))
    buffer = io.BytesIO()
    torch.save(loader.state_dict(), buffer)
    buffer.seek(0)
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    assert restored.position == taken
    rest = 11 if taken == 11 else 11 - taken
    want = list(loader)
    assert len(want) == rest
    assert_same_batches(restored, want)
    assert_same_batches(restored, loader)  # and the pass after it


def test_streamed_and_resident_images_are_the_same(folder):
    resident, streamed = (Folder(str(folder), image_size=8, resident_mb=mb).train() for mb in (1024, 0))
    assert_same_batches(random_loader(images=streamed), random_loader(images=resident))


def test_streaming_draws_nothing_from_the_global_generator(folder):
    state = torch.get_rng_state()
    list(random_loader(images=Folder(str(folder), image_size=8, resident_mb=0).train()))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_damaged_file_is_one_line_even_from_a_worker(tmp_path):
    for name, colour in (("a", 10), ("b", 200)):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / "train" / name / "x.png")
    loader = loader_of(Folder(str(tmp_path), resident_mb=0).train(), workers=1)
    (tmp_path / "train" / "a" / "x.png").write_bytes(b"no image")  # after it was looked at
    with pytest.raises(DataError, match="x.png must be an image that can be decoded") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_a_break_loses_nothing_and_restart_gives_up_the_rest():
    loader, whole = random_loader(), list(random_loader())
    head = [next(iter(loader))]
    assert_same_batches(head + list(loader), whole)
    next(iter(loader))
    loader.restart()
    assert len(list(loader)) == len(loader)


def test_a_stream_apart_has_the_same_images_and_leaves_the_other_where_it_stands():
    loader, untouched = (loader_of(numbered(20), indices=torch.arange(3, 13)) for _ in range(2))
    for one in (loader, untouched):
        next(iter(one))
    for size, sizes in ((None, [4, 4, 2]), (6, [6, 4]), (50, [10])):
        apart = list(loader.apart(size, torch.Generator().manual_seed(7)))
        assert [len(y) for _, y in apart] == sizes and sorted(torch.cat([y for _, y in apart]).tolist()) == list(range(3, 13))
        assert all(torch.equal(x[:, 0, 0, 0], y.float()) for x, y in apart)
    assert_same_batches(loader, untouched)


def test_forever_reshuffles_at_each_pass_and_resumes():
    endless, passes = Forever(random_loader()), random_loader()
    want = [batch for _ in range(3) for batch in passes]
    assert_same_batches(itertools.islice(endless, 25), want[:25])
    resumed = Forever(random_loader(seed=1))
    next(resumed)
    resumed.load_state_dict(endless.state_dict())
    assert_same_batches(itertools.islice(resumed, 8), want[25:])
    assert_same_batches(itertools.islice(endless, 8), want[25:])
    at_the_end = Forever(random_loader(seed=2))
    at_the_end.load_state_dict(endless.state_dict())
    assert_same_batches(itertools.islice(at_the_end, 15), itertools.islice(endless, 15))


def test_a_state_of_another_loader_is_refused():
    with pytest.raises(DataError, match="one in 42 images in batches of 4, but this loader has 20 in batches of 4"):
        loader_of(numbered(20)).load_state_dict(random_loader().state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1 and workers at least 0, got 0 and 0"),
        ({"workers": -1}, "workers at least 0, got 4 and -1"),
        ({"batch_size": 21, "drop_last": True}, "at least one batch, got 20 images in batches of 21"),
        ({"indices": torch.arange(0)}, "at least one batch, got 0 images in batches of 4"),
        ({"indices": torch.tensor([0, 20])}, r"positions must be in 0..19, .* got 0..20"),
        ({"device": "meta"}, "the generator must be on the loader's device, meta, got one on cpu"),
    ],
)
def test_loader_errors_say_what_was_seen(changes, message):
    with pytest.raises(DataError, match=message):
        loader_of(numbered(20), **changes)


def halves(source, portion=0.5):
    return make_split(source.train().labels, mode="stratified", train_portion=portion, generator=generator())


def searching(source, split, **changes):
    settings = {"batch_size": 16, "augment": AUGMENT, "generators": (generator(1), generator(2)), "device": "cpu"}
    return search_loaders(source, split, **{**settings, **changes})


class Sealed(Digits):
    def test(self):
        raise AssertionError("the test part was read")


def test_a_search_never_reads_the_test_part():
    loaders = searching(Sealed(), halves(Sealed()))
    for loader in (loaders.train, loaders.val, loaders.val_eval):
        list(loader)
    training = final_loaders(Sealed(), halves(Sealed()), batch_size=16, augment=AUGMENT, generator=generator(), device="cpu")
    list(training.train)


def test_search_loaders_hold_the_two_sides_of_the_split():
    source = Digits()
    split = halves(source)
    loaders = searching(source, split, augment=Augment())
    images = source.train()
    normalise = Augment().for_evaluation(source.mean, source.std, device=CPU)
    for loader, side in ((loaders.train, split.train), (loaders.val, split.val), (loaders.val_eval, split.val)):
        batches = list(loader)
        got = sorted(row.numpy().tobytes() for x, _ in batches for row in x)
        assert got == sorted(row.numpy().tobytes() for row in normalise(images.read(side)))
    assert torch.equal(torch.cat([y for _, y in loaders.val_eval]), images.labels[split.val])


def test_augmenting_the_validation_images_is_a_switch():
    source, split = Random(num_train=64, image_size=8), Split(torch.arange(32), torch.arange(32, 64))

    def rows(loader):
        return {row.numpy().tobytes() for x, _ in loader for row in x}

    still = rows(searching(source, split).val_eval)
    assert rows(searching(source, split, augment_val=False).val) == still
    assert len(rows(searching(source, split, augment_val=True).val) & still) < 16


def test_train_and_val_draw_from_their_own_generators():
    source, split = Random(num_train=64, image_size=8), Split(torch.arange(32), torch.arange(32, 64))
    alone, beside = searching(source, split), searching(source, split)
    list(beside.val)
    assert_same_batches(alone.train, beside.train)


def test_final_loaders_have_no_val_when_the_split_keeps_none():
    source = Digits()
    everything = make_split(source.train().labels, mode="index_order", train_portion=1.0, generator=generator())
    settings = {"batch_size": 100, "augment": AUGMENT, "generator": generator(), "device": "cpu"}
    loaders = final_loaders(source, everything, **settings)
    assert loaders.val is None and loaders.train.num_items == 1437 and len(loaders.train) == 15
    loaders = final_loaders(source, halves(source, 0.9), **settings)
    assert loaders.val.num_items == 144 and len(loaders.val) == 1


def test_the_test_loader_yields_the_test_part_in_order():
    loader = test_loader(Digits(), batch_size=100, device="cpu")
    assert torch.equal(torch.cat([y for _, y in loader]), Digits().test().labels)
    cropped = test_loader(Digits(), batch_size=100, device="cpu", augment=Augment(crop=6))
    assert next(iter(cropped))[0].shape == (100, 1, 6, 6)


@pytest.mark.parametrize(
    ("portion", "batch_size", "message"),
    [
        (0.5, 800, "batch_size must be at most the 718 training images of the split, got 800"),
        (0.9, 500, "batch_size must be at most the 144 validation images of the split, got 500"),
        (1.0, 16, "batch_size must be at most the 0 validation images of the split, got 16"),
    ],
)
def test_a_batch_larger_than_a_side_is_refused(portion, batch_size, message):
    with pytest.raises(DataError, match=message):
        searching(Digits(), halves(Digits(), portion), batch_size=batch_size)


def test_alternating_flips_show_every_image_both_ways_in_two_passes_and_go_on_after_a_break():
    pixels = torch.arange(20 * 3, dtype=torch.uint8).view(20, 1, 1, 3)
    images = Images(pixels, torch.arange(20))

    def made():
        return loader_of(images, alternate_flips=True)

    def mirrored(batches):
        found = torch.zeros(20, dtype=torch.bool)
        for x, y in batches:
            assert all(torch.equal(one, pixels[n].float()) or torch.equal(one, pixels[n].float().flip(-1)) for one, n in zip(x, y))
            found[y] = (x != pixels[y].float()).flatten(1).any(1)
        return found

    loader, broken, again = made(), made(), made()
    first, second, third = (mirrored(loader) for _ in range(3))
    assert 4 < first.sum() < 16 and torch.equal(second, ~first) and torch.equal(third, first)
    mirrored(broken)
    begun = [batch for _, batch in zip(range(2), broken)]  # in this order, or a third is taken
    again.load_state_dict(broken.state_dict())
    assert torch.equal(mirrored([*begun, *again]), second)
    loader.restart()
    assert torch.equal(mirrored(loader), first), "a training of its own begins with the first pass"
