"""weights.pt: a trained network's weights, with all that is needed to build it again and to use it. Plain values, never code.

    format        "supernet.weights/1" (supernet/formats.py)
    written_by    the version of the project; files of 0.1.0 from before do not say
    network       space, arguments and fingerprint; candidates, which ops it holds, by kind of cell; sizes and normalisation, what it
                  was built with
    data          class_names, mean, std, image_size, ... (`Data.facts`)
    genotype      as in genotype.json
    config_hash   the digest of the run's options, as in run.json
    weights       which they are, in words: the last ones, or an average; files of earlier versions do not say
    state_dict    the weights by name: `net.load_state_dict(torch.load(FILE, weights_only=True)["state_dict"])`
    sha256        of all the above: `torch.load` checks nothing
"""

import hashlib
import json
import numbers
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supernet.data.base import Data
from supernet.errors import Mendable
from supernet.formats import Format, FormatError
from supernet.genotype import Genotype
from supernet.runs.checkpoint import save_file
from supernet.torch_file import load_plain
from supernet.weights import EdgeWeights

FORMAT = Format("supernet.weights")
_KEYS = {"network": dict, "data": dict, "genotype": dict, "config_hash": str, "state_dict": dict, "sha256": str}


class WeightsError(Mendable, RuntimeError):
    """A file of weights cannot be read, or is not one. The message is one line."""


def description(net: nn.Module, data: Data) -> dict[str, Any]:
    """What `net`, which `Space.network` has made, was built from, and what of its data a user must know; plain values."""
    built = net.built
    sizes = dict(built.sizes)
    norm = sizes.pop("norm", None)
    network = {"space": built.space, "arguments": built.arguments, "fingerprint": built.fingerprint, "candidates": built.candidates,
               "sizes": sizes, "normalisation": None if norm is None else asdict(norm)}
    return {"network": _plain(network), "data": _plain(data.facts())}


def search_description(net: nn.Module, data: Data, mean: EdgeWeights) -> dict[str, Any]:
    """That of a supernet, with the mean edge weights of its relaxation."""
    return description(net, data) | {"mean": {
        kind: {"ops": _on_host(w.ops), "edges": _on_host(w.edges), "skip": _on_host(w.skip), "active": _plain(w.active)}
        for kind, w in mean.items()}}


def save_weights(path: Path, net: nn.Module, data: Data, genotype: Genotype, config_hash: str, *,
                 which: str = "the last weights") -> None:
    """Writes the weights of a final network, whole or not at all. which: of the training, in words. Raises OSError."""
    state = {**FORMAT.stamp(), **description(net, data), "genotype": _plain(genotype.to_json()), "config_hash": config_hash,
             "weights": which, "state_dict": {name: value.detach().cpu() for name, value in net.state_dict().items()}}
    save_file(path, state | {"sha256": _digest(state)})


def read_weights(path: Path) -> dict[str, Any]:
    """What `save_weights` wrote, on the CPU; its values are not looked at here. Raises WeightsError: the file is missing, damaged, bare, or
    something else."""
    try:
        seen = os.stat(path)
        if not stat.S_ISREG(seen.st_mode):
            raise WeightsError(f"{path}: expected a file of weights, this is no regular file")
        with open(path, "rb") as file:
            state = load_plain(file, seen.st_size)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights ({error.strerror or error})") from error
    except WeightsError:
        raise
    except Exception as error:  # what a damaged file makes of torch's reader has many names
        raise WeightsError(f"{path}: not a file of weights, or a damaged one (torch {torch.__version__} cannot read it: "
                           f"{type(error).__name__})") from error
    if not isinstance(state, dict) or "format" not in state:
        raise WeightsError(f"{path}: bare weights, as earlier versions wrote them, do not say which network they are of: train again, or "
                           "build that network yourself and load them with torch.load")
    try:
        read, state = state, FORMAT.current(state)
    except FormatError as error:
        raise WeightsError(f"{path}: {error}") from error
    for key, kind in _KEYS.items():
        if not isinstance(state.get(key), kind):
            raise WeightsError(f"{path}: {key!r} must be of type {kind.__name__}, got {type(state.get(key)).__name__}")
    if not all(isinstance(value, Tensor) and is_whole(value) for value in state["state_dict"].values()):
        raise WeightsError(f"{path}: 'state_dict' must hold tensors alone, with all their numbers")
    if _digest(read) != read["sha256"]:
        raise WeightsError(f"{path} is damaged (its SHA-256 differs)")
    return state


def is_whole(value: Tensor) -> bool:
    """Whether a tensor from a file has all its numbers there: a few bytes can name one of any size, whose numbers all share a place, or
    are none."""
    return (value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            and value.numel() * value.element_size() <= value.untyped_storage().nbytes())


def _digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the digest itself."""
    tensors = state["state_dict"]
    said = {key: value for key, value in state.items() if key not in ("state_dict", "sha256")}
    try:
        sha = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    except (TypeError, ValueError, RecursionError):
        return "none: not plain values"
    for name, value in tensors.items():
        sha.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        sha.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _on_host(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().cpu()


def _plain(value: Any) -> Any:
    """`value` as JSON could spell it. What it cannot is told as text: a training must not end without its weights for that."""
    if value is None or isinstance(value, bool | str):
        return value if value is None or type(value) in (bool, str) else str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return repr(value)
