"""Images in tar files: the same data set as a folder of them, and what is refused."""

import io
import os
import shutil
import tarfile

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from supernet.app.build import build
from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.options import CONF
from supernet.data import shard_index, tar
from supernet.data.augment import Augment
from supernet.data.base import DataError
from supernet.data.crops import ResizedCrop
from supernet.data.folder import Folder
from supernet.data.images import ImageData
from supernet.data.loader import Loading
from supernet.data.shards import INDEX, Shards
from supernet.files import FileError
from tests.helpers import At, only_error, run
from tests.photographs import in_shards, photographs, tarred
from tests.runs import assert_same, exactly, finished, go_on, outcome

CPU = torch.device("cpu")
SMALL = ("genotype=darts_v2", "recipe=imagenet", "dataset.image_size=40", "dataset.augment.crop=32", "layers=2", "channels=2",
         "batch_size=8", "eval_batch_size=16", "epochs=2", "w_optimizer.lr=0.05", "checkpoint_every_s=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("folder"), per_class=10)


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    return in_shards(folder, tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "supernet" / "shards"


def picture(seed=0, suffix="jpeg") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)).save(file, suffix)
    return file.getvalue()


def train_of(root, **options):
    return Shards(str(root), image_size=8, val=None, test="none", **options).train()


@pytest.mark.parametrize("resident_mb", [0, 100])
def test_images_are_those_of_the_folder_in_its_order(folder, shards, resident_mb):
    sources = [made(str(root), image_size=40, resident_mb=resident_mb, val="val", test="val2")
               for made, root in ((Folder, folder), (Shards, shards))]
    for source in sources:
        source.check()
    assert sources[0].class_names == sources[1].class_names == ("ant", "bee", "cat")
    one, other = (source.train() for source in sources)
    assert torch.equal(one.labels, other.labels) and one.own_val == other.own_val == 9 and len(one) == 39
    assert other.resident == (resident_mb > 0) and one.notes == other.notes and one.stored == other.stored
    every = torch.arange(len(one))
    assert torch.equal(one.read(every), other.read(every))
    crop = ResizedCrop()
    numbers = crop.draw(len(one), torch.Generator().manual_seed(0))
    assert torch.equal(one.crops(every, crop, numbers, 24), other.crops(every, crop, numbers, 24))


def test_workers_read_the_same_and_a_pass_goes_on_where_it_was_left(folder, shards):
    def loader(made, root, workers):
        data = ImageData(made(str(root), image_size=40, resident_mb=0, val=None, test="val"), Augment(crop=32, resized_crop=ResizedCrop()))
        generators = {name: torch.Generator().manual_seed(n) for n, name in enumerate(("split", "train"))}
        return data.final(Loading(8, 16, CPU, workers=workers), generators=generators,
                          split={"mode": "stratified", "val_portion": 0.2, "max_train": None}).train

    want = list(loader(Folder, folder, 0))
    broken = loader(Shards, shards, 2)
    first = next(iter(broken))
    late = loader(Shards, shards, 0)
    late.load_state_dict(broken.state_dict())
    for (x, y), (a, b) in zip([first, *late], want, strict=True):
        assert torch.equal(x, a) and torch.equal(y, b)


@pytest.mark.slow
def test_a_training_on_shards_has_the_bits_of_one_on_the_folder_and_goes_on_when_it_is_broken_off(folder, shards, tmp_path):
    ends = {}
    for name, root in (("imagenet", folder), ("imagenet_shards", shards)):
        where, options = tmp_path / name, (*SMALL, f"dataset={name}", f"dataset.root={root}")
        where.mkdir()
        if name == "imagenet_shards":
            assert run("train_final", *options, cwd=where, report=False, at=At(6, ".pt.")).code < 0
            go_on("train_final", *options, "workers=1", where=where)
        else:
            ended = run("train_final", *options, cwd=where, report=False)
            assert ended.code == 0, ended.err
        ends[name] = finished(where)
    tensors = [exactly(torch.load(end.weights, weights_only=True)["state_dict"]) for end in ends.values()]
    assert tensors[0] == tensors[1] and len(tensors[0]) > 20
    found = [outcome(end) for end in ends.values()]
    for one in found:
        del one["weights"]  # which also name the data set
    assert_same(found[1], found[0])


