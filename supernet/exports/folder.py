"""The folder that `supernet.export` leaves. Nothing in it needs this package.

    network.py          the network, torch.nn alone: `Network()`
    weights.pt          its state dict: `torch.load(FILE, weights_only=True)`
    preprocessing.json  mean, std, size and classes, or the vocabulary
    preprocess.py, classify.py or continue.py    its use
    network.pt2, network.onnx                    for other programs, where asked for
    export.json         what it was made of, and how far each file is from the network
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supernet.errors import UsageError
from supernet.exports.readers import Reader, facts
from supernet.exports.source import source_of
from supernet.files import read_text, write_whole
from supernet.formats import Format, FormatError
from supernet.genotype import short
from supernet.networks.written import Block
from supernet.runs.checkpoint import save_file
from supernet.runs.journal import to_json
from supernet.runs.loading import Loaded

FORMAT = Format("supernet.export")
RECORD, SOURCE, WEIGHTS, FACTS = "export.json", "network.py", "weights.pt", "preprocessing.json"
MAX_RECORD_BYTES = 1_000_000
SHOWN = 3  # of the files that are in the way


def earlier_files(output: Path) -> list[str]:
    """The files of an earlier export in `output`; none where there is no such folder, or an empty one. Raises UsageError: something else is
    there."""
    if not output.exists():
        return []
    if not output.is_dir():
        raise UsageError(f"--output {output}: expected a new folder, there is a file of that name")
    names = sorted(path.name for path in output.iterdir())
    if names and RECORD not in names:
        seen = ", ".join(map(short, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
        raise UsageError(f"--output {output}: expected a new or empty folder, or that of an earlier export; it holds {seen}")
    if not names:
        return []
    try:
        record = json.loads(read_text(output / RECORD, MAX_RECORD_BYTES))
        files = FORMAT.current(record)["files"]
    except FormatError as error:
        raise UsageError(f"--output {output}: {RECORD}: {error}; pass a new or empty folder") from error
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        files = None
    if type(files) is not list or not all(type(name) is str and name == Path(name).name for name in files):
        raise UsageError(f"--output {output}: its {RECORD} is not that of an earlier export: pass a new or empty folder")
    return files


@contextlib.contextmanager
def beside(output: Path) -> Iterator[Path]:
    """A new folder next to `output`, or in it where that is a disk of its own, for files that are moved when all of them are there; it is
    gone afterwards. Raises UsageError."""
    try:
        output = output.resolve()  # `.` has a name too
        output.parent.mkdir(parents=True, exist_ok=True)
        within = output.is_dir() and output.stat().st_dev != output.parent.stat().st_dev  # no file can be renamed from disk to disk
        made = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output if within else output.parent))
    except OSError as error:
        raise UsageError(f"--output {output}: cannot write there ({error.strerror or error})") from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_plain(folder: Path, block: Block, loaded: Loaded, reader: Reader) -> None:
    """All but `RECORD` and the files of other programs. Raises OSError, NoPlainForm."""
    write_use(folder, loaded, {SOURCE: source_of(block), **reader.files(loaded.preprocess)})
    save_file(folder / WEIGHTS, _contiguous(block))


def write_use(folder: Path, loaded: Loaded, texts: Mapping[str, str]) -> None:
    """What is read and said, and `texts` by the name of their file. Raises OSError."""
    said = to_json(facts(loaded.preprocess, loaded.class_names), indent=1)
    said = re.sub(r"\[[-+.,\w\s]*\]", lambda numbers: " ".join(numbers.group().split()), said)  # a row a line
    for name, text in {FACTS: said + "\n", **texts}.items():
        write_whole(folder / name, text.encode())


def _contiguous(block: Block) -> dict[str, torch.Tensor]:
    """Its tensors as modules have them, on the CPU; parameters that are tied stay one."""
    made: dict[int, torch.Tensor] = {}
    return {name: made.setdefault(id(value), value.cpu().clone(memory_format=torch.contiguous_format))
            for name, value in block.tensors.items()}


def move(folder: Path, output: Path, earlier: list[str], record: Mapping[str, Any]) -> list[str]:
    """Puts the files of `folder` into `output`, the record last, and takes away what only the earlier export had. Returns their names.
    Raises OSError."""
    names = sorted(path.name for path in folder.iterdir())
    output.mkdir(exist_ok=True)
    for name in names:
        os.replace(folder / name, output / name)
    write_whole(output / RECORD, (to_json({**FORMAT.stamp(), "files": [*names, RECORD], **record}, indent=1) + "\n").encode())
    for name in {*earlier} - {*names, RECORD}:
        (output / name).unlink(missing_ok=True)
    return [*names, RECORD]


class _Uncached(SourceFileLoader):
    """Leaves no __pycache__ beside the file."""

    def set_data(self, path: str, data: bytes, **mode: int) -> None:
        pass


def plain_module(folder: Path, dtype: torch.dtype = torch.float32, classes: Mapping[str, type[nn.Module]] | None = None) -> nn.Module:
    """The network of a folder, made by its file, which is run: it must be one that was written here. classes: that are used in place of
    those of the file, by name."""
    loader = _Uncached("plain_network", str(folder / SOURCE))
    made = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(made)
    vars(made).update(classes or {})
    with torch.random.fork_rng(devices=[]):
        net = made.Network()
    net.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    return net.to(dtype, memory_format=torch.channels_last).eval()  # as `load` lays ours out: depthwise convolutions are faster
