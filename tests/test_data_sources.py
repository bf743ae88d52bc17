"""Sources: what they read, what they refuse, and their configs. Real data is used where it lies, or where SUPERNET_DATA says."""

import gzip
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from supernet.data import cifar, cifar10, cifar100, fashion_mnist
from supernet.data import download as download_module
from supernet.data.augment import Augment
from supernet.data.base import DataError, Images
from supernet.data.cifar10 import CIFAR10
from supernet.data.cifar100 import CIFAR100
from supernet.data.digits import Digits
from supernet.data.fashion_mnist import FashionMNIST
from supernet.data.folder import Folder
from supernet.data.image_file import decode
from supernet.data.loader import search_loaders
from supernet.data.npz import Npz
from supernet.data.random import Random
from supernet.data.split import make_split
from supernet.data.statistics import mean_and_std

REPO = Path(__file__).parent.parent
ROOTS = [Path(os.environ["SUPERNET_DATA"])] if "SUPERNET_DATA" in os.environ else [REPO / "data", REPO.parent / "shared" / "data"]


def real(name):
    """The root under which the file `name` lies, or skip."""
    for root in ROOTS:
        if (root / name).is_file():
            return root
    pytest.skip(f"needs {name} under data/ or under SUPERNET_DATA")


def check_facts(source, counts_train, counts_test):
    source.check()
    train, test = source.train(), source.test()
    for part, counts in ((train, counts_train), (test, counts_test)):
        assert part.labels.bincount().tolist() == counts
        assert part.pixels.shape[1:] == (source.in_channels, *source.image_size)
        assert part.pixels.is_contiguous()
    assert len(source.class_names) == source.num_classes == len(counts_train)
    mean, std = mean_and_std(train.pixels)
    assert source.mean == pytest.approx(mean, abs=1e-5) and source.std == pytest.approx(std, abs=1e-5)
    return train, test


def no_test_image_is_searched(source):
    split = make_split(source.train().labels, mode="index_order", train_portion=0.5, generator=torch.Generator())
    generators = (torch.Generator(), torch.Generator())
    loaders = search_loaders(source, split, batch_size=256, augment=Augment(), generators=generators, device="cpu")
    normalise = Augment().for_evaluation(source.mean, source.std, device=torch.device("cpu"))
    forbidden = {row.tobytes() for row in normalise(source.test().pixels).numpy()}
    for loader in (loaders.train, loaders.val, loaders.val_eval):
        seen = [row.tobytes() for x, _ in loader for row in x.numpy()]
        assert len(seen) == loader.num_items and forbidden.isdisjoint(seen)


def test_mean_and_std_against_numpy():
    pixels = Random(num_train=20, image_size=5).train().pixels
    values = pixels.numpy() / 255
    mean, std = mean_and_std(pixels)
    assert mean == pytest.approx(values.mean((0, 2, 3)), abs=1e-12) and std == pytest.approx(values.std((0, 2, 3)), abs=1e-12)


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits():
    train, test = check_facts(
        Digits(), [143, 145, 142, 146, 145, 146, 144, 143, 140, 143], [35, 37, 35, 37, 36, 36, 37, 36, 34, 37]
    )
    assert set(train.pixels.unique().tolist()) == {round(255 * ink / 16) for ink in range(17)}
    no_test_image_is_searched(Digits())


def test_digits_can_be_told_apart():
    train, test = Digits().train(), Digits().test()
    nearest = torch.cdist(test.pixels.flatten(1).float(), train.pixels.flatten(1).float()).argmin(1)
    assert (train.labels[nearest] == test.labels).float().mean() > 0.97


# --- CIFAR ------------------------------------------------------------------------------------------------------------


def make_cifar(root, layout, source, records):
    """A tiny data set in the published form `layout`; its pixels and labels, in order."""
    rng = np.random.default_rng(0)
    parts = {}
    for part in ("train", "test"):
        cifar10_names = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
        names = cifar10_names[part] if source is CIFAR10 else [part]
        pixels = rng.integers(0, 256, (len(names), records[part], 3072), np.uint8)
        labels = rng.integers(0, source.num_classes, (len(names), records[part]))
        parts[part] = (pixels.reshape(-1, 3, 32, 32), labels.reshape(-1))
        for name, rows, row_labels in zip(names, pixels, labels, strict=True):
            layout(root, source, name, rows, row_labels)
    return parts


