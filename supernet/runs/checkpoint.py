"""Checkpoints that outlive a kill, a full disk and a flipped bit: written beside, named by their digest, verified when read. What a file
holds is described in docs/checkpoints.md."""

import hashlib
import io
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from supernet.files import read_bytes, write_whole
from supernet.formats import Format, FormatError
from supernet.runs.checkpoint_files import FILE, MAX_BYTES, CheckpointError, name_of, newest_first
from supernet.runs.checkpoint_files import all_files as all_files
from supernet.runs.checkpoint_files import has_checkpoint as has_checkpoint
from supernet.torch_file import load_plain

# What `torch.load(weights_only=True)` reads back, by exact type: a NumPy float is a float to isinstance, yet is refused at load.
_LEAVES = {Tensor, nn.Parameter, str, int, float, bool, type(None)}
_CHILDREN = {dict: dict.items, OrderedDict: OrderedDict.items, list: enumerate, tuple: enumerate}


def _told_of_processes(file: dict[str, Any]) -> dict[str, Any]:
    """Number 0 was the state itself; that of a run did not always say how many processes had trained it, nor always count its images."""
    state = dict(file)
    for name in ("parts", "moving"):  # what moves, in a run's checkpoint and in one of a training that an evaluation cut short
        if type(state.get(name)) is dict and type(state[name].get("position")) is dict:
            there = state[name]["position"]
            state[name] = state[name] | {"position": there | {key: there.get(key, 0) for key in ("images", "trials")}}
    if "parts" in state:
        state |= {"processes": state.get("processes", 1), "synchronised_norms": state.get("synchronised_norms", False)}
    return {"state": state}


FORMAT = Format("supernet.checkpoint", 1, {0: _told_of_processes})


class Loaded(NamedTuple):
    """What a checkpoint held, where it was, and one line for each newer file that had to be passed over."""

    state: dict[str, Any]
    path: Path
    skipped: list[str]


def save(folder: Path, state: Mapping[str, Any], *, name: str, keep: int = 2) -> Path:
    """Writes `<folder>/<name>.<sha256>.pt` and deletes all but the newest `keep`; one rename is the one atomic event.

    Names must sort in time (`epoch_0003_step_000120`). Files that sort after `name` belong to a future that was given up when
    an earlier checkpoint was resumed, so they go too. Raises CheckpointError: the state holds what would not load again, or the
    file cannot be written; earlier checkpoints then stay as they are.
    """
    check(state, name=name, keep=keep)
    return write(folder, state, name=name, keep=keep)


def check(state: Mapping[str, Any], *, name: str, keep: int) -> None:
    """What `save` checks before it writes. Raises as `save`."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"a checkpoint's name has only letters, digits, '_' and '-', got {name!r}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    _check(state, "state")


def write(folder: Path, state: Mapping[str, Any], *, name: str, keep: int) -> Path:
    """What `save` does with what was checked. Raises CheckpointError: the file cannot be written; earlier ones then stay as they are."""
    data = _bytes(FORMAT.stamp() | {"state": state})
    path = folder / f"{name}.{hashlib.sha256(data).hexdigest()}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.part"):
            leftover.unlink()
        write_whole(path, data)
        older = [old for old in newest_first(folder) if name_of(old) < name]
        for old in set(newest_first(folder)) - {path, *older[: keep - 1]}:
            old.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{path}: cannot write the checkpoint ({reason}); earlier ones are kept") from error
    return path


def save_file(path: Path, state: Mapping[str, Any]) -> None:
    """One file for others to read with `torch.load(path, weights_only=True)`, whole or not at all. Raises OSError."""
    write_whole(path, _bytes(state))


def load(folder: Path) -> Loaded:
    """The newest checkpoint that is whole. Raises CheckpointError, with what was seen, when there is none."""
    paths = newest_first(folder)
    if not paths:
        raise CheckpointError(f"{folder}: there is no checkpoint")
    skipped, bad = [], []
    for path, previous in zip(paths, [*paths[1:], None], strict=True):
        try:
            return Loaded(load_file(path), path, skipped)
        except CheckpointError as error:
            bad.append((path, str(error).removeprefix(str(path)).strip(": ")))
            skipped.append(f"{error}; falling back to {name_of(previous)}" if previous else str(error))
    raise CheckpointError(f"{folder}: no checkpoint is usable, " + "; ".join(f"{name_of(path)} {reason}" for path, reason in bad))


def load_file(path: Path) -> dict[str, Any]:
    """One checkpoint, on the CPU. Raises CheckpointError: unreadable, or its bytes are not those its name was made from."""
    match = FILE.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path}: a checkpoint is named <name>.<sha256>.pt, and this file is not")
    try:
        data = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the checkpoint ({error.strerror or error})") from error
    if hashlib.sha256(data).hexdigest() != match["sha256"]:
        raise CheckpointError(f"{path} is corrupt (sha256 differs)")
    try:
        state = FORMAT.current(load_plain(io.BytesIO(data), len(data))).get("state")
        if type(state) is not dict:
            raise FormatError("it holds no state")
        return state
    except FormatError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # what a file that torch did not write makes of its reader has many names
        why = (str(error).splitlines() or [""])[0][:150] or type(error).__name__
        raise CheckpointError(f"{path}: torch {torch.__version__} cannot read it ({why})") from error


def packed(state: Mapping[str, Any]) -> bytes:
    """For another process, to read with `torch.load(weights_only=True)`."""
    return bytes(_bytes(state))


def _bytes(state: Mapping[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def _check(value: Any, where: str) -> None:
    """Raises CheckpointError with the key path of the first value that would be saved but not loaded again."""
    kind = type(value)
    if kind in _LEAVES:
        return
    if kind not in _CHILDREN:
        raise CheckpointError(f"{where} is a {kind.__module__}.{kind.__qualname__}; a checkpoint may hold only tensors, dicts, "
                              "lists, tuples, str, numbers, bool and None")
    for key, child in _CHILDREN[kind](value):
        _check(key, f"a key of {where}")
        _check(child, f"{where}[{key!r}]")
