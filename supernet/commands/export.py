"""`python -m supernet.export RUN -o FOLDER`: the network of a final training as plain PyTorch, which needs nothing of this package.

Each file is read again and held against the network before anything stands in FOLDER.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from supernet.errors import Mendable, UsageError

FORMATS = ("pt2", "onnx")  # beside the plain network; as `supernet.exports.formats`, which imports torch
TOLERANCE = 1e-9  # float64, of the largest logit: rounding is a thousandth of it
NOISE = 16  # images (or sequences) of noise that are compared where none are given
IN_DOUBLE = 4  # of them in float64 too
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. arguments: those of the command line unless given."""
    given = parser().parse_args(arguments)
    try:
        check(given)
        for line in exported(given):
            print(line, flush=True)
    except Mendable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: --output {given.output}: cannot write there ({error.strerror or error})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: nothing in {given.output} was changed", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m supernet.export", formatter_class=argparse.RawDescriptionHelpFormatter, description=(
        "Writes the network of a final training as plain PyTorch: a file of torch.nn modules, its weights, the pre-processing and an\n"
        "example. Nothing in the folder needs this package (docs/export.md).\n\n"
        "  python -m supernet.export runs/<run> -o net\n"
        "  python -m supernet.export runs/<run>/weights.pt -o net --formats pt2,onnx --images photos"))
    made.add_argument("run", type=Path, help="the folder of a finished final training, or its weights.pt")
    made.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="new, empty, or of an earlier export")
    made.add_argument("--formats", default="", metavar="NAMES", help=f"beside the plain network: {', '.join(FORMATS)}, or both "
                      "with a comma; onnx needs the extra 'export'")
    made.add_argument("--batch", type=int, metavar="N", help="of pt2 and onnx: the one batch size that they take (default: any)")
    made.add_argument("--steps", type=int, default=1, metavar="N", help="of pt2 and onnx of a recurrent cell: the items read in a call "
                      "(default 1: the hidden state is handed on)")
    made.add_argument("--images", type=Path, nargs="+", default=[], metavar="PATH", help="image files, or folders of them, on which the "
                      "files are compared with the network (default: noise)")
    made.add_argument("--threads", type=int, default=1, metavar="N", help="for the comparison and its times (default 1)")
    return made


def check(given: argparse.Namespace) -> None:
    """What is wrong before anything is imported or read. Raises UsageError."""
    given.formats = [name for name in given.formats.split(",") if name not in ("", "plain")]
    unknown = [name for name in given.formats if name not in FORMATS]
    if unknown:
        raise UsageError(f"--formats must be of {', '.join(FORMATS)} (plain is always written), got {unknown[0]!r}")
    for name in ("batch", "steps", "threads"):
        value = getattr(given, name)
        if value is not None and not 1 <= value <= 4096:
            raise UsageError(f"--{name} must be a whole number of 1 to 4096, got {value}")


