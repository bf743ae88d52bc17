"""Text for language models: any file, or a folder with train.txt, valid.txt and test.txt, as characters or as words."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from supernet.data.arrays import read_arrays
from supernet.data.base import Data, DataError
from supernet.data.loader import FinalLoaders, Loading, SearchLoaders
from supernet.files import read_text
from supernet.processes.group import ALONE, Group
from supernet.ranges import MANY, Portion, Range, ranged

PARTS = ("train", "valid", "test")
MAX_BYTES = 2**31  # of a text, which is held in memory as numbers
UNKNOWN, END = "<unk>", "<eos>"  # words: not in the training part; the end of a line
SHORTEST, SPREAD, LONGER = 5, 5, 20  # of a drawn length: at least, standard deviation, at most so much above bptt [official DARTS code]


def items_of(text: str, level: str) -> list[str]:
    """`text` cut into characters, or into words with an end mark a line."""
    return list(text) if level == "character" else [word for line in text.splitlines() for word in [*line.split(), END]]


class TextBatch(NamedTuple):
    """inputs and targets (T, B) int64, targets one item ahead; `fresh` where the sequences begin, and no state goes before them."""

    inputs: Tensor
    targets: Tensor
    fresh: bool


@dataclass(frozen=True)
class TextSplit:
    """The items that train w and those that train alpha, or choose: whole stretches of text, in order."""

    train: Tensor
    val: Tensor

    @cached_property
    def digest(self) -> str:
        sha = hashlib.sha256(f"{len(self.train)} {len(self.val)} ".encode())
        for part in (self.train, self.val):
            sha.update(part.numpy().astype("<i8").tobytes())
        return sha.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """The numbers of items and the digest; the text itself stays where it is."""
        with open(path, "wb") as file:
            np.savez(file, num_train=len(self.train), num_val=len(self.val), digest=np.array(self.digest))

    @staticmethod
    def digest_in(path: Path) -> str:
        """That of the split which `save` wrote. Raises DataError."""
        return str(read_arrays(path, ("num_train", "num_val", "digest"), max_mb=1)["digest"])


@ranged
class Text(Data):
    """The text at `path`: a file, cut at `train_portion` and `val_portion` of its length (the rest is the test part), or a folder with
    train.txt, valid.txt and test.txt (as the Penn Treebank comes). level: `character` or `word` (split at white space, an end mark a
    line). The vocabulary is that of the training part, and one more item for all others. `bptt`: length of the sequences that
    gradients flow through. `random_lengths`: training draws lengths around it (Merity et al. 2018, Sec. 4.1).
    """

    def __init__(self, *, name: str, path: str, level: str = "character", bptt: Annotated[int, Range(SHORTEST + 1, MANY)] = 35,
                 random_lengths: bool = True, train_portion: Portion = 0.9, val_portion: Portion = 0.05):
        if level not in ("character", "word"):
            raise DataError(f"dataset.level must be character or word, got {level!r}")
        if train_portion + val_portion >= 1:
            raise DataError(f"dataset.train_portion and val_portion must leave a test part, got {train_portion} and {val_portion}")
        self._name, self.path, self.item, self.bptt, self.random_lengths = name, Path(path), level, bptt, random_lengths
        self.portions = (train_portion, val_portion)

    @property
    def name(self) -> str:
        return self._name

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": len(self._vocabulary)}

    def check(self) -> None:
        if self.path.is_dir():
            missing = [f"{part}.txt" for part in PARTS if not (self.path / f"{part}.txt").is_file()]
            if missing:
                raise DataError(f"{self.path}: expected {', '.join(f'{p}.txt' for p in PARTS)}, missing {', '.join(missing)} (the Penn "
                                "Treebank files are ptb.train.txt, ptb.valid.txt and ptb.test.txt of Mikolov's simple-examples)")
        elif not self.path.is_file():
            raise DataError(f"{self.path}: no such text; pass dataset.path=FILE, or a folder with train.txt, valid.txt and test.txt")
        shortest = min(len(self._items(part)) for part in PARTS)
        if shortest < 2:
            raise DataError(f"{self.path}: each of the three parts needs at least 2 {self.item}s, the shortest has {shortest}")

    def facts(self) -> dict[str, Any]:
        return {"kind": "text", "name": self.name, "level": self.item, "class_names": list(self._vocabulary)}

    def example(self, device: torch.device) -> Tensor:
        return torch.zeros(1, 1, dtype=torch.int64, device=device)

    def search(self, loading: Loading, *, split: Mapping[str, Any], augment_val: bool,
               generators: Mapping[str, torch.Generator]) -> SearchLoaders:
        """Training text trains w, validation text alpha, both in order; `split` limits their lengths."""
        if split.get("shared"):
            raise DataError("split.shared=true is for images; a text has a validation part of its own")
        chosen = TextSplit(self._encoded("train")[: split["max_train"]], self._encoded("valid")[: split["max_val"]])
        return SearchLoaders(
            train=self._loader(chosen.train, loading.batch_size, loading, generators["train"], self.random_lengths, "training"),
            val=self._loader(chosen.val, loading.batch_size, loading, generators["val"], False, "validation"),
            val_eval=self._eval_loader(chosen.val, loading), split=chosen, about=self._about())

    def final(self, loading: Loading, *, split: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> FinalLoaders:
        chosen = TextSplit(self._encoded("train")[: split["max_train"]], self._encoded("valid")[: split.get("max_val")])
        train = self._loader(chosen.train, loading.batch_size, loading, generators["train"], self.random_lengths, "training")
        return FinalLoaders(train, self._eval_loader(chosen.val, loading), chosen, self._about())

    def _about(self) -> tuple[str, ...]:
        return (f"a vocabulary of {len(self._vocabulary):,} {self.item}s, that of the training text",)

    def test(self, loading: Loading) -> "TextLoader":
        return self._eval_loader(self._encoded("test"), loading)

    def _loader(self, items: Tensor, batch_size: int, loading: Loading, generator: torch.Generator, random: bool,
                part: str) -> "TextLoader":
        if len(items) // batch_size < self.bptt + 1:
            raise DataError(f"batch_size {batch_size} leaves {len(items) // batch_size} {self.item}s a row of the {part} text; at least "
                            f"bptt + 1 = {self.bptt + 1} are needed")
        return TextLoader(items, batch_size, self.bptt, generator=generator, random_lengths=random, device=loading.device,
                          group=loading.group)

    def _eval_loader(self, items: Tensor, loading: Loading) -> "TextLoader":
        # as many rows as eval_batch_size, fewer where the text is short: every row needs a context to be predicted from (and statistics of
        # a process's part of a batch need two rows)
        rows = max(2 * loading.group.size, min(loading.eval_batch_size, len(items) // (4 * self.bptt)))
        return TextLoader(items, rows, self.bptt, generator=torch.Generator(loading.device), random_lengths=False, device=loading.device,
                          group=loading.group)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        known = sorted(set(self._items("train")) - {UNKNOWN})
        return {item: n for n, item in enumerate([UNKNOWN, *known])}

    def _encoded(self, part: str) -> Tensor:
        return torch.tensor([self._vocabulary.get(item, 0) for item in self._items(part)], dtype=torch.int64)

    def _items(self, part: str) -> list[str]:
        return items_of(self._texts[part], self.item)

    @cached_property
    def _texts(self) -> dict[str, str]:
        try:
            if self.path.is_dir():
                return {part: read_text(self.path / f"{part}.txt", MAX_BYTES) for part in PARTS}
            text = read_text(self.path, MAX_BYTES)
        except OSError as error:
            raise DataError(f"{error.filename or self.path}: cannot read the text ({error.strerror or error})") from error
        first = int(self.portions[0] * len(text))
        second = first + int(self.portions[1] * len(text))
        return {"train": text[:first], "valid": text[first:second], "test": text[second:]}


class TextLoader:
    """`items` (N,) in `rows` parallel stretches, read from beginning to end in windows; what does not fill the rows is left out.

    Windows have `bptt` items, or lengths drawn for each pass: around bptt, around its half one time in twenty (standard deviation 5,
    from 5 up to bptt + 20), as many as bptt would give; what they do not reach of the text is left out of this pass. A position
    in the stream can be saved; the loader otherwise behaves as `loader.Loader` does.

    group: of the processes that share the batches, each of which has some of the rows all along.
    """

    def __init__(self, items: Tensor, rows: int, bptt: int, *, generator: torch.Generator, random_lengths: bool, device: torch.device,
                 group: Group = ALONE):
        columns = len(items) // rows
        if columns < 2:
            raise DataError(f"text of {len(items)} items is too short for {rows} rows of at least 2")
        self.items = items[: columns * rows].view(rows, columns).T.contiguous().to(device)  # (N / rows, rows)
        self.bptt, self.generator, self.random_lengths, self.device = bptt, generator, random_lengths, device
        self.group = group
        self.position, self._lengths = 0, []

    @property
    def smallest_batch(self) -> int:
        """Rows of the smallest part of a batch that a process of the group has."""
        return self.group.least(self.items.shape[1])

    def lone_batch(self, option: str) -> tuple[str, str]:
        """As `loader.Loader.lone_batch`."""
        return f"batch_size={self.items.shape[1]}", f"pass batch_size={2 * self.group.size} or more"

    @property
    def num_items(self) -> int:
        """How many are predicted in a pass of fixed windows."""
        return (len(self.items) - 1) * self.items.shape[1]

    def __len__(self) -> int:
        """Windows in a whole pass."""
        return max(1, (len(self.items) - 1) // self.bptt) if self.random_lengths else math.ceil((len(self.items) - 1) / self.bptt)

    def __iter__(self) -> Iterator[TextBatch]:
        if not self._lengths or self.position == len(self):
            self.restart()
            self._lengths = self._draw() if self.random_lengths else self._fixed()
        start = sum(self._lengths[: self.position])
        cut = self.group.cut(self.items.T)
        own = cut.items.T
        for length in self._lengths[self.position:]:
            self.position += 1
            yield self.group.batch(TextBatch(own[start: start + length], own[start + 1: start + 1 + length], fresh=start == 0), cut)
            start += length

    def apart(self, batch_size: int | None, generator: torch.Generator) -> "TextLoader":
        """As `loader.Loader.apart`, in `batch_size` rows."""
        rows = self.items.shape[1] if batch_size is None else batch_size
        return TextLoader(self.items.T.reshape(-1), rows, self.bptt, generator=generator, random_lengths=self.random_lengths,
                          device=self.device, group=self.group)

    def restart(self) -> None:
        """Give up the rest of this pass: the next iteration starts a new one."""
        self.position, self._lengths = 0, []

    def state_dict(self) -> dict[str, Any]:
        return {"lengths": list(self._lengths), "position": self.position, "generator": self.generator.get_state(),
                "shape": list(self.items.shape), "bptt": self.bptt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (state["shape"], state["bptt"]) != (list(self.items.shape), self.bptt):
            raise DataError(f"the saved position is one in text of {state['shape']} items, windows of {state['bptt']}; this loader has "
                            f"{list(self.items.shape)} and {self.bptt}")
        self._lengths, self.position = list(state["lengths"]), state["position"]
        self.generator.set_state(state["generator"].cpu())

    def _fixed(self) -> list[int]:
        left = len(self.items) - 1
        return [min(self.bptt, left - done) for done in range(0, left, self.bptt)]

    def _draw(self) -> list[int]:
        windows, left = len(self), len(self.items) - 1
        if windows == 1:
            return [left]
        halved = torch.rand(windows, generator=self.generator, device=self.generator.device) >= 0.95
        noise = torch.randn(windows, generator=self.generator, device=self.generator.device)
        drawn = torch.where(halved, self.bptt / 2, float(self.bptt)) + SPREAD * noise
        lengths = []
        for n, length in enumerate(drawn.long().clamp(SHORTEST, self.bptt + LONGER).tolist()):
            lengths.append(min(length, left - SHORTEST * (windows - n - 1)))  # each of those that follow keeps its shortest length
            left -= lengths[-1]
        return lengths
