"""What a final training takes from an earlier run: the weights that it begins with (`init=`), and a teacher (`teacher=`)."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supernet.data.base import Data
from supernet.errors import UsageError
from supernet.genotype import Genotype, short
from supernet.runs.loading import Loaded, load
from supernet.space import Space

HEADS = ("classifier", "embedding", "bias")  # words in the names of parameters that belong to classes, or to a vocabulary
SHOWN = 3  # names in a line


def warm_start(net: nn.Module, data: Data, genotype: Genotype, init: str, space: Space | None) -> list[str]:
    """Gives `net`, of that genotype, the weights of the run or file `init` that fit it by name and shape: of a training of the same
    genotype, or of a search in its space. Where the classes are other ones, the classifiers begin anew. Returns lines that say what was
    taken. space: the user's own, None for ours.

    Raises UsageError: it is of another genotype or space, or its network has other sizes. LoadError: there are no weights.
    """
    found = load(init, space=space)
    _check_same(found, net, genotype, init)
    have, want = found.network.state_dict(), net.state_dict()
    other_classes = found.class_names != tuple(map(str, data.facts().get("class_names", ())))
    fits = {name: have[name] for name, value in want.items() if name in have and have[name].shape == value.shape
            and not (other_classes and _is_head(name))}
    body = [name for name, value in want.items() if value.dim() > 1 and not _is_head(name)]
    if 2 * len(fits.keys() & set(body)) < len(body):
        sizes = found.network.built.sizes
        told = " ".join(f"{key}={sizes[key]}" for key in ("channels", "layers") if key in sizes)
        raise UsageError(f"init={init}: only {len(fits.keys() & set(body))} of {len(body)} tensors of weights have the shapes that they "
                         f"have here; that network was built with {told}: pass the same")
    net.load_state_dict({**want, **fits})
    lines = [f"init: {len(fits)} of {len(want)} tensors from {init}"]
    if other_classes and any(_is_head(name) for name in want):
        lines.append(f"init: the classifier begins anew, for there are other classes ({_classes(found.class_names)} there)")
    if others := [name for name in want if name not in fits and not (other_classes and _is_head(name))]:
        lines.append(f"init: {len(others)} tensors that have no match begin anew: {', '.join(others[:SHOWN])}"
                     f"{', ...' if len(others) > SHOWN else ''}")
    return lines


def _check_same(found: Loaded, net: nn.Module, genotype: Genotype, init: str) -> None:
    if found.weights is None and found.genotype != genotype:
        raise UsageError(f"init={init}: its weights are of genotype {found.genotype.digest if found.genotype else None}, not of "
                         f"{genotype.digest}, which is to be trained")
    if found.weights is not None and found.space.fingerprint != net.built.fingerprint:
        raise UsageError(f"init={init}: that search was in space {short(found.space.name)} ({found.space.fingerprint[:12]}), this genotype "
                         f"is of {net.built.space} ({net.built.fingerprint[:12]})")


def _is_head(name: str) -> bool:
    return any(word in HEADS for word in name.split(".")[:-1]) or name in HEADS


def _classes(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {', '.join(short(name)[1:-1] for name in names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


class TeacherOf:
    """The network of a run as a `tasks.distillation.Teacher`. Its state is a digest of its weights, so that a training which goes on after
    a break learns of the teacher that it began with, or says so (UsageError)."""

    def __init__(self, path: str, found: Loaded):
        self.path, self.network, self.weights = path, found.network.requires_grad_(False), found.weights
        self.digest = weights_digest(found.network.state_dict())

    def __call__(self, images: Tensor) -> Tensor:
        return self.network(images, self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"sha256": self.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["sha256"] != self.digest:
            raise UsageError(f"teacher={self.path}: its weights are not those with which this training began (SHA-256 {self.digest[:12]}, "
                             f"not {str(state['sha256'])[:12]})")


def teacher_from(path: str, data: Data, device: torch.device, space: Space | None) -> TeacherOf:
    """The network of the run or file `path`, a final network or a supernet at its mean edge weights, in evaluation mode on the device.

    Raises UsageError: it tells other classes apart, or reads images that were prepared in another way. LoadError: there are no weights.
    """
    if data.item != "image":
        raise UsageError(f"teacher={path}: a teacher is for images, and {data.name} is read as {data.item}s")
    found, here = load(path, space=space, device=str(device)), data.facts()
    names = tuple(map(str, here.get("class_names", ())))
    if found.class_names != names:
        raise UsageError(f"teacher={path}: it must tell the classes of {data.name} apart ({_classes(names)}), got "
                         f"{_classes(found.class_names)}")
    if found.preprocess is None or [*found.preprocess.mean, *found.preprocess.std] != [*here.get("mean", ()), *here.get("std", ())]:
        raise UsageError(f"teacher={path}: it must read images that are normalised as {data.name} is here, mean {here.get('mean')} "
                         f"and std {here.get('std')}")
    return TeacherOf(path, found)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors by name, type and shape."""
    sha = hashlib.sha256()
    for name, value in state.items():
        sha.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()

