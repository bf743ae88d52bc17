"""`export`: the network of a final training as a folder of files that need nothing of this package, each held against the network."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from ops.forms import NoPlainForm
from supernet.errors import UsageError
from supernet.exports.comparison import Call, apart, in_batches, milliseconds
from supernet.exports.folder import beside, earlier_files, move, plain_module, write_plain
from supernet.exports.formats import FORMATS, check_packages
from supernet.exports.readers import Reader, reader_of
from supernet.interfaces import check_interface
from supernet.networks.measure import parameters
from supernet.networks.written import WritesItself
from supernet.ranges import Count, ranged
from supernet.runs.loading import Loaded

Tensors = tuple[Tensor, ...]
TOLERANCE = 1e-9  # float64, of the largest logit: rounding is a thousandth of it
NOISE = 16  # images (or sequences) of noise that are compared where none are given
BATCH = 32  # of the comparison, where there are as many
IN_DOUBLE = 4  # images that are compared in float64 too


@ranged
def export(loaded: Loaded, output: str | Path, *, source: str = "the network", formats: Sequence[str] = (), batch: Count | None = None,
           steps: Count = 1, images: Sequence[Path] = ()) -> Iterator[str]:
    """Writes the folder, and yields line by line what is told, so it must be gone through; nothing is in `output` before all is compared.

    loaded: from `supernet.load`, of a final training. source: what messages call it. formats: of `formats.FORMATS`, beside the plain
    network. batch: the one size that those take; None for any. steps: of a text, the items that they read in a call. images: files or
    folders on which all is compared; noise where there are none. Threads are those of the process. Raises Mendable errors, OSError.
    """
    output = Path(output)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UsageError(f"formats must be of {', '.join(FORMATS)}, got {unknown[0]!r}")
    check_packages(formats)
    earlier = earlier_files(output)
    if loaded.weights is not None:
        raise UsageError(f"{source}: is a search, whose network still mixes its candidates: train what it found (train_final.py "
                         f"genotype={source}/genotype.json) and export that run")
    net = loaded.network
    check_interface(net, WritesItself, f"the network of space {loaded.space.name}")
    if {p.device.type for p in net.parameters()} - {"cpu"}:
        raise UsageError(f"{source}: is compared on the CPU, and lies elsewhere: load it with device='cpu'")
    try:
        block = net.plain()
        reader = reader_of(block)
    except NoPlainForm as error:
        raise UsageError(f"{source}: cannot be written as a plain network: {error}") from error
    dims = tuple(reader.inputs.values())
    inputs, what = _inputs(loaded, reader, source, images, batch, steps)
    count = inputs[0].shape[dims[0]]
    in_one = batch or min(BATCH, count)
    few, single = _first(inputs, dims, min(IN_DOUBLE, count)), tuple(x.float() if x.is_floating_point() else x for x in inputs)
    shown = _first(single, dims, in_one)
    record: dict[str, Any] = {"source": source, "space": loaded.space.name, "genotype": loaded.genotype.to_json(),
                              "torch": torch.__version__, "compared_on": what, "batch": in_one, "threads": torch.get_num_threads(),
                              "differences": {}, "same_answer": {}, "milliseconds": {}, "seconds_to_write": {}}

    def ours(x: Tensors) -> Tensors:
        return reader.ours(net, x)

    with beside(output) as part, torch.no_grad():
        write_plain(part, block, loaded, reader)
        plain = plain_module(part)
        yield f"{source}: space {loaded.space.name}, {parameters(net) / 1e6:.6f} M parameters"
        yield f"compared on {what}, in batches of {in_one}; differences are of the largest logit\n"
        yield f"  {'':8}{'difference':>12}{'same answer':>16}{'ms a batch':>12}{'written in':>12}"
        with _doubled(net, plain):
            double = apart(ours(few), as_tuple(plain(*few)))
        if not double.of <= TOLERANCE:
            raise UsageError(f"{source}: the plain network does not compute the same: in float64 it is {double.of:.1e} of the largest "
                             "logit away (weights that are not finite, or an op of your own whose plain form is something else)")
        record["differences"]["float64"] = double.of
        yield f"  {'float64':8}{double.of:12.1e}{f'{double.agree} of {double.count}':>16}"
        wanted = in_batches(ours, single, dims, in_one)
        record["milliseconds"]["network"] = milliseconds(ours, shown)
        yield f"  {'network':8}{'':28}{record['milliseconds']['network']:12.1f}"
        calls: dict[str, Call | None] = {"plain": lambda x: as_tuple(plain(*x)), **dict.fromkeys(formats)}
        for name, call in calls.items():
            told = ""
            if call is None:
                call, seconds = _written(name, plain, _first(single, dims, batch or 2), reader, batch is None, part)
                record["seconds_to_write"][name], told = seconds, f"{seconds:.1f} s"
            seen = apart(wanted, in_batches(call, single, dims, in_one))
            record["differences"][name], record["milliseconds"][name] = seen.of, milliseconds(call, shown)
            record["same_answer"][name] = [seen.agree, seen.count]
            line = f"  {name:8}{seen.of:12.1e}{f'{seen.agree} of {seen.count}':>16}{record['milliseconds'][name]:12.1f}{told:>12}"
            yield line.rstrip()
        names = move(part, output, earlier, record)
    yield f"\nwritten   {output}: {', '.join(names)}"


def _written(name: str, plain: nn.Module, examples: Tensors, reader: Reader, dynamic: bool, part: Path) -> tuple[Call, float]:
    """The file of a format, read again; and the seconds that it took to write. examples: of 2 where the batch may have any size, as one of
    1 would be taken for a constant."""
    kind, began = FORMATS[name], time.perf_counter()
    kind.write(plain, examples, reader.inputs, reader.outputs, dynamic, part / kind.file)
    seconds = time.perf_counter() - began
    return kind.read(part / kind.file, torch.get_num_threads()), seconds


def _inputs(loaded: Loaded, reader: Reader, source: str, images: Sequence[Path], batch: int | None, steps: int) -> tuple[Tensors, str]:
    """Inputs of float64, and what they are. Raises UsageError, DataError."""
    if not images:
        number = batch or NOISE
        return reader.noise(loaded.network, loaded.preprocess, number, steps, torch.Generator().manual_seed(0)), f"{number} inputs of noise"
    if not reader.reads_pictures or loaded.preprocess is None:
        raise UsageError(f"images: {source} reads no pictures of which it is known how they are prepared: leave them out")
    paths = [file for path in images for file in (sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path])]
    if not paths:
        raise UsageError(f"images: there is no file in {images[0]}")
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as image:
                pictures.append(loaded.preprocess.pixels(image))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UsageError(f"images: {path} cannot be read as an image ({' '.join(str(error).split())[:150]})") from error
    return (loaded.preprocess(torch.stack(pictures)).double(),), f"{len(paths)} image files"


def _first(inputs: Tensors, dims: Sequence[int], number: int) -> Tensors:
    """The first so many inputs; where there are fewer they begin again."""
    return tuple(x.index_select(dim, torch.arange(number) % x.shape[dim]).contiguous() for x, dim in zip(inputs, dims))


@contextlib.contextmanager
def _doubled(*modules: nn.Module) -> Iterator[None]:
    """Within, they compute in float64."""
    for module in modules:
        module.double()
    try:
        yield
    finally:
        for module in modules:
            module.float()


def as_tuple(found: Tensor | Tensors) -> Tensors:
    return found if type(found) is tuple else (found,)
