"""What is read of files that come from outside: bounded, and one line where a file is not as it must be."""

import csv
import gzip
import io
import json
import os
import random
import signal
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from supernet.app.options import newest_genotype, read_options, text
from supernet.costs.latency_table import LATENCY_FORMAT, load_latency_table
from supernet.data import fashion_mnist
from supernet.data.base import DataError
from supernet.data.split import Split, make_split
from supernet.data.text import Text
from supernet.errors import Mendable, UsageError
from supernet.files import FileError, check_zip, gunzipped, read_bytes, read_text
from supernet.genotype import Genotype
from supernet.runs.checkpoint import load_file
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from supernet.spaces import nasbench201, toy
from supernet.tables import files
from supernet.tables.files import read_table, write_table
from supernet.tables.table import Columns, TableError

SPACE = toy.make()


@pytest.fixture(autouse=True)
def never_waits():
    """A reader that waits for a pipe would wait for ever."""
    def ended(*_: Any) -> None:
        raise TimeoutError("waited for a file")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# By what is read: how. Each takes a path.
READERS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: read_bytes(path, 1000),
    "a genotype": Genotype.load,
    "a table": lambda path: read_table(path, SPACE),
    "a latency table": lambda path: load_latency_table(path, SPACE),
    "options": read_options,
    "a text": lambda path: Text(name="text", path=str(path)).check(),
    "a split": Split.load,
    "a checkpoint": lambda path: load_file(renamed(path, f"last.{'0' * 64}.pt")),
    "metrics": Journal.read,
    "a zip file": lambda path: check_zip(path, 1000),
}


def renamed(path: Path, name: str) -> Path:
    link = path.with_name(name)
    link.symlink_to(path)
    return link


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, read, kind):
    path = tmp_path / "file"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir, "nothing": lambda path: None}[kind](path)
    with pytest.raises((Mendable, FileNotFoundError)) as error:
        read(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("read", [READERS[name] for name in READERS if name not in ("a checkpoint", "a zip file", "a split")])
def test_a_file_without_end_is_not_read_to_its_end(tmp_path, read):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2**41)  # takes no room on the disk
    with pytest.raises(Mendable, match="it has 2,199,023,255,552 bytes, and at most"):
        read(tmp_path / "file")


def test_run_json_that_is_a_pipe_is_no_run_of_ours(tmp_path):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "run.json")
    assert RunFolder(tmp_path / "run").status() is None
    with pytest.raises(UsageError, match="no finished search on digits"):
        newest_genotype(str(tmp_path), "digits")


def test_the_size_is_held_to_also_where_the_system_does_not_tell_it():
    with pytest.raises(FileError, match=r"^/proc/self/status: it has more than the 10 bytes that are read$"):
        read_bytes("/proc/self/status", 10)
    assert read_bytes("/proc/self/comm", 100).endswith(b"\n")


