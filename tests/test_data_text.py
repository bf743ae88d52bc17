import numpy as np
import pytest
import torch

from supernet.data.base import DataError
from supernet.data.loader import Forever, Loading
from supernet.data.text import Text, TextLoader, TextSplit
from tests.shared import TEXT, needs

LOADING = Loading(batch_size=4, eval_batch_size=2, device=torch.device("cpu"))
SPLIT = {"max_train": None, "max_val": None}


def generators():
    return {name: torch.Generator().manual_seed(n) for n, name in enumerate(("train", "val", "split"))}


def loader(random_lengths=True, columns=200, seed=0):
    items = torch.arange(columns * 3)
    generator = torch.Generator().manual_seed(seed)
    return TextLoader(items, 3, 12, generator=generator, random_lengths=random_lengths, device=torch.device("cpu"))


@pytest.mark.parametrize("random_lengths", [True, False])
def test_windows_follow_each_other_and_targets_are_one_ahead(random_lengths):
    batches = list(loader(random_lengths))
    assert len(batches) == len(loader(random_lengths)) and [b.fresh for b in batches] == [True] + [False] * (len(batches) - 1)
    rows = torch.cat([b.inputs for b in batches])
    assert torch.equal(rows, torch.arange(600).view(3, 200).T[: len(rows)])
    assert all(torch.equal(b.targets, b.inputs + 1) for b in batches)
    lengths = [len(b.inputs) for b in batches]
    assert len(rows) == 199 if not random_lengths else 199 * 0.8 < len(rows) <= 199
    assert not random_lengths or (len(set(lengths)) > 3 and min(lengths) >= 5 and max(lengths) <= 32)


def test_a_stream_apart_reads_the_same_text_and_leaves_the_other_where_it_stands():
    one, untouched = loader(), loader()
    first = [next(iter(stream)) for stream in (one, untouched)]
    same = list(one.apart(None, torch.Generator().manual_seed(0)))
    assert torch.equal(same[0].inputs, first[0].inputs) and same[0].fresh
    wide = list(one.apart(6, torch.Generator()))
    assert wide[0].inputs.shape[1] == 6 and torch.equal(wide[0].inputs[0], torch.arange(6) * 100)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(one, untouched, strict=True))


@pytest.mark.parametrize("columns", [8, 13, 14, 26, 60])
def test_drawn_lengths_never_run_over_the_end(columns):
    for seed in range(60):
        lengths = [len(b.inputs) for b in loader(columns=columns, seed=seed)]
        assert sum(lengths) <= columns - 1 and min(lengths) >= min(5, columns - 1)


@pytest.mark.parametrize("taken", [0, 3, 15, 16, 20])
def test_a_saved_position_goes_on_bit_for_bit(taken):
    whole, broken = Forever(loader()), Forever(loader())
    for _ in range(taken):
        next(whole), next(broken)
    again = Forever(loader(seed=5))
    again.load_state_dict(broken.state_dict())
    for _ in range(40):
        a, b = next(whole), next(again)
        assert torch.equal(a.inputs, b.inputs) and a.fresh == b.fresh


def test_parts_of_a_file_and_unknown_items(tmp_path):
    (tmp_path / "t.txt").write_text("abcd" * 225 + "abxd" * 25)  # x is in no training text
    data = Text(name="text", path=str(tmp_path / "t.txt"), bptt=6, train_portion=0.9, val_portion=0.05)
    data.check()
    assert data.sizes == {"vocabulary": 5}
    loaders = data.search(LOADING, split=SPLIT, augment_val=True, generators=generators())
    assert len(loaders.split.train) == 900 and len(loaders.split.val) == 50 and 0 in loaders.split.val and 0 not in loaders.split.train
    assert data.test(LOADING).num_items == 48 and len(next(iter(loaders.val)).inputs) == 6
    loaders.split.save(tmp_path / "split.npz")
    with np.load(tmp_path / "split.npz") as saved:
        assert str(saved["digest"]) == loaders.split.digest and saved["num_val"] == 50


def test_a_folder_of_words(tmp_path):
    for part, text in (("train", "a b c\nb c\n" * 20), ("valid", "a d\n" * 20), ("test", "c <unk>\n" * 20)):
        (tmp_path / f"{part}.txt").write_text(text)
    data = Text(name="ptb", path=str(tmp_path), level="word", bptt=6)
    data.check()
    assert data.sizes == {"vocabulary": 5}  # <eos> a b c, and <unk>
    final = data.final(LOADING, split=SPLIT, generators=generators())
    assert len(final.split.train) == 7 * 20 and (final.split.val == 0).sum() == 20
    (tmp_path / "test.txt").unlink()
    with pytest.raises(DataError, match="missing test.txt"):
        Text(name="ptb", path=str(tmp_path), level="word").check()


@needs(TEXT)
def test_tiny_shakespeare_as_published():
    data = Text(name="text", path=str(TEXT))
    data.check()
    assert data.sizes == {"vocabulary": 66}  # 65 characters and one for all others
    assert sum(len(text) for text in data._texts.values()) == 1_115_394


@pytest.mark.parametrize("options, message", [
    ({"level": "byte"}, "level must be"), ({"bptt": 3}, "bptt must be"), ({"train_portion": 0.95}, "leave a test"),
    ({"train_portion": 1.0}, "train_portion must be above 0 and below 1"),
    ({"path": "nowhere.txt"}, "no such text")])
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Text(**{"name": "text", "path": "x"} | options).check()


def test_text_that_is_too_short_or_not_text(tmp_path):
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(DataError, match="at least 2 characters"):
        Text(name="text", path=str(tmp_path / "short.txt")).check()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="must be text in UTF-8, and is not at byte 0"):
        Text(name="text", path=str(tmp_path / "binary.txt")).check()


def test_the_digest_of_a_split_is_read_again(tmp_path):
    split = TextSplit(torch.arange(5), torch.arange(3))
    split.save(tmp_path / "split.npz")
    assert TextSplit.digest_in(tmp_path / "split.npz") == split.digest
    (tmp_path / "other.npz").write_bytes(b"no such")
    with pytest.raises(DataError):
        TextSplit.digest_in(tmp_path / "other.npz")