def exported(given: argparse.Namespace) -> Iterator[str]:
    """Writes the folder; yields what is told. Raises Mendable errors, OSError."""
    import torch

    from ops.forms import NoPlainForm
    from supernet.exports import folder as folders
    from supernet.exports.comparison import apart, in_batches, milliseconds
    from supernet.exports.formats import FORMATS as formats
    from supernet.exports.formats import check_packages
    from supernet.exports.readers import reader_of
    from supernet.networks.measure import parameters
    from supernet.runs.device import use
    from supernet.runs.loading import load

    check_packages(given.formats)
    earlier = folders.earlier_files(given.output)
    use(threads=given.threads, backend="plain", device="cpu")
    loaded = load(given.run)
    if loaded.weights is not None:
        raise UsageError(f"{given.run}: is a search, whose network still mixes its candidates: train what it found (train_final.py "
                         f"genotype={given.run}/genotype.json) and export that run")
    net = loaded.network
    try:
        block = net.plain()
    except NoPlainForm as error:
        raise UsageError(f"{given.run}: cannot be written as a plain network: {error}") from error
    reader = reader_of(block)
    inputs, what = compared_on(given, loaded, reader)
    dims, batch = tuple(reader.inputs.values()), given.batch or min(32, inputs[0].shape[next(iter(reader.inputs.values()))])
    single = tuple(x.float() if x.is_floating_point() else x for x in inputs)
    record: dict[str, Any] = {"source": str(given.run), "space": loaded.space.name, "genotype": loaded.genotype.to_json(),
                              "torch": torch.__version__, "compared_on": what, "batch": batch, "threads": given.threads,
                              "differences": {}, "same_answer": {}, "milliseconds": {}, "seconds_to_write": {}}

    with folders.beside(given.output) as part, torch.no_grad():
        folders.write_plain(part, block, loaded, reader)
        plain = folders.plain_module(part, torch.float64)
        few = tuple(x.narrow(dim, 0, min(IN_DOUBLE, x.shape[dim])) for x, dim in zip(inputs, dims))
        double = apart(reader.ours(net.double(), few), as_tuple(plain(*few)))
        if not double.of <= TOLERANCE:
            raise UsageError(f"{given.run}: the plain network does not compute the same: in float64 it is {double.of:.1e} of the largest "
                             "logit away (weights that are not finite, or an op of your own whose plain form is something else)")
        net.float(), plain.float()
        yield f"{given.run}: space {loaded.space.name}, {parameters(net) / 1e6:.6f} M parameters"
        yield f"compared on {what}, in batches of {batch}; differences are of the largest logit\n"
        yield f"  {'':8}{'difference':>12}{'same answer':>16}{'ms a batch':>12}{'written in':>12}"
        yield f"  {'float64':8}{double.of:12.1e}{f'{double.agree} of {double.count}':>16}"
        record["differences"]["float64"] = double.of
        ours = in_batches(lambda x: reader.ours(net, x), single, dims, batch)
        first = tuple(x.narrow(dim, 0, min(batch, x.shape[dim])) for x, dim in zip(single, dims))
        record["milliseconds"]["network"] = milliseconds(lambda x: reader.ours(net, x), first)
        yield f"  {'network':8}{'':12}{'':16}{record['milliseconds']['network']:12.1f}"
        for name in ("plain", *given.formats):
            began = time.perf_counter()
            if name == "plain":
                call, told = (lambda x: as_tuple(plain(*x))), ""
            else:
                examples = examples_of(first, dims, given.batch)
                formats[name].write(plain, examples, reader.inputs, reader.outputs, given.batch is None, part / formats[name].file)
                record["seconds_to_write"][name] = time.perf_counter() - began
                told = f"{record['seconds_to_write'][name]:.1f} s"
                call = formats[name].read(part / formats[name].file, given.threads)
            seen = apart(ours, in_batches(call, single, dims, batch))
            record["differences"][name], record["milliseconds"][name] = seen.of, milliseconds(call, first)
            record["same_answer"][name] = [seen.agree, seen.count]
            line = f"  {name:8}{seen.of:12.1e}{f'{seen.agree} of {seen.count}':>16}{record['milliseconds'][name]:12.1f}{told:>12}"
            yield line.rstrip()
        names = folders.move(part, given.output, earlier, record)
    yield f"\nwritten   {given.output}: {', '.join(names)}"


def compared_on(given: argparse.Namespace, loaded: Any, reader: Any) -> tuple[tuple[Any, ...], str]:
    """Inputs of float64, and what they are. Raises UsageError, DataError."""
    import torch
    from PIL import Image, UnidentifiedImageError

    if not given.images:
        inputs = reader.noise(loaded.network, loaded.preprocess, given.batch or NOISE, given.steps, torch.Generator().manual_seed(0))
        return inputs, f"{inputs[0].shape[next(iter(reader.inputs.values()))]} inputs of noise"
    if loaded.preprocess is None or list(reader.inputs) != ["x"]:
        raise UsageError(f"--images: {given.run} reads no pictures of which it is known how they are prepared: leave the option out")
    paths = [file for path in given.images for file in (sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path])]
    if not paths:
        raise UsageError(f"--images {given.images[0]}: there is no file in that folder")
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as image:
                pictures.append(loaded.preprocess.pixels(image))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UsageError(f"--images {path}: cannot be read as an image ({' '.join(str(error).split())[:150]})") from error
    return (loaded.preprocess(torch.stack(pictures)).double(),), f"{len(paths)} image files"


def examples_of(first: tuple[Any, ...], dims: tuple[int, ...], batch: int | None) -> tuple[Any, ...]:
    """What a format is made from: a batch of 2 where it may have any size, as one of 1 would be taken for a constant; else one of that
    size."""
    import torch

    size = 2 if batch is None else batch
    return tuple(x.index_select(dim, torch.arange(size) % x.shape[dim]).contiguous() for x, dim in zip(first, dims))


def as_tuple(found: Any) -> tuple[Any, ...]:
    return found if type(found) is tuple else (found,)


def command() -> None:
    """The console command."""
    sys.exit(main())