def test_a_large_limit_takes_no_memory(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert read_bytes(tmp_path / "file", 2**60) == b"abc" and read_bytes("/proc/self/status", 2**60).startswith(b"Name:")


def test_text_that_is_none_is_told_by_its_place(tmp_path):
    (tmp_path / "file").write_bytes(b"abc\xff")
    with pytest.raises(FileError, match="it must be text in UTF-8, and is not at byte 3"):
        read_text(tmp_path / "file", 10)


# ---- packed files


def test_gzip_files_unpack_as_gzip_unpacks_them():
    for data in (gzip.compress(b""), gzip.compress(b"one") + gzip.compress(b"two"), gzip.compress(b"x" * 100_000) + b"\0" * 512):
        assert gunzipped(data, 100_000, "file") == gzip.decompress(data)


def test_a_gzip_file_unpacks_to_no_more_than_its_limit():
    with pytest.raises(FileError, match="it unpacks to more than the 1,000 bytes that are read"):
        gunzipped(gzip.compress(bytes(10**7)) * 2, 1000, "file")


def damages(data: bytes, n: int = 60) -> list[bytes]:
    """Cut, with a byte changed, and none at all."""
    rng = random.Random(0)
    changed = [bytearray(data) for _ in range(n)]
    for one in changed:
        one[rng.randrange(len(one))] ^= 1 << rng.randrange(8)
    return [b"", data[:1], data[:2], data[:10], *(data[: rng.randrange(len(data))] for _ in range(n)), *map(bytes, changed)]


@pytest.fixture
def table(tmp_path) -> Path:
    texts = [SPACE.text(g) for g in SPACE.enumerate()]
    path = tmp_path / "toy.csv.gz"
    write_table(path, SPACE, texts, {"val": np.arange(27.0), "test": np.arange(27.0)}, {"digits": Columns("val", "test")})
    return path


def test_a_damaged_table_is_one_line_or_read(table):
    whole, refused = table.read_bytes(), 0
    for packed in (True, False):
        for data in damages(whole if packed else gzip.decompress(whole)):
            table.write_bytes(data)
            try:
                read_table(table, SPACE)
            except TableError as error:
                refused += 1
                assert "\n" not in str(error) and str(table) in str(error)
            else:
                assert not packed or gzip.decompress(data) == gzip.decompress(whole)
    assert refused > 100


def test_a_table_that_unpacks_to_more_than_memory_is_refused(table, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 100_000)
    table.write_bytes(gzip.compress(bytes(1_000_000)))
    with pytest.raises(TableError, match="it unpacks to more than the 100,000 bytes that are read"):
        read_table(table, SPACE)


HEADERS: dict[str, Callable[[dict], Any]] = {
    "a list": lambda head: [head],
    "a number": lambda head: 1,
    "nothing": lambda head: {},
    "data sets in a list": lambda head: head | {"datasets": ["digits"]},
    "a data set that is a number": lambda head: head | {"datasets": {"digits": 3}},
    "a data set with other keys": lambda head: head | {"datasets": {"digits": {"colour": "red"}}},
    "a column by number": lambda head: head | {"datasets": {"digits": {"validation": 3, "test": "test"}}},
    "a column in a list": lambda head: head | {"datasets": {"digits": {"validation": ["val"], "test": "test"}}},
    "a factor that is a text": lambda head: head | {"datasets": {"digits": {"validation": "val", "test": "test", "seconds_factor": "x"}}},
    "a factor that is none": lambda head: head | {"datasets": {"digits": {"validation": "val", "test": "test", "seconds_factor": None}}},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_wrong_types_in_the_head_of_a_table_are_one_line(table, change):
    first, _, rest = gzip.decompress(table.read_bytes()).decode().partition("\n")
    table.write_text("# " + json.dumps(change(json.loads(first.removeprefix("#")))) + "\n" + rest)
    with pytest.raises(TableError, match=r"^[^\n]*toy\.csv\.gz: "):
        read_table(table, SPACE)


@pytest.mark.parametrize("content", ['{"0": 1}', '{"0": {"mean_acc": []}}', "{" * 5000, '{"0": null}', "# {\n", "#" + "[" * 100_000, 
                                     "# []\n", "# {}\n\n", "arch,index\n", "index,arch\n0", "\n", "\ufeff#", '# {"format": 1}\n'])
def test_other_texts_are_no_tables(tmp_path, content):
    (tmp_path / "table").write_text(content)
    with pytest.raises(TableError, match=r"^[^\n]*$"):
        read_table(tmp_path / "table", SPACE)


def test_a_damaged_companion_of_a_table_is_one_line_when_it_is_met(tmp_path):
    space = nasbench201.make()
    lines = io.StringIO()
    csv.writer(lines).writerows([["index", "arch"], *([n, space.text(g)] for n, g in zip(range(3), space.enumerate()))])
    (tmp_path / "nb.csv").write_text(lines.getvalue())
    table = read_table(tmp_path / "nb.csv", space)
    for data in (b"", b"\x1f\x8b\x08damaged", b"other,columns\n1,2\n", b"index,latency\n0,1\n1,many\n2,3\n", b"\xff"):
        (tmp_path / "nb_latency.csv").write_bytes(data)
        with pytest.raises(TableError, match="nb_latency"):
            table.column("latency")


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_a_damaged_idx_file_is_one_line(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 5, 5), np.uint8)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(values)))
    assert (fashion_mnist.read_idx(tmp_path / "images", values.shape) == values).all()
    for data in [*damages(gzip.compress(idx(values))), gzip.compress(bytes(10**6)), idx(values)]:
        path.write_bytes(data)
        try:
            assert (fashion_mnist.read_idx(tmp_path / "images", values.shape) == values).all()  # a bit that gzip does not use
        except DataError as error:
            assert "\n" not in str(error) and "images" in str(error)
    for data in (b"", idx(values)[:20], idx(values)[:-1], idx(values) + b"0", bytes(10**6), idx(values[:2])):
        (tmp_path / "images").write_bytes(data)
        with pytest.raises(DataError, match=r"^[^\n]*images[^\n]*$"):
            fashion_mnist.read_idx(tmp_path / "images", values.shape)