def binary(root, source, name, rows, labels):
    folder = root / {CIFAR10: "cifar-10-batches-bin", CIFAR100: "cifar-100-binary"}[source]
    folder.mkdir(parents=True, exist_ok=True)
    columns = [labels[:, None], rows] if source is CIFAR10 else [labels[:, None] // 5, labels[:, None], rows]
    np.concatenate(columns, 1).astype(np.uint8).tofile(folder / f"{name}.bin")


def python(root, source, name, rows, labels):
    folder = root / {CIFAR10: "cifar-10-batches-py", CIFAR100: "cifar-100-python"}[source]
    folder.mkdir(parents=True, exist_ok=True)
    key = {CIFAR10: b"labels", CIFAR100: b"fine_labels"}[source]
    batch = {b"data": rows.copy(), key: labels.tolist(), b"batch_label": b"one", b"filenames": [b"a.png"] * len(rows)}
    (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def python2(root, source, name, rows, labels):
    """As `python`, with the array's type spelled in byte strings: Python 2 wrote the published files."""
    python(root, source, name, rows, labels)
    for path in root.glob(f"*/{name}"):
        content = path.read_bytes()
        for text in (b"u1", b"|"):
            content = content.replace(b"X" + struct.pack("<I", len(text)) + text, b"U" + bytes([len(text)]) + text)
        path.write_bytes(content)


@pytest.fixture
def tiny_cifar(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 6)
    monkeypatch.setattr(cifar100, "RECORDS_TRAIN", 9)
    monkeypatch.setattr(cifar100, "RECORDS_TEST", 4)
    return {CIFAR10: {"train": 6, "test": 6}, CIFAR100: {"train": 9, "test": 4}}


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100])
@pytest.mark.parametrize("layout", [binary, python, python2])
def test_both_published_forms_are_read(tmp_path, tiny_cifar, source, layout):
    parts = make_cifar(tmp_path, layout, source, tiny_cifar[source])
    found = source(root=str(tmp_path))
    found.check()
    for part, images in (("train", found.train()), ("test", found.test())):
        assert np.array_equal(images.pixels.numpy(), parts[part][0])
        assert images.labels.tolist() == parts[part][1].tolist()


def test_a_complete_form_is_taken_when_the_other_is_not(tmp_path, tiny_cifar):
    make_cifar(tmp_path, binary, CIFAR10, tiny_cifar[CIFAR10])
    make_cifar(tmp_path, python, CIFAR10, tiny_cifar[CIFAR10])
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    CIFAR10(root=str(tmp_path)).check()
    assert len(CIFAR10(root=str(tmp_path)).train()) == 30


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100])
def test_missing_cifar_says_where_it_looked_and_what_to_do(tmp_path, source):
    with pytest.raises(DataError) as caught:
        source(root=str(tmp_path)).check()
    message = str(caught.value)
    assert "\n" not in message and "dataset.download=true" in message and "www.cs.toronto.edu" in message
    assert message.count(str(tmp_path)) == 2  # both forms


def test_an_incomplete_folder_names_the_missing_file(tmp_path, tiny_cifar):
    make_cifar(tmp_path, binary, CIFAR10, tiny_cifar[CIFAR10])
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"cifar-10-batches-bin \(no data_batch_3.bin\)"):
        CIFAR10(root=str(tmp_path)).train()


def test_truncated_files_are_refused(tmp_path, tiny_cifar):
    make_cifar(tmp_path, binary, CIFAR10, tiny_cifar[CIFAR10])
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="test_batch.bin must have 18438 bytes, got 18437: it is damaged"):
        CIFAR10(root=str(tmp_path)).check()
    other = tmp_path / "other"
    make_cifar(other, python, CIFAR10, tiny_cifar[CIFAR10])
    path = other / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="data_batch_2 must be an undamaged pickle of plain data"):
        CIFAR10(root=str(other)).train()


def test_labels_out_of_range_are_refused(tmp_path, tiny_cifar):
    make_cifar(tmp_path, binary, CIFAR10, tiny_cifar[CIFAR10])
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(b"\x63" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"test_batch.bin: labels must be in 0..9, got \d..99"):
        CIFAR10(root=str(tmp_path)).test()


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-was-done",)


