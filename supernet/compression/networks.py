"""The plain network as a module that is changed and trained, and as a `Block` again, with the widths that it then has."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ops import plain, widths  # the second: the forms of plain modules of other widths
from ops.forms import NoPlainForm, form_of
from supernet.errors import Mendable
from supernet.exports.folder import SOURCE, WEIGHTS, plain_module
from supernet.exports.source import source_of
from supernet.networks.written import Block

assert widths  # its import is its use
CLASSES = {name: made for name, made in vars(plain).items() if isinstance(made, type) and issubclass(made, nn.Module)}


class NotPractical(Mendable, RuntimeError):
    """A method cannot be applied to this network, or not here. The message is one line that says why; the table keeps it."""


@contextmanager
def by(tool: str) -> Iterator[None]:
    """Around calls of a library that changes a graph: what it cannot do it says in errors of any kind. Raises NotPractical."""
    try:
        yield
    except Mendable:
        raise
    except Exception as error:
        raise NotPractical(f"{tool} cannot do it ({type(error).__name__}: {' '.join(str(error).split())[:150]})") from error


class AsNetwork(nn.Module):
    """A plain module, called as our networks are: by tasks, loops and measures. Plain networks have no drop path."""

    def __init__(self, plain: nn.Module):
        super().__init__()
        self.plain, self.drop_path_prob = plain, 0.0

    def forward(self, x: Tensor, weights: None = None, *, generator: torch.Generator | None = None) -> Tensor:
        return self.plain(x)


def module_of(block: Block) -> nn.Module:
    """The module that a block describes, in evaluation mode: by its source, made here and now, with the classes of `ops.plain`."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        (where / SOURCE).write_text(source_of(block), encoding="utf-8")
        torch.save({name: value.cpu().clone() for name, value in block.tensors.items()}, where / WEIGHTS)
        return plain_module(where, classes=CLASSES)


def block_of(block: Block, module: nn.Module) -> Block:
    """The block of `module`, which was made from `block` and then changed in the widths and values of its layers. A row of layers says the
    width of each. Raises NotPractical: a part holds for other widths alone."""
    parts: dict[str, Any] = {}
    for name, part in block.parts.items():
        inner = getattr(module, name)
        try:
            parts[name] = block_of(part, inner) if type(part) is Block else form_of(inner)
        except NoPlainForm as error:
            raise NotPractical(f"{name}: {error}") from error
    return replace(block, parts=parts, widths={"channels": _width(module)} if block.widths else {})


def refilled(block: Block, module: nn.Module) -> Block:
    """The block of `module`, which was made from `block` and has the same widths: the same parts with its values."""
    parts: dict[str, Any] = {}
    for name, part in block.parts.items():
        inner = getattr(module, name)
        state = inner.state_dict()
        parts[name] = refilled(part, inner) if type(part) is Block else replace(part, tensors={key: state[key] for key in part.tensors})
    return replace(block, parts=parts)


def _width(module: nn.Module) -> int:
    """What most of its layers put out."""
    outs = Counter(layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))
    return outs.most_common(1)[0][0] if outs else 0


def resized(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """`module` with the tensors `state`, in the order in which it holds them, and the widths that these have. For weights that were written
    of it after its widths were changed: they are data, and the network is made from them without running what was written. Raises
    ValueError: they are not such."""
    tensors, places = list(state.values()), list(module.state_dict())
    if len(tensors) != len(places):
        raise ValueError(f"expected {len(places)} tensors, got {len(tensors)}")
    by_place = dict(zip(places, tensors))
    for path, layer in module.named_modules():
        own = {name: by_place[f"{path}.{name}".lstrip(".")] for name in layer.state_dict() if "." not in name}
        for name, value in own.items():
            held = getattr(layer, name)
            if held.dim() != value.dim() or held.dtype != value.dtype or held.shape[2:] != value.shape[2:]:
                raise ValueError(f"{path}.{name} must have {held.dim()} dimensions, {held.dtype}, and sides as {tuple(held.shape)}, got "
                                 f"{value.dtype} {tuple(value.shape)}")
            setattr(layer, name, nn.Parameter(value.clone()) if isinstance(held, nn.Parameter) else value.clone())
        if isinstance(layer, nn.Conv2d):
            shared = layer.groups > 1 and layer.groups == layer.in_channels
            layer.out_channels = own["weight"].shape[0]
            layer.groups = layer.out_channels if shared else layer.groups
            layer.in_channels = own["weight"].shape[1] * layer.groups
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = own["weight"].shape
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d) and own:
            layer.num_features = next(iter(own.values())).shape[0]
    return module


def parameter_count(module: nn.Module) -> tuple[int, int]:
    """Of all its parameters, and of those that are not zero."""
    return (sum(p.numel() for p in module.parameters()), sum(int(torch.count_nonzero(p)) for p in module.parameters()))
