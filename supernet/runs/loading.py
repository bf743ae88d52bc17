"""`load`: the network of a run, to be used from Python. Nothing that a run folder holds is run as code, and Hydra is not needed."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ops.op import Normalisation
from supernet.data.preprocess import Preprocessing, preprocessing
from supernet.errors import Mendable
from supernet.genotype import Genotype, short
from supernet.networks.build import initial_weights
from supernet.runs import checkpoint
from supernet.runs.device import resolve_device
from supernet.runs.folder import RunFolder
from supernet.runs.weights import is_whole, read_weights
from supernet.space import Space
from supernet.spaces.named import space_again
from supernet.training.stages import narrowed
from supernet.weights import EdgeWeights, Weights, check_shapes

MAX_LAYERS = 1000  # a file says how many: a bound, so that it cannot ask for a network that is never built


class LoadError(Mendable, RuntimeError):
    """What was asked for is not a run that can be loaded. The message is one line."""


@dataclass(frozen=True)
class Loaded:
    """What a run leaves to use. `run.network(run.preprocess(images), run.weights)` are logits (N, len(class_names)).

    network: in evaluation mode. weights: of a search, the mean edge weights of its relaxation; None for a final network, which needs none.
    space: what it was built in. genotype: None where a search has not finished an epoch. preprocess: from pictures or text to the
    network's input; None where the data set did not say how. class_names: in label order (of text, the vocabulary). options: those of the
    run, plain; None where weights.pt came alone. notes: a line for everything that was passed over.
    """

    network: nn.Module
    weights: EdgeWeights | None
    space: Space
    genotype: Genotype | None
    preprocess: Preprocessing | None
    class_names: tuple[str, ...]
    options: dict[str, Any] | None
    notes: tuple[str, ...] = field(default=())


def load(run: str | Path, *, space: Space | None = None, device: str = "cpu") -> Loaded:
    """The network of a run, with its weights.

    run: the folder of a final training or of a search (its last checkpoint counts), or a weights.pt. space: the space itself, where it is
    the user's own and no name leads to it. device: as in the scripts, `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises an error whose message is one line (`supernet.errors.Mendable`): there is no such run, it is damaged, or an earlier version
    wrote it.
    """
    path, on = Path(run), resolve_device(device)
    if space is not None and type(space) is not Space:
        raise LoadError(f"space must be a supernet.space.Space, got {type(space).__name__}: a name is not needed, the run has it")
    if path.is_dir():
        folder = RunFolder(path)
        return _final(folder.weights, folder, space, on) if folder.weights.exists() else _search(folder, space, on)
    return _final(path, None, space, on)


def _final(path: Path, folder: RunFolder | None, space: Space | None, device: torch.device) -> Loaded:
    state = read_weights(path)
    options = None if folder is None else _options(folder)
    known = None if folder is None else (folder.status() or {}).get("config_hash", state["config_hash"])
    if known not in (None, state["config_hash"]):
        raise LoadError(f"{path} is of other options than run.json beside it ({state['config_hash'][:12]}, not {short(known)})")
    space, net = build_again(state["network"], state["state_dict"], space, path)
    genotype = Genotype.from_json(state["genotype"], str(path))
    space.validate(genotype)
    return Loaded(_ready(net, device), None, space, genotype, preprocessing(state["data"], device), _class_names(state["data"]), options)


def _search(folder: RunFolder, space: Space | None, device: torch.device) -> Loaded:
    if not checkpoint.has_checkpoint(folder.checkpoints):
        raise LoadError(f"{folder.path}: expected the folder of a run, or a weights.pt; {_seen(folder)}")
    state, path, skipped = checkpoint.load(folder.checkpoints)
    about, parts = state.get("about"), state.get("parts")
    if not isinstance(parts, dict) or not isinstance(about, dict) or not {"network", "data", "mean"} <= set(about):
        if isinstance(parts, dict) and "net" not in parts:
            raise LoadError(f"{folder.path}: that search had no supernet, so there is no network to load: its architecture is in "
                            f"{folder.genotype.name}, which train_final.py trains")
        if isinstance(parts, dict) and "relaxation" not in parts:
            raise LoadError(f"{folder.path}: that training has not finished: weights.pt is written at its end (resume={folder.path})")
        raise LoadError(f"{path}: does not say which network it is of, so an earlier version wrote it: search again")
    space, net = build_again(about["network"], parts.get("net"), space, path)
    weights = _edge_weights(about["mean"], space, device, path)
    folder.check_unchanged(folder.genotype.name)
    genotype = Genotype.load(folder.genotype) if folder.genotype.exists() else None
    if genotype is not None:
        space.validate(genotype)
    return Loaded(_ready(net, device), weights, space, genotype, preprocessing(about["data"], device), _class_names(about["data"]),
                  _options(folder), tuple(skipped))


def _seen(folder: RunFolder) -> str:
    inside = sorted(path.parent.name for path in folder.path.glob("*/run.json"))
    if inside:
        return f"this is a folder of {len(inside)} runs, the newest {folder.path / inside[-1]}"
    return "that run stopped before its first checkpoint" if folder.run_json.exists() else "there is neither here"


def _ready(net: nn.Module, device: torch.device) -> nn.Module:
    return net.eval().to(device, memory_format=torch.channels_last)  # the layout in which CPUs are fastest


def build_again(network: Mapping[str, Any], state: Any, space: Space | None, origin: Path) -> tuple[Space, nn.Module]:
    """The space and the network that `runs.weights.description` tells of, with the weights `state`. `space`: the user's, or None for ours
    of that name. Raises LoadError: they do not fit each other."""
    try:
        name, arguments, fingerprint = network["space"], network["arguments"], network["fingerprint"]
        candidates = {str(kind): tuple(tuple(bool(held) for held in row) for row in rows) for kind, rows in network["candidates"].items()}
        sizes = {key: tuple(value) if isinstance(value, list) else value for key, value in network["sizes"].items()}
        norm = network["normalisation"]
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise LoadError(f"{origin}: does not describe a network ({type(error).__name__}: {error})") from error
    # Our own networks are laid out without memory, and take the tensors that were read: what a file says of sizes allocates nothing.
    where = "meta" if space is None else "cpu"
    space = space_again(name, arguments) if space is None else space
    if space.name != name or fingerprint not in _fingerprints(space, candidates):
        raise LoadError(f"{origin}: is of the space {short(name)} ({short(fingerprint)}), not of {space.name!r} ({space.fingerprint})")
    if not _fit(space, candidates) or sizes.get("layers", 1) not in range(1, MAX_LAYERS + 1):
        raise LoadError(f"{origin}: does not describe a network of space {space.name}")
    try:
        if norm is not None:
            sizes["norm"] = Normalisation(**norm)
        with initial_weights(0), torch.device(where):
            net = space.network(candidates, **sizes)
        _check_kinds(net, state)
        net.load_state_dict(state, assign=True)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise LoadError(f"{origin}: its weights are not those of the network that it describes "
                        f"({' '.join(str(error).split())[:150]})") from error
    return space, net


def _check_kinds(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError: a tensor is of another type than the network's own, which taking it over would change."""
    for name, own in net.state_dict().items():
        if name not in state:
            continue  # told by whoever takes them over
        given = state[name]
        if not (isinstance(given, Tensor) and is_whole(given) and given.dtype == own.dtype):
            raise ValueError(f"{name} must be a tensor of {own.dtype}, got {getattr(given, 'dtype', type(given).__name__)}")