@pytest.mark.parametrize(
    "content", [Harmful(), {b"data": Harmful()}, {b"data": np.array([{}], object)}, [1, 2], {b"labels": [1]}]
)
def test_pickles_are_read_without_running_what_they_name(tmp_path, tiny_cifar, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    make_cifar(tmp_path, python, CIFAR10, tiny_cifar[CIFAR10])
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match="data_batch_1 must") as caught:
        CIFAR10(root=str(tmp_path)).train()
    assert "\n" not in str(caught.value) and not Path("harm-was-done").exists()


def test_a_batch_of_another_shape_is_refused(tmp_path, tiny_cifar):
    make_cifar(tmp_path, python, CIFAR10, {"train": 5, "test": 6})
    with pytest.raises(DataError, match=r"must hold 6 rows of 3072 uint8 pixels .* got uint8 \(5, 3072\)"):
        CIFAR10(root=str(tmp_path)).train()


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100, FashionMNIST])
def test_a_download_without_network_is_one_helpful_line(tmp_path, monkeypatch, source):
    class NoNetwork:
        class datasets:  # noqa: N801
            @staticmethod
            def CIFAR10(root, download):  # noqa: N802
                raise OSError("<urlopen error [Errno -3]\nTemporary failure in name resolution>")

            CIFAR100 = FashionMNIST = CIFAR10

    monkeypatch.setattr(download_module, "import_torchvision", lambda: NoNetwork)
    with pytest.raises(DataError, match="could not download .*name resolution.* put the ") as caught:
        source(root=str(tmp_path), download=True).check()
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded_when_the_files_are_there(tmp_path, tiny_cifar, monkeypatch):
    make_cifar(tmp_path, binary, CIFAR10, tiny_cifar[CIFAR10])
    monkeypatch.setattr(cifar, "download", lambda *arguments: pytest.fail("downloaded"))
    CIFAR10(root=str(tmp_path), download=True).check()


def test_real_cifar10():
    source = CIFAR10(root=str(real("cifar-10-batches-bin/test_batch.bin")))
    train, test = check_facts(source, [5000] * 10, [1000] * 10)
    assert train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # as every torchvision user knows them
    assert train.pixels[0, :, 0, 0].tolist() == [59, 62, 63]


def test_no_real_cifar10_test_image_is_searched():
    no_test_image_is_searched(CIFAR10(root=str(real("cifar-10-batches-bin/test_batch.bin"))))


# --- Fashion-MNIST ----------------------------------------------------------------------------------------------------


def make_fashion(root, packed):
    rng = np.random.default_rng(0)
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    parts = {}
    for part, count in fashion_mnist.RECORDS.items():
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        parts[part] = images, labels
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return parts


@pytest.fixture
def tiny_fashion(monkeypatch):
    monkeypatch.setattr(fashion_mnist, "RECORDS", {"train": 7, "t10k": 3})


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_plain_and_packed(tmp_path, tiny_fashion, packed):
    parts = make_fashion(tmp_path, packed)
    source = FashionMNIST(root=str(tmp_path))
    source.check()
    for part, images in (("train", source.train()), ("t10k", source.test())):
        assert np.array_equal(images.pixels[:, 0].numpy(), parts[part][0]) and images.labels.tolist() == parts[part][1].tolist()


def test_damaged_fashion_mnist_is_refused(tmp_path, tiny_fashion):
    make_fashion(tmp_path, packed=False)
    source = FashionMNIST(root=str(tmp_path))
    images = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    good = images.read_bytes()
    images.write_bytes(good[:-1])
    with pytest.raises(DataError, match="train-images-idx3-ubyte must hold 5504 bytes, got 5503"):
        source.train()
    images.write_bytes(b"\0\0\x0d" + good[3:])
    with pytest.raises(DataError, match=r"must start with the idx header of uint8 \(7, 28, 28\)"):
        source.train()
    images.unlink()
    with pytest.raises(DataError, match=r"raw \(no train-images-idx3-ubyte\): run with dataset.download=true"):
        source.check()
    images.with_name(f"{images.name}.gz").write_bytes(gzip.compress(good)[:-30])
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz: cannot read the data set .the gzip file is damaged"):
        source.train()


def test_real_fashion_mnist():
    source = FashionMNIST(root=str(real("FashionMNIST/raw/train-images-idx3-ubyte.gz")))
    train, _ = check_facts(source, [6000] * 10, [1000] * 10)
    assert train.labels[:5].tolist() == [9, 0, 0, 3, 0]