def test_labels_beside_images_are_numbers_or_names(tmp_path):
    members = [(f"{k:02}.{kind}", data) for k in range(6) for kind, data in
               (("jpg", picture(k)), ("cls", str(k % 3).encode() + b"\n"), ("json", b"{}"))]
    tarred(tmp_path / "numbers/train/a.tar", members[:9])
    tarred(tmp_path / "numbers/train/b.tar", members[9:])
    part = train_of(tmp_path / "numbers")
    assert part.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(part.pixels[2], train_of(tmp_path / "numbers", resident_mb=0).read(torch.tensor([2]))[0])
    assert any("6 files among the classes are not read (6 .json)" in note for note in part.notes)
    source = Shards(str(tmp_path / "numbers"), class_names=["x", "y", "z"])
    assert source.class_names == ("x", "y", "z") and Shards(str(tmp_path / "numbers")).class_names == ("0", "1", "2")
    with pytest.raises(DataError, match="class_names are for classes that .cls files number, one each, got 2 for 3 classes in"):
        Shards(str(tmp_path / "numbers"), class_names=["x", "y"]).check()
    # webdataset's keys end at the first dot
    tarred(tmp_path / "names/train/a.tar", [("one.left.png", picture(1, "png")), ("one.cls", b"wolf"), ("two.png", picture(2, "png")),
                                            ("two.cls", b"bear")])
    source = Shards(str(tmp_path / "names"), image_size=8)
    assert source.class_names == ("bear", "wolf") and source.train().labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="got 2 for 2 classes with names"):
        Shards(str(tmp_path / "names"), class_names=["x", "y"]).check()


