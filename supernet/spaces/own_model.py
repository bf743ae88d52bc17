"""A network that a function of the user's own makes: found by name, called, and filled from a file of weights. All that is wrong with it is
one line."""

import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from supernet.errors import UsageError, did_you_mean
from supernet.files import regular
from supernet.genotype import short

if TYPE_CHECKING:
    from torch import nn

FROM_DATA = ("in_channels", "image_size", "num_classes")  # arguments that the function gets where it takes them


@dataclass(frozen=True)
class Source:
    """How the network is made. function: the user's. arguments: what it is called with beside FROM_DATA. state: a file of its weights."""

    function: Callable[..., "nn.Module"]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def takes(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def made(self, sizes: Mapping[str, Any]) -> "nn.Module":
        """The network, for data of these sizes as far as the function takes them. Raises UsageError: it fails, or makes something else."""
        import torch
        from torch import nn

        wanted = {name: sizes[name] for name in FROM_DATA if name in self.takes() and name in sizes} | dict(self.arguments)
        try:
            model = self.function(**wanted)
        except Exception as error:  # the user's code: whatever it raises
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) != Path(__file__)]
            at = f" at {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
            raise UsageError(f"space.model: {self.name} failed{at} ({_told(error)})") from error
        if not isinstance(model, nn.Module):
            raise UsageError(f"space.model: {self.name} must return a torch.nn.Module, got {type(model).__name__}")
        if next(model.parameters(), None) is None:
            raise UsageError(f"space.model: {self.name} makes a network without parameters")
        other = next((f"{name} is {p.dtype}" for name, p in model.named_parameters() if p.dtype != torch.float32), None)
        if other is not None:
            raise UsageError(f"space.model: {self.name} must make a network of torch.float32, as images are, got {other}")
        if not any(p.requires_grad for p in model.parameters()):
            raise UsageError(f"space.model: {self.name} makes a network of which nothing is trained: requires_grad is False throughout")
        return model


def function_named(model: Any) -> Callable[..., "nn.Module"]:
    """The function itself. Raises UsageError: there is none of that name."""
    if callable(model):
        return model
    module, dot, name = str(model).rpartition(".")
    if not dot:
        raise UsageError(f"space.model must name a function in a file, as my_file.make, got {short(model)}")
    try:
        file = _imported(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"space.model: there is no module {short(error.name)}, which {short(model)} needs, in the folder you start "
                         "from") from error
    except Exception as error:  # the user's file: whatever it raises
        raise UsageError(f"space.model: {module} cannot be imported ({_told(error)})") from error
    try:
        found = getattr(file, name)
    except AttributeError as error:
        raise UsageError(f"space.model: {module} has no {short(name)}{did_you_mean(name, vars(file))}") from error
    if not callable(found):
        raise UsageError(f"space.model: {short(model)} must be a function that makes a network, got {type(found).__name__}")
    return found


def _imported(module: str) -> ModuleType:
    from supernet.data.torchvision_import import MISSING_NMS, import_torchvision  # imports torch

    try:
        return import_module(module)
    except RuntimeError as error:
        if str(error) != MISSING_NMS:
            raise
    import_torchvision()  # what the file imports, and cannot beside this build of torch
    return import_module(module)


def check_arguments(source: Source) -> None:
    taken = source.takes()
    swallows = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    for name in source.arguments:
        if name not in taken and not swallows:
            raise UsageError(f"space.arguments.{name}: {source.name} has no such argument{did_you_mean(name, taken)} (it takes "
                             f"{', '.join(taken) or 'none'})")
    lacking = [name for name, p in taken.items() if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
               and name not in source.arguments and name not in FROM_DATA]
    if lacking:
        raise UsageError(f"space.model: {source.name} needs {lacking[0]}: pass space.arguments={{{lacking[0]}:...}}")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def load_state(model: "nn.Module", path: str, name: str) -> None:
    """The weights of a file that `torch.save(model.state_dict(), path)` wrote. Raises UsageError: it is none, or of another network."""
    import torch

    from supernet.torch_file import load_plain

    try:
        with regular(path) as file:
            state = load_plain(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise UsageError(f"space.state={path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # what a damaged or foreign file makes of torch's reader has many names
        raise UsageError(f"space.state={path}: not a file of weights alone, or a damaged one ({type(error).__name__}): write it by "
                         "torch.save(model.state_dict(), path)") from error
    own = model.state_dict()
    if not isinstance(state, Mapping) or not all(
            isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized for value in state.values()):
        raise UsageError(f"space.state={path}: must hold a state dict, tensors by name, got {type(state).__name__}")
    lacking, foreign = [key for key in own if key not in state], [key for key in state if key not in own]
    if lacking or foreign:
        what = f"it lacks {lacking[0]}" if lacking else f"{name} has no {short(foreign[0])}"
        raise UsageError(f"space.state={path}: is not of {name}: {what} ({len(lacking)} lacking, {len(foreign)} unknown of {len(own)})")
    wrong = next((key for key in own if own[key].shape != state[key].shape), None)
    if wrong is not None:
        raise UsageError(f"space.state={path}: {wrong} must be {tuple(own[wrong].shape)}, as {name} makes it for these data, got "
                         f"{tuple(state[wrong].shape)}")
    model.load_state_dict(state)