# --- folder -----------------------------------------------------------------------------------------------------------


def make_folder(root, parts=("train", "test"), classes=("cat", "ant"), size=(20, 10)):
    for part in parts:
        for i, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for j in range(2):
                Image.new("RGB", size, (100 * i, 50 * j, 7)).save(root / part / name / f"{j}.png")
    return Folder(str(root), image_size=8)


@pytest.mark.parametrize("resident_mb", [1, 0])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_read_in_the_order_of_its_classes(tmp_path, resident_mb, channels):
    make_folder(tmp_path)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    source = Folder(str(tmp_path), image_size=8, in_channels=channels, resident_mb=resident_mb)
    source.check()
    train = source.train()
    assert source.class_names == ("ant", "cat") and source.num_classes == 2
    assert train.labels.tolist() == [0, 0, 1, 1] and train.resident == bool(resident_mb)
    pixels = train.read(torch.tensor([3, 0]))
    assert pixels.shape == (2, channels, 8, 8) and pixels.dtype == torch.uint8
    want = {1: [[30], [31]], 3: [[0, 50, 7], [100, 0, 7]]}[channels]  # cat/1.png, ant/0.png; grey by ITU-R 601
    assert pixels[:, :, 4, 4].tolist() == want
    assert len(source.test()) == 4 and len(source.mean) == channels


def test_decoding_resizes_the_short_side_and_keeps_the_centre(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (10, 200, 90)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png", 10, 3).flatten(1).unique(dim=1).flatten().tolist() == [10, 200, 90]
    assert decode(tmp_path / "x.png", 5, 3).shape == (3, 5, 5)


def test_folder_errors_name_the_folder(tmp_path):
    with pytest.raises(DataError, match="looked for a directory of class directories at .*train"):
        Folder(str(tmp_path)).check()
    source = make_folder(tmp_path, parts=("train",))
    source.check()
    with pytest.raises(DataError, match="there is no test part: .*test does not exist"):
        source.test()
    (tmp_path / "test" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match="the same classes; only one has cat"):
        source.check()
    (tmp_path / "test" / "cat").mkdir()
    with pytest.raises(DataError, match="test/ant must hold images .* got none"):
        source.check()
    (tmp_path / "train" / "bee").mkdir()
    with pytest.raises(DataError, match="train/bee must hold images .* got none"):
        Folder(str(tmp_path)).check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1 and at most 65,536, got 0"),
        ({"in_channels": 4}, r"in_channels must be 1 \(grey\) or 3 \(RGB\), got 4"),
        ({"mean": [0.5]}, "mean and std must have one number a channel, 3"),
    ],
)
def test_folder_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Folder("nowhere", **arguments)


# --- npz --------------------------------------------------------------------------------------------------------------


def write_npz(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (6, 4, 5, 3), np.uint8),
        "train_labels": np.arange(6) % 3,
        "test_images": rng.integers(0, 256, (3, 4, 5, 3), np.uint8),
        "test_labels": np.arange(3, dtype=np.uint8),
    }
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    np.savez(path, **arrays)
    return arrays


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_npz_layouts(tmp_path, layout):
    images = np.random.default_rng(1).integers(0, 256, (6, 3, 4, 5), np.uint8)
    images = images[:, :1] if layout == "NHW" else images
    stored = {"NHWC": images.transpose(0, 2, 3, 1), "NCHW": images, "NHW": images[:, 0]}[layout]
    write_npz(tmp_path / "d.npz", train_images=stored)
    source = Npz(str(tmp_path / "d.npz"), layout=layout)
    source.check()
    assert np.array_equal(source.train().pixels.numpy(), images)
    assert source.in_channels == images.shape[1] and source.image_size == (4, 5) and source.num_classes == 3
    assert source.mean == pytest.approx(images.mean((0, 2, 3)) / 255)