def _fingerprints(space: Space, candidates: Mapping[str, Any]) -> set[str]:
    """Those that a network with these candidates may tell of: the space's, and that of what a later stage of a search has left of it."""
    found = {space.fingerprint}
    with suppress(ValueError):  # of a space that has no stages, or masks that no stage leaves
        if _fit(space, candidates):
            found.add(narrowed(space, candidates).fingerprint)
    return found


def _fit(space: Space, candidates: Mapping[str, Any]) -> bool:
    """Whether these are masks (E, O) of the space, each within what its edges have."""
    return candidates.keys() == space.cells.keys() and all(
        [len(row) for row in candidates[kind]] == [len(spec.ops)] * len(spec.edges)
        and all(have or not held for rows in zip(candidates[kind], spec.present) for held, have in zip(*rows))
        for kind, spec in space.cells.items())


def _edge_weights(mean: Any, space: Space, device: torch.device, origin: Path) -> EdgeWeights:
    def tensor(value: Any) -> Tensor | None:
        if value is None:
            return None
        if not (isinstance(value, Tensor) and is_whole(value) and value.is_floating_point()):
            raise ValueError(f"expected tables of numbers, got {getattr(value, 'dtype', type(value).__name__)}")
        return value.to(device)

    try:
        weights = EdgeWeights({kind: Weights(tensor(w["ops"]), tensor(w["edges"]), None if w["active"] is None else tuple(
            tuple(map(bool, row)) for row in w["active"]), tensor(w["skip"])) for kind, w in mean.items()})
        check_shapes(space, weights)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise LoadError(f"{origin}: has no edge weights of space {space.name} ({error})") from error
    return weights


def _class_names(data: Mapping[str, Any]) -> tuple[str, ...]:
    names = data.get("class_names", ())
    return tuple(map(str, names)) if type(names) in (list, tuple) else ()


def _options(folder: RunFolder) -> dict[str, Any] | None:
    """Those of the run; None where it left none."""
    return folder.options() if folder.config.is_file() else None
