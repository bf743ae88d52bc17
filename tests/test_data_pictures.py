"""Own pictures and arrays: any depth, transparency, what is no image, what shows nothing, and what is said of it."""

import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.data import image_files
from supernet.data.augment import Augment
from supernet.data.base import DataError
from supernet.data.describe import described
from supernet.data.folder import Folder
from supernet.data.image_file import decode
from supernet.data.images import ImageData
from supernet.data.loader import Loading
from supernet.data.npz import Npz
from supernet.data.pixels import to_8_bits
from supernet.data.split import Split

SIDE = 16


def grey(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), np.uint8)


def folder_of(root, pictures, suffix="png", **options):
    """A folder of two classes with these pictures in train, alternately."""
    for i, picture in enumerate(pictures):
        path = root / "train" / ("ant", "bee")[i % 2] / f"{i:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return Folder(str(root), image_size=SIDE, in_channels=options.pop("in_channels", 1), **options)


def of_kind(kind, values):
    """A picture of these 8-bit values, stored otherwise."""
    if kind == "sixteen":
        return Image.fromarray(values.astype(np.uint16) * 257)
    if kind == "float":
        return Image.fromarray(values.astype(np.float32) / 255)
    if kind == "alpha":  # the shape is in the alpha channel alone
        image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
        image.putalpha(Image.fromarray(255 - values))
        return image
    return Image.fromarray(values)


@pytest.mark.parametrize("kind, suffix", [("sixteen", "png"), ("sixteen", "tif"), ("sixteen", "pgm"), ("float", "tif"), ("alpha", "png")])
def test_pixels_are_those_of_the_8_bit_picture_however_they_are_stored(tmp_path, kind, suffix):
    pictures = [grey(n) for n in range(4)]
    plain = folder_of(tmp_path / "plain", [of_kind("plain", p) for p in pictures]).train()
    other = folder_of(tmp_path / kind, [of_kind(kind, p) for p in pictures], suffix).train()
    difference = (plain.pixels.int() - other.pixels.int()).abs().max()
    assert difference <= (kind == "alpha")  # what alpha is laid over is rounded by PIL


def test_16_bits_a_colour_keep_their_picture(tmp_path):
    """As PIL gives them: the high byte. A PNG of such colours is written by hand, since PIL writes none."""
    import struct
    import zlib

    values = np.stack([grey(n) for n in range(3)], -1)
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in values.astype(np.uint16))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    (tmp_path / "train" / "a").mkdir(parents=True)
    path = tmp_path / "train" / "a" / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert np.array_equal(decode(path, SIDE, 3).permute(1, 2, 0).numpy(), values)
    assert Folder(str(tmp_path), image_size=SIDE).train().stored == "16 bits"