def test_npz_class_names(tmp_path):
    path = tmp_path / "d.npz"
    write_npz(path)
    assert Npz(str(path)).class_names == ("0", "1", "2")
    assert Npz(str(path), class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    write_npz(path, class_names=np.array(["x", "y", "z"]))
    assert Npz(str(path)).class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "it lacks test_labels and has train_images, train_labels, test_images"),
        ({"train_images": np.zeros((6, 4, 5), np.uint8)}, r"axes NHWC, got uint8 \(6, 4, 5\)"),
        ({"train_labels": np.arange(5)}, r"train_labels must be 6 whole numbers, one an image, got int64 \(5,\)"),
        ({"train_labels": np.arange(6) - 1}, "train_labels: labels must be in 0..4, got -1..4"),
        ({"class_names": np.array(["a", "b"])}, "labels must be in 0..1, got 0..2"),
        ({"train_labels": np.array([{}] * 6, object)}, "must hold train_labels as an undamaged array of numbers"),
    ],
)
def test_npz_errors(tmp_path, changes, message):
    write_npz(tmp_path / "d.npz", **changes)
    with pytest.raises(DataError, match=message):
        Npz(str(tmp_path / "d.npz")).train()


def test_npz_that_is_no_npz(tmp_path):
    with pytest.raises(DataError, match="there is none, set dataset.path"):
        Npz(str(tmp_path / "d.npz")).check()
    (tmp_path / "d.npz").write_bytes(b"text")
    with pytest.raises(DataError, match="d.npz must be an .npz file"):
        Npz(str(tmp_path / "d.npz")).check()
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(DataError, match="array.npy must be an .npz file"):
        Npz(str(tmp_path / "array.npy")).check()
    with pytest.raises(DataError, match="layout must be one of NHWC, NCHW, NHW, got 'HWC'"):
        Npz("d.npz", layout="HWC")


def test_real_cifar10_subset():
    source = Npz(str(real("cifar10_small.npz") / "cifar10_small.npz"))
    check_facts(source, [500] * 10, [100] * 10)
    assert source.class_names == CIFAR10.class_names


# --- random, images, configs ------------------------------------------------------------------------------------------


def test_random_is_the_same_for_the_same_seed_and_has_the_stated_statistics():
    source = Random(num_classes=4, num_train=300, num_test=40, in_channels=2, image_size=16, seed=3)
    train, test = source.train(), source.test()
    assert train.pixels.shape == (300, 2, 16, 16) and test.labels.bincount().tolist() == [10] * 4
    assert torch.equal(train.pixels, source.train().pixels) and not torch.equal(train.pixels[:40], test.pixels)
    assert not torch.equal(train.pixels, Random(4, 300, 40, 2, 16, seed=4).train().pixels)
    mean, std = mean_and_std(train.pixels)
    assert source.mean == pytest.approx(mean, abs=0.01) and source.std == pytest.approx(std, abs=0.01)
    with pytest.raises(ValueError, match="num_train must be at least 1"):
        Random(num_train=0)


def test_images_check_their_shapes():
    with pytest.raises(DataError, match=r"pixels must be uint8 \(N, C, H, W\), got torch.float32 \(2, 1, 3, 3\)"):
        Images(torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match=r"labels must be int64 \(2,\), one an image, got torch.int64 \(3,\)"):
        Images(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))


CONFIGS = sorted((REPO / "conf" / "dataset").glob("*.yaml"))


IMAGES = [path for path in CONFIGS if "ImageData" in path.read_text()]


def composed(path):
    return OmegaConf.create({"dataset": OmegaConf.load(path)})


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_every_config_makes_its_source_and_touches_no_file(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = composed(path)
    source = instantiate(config.dataset.source, _convert_="all")
    augment = instantiate(config.dataset.augment, _convert_="all")
    assert source.name == config.dataset.name == path.stem and augment.cutout == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("node", ["source", "augment"])
def test_unknown_keys_fail(path, node):
    config = composed(path)
    config.dataset[node].colour = 1
    with pytest.raises(InstantiationException, match="colour"):
        instantiate(config.dataset[node], _convert_="all")


def test_there_is_a_config_for_every_source():
    sources = {"digits", "cifar10", "cifar100", "fashion_mnist", "folder", "npz", "random", "shards", "text", "ptb"}
    assert {path.stem for path in CONFIGS} >= sources
    for path in CONFIGS:
        assert re.match(r"# \S", path.read_text())


def test_importing_the_data_imports_neither_torchvision_nor_hydra():
    code = (
        "import sys, supernet.data, supernet.data.cifar10, supernet.data.fashion_mnist, supernet.data.folder, supernet.data.npz; "
        "print([name for name in ('torchvision', 'hydra', 'omegaconf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