def test_a_damaged_split_is_one_line(tmp_path):
    split = make_split(torch.arange(40) % 4, mode="stratified", train_portion=0.5, generator=torch.Generator())
    split.save(tmp_path / "split.npz")
    whole = (tmp_path / "split.npz").read_bytes()
    for data in damages(whole):
        (tmp_path / "split.npz").write_bytes(data)
        try:
            assert Split.load(tmp_path / "split.npz").digest == split.digest
        except DataError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_split_packed_in_another_way_and_damaged_is_one_line(tmp_path, method):
    packed = io.BytesIO()
    array = io.BytesIO()
    np.save(array, np.arange(1000))
    with zipfile.ZipFile(packed, "w", method) as file:
        for name in ("train", "val", "digest"):
            file.writestr(f"{name}.npy", array.getvalue())
    for data in damages(packed.getvalue(), 100):
        (tmp_path / "split.npz").write_bytes(data)
        with pytest.raises(DataError, match=r"^[^\n]*$"):
            Split.load(tmp_path / "split.npz")


def test_a_zip_file_that_unpacks_to_more_than_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros.npy", bytes(10**6))
    check_zip(tmp_path / "file.npz", 10**6)
    with pytest.raises(FileError, match="it unpacks to 1,000,000 bytes, and at most 999,999 are read"):
        check_zip(tmp_path / "file.npz", 10**6 - 1)


# ---- latency tables, options


GOOD = {"format": str(LATENCY_FORMAT), "space": SPACE.name, "fingerprint": SPACE.fingerprint, "unit": "ms", "constant": 1.0,
        "tables": {kind: np.zeros((len(spec.edges), len(spec.ops))).tolist() for kind, spec in SPACE.cells.items()}}


def tables(table: Any) -> dict[str, Any]:
    return GOOD | {"tables": dict.fromkeys(SPACE.cells, table)}


@pytest.mark.parametrize("data", [[], 3, None, {}, GOOD | {"tables": []}, GOOD | {"tables": {}}, GOOD | {"constant": "x"},
                                  GOOD | {"constant": None}, GOOD | {"constant": float("nan")}, GOOD | {"unit": 3}, tables([[0.0]]),
                                  tables([[1], [1, 2]]), tables("x"), GOOD | {"space": [1], "fingerprint": []}])
def test_wrong_types_in_a_latency_table_are_one_line(tmp_path, data):
    (tmp_path / "table").write_text(json.dumps(GOOD))
    assert load_latency_table(tmp_path / "table", SPACE).constant == 1.0
    (tmp_path / "table").write_text(json.dumps(data))
    with pytest.raises(Mendable, match=r"^[^\n]*table: [^\n]*$"):
        load_latency_table(tmp_path / "table", SPACE)


LAUGHS = "a: &a [l, l, l, l, l, l, l, l, l]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))


def test_a_few_aliases_do_not_fill_the_memory(tmp_path):
    (tmp_path / "config.yaml").write_text(LAUGHS)
    with pytest.raises(FileError, match=r"options have no aliases, and line 2 holds \*a"):
        read_options(tmp_path / "config.yaml")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(LAUGHS)
    (run / "run.json").write_text(json.dumps({"script": "train_search", "status": "finished"}))
    with pytest.raises(UsageError, match="no finished search on digits"):
        newest_genotype(str(tmp_path), "digits")


@pytest.mark.parametrize("content", ["", "[1, 2]", "a: [", "a: b: c", "a: ${", "[" * 5000, "- a", "a: 1\na: 2", "\0", "a: &a [*a]",
                                     "!!python/object:os.system {}"])
def test_what_is_no_options_is_one_line(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    try:
        assert read_options(tmp_path / "config.yaml") == {} and content == ""
    except FileError as error:
        assert "\n" not in str(error) and "config.yaml" in str(error)


def test_options_are_read_as_they_were_written(tmp_path):
    written = {"a": {"b": [1, 2.5, None, True, "1e-3", "x"], "lr": 3e-4}, "c": {}}
    (tmp_path / "config.yaml").write_text(text(OmegaConf.create(written)))
    assert read_options(tmp_path / "config.yaml") == written