def test_what_is_transparent_is_laid_over_the_stated_background(tmp_path):
    picture = Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 0))
    picture.paste((200, 100, 50, 255), (0, 0, SIDE, SIDE // 2))
    picture.save(tmp_path / "x.png")
    for background in (0, 255):
        pixels = decode(tmp_path / "x.png", SIDE, 3, background=background)
        assert pixels[:, 2, 2].tolist() == [200, 100, 50] and pixels[:, -2, 2].tolist() == [background] * 3
    palette = Image.new("P", (SIDE, SIDE), 0)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    assert decode(tmp_path / "p.png", SIDE, 3, background=77).unique().tolist() == [77]
    source = folder_of(tmp_path, [picture, of_kind("plain", grey())], in_channels=3)
    assert [note for note in source.train().notes if "1 of 2 images, the first" in note and "laid over grey 255" in note]


@pytest.mark.parametrize("values, options, message", [
    (grey().astype(np.int32) * 1000, {}, r"000.tif \(mode I\) holds 32 bits, of which no value is known to be white: pass dataset.source"),
    (grey().astype(np.float32), {}, r"000.tif \(mode F\) holds 32-bit floats, whose values must be 0 .black. to 1 .white., got 0 to 25\d"),
    (grey().astype(np.float32) / -255, {}, r"\(mode F\) .* got -1 to -?0"),
    (np.full((SIDE, SIDE), np.nan, np.float32), {}, r"\(mode F\) .* got nan to nan"),
    (grey().astype(np.uint16) * 16, {"white": 1000}, r"mode I;16\) holds 16 bits, whose values must be 0 .black. to 1000"),
])
def test_values_without_a_known_white_are_refused_by_file_and_mode(tmp_path, values, options, message):
    with pytest.raises(DataError, match=message) as caught:
        folder_of(tmp_path, [Image.fromarray(values)] * 2, "tif", **options).train()
    assert "\n" not in str(caught.value)


def test_white_is_what_the_option_says(tmp_path):
    want = folder_of(tmp_path / "plain", [of_kind("plain", grey(n)) for n in range(2)]).train().pixels
    for name, factor, kind in (("i", 1000, np.int32), ("f", 4, np.float32), ("u", 16, np.uint16)):
        deep = [Image.fromarray(grey(n).astype(kind) * kind(factor)) for n in range(2)]
        assert torch.equal(folder_of(tmp_path / name, deep, "tif", white=255 * factor).train().pixels, want)


def test_dark_files_of_16_bits_are_said(tmp_path):
    dark = [Image.fromarray(grey(n).astype(np.uint16) * 16) for n in range(2)]  # 12 bits, as cameras and microscopes store them
    (note,) = [n for n in folder_of(tmp_path, dark).train().notes if "largest value" in n]
    assert "is 4080 of 65535" in note and "dataset.source.white=VALUE" in note


def test_names_that_begin_with_a_dot_and_what_is_no_file_are_passed_over(tmp_path):
    source = folder_of(tmp_path, [of_kind("plain", grey(n)) for n in range(4)])
    want = source.train()
    ant = tmp_path / "train" / "ant"
    (ant / "._000.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        " + bytes(200))
    (ant / ".ipynb_checkpoints").mkdir()
    Image.fromarray(grey(9)).save(ant / ".ipynb_checkpoints" / "000.png")
    os.mkfifo(ant / "pipe.png")  # opening it would wait for ever
    (ant / "deeper").mkdir()
    Image.fromarray(grey(3)).save(ant / "deeper" / "000.png")
    (ant / "notes.txt").write_text("x")
    again = source.train()
    assert len(again) == len(want) + 1 and torch.equal(again.pixels[2], torch.from_numpy(grey(3))[None])
    assert [note for note in again.notes if "1 files among the classes are not read (1 .txt)" in note]


def test_a_set_that_shows_nothing_is_refused_by_name_and_single_ones_are_said(tmp_path, monkeypatch):
    white = Image.new("L", (SIDE, SIDE), 255)
    with pytest.raises(DataError, match=r"every pixel of 4 images is 255 of 255, .* the first is .*ant/000.png"):
        folder_of(tmp_path / "white", [white] * 4).train()
    monkeypatch.setattr(image_files, "SAMPLE", 3)
    with pytest.raises(DataError, match="every pixel of 3 images that were looked at, of 4"):
        Folder(str(tmp_path / "white"), image_size=SIDE, in_channels=1, resident_mb=0).train()
    notes = folder_of(tmp_path / "some", [*(of_kind("plain", grey(n)) for n in range(3)), white]).train().notes
    assert [note for note in notes if note.startswith("note: 1 of 4 images, the first") and "bee/003.png, are one colour" in note]
    blue = np.stack([grey(), grey(1), np.full_like(grey(), 7)], -1)
    notes = folder_of(tmp_path / "blue", [Image.fromarray(blue)] * 2, in_channels=3).train().notes
    assert [note for note in notes if "channel 2 (blue) is 7 of 255 in all of 2 images" in note]


def test_a_validation_directory_is_the_validation_part(tmp_path):
    source = folder_of(tmp_path, [of_kind("plain", grey(n)) for n in range(8)])
    folder_of(tmp_path / "other", [of_kind("plain", grey(100 + n)) for n in range(4)])
    (tmp_path / "other" / "train").rename(tmp_path / "val")
    for resident_mb in (1, 0):
        source = Folder(str(tmp_path), image_size=SIDE, in_channels=1, resident_mb=resident_mb)
        loaders = searched(source)
        assert loaders.split.train.tolist() == list(range(8)) and loaders.split.val.tolist() == list(range(8, 12))
        pixels = source.train().read(torch.tensor([8, 10, 0]))[:, 0]
        assert torch.equal(pixels, torch.from_numpy(np.stack([grey(100), grey(101), grey(0)])))
        assert any("validation part of its own: 4 images" in line for line in loaders.about)
    assert len(Folder(str(tmp_path), val=None).train()) == 8
    with pytest.raises(DataError, match="at .*mine: there is none"):
        Folder(str(tmp_path), val="mine").check()
    (tmp_path / "val" / "cat").mkdir()
    with pytest.raises(DataError, match="train and .*val must have the same classes; only one has cat"):
        source.check()


def searched(source, **split):
    data = ImageData(source, Augment())
    split = {"mode": "stratified", "train_portion": 0.5, "max_train": None, "max_val": None} | split
    generators = {name: torch.Generator().manual_seed(0) for name in ("split", "train", "val")}
    return data.search(Loading(2, 4, torch.device("cpu")), split=split, augment_val=True, generators=generators)


def test_the_order_of_sorted_files_is_refused_and_stratified_gives_each_side_every_class(tmp_path):
    source = folder_of(tmp_path, [of_kind("plain", grey(n)) for n in range(12)])
    with pytest.raises(DataError, match=r"split.mode=index_order leaves the part that trains \(6 images\) without class 'bee': pass "
                                        "split.mode=stratified"):
        searched(source, mode="index_order")
    loaders = searched(source)
    labels = source.train().labels
    assert labels[loaders.split.train].bincount().tolist() == labels[loaders.split.val].bincount().tolist() == [3, 3]


def test_what_was_read_is_described(tmp_path):
    source = folder_of(tmp_path, [of_kind("sixteen", grey(n)) for n in range(5)])
    assert described(source, source.train()) == ("images 5 of 2 classes (ant: 3, bee: 2), 16x16, 1 channel, 16 bits",)


# --- arrays -----------------------------------------------------------------------------------------------------------


def arrays(**changes):
    rng = np.random.default_rng(0)
    whole = {"train_images": rng.integers(0, 256, (12, 8, 8, 3), np.uint8), "train_labels": np.arange(12) // 4,
             "test_images": rng.integers(0, 256, (3, 8, 8, 3), np.uint8), "test_labels": np.arange(3)} | changes
    return {name: array for name, array in whole.items() if array is not None}


def npz_of(tmp_path, options=None, **changes):
    np.savez(tmp_path / "d.npz", **arrays(**changes))
    return Npz(str(tmp_path / "d.npz"), **options or {})


@pytest.mark.parametrize("convert", [lambda a: a.astype(np.uint16) * 257, lambda a: a.astype(np.float32) / 255, lambda a: a / 255])
def test_arrays_of_more_than_8_bits_are_scaled(tmp_path, convert):
    found = npz_of(tmp_path, train_images=convert(arrays()["train_images"])).train()
    assert np.array_equal(found.pixels.permute(0, 2, 3, 1).numpy(), arrays()["train_images"]) and found.stored != "8 bits"


@pytest.mark.parametrize("changes, message", [
    ({"train_images": np.arange(12 * 192).reshape(12, 8, 8, 3)}, "d.npz: train_images holds 64 bits, of which no value is known"),
    ({"train_images": np.full((12, 8, 8, 3), 2.5)}, "train_images holds 64-bit floats, whose values must be 0 .* got 2.5 to 2.5"),
    ({"train_images": np.zeros((12, 8, 8, 3), np.complex64)}, "train_images holds complex64, of which no value"),
    ({"train_images": np.zeros((12, 8, 8, 3), "U1")}, "train_images holds <U1, of which no value"),
    ({"train_images": np.zeros((12, 8, 8, 3), np.uint8)}, "every pixel of the 12 train_images is 0 of 255"),
    ({"train_images": np.zeros((12, 20, 28), np.uint8)}, r"axes NHWC, got uint8 \(12, 20, 28\): pass dataset.source.layout=NHW"),
    ({"train_images": np.zeros((12, 3, 8, 8), np.uint8)}, r"\(12, 3, 8, 8\) look like channels first: pass dataset.source.layout=NCHW"),
    ({"train_labels": np.array([0] * 11 + [10**9])}, "train_labels has 2 different labels between 0 and 1000000000: number the classes"),
    ({"train_labels": np.array([0] * 11 + [2**64 - 1], np.uint64)}, "between 0 and 18446744073709551615"),
    ({"test_labels": np.array([0, 1, 7])}, r"test_labels: labels must be in 0..2, got 0..7"),
    ({"class_names": np.arange(3)}, "class_names must be texts, one a class, got int64"),
    ({"class_names": np.array([["a", "b", "c"]])}, "class_names must be texts"),
    ({"val_images": np.zeros((2, 8, 8, 3), np.uint8)}, "it lacks val_labels"),
    ({"val_images": np.zeros((2, 4, 4, 3), np.uint8), "val_labels": np.arange(2)}, "val_images must be of the size of train_images"),
    ({"train_labels": np.arange(12.0)}, "train_labels must be 12 whole numbers, one an image, got float64"),
    ({"train_labels": np.zeros((0,), np.int64), "train_images": np.zeros((0, 8, 8, 3), np.uint8)}, "must hold images|axes NHWC"),
])
def test_arrays_that_are_not_as_they_must_be(tmp_path, changes, message):
    source = npz_of(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        source.check(), source.train(), source.test()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before(tmp_path):
    """6 GB of zeros; the file is made of its header and zeros by hand, so that the test does not need them either."""
    import io
    import tracemalloc

    np.savez(tmp_path / "d.npz", **arrays(train_images=None))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (12, 8, 20_000_000, 3), "fortran_order": False, "descr": "|u1"})
    with zipfile.ZipFile(tmp_path / "d.npz", "a", zipfile.ZIP_DEFLATED) as file:
        with file.open("train_images.npy", "w", force_zip64=True) as out:
            out.write(header.getvalue() + bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="takes 5760000000 bytes, got 1048576"):
            Npz(str(tmp_path / "d.npz")).train()
        lie(tmp_path / "d.npz", 5_760_000_000 + len(header.getvalue()))
        with pytest.raises(DataError, match=r"takes 5,493 MiB unpacked, more than dataset.source.max_mb=4096"):
            Npz(str(tmp_path / "d.npz")).train()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def lie(path, size):
    """Lets the archive's list say that train_images.npy has `size` bytes: as one of 6 GB does."""
    with zipfile.ZipFile(path, "a") as file:
        file.getinfo("train_images.npy").file_size = size
        file._didModify = True  # the list is written anew


def test_damaged_archives_are_one_line(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, **arrays())
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        for at in rng.integers(0, len(good), 3):
            damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(damaged))
        try:
            source = Npz(str(path))
            source.check(), source.train(), source.test()
        except DataError as error:  # anything else fails
            refused += 1
            assert "\n" not in str(error)
    assert refused > 75
    for size in (0, 10, len(good) // 2, len(good) - 5):
        path.write_bytes(good[:size])
        with pytest.raises(DataError):
            Npz(str(path)).check()


def test_a_damaged_split_is_one_line(tmp_path):
    for name, array in (("text", np.array(["a", "b"])), ("float", np.zeros(3)), ("big", np.arange(3, dtype=np.uint16))):
        np.savez(tmp_path / name, train=array, val=np.arange(3), digest=np.array("0" * 16), shared=np.array(False))
        with pytest.raises(DataError, match="train must be int64"):
            Split.load(tmp_path / f"{name}.npz")


def test_labels_from_1_are_said_and_are_as_many_classes_as_there_are(tmp_path):
    source = npz_of(tmp_path, train_labels=np.arange(12) // 4 + 1, test_labels=np.arange(3) + 1)
    train = source.train()
    assert source.class_names == ("1", "2", "3") and train.labels.bincount().tolist() == [4, 4, 4]
    assert source.test().labels.tolist() == [0, 1, 2] and [note for note in train.notes if "count from 1" in note]
    named = npz_of(tmp_path, {"class_names": ["a", "b", "c"]}, train_labels=np.arange(12) // 4 + 1, test_labels=np.arange(3) + 1)
    assert named.class_names == ("a", "b", "c") and named.train().labels.max() == 2
    with pytest.raises(DataError, match=r"test_labels: labels must be in 1..3, got 0..2"):
        npz_of(tmp_path, train_labels=np.arange(12) // 4 + 1).test()


def test_labels_with_gaps_are_said(tmp_path):
    about = searched(npz_of(tmp_path, train_labels=np.array([0, 1, 3, 4] * 3))).about
    assert "note: no training image has class '2'" in about and "5 classes" in about[0]
    about = searched(npz_of(tmp_path, {"class_names": list("abcde")}, train_labels=np.array([0, 1, 3] * 4))).about
    assert "note: no training image has class 'c', 'e'" in about


def test_channels_first_of_other_than_squares_is_said(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 10), np.uint8)
    notes = npz_of(tmp_path, train_images=images).train().notes
    assert [note for note in notes if "look like channels first; read as 10 channels" in note]


def test_a_constant_channel_is_said_and_divides_by_nothing(tmp_path):
    images = arrays()["train_images"].copy()
    images[..., 1] = 9
    source = npz_of(tmp_path, train_images=images)
    assert [note for note in source.train().notes if "channel 1 of train_images is 9 of 255 in every image" in note]
    x, _ = next(iter(searched(source).train))
    assert x.isfinite().all() and (x[:, 1] == 0).all()


def test_validation_arrays_are_the_validation_part(tmp_path):
    val = np.random.default_rng(5).integers(0, 256, (6, 8, 8, 3), np.uint8)
    source = npz_of(tmp_path, val_images=val, val_labels=np.arange(6) % 3)
    loaders = searched(source)
    assert len(loaders.split.train) == 12 and loaders.split.val.tolist() == list(range(12, 18)) and loaders.class_counts == (4, 4, 4)
    assert np.array_equal(source.train().read(loaders.split.val).permute(0, 2, 3, 1).numpy(), val)
    assert source.mean == pytest.approx(arrays()["train_images"].mean((0, 1, 2)) / 255)  # of the training images alone
    assert len(npz_of(tmp_path, {"val": None}, val_images=val, val_labels=np.arange(6) % 3).train()) == 12


def test_to_8_bits_against_the_definition():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 65536, (2000, 3), np.uint16)
    assert np.array_equal(to_8_bits(wide, None, "x"), wide // 257)
    part = rng.random((3000, 2))
    assert np.abs(to_8_bits(part, None, "x") - part * 255).max() <= 0.5
    assert to_8_bits(np.array([[True, False]]), None, "x").tolist() == [[255, 0]]
    assert to_8_bits(np.array([[0, 1]], np.uint8), 1, "x").tolist() == [[0, 255]]


def test_padding_is_an_eighth_of_the_side_unless_it_is_given():
    assert [Augment(pad=None).padding(*size) for size in ((32, 32), (64, 80), (16, 16), (28, 20))] == [4, 8, 2, 2]
    pixels = torch.full((64, 1, 16, 16), 255, dtype=torch.uint8)
    transform = Augment(pad=None).for_training((0.0,), (1.0,), device=torch.device("cpu"))
    black = (transform(pixels, torch.Generator().manual_seed(0)) == 0).flatten(1).float().mean(1)
    assert 0 < black.max() <= 1 - (14 / 16) ** 2