@pytest.mark.parametrize("prefix", ["", "./", "/data/train/", "train/"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_class_is_the_first_folder_that_images_do_not_share(tmp_path, prefix, format):
    names = ["bee/1.jpg", "ant/" + "long" * 20 + ".jpg", "ant/deep/er.jpg", ".hidden/3.jpg", "ant/._2.jpg", "bee/notes.txt"]
    tarred(tmp_path / "train/a.tar", [(prefix + name, picture(n)) for n, name in enumerate(names)], format)
    source = Shards(str(tmp_path), image_size=8)
    part = source.train()
    assert source.class_names == ("ant", "bee") and part.labels.tolist() == [0, 0, 1]
    tarred(tmp_path / "plain/train/a.tar", [("ant/a.jpg", picture(2)), ("ant/b.jpg", picture(1)), ("bee/c.jpg", picture(0))])
    assert torch.equal(part.pixels, train_of(tmp_path / "plain").pixels)


def test_an_index_is_made_once_and_again_when_a_shard_has_changed(tmp_path, monkeypatch, folder):
    root, made = in_shards(folder, tmp_path / "s", shards=2), []
    usual = tar.members
    monkeypatch.setattr(shard_index, "members", lambda path: made.append(path.name) or usual(path))
    first = train_of(root)
    assert made == ["000.tar", "001.tar"] and (root / "train" / INDEX).is_file()
    assert torch.equal(train_of(root).pixels, first.pixels) and len(made) == 2
    # a damaged index, and one that somebody has made up, are made again
    path, sound = root / "train" / INDEX, (root / "train" / INDEX).read_bytes()
    for damaged in (b"", sound[:-30], sound.replace(b"PK", b"PX"), np.random.default_rng(0).bytes(500)):
        path.write_bytes(damaged)
        made.clear()
        assert torch.equal(train_of(root).pixels, first.pixels) and len(made) == 2
        assert path.read_bytes() == sound
    index = shard_index.load(path, shard_index.shards_in(root / "train"))
    for name, value in (("offset", 2**62), ("shard", 9), ("labels", 5), ("labels", -1), ("size", 2**40), ("ends", 10**6)):
        evil = np.load(io.BytesIO(sound))
        arrays = {key: evil[key].copy() for key in shard_index.ARRAYS}
        arrays[name][3] = value
        shard_index.save(path, shard_index.ShardIndex(index.shards, index.class_names, False, {}, **arrays))
        assert shard_index.load(path, index.shards) is None, name
    # another file in place of one of the tar files
    later = train_of(root, resident_mb=0)
    os.utime(root / "train/001.tar", ns=(1, 1))
    with pytest.raises(DataError, match="001.tar was changed since this run began to read it"):
        later.read(torch.arange(len(later)))
    made.clear()
    assert torch.equal(train_of(root).pixels, first.pixels) and len(made) == 2
    (root / "train/001.tar").unlink()
    assert len(train_of(root)) < len(first)


def test_an_index_that_cannot_lie_beside_the_shards_is_kept_in_the_caches_or_not_at_all(tmp_path, monkeypatch, folder, caches):
    root = in_shards(folder, tmp_path / "s")
    usual = shard_index.write_whole

    def refusing(*places):
        def write(path, data):
            if any(path.is_relative_to(place) for place in places):
                raise PermissionError(13, "Permission denied", str(path))
            usual(path, data)
        monkeypatch.setattr(shard_index, "write_whole", write)

    refusing(root)
    part = train_of(root)
    assert not (root / "train" / INDEX).exists() and len(list(caches.glob("*.npz"))) == 1
    shutil.rmtree(caches)
    refusing(root, caches)
    noted = train_of(root)
    assert torch.equal(part.pixels, noted.pixels)
    assert any("could be kept nowhere" in note and "dataset.source.index=FOLDER" in note for note in noted.notes)
    assert train_of(root, index=str(tmp_path / "own")).notes == part.notes and len(list((tmp_path / "own").iterdir())) == 1
    with pytest.raises(DataError, match="dataset.source.index must be a folder that can be written to, got .*Permission denied"):
        train_of(root, index=str(caches))


# ---- what is refused


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def good(names=("ant/1.jpg", "bee/2.jpg", "bee/3.jpg")) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for n, name in enumerate(names):
            entry, data = tarfile.TarInfo(name), picture(n)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def headers(*entries: tuple[bytes, bytes, int]) -> bytes:
    """Raw headers (name, type, size), of which tarfile would write none: sizes below 0 are in base 256."""
    found = b""
    for name, kind, size in entries:
        block = bytearray(512)
        block[: len(name)] = name
        block[124:136] = b"%011o\0" % size if size >= 0 else b"\xff" + (256**11 + size).to_bytes(11, "big")
        block[156:157] = kind
        block[257:265] = b"ustar\x0000"
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        found += bytes(block)
    return found


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


FIRST = len(picture(0))
SECOND = 512 + -(-FIRST // 512) * 512  # where the second header begins
DAMAGED = {
    "no tar file": (b"hello, this is no tar file" * 50, "must be an undamaged, uncompressed tar file"),
    "an empty file": (b"", "must be an undamaged, uncompressed tar file"),
    "a packed one": (b"\x1f\x8b" + b"0" * 600, "uncompressed tar file, for members are read by their position, and is packed by gzip"),
    "a header with a flipped bit": (flipped(good(), SECOND + 3), f"there is no header at byte {SECOND:,}"),
    "one cut off within an image": (good()[: SECOND + 600], "damaged or cut off"),
    "one cut off between images": (good()[:SECOND], "was cut off: it has no end mark"),
    "two that were joined": (good() + good(), "goes on behind its end at byte"),
    "a size below zero": (headers((b"a/1.jpg", b"0", -1024)) + bytes(2048), "damaged"),
    "a long name of gigabytes": (headers((b"x", b"L", 2**33)) + bytes(2048), "damaged"),
    "an extended header of a size below zero": (headers((b"x", b"x", -512)) + bytes(2048), "damaged"),
    "extended headers without end": (headers(*[(b"x", b"x", 0)] * 5000) + bytes(2048), "must be an undamaged"),
    "a member that leaves the folder": (good(("../ant/1.jpg", "bee/2.jpg")), "must lie within a folder, got ../ant/1.jpg"),
    "the same name twice": (good(("ant/1.jpg", "bee/2.jpg", "ant/1.jpg")), "holds ant/1.jpg twice"),
    "images without a class": (good(("1.jpg", "2.jpg")), r"must lie in a folder of their class \(class/name.jpg\) or have a file .cls"),
    "no images": (good(("ant/1.txt",)), "the tar files hold no images"),
    "a class that would speak to the terminal": (good(("a\x1b[31m/1.jpg", "b/2.jpg")), r"names of classes must be printable, got 'a\\x1b"),
}


@pytest.mark.parametrize("data, message", DAMAGED.values(), ids=DAMAGED)
def test_a_foreign_or_damaged_tar_file_is_said_in_one_line(tmp_path, data, message):
    path = write(tmp_path / "train/000.tar", data)
    with pytest.raises(DataError, match=message) as error:
        train_of(tmp_path)
    assert "\n" not in str(error.value) and "train" in str(error.value) and not (path.parent / INDEX).exists()


def test_a_header_that_leads_back_to_itself_ends(tmp_path):
    """CVE-2025-8194: an extended header gives a member a size below zero, at which `tarfile` goes round without end."""
    said = b"15 size=-1024\n\n"
    data = headers((b"x", b"x", len(said))) + said.ljust(512, b"\0") + headers((b"a/1.jpg", b"0", 0)) + bytes(4096)
    with pytest.raises(FileError, match="damaged"):
        list(tar.members(write(tmp_path / "a.tar", data)))


def test_links_devices_and_holes_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        for n, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
            entry = tarfile.TarInfo(f"ant/{n}.jpg")
            entry.type, entry.linkname = kind, "/etc/passwd"
            made.addfile(entry)
    root = tmp_path / "root"
    write(root / "train/a.tar", (tmp_path / "a.tar").read_bytes())
    write(root / "train/b.tar", good())
    part = train_of(root)
    assert len(part) == 3 and any("4 files among the classes are not read (4 links and such)" in note for note in part.notes)
    sparse = headers((b"ant/5.jpg", b"S", 512)) + bytes(512 + 1024)
    assert [member.regular for member in tar.members(write(tmp_path / "sparse.tar", sparse))] == [False]


@pytest.mark.parametrize("said, message", [
    (b"", "must hold a number or the name of a class, got 0 bytes"), (b"a\nb", "must hold a number or the name"),
    (b"x" * 300, "got 300 bytes"), (b"\xff\xfe", "must hold a number or"), (b"900000000", "2 different numbers of 0 to 900000000: number"),
])
def test_what_a_cls_file_may_not_say(tmp_path, said, message):
    tarred(tmp_path / "train/a.tar", [("1.jpg", picture()), ("1.cls", b"0"), ("2.jpg", picture(1)), ("2.cls", said)])
    with pytest.raises(DataError, match=message):
        train_of(tmp_path)


def test_parts_must_agree_and_be_there(tmp_path):
    with pytest.raises(DataError, match="looked for a folder of tar files at .*train: there is none, set dataset.root"):
        Shards(str(tmp_path)).check()
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train must hold tar files \(\*.tar\), got none"):
        Shards(str(tmp_path)).check()
    write(tmp_path / "train/a.tar", good())
    with pytest.raises(DataError, match="there is no test part"):
        Shards(str(tmp_path)).test()
    write(tmp_path / "test/a.tar", good(("ant/1.jpg", "cow/2.jpg")))
    with pytest.raises(DataError, match="the same classes; only one has bee, cow"):
        Shards(str(tmp_path)).check()
    numbers = [("1.jpg", picture()), ("1.cls", b"1"), ("2.jpg", picture(1)), ("2.cls", b"0")]
    tarred(tmp_path / "test/a.tar", numbers)
    with pytest.raises(DataError, match="must name their classes alike: only one has numbers"):
        Shards(str(tmp_path)).check()
    tarred(tmp_path / "train/a.tar", numbers)
    Shards(str(tmp_path)).check()
    tarred(tmp_path / "test/a.tar", [*numbers, ("3.jpg", picture()), ("3.cls", b"2")])
    with pytest.raises(DataError, match="labels must be in 0..1, as those of train, got 2"):
        Shards(str(tmp_path)).check()
    tarred(tmp_path / "bare/train/a.tar", numbers[:3])
    with pytest.raises(DataError, match="2.jpg has no .cls beside it"):
        Shards(str(tmp_path / "bare")).check()


def test_an_image_that_cannot_be_decoded_is_named_also_by_a_worker(tmp_path):
    names = [f"{name}/{k}.jpg" for name in ("ant", "bee") for k in range(4)]
    tarred(tmp_path / "train/a.tar", [(name, picture(n) if n != 5 else b"no picture") for n, name in enumerate(names)])
    with pytest.raises(DataError, match=r"train/a.tar, member bee/1.jpg must be an image that can be decoded"):
        train_of(tmp_path)


@pytest.mark.parametrize("name, like", [("shards", "folder"), ("imagenet_shards", "imagenet")])
@pytest.mark.parametrize("script", ["search", "final"])
def test_the_options_of_shards_are_those_of_the_folder(name, like, script):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        ours, theirs = (compose(script, overrides=[f"dataset={which}", "dataset.root=somewhere"]) for which in (name, like))
    validate(ours, f"train_{script}")
    source = build(ours.dataset.source)
    assert type(source) is Shards and source.name == name and (source.val, source.test_name) == (theirs.dataset.source.val,
                                                                                                 theirs.dataset.source.test)
    one, other = (OmegaConf.to_container(cfg, resolve=True) for cfg in (ours, theirs))
    for cfg in (one, other):
        for node in (cfg["dataset"], cfg["dataset"]["source"], cfg["dataset"]["data"]["source"]):
            for key in ("name", "_target_", "index", "class_names"):
                node.pop(key, None)
    assert one == other


@pytest.mark.slow
def test_a_search_reads_shards(shards, tmp_path):
    options = ("space=s4", "epochs=1", "layers=2", "channels=2", "batch_size=8", "dataset.image_size=16", f"dataset.root={shards}",
               "dataset=shards", "dataset.source.test=val", "dataset.source.val=null")
    done = run("train_search", *options, cwd=tmp_path, report=False)
    assert done.code == 0, done.err
    assert "images 30 of 3 classes (10 each), 16x16, 3 channels" in done.err
    assert "dataset.source.clas_names" in only_error(run("train_search", *options, "+dataset.source.clas_names=[a]", cwd=tmp_path))
