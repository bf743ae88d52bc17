"""Files that other programs read, made of a plain network: PyTorch's own (`torch.export`, .pt2) and ONNX."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from supernet.errors import UsageError

Call = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Format:
    """How a plain module becomes a file, and how the file is run again.

    packages: beside PyTorch, by the names that they are imported as. write: (module, examples, names and batch dimensions of inputs and
    outputs, whether the batch may have any size, path). read: the file as a function of the inputs, on so many threads.
    """

    file: str
    packages: tuple[str, ...]
    write: Callable[[nn.Module, tuple[Tensor, ...], Mapping[str, int], Mapping[str, int], bool, Path], None]
    read: Callable[[Path, int], Call]


def write_pt2(module: nn.Module, examples: tuple[Tensor, ...], inputs: Mapping[str, int], outputs: Mapping[str, int], dynamic: bool,
              path: Path) -> None:
    with quiet():
        torch.export.save(torch.export.export(module, examples, dynamic_shapes=_shapes(inputs, dynamic)), path)


def read_pt2(path: Path, threads: int) -> Call:
    with quiet():
        return _tuples(torch.export.load(path).module())


def write_onnx(module: nn.Module, examples: tuple[Tensor, ...], inputs: Mapping[str, int], outputs: Mapping[str, int], dynamic: bool,
               path: Path) -> None:
    """One file, checked by ONNX itself."""
    import onnx

    with quiet():
        program = torch.onnx.export(module, examples, dynamo=True, dynamic_shapes=_shapes(inputs, dynamic), input_names=list(inputs),
                                    output_names=list(outputs), external_data=False, verbose=False)
        program.save(path, external_data=False)
        onnx.checker.check_model(str(path), full_check=True)


def read_onnx(path: Path, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: tuple(torch.from_numpy(y) for y in session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)}))


FORMATS = {"pt2": Format("network.pt2", (), write_pt2, read_pt2),
           "onnx": Format("network.onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx, read_onnx)}


def check_packages(formats: Sequence[str]) -> None:
    """Raises UsageError: a format needs packages that are not here."""
    for name in formats:
        need(f"format {name}", FORMATS[name].packages, "export")


def need(what: str, packages: Sequence[str], extra: str) -> None:
    """Raises UsageError: `what` needs packages, by the names that they are imported as, that are not here and that `extra` brings."""
    if absent := missing(packages):
        raise UsageError(f"{what} needs {', '.join(absent)}, not installed here: pip install "
                         f"{' '.join(package.replace('_', '-') for package in absent)}, or the extra {extra!r} of this package")


def missing(packages: Sequence[str]) -> list[str]:
    return [package for package in packages if importlib.util.find_spec(package) is None]


def _shapes(inputs: Mapping[str, int], dynamic: bool) -> tuple[dict[int, torch.export.Dim], ...] | None:
    batch = torch.export.Dim("batch", min=1)
    return tuple({dim: batch} for dim in inputs.values()) if dynamic else None


def _tuples(call: Callable[..., Tensor | tuple[Tensor, ...]]) -> Call:
    def called(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found = call(*inputs)
        return found if type(found) is tuple else (found,)

    return called


@contextlib.contextmanager
def quiet(logs: int = logging.WARNING) -> Iterator[None]:
    """What exporters say of their own insides is nothing that the user can act on. logs: up to this level."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logs)
        try:
            yield
        finally:
            logging.disable(level)
